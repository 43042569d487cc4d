"""The rows of the mixtures that had a name before there were parts, as they were then, bit for bit."""

import hashlib

import numpy as np
import pytest

from flan_jax import styles
from flan_jax.data import token_store
from flan_jax.data.mixture_stream import open_mixture
from flan_jax.data.vocabularies import ByteTokenizer

BYTES = ByteTokenizer()
RECORDS = {"rte": 90, "snli": 4000, "sst2": 700, "bool_q": 350, "copa": 25, "e2e_nlg": 3500, "wmt14_enfr": 500}

# Recorded at revision 31c732d, the last before mixtures were lists of parts.
DIGESTS = {
    ("flan", 0, False): "e77eaf06dbb40b1c96b549346a122e94",
    ("flan_without_nli", 7, False): "9b5e344495466005c69909040d1bd3b1",
    ("flan_without_nli", 7, True): "25ada629fc319dec330983c7e7c2a7aa",
    ("flan_without_sentiment_2_datasets", 1, False): "7856115c08c2a0ea1b6c90891930b514",
    ("flan_first_3_clusters", 0, False): "7737ebd7c4f48569e1020e644328520c",
    ("flan_without_translation_no_template", 3, False): "606c26138b2e90089633c18b5a6315a9",
    ("rte", 0, False): "3a48528e2da1fd1ac623a9f77f8141e4",
    ("flan_snli", 2, False): "4654117837e8ae540771ad96a566b83f",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for style in ("instructions", "no_template"):
        rng = np.random.default_rng(len(style))
        where = token_store.folder_of(folder, BYTES.fingerprint, styles.parse(style))
        for name, count in RECORDS.items():
            renderings = 3 if count < 1000 else 1
            examples = [
                token_store.TokenizedExample(
                    rng.integers(3, 250, rng.integers(4, 60)).tolist(),
                    rng.integers(3, 250, rng.integers(1, 9)).tolist(),
                    int(rng.integers(10)),
                    record,
                )
                for _ in range(renderings)
                for record in range(count)
            ]
            info = {"num_records": count, "renderings": renderings, "vocab_size": BYTES.vocab_size}
            token_store.write_dataset(where / name, info, examples)
    return folder


@pytest.mark.parametrize("asked", DIGESTS, ids=str)
def test_rows_are_drawn_and_packed_as_before(prepared, asked):
    mixture, seed, encoder_decoder = asked
    lengths = {"inputs": 96, "targets": 24}
    how = {"seed": seed, "rows_per_batch": 4, "lengths": lengths, "encoder_decoder": encoder_decoder}
    composition, stream = open_mixture(mixture, prepared, BYTES, **how)
    found = hashlib.sha256(repr([(m.dataset, m.examples, m.rate, m.share) for m in composition.members]).encode())
    for step in (0, 1, 2, 200, 10**6):
        for name, array in sorted(stream.batch(step).items()):
            found.update(f"{name} {array.dtype} {array.shape}".encode())
            found.update(array.tobytes())
    assert found.hexdigest()[:32] == DIGESTS[asked]

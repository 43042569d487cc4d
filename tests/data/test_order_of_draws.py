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

# As they were before mixtures were lists of parts (31c732d), and before draws that have no room were given up in the
# order of drawing (79ae6cd): rows of these lengths have room for nearly all.
DIGESTS = {
    ("flan", 0, False): "42141b10c8388be459db6d9bacd28719",
    ("flan_without_nli", 7, False): "87a8c6450c22c81c056c9369188e7acc",
    ("flan_without_nli", 7, True): "ccb0e2575f600a3c7d3ebd061382bc8a",
    ("flan_without_sentiment_2_datasets", 1, False): "b865b5dfb6110c05443a3744cc2e3344",
    ("flan_first_3_clusters", 0, False): "537c815041fa445722078d8a39ecd539",
    ("flan_without_translation_no_template", 3, False): "ede86009131a2de7c2844f77921ac6ac",
    ("rte", 0, False): "5aec786c0d72b4d1919f62f82a02767a",
    ("flan_snli", 2, False): "ded6e515451061ce0bac024ef0c58be7",
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
    lengths = {"inputs": 960, "targets": 240}
    how = {"seed": seed, "rows_per_batch": 4, "lengths": lengths, "encoder_decoder": encoder_decoder}
    composition, stream = open_mixture(mixture, prepared, BYTES, **how)
    found = hashlib.sha256(repr([(m.dataset, m.examples, m.rate, m.share) for m in composition.members]).encode())
    for step in (0, 1, 2, 200, 10**6):
        for name, array in sorted(stream.batch(step).items()):
            found.update(f"{name} {array.dtype} {array.shape}".encode())
            found.update(array.tobytes())
    assert found.hexdigest()[:32] == DIGESTS[asked]

import json
import shutil

import numpy as np
import pytest

from flan_jax import prepare
from flan_jax.data import token_store
from flan_jax.data.mixture_stream import open_mixture
from flan_jax.data.stream import Stream
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError

BYTES = ByteTokenizer()
SMALL = {"lengths": {"inputs": 24, "targets": 8}, "rows_per_batch": 2, "seed": 5}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for name, count in (("rte", 40), ("sst2", 8), ("bool_q", 5)):
        examples = [token_store.TokenizedExample([n + 3] * 9, [n + 4], 0, n) for n in range(count)]
        info = {"num_records": count, "renderings": 1, "vocab_size": BYTES.vocab_size}
        token_store.write_dataset(token_store.folder_of(folder, BYTES.fingerprint) / name, info, examples)
    return folder


@pytest.mark.parametrize("encoder_decoder", [False, True])
def test_it_is_the_stream_of_what_is_there(prepared, encoder_decoder):
    composition, found = open_mixture("flan_without_nli", prepared, BYTES, encoder_decoder=encoder_decoder, **SMALL)
    assert found.parts == ("sst2", "bool_q") == tuple(m.dataset for m in composition.members)
    store = token_store.TokenStore.open(prepared, BYTES.fingerprint)
    expected = Stream(
        store,
        {"sst2": 8.0, "bool_q": 5.0},
        seed=5,
        row_length=24 if encoder_decoder else 32,
        target_length=8,
        rows_per_batch=2,
        bos_id=None,
        eos_id=1,
        encoder_decoder=encoder_decoder,
    )
    for name, array in expected.batch(3).items():
        np.testing.assert_array_equal(found.batch(3)[name], array)


def test_some_of_its_datasets(prepared):
    assert open_mixture("flan", prepared, BYTES, datasets=("bool_q",), **SMALL)[1].parts == ("bool_q",)
    assert open_mixture("flan", prepared, BYTES, datasets=["bool_q", "rte"], **SMALL)[1].parts == ("rte", "bool_q")


@pytest.mark.parametrize(
    ("mixture", "datasets", "message"),
    [
        ("flam", (), "unknown mixture 'flam'"),
        ("flan_without_nli", ("rte",), "unknown dataset of mixture 'flan_without_nli' 'rte'"),
        ("flan", ("sst",), "did you mean 'sst2'"),
        ("flan", ("cb",), "dataset 'cb' is not in .*; there are: bool_q, rte, sst2"),
        ("flan_no_template", (), "and style no_template; run"),
    ],
)
def test_what_is_not_there_is_named(prepared, mixture, datasets, message):
    with pytest.raises(FlanError, match=message):
        open_mixture(mixture, prepared, BYTES, datasets=datasets, **SMALL)


def test_nothing_of_a_mixture_is_there(prepared, tmp_path):
    folder = token_store.folder_of(tmp_path, BYTES.fingerprint)
    folder.mkdir(parents=True)
    with pytest.raises(FlanError, match="holds none of its datasets for this vocabulary"):
        open_mixture("flan", tmp_path, BYTES)
    with pytest.raises(FlanError, match="--mixture=flan --data=FOLDER --vocabulary=CHECKPOINT/vocabulary --to="):
        open_mixture("flan", tmp_path, BYTES)


def test_a_dataset_of_ones_own_is_prepared_from_its_file_again(tmp_path):
    """No mixture has its name, as far as `prepare --mixture` knows."""
    lines = [{"prompt": f"What is {n}?", "target": "A number."} for n in range(30)]
    (tmp_path / "larger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare.main([f"--jsonl={tmp_path / 'larger.jsonl'}", f"--to={tmp_path / 'prepared'}"])
    shutil.rmtree(token_store.folder_of(tmp_path / "prepared", BYTES.fingerprint) / "larger")
    wanted = r"prepare --jsonl=larger\.jsonl --name=larger --vocabulary=CHECKPOINT/vocabulary --to="
    with pytest.raises(FlanError, match=wanted):
        open_mixture("larger", tmp_path / "prepared", BYTES)

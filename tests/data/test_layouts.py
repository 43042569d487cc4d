"""Rows written by hand, and the encoder-decoder's rows of a stream taken apart again."""

import collections

import numpy as np
import pytest

from flan_jax.data import token_store
from flan_jax.data.layouts import DecoderLayout, EncoderDecoderLayout
from flan_jax.data.stream import Stream
from flan_jax.data.token_store import TokenizedExample, TokenStore
from flan_jax.errors import FlanError

FINGERPRINT = "cd" * 32
BOS, EOS = 2, 1
ROW = [(4, np.array([0, 11, 12]), np.array([13])), (1, np.array([14]), np.array([0, 16]))]


def _rows(batch):
    assert all(x.dtype == (np.float32 if name == "weights" else np.int32) for name, x in batch.items())
    return {name: x[0].tolist() for name, x in batch.items()}


def test_a_decoders_row():
    assert _rows(DecoderLayout(15, 6, BOS, EOS).batch([ROW])) == {
        "tokens": [BOS, 0, 11, 12, EOS, 13, EOS, BOS, 14, EOS, 0, 16, EOS, 0, 0],
        "positions": [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 0, 0],
        "segments": [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0, 0],
        "target_positions": [4, 5, 9, 10, 11, 0],
        "targets": [13, EOS, 0, 16, EOS, 0],
        "weights": [1, 1, 1, 1, 1, 0],
        "dataset_ids": [4, 4, 1, 1, 1, 0],
    }


@pytest.mark.parametrize("bos", [None, BOS])
def test_an_encoder_decoders_row(bos):
    encoder = [0, 11, 12, EOS, 14, EOS, 0, 0, 0]
    positions, segments = [0, 1, 2, 3, 0, 1, 0, 0, 0], [1, 1, 1, 1, 2, 2, 0, 0, 0]
    if bos is not None:
        encoder = [BOS, 0, 11, 12, EOS, BOS, 14, EOS, 0]
        positions, segments = [0, 1, 2, 3, 4, 0, 1, 2, 0], [1, 1, 1, 1, 1, 2, 2, 2, 0]
    assert _rows(EncoderDecoderLayout(9, 6, bos, EOS).batch([ROW])) == {
        "encoder_tokens": encoder,
        "encoder_positions": positions,
        "encoder_segments": segments,
        "tokens": [0, 13, 0, 0, 16, 0],
        "positions": [0, 1, 0, 1, 2, 0],
        "segments": [1, 1, 2, 2, 2, 0],
        "targets": [13, EOS, 0, 16, EOS, 0],
        "weights": [1, 1, 1, 1, 1, 0],
        "dataset_ids": [4, 4, 1, 1, 1, 0],
    }


@pytest.mark.parametrize("layout", [DecoderLayout, EncoderDecoderLayout])
@pytest.mark.parametrize("bos", [None, BOS])
def test_sizes_are_what_is_written(layout, bos):
    made = layout(15, 6, bos, EOS)
    lengths, targets = made.sizes(*(np.array([len(example[i]) for example in ROW]) for i in (1, 2)))
    batch = made.batch([ROW])
    segments = batch["encoder_segments" if "encoder_segments" in batch else "segments"]
    np.testing.assert_array_equal([(segments == s).sum() for s in (1, 2)], lengths)
    assert targets.sum() == batch["weights"].sum()
    assert made.filled(lengths, targets) == sum((x > 0).sum() for name, x in batch.items() if name.endswith("segments"))
    assert made.slots == sum(x.shape[1] for name, x in batch.items() if name.endswith("segments"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Random examples of two datasets, with id 0 among their tokens; some of snli are too long for 40 slots."""
    folder = tmp_path_factory.mktemp("prepared")
    for seed, (name, longest) in enumerate({"rte": 20, "snli": 44}.items()):
        rng = np.random.default_rng(seed)
        examples = [
            TokenizedExample(
                rng.integers(0, 9, rng.integers(1, longest)).tolist(),
                rng.integers(0, 9, rng.integers(1, 7)).tolist(),
                0,
                i,
            )
            for i in range(200)
        ]
        info = {"num_records": 200, "renderings": 1, "vocab_size": 9}
        token_store.write_dataset(token_store.folder_of(folder, FINGERPRINT) / name, info, examples)
    return TokenStore.open(folder, FINGERPRINT)


def _stream(store, **more):
    arguments = {"row_length": 40, "target_length": 12, "rows_per_batch": 4, "block_rows": 32, "encoder_decoder": True}
    return Stream(store, {"rte": 1.0, "snli": 3.0}, seed=0, bos_id=None, eos_id=EOS, **(arguments | more))


def test_a_streams_rows_hold_whole_examples_of_the_store(store):
    stream = _stream(store)
    known = {
        (name, tuple(inputs), tuple(targets))
        for name in stream.parts
        for inputs, targets in (store[name].example(i) for i in range(200))
    }
    drawn = collections.Counter()
    for step in range(8):
        batch = stream.batch(step)
        for b in range(4):
            row = {name: x[b] for name, x in batch.items()}
            assert row["segments"].max() == row["encoder_segments"].max() > 0
            for segment in range(1, row["segments"].max() + 1):
                mine, encoder = row["segments"] == segment, row["encoder_segments"] == segment
                inputs, tokens, targets = row["encoder_tokens"][encoder], row["tokens"][mine], row["targets"][mine]
                assert inputs[-1] == targets[-1] == EOS and tokens[0] == 0
                np.testing.assert_array_equal(tokens[1:], targets[:-1])
                np.testing.assert_array_equal(row["positions"][mine], np.arange(mine.sum()))
                np.testing.assert_array_equal(row["encoder_positions"][encoder], np.arange(encoder.sum()))
                assert (row["weights"][mine] == 1).all()
                (number,) = set(row["dataset_ids"][mine].tolist())
                example = (stream.parts[number], tuple(inputs[:-1]), tuple(targets[:-1]))
                assert example in known
                drawn[example] += 1
            assert row["weights"].sum() == (row["segments"] > 0).sum()
    assert len(drawn) > 50
    assert stream.excluded.keys() == {"snli"}


def test_both_sides_count_in_the_report(store):
    report = _stream(store).report()
    batches = [_stream(store).batch(step) for step in range(16)]  # two blocks
    filled = sum((b["segments"] > 0).sum() + (b["encoder_segments"] > 0).sum() for b in batches)
    assert report["fill"] == pytest.approx(filled / (16 * 4 * 52))
    assert _stream(store).slots_per_step == 4 * 52


def test_hosts_share_the_batch(store):
    whole, part = _stream(store).batch(5), _stream(store).batch(5, slice(2, 4))
    for name, x in part.items():
        np.testing.assert_array_equal(x, whole[name][2:4])


def test_examples_that_fit_no_row(store):
    with pytest.raises(FlanError, match="no example of 200 fits a row of 40 slots with 1 target slots"):
        _stream(store, target_length=1)

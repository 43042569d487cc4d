"""What the targets of rows weigh, and rows whose inputs carry loss too."""

import numpy as np
import pytest

from flan_jax.data import token_store
from flan_jax.data.layouts import DecoderLayout, EncoderDecoderLayout
from flan_jax.data.mixture_stream import open_mixture
from flan_jax.data.stream import Stream
from flan_jax.data.token_store import TokenizedExample
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.values import PER_EXAMPLE, PER_TOKEN

BYTES = ByteTokenizer()
BOS, EOS = 2, 1
ROW = [(4, np.array([0, 11, 12]), np.array([13])), (1, np.array([14]), np.array([0, 16]))]


@pytest.mark.parametrize("layout", [DecoderLayout, EncoderDecoderLayout])
def test_weights(layout):
    def weights(averaging, of_datasets=None, rows=(ROW,)):
        return layout(15, 6, None, EOS, averaging).batch(rows, of_datasets)["weights"][0].tolist()

    third = pytest.approx(1 / 3)
    assert weights(PER_TOKEN) == [1, 1, 1, 1, 1, 0]
    assert weights(PER_EXAMPLE) == [0.5, 0.5, third, third, third, 0]
    assert weights(PER_TOKEN, [9, 2, 9, 9, 0.5]) == [0.5, 0.5, 2, 2, 2, 0]
    assert weights(PER_EXAMPLE, [9, 3, 9, 9, 0]) == [0, 0, 1, 1, 1, 0]
    empty = (0, np.array([5]), np.array([], np.int32))  # its EOS alone is a target
    assert weights(PER_EXAMPLE, rows=[[empty, ROW[0]]]) == [1, 0.5, 0.5, 0, 0, 0]
    with pytest.raises(FlanError, match="loss_averaging is 'per_row'"):
        weights("per_row")


@pytest.mark.parametrize("bos", [None, BOS])
def test_a_row_whose_inputs_carry_loss(bos):
    """All of a segment but its first token is predicted, the separator too, and nothing across segments."""
    layout = DecoderLayout(15, 15, bos, EOS, PER_EXAMPLE, on_inputs=True)
    batch = {name: x[0] for name, x in layout.batch([ROW]).items()}
    sequences = [[0, 11, 12, EOS, 13, EOS], [14, EOS, 0, 16, EOS]]
    sequences = [sequence if bos is None else [bos, *sequence] for sequence in sequences]
    used = batch["weights"] > 0
    assert batch["targets"][used].tolist() == sequences[0][1:] + sequences[1][1:]
    assert (batch["tokens"][batch["target_positions"][used] + 1] == batch["targets"][used]).all()
    segments = [batch["segments"][batch["target_positions"][used] + k] for k in (0, 1)]
    np.testing.assert_array_equal(*segments)
    of_segments = [batch["weights"][used][segments[0] == s].sum() for s in (1, 2)]
    np.testing.assert_allclose(of_segments, 1, rtol=1e-6)
    lengths, targets = layout.sizes(*(np.array([len(example[i]) for example in ROW]) for i in (1, 2)))
    assert lengths.tolist() == [len(s) for s in sequences] and targets.tolist() == [len(s) - 1 for s in sequences]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("prepared"), np.random.default_rng(0)
    for name in ("rte", "snli"):
        sizes = zip(rng.integers(1, 40, 60), rng.integers(1, 20, 60), strict=True)
        examples = [
            TokenizedExample(rng.integers(3, 99, n).tolist(), rng.integers(3, 99, m).tolist(), 0, i)
            for i, (n, m) in enumerate(sizes)
        ]
        info = {"num_records": 60, "renderings": 1, "vocab_size": BYTES.vocab_size}
        token_store.write_dataset(token_store.folder_of(folder, BYTES.fingerprint) / name, info, examples)
    return folder


def _open(prepared, **more):
    return open_mixture("flan", prepared, BYTES, rows_per_batch=4, lengths={"inputs": 60, "targets": 20}, **more)[1]


def test_target_slots_hold_the_inputs_too(prepared):
    stream = _open(prepared, loss_on_inputs=True, loss_averaging=PER_EXAMPLE)
    assert (stream.row_length, stream.target_length) == (80, 80)
    assert _open(prepared).target_length == 20
    for step in range(3):
        batch = stream.batch(step)
        for row in range(4):
            segments = stream.segments(step, row)
            assert (batch["weights"][row] > 0).sum() == sum(segment.length - 1 for segment in segments)
            np.testing.assert_allclose(batch["weights"][row].sum(), len(segments), rtol=1e-5)
    assert stream.report()["fill"] > 0.9


def test_weights_change_no_row(prepared):
    """What targets weigh is a matter of the loss: rows and their order stay, bit for bit."""
    streams = [_open(prepared, loss_averaging=averaging) for averaging in (PER_TOKEN, PER_EXAMPLE)]
    for step in range(2):
        one, other = (stream.batch(step) for stream in streams)
        assert {name for name in one if not np.array_equal(one[name], other[name])} == {"weights"}


def test_an_encoder_has_no_loss(prepared):
    with pytest.raises(FlanError, match=r"^LOSS_ON_INPUTS is True, and an encoder-decoder .* set LOSS_ON_INPUTS=False"):
        _open(prepared, loss_on_inputs=True, encoder_decoder=True)
    with pytest.raises(FlanError, match=r"^loss_averaging is 'tokens'"):
        _open(prepared, loss_averaging="tokens")
    store = token_store.TokenStore.open(prepared, BYTES.fingerprint)
    with pytest.raises(FlanError, match=r"^LOSS_ON_INPUTS is True"):
        Stream(store, {"rte": 1.0}, seed=0, bos_id=None, eos_id=1, encoder_decoder=True, loss_on_inputs=True)

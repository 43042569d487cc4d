"""What a step minimises, against each example alone, unpacked and unpadded, by optax's cross entropy and T5X's formula.

Whatever the rows, their order, the microbatches and the devices, the gradient is that of the examples one at a time.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flan_jax import configuration, models, partitioning
from flan_jax.data.layouts import DecoderLayout, EncoderDecoderLayout
from flan_jax.errors import FlanError
from flan_jax.training import cross_entropy, loss
from flan_jax.training.loss import Objective
from flan_jax.training.state import TrainState, make_train_step, state_shardings
from flan_jax.values import PER_EXAMPLE, PER_TOKEN

SMALL = {"vocab_size": 37, "num_layers": 2, "embed_dim": 16, "head_dim": 8, "mlp_dim": 24, "remat": "none"}
NETWORK = models.build(configuration.model_config("tiny", SMALL))
T5 = models.build(configuration.model_config("tiny_t5", SMALL | {"num_heads": 2, "num_kv_heads": 2}))
BOS, EOS, ALONE, DATASETS = 2, 1, 9, 3
KEEP = optax.GradientTransformation(lambda params: None, lambda updates, state, params=None: (updates, updates))
Z_LOSS, SMOOTHING = 0.02, 0.1
ALL = Objective(z_loss=Z_LOSS, label_smoothing=SMOOTHING)
DROPPING = dataclasses.replace(ALL, dropout_rate=0.2)


def _examples():
    """Nine slots each alone, with 0 to 5 target tokens: (dataset, inputs, targets)."""
    rng = np.random.default_rng(0)
    sizes = [0, 5, 1, 2, 5, 3, 4]
    return [(i % DATASETS, rng.integers(3, 37, 6 - n), rng.integers(3, 37, n)) for i, n in enumerate(sizes)]


EXAMPLES = _examples()
ROWS = [[0, 1, 2], [3, 6], [], [4, 5]]
OTHER_ROWS = [[6], [5, 0], [2, 4], [3, 1]]


def _batch(rows, averaging=PER_TOKEN, weights=None, on_inputs=False):
    layout = DecoderLayout(28, 28 if on_inputs else 14, BOS, EOS, averaging, on_inputs)
    return layout.batch([[EXAMPLES[i] for i in row] for row in rows], weights)


@pytest.fixture(scope="module")
def params():
    return jax.jit(NETWORK.init)(jax.random.key(0))


@functools.cache
def _step(objective, microbatches, network):
    step = make_train_step(network, KEEP, DATASETS, microbatches, objective=objective, seed=3)
    return jax.jit(step)


def _gradient(params, batch, objective=ALL, microbatches=1, network=NETWORK, at=0):
    """What the optimizer is given, and the step's sums."""
    state, metrics = _step(objective, microbatches, network)(TrainState(jnp.int32(at), params, None), batch)
    return state.opt_state, jax.device_get(metrics)


@jax.jit
@functools.partial(jax.grad, has_aux=True)
def _alone(params, tokens_N, weights_N):
    """A sum over one example's tokens, as T5X writes it: soft targets, their entropy, the squared logarithm of Z."""
    slots = [tokens_N[None], jnp.arange(ALONE)[None], jnp.ones((1, ALONE), jnp.int32)]
    logits_NxV = NETWORK.logits(params, NETWORK.hidden(params, *slots)[0])[:-1]
    nll_N = optax.softmax_cross_entropy_with_integer_labels(logits_NxV, tokens_N[1:])
    on, off = 1 - SMOOTHING, SMOOTHING / 36
    soft_NxV = jnp.where(jax.nn.one_hot(tokens_N[1:], 37) > 0, on, off)
    entropy = -(on * np.log(on) + 36 * off * np.log(off + 1e-20))
    minimised_N = optax.softmax_cross_entropy(logits_NxV, soft_NxV) - entropy
    minimised_N += Z_LOSS * jax.nn.logsumexp(logits_NxV, axis=-1) ** 2
    return (minimised_N * weights_N).sum(), jnp.stack([(nll_N * weights_N).sum(), (minimised_N * weights_N).sum()])


def _expected(params, averaging, weights=(1, 1, 1), on_inputs=False):
    """The gradient of the weighted mean, its cross entropy and what is minimised, an example at a time."""
    sums, figures, total = None, 0.0, 0.0
    for dataset, inputs, targets in EXAMPLES:
        tokens_N = np.array([BOS, *inputs, EOS, *targets, EOS], np.int32)
        count = ALONE - 1 if on_inputs else len(targets) + 1
        of_token = weights[dataset] * (1 / count if averaging == PER_EXAMPLE else 1)
        weights_N = np.where(np.arange(ALONE - 1) >= ALONE - 1 - count, of_token, 0.0)
        gradient, figure = _alone(params, tokens_N, weights_N)
        gradient = jax.tree.map(lambda x: np.asarray(x, np.float64), gradient)
        sums = gradient if sums is None else jax.tree.map(np.add, sums, gradient)
        figures, total = figures + np.asarray(figure, np.float64), total + weights_N.sum()
    return jax.tree.map(lambda x: x / total, sums), figures / total


def _assert_close(found, expected):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6)


def _assert_figures(metrics, figures):
    """The loss is the cross entropy, whatever is minimised."""
    np.testing.assert_allclose(metrics["loss"] / metrics["weight"], figures[0], rtol=1e-5)
    np.testing.assert_allclose(metrics["objective"] / metrics["weight"], figures[1], rtol=1e-5)
    np.testing.assert_allclose(metrics["dataset_loss"].sum(), metrics["loss"], rtol=1e-5)


@pytest.mark.parametrize(("rows", "microbatches"), [(ROWS, 1), (ROWS[::-1], 2), (OTHER_ROWS, 1), (OTHER_ROWS, 2)])
@pytest.mark.parametrize("weights", [None, (2.0, 0.0, 0.5)], ids=["alike", "weighted"])
@pytest.mark.parametrize("averaging", [PER_TOKEN, PER_EXAMPLE])
def test_rows_and_microbatches_change_nothing(params, averaging, weights, rows, microbatches):
    gradient, metrics = _gradient(params, _batch(rows, averaging, weights), microbatches=microbatches)
    expected, figures = _expected(params, averaging, weights or (1, 1, 1))
    _assert_close(gradient, expected)
    _assert_figures(metrics, figures)
    counted = [e for e in EXAMPLES if weights is None or weights[e[0]]]
    assert metrics["tokens"] == sum(len(e[2]) + 1 for e in counted)  # a weight of 0 is none
    if averaging == PER_EXAMPLE:
        np.testing.assert_allclose(metrics["weight"], sum(weights[e[0]] if weights else 1 for e in EXAMPLES), rtol=1e-6)


def test_every_example_counts_the_same(params):
    """Per example, a target twice as long counts no more; the two averages do differ here."""
    batches = [_batch([[i], [], [], []], PER_EXAMPLE) for i in range(3)]
    assert [float(batch["weights"].sum()) for batch in batches] == [1.0, pytest.approx(1), 1.0]
    both = [_expected(params, averaging)[1][0] for averaging in (PER_TOKEN, PER_EXAMPLE)]
    assert abs(both[0] - both[1]) > 1e-3


def test_chunks_of_the_head_change_nothing(params, monkeypatch):
    monkeypatch.setattr(cross_entropy, "SLOTS", 1)
    network = models.build(dataclasses.replace(NETWORK.config, head_chunk=4))
    batch = _batch(ROWS, PER_EXAMPLE)
    total, metrics = jax.jit(lambda p: loss.target_loss(network, p, batch, DATASETS, ALL))(params)
    _assert_figures(metrics, _expected(params, PER_EXAMPLE)[1])
    assert total == metrics["objective"]


class Given:
    """A model whose hidden states are logits."""

    config = NETWORK.config

    def head(self, params):
        return params

    def logits(self, params, hidden):
        return hidden


@pytest.mark.parametrize("smoothing", [0.0, 5e-324, 1e-3, 0.5, 1 - 1e-12])
@pytest.mark.parametrize("size", [1e-3, 3.0, 1e4])
def test_numbers_at_the_edge(size, smoothing):
    """Logits that are tiny or huge, hardly any smoothing or nothing but: as in float64."""
    logits = np.random.default_rng(0).normal(size=(1, 5, 50)) * size
    logits = logits.astype(np.float32).astype(np.float64)
    targets, ones = np.array([[0, 7, 49, 3, int(logits[0, 4].argmax())]]), np.ones((1, 5), np.float32)
    found = loss.token_cross_entropy(Given(), None, jnp.asarray(logits, jnp.float32), targets, ones, smoothing, 1e-4)
    log_z = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    picked = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    wanted = np.where(np.arange(50) == targets[..., None], 1 - smoothing, smoothing / 49)
    entropy = -sum(p * np.log(p) for p in [1 - smoothing] + [smoothing / 49] * 49 if p > 0)
    expected = (wanted * (log_z[..., None] - logits)).sum(-1) - entropy + 1e-4 * log_z**2
    np.testing.assert_allclose(found.loss_BxT, log_z - picked, rtol=1e-5, atol=1e-5 * size + 1e-6)
    np.testing.assert_allclose(found.minimised_BxT, expected, rtol=1e-5, atol=1e-5 * size + 1e-5)


@pytest.mark.parametrize("averaging", [PER_TOKEN, PER_EXAMPLE])
def test_loss_on_inputs(params, averaging):
    for rows in (ROWS, OTHER_ROWS):
        gradient, metrics = _gradient(params, _batch(rows, averaging, on_inputs=True))
        expected, figures = _expected(params, averaging, on_inputs=True)
        _assert_close(gradient, expected)
        _assert_figures(metrics, figures)
        assert metrics["tokens"] == len(EXAMPLES) * (ALONE - 1)


def test_devices_and_microbatches_change_no_mask(params):
    """Rows in two microbatches and over two shards, kernels over two more, dropping what a row's own masks say."""
    mesh = partitioning.make_mesh(fsdp=2, tensor=2, devices=jax.devices()[:4])
    shardings = state_shardings(mesh, NETWORK, KEEP)
    step = make_train_step(NETWORK, KEEP, DATASETS, 2, shardings, objective=DROPPING, seed=3)
    batch = _batch(ROWS, PER_EXAMPLE, (2.0, 1.0, 0.5))
    state = TrainState(jnp.int32(5), params, None)
    on_all = jax.jit(step, in_shardings=(shardings, partitioning.batch_shardings(mesh, batch)))
    found, metrics = on_all(state, batch)
    expected, alone = _gradient(params, batch, DROPPING, at=5)
    _assert_close(found.opt_state, expected)
    np.testing.assert_allclose(metrics["objective"], alone["objective"], rtol=1e-5)


def test_masks_go_by_seed_step_and_row(params):
    batch = _batch(ROWS)
    losses = {
        "again": _gradient(params, batch, DROPPING, at=5)[1]["loss"],
        "another step": _gradient(params, batch, DROPPING, at=6)[1]["loss"],
        "another order": _gradient(params, _batch(ROWS[::-1]), DROPPING, at=5)[1]["loss"],
        "none": _gradient(params, batch)[1]["loss"],
    }
    assert losses["again"] == _gradient(params, batch, DROPPING, at=5)[1]["loss"]
    assert np.diff(np.sort(np.array(list(losses.values())))).min() > 1e-3  # far more than rounding
    keys = jax.random.key_data(loss.row_keys(3, jnp.int32(5), 4))
    assert len(np.unique(keys, axis=0)) == 4
    assert not (keys == jax.random.key_data(loss.row_keys(4, jnp.int32(5), 4))).any()
    np.testing.assert_array_equal(keys[:2], jax.random.key_data(loss.row_keys(3, jnp.int32(5), 2)))


def test_what_is_off_costs_nothing(params):
    """With nothing asked for, the step is the plain step, operation for operation."""
    state, batch = TrainState(jnp.int32(0), params, None), _batch(ROWS)

    def text(**how):
        return jax.jit(make_train_step(NETWORK, KEEP, DATASETS, **how)).lower(state, batch).as_text()

    nothing = Objective("per_example", z_loss=0, label_smoothing=0.0, dropout_rate=0)
    assert text() == text(objective=nothing, seed=8)
    assert "threefry" not in text() and "threefry" in text(objective=Objective(dropout_rate=0.1))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_what_all_parts_weigh_is_no_matter(params, scale):
    """Nor where all weights together are less than 1."""
    gradient, metrics = _gradient(params, _batch(ROWS, PER_EXAMPLE, [scale] * 3))
    expected, figures = _expected(params, PER_EXAMPLE)
    _assert_close(gradient, expected)
    _assert_figures(metrics, figures)


def test_nothing_weighs_anything(params):
    for batch in (_batch([[], [], [], []], PER_EXAMPLE), _batch(ROWS, PER_EXAMPLE, [0.0] * 3)):
        gradient, metrics = _gradient(params, batch)
        assert metrics["tokens"] == metrics["weight"] == metrics["loss"] == metrics["objective"] == 0
        assert all((np.asarray(x) == 0).all() for x in jax.tree.leaves(gradient))


def test_in_bfloat16(params):
    """The loss is computed in float32 from logits of bfloat16; nothing overflows."""
    network = models.build(dataclasses.replace(NETWORK.config, dtype="bfloat16"))
    gradient, metrics = _gradient(params, _batch(ROWS, PER_EXAMPLE), DROPPING, network=network)
    expected, alone = _gradient(params, _batch(ROWS, PER_EXAMPLE), DROPPING)
    for name in ("loss", "objective"):
        assert metrics[name].dtype == np.float32
        np.testing.assert_allclose(metrics[name], alone[name], rtol=0.02)
    both = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (gradient, expected)]
    assert np.linalg.norm(both[0] - both[1]) < 0.05 * np.linalg.norm(both[1])


def test_an_encoder_decoder():
    """Per example, smoothed and with z-loss, a packed batch has the loss of its examples alone."""
    params = jax.jit(T5.init)(jax.random.key(0))
    of_examples = [[EXAMPLES[i] for i in row] for row in ROWS]
    layout = EncoderDecoderLayout(28, 14, None, EOS, PER_EXAMPLE)
    program = jax.jit(lambda batch: loss.target_loss(T5, params, batch, DATASETS, ALL))
    total, metrics = program(layout.batch(of_examples))
    alone = [program(layout.batch([[example], [], [], []]))[0] for example in EXAMPLES]
    np.testing.assert_allclose(total, sum(alone), rtol=1e-5)
    np.testing.assert_allclose(metrics["weight"], len(EXAMPLES), rtol=1e-6)
    assert total == metrics["objective"] != metrics["loss"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"z_loss": -1}, "train.z_loss is -1: it has to be a number of at least 0 and of at most 1"),
        ({"z_loss": float("nan")}, "train.z_loss is nan"),
        ({"label_smoothing": 1.0}, "train.label_smoothing is 1.0: it has to be a number of at least 0 and below 1"),
        ({"dropout_rate": 1}, "train.dropout_rate is 1: it has to be a number of at least 0 and below 1"),
        ({"dropout_rate": -0.1}, "train.dropout_rate is -0.1"),
        ({"loss_averaging": "per_tokens"}, "did you mean 'per_token'"),
        ({"loss_on_inputs": 1}, "train.loss_on_inputs is 1: it has to be True or False"),
    ],
)
def test_no_such_objective(given, says):
    with pytest.raises(FlanError) as caught:
        Objective(**given)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_an_encoder_s_inputs_carry_no_loss():
    with pytest.raises(FlanError, match=r"^LOSS_ON_INPUTS is True, and an encoder-decoder predicts its targets alone"):
        Objective(loss_on_inputs=True).capacities(T5.config, 64, 16)
    assert Objective(loss_on_inputs=True).capacities(NETWORK.config, 64, 16) == (80, 80)
    assert Objective().capacities(T5.config, 64, 16) == (64, 16)

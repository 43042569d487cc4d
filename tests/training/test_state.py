import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flan_jax import configuration, models
from flan_jax.training import optimizers
from flan_jax.training.state import TrainState, abstract_state, make_train_step

CONFIG = dataclasses.replace(
    configuration.model_config("tiny"), vocab_size=37, num_layers=2, embed_dim=16, head_dim=8, mlp_dim=24, remat="none"
)
NETWORK = models.build(CONFIG)
ROWS, LENGTH, TARGETS, DATASETS = 4, 24, 10, 3


@pytest.fixture(scope="module")
def params():
    return NETWORK.init(jax.random.key(0))


def _batch(seed=0):
    """Rows of two segments with very different numbers of targets, the last of them without any."""
    rng = np.random.default_rng(seed)
    segments, positions = np.zeros((2, ROWS, LENGTH), np.int32)
    weights = np.zeros((ROWS, TARGETS), np.float32)
    for row, used in enumerate((TARGETS, 1, 4, 0)[:ROWS]):
        middle = int(rng.integers(8, 16))
        segments[row, :middle], segments[row, middle:-3] = 1, 2
        positions[row, :middle], positions[row, middle:-3] = np.arange(middle), np.arange(LENGTH - 3 - middle)
        weights[row, :used] = 1
    return {
        "tokens": rng.integers(0, CONFIG.vocab_size, (ROWS, LENGTH), np.int32),
        "positions": positions,
        "segments": segments,
        "target_positions": rng.integers(0, LENGTH - 3, (ROWS, TARGETS), np.int32),
        "targets": rng.integers(0, CONFIG.vocab_size, (ROWS, TARGETS), np.int32),
        "weights": weights,
        "dataset_ids": rng.integers(0, DATASETS, (ROWS, TARGETS), np.int32),
    }


def _step(params, batch, tx, microbatches=1):
    state = TrainState(jnp.int32(4), params, tx.init(params))
    return jax.jit(make_train_step(NETWORK, tx, DATASETS, microbatches))(state, batch)


def _gradient(params, batch, microbatches=1):
    """The gradient that the optimizer is given: a momentum of decay 0 keeps it."""
    state, metrics = _step(params, batch, optax.sgd(0.1, momentum=0.0), microbatches)
    trace = next(s.trace for s in state.opt_state if isinstance(s, optax.TraceState))
    return trace, metrics


def _mean_loss(params, batch):
    """The mean over target tokens from all logits of the row, target by target."""
    logits = NETWORK.logits(
        params, NETWORK.hidden(params, *(jnp.asarray(batch[k]) for k in ("tokens", "positions", "segments")))
    )
    logprobs = jax.nn.log_softmax(logits)
    total = 0.0
    for row, slot in zip(*np.nonzero(batch["weights"]), strict=True):
        total -= logprobs[row, batch["target_positions"][row, slot], batch["targets"][row, slot]]
    return total / batch["weights"].sum()


def _assert_close(found, expected):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6)


@pytest.fixture(scope="module")
def whole(params):
    return _gradient(params, _batch())


def test_gradient_is_that_of_the_mean_over_target_tokens(params, whole):
    gradient, metrics = whole
    loss, expected = jax.value_and_grad(_mean_loss)(params, _batch())
    _assert_close(gradient, expected)
    np.testing.assert_allclose(metrics["loss"] / metrics["weight"], loss, rtol=1e-5)
    norm = np.sqrt(sum(float(np.square(np.asarray(g, np.float64)).sum()) for g in jax.tree.leaves(expected)))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-4)


@pytest.mark.parametrize("microbatches", [2, 4])
def test_microbatches_change_nothing(params, whole, microbatches):
    gradient, metrics = _gradient(params, _batch(), microbatches)
    _assert_close(gradient, whole[0])
    assert set(metrics) == set(whole[1])
    for name, value in metrics.items():
        np.testing.assert_allclose(value, whole[1][name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_metrics_are_sums_over_the_batch(whole):
    batch, (_, metrics) = _batch(), whole
    used = batch["weights"] > 0
    assert metrics["weight"] == used.sum() == 15
    assert metrics["slots_filled"] == (batch["segments"] > 0).sum()
    np.testing.assert_array_equal(
        metrics["dataset_weight"], np.bincount(batch["dataset_ids"][used], minlength=DATASETS)
    )
    np.testing.assert_allclose(metrics["dataset_loss"].sum(), metrics["loss"], rtol=1e-5)


def test_a_step_is_the_optimizers(params, whole):
    tx = optimizers.for_parameters(optimizers.adafactor(1e-2), NETWORK.logical_axes())
    state, metrics = _step(params, _batch(), tx)
    assert int(state.step) == 5
    updates, opt_state = tx.update(whole[0], tx.init(params), params)
    expected = optax.apply_updates(params, updates)
    # Adafactor divides by the gradient's own size, so tiny gradients magnify rounding.
    for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected), strict=True):
        assert np.mean(np.abs(x - y) > 1e-5) < 0.01
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(opt_state)
    np.testing.assert_allclose(metrics["parameter_norm"], optax.tree.norm(state.params), rtol=1e-5)


def test_a_batch_without_targets_moves_nothing(params):
    batch = _batch() | {"weights": np.zeros((ROWS, TARGETS), np.float32)}
    state, metrics = _step(params, batch, optax.sgd(1.0))
    jax.tree.map(np.testing.assert_array_equal, state.params, params)
    assert metrics["loss"] == metrics["gradient_norm"] == metrics["weight"] == 0


def test_abstract_state_is_the_states_shape(params):
    tx = optimizers.for_parameters(optimizers.adafactor(), NETWORK.logical_axes())
    state = TrainState(jnp.int32(0), params, tx.init(params))
    found, expected = abstract_state(NETWORK, tx), jax.eval_shape(lambda: state)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(found)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(expected)
    ]


def test_adafactor_is_that_of_optax_with_parameters_read_once():
    params = {"kernel": jax.random.normal(jax.random.key(0), (256, 384)), "scale": jnp.zeros(7)}
    axes = {"kernel": ("embed", "mlp"), "scale": ("embed",)}
    known = optax.adafactor(optax.constant_schedule(1e-2), clipping_threshold=1.0, momentum=None, eps=1e-30)
    both = [optimizers.adafactor(1e-2)(axes), optimizers.by_matrix(known, axes)]
    states = [tx.init(params) for tx in both]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    for step in range(3):
        grads = jax.tree.map(lambda x, step=step: jax.random.normal(jax.random.key(step), x.shape), params)
        updates, states = zip(*(tx.update(grads, s, params) for tx, s in zip(both, states, strict=True)), strict=True)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *updates)
        params = optax.apply_updates(params, updates[0])

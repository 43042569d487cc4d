"""What is done around an optimizer: clipping, frozen parameters, a mean of parameters; and how its state lies."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flan_jax import configuration, models, partitioning
from flan_jax.errors import FlanError
from flan_jax.models import nested
from flan_jax.training import optimizers
from flan_jax.training.optimizers import layout, patterns
from flan_jax.training.state import TrainState, abstract_state, make_train_step

CONFIG = dataclasses.replace(
    configuration.model_config("tiny"), vocab_size=37, num_layers=2, embed_dim=16, head_dim=8, mlp_dim=24, remat="none"
)
NETWORK = models.build(CONFIG)
AXES = NETWORK.logical_axes()
ROWS, LENGTH, TARGETS = 4, 16, 6


@pytest.fixture(scope="module")
def params():
    return NETWORK.init(jax.random.key(0))


def _batch(seed):
    rng = np.random.default_rng(seed)
    return {
        "tokens": rng.integers(0, 37, (ROWS, LENGTH), np.int32),
        "positions": np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1)),
        "segments": np.ones((ROWS, LENGTH), np.int32),
        "target_positions": rng.integers(0, LENGTH, (ROWS, TARGETS), np.int32),
        "targets": rng.integers(0, 37, (ROWS, TARGETS), np.int32),
        "weights": np.ones((ROWS, TARGETS), np.float32),
        "dataset_ids": np.zeros((ROWS, TARGETS), np.int32),
    }


def _start(tuning, params):
    tuning = optimizers.Tuning.of(tuning)
    wanted = tuning.trained(AXES)
    ema = None if tuning.ema_decay is None else params if wanted is None else nested.part(params, wanted)
    return TrainState(jnp.int32(0), params, optimizers.for_parameters(tuning, AXES).init(params), ema)


def _run(tuning, params, steps=3, **more):
    """States after each step, and the last metrics."""
    step = jax.jit(make_train_step(NETWORK, tuning, 1, **more))
    states = [_start(tuning, params)]
    for number in range(steps):
        state, metrics = step(states[-1], _batch(number))
        states.append(state)
    return states, metrics


def _same(found, expected, **close):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, **close)


FROZEN = ("token_embedder", "*norm", "mlp", "!mlp")


@pytest.fixture(scope="module")
def frozen(params):
    """SGD with momentum, a global norm of 0.05, embeddings and norms frozen, and a mean; the last batch is skipped."""
    tuning = optimizers.Tuning(optimizers.sgd(0.5, momentum=0.9), 0.05, FROZEN, 0.75)
    states, metrics = _run(tuning, params, 3, microbatches=2, accept=lambda taken: taken.step < 2)
    assert metrics["skipped"] == 1
    _same(dataclasses.replace(states[3], step=states[2].step), states[2], rtol=0, atol=0)
    return states[:3], metrics


def _is_frozen(path):
    return "token_embedder" in path or any(name.endswith("norm") for name in path)


def test_frozen_parameters_are_as_if_optax_were_told_not_to_move_them(params, frozen):
    """The reference takes the whole gradient, sets that of frozen ones to zero, and clips and moves the rest."""
    labels = jax.tree_util.tree_map_with_path(lambda path, _: _is_frozen([part.key for part in path]), params)
    tx = optax.chain(
        optax.masked(optax.set_to_zero(), labels), optax.clip_by_global_norm(0.05), optax.sgd(0.5, momentum=0.9)
    )
    states, metrics = frozen
    theirs, whole = _run(tx, params, 2)
    _same(states[-1].params, theirs[-1].params, rtol=1e-5, atol=1e-6)
    assert float(metrics["gradient_norm"]) > 0.05 and float(whole["gradient_norm"]) > 0.05  # before they are clipped
    moved = {
        "/".join(path): not np.array_equal(x, y)
        for path, x, y in zip(
            nested.paths(params), jax.tree.leaves(params), jax.tree.leaves(states[-1].params), strict=True
        )
    }
    assert {path: not _is_frozen(path.split("/")) for path in moved} == moved


def test_frozen_parameters_have_no_state_and_no_gradient(params, frozen):
    states, _ = frozen
    held = {partitioning.names(path) for path, _ in jax.tree_util.tree_leaves_with_path(states[-1].opt_state)}
    about = [path for path in held if "decoder" in path]
    assert about and not any(_is_frozen(path) for path in about)
    assert nested.paths(states[-1].ema) == [path for path in nested.paths(params) if not _is_frozen(path)]
    assert nested.paths(abstract_state(NETWORK, optimizers.Tuning(frozen=FROZEN)).params) == nested.paths(params)

    def flops(tuning):
        step = jax.jit(make_train_step(NETWORK, tuning, 1))
        return step.lower(_start(tuning, params), _batch(0)).cost_analysis()["flops"]

    sgd = optimizers.sgd(0.1)
    one = flops(optimizers.Tuning(sgd, frozen=("*", "!decoder_norm")))
    assert one < 0.55 * flops(optimizers.Tuning(sgd))  # forward, head, and neither way back through the layers


def test_the_mean_of_parameters_is_a_loop_over_steps(frozen):
    states, _ = frozen
    wanted = nested.paths(states[0].ema)
    mean = nested.part(states[0].params, wanted)
    for state in states[1:]:
        mean = jax.tree.map(lambda m, p: 0.75 * m + 0.25 * p, mean, nested.part(state.params, wanted))
    _same(states[-1].ema, mean, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("mlp", "decoder/layers/mlp/wo/kernel", True),
        ("mlp/wo", "decoder/layers/mlp/wo/kernel", True),
        ("/mlp/", "decoder/layers/mlp/wo/kernel", True),
        ("decoder/*/kernel", "decoder/layers/mlp/wo/kernel", True),
        ("wo", "decoder/layers/mlp/wo_1/kernel", False),
        ("mlp/kernel", "decoder/layers/mlp/wo/kernel", False),
        ("*norm", "decoder/layers/pre_mlp_layer_norm/scale", True),
        ("*norm", "decoder/norm_of_it/scale", False),
        ("w[oi]", "decoder/layers/mlp/wo/kernel", True),
    ],
)
def test_patterns(pattern, path, fits):
    assert patterns.matches(pattern, tuple(path.split("/"))) == fits


@pytest.mark.parametrize(
    ("frozen", "says"),
    [
        (("mpl",), "pattern 'mpl' fits no parameter: did you mean 'mlp'"),
        (("!mpl",), "pattern '!mpl' fits no parameter: did you mean 'mlp'"),
        (("decoder/layer/mlp",), "fits no parameter: did you mean"),
        (("*",), "leaves no parameter to train"),
        (("decoder",), "leaves no parameter to train"),
    ],
)
def test_patterns_that_leave_nothing_are_refused(frozen, says):
    with pytest.raises(FlanError, match="FROZEN") as caught:
        make_train_step(NETWORK, optimizers.Tuning(frozen=frozen), 1)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_patterns_of_decay_may_fit_what_is_not_trained(params):
    """A run file's NO_DECAY stays as it is where FROZEN or LORA is given; a wrong name is said all the same."""
    no_decay = ("*norm", "token_embedder", "*", "!mlp", "!query")
    for around in ({"frozen": FROZEN}, {"lora": optimizers.Lora(2, 2.0, ("key",))}):
        tuning = optimizers.Tuning(optimizers.sgd(0.1, weight_decay=0.5, no_decay=no_decay), **around)
        network = tuning.adapted(NETWORK)
        whole = network.init(jax.random.key(0))
        tx, wanted = optimizers.for_parameters(tuning, network.logical_axes()), tuning.trained(network.logical_axes())
        trained = nested.part(whole, wanted)
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, trained), tx.init(whole), whole)
        for path, x in jax.tree_util.tree_leaves_with_path(updates):
            names = {part.key for part in path}
            assert bool(np.any(x)) == bool(names & {"mlp", "query"}), path
        wrong = optimizers.Tuning(optimizers.sgd(0.1, weight_decay=0.5, no_decay=("mpl",)), **around)
        with pytest.raises(FlanError, match="NO_DECAY: pattern 'mpl' fits no parameter: did you mean 'mlp'"):
            optimizers.for_parameters(wrong, network.logical_axes())


# ------------------------------------------------------------------------------------------ how the state is laid out

# Square, so that no shape tells rows from columns; 128 and more are factored.
WIDE = {
    "layers": {
        "query": {"kernel": ("layers", "embed", "heads", "kv")},
        "wo": {"kernel": ("layers", "mlp", "embed")},
        "norm": {"scale": ("layers", "embed")},
    },
    "embedding": ("vocab", "embed"),
}
SIZES = {"layers": 2, "embed": 128, "heads": 4, "kv": 64, "mlp": 256, "vocab": 160}


def _wide():
    return jax.tree.map(
        lambda axes: jax.ShapeDtypeStruct([SIZES[name] for name in axes], jnp.float32),
        WIDE,
        is_leaf=partitioning.is_axes,
    )


STATES = {
    "adafactor": optimizers.adafactor(1e-2),
    "adafactor with momentum and decay": optimizers.adafactor(1e-2, momentum=0.9, weight_decay=0.1),
    "adamw": optimizers.adamw(1e-2, weight_decay=0.1),
    "lion": optimizers.lion(1e-2),
    "sgd": optimizers.sgd(1e-2, momentum=0.9),
    "wrapped": optimizers.Tuning(
        lambda axes: optax.inject_hyperparams(
            lambda rate: optax.chain(optax.clip(1.0), optax.masked(optimizers.adafactor(1e-2)(axes), True))
        )(rate=1.0),
        clip_norm=1.0,
    ),
    "factored over layers too": optax.adafactor(1e-2, min_dim_size_to_factor=2),
}


def _collectives(mesh, tx, of_state):
    """What a step of the optimizer alone sends between devices, where each gradient lies like its parameter."""
    params = _wide()
    of_params = partitioning.parameter_shardings(mesh, WIDE, params)
    tx = optimizers.for_parameters(tx, WIDE)
    state = jax.eval_shape(tx.init, params)
    update = jax.jit(tx.update, in_shardings=(of_params, of_state, of_params), out_shardings=(of_params, of_state))
    text = update.lower(params, state, params).compile().as_text()
    return {kind for kind in ("all-gather", "all-to-all", "collective-permute") if kind in text}


@pytest.fixture(scope="module")
def mesh():
    return partitioning.make_mesh(2, 2, 2)


@pytest.mark.parametrize("name", STATES)
def test_a_step_of_the_optimizer_gathers_nothing(mesh, name):
    tx = STATES[name]
    of_state = optimizers.state_shardings(mesh, tx, _wide(), WIDE)
    state = jax.eval_shape(optimizers.for_parameters(tx, WIDE).init, _wide())
    for (path, x), sharding in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(of_state), strict=True):
        if x.size >= 1_000:
            assert np.prod(sharding.shard_shape(x.shape)) < x.size, jax.tree_util.keystr(path)
    assert _collectives(mesh, tx, of_state) == set()


def test_a_wrong_layout_shows(mesh, monkeypatch):
    """Statistics along a wrong axis are sent about at every step; those that fit no axis are refused."""
    tx, params = STATES["adafactor"], _wide()
    sound = layout._DECLARED[optax.FactoredState]
    monkeypatch.setitem(layout._DECLARED, optax.FactoredState, lambda one: (dims := sound(one)) and dims[::-1])
    assert _collectives(mesh, tx, optimizers.state_shardings(mesh, tx, params, WIDE))
    for wrong in ((0, 1, 2, 3, 0), (2, 2)):
        monkeypatch.setitem(layout._DECLARED, optax.FactoredState, lambda one, wrong=wrong: wrong)
        with pytest.raises(FlanError, match="what it declares of its state is wrong") as caught:
            optimizers.state_shardings(mesh, tx, params, WIDE)
        assert "v_row" in str(caught.value) and "\n" not in str(caught.value)


def test_a_state_of_a_user_s_own_is_laid_out_as_declared(mesh, monkeypatch):
    class Rows(NamedTuple):
        sums: Any

    def init(params):
        return Rows(jax.tree.map(lambda x: jnp.zeros(x.shape[-1:]), params))

    def update(updates, state, params=None):
        return updates, Rows(jax.tree.map(lambda s, g: s + g.sum(range(g.ndim - 1)), state.sums, updates))

    tx = optax.chain(optax.GradientTransformation(init, update), optax.sgd(0.1))
    whole = optimizers.state_shardings(mesh, tx, _wide(), WIDE)[0].sums
    assert whole["embedding"].spec == jax.sharding.PartitionSpec()
    monkeypatch.setattr(layout, "_DECLARED", dict(layout._DECLARED))
    optimizers.declare(Rows, lambda one: (len(one.of) - 1,))
    found = optimizers.state_shardings(mesh, tx, _wide(), WIDE)[0].sums
    assert found["embedding"].spec == found["layers"]["wo"]["kernel"].spec == jax.sharding.PartitionSpec("fsdp")

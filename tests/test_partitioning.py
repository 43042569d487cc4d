import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from flan_jax import models, partitioning
from flan_jax.errors import FlanError
from flan_jax.training import optimizers
from flan_jax.training.state import TrainState, abstract_state, make_train_step, state_shardings

# Adafactor factors dimensions of 128 and more; heads of 2 query and 2 key-value heads split over tensor.
CONFIG = dataclasses.replace(models.preset("tiny"), num_layers=2, embed_dim=256, mlp_dim=512, remat="none")
LARGE = 2_048  # elements; norms, counters and place-holders are smaller
ROWS, LENGTH, TARGETS, DATASETS = 8, 32, 8, 3


@pytest.fixture(scope="module")
def mesh():
    return partitioning.make_mesh(2, 2, 2)


def _batch(rows=ROWS):
    rng = np.random.default_rng(0)
    segments = np.sort(rng.integers(0, 3, (rows, LENGTH)))[:, ::-1]
    return {
        "tokens": rng.integers(0, CONFIG.vocab_size, (rows, LENGTH), np.int32),
        "positions": np.tile(np.arange(LENGTH, dtype=np.int32), (rows, 1)),
        "segments": segments.astype(np.int32),
        "target_positions": rng.integers(0, LENGTH // 2, (rows, TARGETS), np.int32),
        "targets": rng.integers(0, CONFIG.vocab_size, (rows, TARGETS), np.int32),
        "weights": rng.integers(0, 2, (rows, TARGETS)).astype(np.float32),
        "dataset_ids": rng.integers(0, DATASETS, (rows, TARGETS), np.int32),
    }


def _replicated(tree):
    """Paths of the large leaves of which some device holds all."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    assert any(x.size >= LARGE for _, x in leaves)
    return [
        jax.tree_util.keystr(path)
        for path, x in leaves
        if x.size >= LARGE and math.prod(x.sharding.shard_shape(x.shape)) == x.size
    ]


def _one_step(mesh, tx, microbatches=1):
    network = models.build(CONFIG)
    tx = optimizers.for_parameters(tx, network.logical_axes())
    shardings = state_shardings(mesh, network, tx)
    batch = _batch()
    batch_shardings = partitioning.batch_shardings(mesh, batch)

    def start():
        params = network.init(jax.random.key(0))
        return TrainState(jnp.int32(0), params, tx.init(params))

    state = jax.jit(start, out_shardings=shardings)()
    step = make_train_step(network, tx, DATASETS, microbatches, shardings)
    jitted = jax.jit(step, in_shardings=(shardings, batch_shardings), out_shardings=(shardings, None))
    return jitted(state, jax.device_put(batch, batch_shardings))


@pytest.fixture(scope="module")
def stepped(mesh):
    """State and metrics after one step of Adafactor on eight devices."""
    return _one_step(mesh, optimizers.adafactor(1e-2))


def test_no_large_leaf_is_replicated(stepped):
    state, _ = stepped
    assert _replicated(state.params) == []
    assert _replicated(state.opt_state) == []
    # The statistics really are factored: no second moment as large as its kernel.
    kernel = state.params["decoder"]["layers"]["mlp"]["wi_0"]["kernel"]
    statistics = [x for x in jax.tree.leaves(state.opt_state) if x.size >= LARGE]
    assert max(x.size for x in statistics) < kernel.size
    for leaf in (*jax.tree.leaves(state.params), *jax.tree.leaves(state.opt_state)):
        assert len(leaf.sharding.device_set) == 8


@pytest.mark.parametrize("tx", [optax.adam(1e-3), optax.sgd(1e-3, momentum=0.9)], ids=["adam", "momentum"])
def test_unfactored_statistics_lie_like_their_parameters(mesh, tx):
    network = models.build(CONFIG)
    shardings, abstract = state_shardings(mesh, network, tx), abstract_state(network, tx)
    with_shardings = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract.opt_state, shardings.opt_state
    )
    assert _replicated(with_shardings) == []
    of_params = {s.spec for s in jax.tree.leaves(shardings.params)}
    assert {x.sharding.spec for x in jax.tree.leaves(with_shardings) if x.size >= LARGE} <= of_params


def _seen(found):
    """A transformation that changes nothing and notes in `found` how the gradients lie on the devices."""

    def update(updates, state, params=None):
        for path, x in jax.tree_util.tree_leaves_with_path(updates):
            note = functools.partial(found.__setitem__, (jax.tree_util.keystr(path), x.shape))
            jax.debug.inspect_array_sharding(x, callback=note)
        return updates, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


@pytest.mark.slow
@pytest.mark.parametrize("microbatches", [1, 2])
def test_no_large_gradient_is_replicated(mesh, microbatches):
    found = {}
    _one_step(mesh, lambda axes: optax.chain(_seen(found), optimizers.adafactor(1e-2)(axes)), microbatches)
    large = {key: sharding for key, sharding in found.items() if math.prod(key[1]) >= LARGE}
    assert len(large) == 8  # embedding, four projections of attention, three of the MLP
    for (path, shape), sharding in large.items():
        assert math.prod(sharding.shard_shape(shape)) < math.prod(shape), path


@pytest.mark.slow
@pytest.mark.parametrize("microbatches", [1, 2])
def test_eight_devices_step_like_one(stepped, mesh, microbatches):
    tx = optimizers.adafactor(1e-2)
    one = partitioning.make_mesh(devices=jax.devices()[:1])
    expected_state, expected = _one_step(one, tx, microbatches)
    state, metrics = stepped if microbatches == 1 else _one_step(mesh, tx, microbatches)
    metrics, expected = jax.device_get((metrics, expected))
    assert metrics["weight"] == expected["weight"] > 0
    for name in metrics:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=2e-4, atol=1e-4, err_msg=name)
    assert int(state.step) == int(expected_state.step) == 1
    before = models.build(CONFIG).init(jax.random.key(0))
    for x, y, start in zip(*map(jax.tree.leaves, (state.params, expected_state.params, before)), strict=True):
        # Adafactor's first update is near the sign of the gradient, which rounding may turn where it is about zero.
        wrong = np.abs(np.asarray(x) - np.asarray(y)) > 1e-3 * max(
            np.abs(np.asarray(y) - np.asarray(start)).max(), 1e-9
        )
        assert wrong.mean() < 1e-3


def test_every_parameter_has_rules_and_a_shape(mesh):
    for config in (
        *models.PRESETS.values(),
        dataclasses.replace(CONFIG, positions="relative_bias", tied_embeddings=False),
    ):
        network = models.build(config)
        shapes, axes = network.abstract_params(), network.logical_axes()
        shardings = partitioning.parameter_shardings(mesh, axes, shapes)
        for x, s in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True):
            s.shard_shape(x.shape)  # raises where the mesh does not divide the shape


def test_the_large_presets_are_split_by_every_axis(mesh):
    network = models.build(models.preset("gemma3_270m"))
    shapes = network.abstract_params()
    shardings = partitioning.parameter_shardings(mesh, network.logical_axes(), shapes)
    held = sum(
        math.prod(s.shard_shape(x.shape)) for x, s in zip(*map(jax.tree.leaves, (shapes, shardings)), strict=True)
    )
    whole = sum(x.size for x in jax.tree.leaves(shapes))
    assert held < 0.27 * whole  # fsdp x tensor = 4; the single key-value head stays whole on tensor


# ------------------------------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize(
    ("axes", "shape", "spec"),
    [
        (("embed", "mlp"), (64, 256), PartitionSpec("fsdp", "tensor")),
        (("vocab", "embed"), (384, 64), PartitionSpec("tensor", "fsdp")),
        (("layers", "embed", "heads", "kv"), (3, 64, 4, 32), PartitionSpec(None, "fsdp", "tensor", None)),
        (("batch", "length", None), (8, 32, 5), PartitionSpec(("data", "fsdp"), None, None)),
        # Sizes that their mesh axes do not divide stay whole, and only those.
        (("embed", "kv_heads", "kv"), (64, 1, 32), PartitionSpec("fsdp", None, None)),
        (("embed", "heads", "kv"), (63, 9, 7), PartitionSpec(None, None, None)),
        (("batch", "length"), (6, 7), PartitionSpec(None, None)),
        ((), (), PartitionSpec()),
    ],
)
def test_partition_spec(mesh, axes, shape, spec):
    assert partitioning.partition_spec(mesh, axes, shape) == spec


@pytest.mark.parametrize(
    ("axes", "names"),
    [(("heads", "mlp"), ("heads", "mlp", "tensor")), (("batch", "embed"), ("batch", "embed", "fsdp"))],
)
def test_two_logical_axes_on_one_mesh_axis_are_refused(mesh, axes, names):
    with pytest.raises(FlanError) as caught:
        partitioning.partition_spec(mesh, axes, (8, 8))
    assert all(repr(name) in str(caught.value) for name in names) and "\n" not in str(caught.value)
    # Even where the sizes would keep one of them whole: the rule, not the shape, is wrong.
    with pytest.raises(FlanError):
        partitioning.partition_spec(mesh, axes, (8, 7))


def test_an_axis_without_a_rule_is_refused(mesh):
    with pytest.raises(FlanError, match="logical axis 'embd' has no rule"):
        partitioning.partition_spec(mesh, ("embd",), (8,))


@pytest.mark.slow
def test_odd_shapes_step_too(mesh):
    config = dataclasses.replace(
        CONFIG, vocab_size=131, num_layers=1, embed_dim=129, num_heads=3, num_kv_heads=1, head_dim=10, mlp_dim=133
    )
    network = models.build(config)
    tx = optimizers.for_parameters(optimizers.adafactor(1e-2), network.logical_axes())
    shardings = state_shardings(mesh, network, tx)
    params = network.init(jax.random.key(0))
    state = jax.device_put(TrainState(jnp.int32(0), params, tx.init(params)), shardings)
    batch = {k: v % 131 if k in ("tokens", "targets") else v for k, v in _batch(rows=3).items()}
    step = jax.jit(make_train_step(network, tx, DATASETS, shardings=shardings), out_shardings=(shardings, None))
    state, metrics = step(state, jax.device_put(batch, partitioning.batch_shardings(mesh, batch)))
    assert np.isfinite(metrics["loss"]) and np.isfinite(metrics["parameter_norm"])


def test_batches_are_split_by_rows(mesh):
    shardings = partitioning.batch_shardings(mesh, _batch())
    for name, x in _batch().items():
        assert shardings[name].shard_shape(x.shape) == (ROWS // 4, *x.shape[1:])


@pytest.mark.parametrize(("sizes", "rows"), [((2, 2, 2), 4), ((-1, 1, 1), 8), ((1, -1, 4), 2), ((1, 1, -1), 1)])
def test_rows_per_shard_of(sizes, rows):
    mesh = partitioning.make_mesh(*sizes)
    assert mesh.axis_names == partitioning.MESH_AXES and mesh.size == 8
    assert partitioning.rows_per_shard_of(mesh) == rows


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, 1, 1), "does not fit 8 devices"),
        ((-1, -1, 1), "does not fit 8 devices"),
        ((0, 1, 1), "does not fit 8 devices"),
        ((-2, 1, 1), "does not fit 8 devices"),
        ((-1, 16, 1), "does not fit 8 devices"),
        ((2, 2, 1), "has 4 places for 8 devices; set one size to -1"),
    ],
)
def test_meshes_that_do_not_fit(sizes, message):
    with pytest.raises(FlanError, match=message) as caught:
        partitioning.make_mesh(*sizes)
    assert "\n" not in str(caught.value) and f"data={sizes[0]}, fsdp={sizes[1]}, tensor={sizes[2]}" in str(caught.value)

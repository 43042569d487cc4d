import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from flan_jax import configuration, models, partitioning
from flan_jax.errors import FlanError
from flan_jax.training import optimizers
from flan_jax.training.state import TrainState, abstract_state, make_train_step, state_shardings

# Adafactor factors dimensions of 128 and more; heads of 2 query and 2 key-value heads split over tensor.
CONFIG = dataclasses.replace(configuration.model_config("tiny"), num_layers=2, embed_dim=256, mlp_dim=512, remat="none")
NETWORK = models.build(CONFIG)
LARGE = 2_048  # elements; norms, counters and place-holders are smaller
ROWS, LENGTH, TARGETS, DATASETS = 8, 32, 8, 3


@pytest.fixture(scope="module")
def mesh():
    return partitioning.make_mesh(2, 2, 2)


@pytest.fixture(scope="module")
def begun():
    """The state of step 0, as numpy."""
    tx = optimizers.for_parameters(optimizers.adafactor(1e-2), NETWORK.logical_axes())
    params = jax.jit(NETWORK.init)(jax.random.key(0))
    return jax.device_get(TrainState(np.int32(0), params, jax.jit(tx.init)(params)))


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


def _one_step(mesh, begun, microbatches, seen=None):
    """State and metrics of one step of Adafactor; how the gradients lie is noted in `seen`."""
    chained = lambda axes: optax.chain(_seen({} if seen is None else seen), optimizers.adafactor(1e-2)(axes))  # noqa: E731
    tx = optimizers.for_parameters(chained, NETWORK.logical_axes())
    shardings = state_shardings(mesh, NETWORK, tx)
    batch = _batch()
    batch_shardings = partitioning.batch_shardings(mesh, batch)
    state = dataclasses.replace(begun, opt_state=(optax.EmptyState(), begun.opt_state))
    step = make_train_step(NETWORK, tx, DATASETS, microbatches, shardings)
    jitted = jax.jit(step, in_shardings=(shardings, batch_shardings), out_shardings=(shardings, None))
    return jitted(jax.device_put(state, shardings), jax.device_put(batch, batch_shardings))


@pytest.fixture(scope="module")
def stepped(mesh, begun):
    """By microbatches: state, metrics and the gradients' shardings after one step on eight devices."""
    found = {1: {}, 2: {}}
    return {count: (*_one_step(mesh, begun, count, seen), seen) for count, seen in found.items()}


def test_no_large_leaf_is_replicated(stepped):
    state, _, _ = stepped[1]
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
    shardings, abstract = state_shardings(mesh, NETWORK, tx), abstract_state(NETWORK, tx)
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
def test_no_large_gradient_is_replicated(stepped, microbatches):
    _, _, found = stepped[microbatches]
    large = {key: sharding for key, sharding in found.items() if math.prod(key[1]) >= LARGE}
    assert len(large) == 8  # embedding, four projections of attention, three of the MLP
    for (path, shape), sharding in large.items():
        assert math.prod(sharding.shard_shape(shape)) < math.prod(shape), path


def _wrong(found, expected, start):
    """The largest share of a parameter's elements that went elsewhere by more than a thousandth of the step.

    Adafactor's first updates are near the sign of the gradient, which rounding may turn where it is about zero.
    """
    shares = []
    for x, y, before in zip(*map(jax.tree.leaves, (found, expected, start)), strict=True):
        x, y, before = map(np.asarray, (x, y, before))
        shares.append((np.abs(x - y) > 1e-3 * max(np.abs(y - before).max(), 1e-9)).mean())
    return max(shares)


@pytest.mark.slow
def test_microbatches_on_eight_devices_step_like_one(stepped, begun):
    one = partitioning.make_mesh(devices=jax.devices()[:1])
    expected_state, expected = _one_step(one, begun, 2)
    state, metrics, _ = stepped[2]
    metrics, expected = jax.device_get((metrics, expected))
    assert metrics["weight"] == expected["weight"] > 0
    for name in metrics:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=2e-4, atol=1e-4, err_msg=name)
    assert int(state.step) == int(expected_state.step) == 1
    assert _wrong(state.params, expected_state.params, begun.params) < 1e-3


def _three_steps(sizes, begun):
    """Losses and parameters of three steps on the first devices, as numpy."""
    mesh = partitioning.make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])
    tx = optimizers.for_parameters(optimizers.adafactor(1e-2), NETWORK.logical_axes())
    shardings = state_shardings(mesh, NETWORK, tx)
    state = jax.device_put(begun, shardings)
    batch = _batch()
    batch_shardings = partitioning.batch_shardings(mesh, batch)
    batch = partitioning.global_batch(batch, batch_shardings, partitioning.local_rows(mesh, ROWS), ROWS)
    step = jax.jit(
        make_train_step(NETWORK, tx, DATASETS, shardings=shardings),
        in_shardings=(shardings, batch_shardings),
        out_shardings=(shardings, shardings.step),
    )
    losses = []
    for _ in range(3):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state.params)


@pytest.fixture(scope="module")
def three_steps_alone(begun):
    return _three_steps((1, 1, 1), begun)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 2, 2), (8, 1, 1), (1, 8, 1), (1, 2, 4)])
def test_three_steps_are_the_same_on_any_mesh(three_steps_alone, begun, sizes):
    """Each axis alone and all together; four places of tensor are more than there are heads of keys and values."""
    expected_losses, expected = three_steps_alone
    losses, params = _three_steps(sizes, begun)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    assert losses[2] < losses[0]
    assert _wrong(params, expected, begun.params) < 5e-3


def test_every_parameter_has_rules_and_a_shape(mesh):
    """Of each architecture that comes with the program, in one size: a preset of every choice that is no size."""
    architectures = {}
    for config in map(configuration.model_config, configuration.model_names()):
        choices = tuple(value for value in config.to_dict().values() if isinstance(value, bool | str))
        architectures[choices, bool(config.num_encoder_layers), config.num_heads % 2, config.num_kv_heads % 2] = config
    assert len(architectures) > 8
    for config in (
        *architectures.values(),
        dataclasses.replace(CONFIG, positions="relative_bias", tied_embeddings=False),
    ):
        network = models.build(config)
        shapes, axes = network.abstract_params(), network.logical_axes()
        shardings = partitioning.parameter_shardings(mesh, axes, shapes)
        for x, s in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True):
            s.shard_shape(x.shape)  # raises where the mesh does not divide the shape


def test_the_large_presets_are_split_by_every_axis(mesh):
    network = models.build(configuration.model_config("gemma3_270m"))
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
    step = make_train_step(network, tx, DATASETS, shardings=shardings)

    def started_and_stepped(key, batch):
        params = network.init(key)
        state = TrainState(jnp.int32(0), params, tx.init(params))
        return step(jax.lax.with_sharding_constraint(state, shardings), batch)

    batch = {k: v % 131 if k in ("tokens", "targets") else v for k, v in _batch(rows=3).items()}
    batch = jax.device_put(batch, partitioning.batch_shardings(mesh, batch))
    _, metrics = jax.jit(started_and_stepped, out_shardings=(shardings, None))(jax.random.key(0), batch)
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
        ((2, 2, 1), "has 4 places for 8 devices; set one size of MESH to -1"),
    ],
)
def test_meshes_that_do_not_fit(sizes, message):
    with pytest.raises(FlanError, match=message) as caught:
        partitioning.make_mesh(*sizes)
    assert "\n" not in str(caught.value) and f"data={sizes[0]}, fsdp={sizes[1]}, tensor={sizes[2]}" in str(caught.value)


# ------------------------------------------------------------------------------------------- layouts of TPU devices


@dataclasses.dataclass(frozen=True)
class Core:
    """What a layout asks of a TPU device."""

    id: int
    coords: tuple[int, int, int]
    core_on_chip: int = 0
    slice_index: int = 0
    device_kind: str = "TPU v4"
    platform: str = "tpu"
    process_index: int = 0


def _torus(x, y, z, cores=1, **more):
    places = [(i, j, k, c) for k in range(z) for j in range(y) for i in range(x) for c in range(cores)]
    return [Core(n, place[:3], place[3], **more) for n, place in enumerate(places)]


def test_slices_share_out_the_data_axis_only():
    slices = [_torus(2, 2, 2, slice_index=index) for index in (1, 0)]
    laid = partitioning._laid_out((4, 2, 2), [core for of_slice in slices for core in of_slice])
    assert laid.shape == (4, 2, 2)
    assert [{core.slice_index for core in part.flat} for part in laid] == [{0}, {0}, {1}, {1}]
    assert len({(core.slice_index, core.id) for core in laid.flat}) == 16


def test_meshes_that_would_split_a_slice_from_itself_are_refused():
    slices = [core for index in range(2) for core in _torus(2, 2, 1, slice_index=index)]
    with pytest.raises(FlanError, match="data=1, fsdp=8, tensor=1 does not fit 2 slices: only the data axis"):
        partitioning._laid_out((1, 8, 1), slices)
    with pytest.raises(FlanError, match="the 2 slices differ in size"):
        partitioning._laid_out((6, 1, 1), slices[:6])


def test_a_line_of_the_tensor_axis_is_a_box_of_the_torus():
    laid = partitioning._laid_out((2, 2, 4), _torus(4, 2, 2)[::-1])
    for line in laid.reshape(-1, 4):
        coords = np.array([core.coords for core in line])
        assert np.prod(np.ptp(coords, axis=0) + 1) == 4


@pytest.mark.parametrize("sizes", [(1, 4, 4), (4, 4, 1), (16, 1, 1), (2, 1, 8)])
def test_the_two_cores_of_a_chip_lie_together(sizes):
    laid = partitioning._laid_out(sizes, _torus(4, 2, 1, cores=2, device_kind="TPU v3"))
    assert laid.shape == sizes and len({core.id for core in laid.flat}) == 16
    axis = next(i for i in (1, 2, 0) if sizes[i] > 1)
    pairs = np.moveaxis(laid, axis, -1).reshape(-1, 2)
    assert all(a.coords == b.coords and a.core_on_chip != b.core_on_chip for a, b in pairs)


def test_v3_has_its_rings_on_tensor_and_neighbours_on_fsdp():
    laid = partitioning._laid_out((1, 4, 32), _torus(8, 8, 1, cores=2, device_kind="TPU v3"))
    assert len({core.id for core in laid.flat}) == 128
    for line in laid.reshape(4, 32).T:  # along fsdp: two chips side by side in y, with both cores
        assert {core.core_on_chip for core in line} == {0, 1} and len({core.coords[0] for core in line}) == 1
        low, high = sorted({core.coords[1] for core in line})
        assert high == low + 1
    for line in laid.reshape(4, 32):  # along tensor: whole rings of x, and the same core of each chip
        assert {core.coords[0] for core in line} == set(range(8)) and len({core.core_on_chip for core in line}) == 1


def test_a_mesh_that_has_no_layout_is_refused_in_one_line():
    with pytest.raises(FlanError, match="cannot be laid out as data x fsdp x tensor = 5 x 1 x 1") as caught:
        partitioning._laid_out((5, 1, 1), _torus(3, 2, 1)[:5])
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- what stays whole


def test_large_parameters_that_stay_whole_are_named(mesh):
    shapes = {
        "embedding": jax.ShapeDtypeStruct((50_257, 1_024), jnp.float32),  # 98 MiB a device after fsdp
        "wi": jax.ShapeDtypeStruct((1_024, 65_536), jnp.float32),  # divisible
        "small": jax.ShapeDtypeStruct((51, 64), jnp.float32),
    }
    axes = {"embedding": ("vocab", "embed"), "wi": ("embed", "mlp"), "small": ("vocab", "embed")}
    line = partitioning.undivided(mesh, axes, shapes)
    assert "embedding (vocab 50257 by tensor 2); 98 MiB a device" in line
    assert "\n" not in line and "wi" not in line.split("(")[0] and "small" not in line
    assert partitioning.undivided(partitioning.make_mesh(8), axes, shapes) is None
    # A single key-value head stays whole on purpose, and costs little.
    network = models.build(configuration.model_config("gemma3_270m"))
    assert partitioning.undivided(mesh, network.logical_axes(), network.abstract_params()) is None


# ------------------------------------------------------------------------------------------------------ rows of hosts


def test_a_batch_is_made_of_the_rows_that_are_there(mesh):
    batch = _batch()
    rows = partitioning.local_rows(mesh, ROWS)
    np.testing.assert_array_equal(rows, np.arange(ROWS))  # one process has them all
    found = partitioning.global_batch(batch, partitioning.batch_shardings(mesh, batch), rows, ROWS)
    for name, x in found.items():
        np.testing.assert_array_equal(x, batch[name])
        assert x.sharding.shard_shape(x.shape)[0] == ROWS // 4

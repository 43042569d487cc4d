import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore

from flan_jax import models, partitioning
from flan_jax.training import optimizers


def test_learning_rates():
    constant, warming = optimizers.schedule(3e-5), optimizers.schedule(1e-3, warmup_steps=4)
    assert [float(constant(s)) for s in (0, 10**6)] == pytest.approx([3e-5, 3e-5])
    assert float(warming(0)) > 0
    assert [float(warming(s)) for s in (4, 5, 10**6)] == pytest.approx([1e-3] * 3)
    assert float(warming(1)) < float(warming(3)) < 1e-3


# ------------------------------------------------------------------------------------------------------- adafactor

AXES = {
    "kernel": ("embed", "mlp"),
    "query": ("embed", "heads", "kv"),
    "scale": ("embed",),
    "layers": {
        "query": ("layers", "embed", "heads", "kv"),
        "out": ("layers", "heads", "kv", "embed"),
        "wo": ("layers", "mlp", "embed"),
        "narrow": ("layers", "embed", "mlp"),
        "scale": ("layers", "embed"),
    },
    "encoder": {"layers": {"wi": ("layers", "embed", "mlp")}},
}
SHAPES = {
    "kernel": (130, 140),
    "query": (144, 9, 16),
    "scale": (130,),
    "layers": {
        "query": (3, 130, 4, 35),
        "out": (3, 4, 35, 130),
        "wo": (3, 150, 130),
        "narrow": (3, 16, 200),
        "scale": (3, 130),
    },
    "encoder": {"layers": {"wi": (2, 128, 129)}},  # another number of layers
}
# T5X's view, written out: layers one by one, and embed against heads x kv.
MATRICES = SHAPES | {
    "query": (144, 144),
    "layers": SHAPES["layers"] | {"query": (3, 130, 140), "out": (3, 140, 130)},
}


def _is_shape(x):
    return isinstance(x, tuple)


class NaiveAdafactor:
    """Shazeer & Stern 2018, algorithms 4 and 5 without relative steps and momentum, for one array, in float64."""

    def __init__(self, x):
        self.x, self.step, self.row, self.column, self.full = np.asarray(x, np.float64), 0, 0.0, 0.0, 0.0

    def update(self, g, rate):
        self.step += 1
        decay = 1 - self.step**-0.8
        square = np.square(g, dtype=np.float64) + 1e-30
        if g.ndim == 2 and min(g.shape) >= 128:
            self.row = decay * self.row + (1 - decay) * square.mean(1)
            self.column = decay * self.column + (1 - decay) * square.mean(0)
            u = g / np.sqrt(self.row[:, None] * self.column[None] / self.row.mean())
        else:
            self.full = decay * self.full + (1 - decay) * square
            u = g / np.sqrt(self.full)
        u = u / max(1.0, np.sqrt(np.square(u).mean()))
        self.x = self.x - rate * max(1e-3, np.sqrt(np.square(self.x).mean())) * u


def _random(rng, scale):
    """Arrays of SHAPES whose layers differ in size, as gradients' do."""

    def of(path, shape):
        x = rng.normal(size=shape)
        return x * scale * (10.0 ** np.arange(shape[0])).reshape(-1, *[1] * (len(shape) - 1)) if "layers" in path else x

    named = jax.tree_util.tree_map_with_path(lambda path, s: of(partitioning.names(path), s), SHAPES, is_leaf=_is_shape)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), named)


def test_adafactor_treats_layers_and_kernels_as_the_paper_does_matrices():
    rng = np.random.default_rng(0)
    params = _random(rng, 0.01)
    tx = optimizers.for_parameters(optimizers.adafactor(1e-2), AXES)

    def split(tree):
        """Every matrix or vector on its own, by T5X's view."""
        found = {}
        leaves = jax.tree_util.tree_leaves_with_path(MATRICES, is_leaf=_is_shape)
        for (path, shape), x in zip(leaves, jax.tree.leaves(tree), strict=True):
            name = partitioning.names(path)
            x = np.asarray(x).reshape(shape)
            found |= {(*name, i): layer for i, layer in enumerate(x)} if "layers" in name else {name: x}
        return found

    naive = {name: NaiveAdafactor(x) for name, x in split(params).items()}
    assert len(naive) == 3 + 5 * 3 + 2
    state = jax.jit(tx.init)(params)
    for _ in range(3):
        grads = _random(rng, 0.1)
        for name, g in split(grads).items():
            naive[name].update(g, 1e-2)
        updates, state = jax.jit(tx.update)(grads, state, params)
        params = optax.apply_updates(params, updates)
    for name, x in split(params).items():
        np.testing.assert_allclose(x, naive[name].x, rtol=1e-5, atol=2e-5 * np.abs(x).max(), err_msg=str(name))


def test_statistics_are_rows_and_columns_of_layers():
    params = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), SHAPES, is_leaf=_is_shape)
    state = jax.eval_shape(optimizers.for_parameters(optimizers.adafactor(), AXES).init, params)
    rows, columns = ({k: v.shape for k, v in getattr(state[0], n)["layers"].items()} for n in ("v_row", "v_col"))
    assert (rows["query"], columns["query"]) == ((3, 130), (3, 140))
    assert (rows["out"], columns["out"]) == ((3, 130), (3, 140))
    assert state[0].v["layers"]["narrow"].shape == (3, 16, 200) and rows["narrow"] == (3, 1)
    assert state[0].count.shape == ()
    held = sum(x.size for x in jax.tree.leaves(state))
    assert held < 0.1 * sum(x.size for x in jax.tree.leaves(params))


def test_statistics_lie_like_what_is_left_of_their_parameters():
    mesh = partitioning.make_mesh(2, 2, 2)
    axes = {"layers": {"query": ("layers", "embed", "heads", "kv"), "wo": ("layers", "mlp", "embed")}}
    shapes = {"layers": {"query": (3, 256, 4, 64), "wo": (3, 512, 256)}}
    params = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), shapes, is_leaf=_is_shape)
    found = optimizers.state_shardings(mesh, optimizers.adafactor(), params, axes)[0]
    spec = jax.sharding.PartitionSpec
    # Rows are what is left when the largest dimension is averaged over; of equal ones, the last.
    assert found.v_row["layers"]["query"].spec == spec(None, "fsdp")
    assert found.v_col["layers"]["query"].spec == spec(None, "tensor")
    assert found.v_row["layers"]["wo"].spec == spec(None, "fsdp")
    assert found.v_col["layers"]["wo"].spec == spec(None, "tensor")
    assert found.v["layers"]["wo"].spec == found.count.spec == spec()


def test_other_optimizers_are_taken_as_they_are():
    tx = optax.adam(1e-3)
    assert optimizers.for_parameters(tx, AXES) is tx


# ------------------------------------------------------------------------------------------------- beside T5X itself

# The checkpoint's shape in our words; T5X folds the factor of the queries into their initial values.
T5X = models.DecoderConfig(
    vocab_size=512,
    num_layers=3,
    embed_dim=64,
    num_heads=4,
    num_kv_heads=4,
    head_dim=16,
    mlp_dim=128,
    activation="gelu",
    positions="relative_bias",
    attention_scale=1.0,
    remat="none",
)


def _ours(read, network):
    """Our tree of parameters from T5X's, by paths: layers stacked, heads told apart."""

    def of(path, x):
        name = partitioning.names(path)
        if "layers" not in name:
            return np.asarray(read("/".join(name))).reshape(x.shape)
        at = name.index("layers")
        each = [read("/".join((*name[:at], f"layers_{i}", *name[at + 1 :]))) for i in range(x.shape[0])]
        return np.stack([np.asarray(layer).reshape(x.shape[1:]) for layer in each])

    return jax.tree_util.tree_map_with_path(of, network.abstract_params())


def test_one_step_is_t5x_s(shared):
    folder = shared / "oracles/t5x_decoder_only"
    io, after = np.load(folder / "io.npz"), np.load(folder / "after_one_adafactor_step.npz")
    z_loss = json.loads((folder / "config.json").read_text())["z_loss"]

    def stored(name):
        path = str(folder / "checkpoint_0" / ("target." + name.replace("/", ".")))
        spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": path}}
        return tensorstore.open(spec, open=True, read=True).result().read().result()

    network = models.build(T5X)
    params, expected = _ours(stored, network), _ours(after.__getitem__, network)
    batch = {k.partition("/")[2]: io[k] for k in io.files if k.startswith("batch/")}

    def loss(params):
        inputs = (batch[f"decoder_{name}"] for name in ("input_tokens", "positions", "segment_ids"))
        # T5X divides by sqrt(D) where the embedding is the head.
        logits = network.logits(params, network.hidden(params, *inputs) / T5X.embed_dim**0.5)
        log_z = jax.nn.logsumexp(logits, axis=-1)
        picked = jnp.take_along_axis(logits, batch["decoder_target_tokens"][..., None], axis=-1)[..., 0]
        return jnp.sum((log_z - picked + z_loss * log_z**2) * batch["decoder_loss_weights"])

    value, grads = jax.value_and_grad(loss)(jax.tree.map(jnp.asarray, params))
    np.testing.assert_allclose(value, io["loss"], rtol=1e-5)
    # The learning rate is not recorded, but a first step's size is it, in root mean squares of the parameter.
    ones = params["decoder"]["decoder_norm"]["scale"]
    moved = np.abs(expected["decoder"]["decoder_norm"]["scale"] - ones)
    rate = float(np.median(moved) / np.sqrt(np.mean(ones**2)))
    tx = optimizers.for_parameters(optimizers.adafactor(rate), network.logical_axes())
    updates, _ = tx.update(grads, tx.init(params), params)
    found = optax.apply_updates(params, updates)
    assert rate == pytest.approx(1e-2, rel=1e-5)
    for x, y, start in zip(*map(jax.tree.leaves, (found, expected, params)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)  # 1.2e-7 when it was written
        assert np.abs(y - start).max() > 100 * 1e-6

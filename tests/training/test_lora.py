"""Adapters: their steps beside a plain model whose kernels hold them, their checkpoints, and what is made of those."""

import dataclasses
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_training import LENGTHS, SMALL, train

from flan_jax import convert, models, partitioning, precompile
from flan_jax.checkpoint import adapters, arrays, saving
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.compilation import estimate, program
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.models import lora, nested
from flan_jax.training import optimizers
from flan_jax.training.loss import target_loss
from flan_jax.training.state import TrainState, make_train_step

LORA = {"rank": 4, "alpha": 12, "targets": ("self_attention", "wo")}
PLAIN = models.build(SMALL)
TUNING = optimizers.Tuning(optimizers.adamw(1e-2), lora=optimizers.Lora(**LORA))
ADAPTED = TUNING.adapted(PLAIN)
ROWS, SLOTS, TARGETS = 4, 16, 6


def _batch(seed, config=SMALL):
    rng = np.random.default_rng(seed)
    batch = {
        "tokens": rng.integers(0, config.vocab_size, (ROWS, SLOTS), np.int32),
        "positions": np.tile(np.arange(SLOTS, dtype=np.int32), (ROWS, 1)),
        "segments": np.ones((ROWS, SLOTS), np.int32),
        "target_positions": rng.integers(0, SLOTS, (ROWS, TARGETS), np.int32),
        "targets": rng.integers(0, config.vocab_size, (ROWS, TARGETS), np.int32),
        "weights": np.ones((ROWS, TARGETS), np.float32),
        "dataset_ids": np.zeros((ROWS, TARGETS), np.int32),
    }
    if config.num_encoder_layers:
        del batch["target_positions"]
        batch |= {f"encoder_{name}": batch[name] for name in ("tokens", "positions", "segments")}
        batch |= {name: batch[name][:, :TARGETS] for name in ("tokens", "positions", "segments")}
    return batch


def _stirred(params, seed=1):
    """B is zero at first; here it is not."""
    rng = np.random.default_rng(seed)

    def of(path, x):
        return jnp.asarray(0.1 * rng.normal(size=x.shape), x.dtype) if path[-1].key == lora.LORA_B else x

    return jax.tree_util.tree_map_with_path(of, params)


@pytest.mark.parametrize("kind", ["decoder", pytest.param("encoder-decoder", marks=pytest.mark.slow)])
def test_steps_are_those_of_kernels_that_hold_the_adapters(kind):
    """The reference multiplies A and B out into the kernels of the plain model, and asks JAX for their gradients."""
    config = SMALL
    if kind != "decoder":
        config = dataclasses.replace(
            SMALL, positions="relative_bias", num_encoder_layers=2, num_kv_heads=SMALL.num_heads
        )
    tuning = dataclasses.replace(TUNING, lora=optimizers.Lora(4, 12, ("*attention", "wo")))
    plain = models.build(config)
    network = tuning.adapted(plain)
    params = _stirred(network.init(jax.random.key(0)))
    frozen = {path for path in nested.paths(params) if path[-1] not in lora.TRAINED}
    tx = optimizers.for_parameters(tuning, network.logical_axes())
    state = TrainState(jnp.int32(0), params, tx.init(params))
    step = jax.jit(make_train_step(network, tuning, 1))

    def loss(trained, batch):
        return target_loss(plain, _multiplied(nested.merged(params, trained)), batch, 1)[0] / (ROWS * TARGETS)

    adam = optax.adamw(1e-2, weight_decay=0.0)
    trained = nested.part(params, [path for path in nested.paths(params) if path not in frozen])
    moments, gradient = adam.init(trained), jax.jit(jax.grad(loss))
    for number in range(2):
        state, _ = step(state, _batch(number, config))
        updates, moments = adam.update(gradient(trained, _batch(number, config)), moments, trained)
        trained = optax.apply_updates(trained, updates)
    expected = nested.merged(params, trained)
    for path in nested.paths(params):
        x, y, start = (_leaf(tree, path) for tree in (state.params, expected, params))
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=3e-5, err_msg=str(path))
        assert (np.abs(x - start).max() > 1e-3) == (path not in frozen), path
    assert len(jax.tree.leaves(state.opt_state)) < 3 * len(jax.tree.leaves(trained)) + 3
    assert (
        sum(x.size for x in jax.tree.leaves(state.opt_state)) <= 2 * sum(x.size for x in jax.tree.leaves(trained)) + 3
    )


def _leaf(tree, path):
    for name in path:
        tree = tree[name]
    return np.asarray(tree)


def _multiplied(params):
    """The plain model's parameters, written out with einsum."""
    found = {name: _multiplied(x) if isinstance(x, dict) else x for name, x in params.items() if "lora" not in name}
    if "lora_a" in params:
        a, b = params["lora_a"], params["lora_b"]
        inputs, outputs = "abc"[: a.ndim - 2], "xyz"[: b.ndim - 2]
        found["kernel"] += 3.0 * jnp.einsum(f"n{inputs}r,nr{outputs}->n{inputs}{outputs}", a, b)
    return found


# ---------------------------------------------------------------------------------------------------- their checkpoints


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    with saving.Saver(folder) as saver:
        saver.save(0, jax.jit(PLAIN.init)(jax.random.key(3)))
    Manifest.create(SMALL, ByteTokenizer(), UNTUNED).save(folder)
    ByteTokenizer().save(folder / "vocabulary")
    return folder


def _tune(folder, prepared, base, steps, **more):
    arguments = {"initial_checkpoint_path": str(base), "lora": LORA, "ema_decay": 0.5} | more
    return train(folder, prepared, steps, **({"optimizer": optimizers.adamw(1e-1), "checkpoint_period": 1} | arguments))


class _Look:
    """The parameters that an evaluation in the loop is given after the second step."""

    def pauses(self, context, step):
        return step == 2

    def after_step(self, context, step, values):
        if step == 2:
            _Look.seen = jax.device_get(context.merged_params())


@pytest.fixture(scope="module")
def tuned(prepared, base, tmp_path_factory):
    """Two steps of training, of which the first is its own start of the program."""
    folder = tmp_path_factory.mktemp("runs") / "adapters"
    _tune(folder, prepared, base, 1)
    _tune(folder, prepared, base, 2, hooks=[_Look()])
    return folder


def test_a_checkpoint_holds_adapters_alone(tuned, base):
    saved = json.loads((tuned / "checkpoints" / "2" / "digests" / "metadata").read_text())
    assert set(saved) == {"adapters", "opt_state", "ema", "step", "saved_by", "sha256"}
    assert {name.split("/")[-1] for name in saved["adapters"]} == set(lora.NAMES)
    assert len(saved["adapters"]) == 5 * 3  # query, key, value, out and wo
    about = json.loads((tuned / "adapters.json").read_text())
    assert about == {"format": 1, "checkpoint": str(base), "step": 0, "weights": adapters.weights(base, 0)}
    program_ = json.loads((tuned / "run.json").read_text())["program"]
    assert program_["lora"] == {"rank": 4, "alpha": 12.0, "targets": ["self_attention", "wo"]}


def test_a_run_that_goes_on_is_bit_identical(tuned, prepared, base, tmp_path):
    _tune(tmp_path, prepared, base, 2)
    both = [(folder / "checkpoints" / "2" / "digests" / "metadata").read_text() for folder in (tmp_path, tuned)]
    assert both[0] == both[1]


def test_it_is_read_as_the_model_with_its_adapters_taken_in(tuned, base, tmp_path):
    """By the evaluator's way, and by the way of whatever converts; the mean too."""
    model, params, _, _ = arrays.load_model(tuned)
    assert type(model) is models.Model and nested.paths(params) == nested.paths(PLAIN.abstract_params())
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), _Look.seen, params)
    start = arrays.load_model(base)[1]
    changed = {path[-2] for path in nested.paths(params) if not np.array_equal(_leaf(params, path), _leaf(start, path))}
    assert changed == {"query", "key", "value", "out", "wo"}
    for which in ("params", "ema"):
        convert.convert(str(tuned), str(tmp_path / which), which=which)
        found, expected = arrays.load_model(tmp_path / which)[1], arrays.load_model(tuned, which=which)[1]
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), found, expected)
    assert not np.array_equal(
        *(arrays.load_model(tuned, which=w)[1]["decoder"]["layers"]["mlp"]["wo"]["kernel"] for w in ("params", "ema"))
    )
    assert len({adapters.weights(tuned, step, which) for step in (1, 2) for which in ("params", "ema")}) == 4


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"lora": LORA | {"rank": 5}}, "LORA.rank 4 -> 5"),
        ({"lora": LORA | {"alpha": 1}}, "LORA.alpha 12.0 -> 1.0"),
        ({"lora": LORA | {"targets": ("mlp",)}}, "LORA.targets ['self_attention', 'wo'] -> ['mlp']"),
        ({"lora": None}, "LORA.rank 4 -> absent"),
    ],
)
def test_other_adapters_are_another_run(tuned, prepared, base, changed, says):
    with pytest.raises(FlanError, match="holds another run") as caught:
        _tune(tuned, prepared, base, 3, **changed)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"lora": {"rank": 0}}, "'rank' has to be a whole number from 1"),
        ({"lora": {"rang": 4}}, "unknown key 'rang': did you mean 'rank'"),
        ({"lora": {"alpha": float("nan")}}, "'alpha' has to be a number above 0"),
        ({"lora": {"targets": ("self_atention",)}}, "LORA: pattern 'self_atention' fits no parameter: did you mean"),
        ({"lora": {"targets": ("token_embedder",)}}, "fits no parameter"),
        ({"lora": {"targets": ()}}, "leave no projection"),
        ({"lora": {"targets": ("mlp", "!mlp")}}, "leave no projection"),
        ({"frozen": ("mlp",)}, "LORA trains adapters, and nothing else: leave FROZEN out"),
        ({"initial_checkpoint_path": None}, "give its folder as INITIAL_CHECKPOINT_PATH"),
    ],
)
def test_adapters_that_are_none_leave_nothing(prepared, base, tmp_path, changed, says):
    with pytest.raises(FlanError) as caught:
        _tune(tmp_path / "run", prepared, base, 1, **changed)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_gone_or_another_is_said(tuned, prepared, base, tmp_path):
    shutil.copytree(tuned, tmp_path / "run")
    shutil.copytree(base, tmp_path / "moved")
    about = json.loads((tmp_path / "run" / "adapters.json").read_text())

    def point_to(place):
        (tmp_path / "run" / "adapters.json").write_text(json.dumps(about | {"checkpoint": str(place)}))

    point_to(tmp_path / "nowhere")
    with pytest.raises(FlanError, match="whose parameters these adapters change: put it there, or, where it lies"):
        arrays.load_model(tmp_path / "run")
    point_to(tmp_path / "moved")
    jax.tree.map(np.testing.assert_array_equal, arrays.load_model(tmp_path / "run")[1], arrays.load_model(tuned)[1])
    point_to(base)
    assert _tune(tmp_path / "run", prepared, tmp_path / "moved", 3).step == 3  # the same by content
    written = json.loads((tmp_path / "run" / "adapters.json").read_text())
    assert written == about | {"checkpoint": str(tmp_path / "moved")}  # what evaluates finds it there too
    os.rename(tmp_path / "moved" / "checkpoints" / "0", tmp_path / "moved" / "checkpoints" / "7")
    with pytest.raises(FlanError, match=r"step 0 of .*, whose parameters these adapters change, is not there any more"):
        arrays.load_model(tmp_path / "run")
    shutil.rmtree(tmp_path / "moved" / "checkpoints")
    with saving.Saver(tmp_path / "moved") as saver:
        saver.save(0, jax.jit(PLAIN.init)(jax.random.key(4)))
    for read in (
        lambda: arrays.load_model(tmp_path / "run"),
        lambda: _tune(tmp_path / "run", prepared, tmp_path / "moved", 4),
    ):
        with pytest.raises(FlanError, match="holds other weights .* than the adapters were trained with"):
            read()
    (tmp_path / "run" / "adapters.json").write_text("{}")
    with pytest.raises(FlanError, match=r"adapters.json is broken"):
        arrays.load_model(tmp_path / "run")


def test_the_plan_of_a_run_file_has_its_adapters(base):
    bindings = [f"INITIAL_CHECKPOINT_PATH = {str(base)!r}", f"LORA = {LORA}", "OPTIMIZER = 'adamw'"]
    found = precompile.run_file(["runs/tune.gin"], bindings)
    assert found["optimizer"].lora == optimizers.Lora(4, 12.0, ("self_attention", "wo"))
    shape = program.Shape(8, LENGTHS["inputs"], LENGTHS["targets"], 1, found["optimizer"])
    mesh = partitioning.make_mesh(2, 2, 2)
    _, held = program.lower_train_step(SMALL, mesh, shape)
    _, whole = program.lower_train_step(SMALL, mesh, dataclasses.replace(shape, optimizer=optimizers.adamw(1e-2)))
    assert held["optimizer"] < 0.4 * whole["optimizer"] and held["parameters"] > whole["parameters"]
    plan = estimate.Plan(SMALL, {}, shape)
    of_all = estimate.model_flops(dataclasses.replace(plan, shape=dataclasses.replace(shape, optimizer=None)))
    assert 0.6 < estimate.model_flops(plan) / of_all < 0.8  # two of three products, and the scores

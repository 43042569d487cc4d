"""What a run takes from the checkpoint that it starts from: a step, the optimizer's state, parameters by a map."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest
from small_training import SMALL, train

from flan_jax.checkpoint import arrays
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.errors import FlanError
from flan_jax.models import nested
from flan_jax.training import optimizers

ADAM = {"optimizer": optimizers.adamw(1e-2, 1), "checkpoint_period": 1, "keep_checkpoints": 9}
HEADED = dataclasses.replace(SMALL, tied_embeddings=False)
HEAD = ("decoder", "logits_dense", "kernel")


@pytest.fixture(scope="module")
def first(prepared, tmp_path_factory):
    """A run of three steps, each saved."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    train(folder, prepared, 3, **ADAM)
    return folder


def _parameters(folder, step):
    return {
        path: _leaf(arrays.load_model(folder, step)[1], path)
        for path in nested.paths(arrays.load_model(folder, step)[1])
    }


def _leaf(tree, path):
    for name in path:
        tree = tree[name]
    return np.asarray(tree)


class _Look:
    """The state after the first step of a start."""

    def pauses(self, context, step):
        return True

    def after_step(self, context, step, values):
        self.state = jax.device_get(context.state())


def test_a_step_is_taken_and_compared(first, prepared, tmp_path):
    frozen = {"optimizer": optax.sgd(0.0), "initial_checkpoint_path": str(first), "checkpoint_period": 1}
    train(tmp_path / "run", prepared, 1, **frozen, initial_step=2)
    found, expected, last = _parameters(tmp_path / "run", 1), _parameters(first, 2), _parameters(first, 3)
    assert all(np.array_equal(found[path], expected[path]) for path in expected)
    assert not all(np.array_equal(found[path], last[path]) for path in last)
    start = json.loads((tmp_path / "run" / "run.json").read_text())["start"]
    assert start == {"checkpoint": str(first), "step": 2, "manifest": Manifest.load(first).digest()}
    with pytest.raises(FlanError, match=r"INITIAL_CHECKPOINT_PATH .* \(step 2, .* -> .* \(step 1, "):
        train(tmp_path / "run", prepared, 2, **frozen, initial_step=1)
    assert train(tmp_path / "run", prepared, 2, **frozen).step == 2  # it goes on from its own checkpoint


def test_the_optimizer_s_state_is_taken_and_its_schedule_begins_anew(first, prepared, tmp_path):
    """The reference restores the state of before by hand, and takes the step with optax alone."""
    look = _Look()
    start = {"initial_checkpoint_path": str(first), "initial_optimizer_state": True, "hooks": [look]}
    train(tmp_path / "run", prepared, 1, **(ADAM | start))
    adam = next(s for s in jax.tree.leaves(look.state.opt_state, is_leaf=_is_adam) if _is_adam(s))
    rate = next(s for s in jax.tree.leaves(look.state.opt_state, is_leaf=_is_rate) if _is_rate(s))
    assert (int(adam.count), int(rate.count)) == (4, 1)
    before = _moments(first, 3)
    fresh = _Look()
    train(tmp_path / "fresh", prepared, 1, **(ADAM | start | {"initial_optimizer_state": False, "hooks": [fresh]}))
    gradient = {path: x / 0.1 for path, x in _of(fresh.state, "mu").items()}  # a first mean is a tenth of it
    for path, x in _of(look.state, "mu").items():
        np.testing.assert_allclose(x, 0.9 * before[path] + 0.1 * gradient[path], rtol=1e-4, atol=1e-7)
    described = json.loads((tmp_path / "run" / "run.json").read_text())["start"]
    assert described["optimizer_state"] is True and described["step"] == 3
    with pytest.raises(FlanError, match="with the optimizer's state"):
        train(tmp_path / "run", prepared, 2, **(ADAM | start | {"initial_optimizer_state": False}))


def _is_adam(x):
    return isinstance(x, optax.ScaleByAdamState)


def _is_rate(x):
    return isinstance(x, optax.ScaleByScheduleState)


def _of(state, name):
    adam = next(s for s in jax.tree.leaves(state.opt_state, is_leaf=_is_adam) if _is_adam(s))
    tree = getattr(adam, name)
    return {path: _leaf(tree, path) for path in nested.paths(tree)}


def _moments(folder, step):
    from flan_jax.checkpoint import digests, stored

    place = digests.step_folder(folder, step) / stored.OPT_STATE
    names = [name for name in digests.read(folder, step)[stored.OPT_STATE] if "/mu/" in name]
    return {tuple(n.partition("/mu/")[2].split("/")): stored.opened(place, n).read().result() for n in names}


def test_parameters_go_into_another_model_by_a_map(first, prepared, tmp_path):
    """A model with a head of its own: the head is random, one norm is another's, the rest is taken."""
    more = {"optimizer": optax.sgd(0.0), "initial_checkpoint_path": str(first), "checkpoint_period": 1, "model": HEADED}
    mapping = {"logits_dense": None, "pre_mlp_layer_norm": "pre_self_attention_layer_norm"}
    train(tmp_path, prepared, 1, **more, initial_map=mapping)
    found, before = _parameters(tmp_path, 1), _parameters(first, 3)
    assert set(found) == {*before, HEAD} and found[HEAD].std() > 0.01
    for path, x in before.items():
        if "pre_mlp_layer_norm" in path:
            x = before[("decoder", "layers", "pre_self_attention_layer_norm", "scale")]
        np.testing.assert_array_equal(found[path], x)
    manifest = Manifest.load(tmp_path)
    assert manifest.model["tied_embeddings"] is False and manifest.tuning["datasets"] == ["sst2"]
    assert train(tmp_path, prepared, 2, **more, initial_map=mapping).step == 2
    with pytest.raises(FlanError, match=r"by INITIAL_MAP .* -> .*\), by INITIAL_MAP|by INITIAL_MAP"):
        train(tmp_path, prepared, 3, **more, initial_map={"logits_dense": None})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"initial_step": 7}, "INITIAL_STEP 7 is not in"),
        ({"initial_step": -1}, "train.initial_step is -1"),
        ({"initial_optimizer_state": 1}, "train.initial_optimizer_state is 1"),
        ({"initial_optimizer_state": True, "optimizer": optimizers.lion(1e-2)}, "is of another optimizer or model"),
        ({"initial_optimizer_state": True, "frozen": ("mlp",)}, "is of another optimizer or model"),
        ({"initial_map": {}}, "has no decoder/logits_dense/kernel, from which decoder/logits_dense/kernel would be"),
        ({"initial_map": {"logits_dens": None}}, "INITIAL_MAP: pattern 'logits_dens' fits no parameter: did you mean"),
        ({"initial_map": {"logits_dense": "token_embedder"}}, "has no decoder/token_embedder/kernel"),
        ({"initial_map": {"logits_dense/kernel": "token_embedder/embedding"}}, "has shape (384, 32), and"),
        ({"initial_map": {"logits_*": "x"}}, "a pattern with * has no other place"),
        ({"initial_map": {"*": None}}, "INITIAL_MAP takes nothing"),
        ({"initial_map": ("a",)}, "it has to be a dictionary"),
        ({"initial_map": {"logits_dense": 3}}, "it has to be a dictionary"),
        ({"initial_map": {"logits_dense": None}, "model": None}, "give it as MODEL"),
        ({"initial_map": {"logits_dense": None}, "lora": {}}, "leave INITIAL_MAP out"),
        ({"initial_checkpoint_path": None, "initial_step": 3}, "give it too"),
    ],
)
def test_what_cannot_be_taken_leaves_nothing(first, prepared, tmp_path, changed, says):
    arguments = {"initial_checkpoint_path": str(first), "model": HEADED} | ADAM | changed
    with pytest.raises(FlanError) as caught:
        train(tmp_path / "run", prepared, 1, **arguments)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_without_an_optimizer_s_state_is_said(first, prepared, tmp_path):
    from flan_jax import convert

    convert.convert(str(first), str(tmp_path / "plain"))
    more = {"initial_checkpoint_path": str(tmp_path / "plain"), "initial_optimizer_state": True}
    with pytest.raises(FlanError, match="has no optimizer's state: leave INITIAL_OPTIMIZER_STATE at False"):
        train(tmp_path / "run", prepared, 1, **(ADAM | more))

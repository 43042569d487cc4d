"""What a run takes from the checkpoint that it starts from: a step, the optimizer's state, parameters by a map.

A run is resolved and its first state restored, as `train` does both; no step is compiled.
"""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_training import LENGTHS, SMALL, train

from flan_jax import models
from flan_jax.checkpoint import adapters, arrays, choosing, saving
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.models import nested
from flan_jax.training import comparing, loop, optimizers, resolving
from flan_jax.training.starting import Start
from flan_jax.training.state import state_shardings

PLAIN = models.build(SMALL)
HEADED = dataclasses.replace(SMALL, tied_embeddings=False)
HEAD = ("decoder", "logits_dense", "kernel")
ADAM = optimizers.adamw(1e-2, 1, weight_decay=0.1)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder as a run leaves it: steps 2 and 3, each of other numbers, with the state of `ADAM`."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    tx = optimizers.for_parameters(ADAM, PLAIN.logical_axes())
    with saving.Saver(folder, keep=9) as saver:
        for step in (2, 3):
            params = PLAIN.init(jax.random.key(step))
            state = jax.tree.map(lambda x, step=step: jnp.full(x.shape, step, x.dtype), tx.init(params))
            saver.save(step, params, state)
    Manifest.create(SMALL, ByteTokenizer(), UNTUNED).save(folder)
    ByteTokenizer().save(folder / "vocabulary")
    return folder


def _begin(folder, prepared, first, optimizer=ADAM, model=None, **taken):
    """(the resolved run, its manifest, its first state)."""
    found, given = resolving.resolve(
        model_dir=folder,
        mixture="sst2",
        prepared_dir=str(prepared),
        train_steps=9,
        initial_checkpoint_path=str(first),
        model=model,
        batch_size=8,
        feature_lengths=LENGTHS,
        optimizer=optimizer,
        taken=Start(**taken),
    )
    network = models.build(found.program.config)
    shardings = state_shardings(given.mesh, network, given.tuning)
    return found, given.manifest, loop._state(network, given.tuning, shardings, folder, None, found, given)


def _same(found, expected):
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True))


def test_a_step_is_taken_and_compared(first, prepared, tmp_path):
    last, _, state = _begin(tmp_path, prepared, first)
    assert _same(state.params, PLAIN.init(jax.random.key(3)))
    found, _, state = _begin(tmp_path, prepared, first, step=2)
    assert _same(state.params, PLAIN.init(jax.random.key(2)))
    manifest = Manifest.load(first)
    about = {"manifest": manifest.digest(), "weights": adapters.weights(first, 2), "tuning": manifest.tuning_digest()}
    assert found.start == {"checkpoint": str(first), "step": 2, **about}
    ((name, old, new),) = comparing.differences(last, found)
    assert name == "INITIAL_CHECKPOINT_PATH" and "(step 3, " in old and "(step 2, " in new


def test_the_optimizer_s_state_is_taken_and_its_schedules_begin_anew(first, prepared, tmp_path):
    plain, _, fresh = _begin(tmp_path, prepared, first)
    found, _, state = _begin(tmp_path, prepared, first, optimizer_state=True)
    adam, rates = state.opt_state[0], [x for x in state.opt_state if isinstance(x, optax.ScaleByScheduleState)]
    assert adam.count == 3 and all(np.all(x == 3) for x in jax.tree.leaves((adam.mu, adam.nu)))
    assert len(rates) == 1 and rates[0].count == 0
    assert all(np.all(np.asarray(x) == 0) for x in jax.tree.leaves(fresh.opt_state))
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(fresh.opt_state)
    ((name, _, new),) = comparing.differences(plain, found)
    assert name == "INITIAL_CHECKPOINT_PATH" and new.endswith(", with the optimizer's state)")


def test_parameters_go_into_another_model_by_a_map(first, prepared, tmp_path):
    """A model with a head of its own: the head is random, one norm is another's, the rest is taken."""
    mapping = {"logits_dense": None, "pre_mlp_layer_norm": "pre_self_attention_layer_norm"}
    found, manifest, state = _begin(tmp_path, prepared, first, optax.sgd(0.1), HEADED, map=mapping)
    before = PLAIN.init(jax.random.key(3))
    assert {*nested.paths(state.params)} == {*nested.paths(before), HEAD}
    assert state.params["decoder"]["logits_dense"]["kernel"].std() > 0.01
    layers = before["decoder"]["layers"]
    expected = {"pre_mlp_layer_norm": layers["pre_self_attention_layer_norm"]}
    assert _same(state.params["decoder"]["layers"], layers | expected)
    assert _same(state.params["decoder"]["token_embedder"], before["decoder"]["token_embedder"])
    assert manifest.model["tied_embeddings"] is False and found.program.model["tied_embeddings"] is False
    other, _, _ = _begin(tmp_path, prepared, first, optax.sgd(0.1), HEADED, map={"logits_dense": None})
    assert "by INITIAL_MAP" in str(comparing.differences(found, other))


def test_an_optimizer_without_a_state_goes_on(tmp_path):
    """Its step is whole, though an item of it holds no array."""
    tx = optax.sgd(0.1)
    params = PLAIN.init(jax.random.key(0))
    with saving.Saver(tmp_path) as saver:
        saver.save(1, params, tx.init(params))
    assert choosing.choose_step(tmp_path) == choosing.choose_step(tmp_path, "previous") == 1
    shardings = jax.tree.map(lambda x: x.sharding, params)
    step, found, state = arrays.restore_training(tmp_path, (params, tx.init(params)), (shardings, tx.init(params)))
    assert step == 1 and _same(found, params) and jax.tree.structure(state) == jax.tree.structure(tx.init(params))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"initial_step": 7}, "INITIAL_STEP 7 is not in"),
        ({"initial_step": -1}, "train.initial_step is -1"),
        ({"initial_optimizer_state": 1}, "train.initial_optimizer_state is 1"),
        ({"initial_optimizer_state": True, "optimizer": optimizers.lion(1e-2)}, "is of another optimizer or model"),
        ({"initial_optimizer_state": True, "frozen": ("mlp",)}, "is of another optimizer or model"),
        ({"initial_optimizer_state": True, "lora": {}}, "leave INITIAL_OPTIMIZER_STATE out"),
        ({"initial_optimizer_state": True, "prompt_length": 2}, "leave INITIAL_OPTIMIZER_STATE out"),
        (
            {"initial_optimizer_state": True, "optimizer": optimizers.adafactor(1e-2, step_offset=2)},
            "is of another optimizer or model",
        ),
        ({"optimizer": optimizers.adafactor(1e-2, step_offset=2)}, "adafactor.step_offset is 2, and the average of"),
        ({"initial_map": {"!logits_dense": None}}, "takes out what no pattern before it has chosen"),
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
    arguments = {"initial_checkpoint_path": str(first), "model": HEADED, "optimizer": ADAM} | changed
    with pytest.raises(FlanError) as caught:
        train(tmp_path / "run", prepared, 1, **arguments)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_without_an_optimizer_s_state_is_said(first, prepared, tmp_path):
    with saving.Saver(tmp_path / "plain") as saver:
        saver.save(0, PLAIN.init(jax.random.key(0)))
    Manifest.load(first).save(tmp_path / "plain")
    ByteTokenizer().save(tmp_path / "plain" / "vocabulary")
    with pytest.raises(FlanError, match="has no optimizer's state: leave INITIAL_OPTIMIZER_STATE at False"):
        _begin(tmp_path / "run", prepared, tmp_path / "plain", optimizer_state=True)


def test_the_state_of_an_optimizer_that_only_looks_like_it_is_refused(first, prepared, tmp_path):
    """By its name in run.json, since arrays of the same names and shapes may mean something else; by its parts."""
    belief = optimizers.factory("optax:adabelief", 1e-2)
    found, _ = resolving.resolve(
        model_dir=tmp_path / "none",
        mixture="sst2",
        prepared_dir=str(prepared),
        train_steps=9,
        model=SMALL,
        vocabulary="bytes",
        batch_size=8,
        feature_lengths=LENGTHS,
        optimizer=optimizers.factory("optax:adam", 1e-2),
    )
    shutil.copytree(first, tmp_path / "named")
    found.save(tmp_path / "named")
    with pytest.raises(FlanError, match="is optax:adam's, and OPTIMIZER is optax:adabelief: leave INITIAL_OPTIMIZER"):
        _begin(tmp_path / "run", prepared, tmp_path / "named", belief, optimizer_state=True)
    nesterov = optimizers.factory("optax:nadamw", 1e-2, 1)  # no decay, and so no mask in its state
    with pytest.raises(FlanError, match="is of another optimizer") as caught:
        _begin(tmp_path / "run", prepared, first, nesterov, optimizer_state=True)
    assert "damaged" not in str(caught.value)

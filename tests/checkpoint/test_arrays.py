import dataclasses
import gc
import json
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tokenizers

from flan_jax import configuration, models, partitioning
from flan_jax.checkpoint import arrays, choosing, saving
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data.vocabularies import ByteTokenizer, HuggingFaceTokenizer
from flan_jax.errors import FlanError
from flan_jax.formats import native
from flan_jax.training import loop, optimizers
from flan_jax.training.state import abstract_state, state_shardings

SMALL = dataclasses.replace(configuration.model_config("tiny"), num_layers=2, embed_dim=128, head_dim=8, mlp_dim=160)
NETWORK, TX = models.build(SMALL), optimizers.adafactor()
BYTES = ByteTokenizer()


def _manifest(status=UNTUNED, clusters=()):
    return Manifest.create(SMALL, BYTES, status, clusters, {"imported": "here"})


def _mesh(data=1, fsdp=1, tensor=1):
    return partitioning.make_mesh(data, fsdp, tensor, devices=jax.devices()[: data * fsdp * tensor])


@pytest.fixture(scope="module")
def state():
    """Parameters and an optimizer state whose statistics are random too, as numpy."""
    abstract = abstract_state(NETWORK, TX)
    rng = np.random.default_rng(0)

    def fill(x):
        if jnp.issubdtype(x.dtype, jnp.integer):
            return np.full(x.shape, 7, x.dtype)
        return rng.normal(size=x.shape).astype(x.dtype)

    return jax.tree.map(fill, abstract.params), jax.tree.map(fill, abstract.opt_state)


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
    """A checkpoint folder with steps 3 and 12, laid out over eight devices when it was written."""
    folder = tmp_path_factory.mktemp("models") / "saved"
    shardings = state_shardings(_mesh(2, 2, 2), NETWORK, TX)
    params, opt_state = state
    with saving.Saver(folder, keep=2) as saver:
        for step, factor in ((1, 5), (3, 2), (12, 1)):
            scaled = jax.tree.map(lambda x, f=factor: (x * f).astype(x.dtype), params)
            saver.save(step, jax.device_put(scaled, shardings.params), jax.device_put(opt_state, shardings.opt_state))
    _manifest().save(folder)
    BYTES.save(folder / "vocabulary")
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def _restore_training(folder, mesh, network=NETWORK):
    abstract, shardings = abstract_state(network, TX), state_shardings(mesh, network, TX)
    trees = (abstract.params, abstract.opt_state), (shardings.params, shardings.opt_state)
    return arrays.restore_training(folder, *trees), trees[1]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2), (1, 4, 2), (8, 1, 1)])
def test_round_trip_onto_any_mesh(saved, state, sizes):
    (step, *trees), shardings = _restore_training(saved, _mesh(*sizes))
    assert step == 12
    assert len(jax.tree.leaves(trees)) == len(jax.tree.leaves(state))
    jax.tree.map(np.testing.assert_array_equal, tuple(trees), state)
    jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim) or pytest.fail(str(s)), tuple(trees), shardings)


def test_parameters_of_any_kept_step(saved, state):
    assert choosing.steps(saved) == [3, 12]  # `keep` has removed step 1
    for step, factor in ((None, 1), (12, 1), (3, 2)):
        network, params, tokenizer, manifest = arrays.load_model(saved, step=step)
        jax.tree.map(lambda x, y, f=factor: np.testing.assert_array_equal(x, y * f), params, state[0])
    assert network == NETWORK and tokenizer.fingerprint == BYTES.fingerprint and manifest.model == SMALL.to_dict()


def test_unfinished_steps_do_not_count(copy, state):
    folder = copy / "checkpoints"
    shutil.copytree(folder / "12", folder / "40.orbax-checkpoint-tmp-1")
    shutil.copytree(folder / "12" / "params", folder / "60.orbax-checkpoint-tmp" / "params")
    assert choosing.latest_step(copy) == 12
    (step, params, _), _ = _restore_training(copy, _mesh())
    assert step == 12
    jax.tree.map(np.testing.assert_array_equal, params, state[0])


def test_saving_goes_on_beside_an_unfinished_step(copy, state):
    leftover = copy / "checkpoints" / "13.orbax-checkpoint-tmp"
    shutil.copytree(copy / "checkpoints" / "12", leftover)
    with saving.Saver(copy, keep=2) as saver:
        saver.save(13, *state)
    assert choosing.steps(copy) == [12, 13]


def test_a_folder_without_checkpoints(tmp_path):
    assert choosing.latest_step(tmp_path) is None and choosing.steps(tmp_path / "none") == []
    (tmp_path / "checkpoints").mkdir()
    assert choosing.latest_step(tmp_path) is None
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoints"]  # looking makes nothing


# --------------------------------------------------------------------------------------------------------- errors


def _one_line(caught, *parts):
    assert "\n" not in str(caught.value)
    for part in parts:
        assert str(part) in str(caught.value)


def test_a_missing_folder(tmp_path):
    with pytest.raises(FlanError) as caught:
        arrays.load_model(tmp_path / "none")
    _one_line(caught, tmp_path / "none", "manifest.json is missing", "python -m flan_jax.convert")


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(FlanError, match=r"no checkpoint at .*: manifest\.json is missing"):
        arrays.load_model(tmp_path)


def test_missing_parts(copy):
    with pytest.raises(FlanError) as caught:
        arrays.load_model(copy, step=4)
    _one_line(caught, "no step 4", copy, "there are 3, 12")
    shutil.rmtree(copy / "vocabulary")
    with pytest.raises(FlanError) as caught:
        arrays.load_model(copy)
    _one_line(caught, "no vocabulary at", copy)
    shutil.rmtree(copy / "checkpoints")
    BYTES.save(copy / "vocabulary")
    with pytest.raises(FlanError) as caught:
        arrays.load_model(copy)
    _one_line(caught, "checkpoints/ holds no step", copy)


def test_damaged_arrays(copy):
    for path in (copy / "checkpoints" / "12" / "params").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(FlanError) as caught:
        arrays.load_model(copy)
    _one_line(
        caught, "step 12", copy, "is damaged", "_METADATA is missing", "take step 3, which is whole: give --step=3"
    )
    assert jax.tree.leaves(arrays.load_model(copy, step=3)[1])  # the step before is whole


LATE = """
import asyncio, sys
import tensorstore
from flan_jax.checkpoint import arrays, choosing, saving

def late():
    promise, future = tensorstore.Promise.new()
    loop = asyncio.new_event_loop()
    async def wait():
        asyncio.ensure_future(future)
        await asyncio.sleep(0)
    loop.run_until_complete(wait())
    loop.close()
    promise.set_result(1)  # as a write does that ends after another one has failed

class Odd:
    def __del__(self):
        raise ValueError("something else")

hook = sys.unraisablehook
if sys.argv[1] == "quietly":
    with saving.quietly():
        late()
        Odd()
else:
    late()
assert sys.unraisablehook is hook
"""


@pytest.mark.parametrize("how", ["quietly", "aloud"])
def test_a_write_that_ends_late_prints_nothing(how):
    done = subprocess.run([sys.executable, "-c", LATE, how], capture_output=True, text=True, check=True)
    assert ("Event loop is closed" in done.stderr) == (how == "aloud"), done.stderr
    assert ("something else" in done.stderr) == (how == "quietly")  # what else goes wrong is told


METADATA = {
    "empty": b"",
    "half": b'{"item_handlers": {"par',
    "binary": b"\x00\xff" * 40,
    "list": b"[]",
    "null": b"null",
}
METADATA |= {"other kinds": b'{"item_handlers": 3, "metrics": "x", "custom_metadata": [1]}', "missing": None}


@pytest.mark.parametrize("damage", METADATA)
def test_what_one_step_says_of_itself_stops_no_other(damage, copy, state):
    about = copy / "checkpoints" / "3" / "_CHECKPOINT_METADATA"
    about.unlink()
    if METADATA[damage] is not None:
        about.write_bytes(METADATA[damage])
    assert choosing.steps(copy) == [3, 12] and choosing.latest_step(copy) == 12
    jax.tree.map(np.testing.assert_array_equal, arrays.load_model(copy)[1], state[0])
    with saving.Saver(copy, keep=2) as saver:  # a run goes on from step 12
        saver.save(13, state[0])
    assert choosing.steps(copy) == [12, 13]


@pytest.fixture
def collected():
    """Collects what Orbax leaves behind when it refuses, within the test that caused it."""
    yield
    gc.collect()


@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_another_shape_is_refused(saved):
    for changed, named in (
        ({"num_layers": 3}, "stored shape: (2,"),
        ({"embed_dim": 64}, "stored shape: ("),
        ({"vocab_size": 500}, "stored shape: (384, 128)"),
        ({"qk_norm": True}, "decoder.layers.self_attention.key_norm"),
    ):
        other = models.build(dataclasses.replace(SMALL, **changed))
        shardings = partitioning.parameter_shardings(_mesh(), other.logical_axes(), other.abstract_params())
        with pytest.raises(FlanError) as caught:
            arrays.restore_params(saved, other.abstract_params(), shardings)
        _one_line(caught, "step 12", saved, "cannot be read", named, "another model or optimizer")


def test_parameters_alone_cannot_continue_a_run(tmp_path, state):
    with saving.Saver(tmp_path, keep=1) as saver:
        saver.save(0, state[0])
    with pytest.raises(FlanError) as caught:
        _restore_training(tmp_path, _mesh())
    _one_line(caught, "step 0", tmp_path, "cannot be read", "opt_state")
    shardings = state_shardings(_mesh(), NETWORK, TX)
    found = arrays.restore_params(tmp_path, NETWORK.abstract_params(), shardings.params)
    jax.tree.map(np.testing.assert_array_equal, found, state[0])


@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_statistics_of_another_adafactor_are_refused(tmp_path, state):
    """Runs of earlier versions kept the statistics of whole stacks."""
    whole = optax.adafactor(optimizers.schedule(3e-5), clipping_threshold=1.0)
    with saving.Saver(tmp_path, keep=1) as saver:
        saver.save(5, state[0], jax.tree.map(np.asarray, whole.init(state[0])))
    with pytest.raises(FlanError) as caught:
        _restore_training(tmp_path, _mesh())
    _one_line(caught, "step 5", tmp_path, "cannot be read", "stored shape", "with INITIAL_CHECKPOINT_PATH")


def test_manifests_are_plain_json(saved):
    values = json.loads((saved / "manifest.json").read_text())
    assert set(values) == {"model", "vocabulary", "tuning", "separator", "history", "digest"}


def test_a_vocabulary_with_more_ids_than_embeddings(saved, tmp_path):
    """Whatever put it there: beyond the table a look-up gives nothing of use."""
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    vocabulary = {"</s>": 0, "a": SMALL.vocab_size}
    content = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="a")).to_str().encode()
    HuggingFaceTokenizer(content, 0).save(folder / "vocabulary")
    message = f"{folder}: the tokenizer has {SMALL.vocab_size + 1} ids and the model {SMALL.vocab_size} embeddings"
    with pytest.raises(FlanError, match=message):
        arrays.load_model(folder)
    with pytest.raises(FlanError, match="embeddings"):
        native.read(folder)
    with pytest.raises(FlanError, match=message):
        loop.train(
            model_dir=str(tmp_path / "run"),
            mixture="rte",
            prepared_dir=str(tmp_path),
            initial_checkpoint_path=str(folder),
            train_steps=1,
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("known", ["at the next step", "at the end"])
def test_failed_save_is_noticed(make_disk, known):
    """A save runs beside the steps: `check` raises as soon as it has failed, and nothing of it stays."""
    disk = make_disk(3000)

    def state(size):
        return {"a": jnp.asarray(np.random.default_rng(0).random(size, np.float32))}

    with pytest.raises(FlanError) as caught, saving.Saver(disk, keep=1) as saver:
        saver.save(1, state(10_000))
        saver.save(2, state(2_000_000))
        deadline = time.monotonic() + 60
        while known == "at the next step":
            saver.check()
            time.sleep(0.01)
            assert time.monotonic() < deadline
    assert "cannot save step 2" in str(caught.value)
    assert "no space left on device; make room" in str(caught.value)
    assert "the last whole checkpoint there is of step 1." in str(caught.value)
    assert [path.name for path in (disk / "checkpoints").iterdir()] == ["1"]
    with saving.Saver(disk, keep=1) as saver:
        saver.save(2, state(10_000))
    assert choosing.steps(disk) == [2]


def test_a_save_that_failed_costs_no_older_step(make_disk, monkeypatch):
    """Orbax's thread that ends a save hears of the error late; the last whole step must not be removed before."""
    disk = make_disk(3000)
    with pytest.raises(FlanError, match="the last whole checkpoint there is of step 1"), saving.Saver(disk, 1) as saver:
        saver.save(1, {"a": jnp.ones(10_000)})
        saver.wait()
        ends = saver._manager._wait_for_checkpointers
        monkeypatch.setattr(saver._manager, "_wait_for_checkpointers", lambda: (time.sleep(2), ends()))
        saver.save(2, {"a": jnp.asarray(np.random.default_rng(0).random(2_000_000, np.float32))})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            saver.check()
            time.sleep(0.01)
    assert choosing.steps(disk) == [1]


def test_a_save_that_fails_otherwise_is_noticed_too(tmp_path):
    refused = pytest.raises(FlanError, match=r"cannot save step 1 in .*; no checkpoint is there yet")
    with refused, saving.Saver(tmp_path) as saver:
        saver.save(1, {"a": object()})


@pytest.mark.parametrize("name", ["runs [red]", "run*", "run?", "back\\slash", "[!a]/b"])
def test_a_folder_in_which_arrays_would_be_lost_is_refused(tmp_path, name):
    """Orbax finds what it has written by a pattern: such a checkpoint was saved without a word, and never read."""
    with pytest.raises(FlanError, match="cannot hold checkpoints, since .* is a pattern to Orbax") as refused:
        saving.Saver(tmp_path / name)
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["mein Lauf é ☃ {red} 100% a=b,c it's #x", "$HOME ~ (a) <b> !c a:b;c|d&e+f@g^`h`", '"q"']
)
def test_a_folder_of_any_other_name_takes_checkpoints(tmp_path, name):
    params = {"a": jnp.ones((4, 4))}
    with saving.Saver(tmp_path / name) as saver:
        saver.save(1, params)
    assert (tmp_path / name / "checkpoints" / "1" / "params" / "manifest.ocdbt").is_file()

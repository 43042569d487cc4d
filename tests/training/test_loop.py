import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from flan_jax import configuration, models, partitioning
from flan_jax.checkpoint import arrays, choosing
from flan_jax.checkpoint.manifest import TUNED, UNTUNED, Manifest
from flan_jax.data import token_store
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.styles import PAPER, TextStyle
from flan_jax.training import loop, optimizers
from flan_jax.training.state import abstract_state, state_shardings

BYTES = ByteTokenizer()
SMALL = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=2, embed_dim=32, head_dim=8, mlp_dim=64, remat="none"
)
LENGTHS = {"inputs": 48, "targets": 16}
STEPS = 24
BARE = TextStyle("no_template")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Tokens of two small datasets whose answers follow from the input."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    words = ["calm", "grey", "loud", "soft", "warm"]
    for name, answers in (("sst2", ("negative", "positive")), ("bool_q", ("no", "yes"))):
        examples = []
        for number in range(40):
            answer = int(rng.integers(2))
            text = f"{'-+'[answer]} {' '.join(rng.choice(words, 2))}"
            inputs, targets = BYTES.encode([text, answers[answer]])
            examples.append(token_store.TokenizedExample(inputs, targets, 0, number))
        info = {"num_records": len(examples), "renderings": 1, "vocab_size": BYTES.vocab_size}
        token_store.write_dataset(token_store.folder_of(folder, BYTES.fingerprint) / name, info, examples)
    return folder


def _train(model_dir, prepared, train_steps, **more):
    arguments = {
        "mixture": "flan",
        "model": SMALL,
        "vocabulary": "bytes",
        "batch_size": 4,
        "feature_lengths": LENGTHS,
        "optimizer": optimizers.adafactor(1e-2),
        "checkpoint_period": 8,
        "log_period": 100,
        "mesh_shape": {"data": 2, "fsdp": 2, "tensor": 2},
    }
    return loop.train(
        model_dir=str(model_dir), prepared_dir=str(prepared), train_steps=train_steps, **(arguments | more)
    )


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    """An uninterrupted run: its folder and its result."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return folder, _train(folder, prepared, STEPS, config_text="TRAIN_STEPS = 24\n")


def _metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _state(folder):
    """The last checkpoint as numpy: (step, leaves of parameters and optimizer state)."""
    network, tx = models.build(SMALL), optimizers.adafactor(1e-2)
    abstract = abstract_state(network, tx)
    shardings = state_shardings(partitioning.make_mesh(devices=jax.devices()[:1]), network, tx)
    step, *trees = arrays.restore_training(
        folder, (abstract.params, abstract.opt_state), (shardings.params, shardings.opt_state)
    )
    return step, [np.asarray(leaf) for leaf in jax.tree.leaves(trees)]


def _assert_bit_identical(found, expected):
    assert found[0] == expected[0]
    assert len(found[1]) == len(expected[1]) > 10
    for one, other in zip(found[1], expected[1], strict=True):
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes()


def test_loss_falls(finished):
    folder, result = finished
    losses = [line["loss"] for line in _metrics(folder)]
    assert result.step == STEPS and result.metrics["loss"] == losses[-1]
    assert losses[0] > 5 and np.mean(losses[-4:]) < 0.6 * losses[0]


def test_metrics_have_one_line_a_step(finished):
    folder, _ = finished
    lines = _metrics(folder)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line in lines:
        assert line["tokens_per_second"] > 0 and line["gradient_norm"] > 0
        assert 0.5 < line["slots_filled"] <= 1
        assert 0 <= line["accuracy"] <= 1
        assert set(line["dataset_loss"]) <= {"sst2", "bool_q"}
        # The loss is the mean over target tokens, so it lies between the datasets' means.
        each = line["dataset_loss"].values()
        assert min(each) - 1e-5 <= line["loss"] <= max(each) + 1e-5


def test_the_folder_is_complete(finished, prepared):
    folder, _ = finished
    assert (folder / "config.gin").read_text() == "TRAIN_STEPS = 24\n"
    assert any(path.stat().st_size > 0 for path in (folder / "tensorboard").iterdir())
    assert choosing.steps(folder) == [16, STEPS]  # two are kept
    manifest = Manifest.load(folder)
    stores = token_store.TokenStore.open(prepared, BYTES.fingerprint)
    assert manifest.tuning.pop("text") == [
        {"dataset": name, "digest": stores[name].digest, "records": 40, "records_digest": None}
        | {"style": "instructions", "vocabulary": BYTES.fingerprint}
        for name in ("sst2", "bool_q")
    ]
    assert manifest.tuning == {
        "status": TUNED,
        "datasets": ["bool_q", "sst2"],
        "clusters": ["reading_comprehension", "sentiment"],
    }
    assert manifest.separator == "eos"
    assert manifest.history[-1]["tuned on"] == "flan" and "snli" in manifest.history[-1]["absent"]
    composition = manifest.history[-1]["composition"]
    assert [(m["dataset"], m["examples"], m["rate"], m["share"]) for m in composition["members"]] == [
        ("sst2", 40, 40, 0.5),
        ("bool_q", 40, 40, 0.5),
    ]
    assert composition["draws"] == pytest.approx(sum(m["epochs"] * 40 for m in composition["members"]))
    _, params, tokenizer, _ = arrays.load_model(folder)
    assert tokenizer.fingerprint == BYTES.fingerprint
    assert params["decoder"]["token_embedder"]["embedding"].shape == (SMALL.vocab_size, SMALL.embed_dim)


def test_a_continued_run_is_bit_identical(finished, prepared, tmp_path):
    _train(tmp_path, prepared, 8)
    log = tmp_path / "metrics.jsonl"
    # What a killed run leaves: steps that no checkpoint holds, the last of them half-written.
    log.write_text(log.read_text() + '{"step": 9, "loss": 77.0}\n{"step": 10, "lo')
    _train(tmp_path, prepared, STEPS)
    _assert_bit_identical(_state(tmp_path), _state(finished[0]))
    lines, expected = _metrics(tmp_path), _metrics(finished[0])
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in lines] == [line["loss"] for line in expected]
    history = Manifest.load(tmp_path).history
    assert [entry.get("tuned on") for entry in history] == [None, "flan"]  # one entry a run, however often it stopped
    assert history[-1]["steps"] == STEPS


def test_a_finished_run_does_nothing(finished, prepared):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert _train(folder, prepared, STEPS) == loop.RunResult(STEPS, {})
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.slow
def test_a_style_has_tokens_of_its_own(prepared, tmp_path):
    with pytest.raises(FlanError, match=r"style no_template; run .* --style=no_template"):
        _train(tmp_path / "none", prepared, 1, mixture="flan_no_template")
    own = tmp_path / "prepared"
    plain, styled = (token_store.folder_of(p, BYTES.fingerprint, s) for p, s in ((prepared, PAPER), (own, BARE)))
    shutil.copytree(plain, styled)
    _train(tmp_path / "run", own, 1, mixture="flan_no_template")
    manifest = Manifest.load(tmp_path / "run")
    assert manifest.history[-1]["tuned on"] == manifest.history[-1]["composition"]["mixture"] == "flan_no_template"
    assert manifest.tuning["datasets"] == ["bool_q", "sst2"]


@pytest.mark.slow
def test_microbatches_and_meshes_train_alike(finished, prepared, tmp_path):
    _train(tmp_path, prepared, 3, microbatches=2, mesh_shape={"data": 2, "tensor": 4})
    expected = [line["loss"] for line in _metrics(finished[0])][:3]
    np.testing.assert_allclose([line["loss"] for line in _metrics(tmp_path)], expected, rtol=1e-4)


@pytest.mark.slow
def test_tuning_inherits_the_initial_checkpoint(finished, prepared, tmp_path):
    start = finished[0]
    _train(
        tmp_path / "further",
        prepared,
        1,
        mixture="sst2",
        initial_checkpoint_path=str(start),
        optimizer=optax.sgd(0.0),
        checkpoint_period=1,
    )
    manifest = Manifest.load(tmp_path / "further")
    assert manifest.tuning["datasets"] == ["bool_q", "sst2"]
    assert manifest.history[:-1] == Manifest.load(start).history
    before, after = (arrays.load_model(folder)[1] for folder in (start, tmp_path / "further"))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def _breaking_at(update):
    """SGD whose update number `update` is infinite."""
    return optax.sgd(lambda count: jnp.where(count < update - 1, 1e-2, jnp.inf))


@pytest.mark.slow
@pytest.mark.parametrize("period", [1, 100])
def test_a_loss_that_is_not_finite_stops_the_run(prepared, tmp_path, period):
    with pytest.raises(FlanError) as caught:
        _train(tmp_path, prepared, 9, optimizer=_breaking_at(4), checkpoint_period=period, keep_checkpoints=9)
    message = str(caught.value)
    assert message.startswith("step 4 is not finite") and "\n" not in message
    saved = choosing.steps(tmp_path)
    assert saved == {1: [1, 2, 3], 100: []}[period]
    assert (f"is of step {saved[-1]}" if saved else "holds no checkpoint") in message
    for step in saved:
        params = arrays.load_model(tmp_path, step=step)[1]
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert all(np.isfinite(line["loss"]) for line in _metrics(tmp_path))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_start_that_is_not_finite_is_refused(prepared, tmp_path, number):
    """Whatever the learning rate, such a run gives nothing; a checkpoint of an earlier version may be one."""
    config = configuration.model_config("tiny")
    params = jax.tree.map(np.array, models.build(config).init(jax.random.key(0)))
    params["decoder"]["layers"]["mlp"]["wo"]["kernel"][0, 1, 2] = number
    start = tmp_path / "start"
    with ocp.CheckpointManager(start / "checkpoints", item_names=("params",)) as manager:
        manager.save(0, args=ocp.args.Composite(params=ocp.args.StandardSave(params)))
        manager.wait_until_finished()
    Manifest.create(config, BYTES, UNTUNED).save(start)
    BYTES.save(start / "vocabulary")
    with pytest.raises(FlanError, match=rf"parameters of {start}: 1 of \d+ numbers of decoder/layers/mlp/wo/kernel"):
        _train(tmp_path / "run", prepared, 1, initial_checkpoint_path=str(start))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mixture": "flan_without_nil"}, "did you mean 'nli'"),
        ({"mixture": "ss2"}, "did you mean 'sst2'"),
        ({"mixture": "snli"}, "python -m flan_jax.prepare --mixture=snli"),
        ({"model": None}, "INITIAL_CHECKPOINT_PATH"),
        ({"vocabulary": "no/such"}, "no vocabulary at 'no/such'"),
        ({"initial_checkpoint_path": "no/such"}, "no checkpoint at no/such"),
        ({"prepared_dir": "no/such"}, "no folder no/such of prepared data"),
        ({"microbatches": 3}, "batch_size 4 is no multiple of train.microbatches 3"),
        ({"microbatches": 2}, r"BATCH_SIZE 4 in 2 parts \(MICROBATCHES\) cannot be split over .* a multiple of 8"),
        ({"mesh_shape": {"data": 8}}, r"data x fsdp = 8 x 1 devices: give a multiple of 8, or another MESH"),
        ({"mesh_shape": {"data": 3}}, "does not fit 8 devices"),
        ({"feature_lengths": {"inputs": 4, "targets": 4}}, "raise TASK_FEATURE_LENGTHS"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(prepared, tmp_path, changed, message):
    where = changed.pop("prepared_dir", prepared)
    with pytest.raises(FlanError, match=message) as caught:
        _train(tmp_path / "run", where, 1, **changed)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------ as a user runs it


def test_nothing_heavy_that_training_has_no_use_for():
    """TensorFlow takes seven seconds, torch and Google's client of storages two or three."""
    code = "import sys, flan_jax.train, flan_jax.training.loop, flan_jax.eval; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"tensorflow", "torch", "google.cloud.storage", "boto3"} & set(done.stdout.split())

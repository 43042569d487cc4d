"""The run's record: what it holds, and that a start that would make another run is refused."""

import dataclasses
import functools
import json
import re
import shutil
import time

import gin
import jax
import numpy as np
import optax
import pytest

from flan_jax import configuration
from flan_jax import train as train_binary
from flan_jax.checkpoint import adapters, arrays, choosing, saved_digests, saving
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data import token_store
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.training import comparing, loop, optimizers, run
from flan_jax.training.described import describe

BYTES = ByteTokenizer()
SMALL = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=16
)
LENGTHS = {"inputs": 48, "targets": 16}


def _write(folder, name, records=12, seed=0):
    rng = np.random.default_rng(seed)
    examples = [
        token_store.TokenizedExample(*BYTES.encode([" ".join(rng.choice(["calm", "grey"], 3)), "yes"]), 0, number)
        for number in range(records)
    ]
    info = {"num_records": len(examples), "renderings": 1, "vocab_size": BYTES.vocab_size}
    token_store.write_dataset(token_store.folder_of(folder, BYTES.fingerprint) / name, info, examples)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    _write(folder, "sst2")
    _write(folder, "bool_q", seed=1)
    return folder


@pytest.fixture
def grown(prepared, tmp_path):
    """Makes a changed copy of what was prepared."""

    def make(change):
        folder = tmp_path / "grown"
        shutil.copytree(prepared, folder)
        change(folder)
        return folder

    return make


def _train(model_dir, prepared, **more):
    arguments = {"mixture": "flan", "model": SMALL, "vocabulary": "bytes", "batch_size": 8, "feature_lengths": LENGTHS}
    arguments |= {"train_steps": 1, "optimizer": optimizers.adafactor(1e-2), "checkpoint_period": 100}
    return loop.train(model_dir=str(model_dir), prepared_dir=str(prepared), **(arguments | more))


@pytest.fixture(scope="module")
def begun(prepared, tmp_path_factory):
    """A run of one step that starts from another."""
    folder = tmp_path_factory.mktemp("runs")
    _train(folder / "start", prepared, mixture="sst2")
    _train(folder / "run", prepared, initial_checkpoint_path=str(folder / "start"))
    return folder


@pytest.fixture
def copied(begun, tmp_path):
    """A copy of it that a test may damage; the start lies where it was."""
    shutil.copytree(begun / "run", tmp_path / "run")
    return tmp_path / "run", begun / "start"


def _refused(model_dir, prepared, **more):
    before = {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()}
    with pytest.raises(FlanError) as caught:
        _train(model_dir, prepared, train_steps=9, **more)
    assert {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_chosen_by_the_devices_is_in_the_record(prepared, tmp_path, capfd):
    _train(tmp_path / "run", prepared, computation="auto")
    found = json.loads((tmp_path / "run" / "run.json").read_text())["program"]["computation"]
    assert found["dtype"] == "float32" and found["remat"] == "save_dots"
    assert found["attention"] == ("xla" if SMALL.positions == "relative_bias" else "segments")
    assert "COMPUTATION chosen for cpu: dtype float32" in capfd.readouterr().out
    # What names the same, and what differs without being another run, goes on.
    assert _train(tmp_path / "run", prepared, computation={"remat": "full"}, train_steps=2).step == 2


def test_each_step_keeps_which_training_it_is_of(copied, prepared):
    """Also where a later start has other ways to compute, and more steps."""
    folder, start = copied
    own = comparing.identity(run.Run.load(folder))
    assert saved_digests.saved_by(folder, 1) == own
    more = {"initial_checkpoint_path": str(start), "computation": {"attention": "segments"}}
    _train(folder, prepared, train_steps=2, **more)
    assert saved_digests.saved_by(folder, 2) == own == comparing.identity(run.Run.load(folder))
    assert saved_digests.saved_by(start, 1) == comparing.identity(run.Run.load(start)) != own
    assert saved_digests.saved_by(folder, 7) is None


def test_a_step_of_another_training_is_not_gone_on_from(copied, prepared, tmp_path):
    """Two seeds whose steps had changed places went on without a word."""
    folder, start = copied
    values = {"initial_checkpoint_path": str(start)}
    _train(tmp_path / "other", prepared, random_seed=1, **values)
    shutil.rmtree(folder / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", folder / "checkpoints")
    for on_damage in ("stop", "previous"):
        message = _refused(folder, prepared, on_damage=on_damage, **values)
        assert message.startswith(f"step 1 of {folder} was saved by another training (2:")
        assert message.endswith(
            f"put its own back, or give another MODEL_DIR, with INITIAL_CHECKPOINT_PATH='{folder}' to start from it."
        )
    (folder / "run.json").unlink()
    assert "was saved by another training" in _refused(folder, prepared, **values)


@pytest.mark.parametrize("items", [("digests",), ("params", "digests", "opt_state")])
def test_items_of_another_training_are_not_gone_on_from(copied, prepared, tmp_path, items):
    folder, start = copied
    values = {"initial_checkpoint_path": str(start)}
    _train(tmp_path / "other", prepared, random_seed=1, **values)
    for item in items:
        shutil.rmtree(folder / "checkpoints" / "1" / item)
        shutil.copytree(tmp_path / "other" / "checkpoints" / "1" / item, folder / "checkpoints" / "1" / item)
    message = _refused(folder, prepared, **values)
    assert f"step 1 of {folder} is damaged: {folder}/checkpoints/1/_CHECKPOINT_METADATA is of training '2:" in message
    assert message.endswith("copy the checkpoint anew; there is no step before it that is whole.")


def test_a_step_with_the_digest_of_before_goes_on(copied, prepared):
    """It told less, and says nothing now."""
    folder, start = copied
    saved, (about,) = saved_digests.read(folder, 1), folder.glob("checkpoints/1/_CHECKPOINT_METADATA")
    saved_digests.write(folder, 1, saved)
    _edit(about, lambda values: values.update(custom_metadata={"digests": True, "run": "5a98d8101aaa392c"}))
    assert saved_digests.saved_by(folder, 1) is None
    assert _train(folder, prepared, train_steps=2, initial_checkpoint_path=str(start)).step == 2
    assert saved_digests.saved_by(folder, 2) == comparing.identity(run.Run.load(folder))


def test_the_record_is_complete(begun, prepared):
    found = json.loads((begun / "run" / "run.json").read_text())
    assert found["mixture"] == "flan" and found["seed"] == 0 and found["train_steps"] == 1
    stores = token_store.TokenStore.open(prepared, BYTES.fingerprint)
    assert found["datasets"] == [
        {"part": name, "dataset": name, "style": "instructions", "examples": 12, "rate": 12, "loss_weight": 1.0}
        | {"joint": "eos", "digest": stores[name].digest}
        for name in ("sst2", "bool_q")
    ]
    assert found["recipe"] == {}
    assert "snli" in found["absent"] and len(found["absent"]) == 64
    assert found["vocabulary"]["fingerprint"] == BYTES.fingerprint
    manifest = Manifest.load(begun / "start").digest()
    weights = adapters.weights(begun / "start", 1)
    told = {"weights": weights, "tuning": Manifest.load(begun / "start").tuning_digest()}
    assert found["start"] == {"checkpoint": str(begun / "start"), "step": 1, "manifest": manifest} | told
    program = found["program"]
    assert (program["rows"], program["inputs"], program["targets"], program["microbatches"]) == (8, 48, 16, 1)
    assert program["model"]["embed_dim"] == 16 and program["computation"]["dtype"] == "float32"
    assert program["optimizer"] == {
        "name": "adafactor",
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "parameter_scale": True,
    }
    assert found["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1}
    assert found["hosts"] == {"platform": "cpu", "kind": "cpu", "devices": 8, "processes": 1}
    assert re.match(r"[0-9a-f]{40}|flan-jax", found["code"]) and found["changes"] == []
    loaded = run.Run.load(begun / "run")
    assert loaded.to_dict() | {"digest": found["digest"]} == found and comparing.differences(loaded, loaded) == []
    assert loaded.program.config == SMALL and loaded.program.lengths == LENGTHS


def test_the_composition_is_printed(begun, prepared, tmp_path, capsys):
    _train(tmp_path / "run", prepared, train_steps=1)
    out = capsys.readouterr().out
    assert re.search(r"sst2\s+sentiment\s+12\s+12\s+50.00%", out)
    (line,) = [line for line in out.splitlines() if line.startswith("absent: ")]
    assert line.startswith("absent: 64 of 66 datasets of flan are not prepared: ") and "snli" in line


OTHER = {
    "batch_size": (16, "BATCH_SIZE 8 -> 16"),
    "random_seed": (1, "RANDOM_SEED 0 -> 1"),
    "microbatches": (2, "MICROBATCHES 1 -> 2"),
    "mixture": ("flan_without_sentiment", "MIXTURE_OR_TASK_NAME flan -> flan_without_sentiment"),
    "feature_lengths": ({"inputs": 40, "targets": 16}, "TASK_FEATURE_LENGTHS.inputs 48 -> 40"),
    "optimizer": (optimizers.adafactor(2e-2), "optimizer.learning_rate 0.01 -> 0.02"),
    "computation": ({"dtype": "bfloat16"}, "COMPUTATION.dtype float32 -> bfloat16"),
}


@pytest.mark.parametrize("name", OTHER)
def test_another_run_is_refused(copied, prepared, name):
    folder, start = copied
    value, says = OTHER[name]
    more = {"batch_size": 16} if name == "microbatches" else {}
    message = _refused(folder, prepared, **({"initial_checkpoint_path": str(start)} | more | {name: value}))
    assert message.startswith(f"{folder} holds another run: ") and says in message
    assert f"another MODEL_DIR, with INITIAL_CHECKPOINT_PATH='{folder}'" in message


def test_another_start_is_refused(copied, prepared, begun, tmp_path):
    folder, start = copied
    message = _refused(folder, prepared)  # from random
    assert f"INITIAL_CHECKPOINT_PATH {start} (step 1, manifest" in message and "-> absent" in message
    message = _refused(folder, prepared, initial_checkpoint_path=str(begun / "run"))
    assert f"-> {begun / 'run'} (step 1" in message
    moved = tmp_path / "moved"
    shutil.copytree(start, moved)
    _train(folder, prepared, train_steps=2, initial_checkpoint_path=str(moved))  # the same by content


def test_a_start_that_is_gone_is_not_needed(copied, prepared, tmp_path):
    _, start = copied
    gone = tmp_path / "gone"
    shutil.copytree(start, gone)
    own = tmp_path / "own"
    _train(own, prepared, initial_checkpoint_path=str(gone))
    shutil.rmtree(gone)
    assert _train(own, prepared, train_steps=2, initial_checkpoint_path=str(gone)).step == 2
    assert len(Manifest.load(own).history) == len(Manifest.load(start).history) + 1


def test_another_model_or_vocabulary_is_refused(prepared, begun, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(begun / "start", folder)
    model = dataclasses.replace(SMALL, mlp_dim=32, rope_theta=500.0)
    message = _refused(folder, prepared, mixture="sst2", model=model)
    assert "MODEL.mlp_dim 16 -> 32" in message and "MODEL.rope_theta 10000.0 -> 500.0" in message


def test_another_run_is_refused_before_a_damaged_step_is_moved_aside(copied, prepared):
    folder, start = copied
    shutil.copytree(folder / "checkpoints" / "1", folder / "checkpoints" / "5")
    values = {"initial_checkpoint_path": str(start), "random_seed": 3}
    assert "RANDOM_SEED 0 -> 3" in _refused(folder, prepared, on_damage="previous", **values)


def test_a_file_in_the_place_of_checkpoints(copied, prepared):
    folder, start = copied
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").write_text("")
    assert "cannot read the steps of" in _refused(folder, prepared, initial_checkpoint_path=str(start))


def test_a_run_that_saved_nothing_yet_is_compared_too(copied, prepared, tmp_path, capsys):
    folder, start = copied
    shutil.rmtree(folder / "checkpoints")
    message = _refused(folder, prepared, initial_checkpoint_path=str(start), random_seed=3)
    assert "RANDOM_SEED 0 -> 3" in message and f"delete {folder} to begin anew" in message
    other = tmp_path / "start"
    shutil.copytree(start, other)
    manifest = Manifest.load(other)
    manifest = dataclasses.replace(manifest, tuning=manifest.tuning | {"clusters": ["nli", "sentiment"]})
    manifest.save(other)  # the same weights, and another tale of what they saw
    saved = json.loads((folder / "run.json").read_text())
    message = _refused(folder, prepared, initial_checkpoint_path=str(other))
    assert saved["start"]["manifest"][:12] in message and manifest.digest()[:12] in message
    capsys.readouterr()
    Manifest.load(start).recorded({"copied": 1}, BYTES).save(other)  # the same model, converted again
    _train(folder, prepared, initial_checkpoint_path=str(other))
    assert f"{folder} has no checkpoint: the run begins at step 1 again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda to: _write(to, "rte"), "composition.rte absent -> 12 examples at rate 12, data "),
        (lambda to: shutil.rmtree(_dataset(to, "bool_q")), "composition.bool_q 12 examples at rate 12, data "),
        (lambda to: _write(to, "bool_q", records=20, seed=1), "-> 20 examples at rate 20"),
        (lambda to: _write(to, "bool_q", seed=7), "composition.bool_q 12 examples at rate 12, data "),
    ],
    ids=["added", "removed", "larger", "other text"],
)
def test_another_composition_is_refused(copied, grown, change, says):
    folder, start = copied
    message = _refused(folder, grown(change), initial_checkpoint_path=str(start))
    assert says in message and message.count("composition.") == 1


def _dataset(folder, name):
    return token_store.folder_of(folder, BYTES.fingerprint) / name


def test_what_may_change_may(copied, prepared, capsys):
    folder, start = copied
    more = {"initial_checkpoint_path": str(start), "mesh_shape": {"data": 2, "fsdp": 2, "tensor": 2}}
    more |= {"computation": {"remat": "none", "attention_block": 8}, "keep_checkpoints": 5, "log_period": 3}
    (folder / "config.gin").write_bytes(b"\xff")  # edited elsewhere, in another encoding
    assert _train(folder, prepared, train_steps=2, config_text="other", **more).step == 2
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("changed since the last start: ")]
    assert "TRAIN_STEPS 1 -> 2" in line and "MESH.data 8 -> 2" in line and "COMPUTATION.remat" in line
    saved = run.Run.load(folder)
    assert saved.train_steps == 2 and saved.mesh == more["mesh_shape"]
    (entry,) = saved.changes
    assert entry["step"] == 1 and entry["changed"]["TRAIN_STEPS"] == [1, 2]
    assert (folder / "config.gin").read_bytes() == b"\xff" and (
        folder / "config.from_step_1.gin"
    ).read_text() == "other"
    assert _train(folder, prepared, train_steps=1, **more) == loop.RunResult(2, {})  # fewer steps than are taken
    assert "is at step 2, and TRAIN_STEPS is 1" in capsys.readouterr().out
    assert run.Run.load(folder) == saved


def test_a_schedule_over_all_steps_is_another_with_more_steps(prepared, tmp_path):
    """Going on would jump back to a high learning rate, which nobody asked for."""

    def optimizer(steps):
        return optax.adafactor(optax.cosine_decay_schedule(1e-2, decay_steps=steps))

    _train(tmp_path, prepared, train_steps=1, optimizer=optimizer(1))
    message = _refused(tmp_path, prepared, optimizer=optimizer(9))
    assert re.search(r"optimizer\.\S*decay_steps 1 -> 9", message)
    assert _train(tmp_path, prepared, train_steps=2, optimizer=optimizer(1)).step == 2


class _Clock:
    """When a run was ready to take its first step."""

    def start(self, context):
        self.ready = time.process_time()


def test_a_run_goes_on_at_step_ten_million(copied, prepared):
    folder, start = copied
    step, network = 10_000_000, loop.models.build(SMALL)
    tx = optimizers.for_parameters(optimizers.adafactor(1e-2), network.logical_axes())
    params = arrays.load_model(folder)[1]
    shutil.rmtree(folder / "checkpoints")
    with saving.Saver(folder) as saver:
        saver.save(step, params, tx.init(params))
    line = (folder / "metrics.jsonl").read_text()
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(line.replace('"step": 1', f'"step": {number}') for number in range(step - 20_000, step + 10))
    clock, began = _Clock(), time.process_time()
    _train(folder, prepared, train_steps=step + 1, initial_checkpoint_path=str(start), hooks=[clock])
    assert clock.ready - began < 5  # of computation: this machine may be busy
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines[-3:]] == [step - 1, step, step + 1]
    assert choosing.steps(folder) == [step, step + 1]


# --------------------------------------------------------------------------------------------------- the file itself


def _edit(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_text(""), "run.json is broken (JSONDecodeError"),
        (lambda path: path.write_text("[]"), "run.json is broken (TypeError"),
        (lambda path: path.write_text("null"), "run.json is broken (AttributeError"),
        (lambda path: path.write_text('{"format": 1}'), "run.json is broken (KeyError: 'datasets')"),
        (lambda path: path.write_bytes(b"\xff\xfe{}"), "run.json cannot be read"),
        (lambda path: (path.unlink(), path.mkdir()), "run.json cannot be read"),
        (lambda path: path.write_text(path.read_text()[:500]), "run.json is broken (JSONDecodeError"),
        (lambda path: _edit(path, lambda v: v.update(seed=7)), "does not fit its own digest"),
        (lambda path: _edit(path, lambda v: v.update(seed=7, digest=None)), "RANDOM_SEED 7 -> 0"),
        (lambda path: _edit(path, lambda v: v.update(seed="7", digest=None)), "broken (TypeError: seed is '7')"),
        (lambda path: _edit(path, lambda v: v.update(datasets=[1], digest=None)), "datasets are not as they were"),
        (lambda path: _edit(path, lambda v: v.update(format=2)), "of a newer version of FLAN-JAX (format 2; this"),
        (lambda path: _edit(path, lambda v: v.update(format="new")), "of a newer version of FLAN-JAX"),
        (lambda path: _edit(path, lambda v: v.update(more=1, digest=None)), "broken (TypeError"),
        (
            lambda path: _edit(path, lambda v: v["program"].pop("rows") and v.update(digest=None)),
            "broken (TypeError: Program",
        ),
    ],
)
def test_a_damaged_record_is_refused(copied, prepared, damage, says):
    folder, start = copied
    damage(folder / "run.json")
    line = _refused(folder, prepared, initial_checkpoint_path=str(start))
    assert says in line and "FlanError" not in line
    if "newer version" in says or "digest" in says:  # to delete a sound record is no remedy
        assert "delete it:" not in line


def test_a_record_that_was_edited_on_purpose_counts(copied, prepared):
    folder, start = copied
    _edit(folder / "run.json", lambda values: (values.update(seed=7), values.pop("digest")))
    assert "RANDOM_SEED 7 -> 0" in _refused(folder, prepared, initial_checkpoint_path=str(start))


# ----------------------------------------------------------------------------------- folders of before there was one


@pytest.mark.parametrize("name", ["mixture", "random_seed", "batch_size", "start", "data", "model"])
def test_without_a_record_the_manifest_is_compared(copied, grown, prepared, begun, name):
    folder, start = copied
    (folder / "run.json").unlink()
    more = {"initial_checkpoint_path": str(start)}
    if name == "start":
        more["initial_checkpoint_path"] = str(begun / "run")
    elif name == "data":
        prepared = grown(lambda to: _write(to, "bool_q", seed=7))
    elif name == "model":
        more = {"initial_checkpoint_path": None, "model": dataclasses.replace(SMALL, mlp_dim=32)}
    else:
        more[name] = OTHER[name][0]
    message = _refused(folder, prepared, **more)
    says = {
        "start": f"INITIAL_CHECKPOINT_PATH {start} -> {begun / 'run'}",
        "data": "composition.bool_q other data -> data",
    }
    says["model"] = "MODEL.mlp_dim 16 -> 32"
    assert (says[name] if name in says else OTHER[name][1]) in message


def test_without_a_record_it_is_written(copied, prepared, capsys):
    folder, start = copied
    (folder / "run.json").unlink()
    assert _train(folder, prepared, train_steps=2, initial_checkpoint_path=str(start)).step == 2
    assert "is of an earlier version, without run.json" in capsys.readouterr().out
    assert run.Run.load(folder).train_steps == 2


def test_a_checkpoint_that_is_no_run_is_no_model_dir(prepared, tmp_path):
    network = loop.models.build(SMALL)
    with saving.Saver(tmp_path) as saver:
        saver.save(0, network.init(jax.random.key(0)))
    Manifest.create(SMALL, BYTES, UNTUNED).save(tmp_path)
    BYTES.save(tmp_path / "vocabulary")
    assert "give it as INITIAL_CHECKPOINT_PATH" in _refused(tmp_path, prepared)


# -------------------------------------------------------------------------------------------- what an optimizer is


def _mine(scale, limit=3):
    return optax.sgd(lambda count: scale if count < limit else 0.1)


def _hidden(power):
    def rate(count):
        return 0.1 * count**power

    return optax.sgd(rate)


OPTIMIZERS = [
    lambda: optimizers.adafactor(),
    lambda: optimizers.adafactor(1e-3),
    lambda: optimizers.adafactor(warmup_steps=5),
    lambda: optax.sgd(0.1),
    lambda: optax.sgd(0.1, momentum=0.9),
    lambda: optax.sgd(0.1, nesterov=True, momentum=0.9),
    lambda: optax.adam(0.1),
    lambda: optax.adam(0.1, b2=0.95),
    lambda: optax.adamw(0.1, weight_decay=0.2),
    lambda: optax.adamw(0.1, mask={"a": True}),
    lambda: optax.adamw(0.1, mask={"a": False}),
    lambda: optax.adamw(optax.warmup_cosine_decay_schedule(0, 0.1, 5, 50)),
    lambda: optax.adamw(optax.warmup_cosine_decay_schedule(0, 0.1, 5, 60)),
    lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
    lambda: optax.chain(optax.clip_by_global_norm(2.0), optax.adam(0.1)),
    lambda: optax.sgd(np.float32(0.25)),
    lambda: _mine(0.5),
    lambda: _mine(0.6),
    lambda: _mine(0.5, limit=4),
    lambda: _hidden(1),
    lambda: _hidden(2),
    lambda: optax.sgd(lambda count: 0.1 + 0.2 * count),
    lambda: optax.sgd(lambda count: 0.1 + 0.3 * count),
    lambda: optax.sgd(lambda count: jax.numpy.sin(count)),
    lambda: optax.sgd(lambda count: jax.numpy.cos(count)),
    lambda: functools.partial(optimizers.by_matrix, optax.adam(0.1)),
    lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
    lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.2),
    lambda: optax.masked(optax.sgd(0.1), {"a": True}),
    lambda: optax.multi_transform({"a": optax.sgd(0.1), "b": optax.sgd(0.2)}, {"w": "a"}),
    lambda: optax.multi_transform({"a": optax.sgd(0.1), "b": optax.sgd(0.3)}, {"w": "a"}),
]


def test_optimizers_are_told_apart_and_recognised():
    one, other = ([json.dumps(describe(make())) for make in OPTIMIZERS] for _ in range(2))
    assert one == other and len(set(one)) == len(OPTIMIZERS)
    assert not any(re.search(r"0x[0-9a-f]{6}", text) for text in one)


def test_what_refers_to_itself_is_described():
    circle = {"a": 1}
    circle["b"] = circle
    assert describe(circle) == {"a": 1, "b": "itself"}
    assert describe(float("nan")) == "nan"


# ----------------------------------------------------------------------------------------------- as a user runs it


def test_a_start_by_gin_is_compared(prepared, tmp_path, capsys):
    fields = "\n".join(f"DecoderConfig.{name} = {value!r}" for name, value in SMALL.to_dict().items())
    (tmp_path / "small.gin").write_text(fields)
    values = {"MODEL_DIR": str(tmp_path / "run"), "PREPARED_DIR": str(prepared), "MIXTURE_OR_TASK_NAME": "sst2"}
    values |= {"TRAIN_STEPS": 1, "TASK_FEATURE_LENGTHS": LENGTHS, "MODEL": str(tmp_path / "small.gin")}

    def start(**more):
        gin.clear_config()
        given = [f"--gin.{name}={value!r}" for name, value in (values | more).items()]
        train_binary.main(["--gin_file=runs/tune.gin", *given])

    start()
    for more, says in (({"LEARNING_RATE": 1e-4}, "optimizer.learning_rate 3e-05 -> 0.0001"),):
        with pytest.raises(SystemExit) as stopped:
            start(TRAIN_STEPS=2, **more)
        assert stopped.value.code == 2 and says in capsys.readouterr().err
    config = (tmp_path / "run" / "config.gin").read_text()
    start(TRAIN_STEPS=2)
    assert (tmp_path / "run" / "config.gin").read_text() == config
    assert "TRAIN_STEPS = 2" in (tmp_path / "run" / "config.from_step_1.gin").read_text()

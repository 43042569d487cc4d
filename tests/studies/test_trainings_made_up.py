"""Whether folders hold the trainings that a plan asks for, with run.json and manifests that no training has written."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from flan_jax import configuration
from flan_jax.checkpoint import saved_digests
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.configuration import model_config
from flan_jax.data import stream
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.gin_files import TRAINING
from flan_jax.studies import passed_on, trained
from flan_jax.studies.commands import Commands
from flan_jax.studies.plan import Arm, Tuning, held_out_mixture
from flan_jax.studies.settings import Settings
from flan_jax.training import comparing
from flan_jax.training.run import Program, Run

TINY = model_config("tiny")


@pytest.fixture(autouse=True)
def _steps_are_whole(monkeypatch):
    """The steps here hold nothing: what is compared is what stands beside them. `test_trained` has real ones."""
    monkeypatch.setattr(trained, "_problem_of_step", lambda folder, step, steps: "")


def planned(tmp_path, **train):
    """Two seeds without NLI, on NLI."""
    train = {"TRAIN_STEPS": 2} | train
    settings = Settings("any", tmp_path, "samples", ("tiny",), ("nli",), (), (0, 1), None, train, {}, ("instructions",))
    tunings = tuple(Tuning("tiny", held_out_mixture("nli"), seed) for seed in (0, 1))
    return Commands(settings, [Arm("tuned", "tiny", ("nli",), tunings=tunings)])


def write(commands, model=TINY, **changes):
    """The folders of both seeds, as if they had been trained; their own manifest and run.json, with changes."""
    start = Manifest.create(model, ByteTokenizer(), UNTUNED)
    place = str(commands.checkpoint("tiny"))
    found = []
    for tuning in commands.tunings:
        macros = configuration.set_in(TRAINING) | dict(tuning.macros)
        given = (macros["BATCH_SIZE"], macros["TASK_FEATURE_LENGTHS"], macros["MICROBATCHES"])
        program = Program.of(model, *given, passed_on.optimizer(macros), passed_on.objective(macros))
        part = {"part": "sst2", "dataset": "sst2", "style": "instructions", "examples": 3, "rate": 3}
        part |= {"loss_weight": 1.0, "joint": "eos", "digest": "0" * 64}
        told = {"checkpoint": place, "step": 0, "manifest": start.digest(), "weights": "f" * 16}
        run = Run(
            mixture=tuning.parts.name,
            datasets=(part,),
            absent=(),
            order=stream.ORDER,
            vocabulary=dict(start.vocabulary),
            start=told | {"tuning": start.tuning_digest()},
            seed=tuning.seed,
            program=program,
            train_steps=2,
            mesh={"data": 1},
            hosts={},
            recipe=dict(tuning.parts.recipe),
        )
        run = dataclasses.replace(run, **changes)
        record = {"tuned on": run.mixture, "from": place, "batch_size": run.program.rows, "seed": run.seed}
        folder = Path(commands.model_dir(tuning))
        (folder / "checkpoints" / "2").mkdir(parents=True)
        run.save(folder)
        start.inherit(["sst2"], ["sentiment"], "eos", record).save(folder)
        found.append(folder)
    return found


def rewrite(path, change):
    """Changes a JSON file, and leaves out its own digest."""
    found = json.loads(path.read_text())
    found.pop("digest", None)
    change(found)
    path.write_text(json.dumps(found))


def computed(dtype, attention="xla"):
    """A change of run.json."""
    return lambda found: found["program"]["computation"].update(dtype=dtype, attention=attention)


def refused(commands):
    """The line that says why a plan's trainings are not taken."""
    with pytest.raises(FlanError) as caught:
        trained.check(commands)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --------------------------------------------------------------------------------------------------- dtype and order


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        "auto",
        {"dtype": "auto"},
        {"attention": "auto"},
        {"head_chunk": "auto", "remat": "auto"},
        {"dtype": "float32", "attention": "segments"},
    ],
)
def test_what_was_computed_as_asked_is_taken(tmp_path, given):
    """Values of "auto" inside of COMPUTATION were refused for good, after the training."""
    commands = planned(tmp_path, **({} if given is None else {"COMPUTATION": given}))
    folders = write(commands)
    trained.check(commands)
    rewrite(folders[0] / "run.json", computed("float32", "segments"))  # by another machine
    trained.check(commands)


def test_the_dtype_is_the_one_that_is_asked_for(tmp_path):
    """It was taken from the run that was looked at."""
    commands = planned(tmp_path, COMPUTATION={"dtype": "bfloat16"})
    folders = write(commands)
    assert "holds another run than this study asks for: COMPUTATION.dtype float32 -> bfloat16" in refused(commands)
    for folder in folders:
        rewrite(folder / "run.json", computed("bfloat16", "cudnn"))
    trained.check(commands)


def test_without_a_dtype_the_models_own_is_asked_for(tmp_path):
    commands = planned(tmp_path)
    folders = write(commands)
    rewrite(folders[1] / "run.json", computed("bfloat16", "cudnn"))  # whose kernel takes no float32
    assert "COMPUTATION.dtype bfloat16 -> float32; remove that folder to have its model tuned anew" in refused(commands)


def test_the_models_own_dtype_is_in_its_manifest(tmp_path):
    commands = planned(tmp_path)
    folders = write(commands, dataclasses.replace(TINY, dtype="bfloat16"))
    trained.check(commands)
    rewrite(folders[1] / "run.json", computed("float32"))
    assert "COMPUTATION.dtype float32 -> bfloat16" in refused(commands)


@pytest.mark.parametrize("given", ["auto", {"dtype": "auto"}])
def test_one_dtype_is_in_the_mean_over_seeds(tmp_path, given):
    """By "auto", one seed was trained in bfloat16 on a GPU and one in float32 on a CPU."""
    commands = planned(tmp_path, COMPUTATION=given)
    first, second = write(commands)
    rewrite(second / "run.json", computed("bfloat16"))
    line = refused(commands)
    assert line.startswith(f"{first} was tuned in float32 and {second} in bfloat16") and "remove one of them" in line
    rewrite(first / "run.json", computed("bfloat16"))
    trained.check(commands)


def test_an_earlier_order_is_another_run(tmp_path):
    commands = planned(tmp_path)
    write(commands, order=stream.ORDER - 1)
    assert f"order {stream.ORDER - 1} -> {stream.ORDER}" in refused(commands)


# ------------------------------------------------------------------------------------------------ manifest and start


def test_the_manifest_of_another_seed_is_refused(tmp_path):
    commands = planned(tmp_path)
    first, second = write(commands)
    (first / "manifest.json").write_bytes((second / "manifest.json").read_bytes())
    assert f"{first} has the manifest.json of another model: RANDOM_SEED 1 -> 0; put its own back" in refused(commands)


def test_the_manifest_of_the_untuned_model_is_refused(tmp_path):
    """A study then said of a tuned model that it was tuned on nothing."""
    commands = planned(tmp_path)
    first, _ = write(commands)
    Manifest.create(TINY, ByteTokenizer(), UNTUNED).save(first)
    assert "manifest.json of another model: MIXTURE_OR_TASK_NAME absent -> flan_without_nli" in refused(commands)
    (first / "manifest.json").unlink()
    assert f"{first} has no manifest.json" in refused(commands)


@pytest.mark.parametrize("value", [[3], [{"tuned on": "flan_without_nli", "composition": 3}], [None]])
def test_a_history_that_is_none_is_one_line(tmp_path, value):
    commands = planned(tmp_path)
    first, _ = write(commands)
    rewrite(first / "manifest.json", lambda found: found.update(history=value))
    assert "manifest.json" in refused(commands)


def test_seeds_of_different_starts_are_refused(tmp_path):
    """The model that they started from is not there any more, and so nothing else tells it."""
    commands = planned(tmp_path)
    first, second = write(commands)
    rewrite(second / "run.json", lambda found: found["start"].update(weights="0" * 16))
    assert f"{first} and {second} were tuned from different weights of " in refused(commands)
    rewrite(second / "run.json", lambda found: found["start"].pop("weights"))  # of an earlier version
    trained.check(commands)


def test_a_step_of_another_training_is_refused(tmp_path):
    """Weights of one seed, copied into the folder of another before the evaluation, stood as the other's."""
    commands = planned(tmp_path)
    first, second = write(commands)
    for folder in (first, second):
        saved_by, step = comparing.identity(Run.load(folder)), folder / "checkpoints" / "2"
        (step / "_CHECKPOINT_METADATA").write_text(json.dumps({"custom_metadata": saved_digests.note(saved_by)}))
        (step / "digests").mkdir()
        (step / "digests" / "metadata").write_text(json.dumps(saved_digests.to_dict(2, {}, saved_by)))
    rewrite(first / "run.json", computed("float32", "segments"))  # which a later start may change
    trained.check(commands)
    shutil.rmtree(first / "checkpoints")
    shutil.copytree(second / "checkpoints", first / "checkpoints")
    assert f"step 2 of {first} was saved by another training" in refused(commands)


# ----------------------------------------------------------------------------------------------------- broken records


def test_a_broken_record_says_what_a_study_does_about_it(tmp_path):
    """To delete it, as a start of the training says, led to another refusal."""
    commands = planned(tmp_path)
    first, _ = write(commands)
    (first / "run.json").write_text("{")
    line = refused(commands)
    assert "run.json is broken" in line and "next start" not in line
    assert line.endswith("restore it, or remove that folder to have its model tuned anew, or give another STUDY_DIR.")


def paths_of(value, at=()):
    """Of all values in JSON, those of parts alone once."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from paths_of(one, (*at, key))


def test_no_value_in_a_record_is_a_traceback(tmp_path):
    commands = planned(tmp_path)
    path = write(commands)[0] / "run.json"
    whole = json.loads(path.read_text())
    whole.pop("digest")
    said = 0
    for at in filter(None, paths_of(whole)):
        for value in (None, 3, "x", [["a"]]):
            found = json.loads(json.dumps(whole))
            place = found
            for key in at[:-1]:
                place = place[key]
            place[at[-1]] = value
            path.write_text(json.dumps(found))
            try:
                trained.check(commands)
            except FlanError as error:
                said += 1
                assert "\n" not in str(error) and str(path.parent) in str(error), (at, value, error)
    assert said > 200

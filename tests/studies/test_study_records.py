"""What was done stays done, and nothing else passes for it."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from flan_jax import catalog, protocol, study
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.configuration import model_config
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.studies import estimates, kinds, records
from flan_jax.studies.commands import CONVERT, EVAL, PREPARE, TRAIN, Step

AGAIN = ["python", "-m", "flan_jax.study"]
STEP = Step("train-any-1", TRAIN, ("-m", "flan_jax.train", "--gin.TRAIN_STEPS=2"), "out", "checkpoints/2", slots=100)


def taken(folder, step, seconds=10.0):
    """A step whose output is there and which is written down."""
    step = dataclasses.replace(step, output=str(folder / step.name))
    (folder / step.name / step.done).mkdir(parents=True)
    records.keep(folder, step, seconds)
    return step


def written(step):
    """What a step leaves."""
    path = Path(step.output) / step.done
    if step.job == EVAL:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    elif step.job == CONVERT:
        path.parent.mkdir(parents=True, exist_ok=True)
        Manifest.create(model_config("tiny"), ByteTokenizer(), UNTUNED).save(path.parent)
    else:
        path.mkdir(parents=True, exist_ok=True)


def test_a_step_is_done_while_its_output_is_there(tmp_path):
    step = taken(tmp_path, STEP)
    assert records.is_done(tmp_path, step)
    assert not records.is_done(tmp_path, dataclasses.replace(step, done="checkpoints/3"))
    (tmp_path / "steps" / f"{step.name}.json").unlink()
    assert records.is_done(tmp_path, step)  # taken by a launcher
    assert not records.is_done(tmp_path, dataclasses.replace(step, job=PREPARE))  # of it only a record tells
    shutil.rmtree(step.output)
    assert not records.is_done(tmp_path, step)


def test_a_preparation_that_another_one_replaced_is_not_done_when_its_wording_comes_back(tmp_path):
    """Reworded and worded back: the step of the first wording passed for done, with the second one's tokens."""

    def step(name, place="out"):
        output = str(tmp_path / place)
        argv = ("-m", "flan_jax.any", f"--to={output}", "--gin.PREPARED_DIR='{}'".format(tmp_path / "out"))
        return Step(name, PREPARE, argv, output, "results.json", model="tiny")

    first, second, elsewhere = step("a-1"), step("a-2"), step("b-1", "other")
    for one in (first, elsewhere):
        written(one)
        records.begin(tmp_path, one)
        records.keep(tmp_path, one, 5.0)
    assert records.is_done(tmp_path, first) and not records.is_done(tmp_path, second)
    records.begin(tmp_path, second)  # broken off: nobody knows of which wording the folder is
    assert not records.is_done(tmp_path, first) and not records.is_done(tmp_path, second)
    records.keep(tmp_path, second, 7.0)
    assert records.is_done(tmp_path, second) and not records.is_done(tmp_path, first)
    records.begin(tmp_path, first)
    records.keep(tmp_path, first, 1.0)
    assert records.is_done(tmp_path, first) and not records.is_done(tmp_path, second)
    assert records.is_done(tmp_path, elsewhere)
    assert estimates.of(tmp_path, [step("a-3")])["a-3"].of == 3  # times stay


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"step": "train-any-2"}', '{"step": null}', "\x00\xff"])
def test_a_damaged_record_is_no_record(tmp_path, text):
    step = taken(tmp_path, dataclasses.replace(STEP, job=PREPARE))
    (tmp_path / "steps" / f"{step.name}.json").write_text(text)
    assert not records.is_done(tmp_path, step)
    assert estimates.of(tmp_path, [step])[step.name].seconds is None


def test_preparations_of_several_studies_lie_side_by_side(tmp_path):
    """Each run of one had the other's data prepared again."""

    def step(name, **wordings):
        argv = ("-m", "flan_jax.prepare", f"--to={tmp_path / 'prepared'}")
        return Step(name, PREPARE, argv, str(tmp_path / "prepared"), "", model="tiny", wordings=wordings)

    def take(one):
        written(one)
        records.begin(tmp_path, one)
        records.keep(tmp_path, one, 1.0)

    first, other = step("a-1", rte="x", cb="x"), step("b-1", cb="x", trec="x")
    take(first)
    take(other)
    assert records.is_done(tmp_path, first) and records.is_done(tmp_path, other)
    take(step("b-2", cb="y", trec="x"))  # CB was reworded
    assert not records.is_done(tmp_path, first) and not records.is_done(tmp_path, other)


@pytest.mark.parametrize(
    "changed",
    [
        {"seconds": -1.0},
        {"seconds": "10"},
        {"seconds": True},
        {"seconds": None},
        {"seconds": 10**400},
        {"slots": -5},
        {"slots": None},
        {"slots": [1]},
        {"argv": None},
        {"argv": "--gin.DATASETS=('nli',)"},
        {"argv": [1]},
        {"seconds": 1e308},
    ],
)
@pytest.mark.parametrize("job", [TRAIN, EVAL, PREPARE])
def test_times_that_cannot_be_are_not_counted(tmp_path, job, changed):
    """Of a record that was edited; the step itself is done."""
    step = Step("any-1", job, ("-m", "flan_jax.any"), str(tmp_path / "out"), "results.json", slots=7, model="else")
    written(step)
    records.keep(tmp_path, step, 10.0)
    path = tmp_path / "steps" / "any-1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert records.is_done(tmp_path, step)
    assert estimates.of(tmp_path, [step])["any-1"] == estimates.Estimate(None, 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"TRAIN": {"TRAIN_STEPS": 2, "LEARNING_RATE": 1e-5}},
        {"TRAIN": {"TRAIN_STEPS": 2, "BATCH_SIZE": 16}},
        {"EVAL": {"MAX_EXAMPLES": 3}},
        {"TUNING_SEEDS": (3,)},
        {"MODELS": ("gemma3-270m",)},
    ],
)
def test_changed_arguments_are_not_taken_as_done(tmp_path, settings_of, changed):
    """Of a plan that is done nothing passes for what another recipe would have made."""
    kind = kinds.study("held_out_clusters")

    def steps(**macros):
        settings = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path), **macros)
        return kind.plan(settings).steps

    for step in steps():
        written(step)
        records.keep(tmp_path, step, 1.0)
    assert all(records.is_done(tmp_path, step) for step in steps())
    left = {step.name for step in steps(**changed) if not records.is_done(tmp_path, step)}
    evaluations = {step.name for step in steps(**changed) if step.job == EVAL}
    of_tuned = {step.name for step in steps(**changed) if step.job == TRAIN or "seed" in step.name}
    assert left >= of_tuned - (set() if "EVAL" not in changed else of_tuned - evaluations)
    assert (evaluations <= left) == ("EVAL" in changed or "MODELS" in changed)  # those of the untuned model too


def test_a_folder_that_does_not_say_its_data_is_refused(tmp_path):
    """With data.json gone, other data passed for what everything had been made from."""
    records.check_data(tmp_path, "samples")
    records.keep(tmp_path, STEP, 1.0)
    (tmp_path / "data.json").unlink()
    with pytest.raises(FlanError, match="has steps of studies, and no data.json, which says what DATA they are of"):
        records.check_data(tmp_path, "tfds")


def test_other_data_are_refused(tmp_path, settings_of):
    """Before anything runs, and whatever the study."""
    records.check_data(tmp_path, "samples")
    records.check_data(tmp_path, "samples")
    settings = settings_of("number_of_clusters", STUDY_DIR=str(tmp_path))
    with pytest.raises(FlanError, match="was made from DATA samples, not .*data: give another STUDY_DIR"):
        study.run(settings, AGAIN, execute=lambda unit, restarts: pytest.fail("it ran"))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"data"'])
def test_a_folder_of_unknown_data_is_refused(tmp_path, text):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(FlanError, match="is damaged: put its own back, or give another STUDY_DIR"):
        records.check_data(tmp_path, "samples")


def test_a_byte_order_mark_is_no_damage(tmp_path):
    """In results.json it was none."""
    (tmp_path / "data.json").write_bytes(b'\xef\xbb\xbf{"data": "samples"}')
    records.check_data(tmp_path, "samples")


def test_data_by_another_name_are_prepared_once(tmp_path, settings_of, studies_home):
    """The name of the step had the name of the link."""
    (tmp_path / "link").symlink_to(studies_home / "data")
    asked = {"STUDY_DIR": str(tmp_path / "studies")}

    def steps(data):
        settings = settings_of("held_out_clusters", **asked, DATA=str(data))
        return [step.name for step in kinds.study("held_out_clusters").plan(settings).steps]

    names = steps(studies_home / "data")
    assert names == steps(tmp_path / "link") == steps(studies_home / "data" / ".." / "data")
    records.check_data(tmp_path / "studies", str(tmp_path / "link"))  # as earlier versions began
    assert steps(tmp_path / "link") == steps(studies_home / "data") != names
    assert settings_of("held_out_clusters", **asked).data == str(tmp_path / "link")


def evaluated(name, datasets, style="instructions", tuned=False):
    argv = ["-m", "flan_jax.eval", f"--gin.DATASETS={datasets!r}", f"--gin.STYLE={style!r}"]
    argv += [f"--gin.RUN_NAME={'flan_without_nli seed 0' if tuned else 'untuned'!r}"]
    return Step(name, EVAL, tuple(argv), "", "results.json", model="tiny")


def test_an_evaluation_is_estimated_by_its_templates(tmp_path):
    """By those that are most alike: the same dataset, ranked or generated likewise, tuned or not."""
    rte, copa, common = (len(protocol.of(catalog.dataset(n)).forward) for n in ("rte", "copa", "common_gen"))
    taken(tmp_path, evaluated("a", ("rte",)), 10.0 * rte)
    taken(tmp_path, evaluated("b", ("copa",)), 20.0 * copa)
    taken(tmp_path, evaluated("c", ("common_gen",)), 300.0 * common)
    taken(tmp_path, evaluated("d", ("common_gen",), tuned=True), 50.0 * common)
    asked = {
        "the same": (evaluated("1", ("rte",)), 10.0 * rte),
        "one of its templates": (evaluated("2", ("rte",), "gpt3"), 10.0),
        "of a tuned model": (evaluated("3", ("rte",), tuned=True), 10.0 * rte),
        "ranked too": (evaluated("4", ("cb",), "gpt3"), (10.0 * rte + 20.0 * copa) / (rte + copa)),
        "generated too": (evaluated("5", ("e2e_nlg",), "gpt3"), 300.0),
        "and tuned": (evaluated("6", ("e2e_nlg",), "no_template", tuned=True), 50.0),
        "both": (evaluated("7", ("rte", "common_gen")), None),
        "of own data": (evaluated("8", ("no_such_dataset",)), None),
        "edited": (dataclasses.replace(evaluated("9", ("rte",)), argv=("--gin.DATASETS=(", "--gin.STYLE=1")), None),
    }
    found = estimates.of(tmp_path, [step for step, _ in asked.values()])
    told = {name: found[step.name].seconds for name, (step, _) in asked.items()}
    assert told == {name: None if wanted is None else pytest.approx(wanted) for name, (_, wanted) in asked.items()}
    assert found["1"].of == 1 and found["4"].of == 2 and found["7"].of == 0


def test_a_training_is_estimated_by_its_slots(tmp_path):
    """By those of its model, all together."""
    for number, (seconds, slots) in enumerate([(10.0, 100), (30.0, 100)]):
        taken(tmp_path, dataclasses.replace(STEP, name=f"train-{number}", slots=slots, model="tiny"), seconds)
    asked = [
        dataclasses.replace(STEP, name="long", slots=1000, model="tiny"),
        dataclasses.replace(STEP, name="other", slots=1000, model="gemma3-270m"),
    ]
    found = estimates.of(tmp_path, asked)
    told = {name: estimate.seconds for name, estimate in found.items()}
    assert told.pop("other") > 0 and not found["other"].of  # by its operations
    assert told == {"long": pytest.approx(200.0)}


@pytest.mark.slow
def test_an_interrupted_study_goes_on(settings_of, run_study, execute, capsys):
    """What failed is said, what needs it is left out, and the same command runs only what is left."""
    run_study("held_out_clusters")
    settings = settings_of("held_out_clusters", TUNING_SEEDS=(0, 5))
    ran = []

    def broken(unit, restarts):
        ran.append(unit.job)
        return 3 if unit.job == "train" else execute(unit, restarts)

    with pytest.raises(FlanError, match="held_out_clusters: a step ended with status 3.*which goes on"):
        study.run(settings, AGAIN, execute=broken)
    assert ran == ["train"]  # the evaluation of what it should have made is left out
    planned = study.run(settings, AGAIN, dry_run=True)["steps"]
    assert [step["job"] for step in planned if not step["done"]] == ["train", "eval"]
    assert "left out" in capsys.readouterr().out

    def counted(unit, restarts):
        ran.append(unit.job)
        return execute(unit, restarts)

    found = study.run(settings, AGAIN, execute=counted)
    assert ran[1:] == ["train", "eval"]
    assert len(found["clusters"]["nli"]["tuned_of_seeds"]) == 2
    study.run(settings, AGAIN, execute=lambda unit, restarts: pytest.fail("it ran again"))


def test_a_step_that_leaves_nothing_is_not_done(tmp_path, settings_of, capsys):
    settings = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path))
    with pytest.raises(FlanError, match="a step ended with status 1"):
        study.run(settings, AGAIN, execute=lambda unit, restarts: 0)
    assert "ended well and left no manifest.json" in capsys.readouterr().out


def test_a_plan_for_a_launcher_has_what_is_left(tmp_path, settings_of):
    settings = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path / "studies"))
    with pytest.raises(FlanError, match="cannot write"):
        study.run(settings, AGAIN, units=str(tmp_path))
    assert not (tmp_path / "studies").exists()  # results were put aside before
    steps = kinds.study("held_out_clusters").plan(settings).steps
    study.run(settings, AGAIN, units=str(tmp_path / "units.json"))
    units = json.loads((tmp_path / "units.json").read_text())["units"]
    assert [unit["name"] for unit in units] == [step.name for step in steps]
    assert [unit["job"] for unit in units] == ["program", "program", "train", "eval", "eval", "eval"]


def _models(tmp_path, settings_of):
    """The folder of a model that a study converted, and its settings."""
    settings = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path))
    step = kinds.study("held_out_clusters").plan(settings).steps[0]
    written(step)
    return Path(step.output), settings


def test_a_model_whose_manifest_is_gone_is_named_with_what_makes_it(tmp_path, settings_of):
    """It was said to be made by `convert` or `train`, and the study has that very step."""
    place, settings = _models(tmp_path, settings_of)
    (place / "manifest.json").unlink()
    kinds.study("held_out_clusters").plan(settings)  # nothing is there yet
    (place / "checkpoints" / "0").mkdir(parents=True)
    with pytest.raises(FlanError, match="tiny has checkpoints and no manifest.json: put its own back, or remove"):
        kinds.study("held_out_clusters").plan(settings)


@pytest.mark.parametrize("text", ["{", "[]", "null", "{}", "[" * 100_000])
def test_a_damaged_vocabulary_is_seen_in_the_plan(tmp_path, settings_of, text):
    place, settings = _models(tmp_path, settings_of)
    (place / "vocabulary").mkdir()
    (place / "vocabulary" / "vocabulary.json").write_text(text)
    if text == "null":
        return
    with pytest.raises(
        FlanError, match="tiny is damaged .*vocabulary.json cannot be read .*: remove .*tiny to have it"
    ):
        kinds.study("held_out_clusters").plan(settings)


def test_a_model_that_cannot_be_is_named(tmp_path, settings_of):
    """The line began with DecoderConfig, and said no file."""
    place, settings = _models(tmp_path, settings_of)
    path = place / "manifest.json"
    found = json.loads(path.read_text())
    del found["digest"]
    found["model"]["head_chunk"] = -1
    path.write_text(json.dumps(found))
    with pytest.raises(FlanError, match="tiny is damaged .DecoderConfig.head_chunk is -1.*: remove .*tiny to have it"):
        kinds.study("held_out_clusters").plan(settings)


def test_data_without_a_mixture_are_seen_in_the_plan(tmp_path, settings_of, studies_home):
    """After a minute of other steps, and its remedy prepared samples."""
    shutil.copytree(studies_home / "data" / "cb", tmp_path / "data" / "cb")
    settings = settings_of(
        "number_of_clusters", STUDY_DIR=str(tmp_path), DATA=str(tmp_path / "data"), CLUSTERS=("nli",)
    )
    with pytest.raises(FlanError, match="data has nothing of mixture flan_first_1_clusters.*: add some of its"):
        kinds.study("number_of_clusters").plan(settings)

"""The trainings and evaluations of a study are its own, whatever lies in their folders.

Each test begins with a finished study, changes what a user or an accident might, and asks what is said.
"""

import json
import shutil
from pathlib import Path

import pytest

from flan_jax import study
from flan_jax.checkpoint import saved_digests
from flan_jax.data import examples as example_files
from flan_jax.errors import FlanError
from flan_jax.studies import outcomes, records, trained
from flan_jax.studies.commands import EVAL, PREPARE, TRAIN
from flan_jax.studies.kinds import held_out_clusters

ASKED = {"TUNING_SEEDS": (0, 1), "BASELINES": ("instructions",)}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A place for the finished study, made once."""
    return tmp_path_factory.mktemp("finished") / "studies"


@pytest.fixture
def planned(finished, run_study, settings_of, tmp_path):
    """(macros) -> the commands of a copy of a finished study with two seeds."""
    if not finished.exists():
        run_study("held_out_clusters", STUDY_DIR=str(finished), **ASKED)
    shutil.copytree(finished, tmp_path / "studies")

    def plan(**macros):
        return held_out_clusters.plan(
            settings_of("held_out_clusters", STUDY_DIR=str(tmp_path / "studies"), **(ASKED | macros))
        )

    return plan


def folders(commands):
    """Of the tuned models, a seed each."""
    return [Path(commands.model_dir(one)) for one in commands.tunings]


def rewrite(path, change):
    """Changes a JSON file, and leaves out its own digest."""
    found = json.loads(path.read_text())
    found.pop("digest", None)
    change(found)
    path.write_text(json.dumps(found))


def test_a_finished_study_that_was_moved_is_done(planned, capsys):
    commands = planned()
    trained.check(commands)
    assert study._left(commands, print) == [] and capsys.readouterr().out == ""


def test_what_launchers_have_done_is_done(planned):
    """Without the records of trainings and evaluations, seven of eight steps were to be started here."""
    commands = planned()
    for step in commands.steps:
        if step.job in (TRAIN, EVAL):
            (commands.settings.folder / "steps" / f"{step.name}.json").unlink()
    trained.check(commands)
    assert study._left(commands, print) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.update(seed=7), "RANDOM_SEED 7 -> 1"),
        (lambda f: f["program"].update(rows=4), "BATCH_SIZE 4 -> 8"),
        (lambda f: f["program"].update(targets=64), "TASK_FEATURE_LENGTHS.targets 64 -> 32"),
        (lambda f: f["program"].update(clip_norm=0.25), "CLIP_NORM 0.25 -> "),
        (lambda f: f["program"]["objective"].update(loss_averaging="per_example"), "LOSS_AVERAGING per_example -> "),
        (lambda f: f["program"]["model"].update(rope_theta=7.0), "MODEL.rope_theta 7.0 -> "),
        (lambda f: f.update(mixture="flan"), "MIXTURE_OR_TASK_NAME flan -> flan_without_nli"),
        (lambda f: f["start"].update(weights="0" * 64), "INITIAL_CHECKPOINT_PATH .* -> "),
        (lambda f: f["datasets"][0].update(digest="0" * 64), "composition.* data 000000000000 -> "),
        (lambda f: f["datasets"].pop(), "composition.* absent -> "),
    ],
)
def test_a_training_of_something_else_is_refused(planned, change, said):
    """It was evaluated, and printed as the one that was asked for."""
    commands = planned()
    rewrite(folders(commands)[1] / "run.json", change)
    with pytest.raises(FlanError, match=f"holds another run than this study asks for: .*{said}.*; remove that folder"):
        trained.check(commands)


def test_another_learning_rate_is_seen(planned):
    commands = planned()

    def change(found):
        text = json.dumps(found["program"]["optimizer"])
        assert "0.001" in text
        found["program"]["optimizer"] = json.loads(text.replace("0.001", "0.5"))

    rewrite(folders(commands)[1] / "run.json", change)
    with pytest.raises(FlanError, match="holds another run .*optimizer.* 0.5 -> 0.001"):
        trained.check(commands)


def test_one_seed_in_anothers_folder_is_refused(planned):
    first, second = folders(planned())
    shutil.rmtree(second)
    shutil.copytree(first, second)
    with pytest.raises(FlanError, match="RANDOM_SEED 0 -> 1"):
        trained.check(planned())


def test_a_training_that_nothing_tells_of_is_refused(planned):
    commands = planned()
    (folders(commands)[0] / "run.json").unlink()
    with pytest.raises(FlanError, match="has no run.json, which says how it was trained: remove that folder"):
        trained.check(commands)


def test_a_model_that_was_trained_on_is_refused(planned):
    """One seed at step 4 and the other at step 2 had one mean."""
    commands = planned()
    steps = folders(commands)[1] / "checkpoints"
    shutil.copytree(steps / "2", steps / "4")
    with pytest.raises(FlanError, match="was trained on to step 4, and TRAIN_STEPS is 2: remove the steps above 2"):
        trained.check(commands)


def test_a_start_that_has_another_step_now_is_refused(planned):
    """The untuned model was asked at its new step, and the tuned ones come from the old one."""
    commands = planned()
    steps = Path(commands.checkpoint("tiny")) / "checkpoints"
    shutil.copytree(folders(commands)[0] / "checkpoints" / "2", steps / "2")
    with pytest.raises(FlanError, match="INITIAL_CHECKPOINT_PATH .*step 0.* -> .*step 2"):
        trained.check(commands)
    shutil.rmtree(steps / "0")
    with pytest.raises(FlanError, match="INITIAL_CHECKPOINT_PATH"):
        trained.check(commands)


def test_a_start_that_was_converted_again_is_the_same(planned):
    """Its manifest has another date."""
    commands = planned()
    rewrite(Path(commands.checkpoint("tiny")) / "manifest.json", lambda f: f["history"][0].update(date="2031-01-01"))
    trained.check(commands)
    assert study._left(commands, print) == []


def test_a_model_that_is_computed_otherwise_is_another(planned):
    """The weights are the same, and the numbers are not."""
    commands = planned()
    rewrite(Path(commands.checkpoint("tiny")) / "manifest.json", lambda f: f["model"].update(norm_epsilon=0.1))
    step = next(one for one in commands.steps if one.job == EVAL and "untuned" in one.name)
    assert "is of another MODEL than" in outcomes.problem(commands, step)
    with pytest.raises(FlanError, match="MODEL.norm_epsilon"):
        trained.check(commands)


def test_data_that_changed_are_seen_when_they_are_prepared_anew(planned, settings_of, tmp_path, execute):
    """Two seeds were tuned on different data, and evaluations stayed done with the old records."""
    commands = planned()
    data = tmp_path / "data"
    shutil.copytree(commands.settings.data, data)
    for path in (data / "cb").iterdir():
        path.write_text(path.read_text().replace(" the ", " teh "))
    prepare = next(one for one in commands.steps if one.job == PREPARE)
    shutil.rmtree(prepare.output)
    trained.check(commands)  # nothing is known of the data now
    argv = [one.replace(f"--data={commands.settings.data}", f"--data={data}") for one in prepare.argv]
    execute(type("Unit", (), {"argv": argv}), 0)
    assert study._left(commands, print) == [prepare]  # by hand, and not of this study's DATA
    records.keep(commands.settings.folder, prepare, 1.0)
    step = next(one for one in commands.steps if one.job == EVAL and "untuned" in one.name)
    assert "is of other test records of cb than" in outcomes.problem(commands, step)
    shutil.rmtree(prepare.output)
    path = next((data / "sst2").glob("train*"))
    path.write_text(path.read_text().replace(" the ", " teh "))
    execute(type("Unit", (), {"argv": argv}), 0)
    records.keep(commands.settings.folder, prepare, 1.0)
    with pytest.raises(FlanError, match="composition.sst2"):
        trained.check(commands)


def test_a_dataset_that_was_not_prepared_is_asked_once_it_is(planned, monkeypatch):
    """It was left out for ever: a mean of fewer datasets."""
    commands = planned()
    step = next(one for one in commands.steps if one.job == EVAL)
    path = Path(step.output) / "results.json"
    skipped = {one["dataset"]: one for one in json.loads(path.read_text())["skipped"]}
    assert skipped["rte"]["prepared"] is False and outcomes.problem(commands, step) == ""
    monkeypatch.setattr(example_files, "has", lambda place, name, split: name == "rte")
    assert outcomes.problem(commands, step) == "is without rte, which is prepared now"
    rewrite(path, lambda f: [one.update(prepared=True) for one in f["skipped"]])  # it cannot be used
    assert outcomes.problem(commands, step) == ""


def test_tokens_that_are_gone_are_prepared_again(planned, capsys, execute, monkeypatch):
    """The tuned model was to be removed, which was tuned on them."""
    commands = planned()
    prepare = next(one for one in commands.steps if one.job == PREPARE)
    place = next(Path(prepare.output, "tokens").rglob("sst2/info.json")).parent
    shutil.rmtree(place)
    trained.check(commands)
    assert study._left(commands, print) == [prepare]
    first = folders(commands)[0]
    said = f"{prepare.output} has no tokens of sst2, which {first} was tuned on. It is prepared again."
    assert said in capsys.readouterr().out
    execute(type("Unit", (), {"argv": prepare.argv}), 0)
    trained.check(commands)
    assert study._left(commands, print) == []
    shutil.rmtree(place.parent)  # of all datasets
    trained.check(commands)
    assert study._left(commands, print) == [prepare]
    execute(type("Unit", (), {"argv": prepare.argv}), 0)
    shutil.rmtree(place)
    monkeypatch.setattr(type(commands.settings), "has", lambda settings, record: record.name != "sst2")
    with pytest.raises(FlanError, match="composition.sst2 .* -> absent; remove that folder to have its model"):
        trained.check(commands)


def test_the_untuned_model_is_the_one_that_tuning_started_from(planned):
    """Where its checkpoints are gone, results of any weights were taken for its own."""
    commands = planned()
    shutil.rmtree(Path(commands.checkpoint("tiny")) / "checkpoints")
    trained.check(commands)
    assert study._left(commands, print) == []
    step = next(one for one in commands.steps if one.job == EVAL and "untuned" in one.name)
    rewrite(Path(step.output) / "results.json", lambda found: found.update(weights="0" * 16))
    assert outcomes.problem(commands, step) == (
        f"is of other weights than those that {folders(commands)[0]} was tuned from"
    )


@pytest.mark.parametrize(
    ("asked", "found", "said"),
    [
        ({"dtype": "bfloat16"}, {}, "was computed in float32, and bfloat16 is wanted"),
        ({"dtype": "bfloat16"}, {"dtype": "bfloat16", "attention": "cudnn"}, ""),
        ({"dtype": "float32"}, {}, ""),
        ({}, {"dtype": "bfloat16"}, "was computed in bfloat16, and float32 is wanted"),
        ({}, {"dtype": "float32", "attention": "segments"}, ""),
        ({"attention": "auto"}, {"attention": "segments"}, ""),
        ("auto", {"dtype": "bfloat16"}, ""),
        ({"dtype": "auto"}, {}, ""),
    ],
)
def test_results_are_of_the_dtype_that_is_asked_for(planned, asked, found, said):
    """Results in float32, copied into the folders of a plan that asks for bfloat16, were taken."""
    before = planned()
    commands = planned(EVAL=dict(before.settings.evaluate) | {"COMPUTATION": asked})
    places = [[Path(one.output) for one in of.steps if one.job == EVAL] for of in (before, commands)]
    for old, new in zip(*places, strict=True):
        shutil.copytree(old, new, dirs_exist_ok=True)
        rewrite(new / "results.json", lambda results: results["settings"].update(computation=found))
    assert {outcomes.problem(commands, one) for one in commands.steps if one.job == EVAL} == {said}
    rewrite(places[1][0] / "results.json", lambda results: results.pop("model"))  # of an earlier version
    assert {outcomes.problem(commands, one) for one in commands.steps if one.job == EVAL} == {said}


def test_results_of_a_model_with_another_account_of_its_tuning_are_not_its_own(planned):
    """They were evaluated beside a manifest that was not the model's."""
    commands = planned()
    step = next(one for one in commands.steps if one.job == EVAL and "untuned" not in one.name)
    rewrite(Path(step.output) / "results.json", lambda found: found["tuning"]["datasets"].remove("sst2"))
    assert "is of a model that was tuned on something else than" in outcomes.problem(commands, step)


@pytest.mark.parametrize("value", [None, "x", 3, [], {"test": None}, {"test": 3}, {"test": {}}, {"test": []}])
def test_data_that_are_none_are_no_traceback(planned, value):
    commands = planned()
    step = next(one for one in commands.steps if one.job == EVAL)

    def change(found):
        for figures in found["datasets"].values():
            figures["data"] = value

    rewrite(Path(step.output) / "results.json", change)
    if value in (None, {"test": None}, {"test": {}}):  # as of earlier versions, which do not say it
        assert outcomes.problem(commands, step) == ""
    else:
        assert "has results that cannot be used" in outcomes.problem(commands, step)


def test_the_weights_of_another_seed_are_refused(planned):
    """They were evaluated as this seed's, where its evaluation was still to be done."""
    first, second = folders(commands := planned())
    shutil.rmtree(first / "checkpoints")
    shutil.copytree(second / "checkpoints", first / "checkpoints")
    with pytest.raises(FlanError, match="step 2 of .* was saved by another training .*: put its own back"):
        trained.check(commands)


@pytest.mark.parametrize("items", [("params", "digests", "opt_state"), ("digests",)])
def test_arrays_of_another_seed_are_refused(planned, items):
    """With the step's own metadata in its place, they were evaluated again as this seed's."""
    first, second = folders(commands := planned())
    for item in items:
        shutil.rmtree(first / "checkpoints" / "2" / item)
        shutil.copytree(second / "checkpoints" / "2" / item, first / "checkpoints" / "2" / item)
    with pytest.raises(
        FlanError, match="step 2 of .*seed_0.* is damaged: .*_METADATA is of training '2:.* put its own"
    ):
        trained.check(commands)


def test_steps_of_trainings_that_differ_in_one_macro_are_told_apart(planned, run_study, tmp_path):
    """Two studies in one folder, of two JOINTS: each reported the other's weights."""
    eos = planned()
    joined = {"TRAIN": dict(eos.settings.train) | {"JOINTS": "newline"}}
    run_study("held_out_clusters", STUDY_DIR=str(tmp_path / "studies"), **(ASKED | joined))
    newline = planned(**joined)
    for commands in (eos, newline):
        trained.check(commands)
    first, second = (folders(commands)[0] / "checkpoints" for commands in (eos, newline))
    first.rename(tmp_path / "kept")
    second.rename(first)
    (tmp_path / "kept").rename(second)
    for commands in (eos, newline):
        with pytest.raises(FlanError, match="step 2 of .* was saved by another training .*: put its own back"):
            trained.check(commands)


METADATA = {
    "missing": (None, "is missing"),
    "junk": ("{", "is damaged (Expecting"),
    "deep": ("[" * 100_000, "is damaged (maximum recursion"),
    "list": ("[]", "is damaged (list indices"),
    "no entries": ('{"custom_metadata": {}}', "names no training"),
    "another list": ('{"custom_metadata": []}', "is damaged (custom_metadata is [])"),
    "null": ('{"custom_metadata": {"digests": true, "saved_by": null}}', "names no training"),
    "number": ('{"custom_metadata": {"digests": true, "saved_by": 5}}', "is of training 5"),
    "before": ('{"custom_metadata": {"digests": true, "run": "5a98d8101aaa392c"}}', "names no training"),
}


def test_steps_without_their_own_metadata_are_refused(planned):
    """Steps of two seeds were taken for those of an earlier version, and each for the other."""
    first, _ = folders(commands := planned())
    (about,) = first.glob("checkpoints/2/_CHECKPOINT_METADATA")
    whole = about.read_text()
    for text, said in METADATA.values():
        about.unlink(missing_ok=True)
        if text is not None:
            about.write_text(text)
        with pytest.raises(FlanError) as caught:
            trained.check(commands)
        line = str(caught.value)
        assert line.startswith(f"step 2 of {first} is damaged: {about} {said}") and "\n" not in line
        assert line.endswith(
            "; put its own back, or remove that folder to have its model tuned anew, or give another STUDY_DIR."
        )
    about.write_text(whole)
    trained.check(commands)


def test_steps_of_before_are_taken(planned):
    """They had a digest of less in their metadata alone, or none."""
    commands = planned()
    saved = [saved_digests.read(folder, 2) for folder in folders(commands)]
    for note in ({"digests": True, "run": "5a98d8101aaa392c"}, {"digests": True}):
        for folder, found in zip(folders(commands), saved, strict=True):
            saved_digests.write(folder, 2, found)
            rewrite(
                folder / "checkpoints" / "2" / "_CHECKPOINT_METADATA",
                lambda values, note=note: values.update(custom_metadata=note),
            )
        trained.check(commands)
        assert study._left(commands, print) == []


def test_digests_that_cannot_be_read_are_refused(planned):
    """Results of any weights counted as done then."""
    commands = planned()
    step = next(one for one in commands.steps if one.job == EVAL and "untuned" not in one.name)
    (metadata,) = folders(commands)[0].glob("checkpoints/2/digests/metadata")
    metadata.write_text("{")
    with pytest.raises(FlanError, match="metadata is damaged .*copy the checkpoint anew"):
        outcomes.problem(commands, step)


@pytest.mark.parametrize("of", ["nothing", "a file", "no digests"])
def test_a_damaged_step_is_seen_in_the_plan(planned, of):
    """It was done, and the evaluation that read it ended the study."""
    commands = planned()
    place = folders(commands)[0] / "checkpoints" / "2"
    shutil.rmtree(place / "digests" if of == "no digests" else place)
    if of == "nothing":
        place.mkdir()
    elif of == "a file":
        place.write_text("x")
    with pytest.raises(FlanError, match=r"step 2 of .* is damaged: .*; put its own back, or remove that folder"):
        trained.check(commands)


def test_data_by_another_name_are_the_same(planned, tmp_path, studies_home):
    (tmp_path / "link").symlink_to(studies_home / "data")
    for place in (tmp_path / "link", studies_home / "data" / ".." / "data"):
        records.check_data(tmp_path / "studies", str(place))
    with pytest.raises(FlanError, match="was made from DATA"):
        records.check_data(tmp_path / "studies", str(tmp_path))


def test_a_whole_number_of_steps_may_have_a_point(planned):
    """Its checkpoint was looked for in checkpoints/2.0 after the training."""
    commands = planned()
    tuning = commands.settings.train | {"TRAIN_STEPS": 2.0}
    assert [one.name for one in planned(TRAIN=tuning).steps] == [one.name for one in commands.steps]


def test_a_picture_that_cannot_be_written_leaves_the_page_as_it_was(planned, execute):
    settings = planned().settings
    folder = Path(settings.folder) / "held_out_clusters"
    (folder / "gains.png").unlink()
    (folder / "gains.png").mkdir()
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(FlanError, match=r"gains\.png"):
        study.run(settings, ["python", "-m", "flan_jax.study"], execute=execute)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before

"""Data and code that have changed since they were prepared are seen when a study is planned."""

import dataclasses
import json
import os
import shutil
import sys

import own_module
import pytest

from flan_jax import catalog, own_tasks, study
from flan_jax.errors import FlanError, StorageError
from flan_jax.files import RemotePath
from flan_jax.studies import kinds, records, stamps
from flan_jax.studies.commands import PREPARE, Step

AGAIN = ["python", "-m", "flan_jax.study"]


@pytest.fixture
def data(tmp_path, studies_home):
    """A folder of data of the test's own."""
    return shutil.copytree(studies_home / "data", tmp_path / "data")


@pytest.fixture
def prepared(tmp_path, data, settings_of):
    """(macros) -> whether a plan finds its preparation done; the first one takes it."""
    folder = tmp_path / "studies"

    def asked(**macros):
        given = {"STUDY_DIR": str(folder), "DATA": str(data), "CLUSTERS": ("nli",), "DATASETS": ("cb",)} | macros
        commands = kinds.study("held_out_clusters").plan(settings_of("held_out_clusters", **given))
        (step,) = [step for step in commands.steps if step.job == PREPARE]
        return commands, step

    _, step = asked()
    commands = asked()[0]
    commands.prepared("tiny").mkdir(parents=True)
    records.check_data(folder, str(data))
    records.keep(folder, step, 1.0)
    return lambda **macros: (lambda found: records.is_done(found[0].settings.folder, found[1]))(asked(**macros))


def test_what_did_not_change_stays_done(prepared, data):
    assert prepared() and prepared()
    (data / "notes.txt").write_text("Of no dataset.")
    assert prepared()


def edit(data):
    """Of the same length."""
    path = data / "cb" / "validation.jsonl"
    path.write_text(path.read_text().replace("hypothesis", "hypothesiz"))


CHANGES = {
    "edited": edit,
    "a file more": lambda data: (data / "cb" / "test.jsonl.old").write_text("{}"),
    "a file less": lambda data: next(iter(sorted((data / "cb").glob("*.jsonl")))).unlink(),
    "a dataset less": lambda data: shutil.rmtree(data / "cb"),
    "a dataset of the mixture more": lambda data: shutil.copytree(data / "cb", data / "samsum"),
    "one that TFDS wrote": lambda data: shutil.copytree(data / "cb", data / "super_glue" / "cb"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_data_are_prepared_again(prepared, data, change):
    """The study said that all is done, and showed scores of records that there are no more."""
    if change != "a dataset less":
        CHANGES[change](data)
        assert not prepared()
        return
    assert prepared()
    CHANGES[change](data)
    shutil.copytree(data / "copa", data / "rte")  # else nothing of NLI is left to ask
    assert not prepared(DATASETS=("rte",))


def test_a_record_of_an_earlier_version_is_compared_once(prepared, tmp_path):
    (path,) = (tmp_path / "studies" / "steps").glob("*.json")
    found = json.loads(path.read_text())
    for damaged in ({}, {"reads": None}, {"reads": []}, {"reads": {"files": 3}}):
        path.write_text(json.dumps({name: own for name, own in found.items() if name != "reads"} | damaged))
        assert not prepared()
    path.write_text(json.dumps(found))
    assert prepared()


def test_data_that_are_not_there_have_not_changed(prepared, data, tmp_path, settings_of):
    """A finished study is shown while the disk with its data is away; one that has to prepare is refused."""
    assert settings_of("options", STUDY_DIR=str(tmp_path / "studies"), DATA=str(data)).has(catalog.dataset("cb"))
    data.rename(tmp_path / "away")
    assert prepared()
    away = settings_of("options", STUDY_DIR=str(tmp_path / "studies"), DATA=str(data))
    assert [name for name in ("cb", "copa", "rte", "samsum") if away.has(catalog.dataset(name))] == ["cb", "copa"]
    about = json.loads((tmp_path / "studies" / "data.json").read_text())
    (tmp_path / "studies" / "data.json").write_text(json.dumps({"data": about["data"]}))  # of an earlier version
    away = settings_of("options", STUDY_DIR=str(tmp_path / "studies"), DATA=str(data))
    assert away.has(catalog.dataset("cb")) and away.has(catalog.dataset("rte"))
    settings = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path / "other"), DATA=str(data))
    with pytest.raises(FlanError, match="data': there is no such folder"):
        study.run(settings, AGAIN, execute=lambda unit, restarts: pytest.fail("it ran"))
    assert not (tmp_path / "other").exists()


def test_data_that_were_moved_are_taken_and_prepared_again(prepared, data, tmp_path, settings_of):
    """Hours were lost for the same records at another place."""
    folder = tmp_path / "studies"
    moved = shutil.copytree(data, tmp_path / "moved")
    with pytest.raises(FlanError, match="was made from DATA .*data, not .*moved: give another STUDY_DIR"):
        records.check_data(folder, str(moved))  # both are there
    shutil.rmtree(data)
    records.check_data(folder, str(moved), write=False)
    assert json.loads((folder / "data.json").read_text())["data"] == str(data)  # of a dry run
    for other in ("samples", "tfds", str(tmp_path / "nowhere")):
        with pytest.raises(FlanError, match="give another STUDY_DIR"):
            records.check_data(folder, other)
    records.check_data(folder, str(moved))
    assert json.loads((folder / "data.json").read_text())["data"] == str(moved)
    assert not prepared(DATA=str(moved))

    def others(place):
        settings = settings_of("held_out_clusters", STUDY_DIR=str(folder), DATA=str(place))
        return [step.name for step in kinds.study("held_out_clusters").plan(settings).steps if step.job != PREPARE]

    assert others(data) == others(moved)  # no model and no evaluation has another name


def test_other_data_in_between_do_not_count(tmp_path, data):
    """Data were replaced, prepared, and put back as they were, with their times."""

    def step(name):
        reads = stamps.of(str(data), ["cb", "copa"])
        argv = ("-m", "flan_jax.prepare", f"--to={tmp_path / 'prepared'}")
        return Step(
            name,
            PREPARE,
            argv,
            str(tmp_path / "prepared"),
            "",
            model="tiny",
            wordings={"cb instructions": "x"},
            reads=reads,
        )

    def take(one):
        (tmp_path / "prepared").mkdir(exist_ok=True)
        records.begin(tmp_path, one)
        records.keep(tmp_path, one, 1.0)

    first = step("a-1")
    take(first)
    take(step("b-1"))
    assert records.is_done(tmp_path, first)  # of the same data
    data.rename(tmp_path / "first")
    shutil.copytree(tmp_path / "first", data, copy_function=shutil.copyfile)
    os.utime(data / "cb" / "train.jsonl", (1, 1))
    take(step("b-1"))
    shutil.rmtree(data)
    (tmp_path / "first").rename(data)
    assert step("a-1").reads == first.reads and not records.is_done(tmp_path, step("a-1"))


def test_code_of_own_tasks_is_compared(tmp_path, monkeypatch):
    """Its `fields` were edited, and the study showed the scores of before."""
    monkeypatch.setenv(own_tasks.VARIABLE, "")
    own_module.write(tmp_path)
    path = tmp_path / "my_tasks.py"
    own_tasks.use(str(path))
    try:
        assert "my_spam" in [record.name for record in catalog.datasets()]
        before = {data: stamps.of(data, ["my_spam", "cb"]) for data in ("samples", "tfds")}
        assert before["tfds"] == {"code": before["samples"]["code"]} and set(before["samples"]) == {"code", "files"}
        path.write_text(path.read_text().replace('one_line(record["text"])', '"Sir: " + one_line(record["text"])'))
        assert all(stamps.changed(before[data], stamps.of(data, ["my_spam", "cb"])) == ["my_spam"] for data in before)
        again = stamps.of("samples", ["my_spam", "cb"])
        sample = sorted((tmp_path / "samples").rglob("*.jsonl"))[0]
        sample.write_text(sample.read_text() + "\n")
        assert stamps.changed(again, stamps.of("samples", ["my_spam", "cb"])) == ["my_spam"]
        os.utime(sample, (1, 1))
        assert len(stamps.changed(stamps.of("samples", ["my_spam"]), stamps.of("samples", ["my_spam"]))) == 0
    finally:
        own_tasks.leave([str(path)])
        sys.modules.pop("own_tasks_my_tasks", None)


def test_data_on_object_storage_are_listed(tmp_path, data, monkeypatch):
    root = RemotePath("memory", "stamps")
    for file in sorted((data / "cb").iterdir()):
        (root / "cb" / file.name).write_bytes(file.read_bytes())
    before = stamps.of("memory://stamps", ["cb", "copa"])
    assert set(before["files"]) == {"cb", "copa"}
    assert before == stamps.of("memory://stamps", ["cb", "copa"])
    (root / "cb" / "train.jsonl").write_text("{}")
    assert stamps.changed(before, stamps.of("memory://stamps", ["cb", "copa"])) == ["cb"]

    def away(self):
        raise StorageError("cannot be reached")

    monkeypatch.setattr(RemotePath, "all_files", away)
    assert stamps.changed(before, stamps.of("memory://stamps", ["cb", "copa"])) == []


def test_a_step_says_what_is_prepared_again(tmp_path, data, settings_of):
    settings = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path / "s"), DATA=str(data), DATASETS=("cb",))
    commands = kinds.study("held_out_clusters").plan(dataclasses.replace(settings, clusters=("nli",)))
    records.check_data(settings.folder, settings.data)
    for step in commands.steps:
        if step.job == PREPARE:
            commands.prepared("tiny").mkdir(parents=True)
            records.keep(settings.folder, step, 1.0)
    edit(data)
    said = []
    study.run(settings, AGAIN, dry_run=True, say=said.append)
    assert "data or code of cb may have changed since. They are prepared again." in said[0]

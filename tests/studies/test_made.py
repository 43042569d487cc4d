"""A study scores its DATA, whatever was written into its prepared data since."""

import json
import shutil
from pathlib import Path

import pytest

from flan_jax import prepare, study
from flan_jax.data import examples, token_store
from flan_jax.errors import FlanError
from flan_jax.studies import kinds, made, outcomes, records, trained
from flan_jax.studies.commands import CONVERT, PREPARE

ASKED = {"CLUSTERS": ("nli",), "DATASETS": ("cb",), "BASELINES": ("instructions",)}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Where the prepared study lies that each test copies."""
    return tmp_path_factory.mktemp("once")


@pytest.fixture
def commands(once, studies_home, settings_of, tmp_path, execute):
    """Of a study whose model is converted and whose data are prepared, from a folder that has no other name."""

    def planned(folder):
        macros = ASKED | {"STUDY_DIR": str(folder), "DATA": str(once / "data")}
        return kinds.study("held_out_clusters").plan(settings_of("held_out_clusters", **macros))

    if not (once / "studies").exists():
        shutil.copytree(studies_home / "data", once / "data")
        for path in (once / "data" / "cb").iterdir():
            path.write_text(path.read_text().replace(" the ", " THE "))
        first = planned(once / "studies")
        records.check_data(first.settings.folder, first.settings.data)
        for step in first.steps:
            if step.job in (CONVERT, PREPARE):
                execute(type("Unit", (), {"argv": step.argv}), 0)
                records.keep(first.settings.folder, step, 1.0)
    shutil.copytree(once / "studies", tmp_path / "studies")
    return planned(tmp_path / "studies")


def prepared(commands):
    """The step, and its folder."""
    step = next(one for one in commands.steps if one.job == PREPARE)
    return step, Path(step.output)


def to_do(commands):
    """The preparations that are left."""
    trained.check(commands)
    return [step for step in study._left(commands, print) if step.job == PREPARE]


def test_what_was_prepared_is_done_where_the_study_was_moved(commands):
    assert to_do(commands) == [] and records.is_prepared(commands, "tiny")


def test_what_others_prepared_by_hand_is_prepared_again(commands, execute, capsys):
    """The command of a message, without --data, put samples into the study of other DATA, which went on with them."""
    step, place = prepared(commands)
    path = place / "examples" / "cb" / "test.jsonl"
    whole = path.read_bytes()
    prepare.main(["--datasets=cb", f"--to={place}", "--overwrite", "--workers=1"])
    assert b" THE " in whole and b" THE " not in path.read_bytes()
    assert to_do(commands) == [step] and not records.is_prepared(commands, "tiny")
    said = f"{place} is not as it was prepared (examples/cb is another one). It is prepared again."
    assert said in capsys.readouterr().out
    records.begin(commands.settings.folder, step)
    execute(type("Unit", (), {"argv": step.argv}), 0)
    records.keep(commands.settings.folder, step, 1.0)
    assert path.read_bytes() == whole and to_do(commands) == []


def _cut(folder):
    path = folder / ("test.jsonl" if (folder / "test.jsonl").exists() else "tokens.bin")
    path.write_bytes(path.read_bytes()[:-10])


def _info(text):
    return lambda folder: (folder / "info.json").write_text(text)


def _edit(change):
    def edited(folder):
        path = folder / "info.json"
        found = json.loads(path.read_text())
        change(found)
        path.write_text(json.dumps(found))

    return edited


def _no_file(found):
    found["files"] = {"dev": None}


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        shutil.rmtree,
        lambda folder: (folder / "info.json").unlink(),
        _info(""),
        _info("[]"),
        _info("null"),
        _info("["),
        _info("[" * 100_000),
        _info('{"files": {"dev": null}}'),
        _edit(lambda found: found.update(version=1)),
        _edit(_no_file),
        _edit(lambda found: found.update(files=[], digest="0")),
    ],
)
@pytest.mark.parametrize("kind", ["examples", "tokens"])
def test_damaged_data_are_prepared_again(commands, execute, kind, damage):
    """They were found hours later, or ended in a traceback."""
    step, place = prepared(commands)
    folder = place / "examples" / "cb" if kind == "examples" else next(place.glob("tokens/*/copa"))
    before = made.of(place, step.wordings)
    damage(folder)
    assert to_do(commands) == [step]
    records.begin(commands.settings.folder, step)
    execute(type("Unit", (), {"argv": step.argv}), 0)
    records.keep(commands.settings.folder, step, 1.0)
    assert made.of(place, step.wordings) == before and to_do(commands) == []


def test_what_data_lack_is_not_tuned_on(commands):
    """A mixture that was prepared by hand had samples of everything, and the study tuned on them."""
    step, place = prepared(commands)
    shutil.copytree(place / "examples" / "cb", place / "examples" / "piqa")
    for of_step in (True, False):
        if not of_step:
            (commands.settings.folder / "steps" / f"{step.name}.json").unlink()
        with pytest.raises(FlanError, match=r"examples/piqa is .* has nothing of piqa: remove that folder"):
            to_do(commands)
    shutil.copytree(place / "examples" / "cb", place / "examples" / "drop")
    with pytest.raises(
        FlanError, match=f"has nothing of drop: remove it and 1 other like it, or all of {place}, which"
    ):
        to_do(commands)
    for name in ("drop", "piqa"):
        shutil.rmtree(place / "examples" / name)
    assert to_do(commands) == [step]


def test_records_of_earlier_versions_say_less(commands):
    step, place = prepared(commands)
    path = commands.settings.folder / "steps" / f"{step.name}.json"
    found = json.loads(path.read_text())
    assert set(found.pop("made")) == set(made.of(place, step.wordings))
    path.write_text(json.dumps(found))
    assert to_do(commands) == []
    _cut(place / "examples" / "cb")
    assert to_do(commands) == [step]
    assert outcomes.problem(commands, step) == "is not as it was prepared (examples/cb is damaged)"


def test_a_remedy_names_the_data(commands, once):
    _, place = prepared(commands)
    _cut(place / "examples" / "cb")
    again = f"--datasets=cb --data={once / 'data'} --to={place} --overwrite"
    with pytest.raises(FlanError, match=f"test.jsonl is not as it was prepared .* {again}"):
        examples.read(place, "cb", "test")
    folder = next(place.glob("tokens/*/copa"))
    (folder / "index.npy").write_bytes(b"")
    again = f"--datasets=copa --data={once / 'data'} --vocabulary=CHECKPOINT/vocabulary --to={place} --overwrite"
    with pytest.raises(FlanError, match=again):
        token_store.DatasetTokens(folder)
    assert token_store.data_of(place) == str(once / "data")

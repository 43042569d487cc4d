"""Units that a study writes for launchers."""

import contextlib
import dataclasses
import importlib
import io
import json
import re
from pathlib import Path

import pytest

from flan_jax import study
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.configuration import model_config
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.launch import sweep
from flan_jax.studies import estimates, records


@pytest.mark.parametrize("done", [0, 1])
def test_units_wait_for_no_step_that_is_done(settings_of, tmp_path, done):
    asked = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path / "studies"))
    if done:
        (tmp_path / "studies/models/tiny").mkdir(parents=True)
        Manifest.create(model_config("tiny"), ByteTokenizer(), UNTUNED).save(tmp_path / "studies/models/tiny")
    study.run(asked, ["again"], units=str(tmp_path / "units.json"))
    units = json.loads((tmp_path / "units.json").read_text())["units"]
    assert [unit["name"].partition("-")[0] for unit in units] == [
        *(["convert"] if not done else []),
        "prepare",
        "train",
        *["eval"] * 3,
    ]
    names = [unit["name"] for unit in units]
    assert all(name in names for unit in units for name in unit["after"])


def test_a_conversion_that_a_launcher_made_is_not_made_again(settings_of, tmp_path, capsys):
    """A stopped launcher is started again with the same file of units."""
    study.run(
        settings_of("held_out_clusters", STUDY_DIR=str(tmp_path / "s")), ["again"], units=str(tmp_path / "u.json")
    )
    first = len(sweep.read_units(tmp_path / "u.json"))
    (tmp_path / "s/models/tiny").mkdir(parents=True)
    (tmp_path / "s/models/tiny/manifest.json").write_text("{}")
    sweep.main([f"--units={tmp_path}/u.json", "--dry_run", "--json"])
    left = json.loads(capsys.readouterr().out.splitlines()[-1])["units"]
    assert len(left) == first - 1 and not any(unit["name"].startswith("convert") for unit in left)
    assert not any(name.startswith("convert") for unit in left for name in unit["after"])


def test_a_step_that_found_all_done_says_nothing_of_time(settings_of, tmp_path):
    asked = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path))
    step = next(one for one in study.kinds.study(asked.name).plan(asked).steps if one.job == "train")
    records.keep(tmp_path, step, None)
    assert estimates.of(tmp_path, [step])[step.name].of == 0


def evaluated(asked, text='{"datasets": {}}'):
    """The folders of a plan's evaluations, with results that are not the ones that are wanted."""
    planned = study.kinds.study(asked.name).plan(asked)
    folders = [Path(step.output) for step in planned.steps if step.job == "eval"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(text)
    return folders


def test_an_evaluation_that_is_made_again_has_no_results_for_a_launcher(settings_of, tmp_path, capsys):
    """The launcher said that it has results, and the study asked for it again, for ever."""
    asked = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path / "s"))
    for round_ in (1, 2):
        folders = evaluated(asked, f'{{"round": {round_}}}')
        study.run(asked, ["again"], units=str(tmp_path / "u.json"))
        assert len(folders) == 3 and capsys.readouterr().out.count("It is evaluated again") == 3
        sweep.main([f"--units={tmp_path}/u.json", "--dry_run", "--json"])
        left = json.loads(capsys.readouterr().out.splitlines()[-1])["units"]
        assert [unit["job"] for unit in left].count("eval") == 3
        for folder in folders:
            assert not (folder / "results.json").exists()
            assert json.loads((folder / f"replaced_{round_}_results.json").read_text()) == {"round": round_}
    folders = evaluated(asked)
    study.run(asked, ["again"], dry_run=True)
    assert all((folder / "results.json").exists() for folder in folders)  # a plan changes nothing


def test_a_plan_that_is_only_shown_writes_no_units(settings_of, tmp_path):
    asked = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path / "s"))
    with pytest.raises(FlanError, match="--dry_run writes nothing, and --units=.*: leave one of the two out"):
        study.run(asked, ["again"], dry_run=True, units=str(tmp_path / "u.json"))
    assert not list(tmp_path.iterdir())


def test_of_no_step_no_unit_is_to_be_started(settings_of, tmp_path, monkeypatch):
    asked, said = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path / "s")), []
    monkeypatch.setattr(study, "_left", lambda commands, say: [])
    study.run(asked, ["again"], units=str(tmp_path / "u.json"), say=said.append)
    assert said == [f"{tmp_path}/u.json has no units, since no step is left: run this without --units for the result."]
    assert json.loads((tmp_path / "u.json").read_text()) == {"units": []}


@pytest.mark.parametrize("name", ["Gemma.3 \u00f6+x", "M\u00f6del_2", "\u6a21\u578b", "it's 100% {x}"])
def test_names_are_of_lower_case_letters_digits_and_hyphens(settings_of, tmp_path, name):
    """Kubernetes took no others, hours after the plan."""
    folder = tmp_path / name
    folder.mkdir()
    Manifest.create(model_config("tiny"), ByteTokenizer(), UNTUNED).save(folder)
    asked = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path / "s"), MODELS=(str(folder),))
    steps = study.kinds.study(asked.name).plan(asked).steps
    assert all(re.fullmatch("[a-z][a-z0-9-]{0,38}[a-z0-9]", step.name) for step in steps)


def test_only_steps_that_read_data_get_the_modules_of_own_tasks(settings_of, tmp_path, monkeypatch):
    """`convert` has no --tasks, and ended the study at its first step."""
    monkeypatch.setenv("FLAN_JAX_TASKS", "")
    asked = dataclasses.replace(settings_of("held_out_clusters", STUDY_DIR=str(tmp_path)), tasks=("my_tasks",))
    told = {step.job: "--tasks=my_tasks" in step.argv for step in study.kinds.study(asked.name).plan(asked).steps}
    assert told == {"convert": False, "prepare": True, "train": True, "eval": True}
    for job, taken in told.items():
        with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
            importlib.import_module(f"flan_jax.{job}").main(["--help"])
        assert ("--tasks" in out.getvalue()) == taken

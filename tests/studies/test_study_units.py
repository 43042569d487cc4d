"""Units that a study writes for launchers."""

import json

import pytest

from flan_jax import study
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.configuration import model_config
from flan_jax.data.vocabularies import ByteTokenizer
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

"""Units that a study writes for launchers."""

import json

import pytest

from flan_jax import study


@pytest.mark.parametrize("done", [0, 1])
def test_units_wait_for_no_step_that_is_done(settings_of, tmp_path, done):
    asked = settings_of("held_out_clusters", STUDY_DIR=str(tmp_path / "studies"))
    if done:
        (tmp_path / "studies/models/tiny").mkdir(parents=True)
        (tmp_path / "studies/models/tiny/manifest.json").write_text("{}")
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

"""What a study's folder knows of steps."""

import json

import pytest

from flan_jax import study
from flan_jax.studies import records
from flan_jax.studies.plan import EVAL, PREPARE, Step


def test_what_launchers_did_is_collected(tmp_path):
    (tmp_path / "evals/a").mkdir(parents=True)
    step = Step("eval-a", EVAL, ("-m", "flan_jax.eval"), str(tmp_path / "evals/a"), "results.json")
    assert not records.is_done(tmp_path, step)
    (tmp_path / "evals/a/results.json").write_text("{}")
    assert records.is_done(tmp_path, step)  # nothing here has taken it
    # What is prepared grows in one folder: its being there says nothing.
    prepare = Step("prepare", PREPARE, ("-m", "flan_jax.prepare"), str(tmp_path / "evals"), "")
    assert not records.is_done(tmp_path, prepare)
    records.keep(tmp_path, prepare, 1.0)
    assert records.is_done(tmp_path, prepare)


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

"""Studies run in this process, on a few examples, and share what they make: models, tokens and evaluations."""

import importlib
import os
import shutil
from pathlib import Path

import gin
import pytest

from flan_jax import configuration, study
from flan_jax.studies import settings

SAMPLES = Path(__file__).parents[2] / "tasks" / "samples"
# Of the held-out clusters of the paper's study of their number, of its tuned ones, and of miscellaneous.
DATASETS = ("cb", "copa", "arc_easy", "openbookqa", "sst2", "wsc", "trec")
TUNING = {
    "TRAIN_STEPS": 2,
    "BATCH_SIZE": 8,  # a row for each of the devices that tests have
    "LEARNING_RATE": 1e-3,
    "TASK_FEATURE_LENGTHS": {"inputs": 224, "targets": 32},
    "MESH": {"data": -1},
}
EVALUATING = {"MAX_EXAMPLES": 2, "MAX_DEV_EXAMPLES": 0, "MAX_NEW_TOKENS": 2, "MESH": TUNING["MESH"]}


def _execute(unit, restarts):
    _, module, *arguments = unit.argv
    own = ["--workers=1"] if module == "flan_jax.prepare" else []  # another process would import TensorFlow again
    importlib.import_module(module).main([*arguments, *own])
    return 0


@pytest.fixture(scope="session")
def execute():
    """(unit, restarts) -> 0: runs a step in this process, as `launch.work.run_here` runs it in another."""
    return _execute


@pytest.fixture(scope="session")
def studies_home(tmp_path_factory):
    """A folder with data/, a few of the samples, and studies/, the STUDY_DIR of all tests."""
    home = tmp_path_factory.mktemp("studies_home")
    for name in DATASETS:
        shutil.copytree(SAMPLES / name, home / "data" / name)
    return home


@pytest.fixture
def settings_of(studies_home):
    """(study, macros) -> its settings: those of its gin file, the tiny budget, and these."""

    def made(name, **macros):
        given = {"STUDY_DIR": str(studies_home / "studies"), "DATA": str(studies_home / "data")}
        given |= {"TRAIN": TUNING, "EVAL": EVALUATING, "TUNING_SEEDS": (0,)} | macros
        assert settings.study  # makes it known to gin
        bindings = [f"{macro} = {value!r}" for macro, value in given.items()]
        configuration.parse([f"studies/{name}.gin", "studies/budgets/tiny.gin"], bindings)
        return gin.get_configurable("study")()

    return made


@pytest.fixture
def run_study(settings_of, monkeypatch, execute):
    """(study, macros) -> (study.json, its folder) after a run in this process."""

    def run(name, **macros):
        for variable in ("FLAN_JAX_OWN_DATA", "FLAN_JAX_TASKS"):
            monkeypatch.setenv(variable, os.environ.get(variable, ""))
        asked = settings_of(name, **macros)
        return study.run(asked, ["python", "-m", "flan_jax.study", name], execute=execute), asked.folder / name

    return run

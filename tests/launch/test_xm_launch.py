import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flan_jax.errors import FlanError
from flan_jax.launch import sweep, work, xm_launch


def test_accelerators():
    assert xm_launch.requirements("tpu_v3=8") == {"tpu_v3": 8} and xm_launch.requirements("") == {}
    for wrong in ("tpu_v3", "=8", "a100=some", "a100=0", "a100=-1", "a100=²", "a 100=8", "a100=8=8", "a100=1e3"):
        with pytest.raises(ValueError, match="it has to be NAME=COUNT"):
            xm_launch.requirements(wrong)


def test_a_unit_is_started_again_in_its_place(tmp_path):
    """What every executor runs: the sweep's own runner around the unit."""
    code = f"import os, sys; p = {str(tmp_path / 'p')!r}; sys.exit(os.path.exists(p) and 5 or open(p, 'w') and 75)"
    command = [sys.executable, *xm_launch.supervised(1), "-c", code]
    assert subprocess.run(command, check=False).returncode == 5


@pytest.mark.skipif(importlib.util.find_spec("xmanager") is not None, reason="XManager is installed")
def test_without_xmanager_it_says_so_in_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        xm_launch.main(["--", "-m", "flan_jax.train"])
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and "flan-jax[xmanager]" in line


def test_dry_run_needs_no_xmanager(capsys):
    given = ["--executor=local", "--checkpoint=/m/a", "--clusters=nli,sentiment", "--output=/o", "--dry_run", "--json"]
    xm_launch.main(given)
    assert len(json.loads(capsys.readouterr().out)["units"]) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--executor=local", "--python=/no/such/python"], "no such file"),
        (["--checkpoint=here", "--clusters=nli", "--output=gs://b/o"], "cannot see a folder that is given from here"),
        (["--executor=moon"], "invalid choice"),
        (["--parallel=-1"], "a whole number"),
    ],
)
def test_wrong_options_are_one_line(capsys, options, says):
    with pytest.raises(SystemExit) as caught:
        xm_launch.main([*options, *([] if "--clusters=nli" in options else ["--", "-c", "pass"])])
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and says in line


class _Failed(Exception):
    pass


class _Experiment:
    """An experiment of XManager's interface whose work units end as they are told."""

    ExperimentUnitError = _Failed

    def __init__(self, failing=()):
        self.failing, self.added, self.running, self.most = failing, [], 0, 0

    def package(self, packageables):
        return packageables

    def Job(self, executable, executor, args, name):
        return name

    async def add(self, name):
        self.added.append(name)
        self.running += 1
        self.most = max(self.most, self.running)
        experiment = self

        class WorkUnit:
            async def wait_until_complete(self):
                await asyncio.sleep(0.01)
                experiment.running -= 1
                if name in experiment.failing:
                    raise _Failed(f"process returned 3\nand more of {name}")

        return WorkUnit()


@pytest.mark.parametrize(("parallel", "most"), [(1, 1), (2, 2), (0, 4)])
def test_work_units_wait_for_what_they_need(parallel, most):
    units = [work.Unit(n, work.PROGRAM, ()) for n in "abcd"] + [work.Unit("e", work.PROGRAM, (), "", ("a",))]
    experiment = _Experiment()
    where = xm_launch.Place("packed", lambda: None)
    ended = asyncio.run(xm_launch.run(experiment, experiment, where, units, parallel, wait=True))
    assert ended == dict.fromkeys("abcde", "done") and experiment.most == most and experiment.added[-1] == "e"


def test_work_units_whose_model_failed_are_left_out():
    units = sweep.plan(model_dir="/m/x", checkpoints=["/m/y"], clusters=["nli"], output="/o")
    train, of_x, of_y = units
    experiment = _Experiment(failing=(train.name,))
    where = xm_launch.Place("packed", lambda: None)
    ended = asyncio.run(xm_launch.run(experiment, experiment, where, units, 1, wait=False))
    assert ended[train.name] == "failed: process returned 3" and ended[of_x.name].startswith("left out: ")
    assert ended[of_y.name] == "launched" and experiment.added == [train.name, of_y.name]


def test_xmanager_takes_the_description():
    """In XManager's environment; `run_xmanager.sh` does this there with more executors, and runs units."""
    xm, xm_local = pytest.importorskip("xmanager.xm"), pytest.importorskip("xmanager.xm_local")
    where = xm_launch.place(xm, xm_local, "vertex", "tpu_v3=8")
    assert where.executor().requirements.task_requirements
    with pytest.raises(FlanError, match="XManager does not know it"):
        xm_launch.place(xm, xm_local, "vertex", "tpu_v99=8")


def test_the_script_that_runs_xmanager_is_whole():
    script = Path(__file__).with_name("run_xmanager.sh")
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    lock = (script.parents[2] / "requirements-xmanager.lock").read_text()
    assert "xmanager==0.8." in lock and "://" not in lock

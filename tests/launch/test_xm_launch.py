import importlib.util
import shlex
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def xm_launch(load):
    return load("xm_launch")


@pytest.mark.parametrize(("job", "module"), [("train", "flan_jax.train"), ("eval", "flan_jax.eval")])
def test_the_container_runs_the_binary(xm_launch, job, module):
    arguments = ["--gin_file=runs/tune.gin", "--gin.MODEL_DIR='gs://bucket/first run'"]
    assert shlex.split(xm_launch.container_command(job, arguments)) == ["python", "-m", module, *arguments]
    assert importlib.util.find_spec(module) is not None


def test_accelerators(xm_launch):
    assert xm_launch.requirements("tpu_v3=8") == {"tpu_v3": 8} and xm_launch.requirements("") == {}
    for wrong in ("tpu_v3", "=8", "a100=some", "a100=0", "a100=-1", "a100=²", "a 100=8", "a100=8=8", "a100=1e3"):
        with pytest.raises(ValueError, match="it has to be NAME=COUNT"):
            xm_launch.requirements(wrong)


@pytest.mark.skipif(importlib.util.find_spec("xmanager") is not None, reason="XManager is installed")
def test_without_xmanager_it_says_so_in_one_line(xm_launch):
    command = [sys.executable, xm_launch.__file__, "--", "--job=train"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "flan-jax[xmanager]" in done.stderr


def test_xmanager_takes_the_description(xm_launch):
    xm = pytest.importorskip("xmanager.xm")
    container, resources = xm_launch.describe(xm, "train", ["--gin_file=a.gin"], "tpu_v3=8", "python:3.11")
    assert container.entrypoint.commands == ["python -m flan_jax.train --gin_file=a.gin"]
    assert resources.task_requirements

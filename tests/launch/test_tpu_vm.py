import shlex
import subprocess
import sys

import pytest

PROGRAM = ["-m", "flan_jax.train", "--gin_file=runs/tune.gin", "--gin.MODEL_DIR='gs://bucket/first run'"]
GIVEN = {"name": "flan", "zone": "us-east5-b", "accelerator": "v3-128", "runtime": "tpu-ubuntu2204-base"}


@pytest.fixture(scope="module")
def tpu_vm(load):
    return load("tpu_vm")


def test_stages_of_one_slice(tpu_vm):
    def of(stage, **more):
        return tpu_vm.commands(stage, program=PROGRAM, **GIVEN, **more)

    (create,) = of("create", project="mine", spot=True)
    assert create[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "create", "flan"]
    assert {"--zone=us-east5-b", "--project=mine", "--accelerator-type=v3-128", "--spot"} <= set(create)
    wheel, copy, setup = of("install")
    assert wheel[1:4] == ["-m", "pip", "wheel"] and "--no-deps" in wheel
    assert copy[4] == "scp" and copy[6:8] == ["flan-wheel", "flan:"] and "--worker=all" in copy
    assert "--worker=all" in setup and "'jax[tpu]'" in setup[-1]
    (run,) = of("run")
    assert run[4:6] == ["ssh", "flan"] and "--worker=all" in run and not any("node" in word for word in run)
    script = run[-1].removeprefix("--command=")
    assert shlex.split(script.partition(" > ")[0])[2:] == PROGRAM  # what the hosts' shell makes of it
    (follow,) = of("follow")
    assert "--worker=0" in follow and "flan.log" in follow[-1]
    assert of("delete")[0][4:6] == ["delete", "flan"]


def test_several_slices_are_nodes_of_a_queued_resource(tpu_vm):
    for stage in tpu_vm.STAGES:
        for line in tpu_vm.commands(stage, program=PROGRAM, slices=4, **GIVEN):
            if line[0] == "gcloud":
                assert line[3] == "queued-resources"
                assert "--node=all" in line or "--worker=all" not in line
    (create,) = tpu_vm.commands("create", program=PROGRAM, slices=4, **GIVEN)
    assert {"--node-count=4", "--node-prefix=flan"} <= set(create)


def test_the_binary_prints_without_running(tpu_vm):
    options = ["--name=flan", "--zone=z", "--type=v3-128", "--runtime=r", "--stage=run", "--stage=follow"]
    command = [sys.executable, tpu_vm.__file__, *options, "--", *PROGRAM]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# run", "# follow"]
    expected = tpu_vm.commands("run", program=PROGRAM, name="flan", zone="z", accelerator="v3-128", runtime="r")
    assert shlex.split(lines[1]) == expected[0]


def test_a_command_that_fails_ends_the_run(tpu_vm, tmp_path):
    gcloud = tmp_path / "gcloud"
    gcloud.write_text("#!/bin/sh\nexit 3\n")
    gcloud.chmod(0o755)
    options = ["--name=flan", "--zone=z", "--type=v3-128", "--runtime=r", "--execute"]
    command = [sys.executable, tpu_vm.__file__, *options, "--", *PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr == "tpu_vm: stage create ended with exit status 3; go on with --stage=create.\n"
    assert "# install" not in done.stdout

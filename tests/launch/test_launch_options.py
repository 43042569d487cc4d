"""Options of the launchers are checked by kind before anything is started: one line, exit status 2."""

import subprocess
import sys

import pytest

TPU = ["--name=flan", "--zone=z", "--type=v3-128", "--runtime=r"]


def _with(options, wrong):
    name = wrong.partition("=")[0]
    return [wrong, *(option for option in options if option.partition("=")[0] != name)]


@pytest.mark.parametrize(
    ("launcher", "options", "says"),
    [
        *(("local_pod", [wrong], "a whole number from 1 to 1024") for wrong in ("--processes=two", "--processes=0")),
        *(("local_pod", [wrong], "a whole number from 1 to 1024") for wrong in ("--devices=-1", "--devices=1.5")),
        ("local_pod", ["--processes=1e9"], "it can be 1024 at most"),
        *(("local_pod", [f"--grace={wrong}"], "a number of at least 0") for wrong in ("-1", "nan", "soon", "1e6")),
        ("local_pod", ["--proceses=2"], "did you mean --processes?"),
        *(("tpu_vm", _with(TPU, f"--slices={wrong}"), "a whole number") for wrong in ("0", "-2", "many", "2.5")),
        *(("tpu_vm", _with(TPU, f"--name={wrong}"), "a name without spaces") for wrong in ("", "-x", "a b", "a\nb")),
        *(("tpu_vm", _with(TPU, f"--{name}=--x"), "a name without spaces") for name in ("zone", "type", "runtime")),
        ("tpu_vm", [*TPU, "--project="], "a name without spaces"),
        ("tpu_vm", [*TPU, "--stage=fly"], "invalid choice: 'fly'"),
        *(("xm_launch", ["--job=train", f"--accelerator={wrong}"], "NAME=COUNT") for wrong in ("8", "a100=0", "=8")),
        ("xm_launch", ["--job=train", "--title="], "a text in quotes, on one line"),
        ("xm_launch", ["--job=train", "--base_image=-v /:/x"], "a name without spaces"),
        ("xm_launch", ["--job=tune"], "invalid choice: 'tune'"),
    ],
)
def test_wrong_options_end_in_one_line(load, launcher, options, says):
    rest = ["--", "true"] if launcher != "xm_launch" else []
    command = [sys.executable, load(launcher).__file__, *options, *rest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("flan_jax: ") and done.stderr.count("\n") == 1 and says in done.stderr, done.stderr

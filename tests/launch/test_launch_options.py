"""Options of the launchers are checked by kind before anything is started: one line, exit status 2."""

import json
import subprocess
import sys

import pytest

TPU = ["run", "--name=flan", "--zone=z", "--type=v3-128", "--runtime=r"]


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
        ("local_pod", ["--proceses=2"], "did you mean --processes"),
        *(("tpu_vm", _with(TPU, f"--slices={wrong}"), "a whole number") for wrong in ("0", "-2", "many", "2.5")),
        *(
            ("tpu_vm", _with(TPU, f"--name={wrong}"), "up to 50 lower-case letters")
            for wrong in ("", "-x", "a b", "a\nb", "Flan", "1st", "flan_1", "flan-", "x" * 51, "flän")
        ),
        *(("tpu_vm", _with(TPU, f"--{name}=--x"), "a name without spaces") for name in ("zone", "type", "runtime")),
        ("tpu_vm", [*TPU, "--project="], "a name without spaces"),
        ("tpu_vm", ["fly", *TPU[1:]], "invalid choice: 'fly'"),
        ("tpu_vm", [*TPU, "--spot", "--reserved"], "not allowed with"),
        ("tpu_vm", TPU[:3], "--type and --runtime say"),
        ("tpu_vm", ["fetch", *TPU[1:]], "--fetch=PATH says"),
        ("tpu_vm", [*TPU, "--poll=0"], "a number above 0"),
        ("tpu_vm", [*TPU, "--checkpoint=a"], "cannot see a folder that is given from here"),
        ("gke", ["--type=v5p"], "--topology"),
        ("gke", ["--type=v5p", "--topology=4x4x4", "--image=i", "--name=first"], "unrecognized arguments: --name"),
        *(("xm_launch", [f"--accelerator={wrong}"], "NAME=COUNT") for wrong in ("8", "a100=0", "=8")),
        ("xm_launch", ["--title="], "a text in quotes, on one line"),
        ("xm_launch", ["--base_image=-v /:/x"], "a name without spaces"),
        ("xm_launch", ["--executor=here"], "invalid choice: 'here'"),
    ],
)
def test_wrong_options_end_in_one_line(load, capsys, launcher, options, says):
    with pytest.raises(SystemExit) as ended:
        load(launcher).main([*options, "--", "true"])
    out, errors = capsys.readouterr()
    assert (ended.value.code, out) == (2, ""), errors
    assert errors.startswith("flan_jax: ") and errors.count("\n") == 1 and says in errors, errors


@pytest.mark.parametrize(
    "program",
    [
        ["-m", "flan_jax.train", "--gin.MODEL_DIR='runs/first'"],
        ["python", "-m", "flan_jax.eval", "--gin.EVAL_OUTPUT_DIR='./nli'"],
    ],
)
def test_what_would_go_with_the_machines_is_refused(load, capsys, program):
    with pytest.raises(SystemExit) as ended:
        load("tpu_vm").main([*TPU, "--dry_run", "--", *program])
    out, errors = capsys.readouterr()
    assert (ended.value.code, out) == (2, "") and errors.count("\n") == 1
    assert "would lie on the machines alone, and go with them: give gs://..." in errors


def test_an_error_is_a_program_s_too(load):
    command = [sys.executable, load("tpu_vm").__file__, *TPU, "--slices=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("words", [["python", "-m", "flan_jax.train"], ["/usr/bin/python3.11", "-m", "flan_jax.train"]])
def test_python_may_stand_before_its_arguments(load, capsys, words):
    load("tpu_vm").main([*TPU, "--dry_run", "--json", "--", *words])
    assert json.loads(capsys.readouterr().out)["units"][0]["argv"] == ["-m", "flan_jax.train"]


@pytest.mark.parametrize("words", [["python"], ["--gin.X=1"], ["python3", "--gin_file=a"], [""]])
def test_what_is_no_program_is_refused_before_machines_are_made(load, capsys, words):
    with pytest.raises(SystemExit) as ended:
        load("tpu_vm").main([*TPU, "--", *words])
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and errors.count("\n") == 1 and "write -m flan_jax.train" in errors


@pytest.mark.parametrize(
    ("mode", "says"), [(0o644, "cannot be run: Permission denied"), (0o755, "cannot be run: Exec")]
)
def test_a_file_that_is_no_program_ends_in_one_line(local_pod, tmp_path, mode, says):
    (tmp_path / "x").write_text("1")
    (tmp_path / "x").chmod(mode)
    done = subprocess.run([*local_pod, "--", str(tmp_path / "x")], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and says in done.stderr, done.stderr

"""The console command `flan-jax`: what it lists, starts and refuses, and completion in a real shell."""

import subprocess
import sys
from pathlib import Path

import pytest
from test_start import BINARIES

import flan_jax
from flan_jax import __main__ as command

NAMES = [name for group in command.COMMANDS.values() for name in group]
CONSOLE = Path(sys.executable).with_name("flan-jax")


def test_every_command_is_listed():
    modules = {module for module in BINARIES if module != "flan_jax.__main__"}
    assert {f"flan_jax.{name}" for name in NAMES} == modules, "flan_jax/__main__.py has the table"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_has_a_line_for_each(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert not ended.value.code and max(map(len, lines)) < 100
    for name in NAMES:
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("trian", "unknown command 'trian': did you mean 'train'?"),
        ("tpu_vm", "did you mean 'launch.tpu_vm'?"),
        ("Eval", "did you mean 'eval'?"),
        ("errors", "unknown command 'errors'"),
        ("", "unknown command ''"),
        ("train.main", "did you mean 'train'"),
        ("../train", "did you mean 'train'"),
        ("--hlep", "did you mean --help?"),
        ("--completion=fish", "--completion"),
    ],
)
def test_a_wrong_command_is_one_line(given, said, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main([given])
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("flan_jax: ") and said in err


def test_a_command_runs_as_its_module_does(monkeypatch, capsys, tmp_path):
    monkeypatch.delitem(sys.modules, "flan_jax.report", raising=False)  # another test may have imported it
    monkeypatch.setattr(sys, "argv", ["flan-jax"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        command.main(["report", "--runs=a=b", "--output=x", "--no_such=1"])
    err = capsys.readouterr().err
    assert ended.value.code == 2 and "--no_such=1" in err and "see python -m flan_jax.report --help" in err


@pytest.mark.skipif(not CONSOLE.is_file(), reason="flan-jax is not installed beside this Python")
def test_the_installed_command(tmp_path):
    def ran(*arguments):
        return subprocess.run([CONSOLE, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False)

    assert ran("--version").stdout == f"flan-jax {flan_jax.__version__}\n"
    refused = ran("report", "--nope")
    assert (refused.returncode, refused.stdout) == (2, "") and "see flan-jax report --help." in refused.stderr
    shown = ran("report", "--help")
    assert "usage: flan-jax report" in shown.stdout and "python -m" not in shown.stdout and not shown.stderr


COMPLETED = [
    ("flan-jax pre", "prepare precompile"),
    ("flan-jax --comp", "--completion="),
    ("flan-jax report --out", "--output "),
    ("flan-jax train --gin.TRAIN_", "--gin.TRAIN_STEPS="),
    ("flan-jax train --gin_", "--gin_file="),
    ("flan-jax nosuch --x", ""),
]


@pytest.mark.skipif(not CONSOLE.is_file(), reason="flan-jax is not installed beside this Python")
def test_completion(tmp_path):
    """In bash; zsh has the same functions by its bashcompinit, where only its own completion can call them."""
    (tmp_path / "script").write_text(command.completion("bash"))
    asks = "".join(
        f'COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _flan_jax; echo "${{COMPREPLY[*]}}|"\n'
        for line, _ in COMPLETED
    )
    environment = {"PATH": f"{CONSOLE.parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    program = f"source {tmp_path / 'script'}\n{asks}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.splitlines() == [f"{expected}|" for _, expected in COMPLETED], done.stderr
    assert command.completion("zsh").endswith(command.completion("bash"))

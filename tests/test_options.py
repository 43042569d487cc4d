"""Options of all commands: what is no such value ends in one line with exit status 2, before anything is imported."""

import importlib
import os
from pathlib import Path

import pytest

from flan_jax import macros, options

NUMBERS = ("-1", "-3", "nan", "inf", "x", "1.5", "1e99", "9" * 5000, "")
PATHS = ("", "  ", "gs:/bucket/x", "gs://x", "a\0b", "~nobody_here/x")

# command -> (what else it needs, numbers that take none of NUMBERS, further wrong values, paths)
COMMANDS = {
    "prepare": (
        ["--to=x"],
        ["workers", "seed", "max_input_length", "max_target_length"],
        [("max_input_length", "0"), ("seed", "4294967296"), ("style", "gpt33"), ("datasets", "nlii")],
        ["to", "data", "vocabulary"],
    ),
    "eval": ([], ["num_processes", "process_id"], [("num_processes", "0")], ["items", "checkpoint", "output"]),
    "infer": (
        ["--checkpoint=x", "--prompt=a"],
        ["max_new_tokens", "top_k", "seed", "beams", "step"],
        [
            *(("max_new_tokens", "0"), ("beams", "0"), ("beams", "1000000000"), ("seed", "1099511627776")),
            *(("temperature", value) for value in ("-1", "nan", "inf", "x", "")),
            *(("top_p", value) for value in ("2", "0", "-1", "nan", "x")),
        ],
        ["checkpoint", "input", "output"],
    ),
    "convert": (["--from=tiny", "--to=x"], [], [("format", "hf"), ("dtype", "int8")], ["from", "to", "vocabulary"]),
    "export": (
        ["--name=rte", "--to=x"],
        ["epochs", "count", "seed"],
        [("epochs", "0"), ("count", "0"), ("split", "dev"), ("name", "rtee")],
        ["to", "data", "vocabulary"],
    ),
    "report": (["--runs=a=b", "--output=x"], [], [], ["output", "contamination"]),
    "contamination": (
        ["--prepared=x", "--corpus=y", "--to=z"],
        ["ngram", "ignore_above", "workers"],
        [("ngram", "0"), ("workers", "0")],
        ["prepared", "corpus", "to"],
    ),
    "browse": (
        [],
        ["row", "count", "template", "steps"],
        [("count", "0"), ("steps", "0")],
        ["html", "data", "vocabulary", "prepared"],
    ),
    "precompile": (
        ["--topology=v3:8x8", "--model=tiny"],
        ["slices", "rows", "inputs", "targets", "microbatches", "jobs"],
        [("rows", "0"), ("mesh", "model=2"), ("remat", "all")],
        [],
    ),
    "quickstart": ([], ["steps", "max_examples"], [], ["data", "to"]),
    "study": ([], ["restarts"], [("budget", "large")], ["units"]),
    "train": ([], ["num_processes", "process_id"], [], []),
}
CASES = [
    (command, needed, option, value)
    for command, (needed, numbers, further, paths) in COMMANDS.items()
    for option, value in (
        *((option, value) for option in numbers for value in NUMBERS),
        *further,
        *((option, value) for option in paths for value in PATHS),
    )
]


def _run(command, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"flan_jax.{command}").main(arguments)
    out, err = capsys.readouterr()
    assert stopped.value.code == 2, (out, err)
    assert not out
    assert err.count("\n") == 1 and err.startswith("flan_jax: ") and len(err) < 700
    return err


@pytest.mark.parametrize(
    ("command", "needed", "option", "value"), CASES, ids=[f"{c[0]}-{c[2]}-{c[3][:20]!r}" for c in CASES]
)
def test_wrong_value(command, needed, option, value, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert option in _run(command, [*needed, f"--{option}={value}"], capsys) or option in ("style", "datasets", "name")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_and_missing_options(command, capsys):
    needed = COMMANDS[command][0]
    assert "unrecognized arguments: --hlep" in _run(command, [*needed, "--hlep"], capsys)
    assert "did you mean --help" in _run(command, [*needed, "--hlep"], capsys)
    assert "unrecognized arguments: ' '" in _run(command, [*needed, " "], capsys)  # of a script, where a value is empty
    if needed:
        assert needed[0].partition("=")[0] in _run(command, needed[1:], capsys)


def test_whole_numbers_as_people_write_them(capsys, tmp_path):
    from flan_jax import export

    export.main(["--name=cb", f"--to={tmp_path / 'x'}", "--count=1e0", "--epochs=1.0"])
    assert len((tmp_path / "x").read_text().splitlines()) == 1


@pytest.mark.parametrize("written", ["./samples", "samples/", "./samples/", "../here/samples", "samples/."])
def test_a_folder_that_has_the_name_of_our_samples_is_read_where_it_is_written_as_a_path(
    tmp_path, monkeypatch, written
):
    """`./samples` was written as `samples`, and stood for the bundled ones: of nobody's records but ours."""
    (tmp_path / "here" / "samples").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    for kind in (options.data, macros.BY_MACRO["DATA"].kind.fit):
        assert (kind("samples"), kind("tfds")) == ("samples", "tfds")
        assert kind(written) not in ("samples", "tfds")
        assert os.path.realpath(kind(written)) == str(tmp_path / "here" / "samples")
    assert macros.BY_MACRO["DATA"].kind.fit(Path("samples")) == str(tmp_path / "here" / "samples")
    assert options.data("./tfds") == str(tmp_path / "here" / "tfds")
    assert options.vocabulary("bytes") == "bytes" and options.vocabulary("./bytes") == str(tmp_path / "here" / "bytes")

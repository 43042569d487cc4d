"""What the operating system refuses ends in one line, in our own processes and in what libraries raise."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from flan_jax import output
from flan_jax.errors import FlanError, cannot, one_line_errors, system_error_number
from flan_jax.files import home, make_folder

ENV = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def run(body: str, arguments: str = "", **options) -> subprocess.CompletedProcess:
    """A small binary whose work is `body`."""
    lines = "".join(f"\n    {line}" for line in body.splitlines())
    handled = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # what runs in the background ignores Ctrl-C
    code = (
        f"import os, signal, sys\nfrom flan_jax.errors import *\n{handled}\nwith one_line_errors({arguments}):{lines}"
    )
    options = {"text": True, "timeout": 60, "check": False, "env": ENV} | options
    return subprocess.run([sys.executable, "-c", code], **options)


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        ("raise FlanError('a\\nb')", 2, "flan_jax: a"),
        ("open('/proc/nothing/here', 'w')", 2, "flan_jax: cannot read or write /proc/nothing/here: no such file"),
        ("open('/proc', 'w')", 2, "flan_jax: cannot read or write /proc: is a directory; give the path of a file."),
        ("open('x' * 300, 'w')", 2, "flan_jax: cannot read or write " + "x" * 100 + "..."),
        (
            "os.mkdir('/dev/null/folder')",
            2,
            "flan_jax: cannot read or write /dev/null/folder: /dev/null is no folder; choose",
        ),
        ("raise OSError('no number')", 2, "flan_jax: cannot read or write the output, or a file"),
        ("raise KeyboardInterrupt", 130, "flan_jax: stopped before it was done"),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "flan_jax: stopped before it was done"),
        ("sys.exit(1)", 1, ""),
        ("print('fine')", 0, ""),
    ],
)
def test_one_line_and_a_status(body, status, line):
    done = run(body, capture_output=True)
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == bool(line)
    assert done.stderr.startswith(line)


@pytest.mark.parametrize("size", [1, 1_000_000])  # in Python's buffer until the end, and beyond it
def test_full_output(size):
    with open("/dev/full", "w") as full:
        done = run(f"print('x' * {size})", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no space left on device; make room" in done.stderr


_BODIES = ["print('x')", "for i in range(100_000): print(i)", "raise FlanError('x')"]
_GONE = "flan_jax: the reader of the output is gone; the work goes on, and its further output is lost.\n"


@pytest.fixture
def no_reader():
    """A pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize("body", _BODIES)
def test_reader_that_has_gone_ends_what_only_shows(body, no_reader):
    done = run(f"print('y')\n{body}", "only_shows=True", stdout=no_reader, stderr=subprocess.PIPE)
    expected = (2, "flan_jax: x\n") if "raise" in body else (141, "")
    assert (done.returncode, done.stderr) == expected


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("body", [*_BODIES, "os.system('echo z; echo z'); print('x')"])
def test_reader_that_has_gone_ends_no_work(body, unbuffered, no_reader, tmp_path):
    around = {"env": ENV | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {})}
    body = f"print('y', flush=True)\nopen({str(tmp_path / 'done')!r}, 'w').close()\n{body}"
    done = run(body, stdout=no_reader, stderr=subprocess.PIPE, **around)
    expected = (2, f"{_GONE}flan_jax: x\n") if "raise" in body else (0, _GONE)
    assert (done.returncode, done.stderr) == expected and (tmp_path / "done").exists()


def test_readers_of_both_are_gone(no_reader):
    body = "sys.stderr.write('z')\nprint('y', flush=True)\nprint('x', file=sys.stderr)"
    assert run(body, stdout=no_reader, stderr=no_reader).returncode == 0
    assert run("raise FlanError('x')", stdout=no_reader, stderr=no_reader).returncode == 2


def test_a_terminal_that_hangs_up_ends_no_work():
    ours, theirs = os.openpty()
    code = (
        "import sys\nfrom flan_jax.errors import one_line_errors\nwith one_line_errors():\n"
        "    print('y', flush=True)\n    sys.stdin.readline()\n    for i in range(9): print(i, flush=True)"
    )
    options = {"stdin": subprocess.PIPE, "stdout": theirs, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], **options)
    os.close(theirs)
    assert os.read(ours, 1) == b"y"
    os.close(ours)
    assert process.communicate("\n", timeout=60)[1] == _GONE and process.returncode == 0


def test_a_broken_pipe_of_something_else_is_an_error():
    done = run("raise BrokenPipeError(32, 'Broken pipe')", capture_output=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "roken pipe" in done.stderr


def test_ctrl_c_that_the_garbage_collector_drops_comes_again():
    body = (
        "import gc, time\n"
        "gc.callbacks.append(lambda phase, info: (gc.callbacks.clear(), os.kill(os.getpid(), signal.SIGINT)))\n"
        "gc.collect()\ntime.sleep(30)"
    )
    done = run(body, capture_output=True)
    assert done.returncode == 130 and "stopped before it was done" in done.stderr and "ignored" not in done.stderr


def _tensorstore(path):
    import tensorstore

    spec = {"driver": "zarr", "kvstore": f"file://{path}/", "metadata": {"dtype": "<f4", "shape": [100_000]}}
    tensorstore.open(spec, create=True).result().write(np.random.rand(100_000).astype(np.float32)).result()


def _tensorflow(path):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as file:
        file.write(os.urandom(1_000_000))


FULL = {
    "text": lambda path: path.write_text("x" * 1_000_000),
    "numpy": lambda path: np.save(path, np.ones(1_000_000)),
    "numpy without a number": lambda path: np.ones(1_000_000).tofile(path),
    "safetensors": lambda path: safetensors.numpy.save_file({"a": np.random.rand(1_000_000)}, path),
    "tokenizers": lambda path: tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"x" * n: n for n in range(1, 2000)}, "x")
    ).save(str(path)),
    "tensorstore": _tensorstore,
    "tensorflow": _tensorflow,
}


@pytest.mark.parametrize("library", FULL)
def test_a_full_disk_is_known_from_every_library(library, small_disk):
    with pytest.raises(Exception) as caught:
        FULL[library](small_disk / "file")
    assert system_error_number(caught.value) == errno.ENOSPC
    assert "no space left on device; make room" in str(cannot("write", small_disk / "file", caught.value))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("shape (28, 2)"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 28 bytes."),
        KeyError("x"),
    ],
)
def test_other_errors_are_none_of_the_system(error):
    assert system_error_number(error) is None


def test_what_was_handled_is_not_the_reason():
    with pytest.raises(ValueError, match="shape") as caught:
        try:
            raise FileNotFoundError(errno.ENOENT, "cache")
        except OSError:
            raise ValueError("shape")  # noqa: B904
    assert system_error_number(caught.value) is None


def test_net_lets_success_through():
    with one_line_errors():
        assert issubclass(FlanError, ValueError)


def test_a_folder_where_nothing_may_be_removed():
    """One with the sticky bit, or that takes additions alone: what was written cannot take its place by a rename."""
    line = str(cannot("write", "runs/lock.json", PermissionError(errno.EPERM, os.strerror(errno.EPERM))))
    assert "operation not permitted; choose a place where you may write, remove and rename files" in line


@pytest.mark.parametrize("platforms", ["cuda", "tpus", "cuda,rocm"])
def test_devices_that_jax_cannot_start(platforms):
    """A build of JAX for CPUs, as most people have it first, ends in a line that names the variable."""
    code = "from flan_jax.errors import one_line_errors\nwith one_line_errors():\n    import jax\n    jax.devices()"
    environment = os.environ | {"JAX_PLATFORMS": platforms}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if line.startswith("flan_jax: ")]
    assert done.returncode == 2 and len(said) == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"JAX_PLATFORMS={platforms}" in said[0] and "JAX_PLATFORMS=cpu" in said[0]


@pytest.mark.parametrize("name", ["x" * 300, "it's", 'a "b"', "no [such] folder/file"])
def test_a_path_that_gin_hides_is_named(tmp_path, capsys, name):
    """gin raises a stand-in for an exception, without the file's name."""
    import gin

    opened = gin.external_configurable(open, f"opened_{abs(hash(name))}")
    with pytest.raises(SystemExit) as stopped, one_line_errors():
        opened(str(tmp_path / name))
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1 and str(tmp_path / name)[:80] in said


@pytest.mark.parametrize(
    ("columns", "terminal", "wide"), [("", False, 200), ("40", False, None), ("no", False, 200), ("", True, None)]
)
def test_tables_are_as_wide_as_columns_says(columns, terminal, wide, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert output.width(200) == wide


@pytest.mark.parametrize("name", ["imported", "a/b/c"])
def test_a_home_that_cannot_be_written_is_named(name, monkeypatch):
    monkeypatch.setenv("FLAN_JAX_HOME", "/proc/nohome")
    with pytest.raises(FlanError, match=r"no such file or directory; .*, or set FLAN_JAX_HOME to another folder\.$"):
        make_folder(home() / name)
    with pytest.raises(FlanError) as caught:
        make_folder(Path("/proc/elsewhere"))
    assert "FLAN_JAX_HOME" not in str(caught.value)


_ASCII = {"PYTHONIOENCODING": "ascii"}
_NO_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # its handler is "surrogateescape"


@pytest.mark.parametrize("more", [_ASCII, _NO_LOCALE], ids=["ascii", "C"])
def test_an_output_without_all_signs_ends_no_command(more):
    code = (
        "from rich.console import Console\nfrom flan_jax.errors import FlanError, one_line_errors\n"
        "with one_line_errors():\n"
        "    Console(markup=False, emoji=False).print('a · ☃')\n    print('é')\n    raise FlanError('no ☃ here.')\n"
    )
    code = code.encode("ascii", "backslashreplace").decode()
    environment = os.environ | more
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "flan_jax: no \\u2603 here.\n")
    assert done.stdout == "a \\xb7 \\u2603\n\\xe9\n"

"""What the programs print on standard error, in processes of their own: TensorFlow is imported once in each."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap

import pytest

from flan_jax import quiet
from flan_jax.quiet import _NOTHING_WRONG


def ran(tmp_path, *command, level=None, **settings):
    """A process that has ended; TensorFlow's level is not set by default."""
    ours = {"TF_CPP_MIN_LOG_LEVEL", *quiet._NO_TPU}  # which other tests of this process may have set
    environment = {k: v for k, v in os.environ.items() if k not in ours}
    environment |= {"FLAN_JAX_HOME": str(tmp_path / "home"), "JAX_PLATFORMS": "cpu", **settings}
    if level is not None:
        environment["TF_CPP_MIN_LOG_LEVEL"] = level
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def stderr_of(tmp_path, *command, level=None, **settings):
    """What a process writes to standard error, and its exit status."""
    done = ran(tmp_path, *command, level=level, **settings)
    return done.stderr, done.returncode


@pytest.mark.parametrize(
    ("line", "silent"),
    [
        (b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n", True),
        (b"I0000 00:00:1.2 17 cudart_stub.cc:31] Could not find cuda drivers on your machine\n", True),
        (b"2025-09-17 14:44:05.157831: I external/cudart_stub.cc:32] Could not find cuda drivers\n", True),
        (b"2025-09-17 14:44:05.157831: E external/cuda_fft.cc:467] Unable to register cuFFT factory: twice\n", True),
        (b"E0000 00:00:1.2 3 cuda_dnn.cc:8579] Unable to register cuDNN factory: twice\n", True),
        (b"W0000 00:00:1.2 3 computation_placer.cc:177] computation placer already registered.\n", True),
        (b"E0000 00:00:1.2 3 file_system.cc:1] Input/output error\n", False),
        (b"F0000 00:00:1.2 3 cpu_feature_guard.cc:1] This machine lacks AVX\n", False),
        (b"Traceback (most recent call last):\n", False),
        (b"ImportError: libstdc++.so.6: version `GLIBCXX_3.4.29' not found\n", False),
        (b"UserWarning: I know what I am saying\n", False),
    ],
)
def test_what_is_held_back(line, silent):
    assert bool(_NOTHING_WRONG.match(line)) == silent


@pytest.mark.slow
def test_importing_tensorflow_is_quiet_and_others_are_heard(tmp_path):
    code = """
        import logging, os, sys, threading
        from flan_jax.quiet import quiet_loggers
        sys.ps1 = ">>> "  # as in a notebook, where TensorFlow would set its logger to INFO
        quiet_loggers()
        threading.Timer(1, lambda: os.write(2, b"from a thread\\n")).start()
        import tensorflow as tf
        import tensorflow as again
        sys.stderr.write("python speaks\\n")
        os.write(2, b"so does the system\\n")
        assert float(tf.reduce_sum(tf.constant([1.0, 2.0]))) == 3 and again is tf
        assert logging.getLogger("tensorflow").level == tf.get_logger().level == logging.ERROR
    """
    heard, status = stderr_of(tmp_path, "-c", textwrap.dedent(code))
    assert status == 0
    assert sorted(heard.splitlines()) == ["from a thread", "python speaks", "so does the system"]


@pytest.mark.slow
def test_who_asks_tensorflow_to_speak_hears_it(tmp_path):
    heard, status = stderr_of(tmp_path, "-c", "import flan_jax, tensorflow", level="0")
    assert status == 0 and "absl::InitializeLog" in heard


def test_a_failing_import_says_all(tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'I0000 what it did before\\n')\nraise ImportError('no such library')\n"
    )
    heard, status = stderr_of(tmp_path, "-c", "import flan_jax, tensorflow", PYTHONPATH=str(tmp_path))
    assert status == 1 and "what it did before" in heard and "ImportError: no such library" in heard


def test_without_standard_error_it_imports(tmp_path):
    (tmp_path / "tensorflow.py").write_text("value = 1\n")
    code = "import os; os.close(2); import flan_jax, tensorflow; raise SystemExit(tensorflow.value + 6)"
    assert stderr_of(tmp_path, "-c", code, PYTHONPATH=str(tmp_path))[1] == 7


COMMANDS = (
    ("prepare", "--data=samples", "--datasets=sst2,rte", "--workers=2", "--to={}/prepared", "--json"),
    ("prepare", "--data=samples", "--datasets=rte", "--check"),
    ("browse", "--dataset=rte", "--count=1"),
    ("export", "--name=rte", "--count=1", "--to={}/out.jsonl"),
)


@pytest.mark.slow
def test_commands_are_quiet_where_nothing_is_wrong(tmp_path):
    """One after the other in a process, each as `python -m` runs it, which imports TensorFlow once; so do workers."""
    code = f"""
import runpy, sys
if __name__ == "__main__":  # workers import this file
    for name, *arguments in {COMMANDS!r}:
        sys.argv[1:] = [argument.format({str(tmp_path)!r}) for argument in arguments]
        sys.modules.pop(f"flan_jax.{{name}}", None)
        runpy.run_module(f"flan_jax.{{name}}", run_name="__main__", alter_sys=True)
        print("flan_jax." + name, "ended", file=sys.stderr)
"""
    (tmp_path / "commands.py").write_text(code)
    done = ran(tmp_path, str(tmp_path / "commands.py"))
    heard, (report,) = done.stderr, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [one["dataset"] for one in report["datasets"]] == ["sst2", "rte"]  # as they were given
    assert done.returncode == 0 and heard.count(" ended\n") == len(COMMANDS), heard
    assert (tmp_path / "prepared").is_dir() and (tmp_path / "out.jsonl").is_file()
    for noise in ("cuda", "absl", "oneDNN", "WARNING", "0000 00:00", "Traceback"):
        assert noise not in heard, heard


# ------------------------------------------------------------------------------------------------------------ libtpu


@pytest.mark.parametrize(
    ("given", "tpu", "told"),
    [
        ({}, False, {"TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_HOSTNAMES": "localhost"}),
        (
            {"TPU_WORKER_HOSTNAMES": "a,b"},
            False,
            {"TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_HOSTNAMES": "a,b"},
        ),
        ({}, True, {}),
        ({"JAX_PLATFORMS": "tpu"}, False, {}),  # who asks for a TPU is told why there is none
        ({"JAX_PLATFORMS": "cpu"}, False, {}),
        ({"TF_CPP_MIN_LOG_LEVEL": "0"}, False, {}),
    ],
)
def test_libtpu_is_told_only_where_there_is_no_tpu(given, tpu, told, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(given))
    monkeypatch.setattr(quiet, "has_tpu", lambda: tpu)
    quiet.quiet_tpu()
    assert {name: value for name, value in os.environ.items() if name.startswith("TPU_")} == told


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.skipif(quiet.has_tpu(), reason="this machine has a TPU")
@pytest.mark.parametrize(("level", "silent"), [(None, True), ("0", False)])
def test_jax_without_a_tpu_is_quiet(level, silent, tmp_path):
    code = "import flan_jax, jax; assert jax.devices()[0].platform != 'tpu'"
    heard, status = stderr_of(tmp_path, "-c", code, level=level, JAX_PLATFORMS="")
    assert status == 0 and ("could not determine TPU" not in heard) == silent, heard


def test_libtpu_is_told_of_a_tpu_where_it_is_asked_for(monkeypatch):
    """A plan for a slice asks it, on any platform; JAX itself does not where the platforms are named."""
    monkeypatch.setattr(os, "environ", {"JAX_PLATFORMS": "cpu"})
    monkeypatch.setattr(quiet, "has_tpu", lambda: False)
    quiet.quiet_tpu()
    assert os.environ == {"JAX_PLATFORMS": "cpu"}
    quiet.describe_tpu()
    assert os.environ == {"JAX_PLATFORMS": "cpu", **quiet._NO_TPU}

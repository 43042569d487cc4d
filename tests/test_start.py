"""A command line answers `--help` and refuses a wrong option before anything heavy is imported."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flan_jax
import flan_jax.launch

PACKAGE, LAUNCH = Path(flan_jax.__file__).parent, Path(flan_jax.launch.__file__).parent
BINARIES = sorted(
    [f"flan_jax.{path.stem}" for path in PACKAGE.glob("*.py") if "\ndef main(" in path.read_text()]
    + [f"flan_jax.{path.parent.name}" for path in PACKAGE.glob("*/__main__.py")]
    + [f"flan_jax.launch.{path.stem}" for path in LAUNCH.glob("*.py") if "\ndef main(" in path.read_text()]
)
HEAVY = ("tensorflow", "tensorflow_datasets", "seqio", "apache_beam", "jax", "jaxlib", "flax", "optax", "orbax")
HEAVY += ("tensorstore", "torch", "transformers", "matplotlib", "sklearn", "scipy", "nltk", "sacrebleu", "datasets")
SECONDS = 3.0  # of CPU: on an idle machine none takes more than 0.4

# Runs a module as a program, and says what it printed, imported and took.
PROGRAM = """
import contextlib, io, json, resource, runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
out, err, code = io.StringIO(), io.StringIO(), 0
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = {name.partition(".")[0] for name in sys.modules} & set(%r)
print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue(), "heavy": sorted(heavy),
                  "seconds": used.ru_utime + used.ru_stime}))
"""


def start(module, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM % (HEAVY,), module, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_data_that_is_not_there_is_said_before_tensorflow_starts():
    found = start("flan_jax.prepare", "--data=nowhere", "--to=prepared", "--datasets=rte")
    assert (found["code"], found["err"].count("no folder nowhere: ")) == (2, 1)
    assert "tensorflow" not in found["heavy"] and found["seconds"] < 2 * SECONDS


def test_the_help_of_a_command_whose_extra_is_missing(monkeypatch, capsys):
    from flan_jax.lm_eval import __main__ as binary

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    binary.main(["--help"])
    shown = capsys.readouterr().out
    assert "lm-evaluation-harness with" in shown and "lm_eval is not installed" in shown and "pip install" in shown
    with pytest.raises(SystemExit):
        binary.main(["ls", "tasks"])
    assert capsys.readouterr().err.startswith("flan_jax: lm_eval is not installed: pip install")


@pytest.fixture(params=BINARIES)
def binary(request):
    # tests/lm_eval is a package of that name too, which has no evaluator.
    if request.param == "flan_jax.lm_eval" and importlib.util.find_spec("lm_eval.evaluator") is None:
        pytest.skip("lm_eval is not installed")
    return request.param


def test_no_import_starts_devices():
    """A pod is joined before JAX looks for devices; whatever asks it for an array at import would break that."""
    program = """
import pkgutil, importlib, flan_jax
for module in pkgutil.walk_packages(flan_jax.__path__, "flan_jax."):
    if not any(name in module.name for name in ("__main__", "lm_eval", "xm_launch", "beam")):
        importlib.import_module(module.name)
from jax._src import xla_bridge
assert not xla_bridge._backends
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1500:]


def test_the_catalog_needs_no_numpy():
    """A launcher's environment has none, and asks for the names of clusters and datasets."""
    program = "import sys; sys.modules['numpy'] = None; from flan_jax import catalog; assert catalog.datasets('nli')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1500:]


def test_all_binaries_are_here():
    named = {"prepare", "train", "eval", "infer", "browse", "convert", "precompile", "report", "contamination"}
    named |= {"verify", "export", "quickstart", "lm_eval", "launch.local_pod", "launch.tpu_vm", "launch.xm_launch"}
    named |= {"launch.sweep", "launch.gke"}
    assert {f"flan_jax.{name}" for name in named} <= set(BINARIES)


def test_help_imports_nothing_heavy(binary):
    found = start(binary, "--help")
    assert (found["code"], found["heavy"], found["err"]) == (0, [], ""), found
    assert "usage:" in found["out"] and found["seconds"] < SECONDS
    said = [part for part in re.split(r"\n\s*\n", found["out"]) if not part.startswith("usage:")]
    assert "\n" not in said[0] and len(said[0]) <= 120 and said[0].endswith("."), said[0]
    command = re.escape("flan-jax COMMAND" if binary == "flan_jax.__main__" else f"python -m {binary}")
    assert any(re.search(rf"{command}\b", part) for part in said), "no example"


@pytest.mark.parametrize("options", [["--no_such_option=1"], ["--process_id=many"]])
def test_wrong_options_are_refused_before_anything_heavy_is_imported(binary, options):
    found = start(binary, *options)
    assert (found["code"], found["heavy"]) == (2, []), found
    assert found["seconds"] < SECONDS
    if binary != "flan_jax.lm_eval":  # whose options are another program's
        assert found["err"].startswith("flan_jax: ") and found["err"].count("\n") == 1


def test_the_catalog_is_shown_without_tensorflow():
    found = start("flan_jax.browse")
    assert (found["code"], found["heavy"]) == (0, []) and "flan_without_nli" in found["out"]

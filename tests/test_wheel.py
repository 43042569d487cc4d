"""The wheel: it holds every file that the programs read, and runs elsewhere, in an environment without the checkout."""

import json
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import flan_jax

ROOT = Path(__file__).parents[1]
MOVED = {"tasks": "flan_jax/tasks", "gin": "flan_jax/gin", "launch": "flan_jax/launch", "flan_jax": "flan_jax"}

# Run in the folder of a user; what it prints is looked at here.
PROGRAM = """
import json
import flan_jax
from flan_jax import catalog, configuration, parts
from flan_jax.launch import tpu_package
print(json.dumps({
    "file": flan_jax.__file__,
    "layers": configuration.model_config("gemma3_270m").num_layers,
    "datasets": len(catalog.datasets()),
    "models": len(configuration.model_names()),
    "parts": len(parts.of("flan_without_nli").parts),
    "script": tpu_package.SCRIPT.is_file(),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, since setuptools leaves files in the folder that it builds, and takes old ones."""
    copy, to = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    for name in MOVED:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])", str(to)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = to.glob("*.whl")
    return found


def test_all_files_are_in_the_wheel(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"{to}/{path.relative_to(ROOT / folder)}"
        for folder, to in MOVED.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    missing = sorted(wanted - inside)
    assert len(wanted) > 400 and not missing
    others = {name for name in inside - wanted if ".dist-info/" not in name}
    assert not others, "of no file of the checkout"


def test_what_the_wheel_says_of_itself(wheel):
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA"))
    said = zipfile.ZipFile(wheel).read(name).decode().partition("\n\n")[0].splitlines()
    assert f"Version: {flan_jax.__version__}" in said
    extras = {line.partition(": ")[2] for line in said if line.startswith("Provides-Extra")}
    assert {"gcs", "tpu", "cuda", "lm-eval", "test", "quickstart"} <= {extra.replace("_", "-") for extra in extras}


@pytest.mark.slow
def test_it_runs_elsewhere(wheel, tmp_path):
    """With the libraries of this environment; the way to the checkout is in a .pth file of it that is not read."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    libraries = [path for path in sys.path if Path(path).name == "site-packages"] or site.getsitepackages()
    (packages / "libraries.pth").write_text("".join(f"{path}\n" for path in libraries))
    python, here = tmp_path / "venv" / "bin" / "python", tmp_path / "here"
    here.mkdir()
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*install, "--no-compile", str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}

    def ran(*command):
        done = subprocess.run(
            [python.parent / command[0], *command[1:]],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 and not done.stderr, done.stderr[-2000:]
        return done.stdout

    found = json.loads(ran("python", "-c", PROGRAM))
    assert Path(found.pop("file")).is_relative_to(packages)
    assert found.pop("datasets") >= 62 and found.pop("models") > 40 and found.pop("parts") > 40
    assert found == {"layers": 18, "script": True}
    assert ran("flan-jax", "--version") == f"flan-jax {flan_jax.__version__}\n"
    assert "flan_without_nli" in ran("flan-jax", "browse")
    assert not list(here.iterdir())


def test_one_version():
    assert f"## {flan_jax.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {flan_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")

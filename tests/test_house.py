"""The order of the rooms: each imports only from floors below its own. The table is the documentation."""

import ast
from pathlib import Path

import pytest

import flan_jax
import flan_jax.tasks

FLOORS = (
    {"errors"},
    {"files", "quiet", "revision"},
    {"json_lines"},
    {"values", "content"},
    {"options"},
    {"templates", "metrics", "partitioning", "distributed"},
    {"catalog", "models"},
    {"tasks", "template_lint", "styles"},
    {"protocol"},
    {"ways"},
    {"macros"},
    {"data", "configuration"},
    {"checkpoint", "overlap", "mixtures"},
    {"training", "formats", "scoring"},
    {"decoding", "compilation"},
    {"evaluation", "lm_eval", "inspection"},
    {"reporting", "studies", "verification"},
    # The binaries, thin.
    {"prepare", "train", "eval", "infer", "browse", "convert", "precompile", "report", "contamination", "audit"}
    | {"verify", "export", "study", "quickstart", "launch"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PACKAGE, TASKS = Path(flan_jax.__file__).parent, Path(flan_jax.tasks.__file__).parent
FILES = {path: path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
FILES |= {path: "tasks" for path in TASKS.rglob("*.py")}
FILES.pop(PACKAGE / "__init__.py", None)


def rooms_named(source: str) -> set[str]:
    """The rooms of this package that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            modules = [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            modules = [name.name for name in node.names]
        else:
            continue
        found |= {parts[1] for module in modules if (parts := module.split("."))[0] == "flan_jax" and len(parts) > 1}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{FILES[path]}/{path.name}")
def test_arrows_point_down(path):
    room = FILES[path]
    assert room in FLOOR, f"{room} stands on no floor: add it to FLOORS"
    upward = {other for other in rooms_named(path.read_text()) - {room} if FLOOR.get(other, 99) >= FLOOR[room]}
    assert not upward, f"{room} (floor {FLOOR[room]}) imports {upward}"


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import flan_jax.tasks", {"tasks"}),
        ("from flan_jax import catalog, models", {"catalog", "models"}),
        ("from flan_jax.data.stream import Stream", {"data"}),
        ("def f():\n    from flan_jax.training import loop", {"training"}),
        ("import numpy\nfrom lm_eval import models", set()),
    ],
)
def test_imports_are_found(source, rooms):
    assert rooms_named(source) == rooms


def test_tests_do_not_import_their_folder():
    """`pytest` puts tests/ on the path, not what it lies in; only `python -m pytest` in this folder does."""
    tests = Path(__file__).parent
    importing = [path for path in tests.rglob("*.py") if "tests" in modules_of(path.read_text())]
    assert not importing, "import helpers by their own name, as `from tokenizers_by_kind import CUT`"


def modules_of(source: str) -> set[str]:
    """First names of the modules that a file imports."""
    nodes = list(ast.walk(ast.parse(source)))
    named = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in named}

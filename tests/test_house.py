"""The order of the rooms: each imports only from floors below its own. The table is the documentation."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import flan_jax
import flan_jax.tasks

FLOORS = (
    {"lazy", "output"},
    {"errors"},
    {"files", "quiet", "revision", "wording", "chips"},
    {"json_lines", "own_tasks"},
    {"values", "content", "own_data"},
    {"options"},
    {"templates", "metrics", "splits", "partitioning", "distributed"},
    {"catalog", "models"},
    {"tasks", "template_lint", "styles"},
    {"protocol"},
    {"ways", "parts"},
    {"macro_kinds"},
    {"macros"},
    {"macro_checks"},
    {"gin_files"},
    {"data", "configuration"},
    {"checkpoint", "mixtures"},
    {"overlap"},
    {"training", "formats", "scoring"},
    {"decoding", "compilation"},
    {"evaluation", "lm_eval", "inspection"},
    {"reporting", "verification"},
    {"studies"},
    # The binaries, thin.
    {"prepare", "train", "eval", "infer", "browse", "convert", "precompile", "report", "contamination", "audit"}
    | {"verify", "export", "launch"},
    # Those that start the others.
    {"study"},
    {"quickstart"},
)
MAX_SMALL = 3  # up to here a number is its own reason
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PACKAGE, TASKS = Path(flan_jax.__file__).parent, Path(flan_jax.tasks.__file__).parent
FLOOR["__main__"] = len(FLOORS)  # which starts the others by name
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


def _numbers(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(name, number) of every argument, field and option of a command that has a number by default."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            asked = [*node.args.posonlyargs, *node.args.args]
            defaults = zip(asked[len(asked) - len(node.args.defaults) :], node.args.defaults, strict=True)
            both = [*defaults, *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
            found = [(argument.arg, value) for argument, value in both]
        elif isinstance(node, ast.ClassDef):
            found = [(line.target.id, line.value) for line in node.body if isinstance(line, ast.AnnAssign)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            found = [(node.args[0].value.lstrip("-"), k.value) for k in node.keywords if k.arg == "default"]
        else:
            continue
        for name, value in found:
            if isinstance(value, ast.Constant) and isinstance(value.value, int | float) and value.value > MAX_SMALL:
                yield name, repr(value.value)


def test_no_number_is_a_default_in_two_modules():
    """One of them would be changed, and the other not: a constant of the lower room stands in both."""
    where: dict[tuple[str, str], set[str]] = {}
    for path in FILES:
        for found in _numbers(ast.parse(path.read_text())):
            where.setdefault(found, set()).add(f"{FILES[path]}/{path.name}")
    assert not {found: sorted(paths) for found, paths in where.items() if len(paths) > 1}

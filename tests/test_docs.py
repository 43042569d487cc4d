"""README and the pages under docs/: short enough, and the commands that they name exist."""

import ast
import re
from pathlib import Path

import pytest

import flan_jax

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GIN = {"--gin_file", "--gin", "--help"}

PAGES += [ROOT / name for name in ("AGENTS.md", "CHANGELOG.md", "CONTRIBUTING.md")]


def test_readme_is_a_page_and_a_half():
    assert len((ROOT / "README.md").read_text(encoding="utf-8")) <= 9_000


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_their_options_exist(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    package = Path(flan_jax.__file__).parent
    for module, rest in re.findall(r"(?:python -m flan_jax\.|flan-jax (?=[a-z]))([\w.]+)([^\n`|]*)", text):
        name = module.rstrip(".").replace(".", "/")
        roots = (package, ROOT)  # launch/ lies beside the package in a checkout
        files = [f for r in roots for f in (r / f"{name}.py", r / name / "__main__.py") if f.is_file()]
        assert files, f"{page.name}: there is no {module}"
        known = files[0].read_text(encoding="utf-8") + (package / "distributed.py").read_text(encoding="utf-8")
        if module.startswith("launch."):  # which share the options of sweeps
            known += (ROOT / "launch" / "sweep.py").read_text(encoding="utf-8")
        for option in re.findall(r"(?<=\s)--[a-z_]+", rest.partition(" -- ")[0].partition(" #")[0]):
            if module != "lm_eval":  # whose options are the harness's
                assert option in GIN or f'"{option}"' in known, f"{page.name}: {module} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_tables_have_heads(page):
    """A blank line within a table makes text of its rest."""
    lines = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL).splitlines()
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        if line.startswith("|") and not before.startswith("|"):
            assert re.fullmatch(r"\|[\s:|-]+\|", after), f"{page.name}: {line}"


def _extras():
    """The extras of setup.py, which calls `setup` with what it holds."""
    (call,) = (
        node.value
        for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )
    (given,) = (word.value for word in call.keywords if word.arg == "extras_require")
    return set(ast.literal_eval(given))


def test_extras_are_on_the_pages_and_those_on_the_pages_exist():
    known, shown = _extras(), set()
    for path in [*PAGES, *(ROOT / "flan_jax").rglob("*.py"), *(ROOT / "launch").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        named = [n for listed in re.findall(r"pip install [^\n`]*?\.\[([\w,]+)\]", text) for n in listed.split(",")]
        named += re.findall(r"\bextra `(\w+)`", text)
        assert set(named) <= known, f"{path.relative_to(ROOT)} names an extra that setup.py does not have"
        if path in PAGES:
            shown |= set(named)
    assert shown | {"xmanager"} == known, "each is told of on a page; docs/launching.md installs XManager by its lock"

"""What a user has written is shown as it is: rich would take [red] and :smile: in it for styles and pictures."""

import ast
from pathlib import Path

import pytest

import flan_jax
import flan_jax.launch

FOLDERS = (Path(flan_jax.__file__).parent, Path(next(iter(flan_jax.launch.__path__))))
FILES = sorted({path for folder in FOLDERS for path in folder.rglob("*.py")})
# Calls whose texts would be read so, and what keeps them from it.
AS_IT_IS = {"Console": {"markup": False, "emoji": False}, "TextColumn": {"markup": False}}


def unsafe(source: str) -> list[str]:
    """Calls of rich in a file that would read markup in a user's text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        wanted = AS_IT_IS.get(name, {})
        constants = {key: value.value for key, value in given.items() if isinstance(value, ast.Constant)}
        if any(constants.get(key, True) != value for key, value in wanted.items()):
            found.append(f"line {node.lineno}: {name} without {wanted}")
        if name == "Panel":  # whatever its console is like
            titles = [given[key] for key in ("title", "subtitle") if key in given]
            if not all(isinstance(one, ast.Call) and getattr(one.func, "id", "") == "Text" for one in titles):
                found.append(f"line {node.lineno}: the title of a Panel is a Text")
        if name in ("from_markup", "rprint"):
            found.append(f"line {node.lineno}: {name}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_text_of_a_user_is_read_as_markup(path):
    source = path.read_text(encoding="utf-8")
    assert "rich" not in source or not unsafe(source)


@pytest.mark.parametrize(
    "source",
    [
        "Console()",
        "Console(markup=False)",
        "rich.console.Console(emoji=False, markup=True)",
        "progress.TextColumn('{task.description}')",
        "Panel(text, title=name)",
        "Panel(text, title=f'{name}')",
        "Panel(text, title=Text(name), subtitle=name)",
        "Text.from_markup(name)",
    ],
)
def test_unsafe_calls_are_found(source):
    assert unsafe(source)

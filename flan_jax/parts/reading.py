"""Reads what a user gives for a mixture: a name, a file, or a dictionary as text."""

from __future__ import annotations

import ast
import codecs
from typing import Any

from flan_jax import values
from flan_jax.errors import FlanError, cannot
from flan_jax.files import user_path
from flan_jax.json_lines import parse_json

_SUFFIX = ".json"  # of files with a mixture


def read(text: str) -> dict[str, Any]:
    """The dictionary that a text stands for: a name, a file, or a dictionary written as text.

    Raises:
      FlanError: a file that cannot be read, or a text that is no dictionary.
    """
    if text.lstrip().startswith("{"):
        found, where = _literal(text), "the mixture"
    elif text.endswith(_SUFFIX):
        path, where = user_path(text), text
        try:
            found = parse_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
        except OSError as error:
            raise cannot("read the mixture", text, error) from error
        except ValueError as error:
            raise FlanError(f"mixture {text}: {' '.join(str(error).split())}; mend it.") from error
    else:
        return {"mixture": text}
    if not isinstance(found, dict):
        raise FlanError(f"{where} is {values.shown(found)}: it has to be a dictionary with 'mixture' or 'parts'.")
    return found


def _literal(text: str) -> Any:
    """Reads a dictionary that is written as JSON or as Python."""
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        pass
    try:
        tree = ast.parse(text.strip(), mode="eval")
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.Dict)):
            keys = [ast.literal_eval(key) for key in node.keys if key is not None]
            if twice := [key for number, key in enumerate(keys) if key in keys[:number]]:
                raise FlanError(f"mixture {values.shown(text)} has {twice[0]!r} twice: leave one out.")
        return ast.literal_eval(tree)
    except FlanError:
        raise
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise FlanError(f"mixture {values.shown(text)} is no dictionary: write it as JSON.") from error

"""Files of an evaluation: written whole or not at all, and predictions line by line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a predictions file; the first is its header."""
    with path.open(encoding="utf-8") as file:  # str.splitlines would also cut at U+2028 and U+0085 inside a text
        return [json.loads(line) for line in file]


def write_atomic(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

"""Files that are written whole or not at all, lines of JSON, and the folder that FLAN-JAX keeps for itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def home() -> Path:
    """Where FLAN-JAX keeps what it makes for itself: $FLAN_JAX_HOME, or ~/.cache/flan_jax."""
    return Path(os.environ.get("FLAN_JAX_HOME", Path.home() / ".cache" / "flan_jax"))


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

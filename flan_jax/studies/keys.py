"""Digests in the names of a study's folders and steps."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from flan_jax.files import AnyPath

_DIGITS = 8


def digest(value: Any) -> str:
    """Of anything that JSON can say: the same for dictionaries that differ in order alone.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def model_key(folder: AnyPath) -> str:
    """What folders of a checkpoint's tokens are called, and what names of its trainings are made from."""
    return f"{folder.name}-{digest(str(folder.absolute()))}"

"""Checks that a figure is measured on the same dev examples in all starts of a run. Otherwise steps cannot be compared.

    MODEL_DIR/eval/figures.json: {figure: {"digest", "changed_at": a step, or null}}

A later start may name other datasets, more examples or another style. Each figure is then still right, but a curve has
a bend, and the best step of such a figure means nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from flan_jax.evaluation.prompt_store import Records
from flan_jax.evaluation.units import rows_digest
from flan_jax.files import AnyPath, write_atomic

FILE = "figures.json"


def digest(records: Iterable[Records]) -> str:
    """Identifies the dev examples and the text that is made of them."""
    parts = [
        [one.builder.protocol.digest, one.builder.digest, [rows_digest(rows) for _, rows in one.splits]]
        for one in records
    ]
    return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()[:16]


def changed(folder: AnyPath, digests: Mapping[str, str], first_step: int) -> dict[str, int]:
    """The figures that were measured on other examples before.

    Args:
      folder: MODEL_DIR/eval.
      digests: digests of this start's figures.
      first_step: steps taken before this start.

    Returns:
      {figure: the step from which on it is measured on these examples}.
    """
    before, found = _read(folder / FILE) if first_step else {}, {}
    for name, own in digests.items():
        earlier = before.get(name, {})
        if earlier and earlier.get("digest") != own:
            found[name] = first_step
        elif isinstance(earlier.get("changed_at"), int):
            found[name] = earlier["changed_at"]
    return found


def keep(folder: AnyPath, digests: Mapping[str, str], changes: Mapping[str, int], first_step: int) -> None:
    """Writes what later starts compare with. One process calls it when a start has its first figures.

    Args:
      folder: MODEL_DIR/eval.
      digests: digests of this start's figures.
      changes: the result of `changed`.
      first_step: steps taken before this start.
    """
    before = _read(folder / FILE) if first_step else {}
    now = {name: {"digest": own, "changed_at": changes.get(name)} for name, own in digests.items()}
    write_atomic(folder / FILE, json.dumps(before | now, indent=1) + "\n")


def _read(path: AnyPath) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):  # if it cannot be written either, that is reported then
        return {}
    return {name: one for name, one in found.items() if isinstance(one, dict)} if isinstance(found, dict) else {}

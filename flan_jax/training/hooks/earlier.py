"""What earlier starts of a run have written of its steps, from metrics.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from flan_jax.training.hooks.context import Context


def steps(context: Context) -> Iterator[tuple[int, dict[str, Any]]]:
    """(step, figures) of the steps that the state of this start has taken; every process may ask."""
    path = context.folder / "metrics.jsonl"
    if not context.first_step or not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found = json.loads(line)
            step = found["step"]
        except (ValueError, TypeError, KeyError):  # the last line of a killed run may be half-written
            continue
        if isinstance(step, int) and step <= context.first_step:
            yield step, found


def figure(figures: Mapping[str, Any], name: str) -> float | None:
    """A figure by its name, "outer/inner" where it is one of several; None where there is none, or it is not finite."""
    outer, _, inner = name.partition("/")
    found = figures.get(name, figures.get(outer))
    if inner and isinstance(found, Mapping):
        found = found.get(inner)
    number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    return float(found) if number else None


def names(figures: Mapping[str, Any]) -> list[str]:
    """The names of all figures, as `figure` takes them."""
    inner = ([f"{name}/{key}" for key in x] if isinstance(x, Mapping) else [name] for name, x in figures.items())
    return [name for part in inner for name in part]

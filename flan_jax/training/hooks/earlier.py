"""Reads from metrics.jsonl what earlier starts of a run have written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from flan_jax.training.hooks.context import Context

_BLOCK = 1 << 16  # bytes of the log that are read at a time


def figures_of(context: Context, steps: Iterable[int]) -> dict[int, dict[str, Any]]:
    """The figures of earlier steps, by step. Steps without a line in the log are left out.

    Lines are in the order of their steps, so each is found without reading the whole log. Every process may call this.
    """
    path = context.folder / "metrics.jsonl"
    found: dict[int, Any] = {}
    wanted = sorted(step for step in steps if step <= context.first_step)
    if not wanted or not path.exists():
        return found
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        for step in wanted:
            if (figures := _line_of(file, end, step)) is not None:
                found[step] = figures
    return found


def _line_of(file: BinaryIO, end: int, step: int) -> dict[str, Any] | None:
    least, most = 0, end  # the line begins between these
    while least < most:
        middle = (least + most) // 2
        file.seek(max(middle - 1, 0))
        if middle:
            file.readline()  # skip the rest of the line before
        start = file.tell()
        number, figures = _parsed(file.readline()) if start < most else (None, None)
        if number == step:
            return figures
        if number is not None and number < step:
            least = file.tell()
        else:  # an unreadable line is the last one, of a killed run
            most = middle
    return None


def _parsed(line: bytes) -> tuple[int | None, dict[str, Any] | None]:
    try:
        figures = json.loads(line)
        return int(figures["step"]), figures
    except (ValueError, TypeError, KeyError):
        return None, None


def last_values(context: Context, name: str, count: int) -> list[float]:
    """A figure at the last steps before this start, earliest first. Steps without the figure are left out.

    Args:
      context: this start.
      name: the figure's name, see `figure`.
      count: how many steps.
    """
    path = context.folder / "metrics.jsonl"
    found: list[Any] = []
    if not context.first_step or not path.exists():
        return found
    with path.open("rb") as file:
        for _, line in lines_from_the_end(file):
            step, figures = _parsed(line)
            if step is not None and step <= context.first_step - count:
                break
            if step is not None and step <= context.first_step and (value := figure(figures, name)) is not None:
                found.append(value)
    return found[::-1]


def lines_from_the_end(file: Any) -> Iterator[tuple[int, bytes]]:
    """Yields (where it starts, the line with its end) for each line of a file, the last one first."""
    place, rest = file.seek(0, os.SEEK_END), b""
    while place > 0:
        size = min(_BLOCK, place)
        place = file.seek(place - size)
        block = file.read(size) + rest
        first, *lines = block.splitlines(keepends=True)
        end = place + len(block)
        for line in reversed(lines):
            end -= len(line)
            yield end, line
        rest = first
    if rest:
        yield 0, rest


def figure(figures: Mapping[str, Any], name: str) -> float | None:
    """A figure by its name, "outer/inner" for one of several; None if it is missing or not finite.

    Example:
      >>> figure({"cluster_loss": {"nli": 0.5}}, "cluster_loss/nli")
      0.5
    """
    outer, _, inner = name.partition("/")
    several = figures.get(outer)
    found = several.get(inner) if isinstance(several, Mapping) else figures.get(name)
    number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    return float(found) if number else None


def names(figures: Mapping[str, Any]) -> list[str]:
    """The names of all figures, in the form that `figure` takes."""
    inner = ([f"{name}/{key}" for key in x] if isinstance(x, Mapping) else [name] for name, x in figures.items())
    return [name for part in inner for name in part]

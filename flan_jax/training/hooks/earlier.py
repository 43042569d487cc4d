"""What earlier starts of a run have written of some steps, from metrics.jsonl."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from flan_jax.training.hooks.context import Context

_BLOCK = 1 << 16  # bytes of the log that are read at once


def figures_of(context: Context, steps: Iterable[int]) -> dict[int, dict[str, Any]]:
    """The figures of some steps that this start goes on from; those that are not there are left out.

    Lines stand in the order of their steps, so that each is found without reading a long log. Every process may ask.
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
    least, most = 0, end  # the line begins in between
    while least < most:
        middle = (least + most) // 2
        file.seek(max(middle - 1, 0))
        if middle:
            file.readline()  # the rest of the line before, or its end alone
        start = file.tell()
        number, figures = _parsed(file.readline()) if start < most else (None, None)
        if number == step:
            return figures
        if number is not None and number < step:
            least = file.tell()
        else:  # what cannot be read is at the end: of a killed run
            most = middle
    return None


def _parsed(line: bytes) -> tuple[int | None, dict[str, Any] | None]:
    try:
        figures = json.loads(line)
        return int(figures["step"]), figures
    except (ValueError, TypeError, KeyError):
        return None, None


def last_values(context: Context, name: str, count: int) -> list[float]:
    """A figure of the last steps that this start goes on from, the earliest first; of a few steps it may be missing.

    Args:
      context: of the start.
      name: as `figure` takes it.
      count: steps.
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
    """(where it starts, line with its end) of each line of a file, the last first."""
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
    """A figure by its name, "outer/inner" where it is one of several; None where there is none, or it is not finite."""
    outer, _, inner = name.partition("/")
    several = figures.get(outer)
    found = several.get(inner) if isinstance(several, Mapping) else figures.get(name)
    number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    return float(found) if number else None


def names(figures: Mapping[str, Any]) -> list[str]:
    """The names of all figures, as `figure` takes them."""
    inner = ([f"{name}/{key}" for key in x] if isinstance(x, Mapping) else [name] for name, x in figures.items())
    return [name for part in inner for name in part]

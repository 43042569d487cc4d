"""Collectives in a compiled program's text, each counted as often as its loop runs."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{}]*\})\}")
_PAIRS = re.compile(r"source_target_pairs=\{(\{[\d,{}]*\})\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program.

    Attributes:
      kind: one of `KINDS`.
      size: bytes on one device of the whole array: what a gather returns, what a reduction takes in.
      groups: device numbers that take part together, [groups, members]; of a permutation (from, to) pairs.
      count: how often a step runs it.
      name: of the instruction.
    """

    kind: str
    size: float
    groups: np.ndarray
    count: int
    name: str


def collectives(text: str) -> list[Collective]:
    """The collectives of an optimized HLO module, with the trip counts of the loops around them.

    A branch of a conditional counts as if it were always taken; a loop without a known trip count counts once.
    """
    entry, computations = _computations(text)
    calls = _call_counts(entry, computations)
    found = []
    for name, lines in computations.items():
        if calls[name]:
            found += [_collective(line, calls[name]) for line in lines if _kind(line[2])]
    return found


def _kind(operation: str) -> str | None:
    operation = operation.removesuffix("-start")
    return operation if operation in KINDS else None


def _computations(text: str) -> tuple[str, dict[str, list[tuple[str, str, str, str]]]]:
    """The entry's name, and each computation's instructions as (name, shape, operation, the rest)."""
    entry, current, found = "", "", {}
    for line in text.splitlines():
        if start := _COMPUTATION.match(line):
            current = start[1]
            found[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif current and (match := _INSTRUCTION.match(line)):
            found[current].append(match.groups())
    return entry, found


def _called(rest: str) -> Iterator[str]:
    yield from _CALLED.findall(rest)
    for names in _BRANCHES.findall(rest):
        yield from (name.strip().lstrip("%") for name in names.split(","))


def _call_counts(entry: str, computations: dict[str, list[tuple[str, str, str, str]]]) -> dict[str, int]:
    """How often a step runs each computation."""
    counts: dict[str, int] = collections.defaultdict(int)

    def visit(name: str, times: int) -> None:
        counts[name] += times
        for _, _, operation, rest in computations.get(name, ()):
            trips = int(found[1]) if operation == "while" and (found := _TRIPS.search(rest)) else 1
            for called in _called(rest):
                if called in computations:
                    visit(called, times * trips)

    visit(entry, 1)
    return counts


def _collective(line: tuple[str, str, str, str], count: int) -> Collective:
    name, shape, operation, rest = line
    kind = _kind(operation)
    groups = _groups(rest)
    arrays = [_array_bytes(*match) for match in _SHAPE.findall(shape)]
    # An asynchronous start returns its operands too, and sometimes flags; the array that matters is the larger part.
    if operation.endswith("-start") and kind in ("all-gather", "collective-permute") and len(arrays) > 1:
        size = max(arrays) if kind == "collective-permute" else sum(arrays) * groups.shape[1] / (groups.shape[1] + 1)
    else:
        size = sum(arrays)
    if kind == "reduce-scatter":
        size *= groups.shape[1]
    return Collective(kind, size, groups, count, name)


def _array_bytes(dtype: str, dims: str) -> float:
    width = _BYTES.get(dtype) or int(re.sub(r"\D.*", "", dtype.lstrip("abcdefghijklmnopqrstuvwxyz")) or 32) / 8
    return float(np.prod([int(d) for d in dims.split(",") if d], initial=1)) * width


def _groups(rest: str) -> np.ndarray:
    if found := _IOTA.search(rest):
        shape, dims, order = ([int(n) for n in (part or "").split(",") if n] for part in found.groups())
        numbers = np.arange(np.prod(dims)).reshape(dims)
        return (numbers.transpose(order) if order else numbers).reshape(shape)
    if found := _LISTED.search(rest) or _PAIRS.search(rest):
        return np.array([[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", found[1])])
    return np.zeros((1, 1), int)

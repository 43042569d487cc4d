"""Finds the collectives in a compiled program's text, and counts each as often as its loop runs."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flan_jax.errors import FlanError

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

# The TPU's compiler writes a reduce-scatter as a fusion with this name, of an all-reduce and a slice.
_SCATTERED = "all-reduce-scatter"
# Parts of asynchronous collectives: beside other work, and the last part.
_STEP, _DONE = "async_collective_fusion", 'custom_call_target="AsyncCollectiveDone"'
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONSTANT = re.compile(r"(\d+)\)")
_INDEX = re.compile(r"index=(\d+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_UNKNOWN = 2**63 - 1  # cycles of what the compiler hands to a SparseCore
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{}]*\})\}")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_PAIRS = re.compile(r"source_target_pairs=\{(\{[\d,{}]*\})\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program.

    Attributes:
      kind: one of `KINDS`.
      size: bytes on one device of the whole array: the result of a gather, the input of a reduction.
      groups: numbers of the devices that take part together, [groups, members]; for a permutation (from, to) pairs.
      count: how often a step runs it.
      name: the name of the instruction.
    """

    kind: str
    size: float
    groups: np.ndarray
    count: int
    name: str


def collectives(text: str) -> list[Collective]:
    """The collectives of an optimized HLO module, with the trip counts of the loops around them.

    A branch of a conditional counts as if it were always taken. A loop without a known trip count counts once. If the
    compiler spreads a collective over fusions with other work, its start counts.
    """
    entry, computations = _computations(text)
    calls = _call_counts(entry, computations)
    partitions = re.search(r"num_partitions=(\d+)", text.partition("\n\n")[0])
    devices = int(partitions[1]) if partitions else 1
    found = []
    for name, lines in computations.items():
        for line in lines if calls[name] and not _continues(name, lines) else ():
            if _kind(line[2]):
                collective = _collective(line, calls[name], devices)
                if name.startswith(_SCATTERED):  # whatever is reduced there has been padded; its input has not
                    size = max(_total_bytes(shape) for _, shape, operation, _ in lines if operation == "parameter")
                    collective = dataclasses.replace(collective, kind="reduce-scatter", size=size)
                found.append(collective)
    return found


def cycles(text: str) -> float:
    """The TPU compiler's estimates of all instructions' cycles, with the trip counts of the loops around them.

    A core runs its instructions one after another, so the sum is its computation. Collectives have no estimates, and
    neither has what SparseCores do meanwhile.
    """
    entry, computations = _computations(text)
    calls = _call_counts(entry, computations)
    return sum(
        calls[name]
        * sum(n for *_, rest in lines if (found := _CYCLES.search(rest)) and (n := int(found[1])) < _UNKNOWN)
        for name, lines in computations.items()
    )


def _continues(name: str, lines: Sequence[tuple[str, str, str, str]]) -> bool:
    """Whether a computation is a later part of an asynchronous collective, which is repeated in each part."""
    return name.startswith(_STEP) or any(_DONE in rest for *_, rest in lines)


def _kind(operation: str) -> str | None:
    operation = operation.removesuffix("-start")
    return operation if operation in KINDS else None


def _computations(text: str) -> tuple[str, dict[str, list[tuple[str, str, str, str]]]]:
    """The entry's name, and each computation's instructions as (name, shape, operation, the rest)."""
    entry, current = "", ""
    found: dict[str, Any] = {}
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
            trips = _trips(rest, computations) if operation == "while" else 1
            for called in _called(rest):
                if called in computations:
                    visit(called, times * trips)

    visit(entry, 1)
    return counts


def _trips(rest: str, computations: dict[str, list[tuple[str, str, str, str]]]) -> int:
    """How often a loop runs: by its annotation, or by its condition, if that compares a counter from 0 with a limit.

    The compiler unrolls loops in which it overlaps a product with the gathering of its operand. Their counter grows by
    more than one.
    """
    if found := _TRIPS.search(rest):
        return int(found[1])
    condition = computations.get(re.search(r"condition=%?([\w.\-]+)", rest)[1], ())
    limits = _constants(condition)
    counters = {
        name: int(index[1])
        for name, _, operation, text in condition
        if operation == "get-tuple-element" and (index := _INDEX.search(text))
    }
    for _, _, operation, text in condition:
        if operation == "compare" and "direction=LT" in text:
            names = _operands(text)
            for limit in (limits[name] for name in names if name in limits):
                steps = [_step(rest, computations, counters[name]) for name in names if name in counters]
                return -(-limit // max([1, *steps]))
    return 1


def _step(rest: str, computations: dict[str, list[tuple[str, str, str, str]]], index: int) -> int:
    """How much one turn of a loop adds to the integer at this place of its state."""
    body = computations.get(re.search(r"body=%?([\w.\-]+)", rest)[1], ())
    constants, lines = _constants(body), {name: (operation, text) for name, _, operation, text in body}

    def added(name: str) -> int:
        operation, text = lines.get(name, ("", ""))
        if operation in ("add", "copy"):
            return sum(added(operand) for operand in _operands(text))
        return constants.get(name, 0)

    operands = _operands(body[-1][3]) if body else []
    return added(operands[index]) if index < len(operands) else 0


def _constants(lines: Sequence[tuple[str, str, str, str]]) -> dict[str, int]:
    return {
        name: int(value[1])
        for name, _, operation, text in lines
        if operation == "constant" and (value := _CONSTANT.match(text))
    }


def _operands(text: str) -> list[str]:
    return re.findall(r"%([\w.\-]+)", text.partition(")")[0])


def _collective(line: tuple[str, str, str, str], count: int, devices: int) -> Collective:
    name, shape, operation, rest = line
    kind = _kind(operation)
    groups = _groups(rest, devices)
    arrays = [_array_bytes(*match) for match in _SHAPE.findall(shape)]
    # An asynchronous start also returns its operands, and sometimes flags. The array that matters is the larger part.
    if operation.endswith("-start") and kind in ("all-gather", "collective-permute") and len(arrays) > 1:
        size = max(arrays) if kind == "collective-permute" else sum(arrays) * groups.shape[1] / (groups.shape[1] + 1)
    else:
        size = _total_bytes(shape)
    if kind == "reduce-scatter":
        size *= groups.shape[1]
    return Collective(kind, size, groups, count, name)


def _total_bytes(shape: str) -> float:
    return sum(_array_bytes(*match) for match in _SHAPE.findall(shape))


def _array_bytes(dtype: str, dims: str) -> float:
    width = _BYTES.get(dtype) or int(re.sub(r"\D.*", "", dtype.lstrip("abcdefghijklmnopqrstuvwxyz")) or 32) / 8
    return float(np.prod([int(d) for d in dims.split(",") if d], initial=1)) * width


def _groups(rest: str, devices: int) -> np.ndarray:
    """The groups of devices of a collective.

    They can be written as a list, as a transposed count, as axes of a mesh, or not at all (all devices).
    """
    if found := _IOTA.search(rest):
        shape, dims, order = ([int(n) for n in (part or "").split(",") if n] for part in found.groups())
        numbers = np.arange(np.prod(dims)).reshape(dims)
        return (numbers.transpose(order) if order else numbers).reshape(shape)
    if found := _LISTED.search(rest) or _PAIRS.search(rest):
        return np.array([[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", found[1])])
    if found := _MESH.search(rest):
        return _mesh_groups(*found.groups())
    if "replica_groups={}" in rest or "replica_groups" not in rest:
        return np.arange(devices)[None]
    written = re.search(r"replica_groups=\S*", rest)
    raise FlanError(
        f"precompile: cannot read the compiler's {written[0] if written else rest[:80]!r}; please report it."
    )


def _mesh_groups(mesh: str, axes: str) -> np.ndarray:
    """Groups along some axes of a mesh: 'a'=8,'b'=16 with 'b', or with 'b':(2)4 for four parts after the first two."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    chosen = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes)
    shape: list[int] = []
    members: list[int] = []
    for name, size in sizes.items():
        parts = sorted((int(before), int(part)) for axis, before, part in chosen if axis == name and part)
        if any(axis == name and not part for axis, _, part in chosen):
            parts = [(1, size)]
        done = 1
        for before, part in parts:
            shape += [before // done, part]
            members.append(len(shape) - 1)
            done = before * part
        shape.append(size // done)
    numbers = np.arange(np.prod(shape)).reshape(shape)
    numbers = np.moveaxis(numbers, members, range(-len(members), 0))
    return numbers.reshape(-1, int(np.prod([shape[m] for m in members], initial=1)))

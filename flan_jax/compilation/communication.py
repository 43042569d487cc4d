"""The time that collectives take over the links of a slice, one after another.

A group of devices whose chips form a box in the slice works along each axis of that box. If the box spans a whole ring
of an axis, the axis has links in both directions; otherwise it has one link, because the chips at the ends have no
other. If the box has only every s-th chip, s groups share the links. With m chips and S bytes of the whole array:

    all-gather, reduce-scatter     S (m - 1) / m / bandwidth
    all-reduce                     twice that
    all-to-all                     S (m - 1) / m x (m / 4, the mean distance on a ring) / bandwidth, S of one device
    collective-permute             S x the pairs whose way goes over the busiest link / one link

where bandwidth is the sum over the axes of links x bytes a second. The way of a pair goes along one axis after another,
and the shorter way around a ring. Permutations that are each other's reverse use the two directions of the links at the
same time; the compiler makes them in loops that overlap a product with a gathering. If the two devices of a chip belong
to different groups, both groups share the links, so S counts twice. Devices of one chip and group pass on data without
a link. Groups that reach over several slices take the network's bandwidth for the part between slices. Latency is not
counted.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flan_jax.compilation.hlo import Collective
from flan_jax.compilation.topology import Topology


def seconds(collective: Collective, devices: np.ndarray, topology: Topology) -> float:
    """The seconds of one run of a collective.

    Args:
      collective: from `hlo.collectives`.
      devices: the program's devices in the order of their numbers: a mesh's `devices.ravel()`.
      topology: where they are.
    """
    if collective.kind == "collective-permute":
        return _permute_seconds(collective, devices, topology)
    group = [devices[i] for i in collective.groups[0]]
    places = {(_slice(d), *d.coords) for d in group}
    slices = {place[0] for place in places}
    shared = topology.chip.devices / (len(group) / len(places))  # groups that use the same links at the same time
    size = collective.size * (2 if collective.kind == "all-reduce" else 1) * shared
    time = 0.0
    if len(slices) > 1:  # each chip exchanges its share with its partners in other slices
        share = size / max(len(places) // len(slices), 1)
        time += share * (len(slices) - 1) / len(slices) / topology.chip.network_bandwidth
    inside = {place[1:] for place in places if place[0] == min(slices)}
    chips = len(inside)
    if chips == 1:
        return time
    bandwidth = _links(inside, topology) * topology.chip.link_bandwidth
    if collective.kind == "all-to-all":
        return time + size * (chips - 1) / chips * max(chips / 4, 1) / bandwidth
    return time + size * (chips - 1) / chips / bandwidth


def _slice(device: object) -> int:
    return getattr(device, "slice_index", 0) or 0


def _links(places: set[tuple[int, ...]], topology: Topology) -> float:
    """How many links of a chip a group of chips can use at the same time, over all axes that the group spans."""
    links = 0.0
    for axis, length in enumerate(topology.shape):
        values = sorted({place[axis] for place in places})
        if len(values) > 1:
            stride = max(b - a for a, b in itertools.pairwise(values))
            around = len(values) * stride == length and topology.ring(axis) and length > 2
            links += (2 if around else 1) / stride
    return links


def _permute_seconds(collective: Collective, devices: np.ndarray, topology: Topology) -> float:
    loads: collections.Counter[tuple[Any, ...]] = collections.Counter()
    for start, end in collective.groups:
        a, b = devices[start], devices[end]
        if _slice(a) != _slice(b):
            return collective.size / topology.chip.network_bandwidth
        loads.update((_slice(a), *link) for link in _way(a.coords, b.coords, topology))
    return collective.size * max(loads.values(), default=0) / topology.chip.link_bandwidth


def _way(start: Sequence[int], end: Sequence[int], topology: Topology) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """The links from chip to chip, each as (the chip that it leaves, axis, direction)."""
    place = list(start)
    for axis, length in enumerate(topology.shape):
        ahead = end[axis] - place[axis]
        if topology.ring(axis):
            ahead = (ahead + length // 2 - 1) % length - (length // 2 - 1)  # the shorter way around
        direction = 1 if ahead > 0 else -1
        for _ in range(abs(ahead)):
            yield tuple(place), axis, direction
            place[axis] = (place[axis] + direction) % length


def with_their_reverse(found: Sequence[Collective]) -> set[str]:
    """The names of permutations that run beside their reverse, equally often and with as many bytes.

    Args:
      found: all collectives of a program. A permutation that is its own reverse, a swap, does not count.
    """

    def key(collective: Collective, pairs: np.ndarray) -> tuple[Any, ...]:
        return collective.count, collective.size, frozenset(map(tuple, pairs.tolist()))

    permutations = [c for c in found if c.kind == "collective-permute"]
    there = {key(c, c.groups) for c in permutations}
    reverses = {c.name: key(c, c.groups[:, ::-1]) for c in permutations}
    return {c.name for c in permutations if reverses[c.name] in there and reverses[c.name] != key(c, c.groups)}

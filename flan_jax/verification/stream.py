"""The stream: a step's rows must be the same, whenever, however often and on however many hosts they are asked for."""

from __future__ import annotations

import numpy as np

from flan_jax.data.stream import Stream, prefetch
from flan_jax.verification.findings import Place, Tally
from flan_jax.verification.subject import Subject

SAYS = "a step has the same rows in a run from the start, in one that is resumed, and on 1, 2 and 4 hosts"

_ROWS = 8
_READ = 3  # steps that are read one after another
_FAR = 1_000_000  # a step that no run will have read


def check(subject: Subject, tally: Tally) -> None:
    """Compares the first steps in order, and one far away, with the same steps asked for alone; see `SAYS`."""
    whole = subject.fresh_stream(_ROWS)
    with prefetch(whole, 0) as batches:
        in_order = [next(batches) for _ in range(_READ)]
    steps = {**dict(enumerate(in_order)), _FAR: None}
    resumed = subject.fresh_stream(_ROWS)
    for step in reversed(steps):
        expected = steps[step] or whole.batch(step)
        for hosts in (1, 2, 4):
            of_hosts = [_share(resumed, step, host, hosts) for host in range(hosts)]
            found = {name: np.concatenate([share[name] for share in of_hosts]) for name in of_hosts[0]}
            _compare(tally, found, expected, {"step": step, "hosts": hosts})


def _share(stream: Stream, step: int, host: int, hosts: int) -> dict[str, np.ndarray]:
    """The rows of one of several hosts."""
    size = _ROWS // hosts
    return stream.batch(step, slice(host * size, (host + 1) * size))


def _compare(tally: Tally, found: dict[str, np.ndarray], expected: dict[str, np.ndarray], place: Place) -> None:
    if not tally.same(sorted(found), sorted(expected), {**place, "names of": "arrays"}):
        return
    for name, array in expected.items():
        if not tally.same(found[name].shape, array.shape, {**place, "shape of": name}):
            continue
        differ = np.argwhere(found[name] != array)
        if len(differ):
            row, slot = differ[0].tolist()
            where = {**place, "array": name, "row": row, "slot": slot}
            tally.same(found[name][row, slot].item(), array[row, slot].item(), where)
    tally.see(0.0, 0.0, place)
    tally.count(batches=1, slots=sum(array.size for array in expected.values()))

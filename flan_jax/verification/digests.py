"""The checkpoint's arrays: restored arrays must have the digests that were saved with them."""

from __future__ import annotations

import jax
import numpy as np

from flan_jax.checkpoint import digests, saved_digests, stored
from flan_jax.verification.findings import Skip, Tally
from flan_jax.verification.subject import Subject

SAYS = "the restored parameters have the digests that were saved, and are finite"


def check(subject: Subject, tally: Tally) -> None:
    """Compares the parameters in memory array by array, on the device and on the host; see `SAYS`."""
    saved = saved_digests.read(subject.request.checkpoint, subject.step)
    if saved is None:
        raise Skip("the checkpoint was saved by a version that saved no digests: convert or train it anew")
    if stored.ADAPTERS in saved:
        raise Skip("the checkpoint holds adapters, which were taken in, and compared, as it was read")
    expected = saved.get(stored.PARAMS, {})
    measured = digests.measure(subject.params)
    tally.same(sorted(measured), sorted(expected), {"names of": "parameters"})
    hosts = {
        jax.tree_util.keystr(path, simple=True, separator="/"): x
        for path, x in jax.tree.leaves_with_path(subject.params)
    }
    for name in sorted(measured.keys() & expected.keys()):
        place = {"parameter": name}
        tally.same(measured[name].digest, expected[name], place)
        tally.same(digests.of_array(np.asarray(hosts[name])), expected[name], {**place, "on": "the host"})
        tally.same(measured[name].nans + measured[name].infinities, 0, {**place, "numbers that are": "not finite"})
        tally.see(0.0, 0.0, place)
        tally.count(arrays=1, parameters=hosts[name].size)
    if "opt_state" in saved:
        tally.left_out.append("the optimizer's state is left out: it is compared when a training resumes")

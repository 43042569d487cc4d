"""All checks in their order, and a run of some of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax

from flan_jax.errors import unknown_name
from flan_jax.verification import digests, generation, gradient, huggingface, rows, stream, trees
from flan_jax.verification.findings import SKIPPED, Finding, Skip, Tally
from flan_jax.verification.subject import Subject


class Check(NamedTuple):
    """One check: what holds if it holds, and the function that compares."""

    says: str
    compare: Callable[[Subject, Tally], None]


CHECKS = {
    "stream": Check(stream.SAYS, stream.check),
    "rows": Check(rows.SAYS, rows.check),
    "trees": Check(trees.SAYS, trees.check),
    "generation": Check(generation.SAYS, generation.check),
    "gradient": Check(gradient.SAYS, gradient.check),
    "digests": Check(digests.SAYS, digests.check),
    "huggingface": Check(huggingface.SAYS, huggingface.check),
}


def chosen(names: Sequence[str]) -> list[str]:
    """Names of checks in their order; all where none is named.

    Raises:
      FlanError: there is no such check.
    """
    for name in names:
        if name not in CHECKS:
            raise unknown_name("check", name, CHECKS)
    return [name for name in CHECKS if not names or name in names]


def run(subject: Subject, names: Sequence[str]) -> Iterator[Finding]:
    """The findings of checks, one after another.

    Matrix products are computed in full float32, which accelerators do only when they are told.
    """
    for name in names:
        check, tally, began = CHECKS[name], Tally(), time.perf_counter()
        with jax.default_matmul_precision("highest"):
            try:
                check.compare(subject, tally)
            except Skip as reason:
                yield Finding(name, check.says, SKIPPED, reason=str(reason))
            else:
                found = tally.finding(name, check.says)
                yield dataclasses.replace(found, seconds=time.perf_counter() - began)

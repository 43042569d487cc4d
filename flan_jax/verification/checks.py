"""All checks in order, and a function that runs some of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

from flan_jax.errors import unknown_name
from flan_jax.lazy import lazy_imports
from flan_jax.verification.findings import SKIPPED, Finding, Skip, Tally

with lazy_imports():  # a command line only needs the names
    import jax

    from flan_jax.verification import digests, generation, gradient, huggingface, rows, stream, subject, trees

# By name, a module with SAYS (what is true if the check holds) and check(subject, tally), which compares.
CHECKS: dict[str, Any] = {
    "stream": stream,
    "rows": rows,
    "trees": trees,
    "generation": generation,
    "gradient": gradient,
    "digests": digests,
    "huggingface": huggingface,
}


def chosen(names: Sequence[str]) -> list[str]:
    """The names of checks in order; by default all.

    Raises:
      FlanError: there is no such check.
    """
    for name in names:
        if name not in CHECKS:
            raise unknown_name("check", name, CHECKS)
    return [name for name in CHECKS if not names or name in names]


def run(of: subject.Subject, names: Sequence[str]) -> Iterator[Finding]:
    """Runs checks and yields their findings.

    Matrix products are computed in full float32, which accelerators only do when told.
    """
    for name in names:
        check, tally, began = CHECKS[name], Tally(), time.perf_counter()
        with jax.default_matmul_precision("highest"):
            try:
                check.check(of, tally)
            except Skip as reason:
                yield Finding(name, check.SAYS, SKIPPED, reason=str(reason))
            else:
                found = tally.finding(name, check.SAYS)
                yield dataclasses.replace(found, seconds=time.perf_counter() - began)

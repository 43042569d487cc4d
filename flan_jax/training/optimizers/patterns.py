"""Chooses parameters by patterns of their paths."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Sequence

from flan_jax.errors import FlanError, near_names
from flan_jax.models.nested import Path


def matches(pattern: str, path: Path) -> bool:
    """Whether a pattern fits a path, or some consecutive names of it; `*` stands for anything.

    "mlp" fits whatever is in an mlp, "query/kernel" the kernels of queries, "*norm" what is in a norm.

    Example:
      >>> matches("query/kernel", ("layers", "query", "kernel")), matches("key", ("layers", "query", "kernel"))
      (True, False)
    """
    return fnmatch.fnmatchcase(f"/{'/'.join(path)}/", f"*/{pattern.strip('/')}/*")


def chosen(what: str, patterns: Sequence[str], known: Collection[Path], lenient: bool = False) -> frozenset[Path]:
    """The paths that patterns choose, one pattern after another. A pattern with "!" in front removes paths.

    Args:
      what: the macro, for error messages.
      patterns: see `matches`.
      known: all paths.
      lenient: whether a pattern may fit nothing or remove nothing, as defaults may.

    Raises:
      FlanError: a pattern fits nothing (the message has near matches), or one removes what no pattern before it chose.
    """
    found: set[Path] = set()
    for pattern in patterns:
        fitting = {path for path in known if matches(pattern.removeprefix("!"), path)}
        if not fitting and not lenient:
            names = {name for path in known for name in path} | {"/".join(path) for path in known}
            near = near_names(pattern.removeprefix("!").strip("/"), names)
            raise FlanError(f"{what}: pattern {pattern!r} fits no parameter: {near}")
        if pattern.startswith("!") and fitting and not fitting & found and not lenient:
            raise FlanError(
                f"{what}: {pattern!r} takes out what no pattern before it has chosen: write ('*', {pattern!r}) for all "
                "others, or leave it out."
            )
        found = found - fitting if pattern.startswith("!") else found | fitting
    return frozenset(found)

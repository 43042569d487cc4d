"""Parameters by patterns of their paths, and trees that hold some of the parameters."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from flan_jax.errors import FlanError, near_names

Path = tuple[str, ...]


def paths(tree: Mapping[str, Any]) -> list[Path]:
    """The paths of the leaves of nested dicts."""
    return [
        (name, *rest) for name, inner in tree.items() for rest in (paths(inner) if isinstance(inner, Mapping) else [()])
    ]


def matches(pattern: str, path: Path) -> bool:
    """Whether a pattern fits a path, or some of its names that follow each other; `*` is anything.

    "mlp" fits whatever lies in an mlp, "query/kernel" the kernels of queries, "*norm" what lies in a norm.
    """
    return fnmatch.fnmatchcase(f"/{'/'.join(path)}/", f"*/{pattern.strip('/')}/*")


def chosen(what: str, patterns: Sequence[str], known: Collection[Path], lenient: bool = False) -> frozenset[Path]:
    """The paths that patterns choose, one pattern after another; one that begins with "!" takes out again.

    Args:
      what: the macro, for an error.
      patterns: see `matches`.
      known: all paths.
      lenient: whether a pattern may fit nothing, as a default may.

    Raises:
      FlanError: a pattern fits nothing; the line has near matches.
    """
    found: set[Path] = set()
    for pattern in patterns:
        fitting = {path for path in known if matches(pattern.removeprefix("!"), path)}
        if not fitting and not lenient:
            names = {name for path in known for name in path} | {"/".join(path) for path in known}
            near = near_names(pattern.removeprefix("!").strip("/"), names)
            raise FlanError(f"{what}: pattern {pattern!r} fits no parameter: {near}")
        found = found - fitting if pattern.startswith("!") else found | fitting
    return frozenset(found)


def part(tree: Mapping[str, Any], wanted: Collection[Path]) -> dict[str, Any]:
    """The nested dicts with these leaves alone, and without dicts that would be empty."""
    found = _mapped(tree, lambda path, leaf: leaf if path in wanted else None, ())
    return found or {}


def _mapped(tree: Mapping[str, Any], keep: Callable[[Path, Any], Any], above: Path) -> dict[str, Any] | None:
    found = {}
    for name, inner in tree.items():
        path = (*above, name)
        kept = _mapped(inner, keep, path) if isinstance(inner, Mapping) else keep(path, inner)
        if kept is not None:
            found[name] = kept
    return found or None


def merged(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts with the leaves of all; where several have one, the last counts."""
    found: dict[str, Any] = {}
    for tree in trees:
        for name, inner in tree.items():
            both = isinstance(inner, Mapping) and isinstance(found.get(name), Mapping)
            found[name] = merged(found[name], inner) if both else inner
    return found


def shown(found: Iterable[Path]) -> str:
    """Some paths in words."""
    named = sorted("/".join(path) for path in found)
    return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")

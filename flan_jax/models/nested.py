"""Helpers for parameters, which are nested dicts: paths, parts, and merging."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

Path = tuple[str, ...]


def paths(tree: Mapping[str, Any]) -> list[Path]:
    """The paths of the leaves of nested dicts.

    Example:
      >>> paths({"mlp": {"wi": 1, "wo": 2}})
      [('mlp', 'wi'), ('mlp', 'wo')]
    """
    return [
        (name, *rest) for name, inner in tree.items() for rest in (paths(inner) if isinstance(inner, Mapping) else [()])
    ]


def at(path: Sequence[str], leaf: Any) -> dict[str, Any]:
    """Nested dicts with one leaf.

    Example:
      >>> at(("mlp", "wi"), 1)
      {'mlp': {'wi': 1}}
    """
    for name in reversed(path):
        leaf = {name: leaf}
    return leaf


def part(tree: Mapping[str, Any], wanted: Collection[Path]) -> dict[str, Any]:
    """The nested dicts with only these leaves, and without empty dicts."""
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
    """Nested dicts with the leaves of all; if several have the same leaf, the last one counts."""
    found: dict[str, Any] = {}
    for tree in trees:
        for name, inner in tree.items():
            both = isinstance(inner, Mapping) and isinstance(found.get(name), Mapping)
            found[name] = merged(found[name], inner) if both else inner
    return found

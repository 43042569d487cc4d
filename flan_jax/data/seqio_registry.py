"""SeqIO's registries with names that are only made when they are asked for.

A registry is a class with a dictionary. We replace the dictionary by one that lists our names, and builds a task or
mixture when it is first asked for. It also knows names with a style, of which there are too many to list.
"""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import seqio
from seqio import dataset_providers

from flan_jax.errors import FlanError


class LazyNames(dict):
    """A registry's dictionary. What others have registered stays, and comes first."""

    def __init__(self, others: dict[str, Any]) -> None:
        super().__init__(others)
        self._listed: dict[str, None] = {}
        self._made: set[str] = set()
        self._removed: set[str] = set()
        self._can_make: Callable[[str], bool] = lambda name: False
        self._make: Callable[[str], Any] = lambda name: None

    def offer(self, listed: Iterable[str], can_make: Callable[[str], bool], make: Callable[[str], Any]) -> None:
        """Offers names, in place of those that were offered before.

        Args:
          listed: the names that `names()` shows.
          can_make: whether a name (of these or another one) can be made.
          make: makes it.
        """
        for name in self._made:
            super().pop(name, None)
        self._made, self._removed = set(), set()
        self._listed, self._can_make, self._make = dict.fromkeys(listed), can_make, make

    @property
    def made(self) -> frozenset[str]:
        """The names among the current offer that have been made."""
        return frozenset(self._made)

    @property
    def of_others(self) -> dict[str, Any]:
        """What others have registered."""
        return {name: found for name, found in super().items() if name not in self._made}

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name) or name in self._listed:
            return True
        return isinstance(name, str) and name not in self._removed and self._can_make(name)

    def __missing__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        self[name] = found = self._make(name)
        self._made.add(name)
        return found

    def __delitem__(self, name: str) -> None:
        self._listed.pop(name, None)
        self._made.discard(name)
        self._removed.add(name)  # others may register the name now
        if super().__contains__(name):
            super().__delitem__(name)

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*super().__iter__(), *self._listed])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def keys(self) -> collections.abc.KeysView[str]:  # type: ignore[override]
        """The names. A plain dictionary's view would not call `__contains__`."""
        return collections.abc.KeysView(self)


def lazy(registry: type[seqio.dataset_providers.DatasetProviderRegistry]) -> LazyNames:
    """A registry's dictionary as `LazyNames`, which replaces the old one if needed."""
    if not isinstance(registry._REGISTRY, LazyNames):
        registry._REGISTRY = LazyNames(registry._REGISTRY)
    return registry._REGISTRY


def explain(unknown: Callable[[str], Exception | None]) -> None:
    """Makes `seqio.get_mixture_or_task` say more about a name that it does not find.

    Args:
      unknown: maps a name to the error to raise in place of SeqIO's, or None if the name is not ours.
    """
    original = getattr(dataset_providers.get_mixture_or_task, "original", dataset_providers.get_mixture_or_task)

    def get_mixture_or_task(task_or_mixture_name: str) -> Any:
        """See SeqIO."""
        try:
            return original(task_or_mixture_name)
        except FlanError:
            raise
        except ValueError as error:
            if better := unknown(task_or_mixture_name):
                raise better from error
            raise

    get_mixture_or_task.original = original  # type: ignore[attr-defined]
    dataset_providers.get_mixture_or_task = seqio.get_mixture_or_task = get_mixture_or_task

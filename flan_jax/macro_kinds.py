"""Kinds of macro values beyond those of `flan_jax.values`: hooks, mixtures, patterns of parameter paths and others."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import parts
from flan_jax.errors import FlanError
from flan_jax.values import Keyed, OneOf, Text, Unfit, Whole


class Axis(Whole):
    """The size of a mesh axis."""

    @property
    def wanted(self) -> str:
        """See `values.Kind`."""
        return "a whole number of at least 1, or -1 for what is left"

    def fit(self, value: Any) -> int:
        """See `values.Kind`."""
        return -1 if value == -1 and not isinstance(value, bool) else Whole(1).fit(value)


@dataclasses.dataclass(frozen=True)
class Hooks:
    """Hooks by name, or made in Python; the default is none.

    What a name means is only checked when a run is resolved.
    """

    wanted: str = "'module:Name', 'module:Name(argument=value)', or several in brackets"

    def fit(self, value: Any) -> tuple[Any, ...]:
        """See `values.Kind`."""
        several = value if isinstance(value, list | tuple) else (value,)
        for hook in several:
            if isinstance(hook, str):
                if not re.fullmatch(r"\s*[\w.]+\s*:\s*\w+\s*(\(.*\))?\s*", hook):
                    raise Unfit
            elif hook is None or isinstance(hook, bool | int | float | bytes | Mapping | set | type | list | tuple):
                raise Unfit
            elif type(hook).__module__.partition(".")[0] == "gin":
                raise Unfit("a reference of gin cannot be a hook; name it by a text, as 'module:Name(argument=value)'")
        if len({hook for hook in several if isinstance(hook, str)}) < sum(isinstance(hook, str) for hook in several):
            raise Unfit("one is there twice")
        return tuple(several)


@dataclasses.dataclass(frozen=True)
class OneMixture:
    """A mixture: its name, a file, the content of such a file, or an object made in Python."""

    wanted: str = "the name of a mixture, a .json file of one, or a dictionary"

    def fit(self, value: Any) -> Any:
        """See `values.Kind`. The value is returned unchanged."""
        if not isinstance(value, str | Mapping | parts.Mixture) or not value:
            raise Unfit
        try:
            parts.of(value)
        except FlanError as error:
            raise Unfit(str(error)) from error
        return value


@dataclasses.dataclass(frozen=True)
class Steps:
    """A first and a last step of training."""

    wanted: str = "the first and the last step in brackets, as (10, 12)"

    def fit(self, value: Any) -> tuple[int, int]:
        """See `values.Kind`."""
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise Unfit
        first, last = (Whole(1).fit(step) for step in value)
        if last < first:
            raise Unfit
        return first, last


@dataclasses.dataclass(frozen=True)
class Patterns:
    """Patterns of parameter paths; there may be none."""

    wanted: str = "a pattern of parameters' paths, as 'token_embedder', or several or none in brackets"

    def fit(self, value: Any) -> tuple[str, ...]:
        """See `values.Kind`."""
        several = value if isinstance(value, list | tuple) else (value,)
        found = tuple(Text().fit(one) for one in several)
        if any(not one.strip("/!") or one != one.strip() for one in found):
            raise Unfit
        if len(set(found)) < len(found):
            raise Unfit("one is there twice")
        return found


@dataclasses.dataclass(frozen=True)
class PathMap:
    """A dictionary from patterns of parameter paths to other paths, or to None."""

    wanted: str = "a dictionary from patterns of paths to other paths or None, as {'logits_dense': None}"

    def fit(self, value: Any) -> dict[str, str | None]:
        """See `values.Kind`."""
        if not isinstance(value, Mapping):
            raise Unfit
        for pattern, other in value.items():
            Patterns().fit(pattern)
            if other is not None and not (isinstance(other, str) and other.strip("/")):
                raise Unfit
        return dict(value)


@dataclasses.dataclass(frozen=True)
class Best:
    """The figure that decides which checkpoints are kept."""

    wanted: str = "a dictionary such as {'figure': 'loss', 'best': 'lowest', 'count': 1}"

    def fit(self, value: Any) -> dict[str, Any]:
        """See `values.Kind`."""
        found = Keyed({"figure": Text(), "best": OneOf(("lowest", "highest")), "count": Whole(1)}).fit(value)
        if "figure" not in found:
            raise Unfit("it needs 'figure', a name of metrics.jsonl")
        return found


@dataclasses.dataclass(frozen=True)
class WandbRun:
    """A project of Weights & Biases, and settings of the run in it."""

    wanted: str = "a dictionary such as {'project': 'flan', 'name': 'first', 'mode': 'offline'}"

    def fit(self, value: Any) -> dict[str, Any]:
        """See `values.Kind`."""
        names = {name: Text() for name in ("project", "entity", "group", "name")}
        found = Keyed(names | {"mode": OneOf(("online", "offline"))}).fit(value)
        if "project" not in found:
            raise Unfit("it needs 'project'")
        return found


@dataclasses.dataclass(frozen=True)
class Macros:
    """A dictionary of another program's macros and their values. They are checked when that program is known."""

    wanted: str = "a dictionary from macros to values"

    def fit(self, value: Any) -> dict[str, Any]:
        """See `values.Kind`."""
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise Unfit
        return dict(value)


@dataclasses.dataclass(frozen=True)
class Points:
    """What a study varies: one or more different values, of the kind that the study wants."""

    wanted: str = "what the study varies, one or more in brackets"

    def fit(self, value: Any) -> tuple[Any, ...]:
        """See `values.Kind`."""
        if value is None:
            raise Unfit
        if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
            value = (value,)
        if not value:
            raise Unfit("name one or more")
        if any(one in value[:number] for number, one in enumerate(value)):
            raise Unfit("one is there twice")
        return tuple(value)

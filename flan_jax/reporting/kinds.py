"""The kind of all that reports read from results.json, in one table. `sound` then checks the values.

Results of earlier versions lack keys: a key that is not there is of no wrong kind, and one that is not here may be
anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from flan_jax import ways


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a value is.

    Attributes:
      name: as in "no text".
      holds: whether a value is of it.
      inside: the kinds of the values of a mapping by their names, or of all its values, or of the members of a list.
      empty: whether null is allowed.
    """

    name: str
    holds: Callable[[Any], bool]
    inside: Mapping[str, Kind] | Kind | None = None
    empty: bool = False

    @property
    def or_null(self) -> Kind:
        """The same, or null."""
        return dataclasses.replace(self, empty=True)


def is_number(value: Any) -> bool:
    """Whether the value is a finite number. True and False are not."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _mapping(inside: Mapping[str, Kind] | Kind | None = None) -> Kind:
    return Kind("names with values", lambda value: isinstance(value, Mapping), inside)


def _list(inside: Kind) -> Kind:
    return Kind("list", lambda value: isinstance(value, list | tuple), inside)


_TEXT = Kind("text", lambda value: isinstance(value, str))
_NUMBER = Kind("number", is_number)
_COUNT = Kind("count", lambda value: _is_whole(value) and value >= 0)
_YES_OR_NO = Kind("true or false", lambda value: isinstance(value, bool))
_NAMES = _list(_TEXT)


def _is_weights(value: Any) -> bool:
    """Whether it is the digest of one checkpoint, or of several: by dataset, or a list, as in earlier versions."""
    several = [*value.values()] if isinstance(value, Mapping) else value
    return isinstance(value, str) or (isinstance(several, list) and all(isinstance(one, str) for one in several))


_TUNING = _mapping(
    {"status": _TEXT.or_null, "datasets": _NAMES, "clusters": _NAMES, "text": _list(_mapping({"dataset": _TEXT}))}
)

RESULTS = _mapping(
    {
        "checkpoint": _TEXT,
        "checkpoints": _mapping(_TEXT),
        "model": _mapping({"dtype": _TEXT.or_null}).or_null,
        "engines": _mapping().or_null,
        "tuning": _TUNING,
        "tunings": _mapping(_TUNING),
        "settings": _mapping({"style": _TEXT, "computation": _mapping().or_null}),
        "joint": _TEXT.or_null,
        "separator": _TEXT.or_null,
        "weights": Kind("digest", _is_weights, empty=True),
        "split": _TEXT,
    }
)

FIGURES = _mapping(
    {
        **dict.fromkeys(("cluster", "paper_dataset", "metric"), _TEXT),
        **dict.fromkeys(("status", "label", "protocol", "filter", "best_dev_way", "task_version"), _TEXT.or_null),
        "headline_metric": _mapping(dict.fromkeys(("name", "key", "version"), _TEXT.or_null)).or_null,
        "lower_is_better": _YES_OR_NO.or_null,
        "options_read": _YES_OR_NO,
        "examples": _COUNT,
        "skipped_examples": _COUNT,
        "dev_examples": _COUNT.or_null,
        **dict.fromkeys(("mean", "std"), _NUMBER),
        **dict.fromkeys(("best_dev", "random", "majority", "copied", "stderr"), _NUMBER.or_null),
        **{f"mean_{way.name}": _NUMBER.or_null for way in ways.ALL},
        "dev_ways": _mapping(_NUMBER).or_null,
        "metrics": _mapping(_NUMBER),
        "metric_versions": _mapping(_TEXT),
        "shots": _mapping(dict.fromkeys(("wanted", "mean", "without", "of"), _NUMBER)).or_null,
        "overlap": _mapping(
            {"checked": _YES_OR_NO, "reason": _TEXT, "seen": _COUNT.or_null, "of": _COUNT.or_null}
            | {"with": _mapping(_NUMBER), "kin": _mapping()}
        ).or_null,
        "data": _mapping(_mapping({"records": _COUNT, "digest": _TEXT}).or_null).or_null,
        "cost": _mapping(dict.fromkeys(("seconds", "tokens"), _NUMBER) | {"device": _TEXT}).or_null,
        "templates": _list(
            _mapping(
                {
                    "template": Kind("whole number", _is_whole),
                    **dict.fromkeys(("value", "dev", "stderr", *(way.name for way in ways.ALL)), _NUMBER.or_null),
                    "dev_ways": _mapping(_NUMBER).or_null,
                    "metrics": _mapping(_NUMBER.or_null).or_null,
                    **dict.fromkeys(("cut_prompts", "unfinished", "copies"), _COUNT),
                    **dict.fromkeys(("input", "target", "key"), _TEXT),
                    "undefined": _NAMES,
                }
            )
        ),
    }
)


def problem_of(value: Any, kind: Kind, key: str = "") -> str:
    """Which value is of another kind, for a sentence about the results or the dataset; empty if none is.

    Args:
      value: results, or the figures of a dataset.
      kind: `RESULTS` or `FIGURES`.
      key: where the value stands.

    Example:
      >>> problem_of({"metric": None}, FIGURES)
      "has no text 'metric'"
    """
    if value is None and kind.empty:
        return ""
    if not kind.holds(value):
        return f"has no {kind.name} {key!r}"
    if isinstance(kind.inside, Mapping):
        inside = [(name, value[name], one) for name, one in kind.inside.items() if name in value]
    elif kind.inside is not None:
        named = value.items() if isinstance(value, Mapping) else enumerate(value)
        inside = [(str(name), one, kind.inside) for name, one in named]
    else:
        return ""
    return next(filter(None, (problem_of(one, of, f"{key}.{name}" if key else name) for name, one, of in inside)), "")

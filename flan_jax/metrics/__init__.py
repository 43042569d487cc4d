"""Metrics as records, one file for each: what it computes, its library and settings, and the value that tables show.

Every other module of this package is a metric and defines `METRIC`, a `Metric` with the name of the module. To add a
metric, add a module. A record is called like SeqIO's metrics: (targets, predictions) -> {key: value}.

A target is a text; a list of references, of which the best counts; or a mapping with "references" and the fields that
the metric `needs`. Every value is a finite number. What cannot be computed is refused in one line.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import math
import pkgutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.errors import FlanError, unknown_name
from flan_jax.wording import counted

ANSWER_TOKENS = 32  # for a word, a name, a number or a short phrase
TEXT_TOKENS = 256  # for a text of the paper's target length
CORRELATION = (-100.0, 100.0)  # the range of a correlation in percent
DISTANCE = (0.0, math.inf)  # and of a distance


def _always_defined(targets: Sequence[Any], predictions: Sequence[str]) -> tuple[str, ...]:
    return ()


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
      name: its name in a dataset's `metrics`; the name of its file.
      version: library and settings, for example "sacrebleu 2.5.1, intl"; or "flan_jax" with a number that is raised
        when a value changes.
      headline: the key of the value that tables show, and that chooses the best template on dev.
      compute: (targets, predictions) -> values by key. Call the record itself, which checks both sides.
      secondary: keys of the other values. `headline` and these are all keys.
      secondary_versions: library and settings of secondary values that are computed differently, by key.
      example: (target, prediction) -> the headline value of one example, 0 to 1; its mean over examples is the headline
        value. None if a single example has no value.
      statistics: for metrics without `example`: (targets, predictions) -> numbers of each example [E, K]. `of_sums`
        computes the headline value from their sums over any examples, so that examples can be resampled for intervals.
      of_sums: sums [..., K] -> headline values [...], 0 to 1; 0 if the value is undefined.
      undefined: (targets, predictions) -> keys whose value is 0 because it is undefined for these.
      needs: further fields of a record that it needs. A target is then a mapping.
      by_place: whether answers of a dataset without fixed labels are compared by their places among the options.
      new_tokens: most tokens of a generated answer.
      percent: whether values are 0 to 100; otherwise 0 to 1.
      ranges: the lowest and highest value that there can be, by key, where it is not from 0 to 100 or to 1.
    """

    name: str
    version: str
    headline: str
    compute: Callable[[Sequence[Any], Sequence[str]], Mapping[str, float]]
    secondary: tuple[str, ...] = ()
    secondary_versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    example: Callable[[Any, str], float] | None = None
    statistics: Callable[[Sequence[Any], Sequence[str]], np.ndarray] | None = None
    of_sums: Callable[[np.ndarray], np.ndarray] | None = None
    undefined: Callable[[Sequence[Any], Sequence[str]], tuple[str, ...]] = _always_defined
    needs: tuple[str, ...] = ()
    by_place: bool = False
    new_tokens: int = ANSWER_TOKENS
    percent: bool = True
    ranges: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)

    @property
    def __name__(self) -> str:
        """The name, where SeqIO and others look for the name of a function."""
        return self.name

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all values, the headline first."""
        return (self.headline, *self.secondary)

    @property
    def versions(self) -> dict[str, str]:
        """The library and settings of every value, by key."""
        return {key: self.secondary_versions.get(key, self.version) for key in self.keys}

    def range(self, key: str) -> tuple[float, float]:
        """The lowest and the highest value that there can be of a key."""
        return self.ranges.get(key, (0.0, 100.0 if self.percent else 1.0))

    def __reduce__(self) -> tuple[Callable[[str], Metric], tuple[str]]:
        """Pickles a metric as its name."""
        return metric, (self.name,)

    def __call__(self, targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
        """Computes all values.

        Args:
          targets: one for each example.
          predictions: one for each example.

        Raises:
          FlanError: there are no examples, their numbers differ, an example has no reference, or a value is not finite.
        """
        if len(targets) != len(predictions) or not len(targets):
            raise FlanError(
                f"metric {self.name} of {counted(len(targets), 'targets')} and "
                f"{counted(len(predictions), 'predictions')}: there must be as many of the one as of the other, and at "
                "least one."
            )
        for i, target in enumerate(targets):
            if not references(target):
                raise FlanError(f"metric {self.name}: example {i} has no reference to compare with.")
            if missing := [field for field in self.needs if not isinstance(target, Mapping) or field not in target]:
                raise FlanError(f"metric {self.name}: example {i} has no {missing[0]}, which the metric needs.")
        found = {key: float(value) for key, value in self.compute(targets, predictions).items()}
        if set(found) != set(self.keys):
            raise FlanError(f"metric {self.name} gives {sorted(found)}, and its record names {sorted(self.keys)}.")
        if bad := [key for key in self.keys if not math.isfinite(found[key])]:
            raise FlanError(
                f"metric {bad[0]} of {counted(len(targets), 'examples')} is {found[bad[0]]}, which is no result."
            )
        return {key: found[key] for key in self.keys}

    def share(self, values: Mapping[str, float]) -> float:
        """The headline value among all values, 0 to 1."""
        return values[self.headline] / 100 if self.percent else values[self.headline]

    def target(self, fields: Mapping[str, Any], references: Sequence[str]) -> Any:
        """The target that the metric takes: references, and the fields that it needs.

        Args:
          fields: the fields of the record.
          references: at least one.

        Raises:
          FlanError: a field is missing.
        """
        if not self.needs:
            return list(references)
        if missing := [field for field in self.needs if field not in fields]:
            raise FlanError(f"metric {self.name} needs {missing[0]} of every example, and one has none.")
        return {"references": list(references), **{name: fields[name] for name in self.needs}}


def names() -> list[str]:
    """The names of all metrics, which are the modules of this package.

    Example:
      >>> "accuracy" in names()
      True
    """
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


@functools.cache
def metric(name: str) -> Metric:
    """The metric with this name.

    Raises:
      FlanError: there is none, or its file does not define it.

    Example:
      >>> metric("accuracy")(["yes", "no"], ["yes", "yes"])
      {'accuracy': 50.0}
      >>> metric("squad")([["The Alps", "the Alps in Austria"]], ["Alps"])
      {'f1': 100.0, 'em': 100.0}
    """
    if name not in names():
        raise unknown_name("metric", name, names())
    found = getattr(importlib.import_module(f"{__name__}.{name}"), "METRIC", None)
    if not isinstance(found, Metric) or found.name != name:
        raise FlanError(f"flan_jax/metrics/{name}.py must define METRIC, a Metric whose name is {name!r}.")
    return found


def needs(names: Sequence[str]) -> tuple[str, ...]:
    """The fields of a record that these metrics need besides the references.

    Example:
      >>> needs(["accuracy", "rating_correlation"])
      ('rating',)
    """
    return tuple(dict.fromkeys(field for name in names for field in metric(name).needs))


def library(name: str) -> str:
    """A library's name with its version, for `Metric.version`."""
    return f"{name} {importlib.metadata.version(name)}"


def references(target: Any) -> list[Any]:
    """The references of a target, of which the best counts.

    Example:
      >>> references("yes"), references({"references": ["a", "b"]})
      (['yes'], ['a', 'b'])
    """
    if isinstance(target, Mapping):
        target = target["references"]
    return [target] if isinstance(target, str) else list(target)


def percentage(shares: Sequence[float]) -> float:
    """The mean of shares, in percent.

    Example:
      >>> percentage([1.0, 0.0])
      50.0
    """
    return 100.0 * statistics.fmean(shares)


def ratio(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Quotients of arrays, 0 where the denominator is 0."""
    return np.divide(numerators, denominators, out=np.zeros_like(numerators), where=denominators != 0)

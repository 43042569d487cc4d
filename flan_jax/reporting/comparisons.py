"""Runs beside the first: paired differences with intervals, permutation tests, and Holm's correction over them all."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import catalog
from flan_jax.evaluation import clusters
from flan_jax.reporting import statistics
from flan_jax.reporting.runs import Run, UnusableError, common, dataset_names
from flan_jax.reporting.statistics import LEVEL, MIN_PAIRS, Interval
from flan_jax.reporting.values import Values, pair, same_templates

TOO_FEW = f"n < {MIN_PAIRS}"


@dataclasses.dataclass(frozen=True)
class Difference:
    """A dataset, or the mean of a cluster, in a run beside the first.

    Attributes:
      metric: what differs; empty for a cluster.
      examples: pairs; of a cluster, of its smallest dataset.
      groups: those of pairs that share a passage, which are drawn together; as many as pairs where none do.
      means: of the first run and the other, over the pairs.
      interval: of the difference, over resamples of the examples.
      over_templates: over resamples of examples and templates; None where neither run has several templates.
      p: of the permutation test; None below the least number of groups.
      corrected: p after Holm's correction over all tests of the report.
      null: differences under permutation.
    """

    metric: str
    examples: int
    groups: int
    means: tuple[float, float]
    interval: Interval
    over_templates: Interval | None
    p: float | None
    null: np.ndarray
    corrected: float | None = None

    @property
    def verdict(self) -> str:
        """ "higher" or "lower" where the corrected p is below 5 %, "n < 50" where there is no test, or nothing."""
        if self.p is None:
            return TOO_FEW
        if self.corrected is None or self.corrected >= LEVEL:
            return ""
        return "higher" if self.interval.value > 0 else "lower"

    def to_dict(self) -> dict[str, Any]:
        """For JSON; shares from 0 to 1."""
        found: dict[str, Any] = {
            "difference": self.interval.value,
            **self.interval.to_dict(),
            "examples": self.examples,
            "groups": self.groups,
            "means": list(self.means),
            "over_templates": self.over_templates.to_dict() if self.over_templates else None,
            "p": self.p,
            "p_holm": self.corrected,
            "verdict": self.verdict,
        }
        return found | ({"metric": self.metric} if self.metric else {})


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A run beside the first one.

    Attributes:
      first, other: their names.
      datasets: differences on the examples that both have.
      clusters: differences of the clusters' means, where each dataset of the mean has one, and they are several.
      apart: why a dataset that both have is not compared, by name.
    """

    first: str
    other: str
    datasets: dict[str, Difference]
    clusters: dict[str, Difference]
    apart: dict[str, str]


def compare(runs: Sequence[Run], values: Mapping[str, Mapping[str, Values]], seed: int) -> list[Comparison]:
    """Each later run beside the first, corrected for all tests together.

    Args:
      runs: of the report.
      values: by run and dataset.
      seed: of resamples and permutations.
    """
    means = common(runs)
    found = [_compare(runs[0], run, dataset_names(runs), values, means, seed) for run in runs[1:]]
    p_values = {
        (number, kind, name): difference.p
        for number, comparison in enumerate(found)
        for kind in ("datasets", "clusters")
        for name, difference in getattr(comparison, kind).items()
        if difference.p is not None
    }
    for (number, kind, name), corrected in statistics.holm(p_values).items():
        listed = getattr(found[number], kind)
        listed[name] = dataclasses.replace(listed[name], corrected=corrected)
    return found


def tests(comparisons: Sequence[Comparison]) -> int:
    """How many tests the correction is over."""
    return sum(d.p is not None for c in comparisons for d in (*c.datasets.values(), *c.clusters.values()))


def _compare(
    first: Run,
    other: Run,
    names: Sequence[str],
    values: Mapping[str, Mapping[str, Values]],
    means: Mapping[str, clusters.Common],
    seed: int,
) -> Comparison:
    found = Comparison(first.name, other.name, {}, {}, {})
    for name in names:
        a, b = values[first.name].get(name), values[other.name].get(name)
        if a is None or b is None:
            continue
        measured = [clusters.measured(run.figures(name)) for run in (first, other)]
        if a.metric != b.metric or (a.metric != "accuracy" and measured[0] != measured[1]):
            found.apart[name] = f"measured by {measured[0]} in {first.name} and {measured[1]} in {other.name}"
            continue
        # The directions of a translation have the same records, which are drawn alike: their mean varies with them.
        rng = np.random.default_rng([seed, zlib.crc32(catalog.whole(name).encode())])
        try:
            found.datasets[name] = _difference(a, b, rng)
        except UnusableError as error:
            found.apart[name] = str(error)
    for cluster, over in means.items():
        parts = [found.datasets.get(name) for name in over.datasets]
        # A mean of some of its datasets would pass for the table's; of one dataset it would be tested twice.
        if len(parts) > 1 and all(parts):
            found.clusters[cluster] = of_cluster(parts)
    return found


def _difference(a: Values, b: Values, rng: np.random.Generator) -> Difference:
    a_P, b_P = pair(a, b)
    groups_P = a.groups(a_P)
    first, other = a.sample(a_P, groups_P), b.sample(b_P, groups_P)
    value = other.value - first.value
    single = first.size == 1
    interval = Interval(value, statistics.differences(first, other, rng), single)
    wider = None
    if max(first.templates, other.templates) > 1:
        alike = same_templates(a, b)
        wider = statistics.differences(first, other, rng, over_templates=True, same_templates=alike)
    null = statistics.permuted_means(other.pseudo_values() - first.pseudo_values(), rng)
    return Difference(
        metric=a.metric,
        examples=len(a_P),
        groups=first.size,
        means=(first.value, other.value),
        interval=interval,
        over_templates=None if wider is None else Interval(value, wider, single),
        p=statistics.p_value(value, null) if first.size >= MIN_PAIRS else None,
        null=null,
    )


def of_cluster(parts: Sequence[Difference]) -> Difference:
    """The mean of the datasets' differences. Each dataset's signs are drawn by themselves, as its resamples are.

    Of variants with the same records they are the same draws.
    """
    interval = statistics.mean_of([d.interval for d in parts])
    count = min(d.groups for d in parts)
    null = np.mean([d.null for d in parts], axis=0)
    wider = None
    if any(d.over_templates for d in parts):
        wider = statistics.mean_of([d.over_templates or d.interval for d in parts])
    return Difference(
        metric="",
        examples=min(d.examples for d in parts),
        groups=count,
        means=(float(np.mean([d.means[0] for d in parts])), float(np.mean([d.means[1] for d in parts]))),
        interval=interval,
        over_templates=wider,
        p=statistics.p_value(interval.value, null) if count >= MIN_PAIRS else None,
        null=null,
    )

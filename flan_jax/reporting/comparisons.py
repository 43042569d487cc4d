"""Compares runs with the first one: paired differences with intervals, permutation tests, and Holm's correction."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import catalog
from flan_jax.evaluation import clusters
from flan_jax.reporting import statistics
from flan_jax.reporting.pairing import asked_alike, groups_of_both, has_other_exemplars, pair, same_templates
from flan_jax.reporting.runs import Run, UnusableError, common, dataset_names
from flan_jax.reporting.statistics import LEVEL, MIN_PAIRS, Interval
from flan_jax.reporting.values import Values

TOO_FEW = f"n < {MIN_PAIRS}"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference between a run and the first one, on a dataset or in a cluster's mean.

    Attributes:
      metric: the metric; empty for a cluster.
      examples: number of pairs; for a cluster, that of its smallest dataset.
      groups: number of groups of pairs that share a passage; they are drawn together. Without passages, each pair is a
        group.
      means: (first run, other run), means over the pairs.
      interval: the difference with its bootstrap over examples.
      over_templates: the same over examples and templates; None if neither run has several templates.
      p: of the permutation test; None if there are too few groups.
      corrected: p after Holm's correction over all tests of the report.
      null: the differences under permutation.
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
        """The verdict of the test: "higher" or "lower" if the corrected p is below 5 %.

        "n < 50" if there is no test; otherwise an empty text.
        """
        if self.p is None:
            return TOO_FEW
        if self.corrected is None or self.corrected >= LEVEL:
            return ""
        return "higher" if self.interval.value > 0 else "lower"

    def to_dict(self) -> dict[str, Any]:
        """The difference as values that JSON can hold; shares are from 0 to 1."""
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
    """A run compared with the first one.

    Attributes:
      first: the first run's name.
      other: the other run's name.
      datasets: differences on the examples that both have.
      clusters: differences of cluster means, if the mean has several datasets and each has a difference.
      apart: {dataset that both have: why it is not compared}.
      reworded: the compared datasets that were asked in other words, or in other templates. Such a difference is of
        model and wording together.
      other_exemplars: those that two logs asked alike, with other exemplars before some record.
    """

    first: str
    other: str
    datasets: dict[str, Difference]
    clusters: dict[str, Difference]
    apart: dict[str, str]
    reworded: list[str]
    other_exemplars: list[str]


def compare(runs: Sequence[Run], values: Mapping[str, Mapping[str, Values]], seed: int) -> list[Comparison]:
    """Compares each later run with the first one, and corrects all tests together.

    Args:
      runs: the report's runs.
      values: values by run and dataset.
      seed: the seed of resamples and permutations.
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
    """The number of tests that the correction counts."""
    return sum(d.p is not None for c in comparisons for d in (*c.datasets.values(), *c.clusters.values()))


def _compare(
    first: Run,
    other: Run,
    names: Sequence[str],
    values: Mapping[str, Mapping[str, Values]],
    means: Mapping[str, clusters.Common],
    seed: int,
) -> Comparison:
    found = Comparison(first.name, other.name, {}, {}, {}, [], [])
    for name in names:
        a, b = values[first.name].get(name), values[other.name].get(name)
        if a is None or b is None:
            continue
        measured = [clusters.measured(run.figures(name)) for run in (first, other)]
        if a.metric != b.metric or (a.metric != "accuracy" and measured[0] != measured[1]):
            found.apart[name] = f"measured by {measured[0]} in {first.name} and {measured[1]} in {other.name}"
            continue
        filters = [run.figures(name).get("filter") for run in (first, other)]
        if None not in filters and filters[0] != filters[1]:
            found.apart[name] = (
                f"its answers are filtered by {filters[0]} in {first.name} and {filters[1]} in {other.name}"
            )
            continue
        # The directions of a translation have the same records. They are drawn alike, so their mean varies with them.
        rng = np.random.default_rng([seed, zlib.crc32(catalog.whole(name).encode())])
        try:
            found.datasets[name] = _difference(a, b, rng)
            if not asked_alike(a, b):
                found.reworded.append(name)
            elif has_other_exemplars(a, b):
                found.other_exemplars.append(name)
        except UnusableError as error:
            found.apart[name] = str(error)
    for cluster, over in means.items():
        parts = [found.datasets.get(name) for name in over.datasets]
        # A mean over some of the datasets would look like the table's mean; a mean of one dataset would be tested
        # twice.
        if len(parts) > 1 and all(parts):
            found.clusters[cluster] = of_cluster(parts)
    return found


def _difference(a: Values, b: Values, rng: np.random.Generator) -> Difference:
    a_P, b_P = pair(a, b)
    groups_P = groups_of_both(a, b, a_P, b_P)
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
    """The difference of a cluster's mean, from those of its datasets.

    Signs are drawn separately for each dataset, like its resamples. Variants with the same records share their draws.
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

"""Means over the datasets of a cluster, as the paper prints them.

Every variant counts by itself (ANLI's three rounds are three datasets, not a third of one each, and the directions of
a translation are two): so the paper's tables give its printed means. Datasets that are not among the paper's 62 stand
apart. Of several runs a mean is over the datasets that all of them have, and says of how many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import catalog
from flan_jax.evaluation import labels

Figures = Mapping[str, Any]

_AVERAGED = ("mean", "best_dev", "random", "majority")


@dataclasses.dataclass(frozen=True)
class Common:
    """The datasets of a cluster that a mean is over.

    Attributes:
      cluster: its name.
      datasets: those that all runs with anything of the cluster have, measured by the same metric.
      of: how many the cluster has, variants counted.
      apart: evaluated datasets that are not among the paper's, and in no mean.
      not_shared: datasets that only some runs have.
      other_metric: datasets whose headline metric is not the same in all runs.
    """

    cluster: str
    datasets: tuple[str, ...]
    of: int
    apart: tuple[str, ...] = ()
    not_shared: tuple[str, ...] = ()
    other_metric: tuple[str, ...] = ()

    @property
    def partial(self) -> bool:
        """Whether the cluster has datasets that the mean is without."""
        return len(self.datasets) < self.of

    @property
    def count(self) -> str:
        """For a table: "5 of 10"."""
        return f"{len(self.datasets)} of {self.of}"


def members(cluster: str) -> tuple[str, ...]:
    """The datasets of a cluster that its mean is over when all are evaluated."""
    return tuple(d.name for d in catalog.evaluated(cluster) if d.is_averaged)


def is_extra(dataset: str) -> bool:
    """Whether a dataset is not among the paper's, as `wsc` and whatever the catalog does not have.

    A figure of earlier results that is over all variants of a dataset is in no mean either: it is none of them.
    """
    return dataset not in {d.name for d in catalog.evaluated() if d.is_averaged}


def headline_metric(figures: Figures) -> str:
    """The key of a dataset's headline metric; results of the first versions had accuracy alone."""
    return figures.get("metric", "accuracy")


def measured(figures: Figures) -> str:
    """What a dataset's headline figure is, version included: only the same can be averaged and compared.

    An accuracy is the same in all versions. Of other metrics earlier results do not record the version.
    """
    name = headline_metric(figures)
    version = (figures.get("headline_metric") or {}).get("version")
    return name if name == "accuracy" else f"{name} ({version or 'version not recorded'})"


def common(runs: Sequence[Mapping[str, Figures]]) -> dict[str, Common]:
    """What the mean of each cluster is over.

    Args:
      runs: the datasets' figures of each run. A run with no dataset of a cluster does not count there.
    """
    clusters = {d.name: d.cluster for d in catalog.evaluated()}
    evaluated: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        cluster = clusters.get(name) or next(run[name]["cluster"] for run in runs if name in run)
        evaluated.setdefault(cluster, []).append(name)
    order = {name: i for i, name in enumerate(clusters)}
    found = {}
    for cluster in sorted(evaluated, key=lambda c: min(order.get(n, len(order)) for n in evaluated[c])):
        names = sorted(evaluated[cluster], key=lambda name: order.get(name, len(order)))
        extras = tuple(name for name in names if is_extra(name))
        names = [name for name in names if name not in extras]
        having = [run for run in runs if any(name in run for name in names)]
        shared = [name for name in names if all(name in run for run in having)]
        other = tuple(n for n in shared if len({measured(run[n]) for run in having}) > 1)
        found[cluster] = Common(
            cluster,
            tuple(name for name in shared if name not in other),
            len(members(cluster)) if cluster in {c.name for c in catalog.clusters()} else 0,
            extras,
            tuple(name for name in names if name not in shared),
            other,
        )
    return found


def mean(run: Mapping[str, Figures], over: Common) -> dict[str, Any] | None:
    """A run's means over the datasets of a cluster that all runs have; None where it lacks one, or there is none.

    Returns:
      `mean`, `best_dev`, `random`, `majority` (None where a dataset has none); `datasets`, the names; `of`, how many
      the cluster has; `partial`; `status` and `label`, "mixed" where they differ.
    """
    if not over.datasets or any(name not in run for name in over.datasets):
        return None
    figures = [run[name] for name in over.datasets]

    def average(key: str) -> float | None:
        values = [f.get(key) for f in figures]
        return None if any(v is None for v in values) else float(np.mean(values))

    statuses = [f.get("status", labels.UNKNOWN) for f in figures]
    said = {"label": labels.joint(f["label"] for f in figures)} if all("label" in f for f in figures) else {}
    return {
        **{key: average(key) for key in _AVERAGED},
        "datasets": list(over.datasets),
        "of": over.of,
        "partial": over.partial,
        "status": statuses[0] if len(set(statuses)) == 1 else labels.MIXED,
        **said,
    }


def cluster_means(datasets: Mapping[str, Figures], invalid: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """The means of one run.

    Args:
      datasets: their figures.
      invalid: datasets without figures, because the model's numbers for them were not finite. A cluster's entry names
        its own as `left_out`.

    Returns:
      A `mean` by cluster. A cluster of which only extras were evaluated has none.
    """
    left_out: dict[str, list[str]] = {}
    for name in invalid:
        left_out.setdefault(catalog.dataset(name).cluster, []).append(name)
    found = {}
    for cluster, over in common([datasets]).items():
        if (figures := mean(datasets, over)) is not None:
            found[cluster] = figures | ({"left_out": left_out[cluster]} if cluster in left_out else {})
    return found

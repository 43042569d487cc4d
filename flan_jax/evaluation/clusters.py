"""Means over the datasets of a cluster, as the paper prints them.

Every variant counts as a dataset. ANLI's three rounds are three datasets, and the two directions of a translation are
two. Only in this way do the paper's tables give its printed means. Datasets outside the paper's 62 are in no mean. If
there are several runs, a mean is over the datasets that all of them have, and says how many these are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import catalog
from flan_jax.evaluation import labels

Figures = Mapping[str, Any]

BASELINES = ("random", "majority", "copied")  # what needs no model
_AVERAGED = ("mean", "best_dev", *BASELINES)


@dataclasses.dataclass(frozen=True)
class Common:
    """The datasets of a cluster that a mean is over.

    Attributes:
      cluster: the cluster's name.
      datasets: the datasets that every run with anything of the cluster has, measured by the same metric.
      of: how many datasets the cluster has; variants count separately.
      apart: evaluated datasets that are not among the paper's, and in no mean.
      not_shared: datasets that only some runs have.
      other_metric: datasets whose headline metric differs between runs.
    """

    cluster: str
    datasets: tuple[str, ...]
    of: int
    apart: tuple[str, ...] = ()
    not_shared: tuple[str, ...] = ()
    other_metric: tuple[str, ...] = ()

    @property
    def partial(self) -> bool:
        """Whether the mean lacks datasets of the cluster."""
        return len(self.datasets) < self.of

    @property
    def count(self) -> str:
        """How many datasets the mean has, for a table: "5 of 10"."""
        return f"{len(self.datasets)} of {self.of}"


def members(cluster: str) -> tuple[str, ...]:
    """The datasets in a cluster's mean if all are evaluated."""
    return tuple(d.name for d in catalog.evaluated(cluster) if d.is_averaged)


def is_extra(dataset: str) -> bool:
    """Whether a dataset is not one of the paper's, such as `wsc`, or is not in the catalog at all.

    Earlier results have one figure over all variants of a dataset. Such a figure is not one of the variants, so it is
    an extra too.
    """
    return dataset not in {d.name for d in catalog.evaluated() if d.is_averaged}


def headline_metric(figures: Figures) -> str:
    """The key of a dataset's headline metric. Results of the first versions only had accuracy."""
    return figures.get("metric", "accuracy")


def measured(figures: Figures) -> str:
    """Names what a headline figure measures, with the metric's version. Only equal names may be averaged or compared.

    Accuracy is the same in all versions. For other metrics, earlier results do not record the version.
    """
    name = headline_metric(figures)
    version = (figures.get("headline_metric") or {}).get("version")
    return name if name == "accuracy" else f"{name} ({version or 'version not recorded'})"


def common(runs: Sequence[Mapping[str, Figures]]) -> dict[str, Common]:
    """Finds the datasets that each cluster's mean is over.

    Args:
      runs: the figures of each run, by dataset. A run without any dataset of a cluster does not count there.

    Returns:
      A `Common` for each cluster, by its name.
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
    """A run's mean figures for a cluster; None if the run lacks one of the datasets, or there are none.

    Args:
      run: the run's figures, by dataset.
      over: the datasets of the mean.

    Returns:
      `mean`, `best_dev`, `random`, `majority` and `copied` (None if a dataset has none); `datasets`, their names;
      `of`, how many the cluster has; `partial`; `status` and `label`, "mixed" if they differ.
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
    """The means of one run, by cluster. A cluster of which only extras were evaluated has none.

    Args:
      datasets: the run's figures, by dataset.
      invalid: datasets without figures, because the model's numbers for them were not finite. Their clusters' means
        name them as `left_out`.
    """
    left_out: dict[str, list[str]] = {}
    for name in invalid:
        left_out.setdefault(catalog.dataset(name).cluster, []).append(name)
    found = {}
    for cluster, over in common([datasets]).items():
        if (figures := mean(datasets, over)) is not None:
            found[cluster] = figures | ({"left_out": left_out[cluster]} if cluster in left_out else {})
    return found

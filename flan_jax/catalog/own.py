"""Datasets and clusters that modules outside this package add; see `flan_jax.own_tasks`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax import own_tasks
from flan_jax.catalog.records import CLASSIFICATION, GENERATION, NAME, PAPER_CLUSTERS, Cluster, Dataset
from flan_jax.errors import FlanError, unknown_name
from flan_jax.lazy import lazy_imports
from flan_jax.templates import FORWARD, INVERTED, TEMPLATES_PER_DATASET, placeholders

with lazy_imports():  # launchers ask for names in an environment without NumPy
    from flan_jax import metrics


@dataclasses.dataclass(frozen=True)
class Own:
    """What modules outside this package add: datasets, their clusters, and the folder of each dataset's samples."""

    datasets: Mapping[str, Dataset]
    clusters: tuple[Cluster, ...]
    samples: Mapping[str, Path]


def added(names: str, taken: Collection[str], is_mixture: Callable[[str], bool]) -> Own:
    """Reads and checks what modules add. None of their datasets counts as one of the paper's, whatever its record says.

    Args:
      names: the modules, separated by commas.
      taken: names that a dataset cannot have.
      is_mixture: whether a name is the name of a mixture.

    Raises:
      FlanError: a module or a record is wrong.
    """
    datasets: dict[str, Dataset] = {}
    clusters: dict[str, Cluster] = {}
    samples: dict[str, Path] = {}
    for module in own_tasks.modules(names):
        records = getattr(module, "DATASETS", None)
        if not isinstance(records, Sequence) or not all(isinstance(one, Dataset) for one in records):
            raise FlanError(f"tasks {module.__name__}: it needs DATASETS, a list of flan_jax.catalog.Dataset.")
        for record in records:
            where = f"tasks {module.__name__}: dataset {record.name!r}"
            record = _as_tuples(record, where)
            if not NAME.fullmatch(record.name):
                raise FlanError(f"{where}: a name has small letters, digits and _, and begins with a letter.")
            if record.name in taken or record.name in datasets:
                raise FlanError(f"{where}: there is one of that name already; give it another.")
            if is_mixture(record.name) or record.name.startswith("flan_"):
                raise FlanError(f"{where}: it begins like the name of a mixture; give it another.")
            if not 1 <= len(record.templates) <= TEMPLATES_PER_DATASET:
                raise FlanError(f"{where} has {len(record.templates)} templates; give 1 to {TEMPLATES_PER_DATASET}.")
            if record.kind not in (CLASSIFICATION, GENERATION) or not record.metrics:
                raise FlanError(f"{where}: its kind is {CLASSIFICATION!r} or {GENERATION!r}, and it has a metric.")
            _check_directions(record, where)
            for name in record.metrics:
                try:
                    metrics.metric(name)
                except FlanError as error:
                    raise FlanError(f"{where}: {error}") from error
            cluster = record.own_cluster
            if cluster is not None:
                if (
                    cluster.name in {c.name for c in PAPER_CLUSTERS}
                    or clusters.setdefault(cluster.name, cluster) != cluster
                ):
                    raise FlanError(f"{where}: there is another cluster {cluster.name!r}; give yours another name.")
                if not NAME.fullmatch(cluster.name):
                    raise FlanError(f"{where}: cluster {cluster.name!r} is no name of small letters, digits and _.")
                if cluster.name in taken or is_mixture(cluster.name) or cluster.name.startswith("flan_"):
                    raise FlanError(
                        f"{where}: {cluster.name!r} means something else already; give its cluster another name."
                    )
                if isinstance(cluster.held_out_with, str):
                    raise FlanError(
                        f"{where}: held_out_with is a text; write it as a tuple, as ({cluster.held_out_with!r},)."
                    )
            datasets[record.name] = dataclasses.replace(record, in_flan=False)
            samples[record.name] = own_tasks.samples_of(module)
    if both := [name for name in datasets if name in clusters]:
        raise FlanError(f"tasks {names}: {both[0]!r} is a dataset and a cluster; give one of them another name.")
    for cluster in clusters.values():
        for other in cluster.held_out_with:
            if other not in clusters and other not in {c.name for c in PAPER_CLUSTERS}:
                known = (*clusters, *(c.name for c in PAPER_CLUSTERS))
                raise unknown_name("cluster", other, known, f"(held out with cluster {cluster.name})")
    return Own(datasets, tuple(clusters.values()), samples)


def _check_directions(record: Dataset, where: str) -> None:
    """Refuses a template that would be scored as a question, and is none.

    Raises:
      FlanError: the first.
    """
    for number, template in enumerate(record.templates):
        if template.direction not in (FORWARD, INVERTED):
            raise FlanError(
                f"{where}: template {number} has the direction {template.direction!r}; write {FORWARD!r} or "
                f"{INVERTED!r}."
            )
        asks = "answer" in placeholders(template.target) and "answer" not in placeholders(template.input)
        if template.is_forward and not asks:
            raise FlanError(
                f"{where}: template {number} is forward, so {{answer}} belongs in its target and not in its input; one "
                f"that shows the answer and asks for the rest is Template(INPUT, TARGET, {INVERTED!r})."
            )


def _as_tuples(record: Dataset, where: str) -> Dataset:
    """The record with tuples in place of its lists, so that it can be hashed.

    Raises:
      FlanError: a text stands in place of several values.
    """
    several: dict[str, Any] = {
        name: getattr(record, name) for name in ("templates", "metrics", "labels", "kin", "variants")
    }
    for name, value in several.items():
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise FlanError(f"{where}: {name} is {value!r:.80}; write it as a tuple, as (VALUE,).")
    several["labels"] = tuple(tuple(pair) for pair in several["labels"])
    tuples: dict[str, Any] = {name: tuple(value) for name, value in several.items()}
    return dataclasses.replace(record, **tuples)

"""Clusters, datasets and variants by name, which are kin of each other, and the hold-out rule."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flan_jax import own_data, own_tasks
from flan_jax.catalog.own import Own, added
from flan_jax.catalog.records import (
    MIXTURE,
    NAME,
    PAPER_CLUSTERS,
    PART,
    UNKNOWN_CLUSTER,
    Cluster,
    Dataset,
)
from flan_jax.errors import FlanError, unknown_name
from flan_jax.templates import Gpt3Prompt, Template

ALL = "all"  # the name of all parts of a mixture in its weights
_OF = "/"  # between the name of a dataset and the name of its variant

# ------------------------------------------------------------------------------------------------------- lookups


@functools.cache
def _papers() -> dict[str, Dataset]:
    """The datasets of this package."""
    found: dict[str, Dataset] = {}
    for module in PAPER_CLUSTERS:
        try:
            records = importlib.import_module(f"flan_jax.tasks.{module.name}").DATASETS
        except ModuleNotFoundError as error:
            if error.name != f"flan_jax.tasks.{module.name}":
                raise
            continue
        for record in records:
            if record.name in found:
                raise ValueError(f"dataset {record.name!r} is declared twice in tasks/")
            found[record.name] = record
    return found


@functools.cache
def _own(names: str) -> Own:
    """The datasets and clusters that modules outside this package add."""
    papers = _papers().values()
    taken = {
        *(record.name for record in papers),
        *(record.paper_dataset for record in papers),
        UNKNOWN_CLUSTER.name,
        ALL,
    }
    return added(names, {*taken, *(c.name for c in PAPER_CLUSTERS)}, lambda name: bool(MIXTURE.fullmatch(name)))


@functools.cache
def _prepared(definitions: str, names: str) -> dict[str, Dataset]:
    """A user's own datasets in `own_data.named`. Their records are text already, so one template shows them."""
    added_here = _own(names) if names else Own({}, (), {})
    own = {cluster.name: cluster for cluster in added_here.clusters}
    known = {*own, UNKNOWN_CLUSTER.name, *(c.name for c in PAPER_CLUSTERS)}
    for one in own_data.definitions(definitions):
        if one.name in added_here.datasets:
            raise FlanError(
                f"dataset {one.name!r} is prepared here from {one.origin}, and tasks {names} have another of that "
                "name: give one of them another."
            )
        if one.cluster not in known:
            raise FlanError(
                f"dataset {one.name!r}, prepared from {one.origin}, is of cluster {one.cluster!r}, which is not known "
                "here: give --tasks=MODULE, the module that has it."
            )
    return {
        one.name: Dataset(
            name=one.name,
            cluster=own.get(one.cluster, one.cluster),  # type: ignore[arg-type]  # it takes a Cluster too
            source=one.origin,
            fields=dict,
            templates=(Template("{inputs}"),),
            kind=one.kind,
            metrics=one.metrics,
            gpt3_prompt=Gpt3Prompt("{inputs}"),
            in_flan=False,
            written=one.vocabulary if one.template else "",
        )
        for one in own_data.definitions(definitions)
    }


def loaded() -> dict[str, Dataset]:
    """All datasets: the paper's, those of modules outside this package, and those of the PREPARED_DIR in use."""
    names, definitions = own_tasks.named(), own_data.named()
    if not names and not definitions:
        return _papers()
    return {**_papers(), **(_own(names).datasets if names else {}), **_prepared(definitions, names)}


def own_samples(name: str) -> Path | None:
    """The folder of the samples of a dataset that a module outside this package adds; None for other datasets."""
    return _own(own_tasks.named()).samples.get(whole(name))


def refuse_name(name: str) -> None:
    """Checks the name of a user's own dataset.

    Raises:
      FlanError: it has forbidden characters, or it already means something else.
    """
    if not NAME.fullmatch(name):
        raise FlanError(
            f"{name!r} is no name of a dataset: small letters, digits and _, with a letter first; give --name=my_data."
        )
    others = {**_papers(), **_own(own_tasks.named()).datasets}
    if name in others or any(name == other.paper_dataset for other in others.values()):
        raise FlanError(f"{name!r} is a dataset of the catalog: give yours another name.")
    if name in {c.name for c in (*clusters(), UNKNOWN_CLUSTER)}:
        raise FlanError(f"{name!r} is a cluster: give your dataset another name.")
    if name == ALL:
        raise FlanError(f"{name!r} stands for all datasets in the weights of a mixture: give yours another name.")
    if MIXTURE.fullmatch(name) or name.startswith("flan_"):
        raise FlanError(f"{name!r} begins like the name of a mixture: give your dataset another name.")


def clusters() -> tuple[Cluster, ...]:
    """All clusters: the paper's in its order, then the user's own."""
    return (*PAPER_CLUSTERS, *_own(own_tasks.named()).clusters)


def cluster(name: str) -> Cluster:
    """The cluster with this name.

    Raises:
      FlanError: there is none; the message has near matches.

    Example:
      >>> cluster("nli").title
      'Natural language inference'
    """
    for candidate in (*clusters(), UNKNOWN_CLUSTER):
        if candidate.name == name:
            return candidate
    raise unknown_name("cluster", name, (c.name for c in clusters()))


def datasets(cluster_name: str | None = None) -> tuple[Dataset, ...]:
    """All datasets, or those of one cluster, in the catalog's order.

    Raises:
      FlanError: the cluster does not exist.

    Example:
      >>> [record.name for record in datasets("coreference")]
      ['definite_pronoun_resolution', 'winogrande', 'wsc273', 'wsc']
    """
    if cluster_name is None:
        return tuple(loaded().values())
    wanted = cluster(cluster_name).name
    return tuple(d for d in loaded().values() if d.cluster == wanted)


def dataset(name: str) -> Dataset:
    """The dataset or variant with this name, such as "wmt14_enfr" or "wmt14_enfr/fr-en".

    Raises:
      FlanError: there is none; the message has near matches.

    Example:
      >>> record = dataset("rte")
      >>> record.cluster, record.source, len(record.templates)
      ('nli', 'super_glue/rte:1.0.2', 10)
      >>> dataset("rtee")
      Traceback (most recent call last):
      ...
      flan_jax.errors.FlanError: unknown dataset 'rtee': did you mean 'rte' or 'trec' or 'dart'?
    """
    known = _known()
    if name not in known:
        raise unknown_name("dataset", name, known if _OF in name else loaded())
    return known[name]


def named(name: str) -> tuple[Dataset, ...]:
    """The dataset or variant with this name, or all datasets of the cluster with this name.

    Raises:
      FlanError: there is neither; the message has near matches.

    Example:
      >>> [record.name for record in named("coreference")]
      ['definite_pronoun_resolution', 'winogrande', 'wsc273', 'wsc']
    """
    names = [c.name for c in clusters()]
    if name in names:
        return datasets(name)
    known = _known()
    if name not in known:
        raise unknown_name("dataset or cluster", name, [*(known if _OF in name else loaded()), *names])
    return (known[name],)


def exists(name: str) -> bool:
    """Whether there is a dataset or variant with this name.

    Example:
      >>> exists("rte"), exists("wmt14_enfr/fr-en"), exists("nli")
      (True, True, False)
    """
    return name in _known()


# ------------------------------------------------------------------------------------------------------- variants


def _known() -> dict[str, Dataset]:
    """Datasets and variants by name."""
    return _known_with(own_tasks.named(), own_data.named())


@functools.cache
def _known_with(names: str, definitions: str) -> dict[str, Dataset]:
    found = dict(loaded())
    for record in loaded().values():
        found |= {one.name: one for one in variants(record)}
    return found


@functools.cache
def variants(record: Dataset) -> tuple[Dataset, ...]:
    """The records that evaluation scores separately: the variants of a dataset, or the dataset itself if it has none.

    Example:
      >>> [record.name for record in variants(dataset("wmt14_enfr"))]
      ['wmt14_enfr/en-fr', 'wmt14_enfr/fr-en']
    """
    if not record.variants:
        return (record,)
    return tuple(_variant(record, number) for number in range(len(record.variants)))


def _variant(record: Dataset, number: int) -> Dataset:
    def fields(row: Mapping[str, Any]) -> dict[str, Any]:
        assert record.expand is not None  # all records with variants have it
        return {name: value[number] for name, value in record.expand(row).items()}

    name = record.variants[number]
    own = f"{record.name}{_OF}{name}"
    return dataclasses.replace(record, name=own, variant=name, fields=fields, expand=None, variants=())


def evaluated(cluster_name: str | None = None) -> tuple[Dataset, ...]:
    """All records that can be evaluated, or those of one cluster. A dataset with variants is replaced by them.

    Raises:
      FlanError: the cluster does not exist.
    """
    return tuple(one for record in datasets(cluster_name) for one in variants(record))


def whole(name: str) -> str:
    """The name of the dataset that a variant belongs to. Any other name is returned as it is.

    Example:
      >>> whole("wmt14_enfr/fr-en"), whole("rte")
      ('wmt14_enfr', 'rte')
    """
    base, _, variant = name.partition(_OF)
    return base if base in loaded() and variant in loaded()[base].variants else name


def record_id(example_id: str) -> str:
    """The id of the record that an example was made from.

    Example:
      >>> record_id("12#fr-en")
      '12'
    """
    return example_id.partition(PART)[0]


def kin_of(name: str) -> dict[str, str]:
    """The datasets that were made from the same texts as this one, and how they are related.

    It does not matter which of the two records says so. Kin outside the catalog, such as xquad, has its own name.
    Variants of a dataset are not each other's kin.

    Returns:
      {name: how the two share text}.
    """
    return _kin_of(whole(name), own_tasks.named(), own_data.named())


@functools.cache
def _kin_of(name: str, names: str, definitions: str) -> dict[str, str]:
    own = {name, loaded()[name].paper_dataset} if name in loaded() else {name}
    found: dict[str, str] = {}
    for record in loaded().values():
        for other, how in record.kin:
            others = [d.name for d in loaded().values() if other in (d.name, d.paper_dataset)] or [other]
            if record.name in own:
                found |= dict.fromkeys(others, how)
            elif own & {other, *others}:
                found[record.name] = how
    return found


# ------------------------------------------------------------------------------------------------------- hold-out


def held_out_together(cluster_name: str) -> frozenset[str]:
    """The clusters that leave the tuning mixture when `cluster_name` is evaluated, itself included.

    The paper's clusters name each other. For a user's own cluster it is enough that it names the other one.

    Example:
      >>> sorted(held_out_together("nli"))
      ['nli', 'paraphrase']
    """
    naming = (other.name for other in clusters() if cluster_name in other.held_out_with)
    return frozenset({cluster_name, *cluster(cluster_name).held_out_with, *naming})


def shares_cluster(record: Dataset, trained_clusters: Collection[str]) -> bool:
    """Whether the hold-out rule counts `record` with any of the trained clusters, as far as clusters are known.

    Raises:
      FlanError: a trained cluster is somebody's own and not known here, so nobody can tell what it holds out.
    """
    if missing := sorted(set(trained_clusters) - {c.name for c in (*clusters(), UNKNOWN_CLUSTER)}):
        raise FlanError(
            f"whether {record.name} is held out cannot be told: the model was tuned on cluster {missing[0]!r}, which "
            "is not known here; give --tasks=MODULE (or the macro TASKS) with it."
        )
    return bool(held_out_together(record.cluster) & set(trained_clusters) - {UNKNOWN_CLUSTER.name})


def is_held_out(record: Dataset, trained_clusters: Collection[str]) -> bool:
    """Whether `record` is unseen by a model tuned on `trained_clusters` (paper, section 2.2 and appendix).

    The answer is no if the record's cluster or a trained cluster is "unknown", because then nobody can tell.

    Raises:
      FlanError: a trained cluster is somebody's own and not known here, so nobody can tell what it holds out.

    Example:
      >>> is_held_out(dataset("rte"), ["sentiment"]), is_held_out(dataset("rte"), ["paraphrase"])
      (True, False)
    """
    shared = shares_cluster(record, trained_clusters)
    return not shared and UNKNOWN_CLUSTER.name not in (record.cluster, *trained_clusters)

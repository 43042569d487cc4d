"""The catalog: clusters, datasets, mixtures and the hold-out rule. No TensorFlow, no JAX.

A dataset is one record in its cluster's module under `tasks/`. To add a dataset, add a record; nothing else changes.
Training takes one example of each record of a dataset. Evaluation asks all examples that a record gives
(`Dataset.expand`): every turn of a conversation, or a translation in both directions. Directions are scored
separately, so `evaluated` has a record for each, such as `wmt14_enfr/fr-en`.
"""

from flan_jax.catalog.known import (
    ALL,
    cluster,
    clusters,
    dataset,
    datasets,
    evaluated,
    exists,
    held_out_together,
    is_held_out,
    kin_of,
    named,
    own_samples,
    record_id,
    refuse_name,
    shares_cluster,
    variants,
    whole,
)
from flan_jax.catalog.mixtures import RATE_CAP, first_datasets, mixing_rate, mixture, mixture_names
from flan_jax.catalog.records import (
    CLASSIFICATION,
    GENERATION,
    NAME,
    PAPER_CLUSTERS,
    PART,
    UNKNOWN_CLUSTER,
    VARIANT,
    Cluster,
    Dataset,
)

__all__ = [
    "ALL",
    "CLASSIFICATION",
    "GENERATION",
    "NAME",
    "PAPER_CLUSTERS",
    "PART",
    "RATE_CAP",
    "UNKNOWN_CLUSTER",
    "VARIANT",
    "Cluster",
    "Dataset",
    "cluster",
    "clusters",
    "dataset",
    "datasets",
    "evaluated",
    "exists",
    "first_datasets",
    "held_out_together",
    "is_held_out",
    "kin_of",
    "mixing_rate",
    "mixture",
    "mixture_names",
    "named",
    "own_samples",
    "record_id",
    "refuse_name",
    "shares_cluster",
    "variants",
    "whole",
]

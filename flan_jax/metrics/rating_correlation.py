"""Pearson's and Spearman's correlation of answers with people's original ratings, as in GLUE for STS-B.

The references are the ratings rounded to the numbers that can be answered. `pearson_spearman` correlates with those, as
the paper's pipeline did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.metrics import CORRELATION, Metric, library, metric

_RATING = "rating"  # the field of a record


def _of_ratings(targets: Sequence[Mapping[str, Any]]) -> list[str]:
    return [target[_RATING] for target in targets]


def rating_correlation(targets: Sequence[Mapping[str, Any]], predictions: Sequence[str]) -> dict[str, float]:
    """The correlations in percent; 0 if either side is constant.

    Args:
      targets: {"references", "rating"} of each example; the rating is a number as text.
      predictions: a number each, as text.

    Raises:
      FlanError: a rating is no number.
    """
    found = metric("pearson_spearman")(_of_ratings(targets), predictions)
    return {f"{key}_{_RATING}": value for key, value in found.items()}


METRIC = Metric(
    name="rating_correlation",
    version=f"{library('scipy')}, ratings as given",
    headline="pearson_rating",
    secondary=("spearman_rating",),
    compute=rating_correlation,
    statistics=lambda targets, predictions: metric("pearson_spearman").statistics(_of_ratings(targets), predictions),
    of_sums=lambda sums: metric("pearson_spearman").of_sums(sums),
    undefined=lambda targets, predictions: tuple(
        f"{key}_{_RATING}" for key in metric("pearson_spearman").undefined(_of_ratings(targets), predictions)
    ),
    needs=(_RATING,),
    ranges={"pearson_rating": CORRELATION, "spearman_rating": CORRELATION},
)

"""Bootstrap over examples and templates, paired permutation tests, Holm's correction, and calibration. All vectorised.

The caller's generator makes everything reproducible. Values are 0 to 1, in arrays of examples x templates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.reporting.samples import Sample

REPLICATES = 2000  # resamples of a bootstrap
PERMUTATIONS = 10_000  # of a test; its smallest p is 1 / 10,001
MIN_PAIRS = 50  # with fewer examples a test gives no verdict
LEVEL = 0.05  # level of a verdict, after Holm's correction
BINS = 10
_ROUNDING = 1e-9  # for sums in another order
_AT_ONCE = 4_000_000  # numbers in an array of resamples or signs


# -------------------------------------------------------------------------------------------------------- bootstrap


def counts_of_resamples(size: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `size` things is drawn in each resample with replacement: replicates x size, float32.

    Args:
      size: the number of things.
      replicates: the number of resamples.
      rng: the generator.
    """
    drawn_RxN = rng.integers(0, size, (replicates, size))
    drawn_RxN += size * np.arange(replicates)[:, None]
    return np.bincount(drawn_RxN.ravel(), minlength=replicates * size).reshape(replicates, size).astype(np.float32)


def bootstrap(
    sample: Sample | np.ndarray,
    rng: np.random.Generator,
    replicates: int = REPLICATES,
    *,
    over_templates: bool = False,
) -> np.ndarray:
    """Figures of resamples of the examples, or of examples and templates, which are resampled independently.

    Efron and Tibshirani 1993, chapter 6; for crossed factors Owen 2007 ("the pigeonhole bootstrap").

    Args:
      sample: what the figure is computed from. For a mean, an array with a value for each example and template will do.
      rng: the generator.
      replicates: the number of resamples.
      over_templates: whether templates are resampled too.

    Returns:
      One figure for each resample, the mean over the templates.
    """
    (values_RxT,) = _resampled([_sample(sample)], rng, replicates)
    if not over_templates:
        return values_RxT.mean(1)
    templates = values_RxT.shape[1]
    return (values_RxT * counts_of_resamples(templates, replicates, rng)).sum(1) / templates


def _sample(given: Sample | np.ndarray) -> Sample:
    return given if isinstance(given, Sample) else Sample.of_values(given)


def _resampled(samples: Sequence[Sample], rng: np.random.Generator, replicates: int) -> list[np.ndarray]:
    """The figures of each template, R x T. All samples must have the same groups, which are drawn alike."""
    groups = samples[0].size
    at_once = max(1, _AT_ONCE // groups)
    blocks = []
    for done in range(0, replicates, at_once):
        counts = counts_of_resamples(groups, min(at_once, replicates - done), rng)
        blocks.append([sample.of_counts(counts) for sample in samples])
    return [np.concatenate(block) for block in zip(*blocks, strict=True)]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean, or a difference of means, with its bootstrap distribution.

    Attributes:
      value: the mean, or the other run's mean minus the first one's.
      replicates: the values of the resamples.
      single: whether there is only one example or passage, so that all resamples are the same.
    """

    value: float
    replicates: np.ndarray
    single: bool = False

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The central 95 % of the resamples; None for a single example, which says nothing about others."""
        if self.single:
            return None
        low, high = np.percentile(self.replicates, (2.5, 97.5))
        return float(low), float(high)

    @property
    def has_no_width(self) -> bool:
        """Whether all resamples have the same figure although there are several examples."""
        return not self.single and bool(np.ptp(self.replicates) < _ROUNDING)

    @property
    def stderr(self) -> float | None:
        """The standard deviation of the resamples; None for a single example."""
        return None if self.single else float(self.replicates.std(ddof=1))

    def to_dict(self) -> dict[str, object]:
        """Bounds and standard error, for JSON."""
        return {"interval": None if self.bounds is None else list(self.bounds), "stderr": self.stderr}


def mean_of(intervals: Sequence[Interval]) -> Interval:
    """The mean of several intervals that were resampled independently, such as the datasets of a cluster."""
    return Interval(
        float(np.mean([i.value for i in intervals])),
        np.asarray(np.mean([i.replicates for i in intervals], axis=0, dtype=np.float64)),
        any(i.single for i in intervals),
    )


def differences(
    first: Sample | np.ndarray,
    other: Sample | np.ndarray,
    rng: np.random.Generator,
    replicates: int = REPLICATES,
    *,
    over_templates: bool = False,
    same_templates: bool = False,
) -> np.ndarray:
    """Differences (other - first) of the figures of resamples. The same examples are drawn for both.

    Args:
      first: the first run's sample.
      other: the other run's sample, with the same groups of examples.
      rng: the generator.
      replicates: the number of resamples.
      over_templates: whether templates are resampled too.
      same_templates: whether template t is the same in both; templates are then paired like examples.
    """
    first_RxT, other_RxU = _resampled([_sample(first), _sample(other)], rng, replicates)
    if not over_templates:
        return other_RxU.mean(1) - first_RxT.mean(1)
    t, u = first_RxT.shape[1], other_RxU.shape[1]
    drawn_RxT = counts_of_resamples(t, replicates, rng)
    drawn_RxU = drawn_RxT if same_templates else counts_of_resamples(u, replicates, rng)
    return (other_RxU * drawn_RxU).sum(1) / u - (first_RxT * drawn_RxT).sum(1) / t


# ------------------------------------------------------------------------------------------------------------ tests


def permuted_means(differences_E: np.ndarray, rng: np.random.Generator, permutations: int = PERMUTATIONS) -> np.ndarray:
    """Means of paired differences with random signs: what they would be if the two runs were alike.

    Args:
      differences_E: other - first for each example. If the figure is not a mean over examples, for each group of
        examples what it contributes (`Sample.pseudo_values`).
      rng: the generator of the signs.
      permutations: how many times signs are drawn.
    """
    size = len(differences_E)
    # A zero has no sign; one is drawn anyway, so that the signs of the others do not depend on it.
    some_E = np.abs(differences_E) > _ROUNDING
    kept = differences_E[some_E].astype(np.float64)
    if not len(kept):
        return np.zeros(permutations)
    parts = []
    at_once = max(1, _AT_ONCE // size)
    for done in range(0, permutations, at_once):
        rows = min(at_once, permutations - done)
        bits = np.unpackbits(np.frombuffer(rng.bytes(-(-rows * size // 8)), np.uint8), count=rows * size)
        parts.append(2.0 * (bits.reshape(rows, size)[:, some_E].astype(np.float32) @ kept) - kept.sum())
    return np.concatenate(parts) / size


def p_value(difference: float, null_P: np.ndarray) -> float:
    """The two-sided p value: the share of permutations that are at least as far from zero, counting the real one.

    Args:
      difference: the mean that was found.
      null_P: the result of `permuted_means`.
    """
    return float((1 + np.sum(np.abs(null_P) >= abs(difference) - _ROUNDING)) / (len(null_P) + 1))


def holm(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """p values after Holm's correction (Holm 1979) for as many tests as there are.

    Args:
      p_values: p values by any key.

    Example:
      >>> holm({"rte": 0.01, "cb": 0.04})
      {'rte': 0.02, 'cb': 0.04}
    """
    found, largest = {}, 0.0
    for rank, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        found[key] = largest
    return found


# ---------------------------------------------------------------------------------------------------------- answers


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, first quartile, third quartile), interpolated linearly."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(middle), float(low), float(high)


# ------------------------------------------------------------------------------------------------------ calibration


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy, in bins of equal width over (0, 1].

    Attributes:
      counts_B: the number of predictions in each bin.
      confidences_B: the sum of their confidences.
      right_B: how many of them are right.
    """

    counts_B: np.ndarray
    confidences_B: np.ndarray
    right_B: np.ndarray

    @classmethod
    def of(cls, confidences_N: np.ndarray, right_N: np.ndarray, bins: int = BINS) -> Calibration:
        """Sorts predictions into bins."""
        place_N = np.clip(np.ceil(confidences_N * bins).astype(np.int64) - 1, 0, bins - 1)
        counts, confidences, right = (
            np.bincount(place_N, weights, bins) for weights in (None, confidences_N, right_N.astype(np.float64))
        )
        return cls(counts, confidences, right)

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(
            self.counts_B + other.counts_B, self.confidences_B + other.confidences_B, self.right_B + other.right_B
        )

    @property
    def error(self) -> float:
        """The expected calibration error (Guo et al. 2017, equation 3).

        It is the mean distance between accuracy and confidence, weighted by the number of predictions in each bin.
        """
        return float(np.abs(self.right_B - self.confidences_B).sum() / self.counts_B.sum())

    def to_list(self) -> list[dict[str, float]]:
        """The bins that hold predictions: borders, count, mean confidence, accuracy."""
        width = 1 / len(self.counts_B)
        return [
            {
                "low": i * width,
                "high": (i + 1) * width,
                "count": int(count),
                "confidence": float(self.confidences_B[i] / count),
                "accuracy": float(self.right_B[i] / count),
            }
            for i, count in enumerate(self.counts_B)
            if count
        ]


def option_probabilities(loglikelihoods: np.ndarray) -> np.ndarray:
    """The softmax of the options' sums of log-likelihoods."""
    shifted = np.exp(loglikelihoods - np.max(loglikelihoods))
    return shifted / shifted.sum()

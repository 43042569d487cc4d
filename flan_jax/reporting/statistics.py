"""Bootstrap over examples and over templates, paired permutation tests, Holm's correction, calibration. All vectorised.

Everything is seeded by the caller's generator. Values are 0 to 1, in arrays of examples x templates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.reporting.samples import Sample

REPLICATES = 2000  # resamples of a bootstrap
PERMUTATIONS = 10_000  # of a test: its smallest p is 1 / 10,001
MIN_PAIRS = 50  # examples below which a test gives no verdict
LEVEL = 0.05  # of a verdict, after Holm's correction
BINS = 10
_ROUNDING = 1e-9  # sums in another order
_AT_ONCE = 4_000_000  # numbers of an array of resamples or signs


# -------------------------------------------------------------------------------------------------------- bootstrap


def counts_of_resamples(size: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `size` things is drawn in each resample with replacement: replicates x size, float32.

    Args:
      size: how many things there are.
      replicates: how many resamples.
      rng: draws.
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
    """Figures of resamples of the examples, or of examples and templates, each resampled by itself.

    Efron and Tibshirani 1993, chapter 6; for crossed factors Owen 2007 ("the pigeonhole bootstrap").

    Args:
      sample: what the figure is computed from; of a mean, a value for each example and template is enough.
      rng: draws the resamples.
      replicates: how many.
      over_templates: whether templates are resampled too.

    Returns:
      A figure a replicate, the mean over the templates.
    """
    (values_RxT,) = _resampled([_sample(sample)], rng, replicates)
    if not over_templates:
        return values_RxT.mean(1)
    templates = values_RxT.shape[1]
    return (values_RxT * counts_of_resamples(templates, replicates, rng)).sum(1) / templates


def _sample(given: Sample | np.ndarray) -> Sample:
    return given if isinstance(given, Sample) else Sample.of_values(given)


def _resampled(samples: Sequence[Sample], rng: np.random.Generator, replicates: int) -> list[np.ndarray]:
    """The figures of each template, R x T, where all samples, of the same groups, are drawn alike."""
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
      value: the mean, or the other run's less the first's.
      replicates: those of the resamples.
      single: whether all of it is one example, or one passage, of which every resample is the same.
    """

    value: float
    replicates: np.ndarray
    single: bool = False

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The central 95 % of the replicates; None of a single example, which says nothing of others."""
        if self.single:
            return None
        low, high = np.percentile(self.replicates, (2.5, 97.5))
        return float(low), float(high)

    @property
    def has_no_width(self) -> bool:
        """Whether all resamples have the same figure, though they are of several examples."""
        return not self.single and bool(np.ptp(self.replicates) < _ROUNDING)

    @property
    def stderr(self) -> float | None:
        """Standard deviation of the replicates; None of a single example."""
        return None if self.single else float(self.replicates.std(ddof=1))

    def to_dict(self) -> dict[str, object]:
        """Bounds and standard error, for JSON."""
        return {"interval": None if self.bounds is None else list(self.bounds), "stderr": self.stderr}


def mean_of(intervals: Sequence[Interval]) -> Interval:
    """The mean of several that were resampled by themselves, as of the datasets of a cluster."""
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
    """Differences (other - first) of the figures of resamples of the examples, which are drawn alike for both.

    Args:
      first: of the first run.
      other: of the same groups of examples in the other run.
      rng: draws the resamples.
      replicates: how many.
      over_templates: whether templates are resampled too.
      same_templates: whether template t of both is the same; then templates are paired as the examples are.
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
    """Means of paired differences with signs that are drawn: what they would be, were the two runs alike.

    Args:
      differences_E: other - first of each example; of a figure that is no mean over examples, of what each group of
        examples adds to it (`Sample.pseudo_values`).
      rng: draws the signs.
      permutations: how many times.
    """
    size = len(differences_E)
    some_E = np.abs(differences_E) > _ROUNDING  # a zero has no sign; one is drawn, so that others' do not depend on it
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
    """Two-sided: the share of permutations that are at least as far from zero, the real one counted among them.

    Args:
      difference: the mean that was found.
      null_P: what `permuted_means` gave.
    """
    return float((1 + np.sum(np.abs(null_P) >= abs(difference) - _ROUNDING)) / (len(null_P) + 1))


def holm(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """p values after Holm's correction for as many tests as there are (Holm 1979), each by its key."""
    found, largest = {}, 0.0
    for rank, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        found[key] = largest
    return found


# ---------------------------------------------------------------------------------------------------------- answers


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, first quartile, third quartile), between values by a straight line."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(middle), float(low), float(high)


# ------------------------------------------------------------------------------------------------------ calibration


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy, in bins of equal width over (0, 1].

    Attributes:
      counts_B: predictions in each bin.
      confidences_B: sums of their confidences.
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
        """Expected calibration error: the mean distance of accuracy and confidence, weighted by the bins' counts.

        Guo et al. 2017, equation 3.
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
    """Softmax over the options of their sums of log-likelihoods."""
    shifted = np.exp(loglikelihoods - np.max(loglikelihoods))
    return shifted / shifted.sum()

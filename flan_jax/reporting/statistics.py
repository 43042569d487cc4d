"""Paired bootstrap and calibration."""

from __future__ import annotations

import dataclasses

import numpy as np

REPLICATES = 2000
BINS = 10


def bootstrap_means(values_E: np.ndarray, rng: np.random.Generator, replicates: int = REPLICATES) -> np.ndarray:
    """Means of resamples of E values with replacement, one a replicate (Efron and Tibshirani 1993, chapter 6).

    Args:
      values_E: one number an example.
      rng: draws the resamples.
      replicates: how many.
    """
    count = len(values_E)
    at_once = max(1, 1_000_000 // count)
    found = [
        values_E[rng.integers(0, count, (min(at_once, replicates - done), count))].mean(1)
        for done in range(0, replicates, at_once)
    ]
    return np.concatenate(found)


@dataclasses.dataclass(frozen=True)
class Interval:
    """A difference with its bootstrap distribution.

    Attributes:
      difference: the other run's mean less the first's.
      replicates: differences of the resamples.
    """

    difference: float
    replicates: np.ndarray

    @property
    def bounds(self) -> tuple[float, float]:
        """The central 95 % of the replicates."""
        low, high = np.percentile(self.replicates, (2.5, 97.5))
        return float(low), float(high)

    @property
    def stderr(self) -> float:
        """Standard deviation of the replicates."""
        return float(self.replicates.std(ddof=1))


def paired_difference(
    first_ExT: np.ndarray, other_ExU: np.ndarray, rng: np.random.Generator, replicates: int = REPLICATES
) -> Interval:
    """The difference of two runs on the same examples, which are resampled together.

    Args:
      first_ExT: a value for each example and template of the first run.
      other_ExU: the same examples in the other run, with its own templates; each example counts by its mean over them.
      rng: draws the resamples.
      replicates: how many.
    """
    differences_E = other_ExU.mean(1) - first_ExT.mean(1)
    return Interval(float(differences_E.mean()), bootstrap_means(differences_E, rng, replicates))


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

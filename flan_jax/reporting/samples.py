"""The data behind a figure in a form that can be resampled: sums over the examples that are drawn together.

A mean needs the sum of its values and their number, BLEU the counts of its n-grams, a correlation six sums. Examples
that share a passage, such as the turns of a conversation, form a group that is drawn as a whole. They are as dependent
as the sentences of one text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np


def of_mean(sums: np.ndarray) -> np.ndarray:
    """Means from sums [..., 2] of values and of ones."""
    return sums[..., 0] / sums[..., 1]


@dataclasses.dataclass(frozen=True)
class Sample:
    """The examples of a dataset in a run, or in each run of a group whose figures are averaged.

    Attributes:
      parts: for each run, sums of K statistics over G groups of examples with T templates, [G, T, K], float64.
      value_of: maps sums [..., K] to values [...], 0 to 1.
    """

    parts: tuple[np.ndarray, ...]
    value_of: Callable[[np.ndarray], np.ndarray] = of_mean

    @classmethod
    def of_values(cls, values_ExT: np.ndarray, groups_E: np.ndarray | None = None) -> Sample:
        """A sample for a figure that is the mean of values of single examples.

        Args:
          values_ExT: a value for each example and template.
          groups_E: the number of each example's group, from 0; None draws every example alone.
        """
        stats_ExTx2 = np.stack([values_ExT, np.ones_like(values_ExT)], axis=-1)
        return cls.of_statistics([stats_ExTx2], of_mean, groups_E)

    @classmethod
    def of_statistics(
        cls,
        statistics: Sequence[np.ndarray],
        value_of: Callable[[np.ndarray], np.ndarray],
        groups_E: np.ndarray | None = None,
    ) -> Sample:
        """A sample for a figure that is computed from sums of statistics.

        Args:
          statistics: for each run, the statistics of its examples, [E, T, K].
          value_of: maps sums [..., K] to values [...], 0 to 1.
          groups_E: the number of each example's group, from 0; None draws every example alone.
        """
        parts = [part.astype(np.float64) for part in statistics]
        return cls(tuple(part if groups_E is None else _summed(part, groups_E) for part in parts), value_of)

    @property
    def size(self) -> int:
        """The number of groups, which are drawn independently."""
        return len(self.parts[0])

    @property
    def templates(self) -> int:
        """The number of templates."""
        return self.parts[0].shape[1]

    @property
    def values_T(self) -> np.ndarray:
        """The figure of each template."""
        return self.of_counts(np.ones((1, self.size)))[0]

    @property
    def value(self) -> float:
        """The mean over the templates."""
        return float(self.values_T.mean())

    def of_counts(self, counts_RxG: np.ndarray) -> np.ndarray:
        """The figure of each template if group g is drawn `counts_RxG[r, g]` times: R x T."""
        found = []
        for part in self.parts:
            groups, templates, width = part.shape
            sums_RxTxK = (counts_RxG @ part.reshape(groups, -1)).reshape(len(counts_RxG), templates, width)
            found.append(self.value_of(sums_RxTxK))
        return np.mean(found, axis=0)

    def pseudo_values(self) -> np.ndarray:
        """What each of the G groups contributes to the figure, averaged over templates.

        Their mean is close to the figure.

        These are the jackknife's pseudo-values (Tukey 1958): G times the figure minus G - 1 times the figure without
        the group. If the figure is a mean and each example is its own group, they are the examples' values.
        """
        if self.size == 1:
            return np.array([self.value])
        return self.size * self.value - (self.size - 1) * self.without_each().mean(1)

    def without_each(self) -> np.ndarray:
        """The figure of each template without each group: G x T, for two groups or more."""
        return np.mean([self.value_of(part.sum(0, keepdims=True) - part) for part in self.parts], axis=0)


def _summed(statistics_ExTxK: np.ndarray, groups_E: np.ndarray) -> np.ndarray:
    found = np.zeros((int(groups_E.max()) + 1, *statistics_ExTxK.shape[1:]))
    np.add.at(found, groups_E, statistics_ExTxK)
    return found

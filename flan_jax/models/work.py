"""Counts what a batch of packed rows asks a model to compute, from the rows themselves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flan_jax.models import costs


def of_batch(batch: Mapping[str, np.ndarray]) -> costs.Work:
    """The work of a step on these rows. Padding does not count, and a slot looks at its own segment only.

    In a decoder it looks at itself and the slots before it. Windows are not taken into account.

    Args:
      batch: rows from `data.stream.Stream.batch`.
    """
    own = _lengths(batch["segments"])
    found = {"slots": own.sum(), "head_slots": np.count_nonzero(batch["weights"]), "pairs": (own * (own + 1)).sum() / 2}
    if "encoder_segments" in batch:
        ahead = _lengths(batch["encoder_segments"])
        both = min(own.shape[1], ahead.shape[1])
        found |= {"encoder_slots": ahead.sum(), "encoder_pairs": np.square(ahead).sum()}
        found |= {"cross_pairs": (own[:, :both] * ahead[:, :both]).sum()}
    return costs.Work(**{name: float(number) for name, number in found.items()})


def _lengths(segments_BxL: np.ndarray) -> np.ndarray:
    """The number of slots of each segment in each row, [rows, segments]. Padding, which has number 0, is left out."""
    rows, most = len(segments_BxL), int(segments_BxL.max(initial=0)) + 1
    numbers = segments_BxL + most * np.arange(rows)[:, None]
    return np.bincount(numbers.ravel(), minlength=rows * most).reshape(rows, most)[:, 1:].astype(np.float64)

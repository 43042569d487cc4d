"""A step's figures: from the sums that its devices have computed to means and rates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from flan_jax import parts


class Figures:
    """Fetches steps' sums and turns them into figures; the seconds of a step run from one fetch to the next.

    Where the devices waited for hooks in between, from `resumes` on.
    """

    def __init__(self, names: Sequence[str], num_slots: int) -> None:
        """Args.

        names: of the parts, as `dataset_loss` numbers them.
        num_slots: slots of a step's rows.
        """
        self._names, self._num_slots = tuple(names), num_slots
        self._began = time.perf_counter()

    def fetched(self, sums: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
        """Waits for a step.

        Args:
          sums: what `make_train_step`'s step returns, on the devices.

        Returns:
          Its figures, and what hooks have measured, by hook and name.
        """
        host = jax.device_get(dict(sums))
        now = time.perf_counter()
        seconds, self._began = now - self._began, now
        return self._of(host, seconds), host.get("measured", {})

    def resumes(self) -> None:
        """The devices have waited, and go on."""
        self._began = time.perf_counter()

    def _of(self, sums: Mapping[str, np.ndarray], seconds: float) -> dict[str, Any]:
        """Means over target tokens by their weights, rates per second."""
        weight = float(sums["weight"]) or 1.0
        by_part = list(zip(self._names, sums["dataset_loss"], sums["dataset_weight"], strict=True))
        has_styles = any(parts.dataset_of(name) != name for name in self._names)
        figures = {
            "loss": float(sums["loss"]) / weight,
            "accuracy": float(sums["correct"]) / weight,
            "gradient_norm": float(sums["gradient_norm"]),
            "parameter_norm": float(sums["parameter_norm"]),
            "target_tokens": int(sums["tokens"]),
            "slots_filled": float(sums["slots_filled"]) / self._num_slots,
            "tokens_per_second": float(sums["slots_filled"]) / max(seconds, 1e-9),
            "seconds": seconds,
            **({"part_loss": _means(by_part, lambda name: name)} if has_styles else {}),
            "dataset_loss": _means(by_part, parts.dataset_of),
            "cluster_loss": _means(by_part, parts.cluster_of),
        }
        if "objective" in sums:
            figures["objective"] = float(sums["objective"]) / weight
        return figures | ({"skipped": int(sums["skipped"])} if "skipped" in sums else {})


def _means(by_part: Sequence[tuple[str, Any, Any]], group: Callable[[str], str]) -> dict[str, float]:
    """Means by what a part belongs to, from (part, sum of losses, sum of weights); without weight there is none."""
    sums: dict[str, list[float]] = {}
    for name, total, count in by_part:
        pair = sums.setdefault(group(name), [0.0, 0.0])
        pair[0] += float(total)
        pair[1] += float(count)
    return {name: total / count for name, (total, count) in sums.items() if count}

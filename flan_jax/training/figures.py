"""Turns the sums that devices compute in a step into figures: means and rates."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from flan_jax import chips, models, parts
from flan_jax.models import costs, work

# Figures about the machine, not the computation: they differ between starts and processes.
OF_MACHINE = ("seconds", "tokens_per_second", "input_wait", "flops_per_second", "mfu", "memory_peak_bytes")


@dataclasses.dataclass(frozen=True)
class Rows:
    """What is known about the rows of a step.

    Attributes:
      waited: seconds that the host waited for them; the devices may have worked meanwhile.
      flops: operations that the model's definition needs for all rows of the step; recomputation does not count.
    """

    waited: float
    flops: float

    @classmethod
    def of(
        cls,
        config: models.DecoderConfig,
        batch: Mapping[str, np.ndarray],
        share: float,
        waited: float,
        trained: costs.Shares | None = None,
    ) -> Rows:
        """Describes the rows of this process.

        Args:
          config: the model.
          batch: the rows.
          share: their share of all rows of the step. The other rows are assumed to be like them.
          waited: seconds.
          trained: the share of the weights that is trained; None for all.
        """
        return cls(waited, costs.products(config, work.of_batch(batch)).step_flops(trained) / share)


class Machine:
    """The devices that compute a run's steps."""

    def __init__(self, mesh: jax.sharding.Mesh, dtype: str) -> None:
        """Looks up the devices' peak.

        Args:
          mesh: the devices.
          dtype: the dtype of the computation; the published peak is for bfloat16 only.
        """
        peak = chips.peak_flops(mesh.devices.flat[0].device_kind) if dtype == "bfloat16" else None
        self._peak = None if peak is None else peak * mesh.size
        self._here = mesh.local_devices

    def figures(self, flops: float | None, seconds: float) -> dict[str, float]:
        """`flops_per_second` of all devices together, `mfu` if their peak is known, and `memory_peak_bytes`.

        `memory_peak_bytes` is the most memory that a device of this process has used so far. Not every platform reports
        it.
        """
        found: dict[str, float] = {}
        if flops is not None:
            found["flops_per_second"] = flops / max(seconds, 1e-9)
            if self._peak is not None:
                found["mfu"] = found["flops_per_second"] / self._peak
        held = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in self._here]
        if any(held):
            found["memory_peak_bytes"] = max(filter(None, held))
        return found


class Figures:
    """Fetches the sums of steps and turns them into figures.

    The seconds of a step are counted from one fetch to the next. If the devices waited for hooks in between, they are
    counted from the call of `resumes`.
    """

    def __init__(self, names: Sequence[str], num_slots: int, machine: Machine | None = None) -> None:
        """Starts counting.

        Args:
          names: the names of the parts, as `dataset_loss` numbers them.
          num_slots: the number of slots in a step's rows.
          machine: the devices; None leaves out the figures about them.
        """
        self._names, self._num_slots, self._machine = tuple(names), num_slots, machine
        self._began = time.perf_counter()

    def fetched(
        self, sums: Mapping[str, Any], rows: Rows | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
        """Waits for a step and returns its figures.

        Args:
          sums: what the step of `make_train_step` returns, on the devices.
          rows: what is known about its rows.

        Returns:
          The step's figures, and what hooks have measured, by hook and name.
        """
        host = jax.device_get(dict(sums))
        now = time.perf_counter()
        seconds, self._began = now - self._began, now
        figures = self._of(host, seconds)
        if rows is not None:
            figures["input_wait"] = rows.waited
        if self._machine is not None:
            figures |= self._machine.figures(rows.flops if rows is not None else None, seconds)
        return figures, host.get("measured", {})

    def resumes(self) -> None:
        """Says that the devices waited and now go on."""
        self._began = time.perf_counter()

    def _of(self, sums: Mapping[str, np.ndarray], seconds: float) -> dict[str, Any]:
        """Means over target tokens by their weights, and rates per second."""
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
    """Means by group, from (part, sum of losses, sum of weights). A group without weight is left out."""
    sums: dict[str, list[float]] = {}
    for name, total, count in by_part:
        pair = sums.setdefault(group(name), [0.0, 0.0])
        pair[0] += float(total)
        pair[1] += float(count)
    return {name: total / count for name, (total, count) in sums.items() if count}

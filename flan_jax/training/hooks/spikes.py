"""Records steps whose loss is far above that of the steps before, with their batch, in MODEL_DIR/spikes.jsonl."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

from flan_jax.files import write_atomic
from flan_jax.json_lines import finite, read_json_lines, to_json
from flan_jax.training.hooks import earlier
from flan_jax.training.hooks.context import Context

FILE = "spikes.jsonl"
DEVIATIONS = 8.0
_REMEMBERED = 101  # the usual loss is taken from so many steps
_ENOUGH = 20  # with fewer steps, nothing counts as usual
_NORMAL = 1.4826  # a normal distribution's standard deviation is so many median absolute deviations
_LEAST = 0.02  # the least deviation, as a share of the median; smaller ones occur if losses hardly differ
_MOST = 100  # spikes that are written at most; a run with more has another problem


class Spikes:
    """Writes a line for each step whose loss is far above the running median, or is not finite.

    A line has `step` and `loss`; `median` and `deviation` of the steps before (the median absolute deviation, scaled to
    a standard deviation); `dataset_loss` of the step; and `batch`: for each dataset the step's records, each with its
    template and its row. This hook comes before `not_finite`, which may end the run at that step.
    """

    def __init__(self, deviations: float) -> None:
        """Sets what counts as far.

        Args:
          deviations: how many deviations above the median.
        """
        self._deviations = deviations

    def start(self, context: Context) -> None:
        """Reads what earlier starts have seen, without the steps that are taken again."""
        if not context.primary:
            return
        self._losses = deque(earlier.last_values(context, "loss", _REMEMBERED), maxlen=_REMEMBERED)
        self._path, self._lines = context.folder / FILE, []
        if not self._path.exists():
            return
        values = [line.value for line in read_json_lines(self._path, strict=False)]
        steps = [one.get("step") if isinstance(one, dict) else None for one in values]
        kept = [one for one, step in zip(values, steps, strict=True) if _is_before(step, context.first_step)]
        self._lines = [to_json(finite(one)) for one in kept]
        if len(kept) < len(values):
            self._write()

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Looks at the loss, which is the same in all processes of a pod."""
        if not context.primary:
            return
        loss = values["loss"]
        median = statistics.median(self._losses) if len(self._losses) >= _ENOUGH else None
        deviation = None
        if median is not None:
            deviation = max(_NORMAL * statistics.median(abs(x - median) for x in self._losses), _LEAST * abs(median))
        usual = math.isfinite(loss) and (median is None or loss <= median + self._deviations * deviation)
        if math.isfinite(loss):
            self._losses.append(loss)
        if usual or len(self._lines) >= _MOST:
            return
        found = {"step": step, "loss": loss, "median": median, "deviation": deviation}
        found |= {"dataset_loss": values.get("dataset_loss", {}), "batch": _batch(context, step)}
        self._lines.append(to_json(finite(found)))
        self._write()
        what = f"the loss is {loss}"
        if math.isfinite(loss):
            what = f"the loss {loss:.4g} is far above the {median:.4g} of the steps before"
        last = f"; it is the last of {_MOST} that are written" if len(self._lines) == _MOST else ""
        print(f"step {step}: {what}; what was in its batch is in {self._path}{last}.", flush=True)

    def _write(self) -> None:
        write_atomic(self._path, "".join(f"{line}\n" for line in self._lines))


def _is_before(step: Any, first_step: int) -> bool:
    return isinstance(step, int) and not isinstance(step, bool) and 0 < step <= first_step


def _batch(context: Context, step: int) -> dict[str, list[dict[str, Any]]]:
    """The records in a step's rows, by dataset. They follow from the step alone."""
    stream = context.stream
    found: dict[str, list[dict[str, Any]]] = {}
    for row in range(stream.rows_per_batch):
        for segment in stream.segments(step - 1, row):
            one = {"record": stream.record_id(segment), "template": segment.template, "row": row}
            found.setdefault(segment.part, []).append(one)
    return found

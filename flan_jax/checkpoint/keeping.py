"""Which checkpoints of a run stay: the last ones, some for good, the best by a figure."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence

from orbax.checkpoint import checkpoint_managers as policies

Keeping = policies.PreservationPolicy
LOWEST, HIGHEST = ORDERS = ("lowest", "highest")


@dataclasses.dataclass(frozen=True)
class Best:
    """The best checkpoints by a figure.

    Attributes:
      figure: its name, as `metrics.jsonl` has it; of a figure in another, "outer/inner".
      best: "lowest" or "highest".
      count: how many stay.
    """

    figure: str
    best: str = LOWEST
    count: int = 1


def policy(
    last: int,
    every: int | None = None,
    best: Best | None = None,
    figure_of: Callable[[int], float | None] = lambda step: None,
) -> Keeping:
    """A checkpoint stays where any of these says so; Orbax removes the others once a newer one is whole.

    Args:
      last: so many of the last, at least 1.
      every: those of all multiples of so many steps, for good.
      best: the best ones, which have to have the figure.
      figure_of: a saved step's figure, or None where it has none.
    """
    parts: list[Keeping] = [policies.LatestN(max(last, 1))]
    if every is not None:
        parts.append(policies.EveryNSteps(every))
    if best is not None:
        parts.append(_best(best, figure_of))
    return _Any(parts)


class _Any(policies.AnyPreservationPolicy):
    """What any of some policies keeps."""

    def should_preserve(
        self, checkpoints: Sequence[policies.PolicyCheckpointInfo], *, context: policies.PreservationContext
    ) -> Sequence[bool]:
        # Steps of earlier starts have a time without a zone, as they are not opened; at a preemption Orbax takes the
        # time since the last one, cannot subtract such a time, and the save fails.
        for info in checkpoints:
            if info.time.tzinfo is None:
                info.time = info.time.replace(tzinfo=datetime.UTC)
        return super().should_preserve(checkpoints, context=context)


def _best(best: Best, figure_of: Callable[[int], float | None]) -> Keeping:
    of_orbax = policies.BestN(
        get_metric_fn=lambda metrics: metrics["figure"],
        reverse=best.best == LOWEST,
        n=best.count,
        keep_checkpoints_without_metrics=False,
    )

    class ByFigure(Keeping):
        """Orbax's own, with the figures of a run: Orbax forgets those of an earlier start."""

        def should_preserve(
            self, checkpoints: Sequence[policies.PolicyCheckpointInfo], *, context: policies.PreservationContext
        ) -> Sequence[bool]:
            known = [(info, figure_of(info.step)) for info in checkpoints]
            infos = [dataclasses.replace(i, metrics=None if x is None else {"figure": x}) for i, x in known]
            kept = of_orbax.should_preserve(infos, context=context)
            # Orbax keeps all where there are no more than `count`, those without a figure too.
            return [keep and x is not None for keep, (_, x) in zip(kept, known, strict=True)]

    return ByFigure()

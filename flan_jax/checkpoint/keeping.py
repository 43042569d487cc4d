"""Which checkpoints of a run stay: the last ones, some for good, and the best by a figure."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from orbax.checkpoint import checkpoint_managers as policies

Keeping: TypeAlias = policies.PreservationPolicy
LOWEST, HIGHEST = ORDERS = ("lowest", "highest")
DEV_LOSSES = ("dev_loss", "dev_loss_cluster")  # figures that an evaluation during training writes
DEV_SCORES = ("dev_score", "dev_score_cluster")
_HIGHER_IS_BETTER = ("accuracy", *DEV_SCORES)  # for all other figures, lower is better


@dataclasses.dataclass(frozen=True)
class Best:
    """The best checkpoints by a figure.

    Attributes:
      figure: the figure's name in `metrics.jsonl`, "outer/inner" for one of several.
      best: "lowest" or "highest"; empty for the default of this figure.
      count: how many stay.
    """

    figure: str
    best: str = ""
    count: int = 1

    @property
    def order(self) -> str:
        """ "lowest" or "highest", whichever is better."""
        return self.best or better(self.figure)

    def first(self, figures: Mapping[int, float | None]) -> list[int]:
        """The steps that stay, the best first.

        Of equal ones the earlier counts as better. Steps without a figure do not count.
        """
        sign = 1 if self.order == LOWEST else -1
        ranked = sorted((sign * figure, step) for step, figure in figures.items() if figure is not None)
        return [step for _, step in ranked[: self.count]]


def better(figure: str) -> str:
    """Whether "lowest" or "highest" is better for one of our figures; "lowest" for any other.

    Example:
      >>> better("accuracy"), better("loss")
      ('highest', 'lowest')
    """
    return HIGHEST if figure.partition("/")[0] in _HIGHER_IS_BETTER else LOWEST


def policy(
    last: int,
    every: int | None = None,
    best: Best | None = None,
    figure_of: Callable[[int], float | None] = lambda step: None,
) -> Keeping:
    """A checkpoint stays if any of these says so. Orbax removes the others once a newer one is complete.

    Args:
      last: how many of the last ones stay; at least 1.
      every: checkpoints at multiples of so many steps stay for good.
      best: how many of the best stay; only checkpoints with the figure count.
      figure_of: returns a saved step's figure, or None if it has none.
    """
    parts: list[Keeping] = [policies.LatestN(max(last, 1))]
    if every is not None:
        parts.append(policies.EveryNSteps(every))
    if best is not None:
        parts.append(_best(best, figure_of))
    return _Any(parts)


class _Any(policies.AnyPreservationPolicy):
    """Keeps what any of several policies keeps."""

    def should_preserve(
        self, checkpoints: Sequence[policies.PolicyCheckpointInfo], *, context: policies.PreservationContext
    ) -> Sequence[bool]:
        # Steps of earlier starts have a time without a zone, because they are not opened. At a preemption, Orbax
        # computes the time since the last one, cannot subtract such a time, and the save fails.
        for info in checkpoints:
            if info.time.tzinfo is None:
                info.time = info.time.replace(tzinfo=datetime.UTC)
        return super().should_preserve(checkpoints, context=context)


def _best(best: Best, figure_of: Callable[[int], float | None]) -> Keeping:
    class ByFigure(Keeping):
        """Keeps the best by the run's own figures.

        Orbax would forget those of an earlier start, and take the later of equal ones.
        """

        def should_preserve(
            self, checkpoints: Sequence[policies.PolicyCheckpointInfo], *, context: policies.PreservationContext
        ) -> Sequence[bool]:
            kept = best.first({info.step: figure_of(info.step) for info in checkpoints})
            return [info.step in kept for info in checkpoints]

    return ByFigure()

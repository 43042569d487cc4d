"""The run: the resolved record of a training."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training is.

    Attributes:
      train_steps: steps in all.
    """

    train_steps: int

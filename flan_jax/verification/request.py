"""What to verify: the options of a command line, or the arguments of a call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from flan_jax import values
from flan_jax.data.mixture_stream import LENGTHS
from flan_jax.errors import FlanError
from flan_jax.values import SEEDS, TOKENS, Unfit, Whole

_KINDS = {"examples": Whole(1), "microbatches": Whole(1), "seed": Whole(0, SEEDS)}


@dataclasses.dataclass(frozen=True)
class Request:
    """What to verify, and on what.

    Attributes:
      checkpoint: a checkpoint folder.
      prepared: PREPARED_DIR.
      step: the checkpoint's step; None takes the last.
      mixture: the mixture of the rows; "" takes the one that the checkpoint was tuned on, or "flan".
      datasets: only these of its datasets; by default all that are prepared.
      examples: about how many each check compares.
      seed: the seed of the stream, and of what is chosen.
      microbatches: the number of microbatches of the gradient.
      lengths: lengths of inputs and targets, as in training.
      huggingface: a folder of transformers with the same model; without it nothing is compared with transformers.
      attention: how the checked side computes attention; "" takes the model's own way.
      loss_averaging: the weights of targets, one of `values.LOSS_AVERAGES`; "" takes the run's own, or "per_token".
    """

    checkpoint: str
    prepared: str
    step: int | None = None
    mixture: str = ""
    datasets: tuple[str, ...] = ()
    examples: int = 16
    seed: int = 0
    microbatches: int = 2
    lengths: Mapping[str, int] = dataclasses.field(default_factory=lambda: dict(LENGTHS))
    huggingface: str | None = None
    attention: str = ""
    loss_averaging: str = ""

    def __post_init__(self) -> None:
        given = [(name, getattr(self, name), kind) for name, kind in _KINDS.items()]
        for name, value, kind in [*given, *((name, value, TOKENS) for name, value in self.lengths.items())]:
            try:
                kind.fit(value)
            except Unfit as error:
                raise FlanError(f"--{name} is {value!r}: {str(error) or f'it has to be {kind.wanted}'}.") from error
        if self.loss_averaging:
            values.checked("--loss_averaging", values.OneOf(values.LOSS_AVERAGES), self.loss_averaging)

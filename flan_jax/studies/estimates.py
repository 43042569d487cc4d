"""How long the steps of a study may take: by what its folder has timed, or by their operations."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from flan_jax import catalog, protocol, styles
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath
from flan_jax.studies import operations, records
from flan_jax.studies.commands import EVAL, NO_TUNING, TRAIN, Step


@dataclasses.dataclass(frozen=True)
class Estimate:
    """How long a step may take.

    Attributes:
      seconds: None where nothing like it was done yet in this folder, and operations do not say it either.
      of: how many steps that were done say so; 0 of one that its operations alone say: it takes longer.
    """

    seconds: float | None
    of: int


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What decides how long an evaluation takes.

    Attributes:
      datasets: as they are named.
      kinds: whether options are ranked, of each.
      tuned: whether the model is; others rarely stop before the limit.
      templates: of all datasets together.
    """

    datasets: tuple[str, ...]
    kinds: frozenset[bool]
    tuned: bool
    templates: int


# Which evaluations are alike, from the closest: the first sense in which any is decides.
_ALIKE: tuple[Callable[[_Asked], Any], ...] = (
    lambda asked: (asked.datasets, asked.tuned),
    lambda asked: asked.datasets,
    lambda asked: (asked.kinds, asked.tuned),
    lambda asked: asked.kinds,
)


def of(folder: AnyPath, steps: Sequence[Step]) -> dict[str, Estimate]:
    """By the steps that this folder has done with the same model, each step's estimate by its name.

    A training takes as long a slot as those before. An evaluation takes as long a template as those of the same
    datasets, or, without any, as those whose options are ranked likewise, or whose answers are generated. Others take
    as long as those of the same job. Seconds are of the machine that did them, with whatever else it did. Of a training
    whose model was not trained here yet they are those of its operations on this machine's processor, see `operations`.
    """
    kept = records.timed(folder)
    out = {}
    for step in steps:
        alike = [one for one in kept if one.get("job") == step.job and one.get("model") == step.model]
        if step.job == EVAL:
            out[step.name] = _of_evaluation(step, alike)
        elif not alike:
            config = operations.shape_of(step.model) if step.job == TRAIN else None
            counted = None if config is None else operations.seconds(config, step.slots, step.head_slots)
            out[step.name] = Estimate(counted, 0)
        elif step.job == TRAIN:
            out[step.name] = _by(step.slots, [(one["seconds"], one["slots"]) for one in alike])
        else:
            out[step.name] = _by(1, [(one["seconds"], 1) for one in alike])
    return out


def _of_evaluation(step: Step, kept: Sequence[dict[str, Any]]) -> Estimate:
    asked = _asked(step.argv)
    others = [(one["seconds"], other) for one in kept if (other := _asked(one["argv"])) is not None]
    for sense in _ALIKE if asked is not None else ():
        if alike := [(seconds, other.templates) for seconds, other in others if sense(other) == sense(asked)]:
            return _by(asked.templates, alike)
    return Estimate(None, 0)


def _by(amount: float, alike: Sequence[tuple[float, float]]) -> Estimate:
    """Of an amount of work, by (seconds, amount) of some that was done."""
    done = sum(of_one for _, of_one in alike)
    return Estimate(amount * sum(seconds for seconds, _ in alike) / done if done else None, len(alike))


def _asked(argv: Sequence[str]) -> _Asked | None:
    """What an evaluation asks; None where its arguments do not say so: they may have been edited, or be of a task file
    that is not used now."""
    bound = {}
    for argument in argv:
        name, _, value = argument.partition("=")
        with contextlib.suppress(ValueError, SyntaxError):
            bound[name] = ast.literal_eval(value)
    try:
        datasets = tuple(bound["--gin.DATASETS"])
        style = styles.parse(bound["--gin.STYLE"])
        found = [protocol.of(record, style) for name in datasets for record in catalog.named(name)]
    except (FlanError, KeyError, TypeError, AttributeError):
        return None
    return _Asked(
        datasets,
        frozenset(one.ranked for one in found),
        bound.get("--gin.RUN_NAME") != NO_TUNING,
        sum(len(one.forward) for one in found),
    )

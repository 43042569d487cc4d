"""Checks the macros that a study passes on, when it is planned: its trainings and evaluations begin hours later."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from flan_jax import configuration, macro_checks, macros
from flan_jax.errors import FlanError
from flan_jax.gin_files import EVALUATION, TRAINING
from flan_jax.training import optimizers, resolving
from flan_jax.training.hooks import loading
from flan_jax.training.loss import Objective
from flan_jax.values import MESH_AXES


def check_training(given: Mapping[str, Any]) -> None:
    """Checks whether macros make a training, as far as this can be told without its model, data and devices.

    Args:
      given: macros that count more than those of the run file `TRAINING`.

    Raises:
      FlanError: values that do not fit each other, or an optimizer, a schedule or hooks that there are not.
    """
    found = configuration.set_in(TRAINING) | dict(given)
    _check_together(found, "train", *optimizers.OWN, "factory")
    optimizer(found)
    hooks = macros.BY_MACRO["HOOKS"].kind.fit(found["HOOKS"])
    for hook in hooks:
        if isinstance(hook, str):
            loading.named(hook)
    mesh = dict.fromkeys(MESH_AXES, 1) | {"data": -1} | dict(found["MESH"] or {})
    if -1 not in mesh.values():  # what is left is known where it begins
        names = ("MESH", "BATCH_SIZE", "MICROBATCHES")
        resolving.refuse_undivided(mesh, found["BATCH_SIZE"], found["MICROBATCHES"], names)


def optimizer(found: Mapping[str, Any]) -> optimizers.Tuning:
    """What a training changes of its model, and how.

    Args:
      found: all macros of `TRAINING`.

    Raises:
      FlanError: there is no such optimizer or schedule, or its arguments do not fit.
    """
    made = found["OPTIMIZER"]
    if isinstance(made, str):
        makers = {**optimizers.OWN, "factory": optimizers.factory}
        made = optimizers.by_text(made, {name: _bound(name, maker, found) for name, maker in makers.items()})
    lora = found["LORA"]
    return optimizers.Tuning(
        made,
        found["CLIP_NORM"],
        tuple(found["FROZEN"]),
        found["EMA_DECAY"],
        None if lora is None else optimizers.Lora(**lora),
        found["PROMPT_LENGTH"],
    )


def objective(found: Mapping[str, Any]) -> Objective:
    """What a training minimises, from all macros of `TRAINING`."""
    return Objective.of({name.lower(): value for name, value in found.items()})


def check_evaluation(given: Mapping[str, Any]) -> None:
    """Checks whether macros of an evaluation fit each other.

    Args:
      given: macros that count more than those of the run file `EVALUATION`.

    Raises:
      FlanError: two of them do not fit.
    """
    found = configuration.set_in(EVALUATION) | dict(given)
    _check_together(found, "evaluate")
    if len(found["SEEDS"]) > 1:
        raise FlanError(f"EVAL has SEEDS {found['SEEDS']}: an evaluation of a study has one seed.")


def _check_together(found: Mapping[str, Any], *functions: str) -> None:
    names = {
        argument: macro
        for macro in found
        if macro in macros.BY_MACRO
        for argument in macros.BY_MACRO[macro].arguments
        if argument.partition(".")[0] in functions
    }
    macro_checks.check_together({argument: found[macro] for argument, macro in names.items()}, names)


def _bound(name: str, maker: Any, found: Mapping[str, Any]) -> Any:
    """A maker of an optimizer with the arguments that macros give it, as `TRAINING` binds them."""
    taken = {"steps": found["TRAIN_STEPS"]}
    for argument, setting in macros.BY_ARGUMENT.items():
        function, _, short = argument.partition(".")
        if function == name and short != "name" and setting.macro in found:
            taken[short] = found[setting.macro]
    return functools.partial(maker, **taken)

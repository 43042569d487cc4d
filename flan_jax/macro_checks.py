"""Checks arguments by the table of `flan_jax.macros`: each one alone, and those that must fit each other.

`flan_jax.configuration` checks the macros of a run before anything is opened. The decorator `checked` checks the
arguments of the functions themselves, for callers from Python.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flan_jax import files, macros, own_data, values
from flan_jax.errors import FlanError, StorageError

# Folders that must differ. A run that goes on may by mistake be its own INITIAL_CHECKPOINT_PATH; `training.continuing`
# has a better message for that.
_APART = (
    ("train.model_dir", "train.prepared_dir"),
    ("evaluate.output_dir", "evaluate.prepared_dir"),
    ("evaluate.output_dir", "evaluate.checkpoint_path"),
)
_OF_DATASETS = ("mixture", "datasets", "weights", "loss_weights", "joints")  # arguments that may name a user's own


def check(argument: str, value: Any, name: str | None = None, prepared_dir: Any = None) -> Any:
    """Checks the value of an argument and returns its normal form. Arguments that are not in the table pass unchanged.

    Args:
      argument: for example "train.batch_size".
      value: its value.
      name: what the user calls it; None for the argument itself.
      prepared_dir: the value of prepared_dir in the same call. A dataset that the catalog does not know is looked for
        among the user's own datasets there.

    Raises:
      FlanError: a value of the wrong kind; the message has the name, the value and what is wanted.
    """
    setting = macros.BY_ARGUMENT.get(argument)
    if setting is None:
        return value
    try:
        return values.checked(name or argument, setting.kind, value, setting.meaning)
    except FlanError as error:
        if argument.partition(".")[2] not in _OF_DATASETS:
            raise
        if not own_data.used_of(prepared_dir):
            raise FlanError(f"{error}{_told_of(prepared_dir, str(error))}") from error
        return values.checked(name or argument, setting.kind, value, setting.meaning)


def _told_of(prepared_dir: Any, said: str) -> str:
    """What a line about a name that is not known has to say too, of the folder in which a user's own would be."""
    if not isinstance(prepared_dir, str):
        return ""
    try:
        folder = files.user_path(prepared_dir)
        if not folder.is_dir():
            return f" A dataset of your own would be in PREPARED_DIR {prepared_dir}, and there is no such folder."
        if not any((folder / part).is_dir() for part in ("tokens", "examples", "own")):
            return f" A dataset of your own would be in PREPARED_DIR {prepared_dir}, which holds nothing prepared."
    except (FlanError, StorageError, OSError):  # whoever opens it says so
        return ""
    return "" if "did you mean" in said else f" PREPARED_DIR {prepared_dir} has no datasets of your own."


def check_together(given: Mapping[str, Any], names: Mapping[str, str] | None = None) -> None:
    """Refuses values that are right alone but do not fit each other.

    Args:
      given: values by argument, for example {"train.batch_size": 8}. Missing arguments are not checked.
      names: what the user calls an argument, if it is called otherwise.

    Raises:
      FlanError: two values that do not fit; the message names both.
    """

    def both(first: str, second: str) -> tuple[Any, Any, str, str] | None:
        if first not in given or second not in given:
            return None
        return given[first], given[second], (names or {}).get(first, first), (names or {}).get(second, second)

    if found := both("train.batch_size", "train.microbatches"):
        rows, parts, rows_name, parts_name = found
        if rows % parts:
            raise FlanError(
                f"{rows_name} {rows} is no multiple of {parts_name} {parts}: all parts have the same number of rows."
            )
    for argument in macros.each("warmup_steps"):
        if (found := both(argument, "train.train_steps")) and found[0] > found[1]:
            warmup, steps, warmup_name, steps_name = found
            raise FlanError(
                f"{warmup_name} {warmup} is more than {steps_name} {steps}: the learning rate would never be reached; "
                f"give {warmup_name} of at most {steps}."
            )
    if found := both("train.keep_every", "train.checkpoint_period"):
        every, period, every_name, period_name = found
        if every is not None and every % period:
            raise FlanError(
                f"{every_name} {every} is no multiple of {period_name} {period}: most of these steps would not be "
                "saved at all."
            )
    if (found := both("train.profile", "train.train_steps")) and found[0] and found[0][0] > found[1]:
        profile, steps, profile_name, steps_name = found
        raise FlanError(f"{profile_name} {profile} begins after {steps_name} {steps}: give steps that are taken.")
    for first, second in _APART:
        if not (found := both(first, second)) or found[0] is None:
            continue
        path, others, path_name, other_name = found
        if isinstance(others, Mapping):  # one checkpoint for each cluster
            others = list(others.values())
        for other in [others] if isinstance(others, str) else others or ():
            if files.same_place(files.user_path(path, path_name), files.user_path(other, other_name)):
                raise FlanError(f"{path_name} and {other_name} are one folder, {path}: give each its own.")
    for argument in ("train.mesh_shape", "evaluate.mesh_shape"):
        sizes = given.get(argument) or {}
        if list(sizes.values()).count(-1) > 1:
            name = (names or {}).get(argument, argument)
            raise FlanError(f"{name} is {values.shown(sizes)}: only one axis can take what is left; give the others.")
    if found := both("evaluate.step", "evaluate.checkpoint_path"):
        step, path, step_name, path_name = found
        if step == macros.STEPS[1] and not isinstance(path, str) and (isinstance(path, Mapping) or len(path) > 1):
            raise FlanError(f"{step_name} 'follow' follows one training run: give its folder as {path_name}.")
        if step is not None and isinstance(path, Mapping):
            raise FlanError(f"a checkpoint for each cluster is evaluated at its last step: leave {step_name} out.")
    if found := both("evaluate.run_name", "evaluate.baseline_name"):
        run, baseline, run_name, baseline_name = found
        if given.get("evaluate.baseline_dir") and run == baseline:
            raise FlanError(f"{run_name} and {baseline_name} are both {run!r}: a report needs names that differ.")


_Function = TypeVar("_Function", bound=Callable[..., Any])


def checked(function: _Function) -> _Function:
    """A decorator that checks a function's arguments by the table before the function runs.

    The table's name of an argument is "function.argument". The function then also raises FlanError for a value of the
    wrong kind and for a missing argument.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*positional: Any, **named: Any) -> Any:
        bound = signature.bind_partial(*positional, **named)
        for name, parameter in signature.parameters.items():
            if parameter.default is parameter.empty and name not in bound.arguments:
                setting = macros.BY_ARGUMENT.get(f"{function.__name__}.{name}")
                macro = f" ({setting.macro}: {setting.meaning})" if setting and setting.macro else ""
                raise FlanError(f"{function.__name__} needs {name}{macro}.")
        bound.apply_defaults()
        where = bound.arguments.get("prepared_dir")
        given = {f"{function.__name__}.{name}": value for name, value in bound.arguments.items()}
        given = {argument: check(argument, value, None, where) for argument, value in given.items()}
        check_together(given)
        bound.arguments.update((argument.partition(".")[2], value) for argument, value in given.items())
        return function(*bound.args, **bound.kwargs)

    wrapper.__signature__ = signature  # type: ignore[attr-defined]  # gin reads it
    return wrapper  # type: ignore[return-value]

"""AdamW, Lion, SGD, and any other optimizer of optax or of a user, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax

from flan_jax import macro_checks
from flan_jax.errors import FlanError, near_names
from flan_jax.training import by_name
from flan_jax.training.described import describe
from flan_jax.training.optimizers import layerwise, matrices, schedules
from flan_jax.training.optimizers.decay import NO_DECAY, decayed, mask
from flan_jax.training.optimizers.factored import LEARNING_RATE, adafactor
from flan_jax.training.optimizers.kinds import Known, Optimizer
from flan_jax.values import shown

_MASKS = ("mask", "weight_decay_mask")  # argument names for the mask of parameters that decay


@macro_checks.checked
def adamw(
    learning_rate: float = LEARNING_RATE,
    warmup_steps: int = 0,
    schedule: str = schedules.CONSTANT,
    steps: int | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    no_decay: Sequence[str] = NO_DECAY,
    nesterov: bool = False,
    momentum_dtype: str = "float32",
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Args:
      learning_rate: the highest learning rate.
      warmup_steps: steps of linear warm-up.
      schedule: the schedule of the learning rate, see `schedules.schedule`.
      steps: steps of the whole run, for the schedule.
      b1: decay of the mean of gradients.
      b2: decay of the mean of their squares.
      eps: added to the root of that mean.
      weight_decay: multiplied by the learning rate.
      no_decay: patterns of parameters that do not decay.
      nesterov: whether to use Nesterov's momentum.
      momentum_dtype: dtype of the mean of gradients.
    """
    rate = schedules.schedule(learning_rate, warmup_steps, schedule, steps)

    def make(axes: Any) -> optax.GradientTransformation:
        spared = mask(no_decay, axes)
        return optax.adamw(rate, b1, b2, eps, 0.0, momentum_dtype, weight_decay, spared, nesterov=nesterov)

    own = {"b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay, "no_decay": [*no_decay]}
    own |= {"nesterov": nesterov, "momentum_dtype": momentum_dtype}
    return Known(make, _described("adamw", learning_rate, warmup_steps, schedule, steps) | own, rate)


@macro_checks.checked
def lion(
    learning_rate: float = LEARNING_RATE,
    warmup_steps: int = 0,
    schedule: str = schedules.CONSTANT,
    steps: int | None = None,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float = 0.0,
    no_decay: Sequence[str] = NO_DECAY,
    momentum_dtype: str = "float32",
) -> Optimizer:
    """Lion (Chen et al. 2023). Its learning rate should be a third to a tenth of AdamW's.

    Args:
      learning_rate: the highest learning rate.
      warmup_steps: steps of linear warm-up.
      schedule: the schedule of the learning rate, see `schedules.schedule`.
      steps: steps of the whole run, for the schedule.
      b1: how gradient and momentum are mixed for the update.
      b2: decay of the momentum.
      weight_decay: decoupled, multiplied by the learning rate.
      no_decay: patterns of parameters that do not decay.
      momentum_dtype: dtype of the momentum.
    """
    rate = schedules.schedule(learning_rate, warmup_steps, schedule, steps)

    def make(axes: Any) -> optax.GradientTransformation:
        return optax.lion(rate, b1, b2, momentum_dtype, weight_decay, mask(no_decay, axes))

    own = {"b1": b1, "b2": b2, "weight_decay": weight_decay, "no_decay": [*no_decay], "momentum_dtype": momentum_dtype}
    return Known(make, _described("lion", learning_rate, warmup_steps, schedule, steps) | own, rate)


@macro_checks.checked
def sgd(
    learning_rate: float = LEARNING_RATE,
    warmup_steps: int = 0,
    schedule: str = schedules.CONSTANT,
    steps: int | None = None,
    momentum: float | None = None,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    no_decay: Sequence[str] = NO_DECAY,
) -> Optimizer:
    """Stochastic gradient descent.

    Args:
      learning_rate: the highest learning rate.
      warmup_steps: steps of linear warm-up.
      schedule: the schedule of the learning rate, see `schedules.schedule`.
      steps: steps of the whole run, for the schedule.
      momentum: decay of the trace of gradients; None for no momentum.
      nesterov: whether to use Nesterov's momentum.
      weight_decay: decoupled, multiplied by the learning rate.
      no_decay: patterns of parameters that do not decay.

    Raises:
      FlanError: `nesterov` without a momentum.
    """
    if nesterov and not momentum:
        raise FlanError("sgd: nesterov=True changes a momentum, and there is none: give one, as momentum=0.9.")
    rate = schedules.schedule(learning_rate, warmup_steps, schedule, steps)

    def make(axes: Any) -> optax.GradientTransformation:
        tx = optax.sgd(rate, momentum, nesterov)
        if not weight_decay:
            return tx
        return optax.chain(tx, decayed(lambda count: weight_decay * rate(count), no_decay, axes))

    own = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "no_decay": [*no_decay]}
    return Known(make, _described("sgd", learning_rate, warmup_steps, schedule, steps) | own, rate)


OWN: dict[str, Callable[..., Optimizer]] = {"adafactor": adafactor, "adamw": adamw, "lion": lion, "sgd": sgd}


@macro_checks.checked
def factory(
    name: str,
    learning_rate: float = LEARNING_RATE,
    warmup_steps: int = 0,
    schedule: str = schedules.CONSTANT,
    steps: int | None = None,
    weight_decay: float = 0.0,
    no_decay: Sequence[str] = NO_DECAY,
) -> Optimizer:
    """An optimizer that a function of optax, or of a user's own module, makes.

    The function gets `learning_rate`, `weight_decay` and its mask if it takes them, unless the text sets them.

    Args:
      name: "module:function" or "module:function(argument=value)", for example "optax:adabelief(eps=1e-8)".
      learning_rate: the highest learning rate.
      warmup_steps: steps of linear warm-up.
      schedule: the schedule of the learning rate, see `schedules.schedule`.
      steps: steps of the whole run, for the schedule.
      weight_decay: for a function that takes one. It replaces the function's own default, also with 0.
      no_decay: patterns of parameters that do not decay, also if the text sets the decay.

    Raises:
      FlanError: there is no such function, it makes no optimizer, or its decay takes no mask.
    """
    start = f"OPTIMIZER: {shown(name)}"
    try:
        module, function, given = by_name.parsed(name)
    except ValueError as error:
        raise FlanError(f"{start}: {error}; write one of {', '.join(OWN)}, or {by_name.FORM}.") from error
    maker = by_name.imported(start, module, function)
    try:
        takes = inspect.signature(maker).parameters
    except (TypeError, ValueError):
        takes = {}
    described = {"name": f"{module}:{function}", "arguments": given}
    by_us: dict[str, Any] = {}
    peak, rate = given.get("learning_rate", learning_rate), None
    is_constant = not warmup_steps and schedules.named(schedule)[0] == schedules.CONSTANT
    if "learning_rate" in takes and isinstance(peak, int | float):
        rate = schedules.schedule(peak, warmup_steps, schedule, steps)
        # As in our own optimizers, a rate in brackets is the highest rate.
        if "learning_rate" not in given or not is_constant:
            by_us["learning_rate"] = rate
            described |= schedules.described(peak, warmup_steps, schedule, steps)
    elif not is_constant:
        raise FlanError(f"{start} takes no learning rate that SCHEDULE and WARMUP_STEPS would change: leave them out.")
    own_decay = takes["weight_decay"].default if "weight_decay" in takes else None
    if "weight_decay" not in given and (weight_decay or own_decay):  # also with 0, if the function has a default
        if "weight_decay" not in takes:
            raise FlanError(f"{start} takes no weight_decay: leave WEIGHT_DECAY at 0.")
        by_us["weight_decay"] = weight_decay
        described |= {"weight_decay": weight_decay}
    masked = next((name for name in _MASKS if name in takes), None)
    if not (given | by_us).get("weight_decay") or masked in given:
        masked = None
    elif masked is None and no_decay and "weight_decay" in by_us:
        raise FlanError(
            f"{start} takes weight_decay and no mask, so all parameters would decay, those of NO_DECAY too: set "
            "NO_DECAY=() if they should, or WEIGHT_DECAY=0."
        )
    if masked:
        described |= {"no_decay": [*no_decay]}

    def made(**more: Any) -> Optimizer:
        found = by_name.made(start, maker, given | by_us | more)
        # A named tuple may hold functions, and a class or function can look like one that takes logical axes.
        if isinstance(found, optax.GradientTransformation):
            if not all(map(callable, found)):
                raise FlanError(f"{start} gives a transformation of {shown(tuple(found))}: it has to be two functions.")
            return found
        if callable(found) and not isinstance(found, type) and _takes_axes(found):
            return found
        raise FlanError(
            f"{start} gives {shown(found)}, which is no optimizer: it has to be an optax.GradientTransformation."
        )

    try:
        first = made()  # finds errors before anything is opened
    except FlanError:
        if "learning_rate" in by_us and _is_made(maker, given | by_us | {"learning_rate": peak}):
            raise FlanError(
                f"{start} takes a number for its learning rate, and no schedule: write learning_rate={peak:g} in its "
                "brackets, and leave SCHEDULE and WARMUP_STEPS out."
            ) from None
        raise
    described |= {"is": describe(first)}
    how = layerwise.treated(first) if isinstance(first, optax.GradientTransformation) else layerwise.AS_IS
    note = ""
    if how == layerwise.BY_MATRIX:
        described |= {"by_matrix": True}
    elif how == layerwise.OTHERWISE:
        note = f"{start}: layers are stacked here, and its step for a stack is another than for each layer alone."

    def make(axes: Any) -> optax.GradientTransformation:
        one = made(**{masked: mask(no_decay, axes)}) if masked else first
        tx = one if isinstance(one, optax.GradientTransformation) else one(axes)
        if not isinstance(tx, optax.GradientTransformation):
            raise FlanError(f"{start} gives {shown(tx)} for a model: it has to be an optax.GradientTransformation.")
        return matrices.by_matrix(tx, axes) if how == layerwise.BY_MATRIX else tx

    return Known(make, described, rate, foreign=True, note=note)


def _is_made(maker: Callable[..., Any], arguments: dict[str, Any]) -> bool:
    """Whether the function accepts these arguments."""
    try:
        maker(**arguments)
    except Exception:
        return False
    return True


def _takes_axes(maker: Callable[..., Any]) -> bool:
    """Whether the function can be called with logical axes alone. One with an unknown signature counts as such."""
    try:
        inspect.signature(maker).bind(None)
    except TypeError:
        return False
    except ValueError:
        pass
    return True


def by_text(text: str, makers: Mapping[str, Callable[..., Optimizer]]) -> Optimizer:
    """The optimizer that OPTIMIZER names.

    Args:
      text: one of `OWN`, or "module:function"; either with arguments in brackets, which count more than others.
      makers: those of `OWN`, and `factory`, by their names, with the arguments that other macros give them.

    Raises:
      FlanError: no such optimizer, an argument that it does not take, or a schedule that cannot be: SCHEDULE's fault,
        unless the text has it.
    """
    found = _named(text)
    given = {} if found is None else found[1]
    try:
        if found is None:
            return makers["factory"](text)
        return by_name.made(f"OPTIMIZER: {shown(text)}", makers[found[0]], given)
    except FlanError as error:
        reason = error if isinstance(error, schedules.ScheduleError) else error.__cause__
        if isinstance(reason, schedules.ScheduleError) and "schedule" not in given:
            # gin adds a line about the call to whatever passes through it.
            raise FlanError(f"SCHEDULE: {str(reason).partition(chr(10))[0]}") from error
        raise


def _named(text: str) -> tuple[str, dict[str, Any]] | None:
    """The name and arguments of one of our optimizers, from a text; None if the text names a module.

    Raises:
      FlanError: there is no such optimizer; the message has near matches.

    Example:
      >>> _named("adamw(b2=0.95)")
      ('adamw', {'b2': 0.95})
    """
    if ":" in text:
        return None
    try:
        name, given = by_name.call(text)
    except ValueError as error:
        raise FlanError(
            f"OPTIMIZER: {shown(text)} {error}; write one of {', '.join(OWN)}, or {by_name.FORM}."
        ) from error
    if name not in OWN:
        raise FlanError(f"OPTIMIZER: unknown optimizer {name!r}: {near_names(name, OWN)} Others by {by_name.FORM}.")
    return name, given


def _described(name: str, learning_rate: float, warmup_steps: int, schedule: str, steps: int | None) -> dict[str, Any]:
    return {"name": name} | schedules.described(learning_rate, warmup_steps, schedule, steps)

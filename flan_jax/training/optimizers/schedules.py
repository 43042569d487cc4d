"""Learning-rate schedules by name: a linear warm-up, then a course that the name says."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flan_jax.errors import FlanError, near_names
from flan_jax.training import by_name
from flan_jax.values import Kind, Number, OneOf, Unfit, Whole, shown

CONSTANT = "constant"
SHAPES = ("linear", "cosine", "sqrt")  # shapes of a decay: sqrt is 1 - sqrt(x) (Hägele et al. 2024)
_SHARE = Number(least=0, most=1)


@dataclasses.dataclass(frozen=True)
class _Span:
    """The frame of a schedule.

    Attributes:
      peak: the learning rate after the warm-up.
      warmup: steps of the warm-up.
      steps: steps of the whole run, or None if unknown.
    """

    peak: float
    warmup: int
    steps: int | None


def _constant(span: _Span) -> optax.Schedule:
    """Stays at the peak."""
    return optax.constant_schedule(span.peak)


def _linear(span: _Span, end: float = 0.0) -> optax.Schedule:
    """Falls in a straight line to the last step.

    Args:
      span: the frame.
      end: the last value, as a share of the peak.
    """
    return optax.linear_schedule(span.peak, end * span.peak, span.steps - span.warmup)


def _cosine(span: _Span, end: float = 0.0) -> optax.Schedule:
    """Falls like half a cosine to the last step.

    Args:
      span: the frame.
      end: the last value, as a share of the peak.
    """
    return optax.cosine_decay_schedule(span.peak, span.steps - span.warmup, end)


def _rsqrt(span: _Span, timescale: int | None = None) -> optax.Schedule:
    """Falls as sqrt(timescale / (timescale + steps)), like T5X's rsqrt_normalized_decay.

    Args:
      span: the frame.
      timescale: in steps; None takes the warm-up's steps.
    """
    scale = float(timescale or max(span.warmup, 1))
    # This is computed during the warm-up too, but not used.
    return lambda count: span.peak * jnp.sqrt(scale / (scale + jnp.maximum(count, 0)))


def _stable_decay(span: _Span, decay: float = 0.1, end: float = 0.0, shape: str = "linear") -> optax.Schedule:
    """Stays at the peak, and falls at the end of the run.

    Args:
      span: the frame.
      decay: the share of all steps in which it falls.
      end: the last value, as a share of the peak.
      shape: the shape of the fall, one of `SHAPES`; sqrt is 1 - sqrt(x).
    """
    last = max(1, round(decay * span.steps))
    stable = span.steps - span.warmup - last
    if stable < 0:
        raise ScheduleError(
            f"stable_decay: a warm-up of {span.warmup} and a decay of {last} steps (decay={decay:g}) are more than all "
            f"{span.steps} steps: give a smaller decay or a shorter warm-up."
        )

    def rate(count: jax.Array) -> jax.Array:
        done = jnp.clip((count - stable) / last, 0.0, 1.0)
        falls = {"linear": done, "cosine": 0.5 - 0.5 * jnp.cos(jnp.pi * done), "sqrt": jnp.sqrt(done)}[shape]
        return span.peak * (1.0 - (1.0 - end) * falls)

    return rate


MAKERS: dict[str, Callable[..., optax.Schedule]] = {
    CONSTANT: _constant,
    "linear": _linear,
    "cosine": _cosine,
    "rsqrt": _rsqrt,
    "stable_decay": _stable_decay,
}
_NEED_STEPS = ("linear", "cosine", "stable_decay")
KINDS: dict[str, Kind] = {
    "end": _SHARE,
    "decay": Number(above=0, most=1),
    "shape": OneOf(SHAPES),
    "timescale": Whole(1),
}
NAMES = tuple(MAKERS)


class ScheduleError(FlanError):
    """A schedule that there is not, or that does not fit the run: SCHEDULE's fault, whichever optimizer takes it."""


def named(text: str) -> tuple[str, dict[str, Any]]:
    """Splits the text of a schedule, such as "cosine(end=0.1)", into its name and all its arguments, defaults included.

    Raises:
      FlanError: an unknown name (the message has near matches), or an argument that it does not take.

    Example:
      >>> named("cosine(end=0.1)")
      ('cosine', {'end': 0.1})
    """
    try:
        name, given = by_name.call(text) if isinstance(text, str) else ("", {})
    except ValueError as error:
        raise ScheduleError(
            f"schedule {shown(text)} {error}; write a name, as 'cosine' or 'cosine(end=0.1)'."
        ) from error
    if name not in MAKERS:
        raise ScheduleError(f"unknown schedule {name or text!r}: {near_names(name, MAKERS)}")
    defaults = {key: one.default for key, one in list(inspect.signature(MAKERS[name]).parameters.items())[1:]}
    for key, value in given.items():
        if key not in defaults:
            takes = near_names(key, defaults) if defaults else "it takes none."
            raise ScheduleError(f"schedule {name!r} has no argument {key!r}: {takes}")
        try:
            given[key] = None if value is None and defaults[key] is None else KINDS[key].fit(value)
        except Unfit as error:
            said = str(error) or f"it has to be {KINDS[key].wanted}"
            raise ScheduleError(f"schedule {name!r}: {key} is {shown(value)}; {said}.") from error
    return name, defaults | given


def described(learning_rate: float, warmup_steps: int = 0, name: str = CONSTANT, steps: int | None = None) -> dict:
    """What run.json records about a schedule. A constant one is recorded as it was before there were others."""
    name, arguments = named(name)
    found: dict[str, Any] = {"learning_rate": learning_rate, "warmup_steps": warmup_steps}
    if name != CONSTANT:
        found["schedule"] = {"name": name} | arguments | ({"steps": steps} if name in _NEED_STEPS else {})
    return found


def schedule(
    learning_rate: float, warmup_steps: int = 0, name: str = CONSTANT, steps: int | None = None
) -> optax.Schedule:
    """A function from the number of steps taken to the learning rate.

    It rises linearly from `learning_rate / warmup_steps` to `learning_rate` in `warmup_steps` steps. Then:

    - constant: it stays.
    - linear(end=0), cosine(end=0): it falls to `end` times the peak at the last step.
    - rsqrt(timescale=None): it falls as sqrt(timescale / (timescale + steps since then)); without a timescale, that of
      the warm-up is taken. This is T5X's rsqrt_normalized_decay.
    - stable_decay(decay=0.1, end=0, shape="linear"): it stays, and falls in the last `decay` of all steps. The shape is
      one of `SHAPES`.

    Args:
      learning_rate: the highest learning rate.
      warmup_steps: steps of the warm-up.
      name: one of `NAMES`, with or without arguments.
      steps: steps of the whole run; linear, cosine and stable_decay need it.

    Raises:
      FlanError: an unknown name or argument, missing steps, or too few of them.
    """
    name, arguments = named(name)
    if name == CONSTANT:
        if warmup_steps <= 0:
            return optax.constant_schedule(learning_rate)
        return optax.warmup_constant_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps)
    if name in _NEED_STEPS:
        if steps is None:
            raise ScheduleError(f"schedule {name!r} has to know the steps of the whole run: give steps=TRAIN_STEPS.")
        if warmup_steps >= steps:
            raise ScheduleError(
                f"schedule {name!r}: a warm-up of {warmup_steps} steps leaves none of {steps} to fall in; give a "
                f"warm-up of at most {steps - 1}."
            )
    rate = MAKERS[name](_Span(learning_rate, max(warmup_steps, 0), steps), **arguments)
    if warmup_steps <= 0:
        return rate
    rising = optax.linear_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps)
    return optax.join_schedules([rising, rate], [warmup_steps])

"""What an optimizer is here: something that, given what parameters' axes are called, makes an optax transformation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import optax

from flan_jax.training.optimizers import decay

# What an optimizer can depend on, beside arrays, is what their axes are called.
Optimizer: TypeAlias = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """An optimizer of ours; called with the parameters' logical axes, it gives the transformation.

    Attributes:
      make: the function.
      description: what run.json has of it.
      rate: the learning rate after so many steps; None where it is not known.
      foreign: whether the transformation is somebody else's.
      note: a line for whoever starts a run with it.
    """

    make: Callable[[Any], optax.GradientTransformation]
    description: Mapping[str, Any]
    rate: optax.Schedule | None
    foreign: bool = False
    note: str = ""

    def __call__(self, logical_axes: Any, of_model: Any = None) -> optax.GradientTransformation:
        """The transformation for parameters of these axes.

        Args:
          logical_axes: of those that are trained.
          of_model: of all; None where all are trained.

        Raises:
          FlanError: a pattern of NO_DECAY fits no parameter of the model.
        """
        whole = logical_axes if of_model is None else of_model
        decay.refuse_unfit(self.description.get("no_decay", ()), whole)
        return self.make(logical_axes)


def for_parameters(optimizer: Optimizer, logical_axes: Any) -> optax.GradientTransformation:
    """The transformation of an optimizer for parameters of these logical axes.

    Args:
      optimizer: an optax transformation, which is given back, or a function from logical axes to one.
      logical_axes: a tree of tuples of names, as `Model.logical_axes` gives it.
    """
    return optimizer if isinstance(optimizer, optax.GradientTransformation) else optimizer(logical_axes)


def differing(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are not at their defaults.

    A description leaves the others out, so that an argument that a later version adds changes no run of before.
    """
    return {name: value for name, value in given.items() if value != defaults[name]}

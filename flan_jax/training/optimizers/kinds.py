"""The type of an optimizer here: given the logical axes of the parameters, it makes an optax transformation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import optax

from flan_jax.training.optimizers import decay

# Besides arrays, an optimizer can depend on the logical axes.
Optimizer: TypeAlias = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """One of our optimizers. Called with the parameters' logical axes, it returns the transformation.

    Attributes:
      make: makes the transformation.
      description: what run.json records about it.
      rate: the learning rate after a number of steps; None if it is unknown.
      foreign: whether the transformation comes from another library.
      note: a line for the user who starts a run with it.
    """

    make: Callable[[Any], optax.GradientTransformation]
    description: Mapping[str, Any]
    rate: optax.Schedule | None
    foreign: bool = False
    note: str = ""

    def __call__(self, logical_axes: Any, of_model: Any = None) -> optax.GradientTransformation:
        """The transformation for parameters with these axes.

        Args:
          logical_axes: logical axes of the trained parameters.
          of_model: logical axes of all parameters; None if all are trained.

        Raises:
          FlanError: a pattern of NO_DECAY fits no parameter of the model.
        """
        whole = logical_axes if of_model is None else of_model
        decay.refuse_unfit(self.description.get("no_decay", ()), whole)
        return self.make(logical_axes)


def for_parameters(optimizer: Optimizer, logical_axes: Any) -> optax.GradientTransformation:
    """The optax transformation of an optimizer, for parameters with these logical axes.

    Args:
      optimizer: an optax transformation, which is returned as it is, or a function from logical axes to one.
      logical_axes: a tree of tuples of names, from `Model.logical_axes`.
    """
    return optimizer if isinstance(optimizer, optax.GradientTransformation) else optimizer(logical_axes)


def differing(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are not at their defaults.

    A description leaves out the others. So a new argument in a later version does not change earlier runs.

    Example:
      >>> differing({"b1": 0.9, "b2": 0.95}, {"b1": 0.9, "b2": 0.999})
      {'b2': 0.95}
    """
    return {name: value for name, value in given.items() if value != defaults[name]}

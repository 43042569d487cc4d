"""Stops a run whose figures are not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.checkpoint import arrays
from flan_jax.errors import FlanError
from flan_jax.json_lines import first_not_finite
from flan_jax.training.hooks.context import Context


class NotFinite:
    """Stops at the first step with a NaN or an infinity, before it is logged or saved."""

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Stops, naming the last checkpoint, all of which are finite.

        Raises:
          FlanError: a figure is not finite.
        """
        if (broken := first_not_finite(values)) is None:
            return
        context.wait_for_saves()
        norms = {name: values[name] for name in ("loss", "gradient_norm", "parameter_norm")}
        figures = ", ".join(f"{name} {value}" for name, value in (norms | {broken[0]: broken[1]}).items())
        folder, saved = context.folder, arrays.latest_step(context.folder)
        where = (
            f"{folder} holds no checkpoint" if saved is None else f"The last checkpoint in {folder} is of step {saved}"
        )
        remedy = "lower the learning rate and run again" + ("" if saved is None else " to go on from it")
        raise FlanError(f"step {step} is not finite ({figures}); stopped. {where}; {remedy}.")

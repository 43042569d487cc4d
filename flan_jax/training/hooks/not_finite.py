"""What happens at a step with figures that are not finite: the run stops, or it skips the batch, up to a limit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flan_jax.checkpoint import choosing
from flan_jax.errors import FlanError
from flan_jax.json_lines import first_not_finite
from flan_jax.training.hooks import earlier
from flan_jax.training.hooks.context import Context
from flan_jax.training.state import Taken

SKIPPED = "skipped_not_finite"  # the figure's name; it counts batches that were skipped so far, also by earlier starts


class NotFinite:
    """Stops the run at the first NaN or infinity, before the step is logged or saved."""

    def start(self, context: Context) -> None:
        """Takes over the count of earlier starts that skipped batches, for later starts that may skip again."""
        self._skipped = _skipped_before(context)

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Stops if a figure is not finite. The message names the last checkpoint; all checkpoints are finite.

        Raises:
          FlanError: a figure is not finite.
        """
        if (broken := first_not_finite(values)) is not None:
            raise _stopping(context, step, values, dict([broken]))
        if self._skipped:
            context.values[SKIPPED] = self._skipped


class Skipping:
    """Skips batches whose loss, gradient or update is not finite, and stops if there are too many.

    Parameters and optimizer's state, with its count of steps, stay as they were.
    """

    def __init__(self, budget: int) -> None:
        """Sets the limit.

        Args:
          budget: how many batches of the whole run may be skipped.
        """
        self._budget, self._skipped = budget, 0

    def start(self, context: Context) -> None:
        """Continues the count of earlier starts."""
        self._skipped = _skipped_before(context)

    def measure(self, taken: Taken) -> dict[str, jax.Array]:
        """The norm of the update, which the step's figures do not have."""
        return {"update_norm": optax.tree.norm(taken.updates)}

    def accept(self, taken: Taken) -> jax.Array:
        """Whether everything is finite."""
        numbers = [taken.loss, taken.gradient_norm, self.measure(taken)["update_norm"]]
        return jnp.all(jnp.isfinite(jnp.stack([x.astype(jnp.float32) for x in numbers])))

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Counts skipped batches.

        Raises:
          FlanError: the limit is reached, or something else is not finite.
        """
        update_norm = float(context.measured["update_norm"])
        looked_at = (values["loss"], values["gradient_norm"], update_norm)
        if all(math.isfinite(x) for x in looked_at):
            if (broken := first_not_finite(values)) is not None:
                raise _stopping(context, step, values, dict([broken]))
        else:
            self._skipped += 1
            if self._skipped > self._budget:
                why = f"; ON_NAN is {self._budget}, and as many batches have been skipped before"
                raise _stopping(context, step, values, {"update_norm": update_norm}, why)
            if context.primary:
                shown = _shown(values, {"update_norm": update_norm})
                left = self._budget - self._skipped
                print(f"step {step} is not finite ({shown}): batch skipped; {left} more may be.", flush=True)
        context.values[SKIPPED] = self._skipped

    def end(self, context: Context) -> None:
        """Reports how many batches were skipped."""
        if context.primary and self._skipped:
            many = "1 batch was" if self._skipped == 1 else f"{self._skipped} batches were"
            print(f"{many} skipped, as a number was not finite (ON_NAN {self._budget}).", flush=True)


def _skipped_before(context: Context) -> int:
    """The number of batches that earlier starts have skipped, from the log line of the step before this start."""
    last = earlier.figures_of(context, [context.first_step]).get(context.first_step, {})
    return int(earlier.figure(last, SKIPPED) or 0)


def _stopping(
    context: Context, step: int, values: Mapping[str, Any], more: Mapping[str, float], why: str = ""
) -> FlanError:
    """The error that ends a run."""
    context.wait_for_saves()
    folder, saved = context.folder, choosing.latest_step(context.folder)
    where = f"{folder} holds no checkpoint" if saved is None else f"The last checkpoint in {folder} is of step {saved}"
    remedy = "lower the learning rate and run again" + ("" if saved is None else " to go on from it")
    return FlanError(f"step {step} is not finite ({_shown(values, more)}){why}; stopped. {where}; {remedy}.")


def _shown(values: Mapping[str, Any], more: Mapping[str, float]) -> str:
    norms = {name: values[name] for name in ("loss", "gradient_norm", "parameter_norm")}
    return ", ".join(f"{name} {value}" for name, value in (norms | more).items())

"""What a hook is given: the run, and what it may ask of the loop."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from flan_jax import distributed, models, partitioning
from flan_jax.data.stream import Stream
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath
from flan_jax.json_lines import first_not_finite
from flan_jax.models import lora
from flan_jax.training.run import Run
from flan_jax.training.state import TrainState

# Hooks may not set these, because the log, the checkpoints and other hooks depend on them.
_FIXED = frozenset(("run", "folder", "network", "mesh", "stream", "first_step", "primary"))


def containers_copied(tree: Any) -> Any:
    """The same arrays in new dictionaries and tuples, which may be changed without changing the given ones."""
    return jax.tree.map(lambda leaf: leaf, tree)


@dataclasses.dataclass(frozen=True)
class Stop:
    """Why a run ends before its last step, and the program's exit status."""

    reason: str
    status: int


class Context:
    """The run as hooks see it.

    Attributes:
      run: the resolved run.
      folder: MODEL_DIR.
      network: the model, without parameters.
      mesh: the devices.
      stream: the rows; `stream.batch(step - 1)` gives those of a step.
      first_step: steps taken before this start; the first step of this start is one more.
      primary: whether this process writes and prints; only one does.
      step: the last step that hooks were told about.
      values: its figures, which go to the log. Our own hooks change it; others call `write`.
      measured: what the hook's own `measure` gave at this step, by name.
      logged: whether the step's line is already written or none is open, so that `write` is too late.
      save_wanted: whether a checkpoint is asked for and not made yet.
      stopped: why the run ends, or None.
      error: in `end`, the exception that ended the run, or None.
      wait_for_saves: returns when all started saves are complete.
      ending: whether this process was told to end. A hook that takes long should ask, and finish. In a pod, other
        processes may not know it yet.
      alive: a hook that takes long calls this with what it does, so that the watchdog does not take it for hanging.
      later: figures that hooks write at some steps only, with the same names as these; the numbers do not matter.
      no_choice: figures that may not choose a checkpoint, and why. The hook that writes them sets this in `start`.
      tell: calls a method of all hooks, by its name and with the step.
      held: returns all arrays that the run needs to go on; hooks may not delete them.
    """

    def __init__(
        self,
        run: Run,
        folder: AnyPath,
        network: models.Model | models.EncoderDecoder,
        mesh: jax.sharding.Mesh,
        stream: Stream,
        first_step: int,
    ) -> None:
        self.run, self.folder, self.network, self.mesh, self.stream = run, folder, network, mesh, stream
        self.first_step = self.step = first_step
        self.primary = distributed.is_primary()
        self.values: dict[str, Any] = {}
        self.measured: Mapping[str, np.ndarray] = {}
        self.save_wanted = False
        self.stopped: Stop | None = None
        self.error: BaseException | None = None
        self.wait_for_saves: Callable[[], None] = lambda: None  # set by `saving`
        self.ending: Callable[[], bool] = lambda: False  # set by `preemption`
        self.alive: Callable[[str], None] = lambda doing: None  # set by `watchdog`
        self.later: dict[str, Any] = {}
        self.no_choice: dict[str, str] = {}
        self.tell: Callable[[str, int], None] = lambda method, step: None  # set by `calls`
        self.held: Callable[[], Any] = lambda: ()  # set by the loop
        self.logged = True  # no step is open yet
        self._state: TrainState | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and name in self.__dict__:
            raise FlanError(f"context.{name} can be read, and not set.")
        super().__setattr__(name, value)

    def at(self, step: int, values: dict[str, Any], state: TrainState | None) -> None:
        """For the loop: sets the step that hooks are told about, and its state if the devices wait."""
        self.step, self.values, self._state, self.logged = step, values, state, False

    @property
    def paused(self) -> bool:
        """Whether the devices wait, so that `state` returns this step's state."""
        return self._state is not None

    def state(self) -> TrainState:
        """The state after this step, on the devices. Its dictionaries are copies; its arrays are the run's own.

        Raises:
          FlanError: the devices did not wait for this step.
        """
        if self._state is None:
            raise FlanError(
                f"the state of step {self.step} is gone: the devices are a step ahead. A hook that wants it has to say "
                "so: pauses(context, step) -> True for this step."
            )
        return containers_copied(self._state)

    def merged_params(self) -> Any:
        """The parameters after this step, with adapters, if there are any, merged in. A soft prompt stays separate.

        Raises:
          FlanError: the devices did not wait for this step.
        """
        params = self.state().params
        if not isinstance(self.network, lora.Adapted):
            return params
        plain = models.build(self.network.config)
        laid_out = partitioning.parameter_shardings(self.mesh, plain.logical_axes(), plain.abstract_params())
        return jax.jit(lora.merged, out_shardings=laid_out)(params)

    def write(self, name: str, value: Any) -> None:
        """Adds a figure of this step to metrics.jsonl and TensorBoard.

        Args:
          name: the figure's name; it must be new.
          value: a finite number, or a dictionary from names to finite numbers.

        Raises:
          FlanError: the value is of another kind, or the step's line is already written, as in `before_save`.
        """
        if self.logged:
            raise FlanError(f"write({name!r}): no step's line is open; figures of a step are written in after_step.")
        if not isinstance(name, str) or not name or name in (*self.values, "step"):
            raise FlanError(f"write({name!r}): give a name that the step's figures do not have yet.")
        group = next(
            (one for one, x in self.values.items() if isinstance(x, dict) and name.startswith(f"{one}/")), None
        )
        if group is not None:  # TensorBoard, pages and KEEP_BEST could not tell the two apart
            raise FlanError(f"write({name!r}): {group!r} is a figure of several names already; give another name.")
        value = {str(key): _number(one) for key, one in value.items()} if isinstance(value, Mapping) else _number(value)
        if value is None or (isinstance(value, dict) and None in value.values()):
            raise FlanError(f"write({name!r}): the value has to be a number, or a dictionary from names to numbers.")
        if (broken := first_not_finite({name: value})) is not None:
            raise FlanError(f"write({name!r}): {broken[0]} is {broken[1]}; it has to be finite.")
        self.values[name] = value

    def save(self) -> None:
        """Asks for a checkpoint: of this step if the devices wait for it, otherwise of the next one."""
        self.save_wanted = True

    def stop(self, reason: str, status: int = 0, save: bool = True) -> None:
        """Ends the run after the step that is running.

        Args:
          reason: why, in a few words, to be printed.
          status: the program's exit status.
          save: whether to save the last step.

        Raises:
          FlanError: the status is not one.
        """
        if isinstance(status, bool) or not isinstance(status, int) or not 0 <= status <= 255:
            raise FlanError(f"stop({reason!r}, status={status!r}): an exit status is a whole number from 0 to 255.")
        self.save_wanted |= save
        self.stopped = self.stopped or Stop(" ".join(str(reason).split()), status)


def _number(value: Any) -> int | float | None:
    """A number of Python, NumPy or JAX in the form that JSON holds; None for anything else."""
    if isinstance(value, np.ndarray | np.generic | jax.Array) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # TensorBoard cannot hold it
        return None
    return int(value) if isinstance(value, numbers.Integral) else number

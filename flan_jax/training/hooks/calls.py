"""Calls hooks in order. If one of them raises, the error is one line that names it."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax.errors import FlanError
from flan_jax.training import by_name
from flan_jax.training.hooks.context import Context, containers_copied
from flan_jax.training.state import Taken, TrainState


class Hooks:
    """The hooks of a run in their order. As a context manager, it calls `start` on entry and `end` on exit."""

    def __init__(self, hooks: Sequence[Any], context: Context) -> None:
        self._hooks, self._context = tuple(hooks), context
        context.tell = self._tell
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Hooks:
        try:
            for hook in self._hooks:
                self._ends.push(lambda kind, error, trace, hook=hook: self._end(hook, error))
                self._call(hook, "start", self._context)
        except BaseException as error:
            self._ends.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._ends.__exit__(*error)

    def _end(self, hook: Any, error: BaseException | None) -> None:
        self._context.error = error
        # The first error is reported; a later failure of an `end` is not.
        with contextlib.nullcontext() if error is None else contextlib.suppress(Exception):
            self._call(hook, "end", self._context)

    # ---------------------------------------------------------------------------------- on the devices, when traced

    @property
    def measures(self) -> bool:
        """Whether any hook computes on the devices."""
        return any(hasattr(hook, "measure") for hook in self._hooks)

    def measure(self, taken: Taken) -> dict[str, dict[str, jax.Array]]:
        """What hooks compute from a step, by the hook's number and by name."""
        found = {}
        for number, hook in enumerate(self._hooks):
            if hasattr(hook, "measure"):
                given = self._call(hook, "measure", _own(taken))
                with _naming(hook, "measure"):
                    if not isinstance(given, Mapping):
                        raise FlanError(f"measure gave {given!r:.60}: it has to return a dictionary {{name: array}}.")
                    found[str(number)] = {str(name): jnp.asarray(value) for name, value in given.items()}
        return found

    @property
    def accepts(self) -> bool:
        """Whether any hook may refuse an update."""
        return any(hasattr(hook, "accept") for hook in self._hooks)

    def accept(self, taken: Taken) -> jax.Array:
        """Whether all hooks take the update; a boolean scalar."""
        accepted = jnp.bool_(True)
        for hook in self._hooks:
            if hasattr(hook, "accept"):
                given = self._call(hook, "accept", _own(taken))
                with _naming(hook, "accept"):
                    if not isinstance(given, int | np.generic | np.ndarray | jax.Array) or jnp.shape(given) != ():
                        raise FlanError(f"accept gave {given!r:.60}: it has to return one True or False.")
                    accepted &= jnp.asarray(given).astype(bool)
        return accepted

    # -------------------------------------------------------------------------------------------------- on the host

    def pauses(self, step: int) -> bool:
        """Whether the devices must wait after this step: a hook needs it, or the run ends there."""
        wanted = [bool(self._call(hook, "pauses", self._context, step)) for hook in self._hooks]
        return any(wanted) or self._context.stopped is not None

    def after_step(
        self,
        step: int,
        values: dict[str, Any],
        measured: Mapping[str, Mapping[str, np.ndarray]],
        state: TrainState | None,
    ) -> None:
        """Tells all hooks about a step.

        Args:
          step: its number, from 1.
          values: its figures.
          measured: what `measure` gave, on the host.
          state: the state after it, if the devices wait.
        """
        self._context.at(step, values, state)
        for number, hook in enumerate(self._hooks):
            self._context.measured = measured.get(str(number), {})
            self._call(hook, "after_step", self._context, step, _read_only(self._context.values))
        self._context.at(step, self._context.values, None)  # the next step reuses the state's memory
        self._context.logged = True

    def _tell(self, method: str, step: int) -> None:
        for hook in self._hooks:
            self._call(hook, method, self._context, step)

    def _call(self, hook: Any, method: str, *arguments: Any) -> Any:
        if not hasattr(hook, method):
            return None
        with _naming(hook, method):
            if _ours(hook):
                return getattr(hook, method)(*arguments)
            with by_name.working_folder_kept(method):
                given = getattr(hook, method)(*arguments)
            lost = () if method == "end" else jax.tree.leaves(self._context.held())
            if any(x.is_deleted() for x in lost if isinstance(x, jax.Array)):
                raise FlanError(
                    f"{method} has deleted or donated arrays of the run's state, which the next step and checkpoints "
                    "need: work on a copy, jax.tree.map(jnp.copy, context.state())."
                )
            return given


def _own(taken: Taken) -> Taken:
    """The same arrays in new dictionaries, which the hook may change."""
    trees = {name: containers_copied(getattr(taken, name)) for name in ("gradients", "updates", "params")}
    return dataclasses.replace(taken, **trees)


def _read_only(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Figures that cannot be changed. Dictionaries in them are copies that JSON still accepts."""
    copied = {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}
    return types.MappingProxyType(copied)


@contextlib.contextmanager
def _naming(hook: Any, method: str) -> Iterator[None]:
    """A block that calls a hook of a user."""
    try:
        yield
    except FlanError as error:
        if _ours(hook):
            raise
        raise FlanError(f"hook {name_of(hook)}: {error}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit too; otherwise the run would end as if it were done
        if _ours(hook):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        place = ([frame for frame in frames if frame.filename == _file_of(hook)] or frames)[-1]
        reason = " ".join(str(error).split())[:200].rstrip(".")
        remedy = "mend it, or leave it out of HOOKS"
        if isinstance(error, SystemExit):
            remedy = "context.stop(reason, status) ends a run"
        raise FlanError(
            f"hook {name_of(hook)} failed in {method}: {type(error).__name__}{f' ({reason})' if reason else ''}, "
            f"line {place.lineno} of {place.filename}; {remedy}."
        ) from error


def name_of(hook: Any) -> str:
    """The name of a hook in messages."""
    return f"{type(hook).__module__}:{type(hook).__qualname__}"


def _file_of(hook: Any) -> str:
    try:
        return inspect.getfile(type(hook))
    except (TypeError, OSError):
        return ""


def _ours(hook: Any) -> bool:
    return type(hook).__module__.startswith("flan_jax.")

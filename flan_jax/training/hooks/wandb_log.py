"""A run's figures on Weights & Biases, by its own library: the extra `wandb`, and the macro WANDB."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from flan_jax.errors import FlanError
from flan_jax.files import home, is_remote, make_folder, write_atomic
from flan_jax.training.hooks.context import Context

FILE = "wandb.json"  # in MODEL_DIR: the id by which later starts go on with the same run there


class WandbLog:
    """Sends every step's figures, in one process; comes after whatever adds figures.

    A start that cannot reach the service, or is not logged in, ends in one line. Later the service's own process keeps
    what it cannot send, and a figure that it refuses costs a printed line and not the run: metrics.jsonl has it all.

    Steps that are taken again after an interruption are sent again; the figure `step` tells them.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Args.

        settings: "project", and "entity", "group", "name" (MODEL_DIR's by default) and "mode" ("online", "offline", or
          as the variable WANDB_MODE says) where they are wanted.

        Raises:
          FlanError: the library is not installed.
        """
        self._settings, self._run = dict(settings), None
        try:
            self._wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise FlanError("WANDB needs the library wandb: pip install -e '.[wandb]'; or leave WANDB out.") from error

    def start(self, context: Context) -> None:
        """Begins the run there, or goes on with it."""
        if not context.primary:
            return
        folder = context.folder
        where = home() / "wandb" if is_remote(folder) else folder
        make_folder(where)
        with _failing("starting a run"):
            self._run = self._wandb.init(
                **{"name": folder.name, **self._settings},
                id=_identity(context),
                resume="allow",
                config=context.run.to_dict(),
                dir=os.environ.get("WANDB_DIR") or str(where),
                settings=self._wandb.Settings(console="off", silent=True),
            )
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Hands one step to the library, which sends it in the background."""
        if self._run is None:
            return
        numbers: dict[str, float] = {"step": step}
        for name, value in values.items():
            for inner, number in value.items() if isinstance(value, Mapping) else [(None, value)]:
                if number is not None and math.isfinite(number):
                    numbers[f"{name}/{inner}" if inner else name] = number
        try:
            self._run.log(numbers)
        except Exception as error:  # whatever a library of a service raises
            print(f"step {step}: WANDB: {_reason(error)}; nothing more is sent there, the run goes on.", flush=True)
            self._run = None

    def end(self, context: Context) -> None:
        """Returns when all is sent."""
        if self._run is not None:
            with _failing("ending the run"):
                self._run.finish(exit_code=0 if context.error is None else 1)


def _identity(context: Context) -> str:
    """The run's id there; a run that begins at step 1 is another one."""
    path = context.folder / FILE
    if context.first_step:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    found = secrets.token_hex(8)
    write_atomic(path, json.dumps({"id": found}) + "\n")
    return found


@contextlib.contextmanager
def _failing(doing: str) -> Iterator[None]:
    """Around calls of the library that may need its service."""
    try:
        yield
    except FlanError:
        raise
    except Exception as error:
        remedy = "run `wandb login`, or give WANDB a 'mode' of 'offline', or leave it out"
        raise FlanError(f"WANDB: {doing} failed ({_reason(error)}); {remedy}.") from error


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split())[:200].rstrip(".")
    return f"{type(error).__name__}{f': {said}' if said else ''}"

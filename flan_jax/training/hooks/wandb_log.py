"""Sends a run's figures to Weights & Biases by its own library (extra `wandb`, macro WANDB)."""

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

FILE = "wandb.json"  # in MODEL_DIR: the id by which later starts continue the same run


class WandbLog:
    """Sends every step's figures, in one process. It comes after all hooks that add figures.

    A start that cannot reach the service, or is not logged in, ends with one line. Later, the service's own process
    keeps what it cannot send. If the service refuses a figure, a line is printed and the run goes on; metrics.jsonl has
    it all.

    Steps that are taken again after an interruption are sent again. The figure `step` tells them apart.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Loads the library.

        Args:
          settings: "project", and if wanted "entity", "group", "name" (by default MODEL_DIR's) and "mode" ("online" or
            "offline"; by default what the variable WANDB_MODE says).

        Raises:
          FlanError: the library is not installed.
        """
        self._settings, self._run = dict(settings), None
        try:
            self._wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise FlanError("WANDB needs the library wandb: pip install -e '.[wandb]'; or leave WANDB out.") from error

    def start(self, context: Context) -> None:
        """Begins the run at the service, or continues it."""
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
        except Exception as error:  # the library of a service can raise anything
            print(f"step {step}: WANDB: {_reason(error)}; nothing more is sent there, the run goes on.", flush=True)
            self._run = None

    def end(self, context: Context) -> None:
        """Waits until everything is sent."""
        if self._run is not None:
            with _failing("ending the run"):
                self._run.finish(exit_code=0 if context.error is None else 1)


def _identity(context: Context) -> str:
    """The run's id at the service. A run that begins again at step 1 gets a new one."""
    path = context.folder / FILE
    if context.first_step:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    found = secrets.token_hex(8)
    write_atomic(path, json.dumps({"id": found}) + "\n")
    return found


@contextlib.contextmanager
def _failing(doing: str) -> Iterator[None]:
    """A block with calls that may need the service."""
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

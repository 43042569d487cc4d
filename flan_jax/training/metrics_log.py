"""Where a run's figures go: one JSON line a step in `metrics.jsonl`, and TensorBoard."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX import SummaryWriter

from flan_jax.files import to_json


class MetricsLog:
    """Appends steps to MODEL_DIR/metrics.jsonl and MODEL_DIR/tensorboard; a context manager.

    A resumed run drops the lines at or after its first step, so that every step stands once.
    """

    def __init__(self, model_dir: Path, first_step: int) -> None:
        path = model_dir / "metrics.jsonl"
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= first_step:
                        kept.append(line)
                except (json.JSONDecodeError, KeyError):
                    continue  # the last line of a killed run may be half-written
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text("".join(line + "\n" for line in kept))
        temporary.replace(path)
        self._file = path.open("a", buffering=1)
        self._board = SummaryWriter(str(model_dir / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Writes one step; nested dicts become `outer/inner` in TensorBoard."""
        self._file.write(to_json({"step": step, **values}, what=f"step {step}") + "\n")
        for name, value in values.items():
            for inner, scalar in value.items() if isinstance(value, dict) else [(None, value)]:
                self._board.add_scalar(f"{name}/{inner}" if inner else name, scalar, step)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()

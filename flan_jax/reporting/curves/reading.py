"""Reads the course of a run from MODEL_DIR. Its files may be unfinished, damaged, or of an earlier version."""

from __future__ import annotations

import dataclasses
import functools
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.checkpoint.manifest import Manifest
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, user_path
from flan_jax.json_lines import as_unicode, read_json_lines
from flan_jax.training.hooks.spikes import FILE as SPIKES
from flan_jax.training.run import Run
from flan_jax.values import shown
from flan_jax.wording import counted

FILE = "metrics.jsonl"
_LARGEST = 1e30  # larger values are no figures of a run, and cannot be drawn
_LAST_STEP = 2**53
_LONGEST_NAME = 80  # characters
_LOOKED_AT = 50  # how many folders are searched in a folder that is no run
_NAMED = 5  # how many of them a message names


@dataclasses.dataclass(frozen=True)
class Restart:
    """A later start of a run with changed settings.

    Attributes:
      step: number of steps taken before.
      when: date and time.
      changed: "NAME old -> new" for each change.
    """

    step: int
    when: str
    changed: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Spike:
    """A step whose loss was far above that of the steps before.

    Attributes:
      step: its number.
      loss: its loss; None if it was not finite.
      median: the median of the steps before; None if there were few.
      dataset_loss: the step's loss by dataset.
    """

    step: int
    loss: float | None
    median: float | None
    dataset_loss: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Course:
    """The course of a run.

    Attributes:
      name: tells it apart from the other runs that are shown.
      folder: its MODEL_DIR.
      mixture: what is tuned on; empty if unknown.
      train_steps: the steps of the whole run; None if unknown.
      steps: the logged steps, int64 [N], ascending.
      figures: values by name ("outer/inner" for one of several), float64 [N]; NaN at steps without a value.
      restarts: later starts with changed settings.
      spikes: steps whose loss was far above the others, from spikes.jsonl.
      notes: what is odd about the files.
    """

    name: str
    folder: str
    mixture: str
    train_steps: int | None
    steps: np.ndarray
    figures: dict[str, np.ndarray]
    restarts: tuple[Restart, ...]
    spikes: tuple[Spike, ...]
    notes: tuple[str, ...]

    def points(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of a figure at the steps that have it; empty if there is no such figure."""
        values = self.figures.get(name)
        if values is None:
            return np.zeros(0, np.int64), np.zeros(0)
        there = np.isfinite(values)
        return self.steps[there], values[there]

    @property
    def skipped(self) -> np.ndarray:
        """The steps whose batch was skipped."""
        steps, values = self.points("skipped")
        return steps[values > 0]


def load(folders: Sequence[str]) -> list[Course]:
    """Reads the courses of runs.

    Args:
      folders: the MODEL_DIR of each run.

    Raises:
      FlanError: a folder is no run, has no step yet, cannot be read, or is given twice.
    """
    paths = [user_path(folder, "--run") for folder in folders]
    if twice := [path for number, path in enumerate(paths) if path in paths[:number]]:
        raise FlanError(f"--run: {twice[0]} stands twice: give each run once.")
    return [_course(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _names(paths: Sequence[AnyPath]) -> list[str]:
    """The last parts of each path, as many as are needed to tell the paths apart."""
    parts = [[part for part in str(path).split("/") if part] or ["/"] for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return [_printable(name) for name in names]


def _course(folder: AnyPath, name: str) -> Course:
    notes: list[str] = []
    steps, figures = _logged(folder, notes)
    mixture, train_steps, restarts = _record(folder, notes)
    return Course(name, str(folder), mixture, train_steps, steps, figures, restarts, _spikes(folder), tuple(notes))


# ---------------------------------------------------------------------------------------------------- metrics.jsonl


def _logged(folder: AnyPath, notes: list[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    path = folder / FILE
    if not path.exists():
        raise FlanError(f"{folder} is no run: it has no {FILE}{_remedy(folder)}")
    columns: dict[str, Any] = {}
    steps, problems, too_large = array("q"), [], 0
    for line in read_json_lines(path, strict=False):
        step = line.value.get("step") if isinstance(line.value, dict) else None
        if not _is_step(step):
            problems.append((line.number, line.problem or "it has no step"))
            last_is_broken = True
            continue
        last_is_broken = False
        for figure, value in _flat(line.value):
            if not abs(value) <= _LARGEST:  # also catches NaN
                too_large += value == value
                continue
            places, values = columns.setdefault(figure, (array("q"), array("d")))
            places.append(len(steps))
            values.append(value)
        steps.append(step)
    if problems and last_is_broken:  # the run is just writing it, or was killed
        problems.pop()
    if problems:
        number, problem = problems[0]
        notes.append(
            f"{counted(len(problems), 'lines')} of {FILE} cannot be read, the first is line {number}: {problem}"
        )
    if too_large:
        notes.append(f"{counted(too_large, 'values')} of {FILE} beyond {_LARGEST:g} left out")
    if not steps:
        raise FlanError(f"{folder} has no step in its {FILE} yet: look again when the first one is done.")
    return _in_order(np.frombuffer(steps, np.int64), columns, notes)


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LAST_STEP


def _remedy(folder: AnyPath) -> str:
    """What a user may have meant by the folder of several runs."""
    try:
        inner: list[Any] = sorted(folder.iterdir(), key=str)[:_LOOKED_AT] if folder.is_dir() else []
        found = [str(one) for one in inner if (one / FILE).exists()]
    except OSError:
        found = []
    if not found:
        return "; give MODEL_DIR of a run that has begun."
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"; runs in it: {', '.join(found[:_NAMED])}{more}."


def _in_order(
    steps: np.ndarray, columns: Mapping[str, tuple[array, array]], notes: list[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The values with each step once, ascending."""
    rows = np.argsort(steps, kind="stable")
    if len(np.unique(steps)) < len(steps):
        # The run was started again from an earlier step, and the log was not cut: old lines from that step on do not
        # count.
        later = np.append(np.minimum.accumulate(steps[::-1])[::-1][1:], _LAST_STEP)
        rows = np.flatnonzero(steps < later)
        many = counted(len(steps) - len(rows), "lines")
        notes.append(f"{many} of {FILE} left out: the run was begun again from an earlier step")
    elif np.any(np.diff(steps) < 0):
        notes.append(f"the lines of {FILE} are not in the order of their steps")
    figures = {}
    for name, (places, values) in columns.items():
        column = np.full(len(steps), np.nan)
        column[np.frombuffer(places, np.int64)] = np.frombuffer(values, np.float64)
        if np.isfinite(column[rows]).any():
            figures[name] = column[rows]
    return steps[rows], figures


def _flat(figures: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The numbers of a line of the log, by name."""
    found = []
    for name, value in figures.items():
        if name == "step":
            continue
        several = value.items() if isinstance(value, dict) else [(None, value)]
        for inner, number in several:
            if isinstance(number, int | float) and not isinstance(number, bool):
                full = name if inner is None else f"{name}/{inner}"
                found.append((_printable(full), _number(number)))
    return found


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


@functools.lru_cache(maxsize=1 << 16)  # a log repeats the same names in every line
def _printable(name: str) -> str:
    """A name in one line, without characters that control a terminal."""
    name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in as_unicode(name))
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


# -------------------------------------------------------------------------------------------- run.json, spikes.jsonl


def _record(folder: AnyPath, notes: list[str]) -> tuple[str, int | None, tuple[Restart, ...]]:
    """(mixture, steps of the whole run, restarts), from run.json or from the manifest of an earlier version."""
    try:
        if (run := Run.load(folder)) is not None:
            return _printable(str(run.mixture)), run.train_steps, tuple(filter(None, map(_restart, run.changes)))
        notes.append("no run.json: of an earlier version, or the run has not begun")
        last = (Manifest.load(folder).history or [{}])[-1] if (folder / "manifest.json").is_file() else {}
    except FlanError as error:
        notes.append(str(error).rstrip("."))
        return "", None, ()
    mixture, steps = last.get("tuned on"), last.get("steps")
    known = isinstance(steps, int) and not isinstance(steps, bool)
    return _printable(mixture) if isinstance(mixture, str) else "", steps if known else None, ()


def _restart(change: Any) -> Restart | None:
    if not isinstance(change, dict) or not (_is_step(step := change.get("step")) or step == 0):
        return None
    pairs = change.get("changed")
    pairs = pairs.items() if isinstance(pairs, dict) else ()
    changed = [
        f"{name} {shown(pair[0])} -> {shown(pair[1])}" if isinstance(pair, list) and len(pair) == 2 else str(name)
        for name, pair in pairs
    ]
    return Restart(step, _printable(str(change.get("when", ""))), tuple(_printable(one) for one in changed))


def _spikes(folder: AnyPath) -> tuple[Spike, ...]:
    path, found = folder / SPIKES, []
    if not path.exists():
        return ()
    for line in read_json_lines(path, strict=False):
        step = line.value.get("step") if isinstance(line.value, dict) else None
        if _is_step(step):
            said = {name: value for name, value in _flat(line.value) if abs(value) <= _LARGEST}
            losses = {name.partition("/")[2]: x for name, x in said.items() if name.startswith("dataset_loss/")}
            found.append(Spike(step, said.get("loss"), said.get("median"), losses))
    return tuple(found)

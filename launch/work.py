"""Work units: what a launcher starts, in which order, and when it is started again."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from flan_jax import files
from flan_jax.errors import PREEMPTED, STALLED, FlanError

TRAIN, EVAL, PROGRAM = "train", "eval", "program"
MODULES = {TRAIN: "flan_jax.train", EVAL: "flan_jax.eval"}
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
_LONGEST = 40  # of a unit's name: Kubernetes makes names of 63 characters of it


@dataclasses.dataclass(frozen=True)
class Unit:
    """One thing to run.

    Attributes:
      name: lower-case letters, digits and hyphens, at most 40; the same plan gives the same names.
      job: "train", "eval", or "program" for something else.
      argv: the arguments of Python.
      output: the folder that it writes to; "" if that is not known.
      after: names of units that have to be done before.
      done: a file in the output folder that is there when nothing is left to do; "" if there is none but an
        evaluation's results.
    """

    name: str
    job: str
    argv: tuple[str, ...]
    output: str = ""
    after: tuple[str, ...] = ()
    done: str = ""

    def is_done(self) -> bool:
        """Whether nothing is left to do: what says so is in its folder. A training run sees that by itself.

        Raises:
          FlanError: the output folder cannot be looked into.
        """
        done = "results.json" if self.job == EVAL else self.done
        if not done:
            return False
        found = files.user_path(self.output, "--output") / done
        with files.written(found, "read"):
            return found.is_file()

    def progress(self) -> str | None:
        """What changes when the program has come further: the newest names in its output folder; None if unseen."""
        if not self.output:
            return None
        try:
            top = files.user_path(self.output)
            seen = [top / "checkpoints", *([top] if self.job == EVAL else [])]
            names = [path.name for folder in seen if folder.is_dir() for path in folder.iterdir()]
            if self.job == EVAL and (top / "predictions").is_dir():
                names += [str(path) for path in (top / "predictions").rglob("*.jsonl")]
        except (FlanError, OSError):
            return None
        whole = [name for name in names if ".tmp" not in name and "orbax-checkpoint-tmp" not in name]
        return hashlib.sha256("\n".join(sorted(whole)).encode()).hexdigest()


def unit_name(words: Sequence[str], told: Sequence[str]) -> str:
    """A name of these words, as far as there is room, with a digest of all that makes the unit what it is."""
    digest = hashlib.sha256("\n".join([*words, *told]).encode()).hexdigest()[:6]
    name = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
    name = name if name[:1].isalpha() else f"u-{name}"
    return f"{name[: _LONGEST - len(digest) - 1].strip('-')}-{digest}"


def program(argv: Sequence[str]) -> Unit:
    """The unit of a command that was written out; its output folder is read off its gin bindings where it can be."""
    job = next((job for job, module in MODULES.items() if list(argv[:2]) == ["-m", module]), PROGRAM)
    macro = {TRAIN: "MODEL_DIR", EVAL: "EVAL_OUTPUT_DIR"}.get(job)
    output = ""
    for argument in argv:
        option, _, value = argument.partition("=")
        if macro and option == f"--gin.{macro}":
            with contextlib.suppress(ValueError, SyntaxError):  # which the program will say
                output = str(ast.literal_eval(value))
    name = argv[1].rsplit(".", 1)[-1] if list(argv[:1]) == ["-m"] and len(argv) > 1 else PROGRAM
    return Unit(unit_name([name], argv), job, tuple(argv), output)


def show(units: Sequence[Unit], as_json: bool = False) -> None:
    """Prints units, a command a line, or as one JSON object."""
    if as_json:
        print(json.dumps({"units": [dataclasses.asdict(unit) for unit in units]}))
        return
    for unit in units:
        after = f"  # after {', '.join(unit.after)}" if unit.after else ""
        print(f"{unit.name}: python {shlex.join(unit.argv)}{after}", flush=True)
    print(f"{len(units)} unit{'s' * (len(units) != 1)} to run", flush=True)


def run_all(units: Sequence[Unit], run: Callable[[Unit], int]) -> int:
    """Runs units in order. Where one fails, what needs it is left out and the others go on.

    Args:
      units: in an order in which nothing comes before what it needs.
      run: gives the exit status.

    Returns:
      0, or the exit status of the first unit that failed.
    """
    failed: dict[str, int] = {}
    for number, unit in enumerate(units, 1):
        missing = [name for name in unit.after if name in failed]
        if missing:
            failed[unit.name] = failed[missing[0]]
            print(f"[{number}/{len(units)}] {unit.name} is left out: {missing[0]} failed", flush=True)
            continue
        print(f"[{number}/{len(units)}] {unit.name}", flush=True)
        if status := run(unit):
            failed[unit.name] = status
            print(f"[{number}/{len(units)}] {unit.name} ended with exit status {status}", flush=True)
    return next(iter(failed.values()), 0)


def is_restarted(status: int) -> bool:
    """Whether what ended so is started again: it saved and stopped, hung, or was killed from outside."""
    return status in (PREEMPTED, STALLED, 128 + signal.SIGKILL, 128 + signal.SIGTERM)


class Restarts:
    """Counts starts without progress, for all launchers.

    Args:
      most: how many restarts in a row may bring no progress.
      lasting: a run of so many seconds counts as progress where the output folder cannot be seen.
    """

    def __init__(self, most: int, lasting: float = 600.0) -> None:
        self.most, self.lasting, self.used, self.last = most, lasting, 0, None

    def __str__(self) -> str:
        return f"{self.used} of {self.most} restarts without progress are used"

    def allows(self, progress: str | None, seconds: float) -> bool:
        """Whether it may be started again after a run of so many seconds, with this progress."""
        came_further = seconds >= self.lasting if progress is None else progress != self.last
        self.last = progress
        self.used = 0 if came_further else self.used + 1
        return self.most > 0 and self.used <= self.most


def run_here(unit: Unit, restarts: int) -> int:
    """Runs a unit in a process of this machine.

    SIGTERM and SIGHUP are passed on. Then nothing is started again, nor the next unit: the program ends with the unit's
    status, or as signals end one where the unit had just done its work. SIGHUP that nohup ignores stays ignored.
    """
    counted, told = Restarts(restarts), []
    counted.last = unit.progress()
    while True:
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, *unit.argv])

        def tell(number: int, frame: object, process: subprocess.Popen[bytes] = process) -> None:
            told.append(number)
            process.send_signal(number)

        heard = [one for one in _PASSED_ON if signal.getsignal(one) != signal.SIG_IGN]
        before = {one: signal.signal(one, tell) for one in heard}
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the terminal has told the program too
            process.wait()
            raise
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
        status = 128 - status if status < 0 else status
        if told:
            print(f"{unit.name} was told to end, and ended with status {status}; nothing more is started", flush=True)
            raise SystemExit(status or 128 + told[0])
        if not is_restarted(status) or not counted.allows(unit.progress(), time.monotonic() - began):
            return status
        print(f"{unit.name} ended with status {status}; started again ({counted})", flush=True)

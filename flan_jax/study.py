r"""Runs an experiment of the paper, from the data to its tables and figures.

python -m flan_jax.study --gin_file=studies/held_out_clusters.gin --budget=small \
  --gin.STUDY_DIR="'studies'" --gin.DATA="'data'"
python -m flan_jax.study --list

It plans what has to be tuned and evaluated, skips what is done, runs the rest one after another, and writes
STUDY_DIR/<study>/study.html. After an interruption, the same command goes on. --dry_run shows the plan with times and
runs nothing. --units=FILE writes the plan for a launcher (`flan_jax.launch.tpu_vm`, `gke` and `xm_launch` read it with
--units); when the launcher is done, the same command here collects the results. --budget is tiny, small or paper: a
file of gin/studies/budgets, which is read after the study's own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
from rich.console import Console
from rich.table import Table as RichTable

from flan_jax import configuration, options, wording
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.files import ready, user_path, write_atomic
from flan_jax.json_lines import to_json
from flan_jax.launch import work
from flan_jax.lazy import lazy_imports
from flan_jax.quiet import quiet_loggers
from flan_jax.values import Whole

with lazy_imports():  # so that a wrong command line is reported at once
    from flan_jax.studies import commands as study_commands
    from flan_jax.studies import document, estimates, kinds, operations, outcomes, records, trained
    from flan_jax.studies import settings as studied

BUDGETS = ("tiny", "small", "paper")
_DEFAULT_BUDGET = "small"


def unit_of(step: study_commands.Step) -> work.Unit:
    """A step of the plan as launchers start it."""
    job = {study_commands.TRAIN: work.TRAIN, study_commands.EVAL: work.EVAL}.get(step.job, work.PROGRAM)
    # A conversion is there as a whole or not at all, and is refused where it is.
    done = step.done if step.job == study_commands.CONVERT else ""
    return work.Unit(step.name, job, step.argv, step.output, step.after, done)


def run(
    settings: studied.Settings,
    again: Sequence[str],
    *,
    dry_run: bool = False,
    units: str | None = None,
    restarts: int = 0,
    execute: Callable[[work.Unit, int], int] = work.run_here,
    say: Callable[[str], None] = print,
) -> dict:
    """Plans a study, runs what is left to do, and writes its tables and figures.

    Args:
      settings: see `studies.settings.study`.
      again: the command line, for messages that say how to repeat it.
      dry_run: whether to show the plan and run nothing.
      units: a file to which the remaining units are written for a launcher; nothing is run then.
      restarts: how often a step that was preempted or hung, and made no progress, is started again.
      execute: runs a unit and returns its exit status.
      say: prints a line.

    Returns:
      What study.json holds; for a dry run, the plan.

    Raises:
      FlanError: bad input, data that are not there, a step that failed, or scores that do not belong together.
    """
    if dry_run and units is not None:
        raise FlanError(f"--dry_run writes nothing, and --units={units} is a file to write: leave one of the two out.")
    if units is not None:
        ready(user_path(units, "--units"))  # before anything is put aside for it
    kind = kinds.study(settings.name)
    if settings.points is not None and not kind.points:
        raise FlanError(f"study {kind.name} varies nothing by POINTS: leave them out.")
    if settings.judged_by is not None and not kind.takes_judged_by:
        raise FlanError(f"study {kind.name} chooses nothing by JUDGED_BY, which is for the study recipe: leave it out.")
    records.check_data(settings.folder, settings.data, write=False)  # the plan may lack what other DATA have
    commands = kind.plan(settings)
    records.check_data(settings.folder, settings.data, write=not dry_run and not settings.is_data_gone)
    trained.check(commands)
    left = _left(commands, say)
    if settings.is_data_gone and any(step.job == study_commands.PREPARE for step in left):
        raise FlanError(
            f"DATA is {settings.data!r}: there is no such folder; give 'samples', 'tfds', or a folder of data."
        )
    plan = _planned(commands.steps, {step.name for step in left}, estimates.of(settings.folder, commands.steps))
    if dry_run:
        Console(width=160, markup=False, emoji=False).print(_table(plan))
        say(_summary(plan))
        return {"study": kind.name, "steps": plan}
    if units is not None:
        names = {step.name for step in left}
        for step in left:
            records.begin(settings.folder, step)
            records.put_aside(step)  # what has results is done to a launcher
        needed = [dataclasses.replace(step, after=tuple(n for n in step.after if n in names)) for step in left]
        content = {"units": [dataclasses.asdict(unit_of(step)) for step in needed]}
        write_atomic(user_path(units, "--units"), json.dumps(content, indent=1) + "\n")
        if not left:
            say(f"{units} has no units, since no step is left: run this without --units for the result.")
        else:
            say(f"{len(left)} units in {units}: start them with --units={units} of a launcher, then run this again.")
        return {"study": kind.name, "steps": plan}
    say(_summary(plan))
    by_name: dict[str, study_commands.Step] = {}

    def take(unit: work.Unit) -> int:
        step, began = by_name[unit.name], time.monotonic()
        # Made by a launcher, or evaluated again in its folder: the time here says nothing.
        was_there = bool(step.done) and (user_path(step.output) / step.done).exists()
        records.begin(settings.folder, step)
        status = execute(unit, restarts)
        if not status:
            if not (user_path(step.output) / step.done).exists():
                say(f"{step.name} ended well and left no {step.done or 'folder'} in {step.output}")
                return 1
            records.keep(settings.folder, step, None if was_there else time.monotonic() - began)
            if step.job in (study_commands.CONVERT, study_commands.PREPARE):
                trained.check(commands)  # what was tuned before may be of other data or of another model
        return status

    taken: set[str] = set()
    while left:
        if twice := sorted(taken & {step.name for step in left}):
            raise FlanError(f"study {kind.name}: {twice[0]} ended well, and is not done; the reason stands above.")
        by_name = {step.name: step for step in left}
        todo = [unit_of(dataclasses.replace(s, after=tuple(n for n in s.after if n in by_name))) for s in left]
        if status := work.run_all(todo, take):
            raise FlanError(
                f"study {kind.name}: a step ended with status {status}, above; mend what it says and run the same "
                "command, which goes on."
            )
        taken |= set(by_name)
        left = _left(commands, say)  # a model that had to be tuned again may be another one
    trained.check(commands)  # launchers may have prepared and converted
    shown = kind.show(commands)
    paths = document.write(
        settings.folder / kind.name, kind.name, kind.question, kind.source, commands, shown, list(again)
    )
    for line in shown.said:
        say(line)
    say(f"study: {paths['html']}")
    return json.loads(paths["json"].read_text(encoding="utf-8"))


def _left(commands: study_commands.Commands, say: Callable[[str], None]) -> list[study_commands.Step]:
    """The steps that are not done, or whose results are not the ones that are wanted, which a line says."""
    left = []
    for step in commands.steps:
        if not records.is_done(commands.settings.folder, step):
            left.append(step)
            if step.job == study_commands.PREPARE:
                records.spoiled(commands, step)  # refuses what it would not replace
            if names := records.changed(commands.settings.folder, step):
                of = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
                say(f"{step.name}: data or code of {of} may have changed since. They are prepared again.")
        elif problem := outcomes.problem(commands, step):
            again = "prepared" if step.job == study_commands.PREPARE else "evaluated"
            say(f"{step.name}: {step.output} {problem}. It is {again} again.")
            left.append(step)
    return left


def settings_of(
    files: Sequence[str],
    bindings: Sequence[str],
    train: Mapping[str, Any] | None = None,
    evaluate: Mapping[str, Any] | None = None,
) -> studied.Settings:
    """Reads the settings of a study from gin files and bindings.

    Args:
      files: gin files.
      bindings: the bindings of the command line.
      train: macros that override those of TRAIN.
      evaluate: macros that override those of EVAL.

    Raises:
      FlanError: bad input.
    """
    from flan_jax.studies import settings as _  # noqa: F401 - makes `study` known to gin, which the files bind

    configuration.parse(files, bindings)
    given: dict[str, Any] = {}
    if train:
        given["train"] = {**(configuration.macro("TRAIN") or {}), **train}
    if evaluate:
        given["evaluate"] = {**(configuration.macro("EVAL") or {}), **evaluate}
    return gin.get_configurable("study")(**given)


def _planned(steps: Sequence[study_commands.Step], left: set[str], times: dict) -> list[dict]:
    return [
        {
            "name": step.name,
            "job": step.job,
            "done": step.name not in left,
            "seconds": None if times[step.name].seconds is None else round(times[step.name].seconds),
            "from": times[step.name].of,
            "output": step.output,
            "command": shlex.join(["python", *step.argv]),
        }
        for step in steps
    ]


def _table(plan: Sequence[dict]) -> RichTable:
    table = RichTable(box=None, header_style="bold")
    for head, justify in (("step", "left"), ("job", "left"), ("state", "left"), ("about", "right")):
        table.add_column(head, justify=justify)
    for step in plan:
        about = "" if step["done"] else ("over " if _counted(step) else "") + _time(step["seconds"])
        table.add_row(step["name"], step["job"], "done" if step["done"] else "to do", about)
    return table


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not known yet"
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:.0f} min"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )


def _counted(step: dict) -> bool:
    """Whether the number of operations alone decides how long a step takes."""
    return step["seconds"] is not None and not step["from"]


def _summary(plan: Sequence[dict]) -> str:
    left = [step for step in plan if not step["done"]]
    told = f"{wording.counted(len(plan), 'steps')}, {len(plan) - len(left)} done, {len(left)} to do"
    timed = [step["seconds"] for step in left if step["from"]]
    counted = [step["seconds"] for step in left if _counted(step)]
    if len(timed) == len(left):
        return told + (f", about {_time(sum(timed))}" if timed else "")
    parts = [f"{len(timed)} in about {_time(sum(timed))}"] if timed else []
    if counted:
        parts.append(
            f"{len(counted)} in more than {_time(sum(counted))} (by operations, at {operations.rate() / 1e9:.0f} "
            "GFLOP/s of this machine's processor; in less on an accelerator)"
        )
    if unknown := len(left) - len(timed) - len(counted):
        parts.append(f"{unknown} of a kind that was not timed here yet")
    return f"{told}: {', '.join(parts)}"


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and the gin files, and runs the study."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = options.Parser(
        prog="python -m flan_jax.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--gin_file=FILE and --gin.NAME=VALUE configure the study; gin/studies/study.gin lists the macros.",
    )
    parser.add_argument(
        "--budget", choices=BUDGETS, default=_DEFAULT_BUDGET, help="how much to compute: a file of studies/budgets"
    )
    parser.add_argument("--dry_run", action="store_true", help="show the plan and run nothing")
    parser.add_argument(
        "--units", type=options.path, help="write the remaining steps for a launcher to this file, and run nothing"
    )
    parser.add_argument(
        "--restarts", type=options.of(Whole(0)), default=0, help="how often to start a step again that made no progress"
    )
    parser.add_argument("--list", action="store_true", help="list the studies")
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object, last line")
    quiet_loggers()
    with one_line_errors():
        files, bindings, rest = configuration.split_arguments(given)
        arguments = parser.parse_args(rest)
        if arguments.list:
            for one in kinds.studies().values():
                print(f"{one.name}: {one.question} ({one.source})")
            return
        if not files:
            raise FlanError("name the study: --gin_file=studies/held_out_clusters.gin; --list shows all.")
        found = run(
            settings_of([*files, f"studies/budgets/{arguments.budget}.gin"], bindings),
            ["python", "-m", "flan_jax.study", *given],
            dry_run=arguments.dry_run,
            units=arguments.units,
            restarts=arguments.restarts,
        )
        if arguments.json:
            print(to_json(found))


if __name__ == "__main__":
    main()

"""Shows runs in a terminal: one line for each figure and run, with its course as a curve of a few characters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flan_jax.reporting.curves import figures
from flan_jax.reporting.curves.reading import Course
from flan_jax.wording import counted

_LEVELS = "▁▂▃▄▅▆▇█"
_WIDTH = 40  # characters of a curve
_SAME = 1e-9  # a smaller range, relative to the values, is rounding
_LISTED = 10  # how many restarts, skipped batches and spikes are listed


def show(console: Console, courses: Sequence[Course]) -> None:
    """Prints the runs."""
    for course in courses:
        console.print(Text(_head(course)))
    table = Table(box=None, header_style="bold", padding=(0, 1))
    several = len(courses) > 1
    for name in ("figure", *(["run"] if several else []), "from the first step to the last"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in ("first", "last", "last tenth", "lowest", "highest"):
        table.add_column(name, justify="right", no_wrap=True)
    span = min(int(c.steps[0]) for c in courses), max(int(c.steps[-1]) for c in courses)
    for group in figures.groups(courses):
        table.add_section()
        table.add_row(Text(group.title, style="bold"))
        for name in group.figures:
            title = group.short(name)
            for course in courses:
                if (found := figures.summary(course, name)) is None:
                    continue
                numbers = (found[key] for key in ("first", "last", "mean_of_last_tenth", "lowest", "highest"))
                cells = [Text(course.name)] if several else []
                curve = sparkline(*course.points(name), span)
                table.add_row(Text(title), *cells, Text(curve), *map(figures.short_number, numbers))
                title = ""
    console.print(table)
    for course in courses:
        for line in lines(course):
            console.print(Text(f"{course.name}: {line}" if several else line), soft_wrap=True)


def _head(course: Course) -> str:
    last, of = int(course.steps[-1]), course.train_steps
    where = f"step {last:,}" + (f" of {of:,}" if of is not None else "")
    return f"{course.name}: {course.mixture or 'mixture not known'}, {where}, {course.folder}"


def lines(course: Course) -> list[str]:
    """What has happened to a run, and what is odd about its files."""
    found = [f"started again after step {one.step:,} ({one.when}): {', '.join(one.changed)}" for one in course.restarts]
    if len(found) > _LISTED:
        found = [*found[:_LISTED], f"and {counted(len(found) - _LISTED, 'more starts')}"]
    if len(course.skipped):
        found.append(f"{counted(len(course.skipped), 'batches')} skipped: step {_listed(course.skipped.tolist())}")
    if course.spikes:
        steps = [one.step for one in course.spikes]
        found.append(f"{counted(len(steps), 'spikes')} of the loss: step {_listed(steps)}; see spikes.jsonl")
    return [*found, *(f"note: {note}" for note in course.notes)]


def _listed(steps: Sequence[int]) -> str:
    more = f" and {len(steps) - _LISTED} more" if len(steps) > _LISTED else ""
    return ", ".join(f"{step:,}" for step in steps[:_LISTED]) + more


def sparkline(steps: np.ndarray, values: np.ndarray, span: tuple[int, int]) -> str:
    """A curve in one line, with blanks where there is no value.

    Args:
      steps: the steps, ascending.
      values: finite values, one for each step.
      span: the first and the last step of the line.
    """
    width = min(_WIDTH, span[1] - span[0] + 1)
    sums, counts = np.zeros(width), np.zeros(width)
    part = (steps - span[0]) * width // (span[1] - span[0] + 1)
    np.add.at(sums, part, values)
    np.add.at(counts, part, 1)
    means = sums[counts > 0] / counts[counts > 0]
    low, high = means.min(), means.max()
    levels = np.full(len(means), len(_LEVELS) // 2)
    if high - low > _SAME * max(abs(high), abs(low)):
        levels = np.round((means - low) / (high - low) * (len(_LEVELS) - 1)).astype(int)
    line = np.full(width, " ")
    line[counts > 0] = [_LEVELS[level] for level in levels]
    return "".join(line)

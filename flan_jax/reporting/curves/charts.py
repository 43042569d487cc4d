"""Draws one figure of one or several runs. Names stand beside it in HTML, which can show any of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker
from matplotlib.figure import Figure

from flan_jax.reporting.curves.figures import thinned
from flan_jax.reporting.curves.reading import Course
from flan_jax.reporting.plots.drawing import COLORS, drawn

_SIZE = (4.8, 2.7)  # inches: two side by side on a screen, one on a phone
_POINTS = 240
_FEW = 40  # up to so many points, each is marked
_FAR = 4.0  # if the whole range is so many times the range without a few values, it is cut
_FEW_VALUES = 1.0  # percent of the values at either end
_MARGIN = 0.3  # shown beyond the range of the others, as a share of it
_STEPS = (1, 2, 2.5, 5, 10)  # distances between the numbers on an axis
_DASHES = ("-", "--", ":", "-.")


def color(number: int) -> str:
    """The colour of a run, by its number."""
    return COLORS[1:][number % (len(COLORS) - 1)]


def dashes(number: int) -> str:
    """The dash pattern of a run, which tells runs of one colour apart."""
    return _DASHES[number // (len(COLORS) - 1) % len(_DASHES)]


def chart(
    courses: Sequence[Course], name: str, sparse: bool = False, span: tuple[float, float] | None = None
) -> tuple[bytes, int]:
    """Draws a figure of each run against the step.

    Lines are means over equal parts of the steps; a band shows the lowest and highest values. A dotted line is a start
    with changed settings. A cross at the bottom is a batch that was skipped.

    Args:
      courses: the runs; those without the figure are left out.
      name: the figure's name.
      sparse: whether to mark every value as a point.
      span: the values that the figure can have; all of them are shown.

    Returns:
      The chart as SVG, and how many values are outside of it.
    """
    shown = [(number, course) for number, course in enumerate(courses) if len(course.points(name)[0])]
    values = [course.points(name)[1] for _, course in shown]
    limits = _limits(values)

    def draw() -> Figure:
        figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
        for number, course in shown:
            points = course.points(name)
            style = {"color": color(number), "linestyle": dashes(number), "linewidth": 1.3}
            steps, mean, low, high = thinned(*points, _POINTS)
            marker = "o" if sparse or len(steps) <= _FEW else None
            axes.plot(steps, mean, marker=marker, markersize=3, **style)
            if len(points[0]) > len(steps):
                axes.fill_between(steps, low, high, color=color(number), alpha=0.16, linewidth=0)
            for restart in course.restarts:
                axes.axvline(restart.step, color=color(number), linestyle=(0, (1, 2)), linewidth=1)
            if len(course.skipped):
                at = np.full(len(course.skipped), 0.02)
                bottom = axes.get_xaxis_transform()
                axes.plot(course.skipped, at, "x", color=color(number), markersize=5, transform=bottom)
        if limits is not None:
            axes.set_ylim(*limits)
        if span is not None and span[0] <= min(map(np.min, values)) and max(map(np.max, values)) <= span[1]:
            axes.set_ylim(*span)
        axes.set_xlim(*_ends(courses))
        _tidy(axes, np.concatenate(values))
        return figure

    found = np.concatenate(values)
    outside = 0 if limits is None else np.count_nonzero((found < limits[0]) | (found > limits[1]))
    return drawn(draw, tight=False) or b"", int(outside)


def _ends(courses: Sequence[Course]) -> tuple[float, float]:
    """The first and last step over all figures, so that charts one below the other have the same axis."""
    first = min(float(course.steps[0]) for course in courses)
    last = max(float(course.steps[-1]) for course in courses)
    margin = max(0.03 * (last - first), 0.5)
    return first - margin, last + margin


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """The range to show if a few values of a run would flatten all others; None to show everything."""
    ranges = []
    for one in values:
        low, high = np.percentile(one, [_FEW_VALUES, 100 - _FEW_VALUES])
        span, lowest, highest = high - low, one.min(), one.max()
        if span > 0 and highest - lowest > _FAR * span:
            lowest, highest = max(lowest, low - _MARGIN * span), min(highest, high + _MARGIN * span)
        ranges.append((lowest, highest))
    limits = min(low for low, _ in ranges), max(high for _, high in ranges)
    whole = min(one.min() for one in values), max(one.max() for one in values)
    if limits == whole or limits[0] == limits[1]:
        return None
    margin = 0.04 * (limits[1] - limits[0])
    return limits[0] - margin, limits[1] + margin


def _tidy(axes: plt.Axes, values: np.ndarray) -> None:
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=_STEPS))
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5, steps=_STEPS))
    if np.abs(values).max() >= 1e4:
        axes.yaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    else:
        axes.ticklabel_format(axis="y", useOffset=False)  # no offset such as "+2.12024e3" above the axis
    axes.set_xlabel("step")

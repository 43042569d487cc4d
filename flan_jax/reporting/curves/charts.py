"""One figure of one or several runs, drawn. Names stand beside it in HTML, which knows how to write any of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker
from matplotlib.figure import Figure

from flan_jax.reporting.curves.figures import thinned
from flan_jax.reporting.curves.reading import Course
from flan_jax.reporting.plots.drawing import COLORS, drawn

_SIZE = (4.8, 2.7)  # inches: two beside each other on a screen, one on a telephone
_POINTS = 240
_FEW = 40  # points up to which each is marked
_FAR = 4.0  # a range so many times that of all but a few values is cut
_FEW_VALUES = 1.0  # percent at either end
_STEPS = (1, 2, 2.5, 5, 10)  # of an axis's numbers
_DASHES = ("-", "--", ":", "-.")


def color(number: int) -> str:
    """Of a run."""
    return COLORS[1:][number % (len(COLORS) - 1)]


def dashes(number: int) -> str:
    """The line of a run, which tells runs of one colour apart."""
    return _DASHES[number // (len(COLORS) - 1) % len(_DASHES)]


def chart(courses: Sequence[Course], name: str, sparse: bool = False) -> tuple[bytes, int]:
    """A figure of each run against the step, as SVG, and how many values are outside of what is shown.

    Lines are means of equal parts of the steps, a band their lowest and highest; a dotted line is a start with
    something changed, a cross at the bottom a batch that was skipped.

    Args:
      courses: the runs; those without the figure are left out.
      name: of the figure.
      sparse: whether every value is a point.
    """
    outside = 0

    def draw() -> Figure:
        nonlocal outside
        figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
        for number, course in enumerate(courses):
            points = course.points(name)
            if not len(points[0]):
                continue
            style = {"color": color(number), "linestyle": dashes(number), "linewidth": 1.3}
            steps, mean, low, high = thinned(*points, _POINTS)
            marker = "o" if sparse or len(steps) <= _FEW else None
            axes.plot(steps, mean, marker=marker, markersize=3, **style)
            if len(points[0]) > len(steps):
                axes.fill_between(steps, low, high, color=color(number), alpha=0.16, linewidth=0)
            for restart in course.restarts:
                axes.axvline(restart.step, color=color(number), linestyle=(0, (1, 2)), linewidth=1)
        found = np.concatenate([course.points(name)[1] for course in courses])
        if (limits := _limits(found)) is not None:
            axes.set_ylim(*limits)
            outside = int(np.count_nonzero((found < limits[0]) | (found > limits[1])))
        for number, course in enumerate(courses):
            skipped = course.skipped
            if len(skipped):
                at = np.full(len(skipped), 0.02)
                axes.plot(skipped, at, "x", color=color(number), markersize=5, transform=axes.get_xaxis_transform())
        _tidy(axes, found)
        return figure

    return drawn(draw, tight=False) or b"", outside


def _limits(values: np.ndarray) -> tuple[float, float] | None:
    """What is shown where a few values would flatten all others; None for everything."""
    low, high = np.percentile(values, [_FEW_VALUES, 100 - _FEW_VALUES])
    if high - low <= 0 or values.max() - values.min() <= _FAR * (high - low):
        return None
    return max(values.min(), low - 0.3 * (high - low)), min(values.max(), high + 0.3 * (high - low))


def _tidy(axes: plt.Axes, values: np.ndarray) -> None:
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=_STEPS))
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5, steps=_STEPS))
    if np.abs(values).max() >= 1e4:
        axes.yaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.set_xlabel("step")

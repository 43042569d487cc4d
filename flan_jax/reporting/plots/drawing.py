"""What all plots share: settings, colours and lanes.

Datasets and clusters are listed from top to bottom, so names fit.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flan_jax.reporting.evidence import Evidence
from flan_jax.reporting.runs import Run

# Okabe and Ito's palette, which colour-blind readers can tell apart; markers differ too.
COLORS = ("#7f7f7f", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "flan_jax",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}


def svg(
    draw: Callable[[Sequence[Run], Evidence], Figure | None], runs: Sequence[Run], evidence: Evidence
) -> bytes | None:
    """The figure that `draw` makes, as SVG; None if it makes none."""
    return drawn(lambda: draw(runs, evidence))


def drawn(draw: Callable[[], Figure | None], tight: bool = True) -> bytes | None:
    """The figure that `draw` makes, as SVG, cut to its content or in its own size; None if it makes none."""
    with matplotlib.rc_context(SETTINGS):
        if (figure := draw()) is None:
            return None
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight" if tight else None, metadata={"Date": None})
        plt.close(figure)
    return buffer.getvalue()


def run_style(number: int) -> dict[str, str]:
    """The colour and marker of a run."""
    return {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}


def lanes(names: Sequence[str], runs: int, inches_a_run: float) -> tuple[Figure, Axes, np.ndarray]:
    """A figure with one lane for each name, from the top, and the offset of each run in its lane."""
    height = 0.7 + len(names) * (0.16 + inches_a_run * runs)
    figure, axes = plt.subplots(figsize=(8.6, height))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    for border in np.arange(len(names) - 1) + 0.5:
        axes.axhline(border, color="#eeeeee", lw=0.8, zorder=0)
    return figure, axes, (np.arange(runs) - (runs - 1) / 2) * 0.8 / runs


def baselines(axes: Axes, shares: Mapping[str, Sequence[float | None]], half: float) -> None:
    """A line in each lane for what needs no model.

    Args:
      axes: with lanes.
      shares: of each lane, 0 to 1, by the name in the legend: guessing first, then copying.
      half: of a line's height, in lanes.
    """
    for (name, values), dashes in zip(shares.items(), (":", "--"), strict=False):
        label: str | None = name
        for y, value in enumerate(values):
            if value is not None:
                places = [100 * value] * 2, [y - half, y + half]
                axes.plot(*places, color="black", lw=1.2, ls=dashes, label=label, zorder=5)
                label = None


def legend(axes: Axes, columns: int) -> None:
    """A legend above the axes."""
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(columns, 3), borderaxespad=0.2)

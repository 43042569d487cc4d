"""The report's plots, as SVG with the reader's fonts. Datasets and clusters stand below each other, so names fit."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flan_jax.reporting.evidence import Comparison, Evidence
from flan_jax.reporting.runs import Run, by_cluster, dataset_names, first_figures, template_value
from flan_jax.reporting.tables import cluster_title

# Okabe and Ito's palette: distinct for colour-blind readers; markers tell runs apart too.
COLORS = ("#7f7f7f", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_SETTINGS = {
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


def _svg(draw: Callable[..., Figure]) -> Callable[..., bytes]:
    @functools.wraps(draw)
    def drawn(*arguments: Any) -> bytes:
        with matplotlib.rc_context(_SETTINGS):
            figure = draw(*arguments)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
        return buffer.getvalue()

    return drawn


def _style(number: int) -> dict[str, str]:
    return {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}


def _lanes(names: Sequence[str], runs: int, inches_a_run: float) -> tuple[Figure, Axes, np.ndarray]:
    """A figure with a lane a name, from the top; the offset of each run in its lane."""
    height = 0.7 + len(names) * (0.16 + inches_a_run * runs)
    figure, axes = plt.subplots(figsize=(8.6, height))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    for border in np.arange(len(names) - 1) + 0.5:
        axes.axhline(border, color="#eeeeee", lw=0.8, zorder=0)
    return figure, axes, (np.arange(runs) - (runs - 1) / 2) * 0.8 / runs


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(columns, 3), borderaxespad=0.2)


@_svg
def cluster_bars(runs: Sequence[Run]) -> Figure:
    """Means of the clusters, with the random baseline."""
    clusters = list(by_cluster(runs))
    clear = {"facecolor": "white", "linewidth": 0, "pad": 0.4}
    figure, axes, offsets = _lanes([cluster_title(c) for c in clusters], len(runs), 0.17)
    for i, (run, offset) in enumerate(zip(runs, offsets, strict=True)):
        found = [(y, run.results["clusters"].get(c)) for y, c in enumerate(clusters)]
        found = [(y, 100 * f["mean"]) for y, f in found if f and f["mean"] is not None]
        color = _style(i)["color"]
        axes.barh([y + offset for y, _ in found], [x for _, x in found], 0.72 / len(runs), color=color, label=run.title)
        for y, x in found:
            axes.text(x + 0.6, y + offset, f"{x:.1f}", va="center", fontsize=8, color="#333333", bbox=clear, zorder=5)
    label = "random"
    for y, cluster in enumerate(clusters):
        figures = next(run.results["clusters"][cluster] for run in runs if cluster in run.results["clusters"])
        if figures["random"] is not None:
            axes.plot([100 * figures["random"]] * 2, [y - 0.42, y + 0.42], color="black", lw=1.2, ls=":", label=label)
            label = None
    axes.set_xlim(0, 104)
    axes.set_xlabel("mean over the cluster's datasets, %")
    _legend(axes, len(runs) + 1)
    return figure


@_svg
def template_spread(runs: Sequence[Run]) -> Figure:
    """A point a template, a bar at the mean, a dotted line at the random baseline."""
    names = dataset_names(runs)
    figure, axes, offsets = _lanes(names, len(runs), 0.13)
    for i, (run, offset) in enumerate(zip(runs, offsets, strict=True)):
        style = _style(i)
        axes.scatter([], [], s=22, **style, label=run.title)
        for y, name in enumerate(names):
            if not (figures := run.figures(name)):
                continue
            points = [100 * template_value(t) for t in figures["templates"]]
            axes.plot([min(points), max(points)], [y + offset] * 2, color=style["color"], lw=1, alpha=0.45)
            axes.scatter(points, [y + offset] * len(points), s=14, **style, alpha=0.65, linewidths=0, zorder=3)
            half, mean = 0.36 / len(runs), 100 * figures["mean"]
            axes.plot([mean, mean], [y + offset - half, y + offset + half], color=style["color"], lw=2.4, zorder=4)
    label = "random"
    for y, name in enumerate(names):
        random = first_figures(runs, name).get("random")
        if random is not None:
            axes.plot([100 * random] * 2, [y - 0.45, y + 0.45], color="black", lw=1.2, ls=":", label=label, zorder=2)
            label = None
    axes.set_xlim(-2, 102)
    axes.set_xlabel("headline metric, %: a point a template, a bar at the mean")
    _legend(axes, len(runs) + 1)
    return figure


@_svg
def differences(comparisons: Sequence[Comparison]) -> Figure:
    """Differences from the first run with their 95 % intervals."""
    names = list(dict.fromkeys(name for c in comparisons for name in c.datasets))
    figure, axes, offsets = _lanes(names, len(comparisons), 0.13)
    axes.axvline(0, color="black", lw=1)
    for i, (comparison, offset) in enumerate(zip(comparisons, offsets, strict=True)):
        found = [(names.index(name) + offset, interval) for name, interval in comparison.datasets.items()]
        centres = np.array([100 * interval.difference for _, interval in found])
        bounds = 100 * np.array([interval.bounds for _, interval in found]).reshape(-1, 2)
        style = _style(i + 1)
        axes.errorbar(
            centres,
            [y for y, _ in found],
            xerr=np.maximum(0, [centres - bounds[:, 0], bounds[:, 1] - centres]),
            fmt=style["marker"],
            ms=4.5,
            color=style["color"],
            elinewidth=1.4,
            capsize=2,
            label=f"{comparison.other} − {comparison.first}",
        )
    axes.set_xlabel("points, with 95 % interval")
    _legend(axes, len(comparisons))
    return figure


@_svg
def reliability(runs: Sequence[Run], evidence: Evidence) -> Figure:
    """Accuracy against confidence, a panel a run; circles grow with the number of predictions."""
    shown = [(i, run) for i, run in enumerate(runs) if evidence.calibration(run.name)]
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure, panels = plt.subplots(lines, columns, figsize=(2.9 * columns, 3.1 * lines), squeeze=False)
    for panel in panels.flat[len(shown) :]:
        panel.set_visible(False)
    for panel, (i, run) in zip(panels.flat, shown, strict=False):
        found = evidence.calibration(run.name)
        bins = found.to_list()
        color = _style(i)["color"]
        x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        panel.plot([0, 1], [0, 1], color="black", lw=1, ls=":")
        panel.plot(x, y, color=color, lw=1.2)
        total = sum(b["count"] for b in bins)
        panel.scatter(x, y, s=[12 + 260 * b["count"] / total for b in bins], color=color, alpha=0.6, linewidths=0)
        title = run.title if len(run.title) <= 30 else run.title.replace(" (", "\n(", 1)
        panel.set_title(f"{title}\nECE {100 * found.error:.1f} %", fontsize=9.5)
        panel.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal", xlabel="probability of the chosen option")
        panel.set_xticks(np.arange(0, 1.1, 0.25))
        panel.set_yticks(np.arange(0, 1.1, 0.25))
    for line in panels:
        line[0].set_ylabel("share that is right")
    figure.tight_layout()
    return figure

"""The scores of all templates of each dataset and run."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from flan_jax.evaluation import labels
from flan_jax.reporting.evidence import Evidence
from flan_jax.reporting.plots import Plot
from flan_jax.reporting.plots.drawing import baselines, lanes, legend, run_style
from flan_jax.reporting.runs import Run, baseline, dataset_names, template_value


def draw(runs: Sequence[Run], evidence: Evidence) -> Figure:
    """One point for each template, hollow unless held out.

    A bar marks the mean, a dotted line random answers, a dashed line copying.
    """
    names = dataset_names(runs)
    figure, axes, offsets = lanes(names, len(runs), 0.13)
    for i, (run, offset) in enumerate(zip(runs, offsets, strict=True)):
        style = run_style(i)
        axes.scatter([], [], s=22, **style, label=run.title)
        for y, name in enumerate(names):
            if not (figures := run.figures(name)):
                continue
            points = [100 * template_value(t) for t in figures["templates"]] or [100 * figures["mean"]]
            axes.plot([min(points), max(points)], [y + offset] * 2, color=style["color"], lw=1, alpha=0.45)
            held_out = figures["status"] == labels.HELD_OUT
            look = {"linewidths": 0} if held_out else {"facecolors": "none", "linewidths": 0.9}
            color, marker = style["color"], style["marker"]
            at = [y + offset] * len(points)
            axes.scatter(points, at, s=14, marker=marker, color=color, alpha=0.65, zorder=3, **look)
            half, mean = 0.36 / len(runs), 100 * figures["mean"]
            axes.plot([mean, mean], [y + offset - half, y + offset + half], color=style["color"], lw=2.4, zorder=4)
    by_lane = [[run.figures(name) for run in runs] for name in names]
    baselines(axes, {name: [baseline(each, name) for each in by_lane] for name in ("random", "copied")}, 0.45)
    axes.set_xlim(-2, 102)
    axes.set_xlabel(
        "headline metric, %: a point a template, a bar at the mean; hollow where the dataset was not held out"
    )
    legend(axes, len(runs) + 2)
    return figure


PLOT = Plot("spread", "Spread over templates", 30, "scores by dataset, run and template", draw)

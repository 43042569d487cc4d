"""A bar for each cluster and run."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from flan_jax.evaluation import clusters
from flan_jax.reporting.evidence import Evidence
from flan_jax.reporting.plots import Plot
from flan_jax.reporting.plots.drawing import baselines, lanes, legend, run_style
from flan_jax.reporting.runs import Run, baseline, common
from flan_jax.reporting.tables import cluster_title


def draw(runs: Sequence[Run], evidence: Evidence) -> Figure | None:
    """Cluster means over the datasets that all runs have, with what random answers and copying have."""
    shown = [over for over in common(runs).values() if over.datasets]
    if not shown:
        return None
    means = [[clusters.mean(run.datasets, over) for over in shown] for run in runs]
    clear = {"facecolor": "white", "linewidth": 0, "pad": 0.4}
    figure, axes, offsets = lanes([_lane(over) for over in shown], len(runs), 0.17)
    for i, (run, offset) in enumerate(zip(runs, offsets, strict=True)):
        found = [(y, 100 * f["mean"], f["status"]) for y, f in enumerate(means[i]) if f]
        color = run_style(i)["color"]
        places, lengths = [y + offset for y, _, _ in found], [x for _, x, _ in found]
        axes.barh(places, lengths, 0.72 / len(runs), color=color, label=run.title)
        for y, x, status in found:
            said = f"{x:.1f} {status}"
            axes.text(x + 0.6, y + offset, said, va="center", fontsize=8, color="#333333", bbox=clear, zorder=5)
    by_lane = list(zip(*means, strict=True))
    baselines(axes, {name: [baseline(each, name) for each in by_lane] for name in ("random", "copied")}, 0.42)
    lowest = min((100 * f["mean"] for of_run in means for f in of_run if f), default=0)  # a correlation can be below 0
    axes.set_xlim(min(0, 1.2 * lowest), 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("mean over the datasets that all runs have, %")
    legend(axes, len(runs) + 2)
    return figure


def _lane(over: clusters.Common) -> str:
    return cluster_title(over.cluster) + (f"\n{over.count} datasets" if over.partial else "")


PLOT = Plot("clusters", "Clusters", 20, "means by cluster and run", draw)

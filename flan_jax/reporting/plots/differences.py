"""Differences between each run and the first one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from flan_jax.reporting.evidence import Evidence
from flan_jax.reporting.plots import Plot
from flan_jax.reporting.plots.drawing import lanes, legend, run_style
from flan_jax.reporting.runs import Run


def draw(runs: Sequence[Run], evidence: Evidence) -> Figure | None:
    """Differences from the first run with their 95 % intervals.

    A mark is filled if the corrected test finds a difference.
    """
    comparisons = [c for c in evidence.comparisons if c.datasets]
    if not comparisons:
        return None
    names = list(dict.fromkeys(name for c in comparisons for name in c.datasets))
    figure, axes, offsets = lanes(names, len(comparisons), 0.13)
    axes.axvline(0, color="black", lw=1)
    for comparison, offset in zip(comparisons, offsets, strict=True):
        found = [(names.index(name) + offset, difference) for name, difference in comparison.datasets.items()]
        centres = np.array([100 * difference.interval.value for _, difference in found])
        ends = [d.interval.bounds or (d.interval.value, d.interval.value) for _, d in found]
        bounds = 100 * np.array(ends).reshape(-1, 2)
        style = run_style(1 + [run.name for run in runs[1:]].index(comparison.other))
        axes.errorbar(
            centres,
            [y for y, _ in found],
            xerr=np.maximum(0, [centres - bounds[:, 0], bounds[:, 1] - centres]),
            fmt=style["marker"],
            ms=5,
            mfc="white",
            color=style["color"],
            elinewidth=1.4,
            capsize=2,
            label=f"{comparison.other} − {comparison.first}",
        )
        sure = [(y, 100 * d.interval.value) for y, d in found if d.verdict in ("higher", "lower")]
        axes.plot([x for _, x in sure], [y for y, _ in sure], style["marker"], ms=5, color=style["color"], zorder=5)
    axes.set_xlabel("points, with 95 % interval over examples; filled: p < 0.05 after Holm's correction")
    legend(axes, len(comparisons))
    return figure


PLOT = Plot("differences", "Differences between runs", 40, "differences between runs with 95 % intervals", draw)

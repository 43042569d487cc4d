"""How often the chosen option is right, by its probability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from flan_jax.reporting.evidence import Evidence
from flan_jax.reporting.plots import Plot
from flan_jax.reporting.plots.drawing import run_style
from flan_jax.reporting.runs import Run


def draw(runs: Sequence[Run], evidence: Evidence) -> Figure | None:
    """Accuracy against confidence, one panel for each run. Larger circles stand for more predictions."""
    shown = [(i, run) for i, run in enumerate(runs) if evidence.calibration(run.name)]
    if not shown:
        return None
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure, panels = plt.subplots(lines, columns, figsize=(2.9 * columns, 3.1 * lines), squeeze=False)
    for panel in panels.flat[len(shown) :]:
        panel.set_visible(False)
    for panel, (i, run) in zip(panels.flat, shown, strict=False):
        found = evidence.calibration(run.name)
        bins = found.to_list()
        color = run_style(i)["color"]
        x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        panel.plot([0, 1], [0, 1], color="black", lw=1, ls=":")
        panel.plot(x, y, color=color, lw=1.2)
        total = sum(b["count"] for b in bins)
        panel.scatter(x, y, s=[12 + 260 * b["count"] / total for b in bins], color=color, alpha=0.6, linewidths=0)
        title = run.title if len(run.title) <= 30 else run.title.replace(" · ", "\n", 1)
        panel.set_title(f"{title}\nECE {100 * found.error:.1f} %", fontsize=9.5)
        panel.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal", xlabel="probability of the chosen option")
        panel.set_xticks(np.arange(0, 1.1, 0.25))
        panel.set_yticks(np.arange(0, 1.1, 0.25))
    for line in panels:
        line[0].set_ylabel("share that is right")
    figure.tight_layout()
    return figure


PLOT = Plot("calibration", "Calibration", 50, "reliability of the options' probabilities by run", draw)

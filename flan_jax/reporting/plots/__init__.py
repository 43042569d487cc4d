"""The report's plots, one file for each, as SVG with the reader's fonts.

Every module of this package except `drawing` is a plot and defines `PLOT`, a `Plot`. To add a plot, add a module.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flan_jax.errors import FlanError
from flan_jax.reporting.evidence import Evidence
from flan_jax.reporting.runs import Run

if TYPE_CHECKING:  # importing matplotlib takes a second
    from matplotlib.figure import Figure

_NO_PLOTS = ("drawing",)


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot of the report.

    Attributes:
      section: the name of its section on the page; several plots and tables may share one.
      title: the section's title, if no table sets it.
      order: the place of the section on the page; `page` has those of the tables.
      alternative: what the plot shows, for people who cannot see it.
      draw: draws the figure from runs and evidence; returns None if there is nothing to show.
    """

    section: str
    title: str
    order: int
    alternative: str
    draw: Callable[[Sequence[Run], Evidence], Figure | None]

    def svg(self, runs: Sequence[Run], evidence: Evidence) -> bytes | None:
        """The drawn figure as SVG, or None."""
        from flan_jax.reporting.plots.drawing import svg

        return svg(self.draw, runs, evidence)


@functools.cache
def plots() -> tuple[Plot, ...]:
    """All plots, ordered by section, then by file name.

    Raises:
      FlanError: a file defines none.
    """
    found = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        if module.name in _NO_PLOTS:
            continue
        plot = getattr(importlib.import_module(f"{__name__}.{module.name}"), "PLOT", None)
        if not isinstance(plot, Plot):
            raise FlanError(f"flan_jax/reporting/plots/{module.name}.py must define PLOT, a Plot.")
        found.append(plot)
    return tuple(sorted(found, key=lambda plot: plot.order))

"""Figures of studies: bars of arms, lines over what is varied, and the spread over templates."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawn

_BESIDE = 3  # panels in a row
_HATCHES = ("////", "....", "xxxx")  # of bars that are not ours
_ROOM = 1.07  # beside the longest bar, for its number
_ASIDE = 0.008  # of the axis, between lines that have errors


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of a study.

    Attributes:
      name: of its files.
      title: of its section.
      caption: what it shows and what the marks mean; stands beside it.
      alternative: what it shows, for those who cannot see it.
      draw: makes it.
    """

    name: str
    title: str
    caption: str
    alternative: str
    draw: Callable[[], Drawn]

    def svg(self) -> bytes:
        """As a file of its own, with the reader's fonts."""
        from flan_jax.reporting.plots.drawing import drawn

        return drawn(self.draw)

    def png(self) -> bytes:
        """As pixels, for a page of Markdown."""
        from matplotlib import pyplot as plt
        from matplotlib import rc_context

        from flan_jax.reporting.plots.drawing import SETTINGS

        with rc_context(SETTINGS):
            figure = self.draw()
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight", metadata={"Software": None})
            plt.close(figure)
        return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class Series:
    """Values of an arm, in percent or points.

    Attributes:
      name: in the legend.
      values: one for each lane or place; None where there is none.
      errors: half of an interval's width, one for each; None where there is none.
      x: places, of a line.
      reference: whether it is not ours, and is drawn pale.
    """

    name: str
    values: Sequence[float | None]
    errors: Sequence[float | None] | None = None
    x: Sequence[float] | None = None
    reference: bool = False


def bars(
    lanes: Sequence[str], series: Sequence[Series], label: str, baselines: Mapping[str, Sequence[float | None]] = {}
) -> Drawn:
    """A lane a name, from the top, with a bar for each series.

    Args:
      lanes: names.
      series: bars of each lane.
      label: of the axis.
      baselines: what needs no model, by its name: its share in each lane, 0 to 1, drawn as a line.
    """
    from flan_jax.reporting.plots import drawing

    figure, axes, offsets = drawing.lanes(lanes, len(series), 0.17)
    clear = {"facecolor": "white", "linewidth": 0, "pad": 0.4}
    for number, (one, offset) in enumerate(zip(series, offsets, strict=True)):
        found = [(y, value) for y, value in enumerate(one.values) if value is not None]
        style = {"color": drawing.run_style(number)["color"]}
        if one.reference:
            hatch = _HATCHES[sum(other.reference for other in series[:number]) % len(_HATCHES)]
            style = {"facecolor": "white", "edgecolor": "#555555", "hatch": hatch, "linewidth": 0.8}
        axes.barh(
            [y + offset for y, _ in found], [v for _, v in found], 0.72 / len(series), label=one.name, zorder=2, **style
        )
        for y, value in found:
            error = one.errors[y] if one.errors and one.errors[y] is not None else 0
            if error:
                axes.plot([value - error, value + error], [y + offset] * 2, color="black", lw=1.1, zorder=4)
            axes.text(
                max(value + error, 0) + 0.8, y + offset, f"{value:.1f}", va="center", fontsize=8, bbox=clear, zorder=3
            )
    drawing.baselines(axes, baselines, 0.42)
    axes.set_xlabel(label)
    places = [
        v + (one.errors[y] or 0 if one.errors else 0)
        for one in series
        for y, v in enumerate(one.values)
        if v is not None
    ]
    places += [100 * value for values in baselines.values() for value in values if value is not None]
    axes.set_xlim(min([0.0, *places]) * 1.2, max([1.0, *places]) * _ROOM)
    drawing.legend(axes, len(series) + len(baselines))
    return figure


def differences(lanes: Sequence[str], series: Sequence[Series], label: str) -> Drawn:
    """A lane a name, with a difference and its interval for each series; a line at 0."""
    from flan_jax.reporting.plots import drawing

    figure, axes, offsets = drawing.lanes(lanes, len(series), 0.2)
    for number, (one, offset) in enumerate(zip(series, offsets, strict=True)):
        style = drawing.run_style(number + 1)
        for y, value in enumerate(one.values):
            if value is None:
                continue
            error = one.errors[y] if one.errors and one.errors[y] is not None else 0
            axes.errorbar(
                value,
                y + offset,
                xerr=error,
                color=style["color"],
                marker=style["marker"],
                capsize=3,
                label=one.name if y == next(i for i, v in enumerate(one.values) if v is not None) else None,
            )
    axes.axvline(0, color="black", lw=1)
    axes.set_xlabel(label)
    drawing.legend(axes, len(series))
    return figure


def lines(
    panels: Sequence[tuple[str, Sequence[Series]]],
    xlabel: str,
    ylabel: str,
    ticks: Sequence[tuple[float, str]] = (),
    logarithmic: bool = False,
) -> Drawn:
    """Panels, three beside each other, in each a line for each series, with bars for its errors; one legend below.

    Args:
      panels: (title, lines) of each; lines of one name are of one number in all of them. Axes are the panels' own,
        since 270M and 137B share no range.
      xlabel: of what is varied.
      ylabel: of the values.
      ticks: (place, name) on the horizontal axis.
      logarithmic: whether that axis is.
    """
    from matplotlib import pyplot as plt

    from flan_jax.reporting.plots import drawing

    columns = 2 if len(panels) == 4 else min(len(panels), _BESIDE)
    rows = -(-len(panels) // columns)
    figure, found = plt.subplots(
        rows, columns, figsize=(4.6 * columns, 3.3 * rows + 0.4), squeeze=False, layout="constrained"
    )
    for axes in found.flat[len(panels) :]:
        axes.remove()
    for number, (axes, (title, series)) in enumerate(zip(found.flat, panels, strict=False)):
        _panel(axes, title, series, drawing.run_style, ticks, logarithmic)
        if number + columns >= len(panels):  # nothing stands below it
            axes.set_xlabel(xlabel)
        if not number % columns:
            axes.set_ylabel(ylabel)
    named = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named, loc="outside lower left", ncols=columns, frameon=False, fontsize=9)
    return figure


def _panel(
    axes: Axes,
    title: str,
    series: Sequence[Series],
    style_of: Callable[[int], dict[str, str]],
    ticks: Sequence[tuple[float, str]],
    logarithmic: bool,
) -> None:
    every = [x for one in series for x in one.x or ()]
    for number, one in enumerate(series):
        aside = _ASIDE * (number - (len(series) - 1) / 2)  # so that errors do not cover each other
        places = [(x, v, i) for i, (x, v) in enumerate(zip(one.x or (), one.values, strict=True)) if v is not None]
        errors = [(one.errors[i] or 0) if one.errors else 0 for _, _, i in places]
        if not places:
            continue
        style = style_of(number + 1) if not one.reference else {"color": "#777777", "marker": "x", "ls": "--"}
        at = [x for x, _, _ in places]
        if any(errors):
            wide = max(every) / min(every) if logarithmic else max(every) - min(every)
            at = [x * wide**aside if logarithmic else x + wide * aside for x in at]
        errors = errors if any(errors) else None
        axes.errorbar(at, [v for _, v, _ in places], yerr=errors, capsize=3, label=one.name, **style)
    if logarithmic:
        axes.set_xscale("log")
    if ticks:
        axes.set_xticks([x for x, _ in ticks], [name for _, name in ticks])
        axes.minorticks_off()
    axes.set_title(title, fontsize=10, loc="left")


def boxes(lanes: Sequence[str], series: Sequence[tuple[str, Sequence[Sequence[float]]]], label: str) -> Drawn:
    """A lane a name, in it for each series the values of its templates as points, with their median.

    Args:
      lanes: names.
      series: (name, values of each lane).
      label: of the axis.
    """
    from flan_jax.reporting.plots import drawing

    figure, axes, offsets = drawing.lanes(lanes, len(series), 0.2)
    for number, ((name, values), offset) in enumerate(zip(series, offsets, strict=True)):
        style = drawing.run_style(number)
        for y, each in enumerate(values):
            if not each:
                continue
            ordered = sorted(each)
            middle = ordered[len(ordered) // 2] if len(ordered) % 2 else sum(ordered[len(ordered) // 2 - 1 :][:2]) / 2
            axes.plot(
                ordered, [y + offset] * len(ordered), ls="", ms=4.5, alpha=0.75, label=name if not y else None, **style
            )
            axes.plot([middle] * 2, [y + offset - 0.16, y + offset + 0.16], color=style["color"], lw=2.2)
    axes.set_xlabel(label)
    drawing.legend(axes, len(series))
    return figure

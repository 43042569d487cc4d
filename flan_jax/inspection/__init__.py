"""Shows the data in a notebook. `python -m flan_jax.browse` prints the same.

from flan_jax.inspection import compare_templates, mixture, row, show
show("rte")
"""

from __future__ import annotations

import functools
import logging

import numpy as np
from rich.console import Console

from flan_jax import parts
from flan_jax.data import mixtures
from flan_jax.files import user_path
from flan_jax.inspection import examples, rows, tables
from flan_jax.lazy import lazy_imports

with lazy_imports():  # looking at the catalog needs neither
    from matplotlib import pyplot as plt

    from flan_jax.data import sources

MIXTURE = "flan_without_nli"


def composition(name: str, data: str = "samples") -> mixtures.Composition:
    """What a mixture consists of, counted in its sources. A source that cannot be opened is absent.

    Raises:
      FlanError: an unknown mixture, or none of its sources can be opened.
    """
    sizes = {}
    wanted = parts.of(name)
    for record, source in sources.open_all(wanted.datasets, data):
        if isinstance(source, sources.Skipped):
            logging.warning("%s: %s; %s", source.dataset, source.reason, source.remedy)
        elif "train" in source.splits:
            sizes[record.name] = source.splits["train"].size
    return mixtures.composition(wanted, sizes)


def show(name: str, count: int = 3, template: int | None = None, split: str = "train", data: str = "samples") -> None:
    """Shows rendered examples of a dataset, with or without a style at the end of its name.

    Text from the record is coloured. The target stands below the arrow.

    Args:
      name: the dataset.
      count: number of records.
      template: the number of a template; None takes what training shows first.
      split: "train", "validation" (dev) or "test".
      data: "samples", "tfds" or a folder.
    """
    shown = examples.examples(name, split=split, count=count, template=template, data=data)
    _console().print(tables.examples_panels(shown))


def compare_templates(name: str, split: str = "train", data: str = "samples") -> None:
    """Shows one record of a dataset through each of its templates."""
    _console().print(tables.examples_panels(examples.all_templates(name, split=split, data=data)))


def mixture(name: str = MIXTURE, data: str = "samples", steps: int | None = None) -> mixtures.Composition:
    """Shows what a mixture consists of, as a table and as a plot of each cluster's share, and returns it.

    Args:
      name: the mixture.
      data: "samples", "tfds" or a folder; with `steps`, a PREPARED_DIR with the byte vocabulary, or "samples".
      steps: steps of a run with 8 rows each, for its expected draws and epochs.
    """
    if steps is None:
        found = composition(name, data)
    else:
        prepared = _prepared(name, data)
        found = prepared.composition.over(steps * prepared.stream.draws_per_step)
    _console().print(found.table())
    shares = found.cluster_shares
    _, axes = plt.subplots(figsize=(8, 0.35 * len(shares) + 0.8), layout="constrained")
    axes.barh([c.replace("_", " ") for c in shares], [100 * s for s in shares.values()], color=_colors(1))
    axes.invert_yaxis()
    axes.set_xlabel("share of the draws, %")
    axes.set_title(found.mixture)
    axes.spines[["top", "right"]].set_visible(False)
    plt.show()
    return found


def lengths(name: str = MIXTURE, data: str = "samples") -> None:
    """Shows how long the examples of a prepared mixture are, in tokens, by cluster.

    Args:
      name: the mixture.
      data: a PREPARED_DIR with the byte vocabulary, or "samples".
    """
    prepared = _prepared(name, data)
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    for axis, what in zip(axes, ("input_length", "target_length"), strict=True):
        found: dict[str, list[np.ndarray]] = {}
        for member in prepared.composition.members:
            found.setdefault(member.cluster, []).append(prepared.stream.index(member.part)[what])
        parts = {cluster: np.concatenate(arrays) for cluster, arrays in found.items()}
        bins = np.geomspace(1, 1 + max(part.max() for part in parts.values()), 40)
        weights = [np.full(len(part), 1 / sum(map(len, parts.values()))) for part in parts.values()]
        labels = [cluster.replace("_", " ") for cluster in parts]
        colors = _colors(len(parts))
        axis.hist(list(parts.values()), bins, weights=weights, stacked=True, label=labels, color=colors)
        axis.set_xscale("log")
        axis.set_xlabel(f"{what.split('_')[0]} tokens")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share of the examples")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    plt.show()


def row(number: int, name: str = MIXTURE, data: str = "samples") -> rows.Row:
    """Shows a packed row with its segments, and returns it.

    Args:
      number: the number of the row in the stream.
      name: the mixture.
      data: a PREPARED_DIR with the byte vocabulary, or "samples".
    """
    found = _prepared(name, data).row(number)
    _console().print(tables.row_panel(found))
    return found


def fill(name: str = MIXTURE, data: str = "samples", count: int = 64) -> None:
    """Shows how full the first rows of a mixture are, in tokens and in target tokens."""
    prepared = _prepared(name, data)
    found = [prepared.row(number) for number in range(count)]
    _, axis = plt.subplots(figsize=(8, 3), layout="constrained")
    for values, label in (
        ([r.filled / r.length for r in found], "slots"),
        ([r.target_filled / r.target_length for r in found], "target slots"),
    ):
        axis.plot(values, drawstyle="steps-mid", label=f"{label}: {np.mean(values):.3f} on average")
    axis.set_ylim(0, 1.03)
    axis.set_xlabel("row")
    axis.set_ylabel("share filled")
    axis.legend(loc="lower right", frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    plt.show()


@functools.cache
def _prepared(name: str, data: str) -> rows.Prepared:
    folder = rows.prepared_samples(name) if data == sources.SAMPLES else user_path(data)
    return rows.open_prepared(name, folder)


def _colors(count: int) -> tuple[tuple[float, ...], ...]:
    return plt.colormaps["tab20"].colors[:count]


def _console() -> Console:
    return Console(width=110, markup=False, emoji=False)

"""The report's tables as rows of text. Markdown, terminal and HTML show the same tables."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table as RichTable
from rich.text import Text

from flan_jax import catalog
from flan_jax.evaluation import clusters
from flan_jax.reporting.evidence import Evidence
from flan_jax.reporting.runs import Run, baseline, by_cluster, common, dataset_names, first_figures, metric

NONE = "–"
EXTRA = " (extra, in no mean)"
ALMOST_ALWAYS = 0.95  # a share of one answer from this on is marked
RECORDS_SEEN = "records seen"  # part of a label
_OF_RUN = ("n", "mean ± std", "best dev", "most frequent", "shots", "label")
_LONGEST = 24  # characters of an answer in a table


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose columns may have common titles.

    Attributes:
      groups: (title, number of columns) from the left; the title is empty for columns that belong to no group.
      head: a title for each column.
      rows: the cells of each row, as text.
      means: numbers of the rows that are a mean of others.
    """

    groups: tuple[tuple[str, int], ...]
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    means: frozenset[int] = frozenset()

    @property
    def flat_head(self) -> list[str]:
        """The column titles with their group's title in front."""
        titles = [title for title, span in self.groups for _ in range(span)]
        return [f"{title}: {name}" if title else name for title, name in zip(titles, self.head, strict=True)]

    def markdown(self) -> str:
        """The table in Markdown, with rows of means in bold."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(in_markdown(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

        lines = [line(self.flat_head), "|" + "---|" * len(self.head)]
        for i, row in enumerate(self.rows):
            lines.append(line([f"**{cell}**" if cell and i in self.means else cell for cell in row]))
        return "\n".join(lines)

    def rich(self) -> RichTable:
        """The table for a terminal."""
        shown = RichTable(box=None, header_style="bold")
        for head in self.flat_head:
            shown.add_column(Text(head))  # names of runs are shown as they are
        for i, row in enumerate(self.rows):
            shown.add_row(*map(Text, row), style="bold" if i in self.means else "")
        return shown


def in_markdown(text: str) -> str:
    """Escapes what a browser would take for HTML and hide."""
    return " ".join(text.replace("<", "\\<").splitlines())


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal, or a dash.

    Example:
      >>> percent(0.5)
      '50.0'
    """
    return NONE if value is None else f"{100 * value:z.1f}"


def signed(value: float) -> str:
    """A difference of shares in percentage points, with its sign.

    Example:
      >>> signed(0.125)
      '+12.5'
    """
    return f"{100 * value:+.1f}".replace("-", "−")


def cluster_title(name: str) -> str:
    """A cluster's title, or its name if the catalog has no title."""
    return next((c.title for c in catalog.clusters() if c.name == name), name)


def cluster_of(dataset: str) -> str:
    """The cluster of a dataset; empty if the catalog has none."""
    return catalog.dataset(dataset).cluster if catalog.exists(dataset) else ""


def mean_title(over: clusters.Common) -> str:
    """The name of a mean. If datasets are missing it says so: "NLI, mean of 5 of 10"."""
    part = f", mean of {over.count} datasets" if over.partial else ", mean"
    return cluster_title(over.cluster) + part


def results_table(runs: Sequence[Run], evidence: Evidence | None = None) -> Table:
    """The table of results in the paper's form (appendix): a row for each dataset, and a mean for each cluster.

    For each run it has n, mean and standard deviation over the forward templates (for a group: over its runs), the
    best-dev template, the share of the most frequent answer, the number of exemplars in the prompts, and the label.
    Means are over the datasets that all runs have.

    Args:
      runs: the runs, as columns.
      evidence: what was taken from their predictions; without it, shares of answers come from the results.
    """
    rows: list[tuple[str, ...]] = []
    means: set[Any] = set()
    over_all = common(runs)
    for cluster, names in by_cluster(runs).items():
        over = over_all[cluster]
        mean_row = len(rows) + sum(name not in over.apart for name in names)
        for name in names:
            if len(rows) == mean_row:
                _add_mean(rows, means, runs, over)
            first = first_figures(runs, name)
            row = [name + (EXTRA if name in over.apart else ""), metric(first) + _filter(first)]
            row += [percent(baseline((run.figures(name) for run in runs), key)) for key in clusters.BASELINES]
            for run in runs:
                row += _run_cells(run, name, evidence)
            rows.append(tuple(row))
        if len(rows) == mean_row:
            _add_mean(rows, means, runs, over)
    head = ("dataset", "metric", *clusters.BASELINES, *_OF_RUN * len(runs))
    for optional in (*clusters.BASELINES, "most frequent", "shots"):
        if all(row[i] in ("", NONE) for row in rows for i, title in enumerate(head) if title == optional):
            kept = [i for i, title in enumerate(head) if title != optional]
            head, rows = tuple(head[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]
    own = head.index("n")  # columns before those of the runs
    groups = (("", own), *((run.title, (len(head) - own) // len(runs)) for run in runs))
    return Table(groups, head, rows, frozenset(means))


def _filter(figures: Mapping[str, Any]) -> str:
    """Which answers of lm-evaluation-harness count, if it has several kinds: " (strict-match)"."""
    return f" ({used})" if (used := figures.get("filter", "none")) != "none" else ""


def _add_mean(rows: list[tuple[str, ...]], means: set[int], runs: Sequence[Run], over: clusters.Common) -> None:
    found = [clusters.mean(run.datasets, over) for run in runs]
    some = next((f for f in found if f), None)
    if some is None:
        return
    row = [mean_title(over), "", *(percent(baseline(found, key)) for key in clusters.BASELINES)]
    for run, figures in zip(runs, found, strict=True):
        if figures is None:
            row += [NONE] * len(_OF_RUN)
            continue
        spread = f" ± {percent(spread_over_runs(run, over))}" if run.members else ""
        # Datasets for which the model's numbers were not finite; the notes say where.
        invalid = [
            one["dataset"] for one in run.results.get("invalid", ()) if cluster_of(one["dataset"]) == over.cluster
        ]
        without = f" (without {', '.join(invalid)})" if invalid else ""
        row += ["", percent(figures["mean"]) + spread + without, percent(figures["best_dev"]), "", ""]
        each = [run.figures(name).get("shots") for name in over.datasets]
        shots = {"wanted": each[0]["wanted"], "mean": statistics.mean(s["mean"] for s in each)} if all(each) else None
        row.append(label_cell({"label": figures["label"], "shots": shots}))
    means.add(len(rows))
    rows.append(tuple(row))


def spread_over_runs(run: Run, over: clusters.Common) -> float:
    """The standard deviation of a cluster's mean over the runs of a group."""
    return statistics.stdev(clusters.mean(one.datasets, over)["mean"] for one in run.members)


def _run_cells(run: Run, name: str, evidence: Evidence | None) -> list[str]:
    if (figures := run.figures(name)) is None:
        return [NONE] * len(_OF_RUN)
    best = percent(figures.get("best_dev"))
    if figures.get("best_dev_template") is not None:
        best += f" (t{figures['best_dev_template']})"
    several = run.members or len(figures["templates"]) > 1
    figure = percent(figures["mean"]) + (f" ± {percent(figures['std'])}" if several else "")
    often = most_frequent(run, name, evidence)
    return [str(figures["examples"]), figure, best, often, shots_cell(figures), label_cell(figures)]


def shots_cell(figures: Mapping[str, Any]) -> str:
    """The average number of exemplars in a prompt, and how many prompts have none; a dash without exemplars."""
    shots = figures.get("shots")
    if not shots:
        return NONE
    return f"{shots['mean']:.1f}" + (f" ({shots['without']} of {shots['of']} without)" if shots["without"] else "")


def label_cell(figures: Mapping[str, Any]) -> str:
    """The label of a score.

    It has a remark if fewer exemplars fit than it says, and if records are in the text that was tuned on.
    """
    overlap, shots = figures.get("overlap") or {}, figures.get("shots") or {}
    parts = [figures["label"]]
    if shots and shots["mean"] < shots["wanted"]:
        parts.append(f"{shots['mean']:.1f} exemplars fit" if shots["mean"] else "no exemplar fits")
    if overlap.get("seen"):
        parts.append(f"{overlap['seen']} of {overlap['of']} {RECORDS_SEEN}")
    return "; ".join(parts)


def answers(run: Run, name: str, evidence: Evidence | None) -> tuple[float | None, float | None]:
    """(macro F1, share of the most frequent answer), 0 to 1, from the results or else from the predictions."""
    found = (run.figures(name) or {}).get("metrics", {})
    value = evidence.values[run.name].get(name) if evidence else None
    macro_f1 = found["macro_f1"] / 100 if "macro_f1" in found else value.macro_f1 if value else None
    return macro_f1, found["top_answer"] / 100 if "top_answer" in found else value.share if value else None


def most_frequent(run: Run, name: str, evidence: Evidence | None) -> str:
    """The share of the most frequent answer, with the answer itself if all templates have the same one.

    A share of 95 % or more is marked. So is the number of templates with which the answer never varies.
    """
    value = evidence.values[run.name].get(name) if evidence else None
    _, share = answers(run, name, evidence)
    if share is None:
        return NONE
    text = percent(share)
    if value and value.most:
        text += f" {_short(value.most)}"
    if value and value.constant:
        return f"{text} ({value.constant} of {len(value.answers)} constant)"
    if share < ALMOST_ALWAYS or run.figures(name)["examples"] == 1:  # with one example, any answer has the whole share
        return text
    return text + (" (constant)" if share == 1 else " (nearly constant)")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def metrics_table(runs: Sequence[Run]) -> Table:
    """All other metrics of the datasets with name and version; means over the templates."""
    rows = []
    for name in dataset_names(runs):
        each = [run.figures(name) or {} for run in runs]
        keys = dict.fromkeys(key for figures in each for key in figures.get("metrics", {}))
        for key in keys:
            if key in ("macro_f1", "top_answer") or all(metric(f) == key for f in each if f):
                continue  # other tables show these
            cells = [f"{f['metrics'][key]:.1f}" if key in f.get("metrics", {}) else NONE for f in each]
            versions = dict.fromkeys(version_of(f, key) for f in each if key in f.get("metrics", {}))
            rows.append((name, key, *cells, "; ".join(versions)))
    return Table(
        (("", 2), *((run.title, 1) for run in runs), ("", 1)),
        ("dataset", "metric", *("mean",) * len(runs), "computed by"),
        rows,
    )


def version_of(figures: Mapping[str, Any], key: str) -> str:
    """The library and settings of a metric, as the results have them."""
    headline = figures.get("headline_metric") or {}
    found = figures.get("metric_versions", {}).get(key) or (
        headline.get("version") if headline.get("key") == key else ""
    )
    return found or "version not recorded"

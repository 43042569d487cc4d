"""The report's tables, as rows of text; Markdown, terminal and HTML show the same ones."""

from __future__ import annotations

import collections
import dataclasses
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table as RichTable

from flan_jax import catalog
from flan_jax.evaluation import evaluator
from flan_jax.reporting.evidence import Comparison, Evidence
from flan_jax.reporting.runs import Run, by_cluster, dataset_names, first_figures, metric

NONE = "–"
HELD_OUT = "held out"  # in a run with exemplars, which is not zero-shot


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with heads in groups.

    Attributes:
      groups: (title, number of columns) from the left; an empty title for columns that belong to no group.
      head: a title a column.
      rows: cells of text.
      means: numbers of the rows that are a mean of others.
    """

    groups: tuple[tuple[str, int], ...]
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    means: frozenset[int] = frozenset()

    @property
    def flat_head(self) -> list[str]:
        """Column titles with their group's in front."""
        titles = [title for title, span in self.groups for _ in range(span)]
        return [f"{title}: {name}" if title else name for title, name in zip(titles, self.head, strict=True)]

    def markdown(self) -> str:
        """The table in Markdown; rows of means in bold."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

        lines = [line(self.flat_head), "|" + "---|" * len(self.head)]
        for i, row in enumerate(self.rows):
            lines.append(line([f"**{cell}**" if cell and i in self.means else cell for cell in row]))
        return "\n".join(lines)

    def rich(self) -> RichTable:
        """The table for a terminal."""
        shown = RichTable(*self.flat_head, box=None, header_style="bold")
        for i, row in enumerate(self.rows):
            shown.add_row(*row, style="bold" if i in self.means else "")
        return shown


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal, or a dash."""
    return NONE if value is None else f"{100 * value:.1f}"


def signed(value: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def cluster_title(name: str) -> str:
    """A cluster's title, or its name where the catalog has none."""
    return next((c.title for c in catalog.clusters() if c.name == name), name)


def results_table(runs: Sequence[Run]) -> Table:
    """The paper's form of table (appendix): a row a dataset, a mean a cluster.

    For each run: mean and standard deviation over the forward templates, the best-dev template, held out or seen.
    """
    rows: list[tuple[str, ...]] = []
    means = set()
    for cluster, names in by_cluster(runs).items():
        for name in names:
            first = first_figures(runs, name)
            row = [name, metric(first), str(first["examples"])]
            row += [percent(first.get("random")), percent(first.get("majority"))]
            for run in runs:
                row += _run_cells(run, run.figures(name))
            rows.append(tuple(row))
        mean = next(run.results["clusters"][cluster] for run in runs if cluster in run.results["clusters"])
        row = [f"{cluster_title(cluster)}, mean", "", "", percent(mean["random"]), percent(mean["majority"])]
        for run in runs:
            row += _mean_cells(run, run.results["clusters"].get(cluster))
        means.add(len(rows))
        rows.append(tuple(row))
    groups = (("", 5), *((run.title, 3) for run in runs))
    head = ("dataset", "metric", "examples", "random", "majority", *("mean ± std", "best dev", "status") * len(runs))
    return Table(groups, head, rows, frozenset(means))


def _run_cells(run: Run, figures: Mapping[str, Any] | None) -> list[str]:
    if figures is None:
        return [NONE] * 3
    best = percent(figures["best_dev"])
    if figures["best_dev_template"] is not None:
        best += f" (t{figures['best_dev_template']})"
    return [f"{percent(figures['mean'])} ± {percent(figures['std'])}", best, _status(run, figures)]


def _mean_cells(run: Run, figures: Mapping[str, Any] | None) -> list[str]:
    if figures is None:
        return [NONE] * 3
    # Datasets for which the model's numbers were not finite; the notes say where.
    without = f" (without {', '.join(left_out)})" if (left_out := figures.get("left_out")) else ""
    return [percent(figures["mean"]) + without, percent(figures["best_dev"]), _status(run, figures)]


def _status(run: Run, figures: Mapping[str, Any]) -> str:
    return HELD_OUT if run.style.shots and figures["status"] == evaluator.HELD_OUT else figures["status"]


def comparison_table(comparison: Comparison) -> Table:
    """Differences of a run from the first, with intervals."""
    rows: list[tuple[str, ...]] = []
    means = set()
    clusters = {d.name: d.cluster for d in catalog.datasets()}
    names = list(comparison.datasets)
    for i, name in enumerate(names):
        first, other = comparison.means[name]
        figures = (str(comparison.examples[name]), percent(first), percent(other))
        rows.append((name, *figures, *_difference_cells(comparison.datasets[name])))
        cluster = clusters.get(name)
        if cluster in comparison.clusters and (i + 1 == len(names) or clusters.get(names[i + 1]) != cluster):
            means.add(len(rows))
            rows.append(
                (f"{cluster_title(cluster)}, mean", "", "", "", *_difference_cells(comparison.clusters[cluster]))
            )
    head = ("dataset", "examples", comparison.first, comparison.other, "difference", "95 % interval", "std. error", "")
    return Table((("", len(head)),), head, rows, frozenset(means))


def _difference_cells(interval: Any) -> tuple[str, ...]:
    low, high = interval.bounds
    verdict = "higher" if low > 0 else "lower" if high < 0 else ""
    return signed(interval.difference), f"{signed(low)} to {signed(high)}", percent(interval.stderr), verdict


def rankings_table(runs: Sequence[Run], evidence: Evidence) -> Table:
    """Options ranked by the sum, per token and per byte; one template's standard error; calibration error."""
    rows = []
    for name in dataset_names(runs):
        cells = []
        for run in runs:
            figures = run.figures(name) or {}
            value = evidence.values[run.name].get(name)
            error = value.calibration.error if value and value.calibration else None
            ranked = "mean_per_token" in figures
            # Where the headline is not the share of right answers, the sum's accuracy is that of its templates.
            total = statistics.fmean(t["sum"] for t in figures["templates"]) if ranked else None
            shown = (total, figures.get("mean_per_token"), figures.get("mean_per_byte"), figures.get("stderr"), error)
            cells += [percent(share) for share in shown]
        if any(cell != NONE for cell in cells):
            rows.append((name, *cells))
    head = ("dataset", *("sum", "per token", "per byte", "std. error", "ECE") * len(runs))
    return Table((("", 1), *((run.title, 5) for run in runs)), head, rows)


def clean_table(runs: Sequence[Run], evidence: Evidence) -> Table:
    """Scores on the examples that share no n-gram with the corpus, beside all."""
    names = [n for n in dataset_names(runs) if any(n in evidence.clean.get(run.name, {}) for run in runs)]
    rows = []
    for name in names:
        found = [evidence.clean.get(run.name, {}).get(name) for run in runs]
        first = next(f for f in found if f)
        row = [name, f"{first['clean']} of {first['examples']}", percent(1 - first["clean"] / first["examples"])]
        for figures in found:
            if figures is None or figures["mean"] is None:
                row += [percent(figures["all_mean"]) if figures else NONE, NONE, NONE]
                continue
            row += [percent(figures["all_mean"]), f"{percent(figures['mean'])} ± {percent(figures['std'])}"]
            row.append(signed(figures["mean"] - figures["all_mean"]))
        rows.append(tuple(row))
    head = ("dataset", "clean", "% dirty", *("all", "clean: mean ± std", "clean − all") * len(runs))
    return Table((("", 3), *((run.title, 3) for run in runs)), head, rows)


def notes(runs: Sequence[Run], evidence: Evidence) -> list[str]:
    """What a reader must know to believe the tables."""
    found = [
        "Figures in percent. Options are ranked by the sum of their tokens' log-likelihoods, ties to the first. "
        "Mean and standard deviation are over the forward templates; best dev is the test score of the template that "
        "is best on the dev examples; random and majority are baselines. A cluster's mean counts variants of a dataset "
        "once."
    ]
    if any(c.datasets for c in evidence.comparisons):
        found.append(
            "Differences are in points, over the examples that both runs have; an example counts by its mean over the "
            "templates. Intervals: paired bootstrap over examples, 2,000 resamples, the central 95 %; templates are "
            "taken as given. No correction is made for the number of comparisons."
        )
    if any(evidence.calibration(run.name) for run in runs):
        found.append(
            "Probabilities are the softmax over the options of the summed log-likelihoods. ECE, the expected "
            "calibration error, is the mean distance between confidence and accuracy over ten bins of equal width, "
            "weighted by count."
        )
    for run in runs:
        results = run.results
        tuned = results["tuning"]
        what = f"{run.title}: {results['checkpoint']}, {tuned['status']}"
        if tuned["clusters"]:
            what += f"; its tuning mixtures held {', '.join(tuned['clusters'])}"
        if results.get("joint"):
            what += f"; prompt and option joined by {results['joint']}"
        cut = sum(t.get("cut_prompts", 0) for d in results["datasets"].values() for t in d["templates"])
        found.append(what + (f"; {cut} prompts shortened to fit." if cut else "."))
        absent = [n for n in results["datasets"] if n not in evidence.values[run.name]]
        whole = [n for n in absent if catalog.dataset(n).metrics[0] == "bleu"]
        for names, why in (
            (whole, "no figures of single examples, which BLEU does not give, for"),
            ([n for n in absent if n not in whole], "no predictions of single examples for"),
        ):
            if names:
                found.append(
                    f"{run.name} has {why} {', '.join(names)}: they are left out of differences, calibration, clean "
                    "subsets and worst examples."
                )
        found += [f"{run.name}: {line}" for line in _undefined(results["datasets"])]
        found += [f"{run.name} skipped {line}" for line in _skipped(results.get("skipped", ()))]
    return found


def _undefined(datasets: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """A line for each metric that counts as 0 for want of two different answers."""
    for name, figures in datasets.items():
        counts = collections.Counter(m for t in figures["templates"] for m in t.get("undefined", ()))
        for value, count in counts.items():
            which = f"{count} of {len(figures['templates'])} templates"
            yield f"{value} of {name} is undefined with {which}, where all answers are the same, and counts as 0 there."


def _skipped(skipped: Iterable[Mapping[str, str]]) -> list[str]:
    """A line for each reason that only differs in the dataset's name, with all names in the place of one."""
    names_by_reason: dict[str, list[str]] = {}
    for one in skipped:
        reason = re.sub(rf"\b{re.escape(one['dataset'])}\b", "\0", one["reason"])
        names_by_reason.setdefault(reason, []).append(one["dataset"])
    return [
        f"{', '.join(names)}: {reason.replace(chr(0), ','.join(names))}" for reason, names in names_by_reason.items()
    ]

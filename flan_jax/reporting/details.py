"""The report's further tables: differences, spread, templates, rankings, groups, costs and clean subsets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import ways
from flan_jax.evaluation import clusters
from flan_jax.reporting.comparisons import Comparison, Difference
from flan_jax.reporting.evidence import Evidence
from flan_jax.reporting.runs import Run, common, dataset_names, template_value, wording
from flan_jax.reporting.statistics import Interval, quartiles
from flan_jax.reporting.tables import EXTRA, NONE, Table, answers, mean_title, percent, signed
from flan_jax.wording import counted


def comparison_table(comparison: Comparison, over: Mapping[str, clusters.Common]) -> Table:
    """Differences between a run and the first one, with intervals, p values and verdicts.

    Args:
      comparison: the two runs.
      over: the datasets of the clusters' means.
    """
    rows: list[tuple[str, ...]] = []
    means = set()
    clusters_of = _clusters_of(comparison, over)
    for cluster, datasets in over.items():
        here = [name for name, of in clusters_of.items() if of == cluster]
        inside = [n for n in here if n not in datasets.apart]
        rows += [(n, comparison.datasets[n].metric, *_difference_cells(comparison.datasets[n])) for n in inside]
        if cluster in comparison.clusters:
            means.add(len(rows))
            rows.append((mean_title(datasets), "", *_difference_cells(comparison.clusters[cluster])))
        for name in here:
            if name in datasets.apart:
                found = comparison.datasets[name]
                rows.append((name + EXTRA, found.metric, *_difference_cells(found)))
    head: tuple[str, ...] = (
        "dataset",
        "metric",
        "n",
        comparison.first,
        comparison.other,
        "difference",
        "95 %: examples",
    )
    head += ("95 %: examples and templates", "p", "p (Holm)", "verdict")
    return Table((("", len(head)),), head, rows, frozenset(means))


def _clusters_of(comparison: Comparison, over: Mapping[str, clusters.Common]) -> dict[str, str]:
    """The cluster of each dataset that is compared."""
    found: dict[str, str] = {}
    for cluster, datasets in over.items():
        everywhere = (*datasets.datasets, *datasets.not_shared, *datasets.other_metric, *datasets.apart)
        found |= {name: cluster for name in everywhere if name in comparison.datasets}
    return {name: found[name] for name in comparison.datasets}


def _difference_cells(found: Difference) -> tuple[str, ...]:
    count = str(found.examples) if found.metric else ""
    if found.metric and found.groups < found.examples:
        count += f" ({counted(found.groups, 'passages')})"
    shown = (count, *map(percent, found.means), signed(found.interval.value))
    return (
        *shown,
        bounds(found.interval),
        bounds(found.over_templates),
        chance(found.p),
        chance(found.corrected),
        found.verdict,
    )


def bounds(interval: Interval | None, *, difference: bool = True) -> str:
    """The ends of an interval, or a dash."""
    if interval is None or interval.bounds is None:
        return NONE
    low, high = interval.bounds
    return f"{signed(low)} to {signed(high)}" if difference else f"{percent(low)} to {percent(high)}"


def chance(p: float | None) -> str:
    """A p value with three decimals, or a dash."""
    return NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def spread_table(runs: Sequence[Run], evidence: Evidence) -> Table:
    """Median and quartiles over the templates, intervals of the mean, and macro F1 beside accuracy."""
    rows = []
    for name in dataset_names(runs):
        cells: list[str] = []
        for run in runs:
            figures = run.figures(name)
            if figures is None:
                cells += [NONE] * 4
                continue
            middle, low, high = quartiles([template_value(t) for t in figures["templates"]] or [figures["mean"]])
            over_examples, over_both = evidence.intervals[run.name].get(name, (None, None))
            cells += [f"{percent(middle)} ({percent(low)} to {percent(high)})", bounds(over_examples, difference=False)]
            cells += [bounds(over_both, difference=False), percent(answers(run, name, evidence)[0])]
        measured = next((v[name].metric for v in evidence.values.values() if name in v), NONE)
        rows.append((name, measured, *cells))
    each = ("median (quartiles)", "95 %: examples", "95 %: examples and templates", "macro F1")
    return Table((("", 2), *((run.title, 4) for run in runs)), ("dataset", "intervals of", *each * len(runs)), rows)


def templates_table(runs: Sequence[Run], evidence: Evidence, names: Sequence[str] | None = None) -> Table:
    """For each template its figures on test and dev, the share of its most frequent answer, and its wording.

    Args:
      runs: the runs, as columns.
      evidence: what was taken from their predictions.
      names: names of datasets; by default all.
    """
    rows = []
    for name in dataset_names(runs) if names is None else names:
        listed = [{t["template"]: t for t in (run.figures(name) or {"templates": []})["templates"]} for run in runs]
        for number in sorted({n for each in listed for n in each}):
            words = dict.fromkeys(wording(each[number]) for each in listed if number in each)
            cells: list[str] = []
            for run, each in zip(runs, listed, strict=True):
                t, value = each.get(number), evidence.values[run.name].get(name)
                answer = value.answers[value.templates.index(number)] if value and number in value.templates else None
                cells += [percent(template_value(t)), percent(t.get("dev"))] if t else [NONE, NONE]
                cells.append(percent(answer.share if answer and not run.members else None))
            rows.append((name, f"t{number}", "\n\n".join(words), *cells))
    head = ("dataset", "template", "wording", *("test", "dev", "most frequent") * len(runs))
    return Table((("", 3), *((run.title, 3) for run in runs)), head, rows)


def groups_table(runs: Sequence[Run]) -> Table:
    """The means of each run in each group, and mean ± standard deviation over the runs."""
    rows: list[tuple[str, ...]] = []
    means = set()
    for run in runs:
        if not run.members:
            continue
        for name in dataset_names([run]):
            found = run.figures(name)
            each = ", ".join(percent(value) for value in found["runs"])
            figure = f"{percent(found['mean'])} ± {percent(found['std'])}"
            rows.append(
                (
                    run.name,
                    name,
                    str(len(run.members)),
                    figure,
                    percent(min(found["runs"])),
                    percent(max(found["runs"])),
                    each,
                )
            )
        for over in common(runs).values():
            if all(of_members := [clusters.mean(one.datasets, over) for one in run.members]):
                shares = [one["mean"] for one in of_members]
                means.add(len(rows))
                figure = f"{percent(statistics.fmean(shares))} ± {percent(statistics.stdev(shares))}"
                each = ", ".join(map(percent, shares))
                rows.append(
                    (
                        run.name,
                        mean_title(over),
                        str(len(shares)),
                        figure,
                        percent(min(shares)),
                        percent(max(shares)),
                        each,
                    )
                )
    head = ("group", "dataset", "runs", "mean ± std over runs", "lowest", "highest", "each run")
    return Table((("", len(head)),), head, rows, frozenset(means))


def rankings_table(runs: Sequence[Run], evidence: Evidence) -> Table:
    """The figures of every way to score options.

    With the way that is best on dev, one template's standard error, and calibration.
    """
    found = [run.figures(name) or {} for run in runs for name in dataset_names(runs)]
    shown = [way for way in ways.ALL if way is ways.SUM or any(f"mean_{way.name}" in figures for figures in found)]
    rows = []
    for name in dataset_names(runs):
        cells = []
        for run in runs:
            figures = run.figures(name) or {}
            value = evidence.values[run.name].get(name)
            error = value.calibration.error if value and value.calibration else None
            of_sums = [t.get("sum") for t in figures.get("templates", ())]
            ranked = "mean_per_token" in figures and of_sums and None not in of_sums
            # If the headline is not the share of right answers, accuracy comes from the templates' figures.
            total = statistics.fmean(of_sums) if ranked else None
            means = {"sum": total} | {way.name: figures.get(f"mean_{way.name}") for way in shown[1:]}
            cells += [percent(means[way.name]) for way in shown]
            best = figures.get("best_dev_way")
            cells.append(NONE if best not in means else f"{ways.way(best).title} ({percent(means[best])})")
            cells += [percent(figures.get("stderr")), percent(error)]
        if any(cell != NONE for cell in cells):
            rows.append((name, *cells))
    each = (*(way.title for way in shown), "best on dev", "std. error", "ECE")
    return Table((("", 1), *((run.title, len(each)) for run in runs)), ("dataset", *each * len(runs)), rows)


def overlap_table(runs: Sequence[Run]) -> Table:
    """How many evaluated records are in the text that a checkpoint was tuned on, if the results say so."""
    rows = []
    for name in dataset_names(runs):
        cells: list[str] = []
        for run in runs:
            found = (run.figures(name) or {}).get("overlap")
            if not found:
                cells += [NONE] * 3
                continue
            among = [f"{one} {count}" for one, count in found.get("with", {}).items()]
            among += [f"kin of {one}: {why}" for one, why in found.get("kin", {}).items()]
            cells.append(NONE if found.get("seen") is None else f"{found['seen']} of {found['of']}")
            cells += ["; ".join(among) or NONE, found.get("reason") or "checked"]
        if any(cell != NONE for cell in cells):
            rows.append((name, *cells))
    return Table((("", 1), *((run.title, 3) for run in runs)), ("dataset", *("seen", "in", "check") * len(runs)), rows)


def cost_table(runs: Sequence[Run]) -> Table:
    """Seconds, tokens and device for each dataset, if the results have them."""
    rows = []
    for name in dataset_names(runs):
        cells: list[str] = []
        for run in runs:
            spent = (run.figures(name) or {}).get("cost") or {}
            seconds, tokens = spent.get("seconds"), spent.get("tokens")
            cells.append(NONE if seconds is None else f"{seconds:.1f}")
            cells.append(NONE if tokens is None else f"{tokens:,}")
            cells.append(str(spent.get("device", NONE)))
        if any(cell != NONE for cell in cells):
            rows.append((name, *cells))
    return Table(
        (("", 1), *((run.title, 3) for run in runs)), ("dataset", *("seconds", "tokens", "device") * len(runs)), rows
    )


def clean_table(runs: Sequence[Run], evidence: Evidence) -> Table:
    """Scores on the examples that share no n-gram with the corpus, beside the scores on all examples."""
    names = [n for n in dataset_names(runs) if any(n in evidence.clean.get(run.name, {}) for run in runs)]
    rows = []
    for name in names:
        found: list[Any] = [evidence.clean.get(run.name, {}).get(name) for run in runs]
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

"""The report of one or more evaluations: Markdown, JSON, and one HTML page with plots that needs no other file.

`runs` reads finished evaluations, and `harness` those of lm-evaluation-harness. `values` and `evidence` take from the
predictions what results do not hold, and `pairing` pairs them. `kinds`, `sound` and `agreement` refuse what cannot be;
`asked`, `gold` and `copies` say what may be compared or averaged. `statistics` and `comparisons` compute. `tables`,
`details`, `notes`, `plots` and `page` show. If there are several runs, the others are compared with the first one, and
the worst examples are those of the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table as RichTable

from flan_jax.errors import FlanError
from flan_jax.evaluation import clusters
from flan_jax.files import AnyPath, user_path, write_together
from flan_jax.json_lines import to_json
from flan_jax.reporting import forms, harness
from flan_jax.reporting import runs as finished
from flan_jax.reporting.comparisons import Comparison, tests
from flan_jax.reporting.details import (
    clean_table,
    comparison_table,
    cost_table,
    groups_table,
    overlap_table,
    rankings_table,
    spread_table,
    templates_table,
)
from flan_jax.reporting.evidence import Evidence, gather
from flan_jax.reporting.groups import grouped, have_spread
from flan_jax.reporting.notes import notes, of_comparison, of_unusable, skipped
from flan_jax.reporting.page import page
from flan_jax.reporting.runs import Run, common
from flan_jax.reporting.statistics import quartiles
from flan_jax.reporting.tables import answers, in_markdown, metrics_table, results_table

__all__ = ["Run", "gather", "grouped", "have_spread", "in_terminal", "load_run", "markdown", "page", "skipped"]
__all__ += ["to_dict", "write"]


def load_run(name: str, folder: str | AnyPath) -> Run:
    """Reads one of our evaluations, or a log of lm-evaluation-harness.

    Raises:
      FlanError: the folder holds neither, or a file is broken.
    """
    return harness.load(name, folder) if harness.is_log(folder) else finished.load_run(name, folder)


def in_terminal(runs: Sequence[Run], evidence: Evidence) -> Iterator[RichTable | str]:
    """The report in brief: the results, the differences with their verdicts, and what to know of these."""
    yield results_table(runs).rich()
    for run in runs:
        yield from of_unusable(run.name, evidence)
    for comparison in evidence.comparisons:
        if comparison.datasets:
            yield f"\n{comparison.other} beside {comparison.first}"
            yield comparison_table(comparison, common(runs)).rich()
        yield from of_comparison(comparison, runs)


def markdown(runs: Sequence[Run], evidence: Evidence) -> str:
    """The report as Markdown: tables and notes."""
    parts = [
        "# Evaluation: " + in_markdown(", ".join(run.name for run in runs)),
        results_table(runs, evidence).markdown(),
    ]
    parts += ["## Spread over templates, and intervals", spread_table(runs, evidence).markdown()]
    for comparison in evidence.comparisons:
        if comparison.datasets:
            table = comparison_table(comparison, common(runs))
            parts += ["## " + in_markdown(f"{comparison.other} beside {comparison.first}"), table.markdown()]
    for title, table in (
        ("Records in the text that was tuned on", overlap_table(runs)),
        ("Runs of the groups", groups_table(runs)),
        ("Other metrics", metrics_table(runs)),
        ("Full text or letters", forms.forms_table(runs)),
        ("Ways to score the options", rankings_table(runs, evidence)),
        ("Examples that the corpus does not have", clean_table(runs, evidence)),
        ("Templates", templates_table(runs, evidence)),
        ("Time and tokens", cost_table(runs)),
    ):
        if table.rows:
            parts += [f"## {title}", table.markdown()]
    parts += ["## How to read this", "\n".join(f"- {in_markdown(note)}" for note in notes(runs, evidence))]
    return "\n\n".join(parts) + "\n"


def to_dict(runs: Sequence[Run], evidence: Evidence) -> dict[str, Any]:
    """The report as JSON; shares are from 0 to 1.

    Returns:
      {"runs", "clusters", "comparisons", "tests", "values", "calibration", "clean", "forms"}. The `clusters` of a run
      are means over the datasets that all runs have, as in the table; the `clusters` beside the runs name these
      datasets. The `members` of a group are the names of its runs. `forms` says whether full text or letters are better
      on dev.
    """
    over_all = common(runs)
    return {
        "runs": [_run(run, over_all) for run in runs],
        "clusters": {
            name: {"datasets": list(over.datasets), "of": over.of, "partial": over.partial, "extras": list(over.apart)}
            | {"not_shared": list(over.not_shared), "other_metric": list(over.other_metric)}
            for name, over in over_all.items()
        },
        "comparisons": [_comparison(c) for c in evidence.comparisons],
        "tests": tests(evidence.comparisons),
        "values": {run.name: {name: _values(run, name, evidence) for name in run.datasets} for run in runs},
        "calibration": {
            run.name: {
                "ece": found.error,
                "bins": found.to_list(),
                "datasets": {n: v.calibration.error for n, v in evidence.values[run.name].items() if v.calibration},
            }
            for run in runs
            if (found := evidence.calibration(run.name))
        },
        "clean": evidence.clean,
        "forms": forms.to_dict(runs),
    }


def cluster_means(run: Run, over_all: Mapping[str, clusters.Common]) -> dict[str, Any]:
    """A run's means by cluster, over the datasets that all runs of the report have."""
    found = {name: clusters.mean(run.datasets, over) for name, over in over_all.items()}
    return {name: figures for name, figures in found.items() if figures}


def _run(run: Run, over_all: Mapping[str, clusters.Common]) -> dict[str, Any]:
    found = {"name": run.name, **run.results, "datasets": run.datasets, "clusters": cluster_means(run, over_all)}
    return found | ({"members": [one.name for one in run.members]} if run.members else {})


def _values(run: Run, name: str, evidence: Evidence) -> dict[str, Any]:
    """What the tables show of a dataset besides its results."""
    figures = run.figures(name)
    listed = [t["value"] if "value" in t else t["sum"] for t in figures["templates"]] or [figures["mean"]]
    middle, low, high = quartiles(listed)
    macro_f1, share = answers(run, name, evidence)
    found: dict[str, Any] = {"median": middle, "quartiles": [low, high], "macro_f1": macro_f1, "most_frequent": share}
    if (value := evidence.values[run.name].get(name)) is not None:
        over_examples, over_both = evidence.intervals[run.name][name]
        found |= {"of": value.metric, "examples": len(value.ids), "most_frequent_answer": value.most}
        found |= {"constant_templates": value.constant, "over_examples": over_examples.to_dict()}
        found |= {"over_templates": over_both.to_dict() if over_both else None}
    return found


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "first": comparison.first,
        "other": comparison.other,
        "datasets": {name: found.to_dict() for name, found in comparison.datasets.items()},
        "clusters": {name: found.to_dict() for name, found in comparison.clusters.items()},
        "apart": comparison.apart,
        "reworded": comparison.reworded,
        "other_exemplars": comparison.other_exemplars,
    }


def write(
    runs: Sequence[Run],
    output_dir: str | AnyPath,
    contamination: str | AnyPath | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    show: Callable[[RichTable | str], object] = lambda part: None,
) -> dict[str, AnyPath]:
    """Writes report.md, report.json and report.html.

    Args:
      runs: the runs; the module says what the first and the last one are for.
      output_dir: the folder to write to.
      contamination: the file that `flan_jax.contamination` wrote; it adds scores on clean examples.
      groups: names of runs that are shown as one, by the group's name (`groups.grouped`).
      show: prints a part of `in_terminal`.

    Returns:
      The paths of the three files, by their suffix.

    Raises:
      FlanError: no runs, two with the same name, broken contamination results, or a folder that cannot be written.
    """
    names = [run.name for run in runs]
    if not runs or len(set(names)) < len(names):
        raise FlanError(f"a report needs runs with names of their own, not {', '.join(names) or 'none'}.")
    if bad := [name for name in (*names, *(groups or {})) if not name.strip() or not name.isprintable()]:
        raise FlanError(f"{bad[0]!r} is no name for a report: give one of letters that print, in one line.")
    runs = grouped(runs, groups or {})
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FlanError(f"there is a group and a run of the name {twice}: give the group another.")
    if not any(run.datasets for run in runs):
        left = skipped(one for run in runs for one in run.results.get("skipped", ()))
        raise FlanError(
            f"there is nothing to report: {', '.join(names)} have no dataset with a result"
            f"{' (' + '; '.join(left) + ')' if left else ''}."
        )
    evidence = gather(runs, contamination)
    contents = {
        "md": markdown(runs, evidence),
        "json": to_json(to_dict(runs, evidence), indent=1, what="the report") + "\n",
        "html": page(runs, evidence),
    }
    paths = {suffix: user_path(output_dir) / f"report.{suffix}" for suffix in contents}
    write_together({paths[suffix]: text for suffix, text in contents.items()})
    for part in in_terminal(runs, evidence):
        show(part)
    return paths

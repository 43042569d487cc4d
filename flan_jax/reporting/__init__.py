"""The report of one or more evaluations: Markdown, JSON and one self-contained HTML page with plots.

`runs` reads finished evaluations, `evidence` takes from their predictions what results.json does not hold, `statistics`
computes, and `tables`, `plots` and `page` show. Of several runs the first is the one that the others are compared with,
and the last is the one whose worst examples are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from flan_jax.errors import FlanError
from flan_jax.files import to_json, write_atomic
from flan_jax.reporting.evidence import Comparison, Evidence, gather
from flan_jax.reporting.page import page
from flan_jax.reporting.runs import Run, load_run
from flan_jax.reporting.statistics import Interval
from flan_jax.reporting.tables import clean_table, comparison_table, notes, rankings_table, results_table

__all__ = ["Run", "gather", "load_run", "markdown", "page", "rich_table", "to_dict", "write"]


def rich_table(runs: Sequence[Run]) -> RichTable:
    """The table of results for a terminal."""
    return results_table(runs).rich()


def markdown(runs: Sequence[Run], evidence: Evidence) -> str:
    """The tables and what stands behind them, as Markdown."""
    parts = ["# Evaluation: " + ", ".join(run.name for run in runs), results_table(runs).markdown()]
    for comparison in evidence.comparisons:
        if comparison.datasets:
            parts += [f"## {comparison.other} beside {comparison.first}", comparison_table(comparison).markdown()]
    rankings = rankings_table(runs, evidence)
    if rankings.rows:
        parts += ["## Other rankings of the options", rankings.markdown()]
    if any(evidence.clean.values()):
        parts += ["## Examples that the corpus does not have", clean_table(runs, evidence).markdown()]
    parts += ["## How to read this", "\n".join(f"- {note}" for note in notes(runs, evidence))]
    return "\n\n".join(parts) + "\n"


def to_dict(runs: Sequence[Run], evidence: Evidence) -> dict[str, Any]:
    """The report as JSON: {"runs", "comparisons", "calibration", "clean"}; shares from 0 to 1."""
    return {
        "runs": [{"name": run.name, **run.results} for run in runs],
        "comparisons": [_comparison(c) for c in evidence.comparisons],
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
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    def interval(found: Interval) -> dict[str, Any]:
        return {"difference": found.difference, "interval": found.bounds, "stderr": found.stderr}

    datasets = {
        name: interval(found) | {"examples": comparison.examples[name], "means": comparison.means[name]}
        for name, found in comparison.datasets.items()
    }
    clusters = {name: interval(found) for name, found in comparison.clusters.items()}
    return {"first": comparison.first, "other": comparison.other, "datasets": datasets, "clusters": clusters}


def write(runs: Sequence[Run], output_dir: str | Path, contamination: str | Path | None = None) -> dict[str, Path]:
    """Writes report.md, report.json and report.html; returns their paths by suffix.

    Args:
      runs: see the module.
      output_dir: where to.
      contamination: what `flan_jax.contamination` wrote, for scores on clean examples.

    Raises:
      FlanError: no runs, two of one name, broken contamination results, or a folder that cannot be written.
    """
    names = [run.name for run in runs]
    if not runs or len(set(names)) < len(names):
        raise FlanError(f"a report needs runs with names of their own, not {', '.join(names) or 'none'}.")
    evidence = gather(runs, contamination)
    contents = {
        "md": markdown(runs, evidence),
        "json": to_json(to_dict(runs, evidence), indent=1, what="the report") + "\n",
        "html": page(runs, evidence),
    }
    paths = {}
    for suffix, text in contents.items():
        paths[suffix] = Path(output_dir) / f"report.{suffix}"
        try:
            write_atomic(paths[suffix], text)
        except OSError as error:
            raise FlanError(f"cannot write {paths[suffix]}: {error.strerror}.") from error
    return paths

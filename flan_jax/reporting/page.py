"""The report as one HTML page that needs no script, no font and no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.evaluation import labels
from flan_jax.evaluation.figures import ranked
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
from flan_jax.reporting.document import document, figure, text
from flan_jax.reporting.evidence import Evidence, record_of
from flan_jax.reporting.forms import forms_table
from flan_jax.reporting.notes import notes
from flan_jax.reporting.plots import plots
from flan_jax.reporting.runs import Run, common, dataset_names
from flan_jax.reporting.statistics import option_probabilities
from flan_jax.reporting.tables import RECORDS_SEEN, Table, metrics_table, percent, results_table
from flan_jax.wording import counted

_COLORS = {labels.HELD_OUT: "held", labels.SEEN: "seen", labels.UNKNOWN: "unknown", labels.MIXED: "unknown"}


def _table(table: Table) -> str:
    starts = set(np.cumsum([0, *(span for _, span in table.groups)]).tolist()) - {0}

    def edge(i: int) -> str:
        return " first" if i in starts else ""

    lines = []
    if any(title for title, _ in table.groups):
        title, span = table.groups[0]
        # The first column stays in view; the rest of its group must not stay with it.
        groups = [f'<th class="name">{text(title)}</th>', f'<th colspan="{span - 1}"></th>' if span > 1 else ""]
        groups += [f'<th class="group" colspan="{span}">{text(title)}</th>' for title, span in table.groups[1:]]
        lines.append(f"<tr>{''.join(groups)}</tr>")
    head = (f'<th class="{"name" if i == 0 else edge(i)}">{text(cell)}</th>' for i, cell in enumerate(table.head))
    lines.append(f"<tr>{''.join(head)}</tr>")
    for number, row in enumerate(table.rows):
        cells = (
            f'<td class="{"name" if i == 0 else _kind(table, i, cell) + edge(i)}">{text(cell)}</td>'
            for i, cell in enumerate(row)
        )
        lines.append(f'<tr class="{"mean" if number in table.means else ""}">{"".join(cells)}</tr>')
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _kind(table: Table, column: int, cell: str) -> str:
    """The CSS classes of a cell."""
    if table.head[column] == "label":
        label = cell.partition("; ")[0]
        return "seen" if cell.endswith(RECORDS_SEEN) else _COLORS.get(labels.status_of(label), "")
    if table.head[column] == "wording":
        return "text"
    return "marked" if table.head[column] in ("most frequent", "shots") and "(" in cell else ""


def page(runs: Sequence[Run], evidence: Evidence) -> str:
    """The HTML page.

    Args:
      runs: the runs; the others are compared with the first one, and the last one is the one of interest.
      evidence: what was taken from their predictions.
    """
    sections: dict[str, tuple[int, str, str]] = {}  # order, title, content

    def add(name: str, order: int, title: str, content: str) -> None:
        if content:
            before = sections.get(name, (order, title, ""))
            sections[name] = (min(order, before[0]), before[1], before[2] + content)

    def add_table(name: str, order: int, title: str, table: Table) -> None:
        add(name, order, title, _table(table) if table.rows else "")

    for plot in plots():
        if (svg := plot.svg(runs, evidence)) is not None:
            add(plot.section, plot.order, plot.title, figure(svg, plot.alternative))
    add_table("results", 10, "Results", results_table(runs, evidence))
    add_table("spread", 30, "Spread over templates", spread_table(runs, evidence))
    for c in evidence.comparisons:
        if c.datasets:
            table = _table(comparison_table(c, common(runs)))
            add(
                "differences",
                40,
                "Differences between runs",
                f"<h3>{text(c.other)} beside {text(c.first)}</h3>{table}",
            )
    add_table("overlap", 42, "Records in the text that was tuned on", overlap_table(runs))
    add_table("groups", 45, "Runs of the groups", groups_table(runs))
    add_table("metrics", 60, "Other metrics", metrics_table(runs))
    add_table("forms", 65, "Full text or letters", forms_table(runs))
    add_table("rankings", 70, "Ways to score the options", rankings_table(runs, evidence))
    if any(evidence.clean.values()):
        add_table("clean", 80, "Examples that the corpus does not have", clean_table(runs, evidence))
    add("templates", 90, "Templates", "".join(_templates(runs, evidence, name) for name in dataset_names(runs)))
    if evidence.worst:
        parts = [
            f"<p>Lowest scores of the answer against the other options, or of the text, in {text(runs[-1].title)}.</p>"
        ]
        parts += [_worst(runs, evidence, name) for name in evidence.worst]
        add("worst", 100, "Worst examples", "".join(parts))
    add_table("cost", 110, "Time and tokens", cost_table(runs))
    items = "".join(f"<li>{text(note)}</li>" for note in notes(runs, evidence))
    add("notes", 120, "How to read this", f"<ul>{items}</ul>")
    shown = sorted(((order, name, title, content) for name, (order, title, content) in sections.items()))
    title = "FLAN-JAX evaluation: " + ", ".join(run.name for run in runs)
    return document(title, [(name, heading, content) for _, name, heading, content in shown])


def _templates(runs: Sequence[Run], evidence: Evidence, name: str) -> str:
    """The wordings of a dataset's templates, with each run's figures on test and dev."""
    table = _table(templates_table(runs, evidence, [name]))
    return f"<details><summary>{text(name)}</summary>{table}</details>"


def _worst(runs: Sequence[Run], evidence: Evidence, name: str) -> str:
    listed = evidence.worst[name]
    wrong = sum("loglikelihood" in p and ranked(p, "sum") != p["answer"] for p in listed)
    small = counted(len(listed), "examples") + (f", {wrong} of them wrong" if "loglikelihood" in listed[0] else "")
    examples = "".join(_example(runs, evidence, name, p) for p in listed)
    return f"<details><summary>{text(name)}<small>{small}</small></summary>{examples}</details>"


def _example(runs: Sequence[Run], evidence: Evidence, name: str, prediction: Mapping[str, Any]) -> str:
    number, record = prediction["template"], record_of(prediction)
    top = f"<p>{text(str(prediction['id']))} · template {number}</p><pre>{text(prediction['prompt'])}</pre>"
    if "loglikelihood" not in prediction:
        wanted = prediction.get("references", prediction.get("target", ""))
        wanted = wanted if isinstance(wanted, str) else "\n".join(map(str, wanted))
        score = f" (score {percent(prediction['score'])})" if "score" in prediction else ""
        given = prediction.get("prediction", "")
        texts = f"<p>answer{score}</p><pre>{text(str(given))}</pre><p>wanted</p><pre>{text(wanted)}</pre>"
        return f"<article>{top}{texts}</article>"
    scored = []
    for run in runs:
        p = prediction if run is runs[-1] else evidence.beside.get((run.name, name, record, number))
        if p is not None and p.get("options") == prediction["options"]:  # another program's may be texts
            values = np.asarray(p["loglikelihood"], np.float64)
            scored.append((run, values, option_probabilities(values)))
    chosen = ranked(prediction, "sum")
    lines = []
    for i, option in enumerate(prediction["options"]):
        kinds = [kind for kind, there in (("answer", i == prediction["answer"]), ("chosen", i == chosen)) if there]
        cells = "".join(f'<td class="first">{v[i]:.3f}</td><td>{percent(p[i])}</td>' for _, v, p in scored)
        what = " and ".join(kinds)
        lines.append(f'<tr class="{" ".join(kinds)}"><td class="text">{text(option)}</td><td>{what}</td>{cells}</tr>')
    groups = "".join(f'<th class="group" colspan="2">{text(run.title)}</th>' for run, _, _ in scored)
    head = f"<tr><th></th><th></th>{groups}</tr><tr><th></th><th></th>{'<th>log p</th><th>%</th>' * len(scored)}</tr>"
    return f'<article>{top}<div class="wide"><table>{head}{"".join(lines)}</table></div></article>'

"""One self-contained HTML page: no script, no font, no file but itself."""

from __future__ import annotations

import base64
import html
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
from flan_jax.reporting.evidence import Evidence, record_of
from flan_jax.reporting.forms import forms_table
from flan_jax.reporting.notes import notes
from flan_jax.reporting.plots import plots
from flan_jax.reporting.runs import Run, common, dataset_names
from flan_jax.reporting.statistics import option_probabilities
from flan_jax.reporting.tables import RECORDS_SEEN, Table, metrics_table, percent, results_table
from flan_jax.wording import counted

_COLORS = {labels.HELD_OUT: "held", labels.SEEN: "seen", labels.UNKNOWN: "unknown", labels.MIXED: "unknown"}
_STYLE = """
:root{color-scheme:light dark;--ground:#fbfaf7;--card:#fff;--ink:#22252b;--soft:#666c76;--line:#e0ddd5;--mean:#f1efe9;
--accent:#2a5db0;--held:#1b6e44;--seen:#a8341f;--unknown:#7d5f00;--right:#e2f2e5;--wrong:#fbe6e1}
@media (prefers-color-scheme:dark){:root{--ground:#16181c;--card:#1f2228;--ink:#e4e5e8;--soft:#9aa0aa;--line:#353a43;
--mean:#282c34;--accent:#86b1f5;--held:#7fd3a4;--seen:#f0957f;--unknown:#e0c060;--right:#203a28;--wrong:#472a24}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main,header{max-width:1560px;margin:0 auto;padding:0 24px}main{padding-bottom:60px}header{padding-top:20px}
h1{font-size:22px;margin:0 0 4px}h2{font-size:18px;margin:34px 0 8px;scroll-margin-top:12px}
h3{font-size:15px;margin:18px 0 6px}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin:8px 0}a{color:var(--accent)}p{margin:6px 0;color:var(--soft)}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;font-size:13.5px;min-width:100%;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{color:var(--soft);font-weight:600;vertical-align:bottom}tr:last-child td{border-bottom:0}
th.group{text-align:center;color:var(--ink);border-left:1px solid var(--line)}
td.first,th.first{border-left:1px solid var(--line)}
th.name,td.name{text-align:left;position:sticky;left:0;background:var(--card);white-space:normal;overflow-wrap:break-word;
min-width:min(200px,38vw);max-width:min(300px,38vw)}
tr.mean td{font-weight:600;background:var(--mean)}
.marked{color:var(--seen);font-weight:600}.held{color:var(--held)}.seen{color:var(--seen)}.unknown{color:var(--unknown)}
td.text{text-align:left;white-space:pre-wrap;min-width:260px;overflow-wrap:anywhere}
figure{margin:0 0 10px;overflow-x:auto;background:#fff;border:1px solid var(--line);border-radius:8px;padding:10px}
figure img{display:block;margin:0 auto;max-width:100%;min-width:560px;height:auto}
details{border:1px solid var(--line);border-radius:8px;background:var(--card);margin:6px 0;padding:6px 12px}
summary{cursor:pointer;font-weight:600}summary small{font-weight:normal;color:var(--soft);margin-left:8px}
article{border-top:1px solid var(--line);margin-top:10px;padding-top:8px}article>p{font-size:13px}
pre{margin:6px 0;white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.45 ui-monospace,Menlo,Consolas,monospace;
max-height:340px;overflow-y:auto;padding:8px 10px;border:1px solid var(--line);border-radius:6px}
tr.answer td{background:var(--right)}tr.chosen td{background:var(--wrong)}tr.answer.chosen td{background:var(--right)}
li{margin:4px 0;overflow-wrap:anywhere}
"""


def _text(value: str) -> str:
    # A lone surrogate has no UTF-8 form.
    return html.escape(value.encode(errors="replace").decode())


def _table(table: Table) -> str:
    starts = set(np.cumsum([0, *(span for _, span in table.groups)]).tolist()) - {0}

    def edge(i: int) -> str:
        return " first" if i in starts else ""

    lines = []
    if any(title for title, _ in table.groups):
        title, span = table.groups[0]
        # The first column stays in view, and must not take the rest of its group with it.
        groups = [f'<th class="name">{_text(title)}</th>', f'<th colspan="{span - 1}"></th>' if span > 1 else ""]
        groups += [f'<th class="group" colspan="{span}">{_text(title)}</th>' for title, span in table.groups[1:]]
        lines.append(f"<tr>{''.join(groups)}</tr>")
    head = (f'<th class="{"name" if i == 0 else edge(i)}">{_text(cell)}</th>' for i, cell in enumerate(table.head))
    lines.append(f"<tr>{''.join(head)}</tr>")
    for number, row in enumerate(table.rows):
        cells = (
            f'<td class="{"name" if i == 0 else _kind(table, i, cell) + edge(i)}">{_text(cell)}</td>'
            for i, cell in enumerate(row)
        )
        lines.append(f'<tr class="{"mean" if number in table.means else ""}">{"".join(cells)}</tr>')
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _kind(table: Table, column: int, cell: str) -> str:
    """The classes of a cell."""
    if table.head[column] == "label":
        label = cell.partition("; ")[0]
        return "seen" if cell.endswith(RECORDS_SEEN) else _COLORS.get(labels.status_of(label), "")
    if table.head[column] == "wording":
        return "text"
    return "marked" if table.head[column] in ("most frequent", "shots") and "(" in cell else ""


def _figure(svg: bytes, alternative: str) -> str:
    image = base64.b64encode(svg).decode()
    return f'<figure><img alt="{_text(alternative)}" src="data:image/svg+xml;base64,{image}"></figure>'


def page(runs: Sequence[Run], evidence: Evidence) -> str:
    """The page.

    Args:
      runs: the first is compared with, the last is the one of interest.
      evidence: of their predictions.
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
            add(plot.section, plot.order, plot.title, _figure(svg, plot.alternative))
    add_table("results", 10, "Results", results_table(runs, evidence))
    add_table("spread", 30, "Spread over templates", spread_table(runs, evidence))
    for c in evidence.comparisons:
        if c.datasets:
            table = _table(comparison_table(c, common(runs)))
            add(
                "differences",
                40,
                "Differences between runs",
                f"<h3>{_text(c.other)} beside {_text(c.first)}</h3>{table}",
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
            f"<p>Lowest scores of the answer against the other options, or of the text, in {_text(runs[-1].title)}.</p>"
        ]
        parts += [_worst(runs, evidence, name) for name in evidence.worst]
        add("worst", 100, "Worst examples", "".join(parts))
    add_table("cost", 110, "Time and tokens", cost_table(runs))
    items = "".join(f"<li>{_text(note)}</li>" for note in notes(runs, evidence))
    add("notes", 120, "How to read this", f"<ul>{items}</ul>")
    shown = sorted(((order, name, title, content) for name, (order, title, content) in sections.items()))

    links = "".join(f'<a href="#{name}">{title}</a>' for _, name, title, _ in shown)
    body = "".join(f'<section><h2 id="{name}">{title}</h2>{content}</section>' for _, name, title, content in shown)
    title = "FLAN-JAX evaluation: " + ", ".join(run.name for run in runs)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><link rel="icon" href="data:,">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>{_text(title)}</h1><nav>{links}</nav></header><main>{body}</main></body></html>\n"
    )


def _templates(runs: Sequence[Run], evidence: Evidence, name: str) -> str:
    """The wordings of a dataset's templates with each run's test and dev figures."""
    table = _table(templates_table(runs, evidence, [name]))
    return f"<details><summary>{_text(name)}</summary>{table}</details>"


def _worst(runs: Sequence[Run], evidence: Evidence, name: str) -> str:
    listed = evidence.worst[name]
    wrong = sum("loglikelihood" in p and ranked(p, "sum") != p["answer"] for p in listed)
    small = counted(len(listed), "examples") + (f", {wrong} of them wrong" if "loglikelihood" in listed[0] else "")
    examples = "".join(_example(runs, evidence, name, p) for p in listed)
    return f"<details><summary>{_text(name)}<small>{small}</small></summary>{examples}</details>"


def _example(runs: Sequence[Run], evidence: Evidence, name: str, prediction: Mapping[str, Any]) -> str:
    number, record = prediction["template"], record_of(prediction)
    top = f"<p>{_text(str(prediction['id']))} · template {number}</p><pre>{_text(prediction['prompt'])}</pre>"
    if "loglikelihood" not in prediction:
        wanted = prediction.get("references", prediction.get("target", ""))
        wanted = wanted if isinstance(wanted, str) else "\n".join(map(str, wanted))
        score = f" (score {percent(prediction['score'])})" if "score" in prediction else ""
        given = prediction.get("prediction", "")
        texts = f"<p>answer{score}</p><pre>{_text(str(given))}</pre><p>wanted</p><pre>{_text(wanted)}</pre>"
        return f"<article>{top}{texts}</article>"
    scored = []
    for run in runs:
        p = prediction if run is runs[-1] else evidence.beside.get((run.name, name, record, number))
        if p is not None and p["options"] == prediction["options"]:
            values = np.asarray(p["loglikelihood"], np.float64)
            scored.append((run, values, option_probabilities(values)))
    chosen = ranked(prediction, "sum")
    lines = []
    for i, option in enumerate(prediction["options"]):
        kinds = [kind for kind, there in (("answer", i == prediction["answer"]), ("chosen", i == chosen)) if there]
        cells = "".join(f'<td class="first">{v[i]:.3f}</td><td>{percent(p[i])}</td>' for _, v, p in scored)
        what = " and ".join(kinds)
        lines.append(f'<tr class="{" ".join(kinds)}"><td class="text">{_text(option)}</td><td>{what}</td>{cells}</tr>')
    groups = "".join(f'<th class="group" colspan="2">{_text(run.title)}</th>' for run, _, _ in scored)
    head = f"<tr><th></th><th></th>{groups}</tr><tr><th></th><th></th>{'<th>log p</th><th>%</th>' * len(scored)}</tr>"
    return f'<article>{top}<div class="wide"><table>{head}{"".join(lines)}</table></div></article>'

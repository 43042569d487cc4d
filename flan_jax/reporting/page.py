"""One self-contained HTML page: no script, no font, no file but itself."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import catalog, styles
from flan_jax.evaluation import evaluator
from flan_jax.evaluation.figures import ranked
from flan_jax.reporting import plots
from flan_jax.reporting.evidence import Evidence
from flan_jax.reporting.runs import Run, dataset_names, template_value
from flan_jax.reporting.statistics import option_probabilities
from flan_jax.reporting.tables import (
    HELD_OUT,
    NONE,
    Table,
    clean_table,
    comparison_table,
    notes,
    percent,
    rankings_table,
    results_table,
)

_STATUS = {
    evaluator.HELD_OUT: "held",
    HELD_OUT: "held",
    evaluator.SEEN: "seen",
    evaluator.UNKNOWN: "unknown",
    "mixed": "unknown",
}
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
.held{color:var(--held)}.seen{color:var(--seen)}.unknown{color:var(--unknown)}
td.text{text-align:left;white-space:pre-wrap;min-width:260px;overflow-wrap:anywhere}
figure{margin:0;overflow-x:auto;background:#fff;border:1px solid var(--line);border-radius:8px;padding:10px}
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
            f'<td class="{"name" if i == 0 else _STATUS.get(cell, "") + edge(i)}">{_text(cell)}</td>'
            for i, cell in enumerate(row)
        )
        lines.append(f'<tr class="{"mean" if number in table.means else ""}">{"".join(cells)}</tr>')
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _figure(svg: bytes, alternative: str) -> str:
    image = base64.b64encode(svg).decode()
    return f'<figure><img alt="{_text(alternative)}" src="data:image/svg+xml;base64,{image}"></figure>'


def page(runs: Sequence[Run], evidence: Evidence) -> str:
    """The page.

    Args:
      runs: the first is compared with, the last is the one of interest.
      evidence: of their predictions.
    """
    sections: list[tuple[str, str, str]] = [
        ("results", "Results", _table(results_table(runs))),
        ("clusters", "Clusters", _figure(plots.cluster_bars(runs), "means by cluster and run")),
        (
            "spread",
            "Spread over templates",
            _figure(plots.template_spread(runs), "scores by dataset, run and template"),
        ),
    ]
    if compared := [c for c in evidence.comparisons if c.datasets]:
        parts = [_figure(plots.differences(compared), "differences between runs with 95 % intervals")]
        for c in compared:
            parts.append(f"<h3>{_text(c.other)} beside {_text(c.first)}</h3>{_table(comparison_table(c))}")
        sections.append(("differences", "Differences between runs", "".join(parts)))
    if any(evidence.calibration(run.name) for run in runs):
        figure = _figure(plots.reliability(runs, evidence), "reliability of the options' probabilities by run")
        sections.append(("calibration", "Calibration", figure))
    rankings = rankings_table(runs, evidence)
    if rankings.rows:
        sections.append(("rankings", "Other rankings of the options", _table(rankings)))
    if any(evidence.clean.values()):
        sections.append(("clean", "Examples that the corpus does not have", _table(clean_table(runs, evidence))))
    sections.append(("templates", "Templates", "".join(_templates(runs, name) for name in dataset_names(runs))))
    if evidence.worst:
        parts = [
            f"<p>Lowest scores of the answer against the other options, or of the text, in {_text(runs[-1].title)}.</p>"
        ]
        parts += [_worst(runs, evidence, name) for name in evidence.worst]
        sections.append(("worst", "Worst examples", "".join(parts)))
    items = "".join(f"<li>{_text(note)}</li>" for note in notes(runs, evidence))
    sections.append(("notes", "How to read this", f"<ul>{items}</ul>"))

    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in sections)
    body = "".join(f'<section><h2 id="{name}">{title}</h2>{content}</section>' for name, title, content in sections)
    title = "FLAN-JAX evaluation: " + ", ".join(run.name for run in runs)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><link rel="icon" href="data:,">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>{_text(title)}</h1><nav>{links}</nav></header><main>{body}</main></body></html>\n"
    )


def _templates(runs: Sequence[Run], name: str) -> str:
    """The wordings of a dataset's templates with each run's test and dev figures."""
    listed = [{t["template"]: t for t in (run.figures(name) or {"templates": []})["templates"]} for run in runs]
    lines = []
    for number in sorted({n for each in listed for n in each}):
        wordings = dict.fromkeys(
            _wording(run, name, number) for run, each in zip(runs, listed, strict=True) if number in each
        )
        cells = [f'<td class="text">t{number}  {"<hr>".join(map(_text, wordings))}</td>']
        for each in listed:
            t = each.get(number)
            cells += [f'<td class="first">{percent(template_value(t)) if t else NONE}</td>']
            cells += [f"<td>{percent(t.get('dev')) if t else NONE}</td>"]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    groups = "".join(f'<th class="group" colspan="2">{_text(run.title)}</th>' for run in runs)
    head = f"<tr><th></th>{groups}</tr><tr><th></th>{'<th>test</th><th>dev</th>' * len(runs)}</tr>"
    table = f'<div class="wide"><table>{head}{"".join(lines)}</table></div>'
    return f"<details><summary>{_text(name)}</summary>{table}</details>"


def _wording(run: Run, name: str, number: int) -> str:
    if name not in {d.name for d in catalog.datasets()}:
        return ""
    wordings = styles.templates(catalog.dataset(name), run.style)
    return wordings[number].input if number < len(wordings) else ""


def _worst(runs: Sequence[Run], evidence: Evidence, name: str) -> str:
    listed = evidence.worst[name]
    wrong = sum("loglikelihood" in p and ranked(p, "sum") != p["answer"] for p in listed)
    small = f"{len(listed)} examples" + (f", {wrong} of them wrong" if "loglikelihood" in listed[0] else "")
    examples = "".join(_example(runs, evidence, name, p) for p in listed)
    return f"<details><summary>{_text(name)}<small>{small}</small></summary>{examples}</details>"


def _example(runs: Sequence[Run], evidence: Evidence, name: str, prediction: Mapping[str, Any]) -> str:
    number, record = prediction["template"], prediction["record"]
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

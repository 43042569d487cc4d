"""The report of one or more evaluations: Markdown, JSON and one self-contained HTML page with a plot."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from rich.table import Table

from flan_jax import catalog
from flan_jax.errors import FlanError
from flan_jax.evaluation.protocol import read_lines, write_atomic

_COLORS = ("#8a8f98", "#2a6fbb", "#c8553d", "#4c9f70", "#8e6bbf")


@dataclasses.dataclass(frozen=True)
class Run:
    """One evaluation under its name in the report.

    Attributes:
      name: for example "untuned".
      results: what `protocol.evaluate` returned.
    """

    name: str
    results: Mapping[str, Any]


def load_run(name: str, output_dir: str | Path) -> Run:
    """Reads the results.json of an earlier evaluation.

    Raises:
      FlanError: there is none, or it is broken.
    """
    path = Path(output_dir) / "results.json"
    try:
        return Run(name, json.loads(path.read_text()))
    except (OSError, json.JSONDecodeError) as error:
        raise FlanError(f"no readable results.json in {output_dir}: run python -m flan_jax.eval first.") from error


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal, or a dash."""
    return "–" if value is None else f"{100 * value:.1f}"


def table(runs: Sequence[Run]) -> list[list[str]]:
    """The paper's form of table (appendix): a row a dataset and a cluster mean; head row first.

    For each run: mean and standard deviation over the forward templates, then the best-dev template.
    """
    head = ["dataset", "examples", "random", "majority"]
    for run in runs:
        head += [f"{run.name}: mean ± std", f"{run.name}: best dev", f"{run.name}: status"]
    rows = [head]
    names = list(dict.fromkeys(name for run in runs for name in run.results["datasets"]))
    order = {d.name: i for i, d in enumerate(catalog.datasets())}
    names.sort(key=lambda name: order.get(name, len(order)))
    clusters = list(dict.fromkeys(_first(runs, "datasets", name)["cluster"] for name in names))
    for cluster in clusters:
        members = [n for n in names if _first(runs, "datasets", n)["cluster"] == cluster]
        for name in members:
            first = _first(runs, "datasets", name)
            row = [name, str(first["examples"]), percent(first["random"]), percent(first["majority"])]
            for run in runs:
                row += _cells(run.results["datasets"].get(name))
            rows.append(row)
        mean = _first(runs, "clusters", cluster)
        row = [f"**{cluster} mean**", "", percent(mean["random"]), percent(mean["majority"])]
        for run in runs:
            figures = run.results["clusters"].get(cluster)
            row += [percent(figures["mean"]), percent(figures["best_dev"]), figures["status"]] if figures else ["–"] * 3
        rows.append(row)
    return rows


def _first(runs: Sequence[Run], part: str, name: str) -> Mapping[str, Any]:
    return next(run.results[part][name] for run in runs if name in run.results[part])


def _cells(figures: Mapping[str, Any] | None) -> list[str]:
    if figures is None:
        return ["–", "–", "–"]
    best = percent(figures["best_dev"])
    if figures["best_dev_template"] is not None:
        best += f" (t{figures['best_dev_template']})"
    return [f"{percent(figures['mean'])} ± {percent(figures['std'])}", best, figures["status"]]


def markdown(runs: Sequence[Run]) -> str:
    """The table and what stands behind it, as Markdown."""
    head, *rows = table(runs)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", *(f"- {note}" for note in notes(runs))]
    return "\n".join(lines) + "\n"


def rich_table(runs: Sequence[Run]) -> Table:
    """The table for a terminal."""
    head, *rows = table(runs)
    shown = Table(*head, box=None, header_style="bold")
    for row in rows:
        shown.add_row(*(cell.strip("*") for cell in row), style="bold" if row[0].startswith("**") else "")
    return shown


def notes(runs: Sequence[Run]) -> list[str]:
    """What a reader must know to believe the table."""
    found = [
        "Accuracy in percent. Options are ranked by the sum of their tokens' log-likelihoods, ties to the first. "
        "Mean and standard deviation are over the forward templates; best dev is the test score of the template that "
        "is best on the dev examples."
    ]
    for run in runs:
        results = run.results
        tuned = results["tuning"]
        what = f"{run.name}: {results['checkpoint']}, {tuned['status']}"
        if tuned["clusters"]:
            what += f"; its tuning mixtures held {', '.join(tuned['clusters'])}"
        what += f"; prompt and option joined by {results['separator']}"
        cut = sum(t["cut_prompts"] for d in results["datasets"].values() for t in d["templates"])
        what += f"; {cut} prompts shortened to fit." if cut else "."
        found.append(what)
        found += [f"{run.name} skipped {s['dataset']}: {s['reason']}" for s in results["skipped"]]
    return found


def plot(runs: Sequence[Run]) -> bytes:
    """Accuracy by dataset: a point a template, a bar at the mean, a tick at the random baseline. Returns an SVG."""
    names = list(dict.fromkeys(name for run in runs for name in run.results["datasets"]))
    figure, axes = plt.subplots(figsize=(max(5.0, 1.1 * len(names) * len(runs) * 0.6 + 2.5), 3.6))
    width = 0.8 / len(runs)
    for i, run in enumerate(runs):
        color = _COLORS[i % len(_COLORS)]
        for x, name in enumerate(names):
            if name not in run.results["datasets"]:
                continue
            figures = run.results["datasets"][name]
            centre = x - 0.4 + width * (i + 0.5)
            axes.bar(centre, 100 * figures["mean"], width * 0.92, color=color, alpha=0.35, zorder=1)
            points = [100 * t["sum"] for t in figures["templates"]]
            spread = [centre + width * 0.5 * (j / max(len(points) - 1, 1) - 0.5) for j in range(len(points))]
            axes.scatter(spread, points, s=13, color=color, zorder=3, linewidths=0)
        axes.bar(0, 0, color=color, alpha=0.6, label=run.name)
    for x, name in enumerate(names):
        random = 100 * _first(runs, "datasets", name)["random"]
        label = "random" if x == 0 else None
        axes.plot([x - 0.45, x + 0.45], [random, random], color="black", lw=1, ls=":", zorder=2, label=label)
    axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 4 else 0, ha="center")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 100)
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1d2129;max-width:1080px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;font-size:13.5px;width:100%}.wide{overflow-x:auto}
th,td{padding:.35rem .6rem;border-bottom:1px solid #e4e6ea;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}tr.mean td{font-weight:600;background:#f5f6f8}
.held{color:#1f7a4d}.seen{color:#b3402a}.unknown{color:#8a6d00}
img{max-width:100%}pre{background:#f5f6f8;padding:.6rem .8rem;white-space:pre-wrap;font-size:13px}
summary{cursor:pointer;margin:.3rem 0}li{margin:.3rem 0}
"""


def page(runs: Sequence[Run], wrong: Mapping[str, Sequence[Mapping[str, Any]]] | None = None) -> str:
    """One HTML page that needs nothing else: table, plot, templates, and a few of the worst examples.

    Args:
      runs: the evaluations; the last is the one of interest.
      wrong: predictions to show by dataset, from `worst_examples`.
    """
    head, *rows = table(runs)
    body = ["<h1>FLAN-JAX evaluation</h1>", '<div class="wide"><table><tr>']
    body += [f"<th>{html.escape(cell)}</th>" for cell in head]
    body.append("</tr>")
    for row in rows:
        mean = row[0].startswith("**")
        body.append('<tr class="mean">' if mean else "<tr>")
        for cell in row:
            kind = {"zero-shot, held out": "held", "seen": "seen", "unknown": "unknown"}.get(cell, "")
            body.append(f'<td class="{kind}">{html.escape(cell.strip("*"))}</td>')
        body.append("</tr>")
    image = base64.b64encode(plot(runs)).decode()
    body += [
        "</table></div>",
        "<h2>Spread over templates</h2>",
        f'<img alt="accuracy by dataset and template" src="data:image/svg+xml;base64,{image}">',
        "<h2>How to read this</h2><ul>",
        *(f"<li>{html.escape(note)}</li>" for note in notes(runs)),
        "</ul><h2>Templates</h2>",
    ]
    for name in runs[-1].results["datasets"]:
        body.append(f"<details><summary>{html.escape(name)}</summary>{_template_table(runs, name)}</details>")
    if wrong:
        body.append("<h2>Worst examples of the last run</h2>")
        for name, predictions in wrong.items():
            body.append(f"<details><summary>{html.escape(name)}</summary>")
            body += [_example(p) for p in predictions]
            body.append("</details>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>FLAN-JAX evaluation</title><style>{_STYLE}</style>{''.join(body)}</html>\n"
    )


def _template_table(runs: Sequence[Run], name: str) -> str:
    record = catalog.dataset(name)
    cells = ["<table><tr><th>template</th>"]
    cells += [f"<th>{html.escape(run.name)}: test</th><th>dev</th>" for run in runs]
    cells.append("</tr>")
    for number in record.forward_templates:
        text = record.templates[number].input
        cells.append(f'<tr><td style="white-space:pre-wrap">t{number} {html.escape(text)}</td>')
        for run in runs:
            listed = run.results["datasets"].get(name, {"templates": []})["templates"]
            figures = next((t for t in listed if t["template"] == number), None)
            for key in ("sum", "dev"):
                cells.append(f"<td>{percent(figures[key]) if figures else '–'}</td>")
        cells.append("</tr>")
    return "".join([*cells, "</table>"])


def _example(prediction: Mapping[str, Any]) -> str:
    lines = [
        f"{'→' if i == prediction['answer'] else ' '} {score:9.3f}  {option}"
        for i, (option, score) in enumerate(zip(prediction["options"], prediction["loglikelihood"], strict=True))
    ]
    text = prediction["prompt"] + f"\n\n[template {prediction['template']}; → marks the answer]\n" + "\n".join(lines)
    return f"<pre>{html.escape(text)}</pre>"


def worst_examples(output_dir: str | Path, datasets: Sequence[str], count: int = 5) -> dict[str, list[dict]]:
    """The test predictions whose answer lies furthest below the best other option, by dataset."""
    found: dict[str, list[dict]] = {}
    for name in datasets:
        predictions = []
        for path in sorted((Path(output_dir) / "predictions" / name).glob("test_t*.jsonl")):
            predictions += read_lines(path)[1:]

        def margin(p: Mapping[str, Any]) -> float:
            others = [x for i, x in enumerate(p["loglikelihood"]) if i != p["answer"]]
            return p["loglikelihood"][p["answer"]] - max(others)

        seen: set[str] = set()
        for prediction in sorted(predictions, key=margin):
            if len(seen) < count and prediction["id"] not in seen:
                seen.add(prediction["id"])
                found.setdefault(name, []).append(prediction)
    return found


def write(runs: Sequence[Run], output_dir: str | Path) -> dict[str, Path]:
    """Writes report.md, report.json and report.html; returns their paths by suffix."""
    output = Path(output_dir)
    wrong = worst_examples(output, list(runs[-1].results["datasets"]))
    contents = {
        "md": markdown(runs),
        "json": json.dumps([{"name": run.name, **run.results} for run in runs], indent=1) + "\n",
        "html": page(runs, wrong),
    }
    paths = {}
    for suffix, text in contents.items():
        paths[suffix] = output / f"report.{suffix}"
        write_atomic(paths[suffix], text)
    return paths

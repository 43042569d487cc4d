"""Finds dev and test examples that share an n-gram with a corpus, such as a model's pretraining data.

python -m flan_jax.contamination --prepared=prepared --corpus='corpus/**/*.jsonl.gz' --to=contamination.json
python -m flan_jax.report --runs tuned=runs/without_nli/nli --contamination=contamination.json --output=report

Words are compared in lower case and without punctuation. Only the text that a prompt shows is searched for, not the
answer.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table

from flan_jax import options, output, own_data
from flan_jax.errors import one_line_errors
from flan_jax.files import ready, user_path, write_atomic
from flan_jax.json_lines import to_json
from flan_jax.overlap import contamination
from flan_jax.values import Whole


def _check(arguments: argparse.Namespace) -> dict:
    own_data.used_of(arguments.prepared)
    datasets = contamination.prepared_datasets(arguments.prepared)
    if arguments.datasets:
        from flan_jax.evaluation import evaluator  # imports JAX, which the workers do not need

        datasets = evaluator.select(arguments.datasets.split(","))
    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True, markup=False, emoji=False)) as bar:
        task = bar.add_task("reading examples", total=None)
        shown = time.monotonic()

        def show(name: str, done: int, total: int) -> None:
            nonlocal shown
            bar.update(task, description=Path(name).name, completed=done, total=total)
            if not bar.console.is_terminal and time.monotonic() - shown > 10:
                shown = time.monotonic()
                print(f"[{done / 1e6:,.0f}/{total / 1e6:,.0f} MB] {name}", file=sys.stderr, flush=True)

        return contamination.check(
            datasets,
            arguments.prepared,
            arguments.corpus,
            n=arguments.ngram,
            ignore_above=arguments.ignore_above,
            field=arguments.field,
            workers=arguments.workers,
            progress=show,
        )


def _summary(results: dict) -> dict:
    counts = {
        name: {
            split: {"examples": len(part["clean"]) + len(part["dirty"]), "dirty": len(part["dirty"])}
            for split, part in splits.items()
        }
        for name, splits in results["datasets"].items()
    }
    corpus = {name: value for name, value in results["corpus"].items() if name not in ("files", "broken")}
    return {"corpus": corpus | {"files": len(results["corpus"]["files"])}, "datasets": counts}


def _table(summary: dict) -> Table:
    shown = Table("dataset", "split", "examples", "dirty", "%", box=None, header_style="bold")
    for name, splits in summary["datasets"].items():
        for split, counts in splits.items():
            share = f"{100 * counts['dirty'] / counts['examples']:.1f}" if counts["examples"] else "–"
            shown.add_row(name, split, str(counts["examples"]), str(counts["dirty"]), share)
    return shown


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, searches the corpus and writes what it found."""
    parser = options.Parser(
        prog="python -m flan_jax.contamination",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--prepared", required=True, type=options.path, help="PREPARED_DIR with the dev and test examples"
    )
    parser.add_argument(
        "--corpus",
        required=True,
        nargs="+",
        type=options.path,
        help="text or JSON-lines files, plain or compressed, or globs",
    )
    parser.add_argument("--to", required=True, type=options.path, help="JSON file to write")
    parser.add_argument(
        "--datasets", default="", help="datasets and clusters, separated by commas; by default all prepared ones"
    )
    parser.add_argument("--field", default="text", help="the field of a JSON line that holds the text")
    parser.add_argument("--ngram", type=options.of(Whole(1, 1000)), default=contamination.N, help="words of an n-gram")
    parser.add_argument(
        "--ignore_above", type=options.count, help="ignore n-grams that are in more documents than this (GPT-3: 10)"
    )
    parser.add_argument("--workers", type=options.count, default=os.cpu_count() or 1, help="number of processes")
    parser.add_argument("--tasks", **options.TASKS)
    parser.add_argument("--json", action="store_true", help="print a summary as one JSON object, last line")
    with one_line_errors():
        arguments = parser.parse_args(argv)
        to = ready(user_path(arguments.to, "--to"), arguments.corpus)
        began = time.monotonic()
        results = _check(arguments)
        write_atomic(to, to_json(results, ascii_only=False, indent=1) + "\n")
        seconds = time.monotonic() - began
        summary = _summary(results) | {"seconds": round(seconds, 1), "output": str(arguments.to)}
        console = Console(width=output.width(200), markup=False, emoji=False)
        console.print(_table(summary))
        corpus = summary["corpus"]
        forms = ", ".join(f"{count} as {form}" for form, count in corpus["forms"].items())
        forms += f", {corpus['empty_files']} empty" if corpus["empty_files"] else ""
        broken = sorted(results["corpus"]["broken"].items(), key=lambda item: -item[1])
        worst = f" ({', '.join(f'{name}: {count:,}' for name, count in broken[:3])})" if broken else ""
        console.print(
            f"{corpus['files']} files ({forms}), {corpus['bytes'] / 1e6:,.1f} MB, {corpus['documents']:,} documents, "
            f"{corpus['words']:,} words in {seconds:,.1f} s; "
            f"{corpus['broken_lines']:,} lines left out{worst}; {arguments.to}",
            soft_wrap=True,
            highlight=False,
        )
        if arguments.json:
            print(to_json(summary))


if __name__ == "__main__":
    main()

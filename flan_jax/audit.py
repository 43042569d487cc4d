"""Finds the evaluation records that a model or a mixture has seen: by name, by kinship, as a record, or by their text.

python -m flan_jax.audit --tuned runs/without_nli --evaluated nli --prepared prepared
python -m flan_jax.audit --tuned flan_without_nli more.jsonl --evaluated rte mine.jsonl --data data --json

--tuned takes checkpoint folders, mixtures, datasets, clusters, prepared folders, folders of JSONL, and files of JSON
lines or plain text. --evaluated takes datasets, clusters, prepared folders, folders of JSONL and files of JSON lines.
The text of a name is read from --prepared or from --data.

Exit status: 0 if nothing was seen, 1 if something was seen, 3 if nothing was seen but not everything could be
compared, 2 for an error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from flan_jax import content, options, output, own_data
from flan_jax.data.samples import SAMPLES
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.files import ready, user_path, write_atomic
from flan_jax.json_lines import to_json
from flan_jax.overlap import evaluated, seen
from flan_jax.overlap.audited import ALL, NOTHING, audit, short_name
from flan_jax.overlap.given import Places
from flan_jax.values import Whole


def table(results: Mapping[str, Any]) -> Table:
    """The results as a table for the terminal."""
    n = results["ngram"]
    shown = Table(box=None, header_style="bold")
    for head in ("evaluated", "tuned on", "by name", "kin"):
        shown.add_column(head, overflow="fold")
    for head in ("records", "identical", "whole text", f"{n}-gram", "seen", "%"):
        shown.add_column(head, justify="right")
    shown.add_column("compared")
    for row in results["rows"]:
        percent = f"{100 * row['seen'] / row['records']:.1f}"
        numbers = (f"{row[name]:,}" for name in ("records", *seen.WAYS, "seen"))
        compared = "yes" if row["checked"] else "in part" if row["seen"] else "no"
        words = (
            short_name(row["evaluated"]),
            short_name(row["tuned"]),
            row["name"] or "–",
            ", ".join(row["kin"]) or "–",
        )
        shown.add_row(*words, *numbers, percent, compared)
    return shown


def _notes(results: Mapping[str, Any]) -> list[str]:
    """Lines below the table, for what the table cannot show."""
    n, lines = results["ngram"], []
    own = [row for row in results["rows"] if row["tuned"] != ALL]
    for row in own:
        name = short_name(row["evaluated"])
        if row["short"]:
            lines.append(
                f"{name}: {row['short']:,} of {row['records']:,} records have no text of {n} words, so no {n}-gram "
                "can see them; their texts are matched whole."
            )
        if row["passed_over"]:
            lines.append(
                f"{name}: {', '.join(row['passed_over'])} not compared, being named like answers, labels, titles and "
                "ids; rename what a prompt shows."
            )
        if row["tiny"]:
            lines.append(
                f"{name}: {row['tiny']:,} records have under {content.FEWEST} words in all: only the same record "
                "matches them."
            )
    for row in own:
        lines += [f"{short_name(row['evaluated'])} and {kin}: {how}." for kin, how in row["kin"].items()]
    lines += [f"{short_name(row['tuned'])}: not all is compared: {row['reason']}." for row in own if row["reason"]]
    lines += [f"Not compared: {reason}." for reason in results["left_out"]]
    return list(dict.fromkeys(lines))


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, compares the texts and prints what was seen."""
    parser = options.Parser(
        prog="python -m flan_jax.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tuned", nargs="+", required=True, type=options.path, help="what the model was tuned on")
    parser.add_argument("--evaluated", nargs="+", required=True, type=options.path, help="evaluation sets")
    parser.add_argument("--prepared", type=options.path, help="PREPARED_DIR with the text of names and checkpoints")
    parser.add_argument("--data", type=options.data, help="samples, or a folder of JSONL, with the text of names")
    parser.add_argument(
        "--vocabulary", help="vocabulary of prepared tokens: a folder or file, or bytes; a checkpoint has its own"
    )
    parser.add_argument("--ngram", type=options.of(Whole(1, 1000)), default=evaluated.N, help="words of an n-gram")
    parser.add_argument("--to", type=options.path, help="JSON file for the results")
    parser.add_argument("--tasks", **options.TASKS)
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object, last line")
    with one_line_errors():
        arguments = parser.parse_args(argv)
        given = [*arguments.tuned, *arguments.evaluated]
        to = ready(user_path(arguments.to, "--to"), given) if arguments.to else None
        prepared, data = (None if p is None else str(p) for p in (arguments.prepared, arguments.data))
        if prepared is not None and not user_path(prepared, "--prepared").is_dir():
            raise FlanError(f"--prepared={prepared} is no folder: give the one that python -m flan_jax.prepare wrote.")
        if data not in (None, SAMPLES) and not user_path(data, "--data").is_dir():
            raise FlanError(f"--data={data} is no folder: give {SAMPLES}, or a folder of JSONL.")
        own_data.used_of(prepared)
        began = time.monotonic()
        results = audit(
            [str(given) for given in arguments.tuned],
            [str(given) for given in arguments.evaluated],
            Places(prepared, data, arguments.vocabulary),
            arguments.ngram,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
        results["seconds"] = round(time.monotonic() - began, 1)
        if to is not None:
            write_atomic(to, to_json(results, ascii_only=False, indent=1) + "\n")
        Console(width=output.width(200), markup=False, emoji=False).print(table(results))
        for line in _notes(results):
            print(line)
        if arguments.json:
            print(to_json(results))
        if results["status"] != NOTHING:
            sys.stdout.flush()
            sys.exit(results["status"])


if __name__ == "__main__":
    main()

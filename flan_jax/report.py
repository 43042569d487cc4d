"""Renders finished evaluations side by side, as Markdown, JSON and one HTML page.

python -m flan_jax.report --runs untuned=runs/before tuned=runs/after 5_shots=runs/after_5_shots --output=runs/report
python -m flan_jax.report --runs a=runs/a b1=runs/b1 b2=runs/b2 --group b=b1,b2 --output=runs/report

The other runs are compared with the first one. The worst examples are those of the last run. A folder is an
EVAL_OUTPUT_DIR, or what lm-evaluation-harness wrote with --output_path and --log_samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from flan_jax import options, output
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.files import user_path
from flan_jax.json_lines import from_json, to_json
from flan_jax.lazy import lazy_imports

with lazy_imports():  # so that a wrong command line is reported at once
    from flan_jax import reporting
    from flan_jax.reporting import runs as finished


def _runs(arguments: Sequence[str]) -> list[reporting.Run]:
    found: list[Any] = []
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        if not (name and equals and folder):
            raise FlanError(f"--runs takes NAME=EVAL_OUTPUT_DIR, not {argument!r}.")
        if name in (run.name for run in found):
            raise FlanError(f"--runs has two of the name {name}: a report needs runs with names of their own.")
        found.append(reporting.load_run(name, user_path(folder, "--runs")))
    return found


def _groups(arguments: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for argument in arguments:
        name, equals, listed = argument.partition("=")
        members = [member.strip() for member in listed.split(",") if member.strip()]
        if not (name and equals and members):
            raise FlanError(f"--group takes NAME=RUN,RUN,..., not {argument!r}.")
        if name in found:
            raise FlanError(f"--group has two of the name {name}: name all runs of it in one.")
        found[name] = members
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and writes the report."""
    parser = options.Parser(
        prog="python -m flan_jax.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", nargs="+", action="extend", required=True, metavar="NAME=DIR", help="finished evaluations"
    )
    parser.add_argument(
        "--output", required=True, type=options.path, help="folder for report.md, report.json and report.html"
    )
    parser.add_argument(
        "--group",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=RUN,RUN",
        help="show these runs as one, with mean and standard deviation; a RUN may be a pattern, such as 'tuned seed *'",
    )
    parser.add_argument(
        "--contamination",
        type=options.path,
        help="the file that flan_jax.contamination wrote; adds scores on clean subsets",
    )
    parser.add_argument("--json", action="store_true", help="print a summary as one JSON object, last line")
    with one_line_errors():
        arguments = parser.parse_args(argv)
        runs = _runs(arguments.runs)
        groups = _groups(arguments.group)
        if finished.is_evaluation(user_path(arguments.output)):
            raise FlanError(
                f"--output={arguments.output} is the folder of an evaluation, which has a report of its own: give "
                "another."
            )
        console = Console(width=output.width(200), markup=False, emoji=False, highlight=False)
        paths = reporting.write(runs, arguments.output, arguments.contamination, groups, console.print)
        console.print(f"report: {paths['html']}", soft_wrap=True, highlight=False)
        if arguments.json:
            whole = from_json(paths["json"].read_text(encoding="utf-8"))
            clusters = {run["name"]: run["clusters"] for run in whole["runs"]}
            files = {suffix: str(path) for suffix, path in paths.items()}
            rest = {name: whole[name] for name in ("comparisons", "tests", "calibration", "clean")}
            print(to_json({"files": files, "clusters": clusters} | rest))


if __name__ == "__main__":
    main()

"""Verifies a checkpoint on your own data: packing, trees, microbatches and caches must not change its numbers.

python -m flan_jax.verify --checkpoint=runs/first --prepared=prepared
python -m flan_jax.verify --checkpoint=models/flan-t5-small --prepared=prepared --huggingface=downloads/flan-t5-small
python -m flan_jax.verify --checkpoint=runs/first --prepared=prepared --checks=rows,trees --examples=4 --json

Each check prints a line: the largest difference, what is allowed, where it was, and how much was compared.

Exit status: 0 if all checks hold (a skipped check says why), 1 if one fails, 2 for bad input or if a check that was
asked for by name was skipped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from flan_jax import options
from flan_jax.data.mixture_stream import LENGTHS
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.json_lines import to_json
from flan_jax.lazy import lazy_imports
from flan_jax.values import LOSS_AVERAGES, TOKENS
from flan_jax.verification import checks
from flan_jax.verification.findings import FAILS, HOLDS, SKIPPED, Finding
from flan_jax.verification.request import Request

with lazy_imports():  # so that a wrong command line is reported at once
    from flan_jax.verification import subject as subjects


def verify(request: Request, names: Sequence[str] = ()) -> list[Finding]:
    """Runs the checks and prints a line for each.

    Args:
      request: what to verify, and on what.
      names: names of checks; by default all.

    Raises:
      FlanError: bad input, nothing could be checked, or a check that was asked for by name was skipped.
    """
    chosen = checks.chosen(names)
    subject = subjects.Subject(request)
    rows = f"rows of {subject.mixture.title} in {request.prepared}"
    print(f"{request.checkpoint} step {subject.step}; {rows}", flush=True)
    findings = []
    for finding in checks.run(subject, chosen):
        findings.append(finding)
        print(finding.line(), flush=True)
    counts = [sum(finding.status == status for finding in findings) for status in (HOLDS, FAILS, SKIPPED)]
    print("held: {}, failed: {}, skipped: {}".format(*counts), flush=True)
    return findings


def refuse_unverified(findings: Sequence[Finding], names: Sequence[str]) -> None:
    """Makes sure that what was asked for was really checked.

    Raises:
      FlanError: a check that was asked for by name was skipped, or all were.
    """
    skipped = [finding for finding in findings if finding.status == SKIPPED]
    if skipped and (names or len(skipped) == len(findings)):
        reasons = "; ".join(f"{finding.name}: {finding.reason}" for finding in skipped)
        raise FlanError(f"not everything that was asked for could be checked. {reasons}.")


def _split(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and runs the checks."""
    parser = options.Parser(
        prog="python -m flan_jax.verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Request("", "")
    parser.add_argument("--checkpoint", required=True, type=options.path, help="checkpoint folder")
    parser.add_argument("--step", type=options.count_or_none, help="step of the checkpoint; by default the last")
    parser.add_argument(
        "--prepared", required=True, type=options.path, help="PREPARED_DIR with the checkpoint's vocabulary"
    )
    parser.add_argument("--mixture", default="", help="mixture of the rows; by default the checkpoint's own, or flan")
    parser.add_argument("--datasets", default="", help="only these of its datasets, separated by commas")
    parser.add_argument(
        "--examples", type=options.count, default=default.examples, help="about how many examples each check compares"
    )
    parser.add_argument(
        "--seed", type=options.seed, default=default.seed, help="seed of the stream and of what is chosen"
    )
    parser.add_argument(
        "--microbatches",
        type=options.count,
        default=default.microbatches,
        help="microbatches of the gradient, one row each",
    )
    parser.add_argument(
        "--inputs", type=options.of(TOKENS), default=LENGTHS["inputs"], help="most tokens of inputs in a row"
    )
    parser.add_argument(
        "--targets", type=options.of(TOKENS), default=LENGTHS["targets"], help="most tokens of targets in a row"
    )
    parser.add_argument("--huggingface", type=options.path, help="a folder of transformers with the same model")
    parser.add_argument(
        "--attention", default="", help="how the checked side computes attention; by default the model's own way"
    )
    parser.add_argument(
        "--loss_averaging", default="", help=f"{' or '.join(LOSS_AVERAGES)}; by default as in its run.json"
    )
    parser.add_argument(
        "--checks", default="", help=f"only these checks, separated by commas: {', '.join(checks.CHECKS)}"
    )
    parser.add_argument("--tasks", **options.TASKS)
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    with one_line_errors():
        arguments = vars(parser.parse_args(argv))
        as_json, names, _ = arguments.pop("json"), _split(arguments.pop("checks")), arguments.pop("tasks")
        arguments["lengths"] = {name: arguments.pop(name) for name in ("inputs", "targets")}
        findings = verify(Request(**arguments | {"datasets": _split(arguments["datasets"])}), names)
        failed = any(finding.status == FAILS for finding in findings)
        if as_json:
            found = {finding.name: finding.to_dict() for finding in findings}
            print(to_json({"checkpoint": arguments["checkpoint"], "ok": not failed, "checks": found}))
        if failed:
            sys.exit(1)
        refuse_unverified(findings, names)


if __name__ == "__main__":
    main()

"""Scores clusters that a model never saw, by the likelihoods of the answer options.

python -m flan_jax.eval --gin_file=runs/eval.gin --gin.CHECKPOINT_PATH="'runs/without_nli'" \
  --gin.EVAL_OUTPUT_DIR="'runs/without_nli/nli'"
python -m flan_jax.eval --items=FILE.jsonl --checkpoint=FOLDER --output=SCORES.jsonl

On a pod the same command runs on every host; see `flan_jax.distributed`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin
from rich import progress as rich_progress
from rich.console import Console

from flan_jax import configuration, distributed, partitioning
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.evaluation import items, protocol, report
from flan_jax.evaluation.scoring import Scorer
from flan_jax.training import checkpoints


def evaluate(
    *,
    checkpoint_path: str,
    output_dir: str,
    prepared_dir: str,
    datasets: Sequence[str],
    step: int | None = None,
    run_name: str = "tuned",
    baseline_dir: str | None = None,
    baseline_name: str = "untuned",
    max_examples: int | None = None,
    max_dev_examples: int = 200,
    max_length: int = 1280,
    separator: str = "auto",
    style: str = "instructions",
    allow_seen: bool = False,
    mesh_shape: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Evaluates one checkpoint by the paper's protocol and writes results and report.

    In a pod every process calls this with the same arguments; each computes its share of every batch, and process 0
    writes.

    Args:
      checkpoint_path: a checkpoint folder (CHECKPOINT_PATH).
      output_dir: EVAL_OUTPUT_DIR; a job that was interrupted goes on there.
      prepared_dir: what `flan_jax.prepare` wrote.
      datasets: names of clusters and datasets.
      step: the checkpoint's step; None takes the last (the paper selects none).
      run_name: the run's name in the report.
      baseline_dir: the output of an earlier evaluation to show beside this one.
      baseline_name: its name.
      max_examples: test examples a dataset; None for all.
      max_dev_examples: dev examples a dataset.
      max_length: longest prompt with its longest option, in tokens.
      separator: "auto", "eos", "newline" or "space"; see `protocol.Settings`.
      style: how records become prompts, for example "instructions", "gpt3" or "5_shots" (`flan_jax.styles`).
      allow_seen: score datasets that are not held out too, labelled so.
      mesh_shape: sizes of the axes data, fsdp and tensor.

    Returns:
      The results, as in results.json.

    Raises:
      FlanError: bad input.
    """
    chosen = protocol.select(datasets)
    settings = protocol.Settings(max_examples, max_dev_examples, max_length, separator, style)
    mesh = partitioning.make_mesh(**(mesh_shape or {}))
    network, params, tokenizer, manifest = checkpoints.load_model(checkpoint_path, step=step, mesh=mesh)
    taken = checkpoints.latest_step(checkpoint_path) if step is None else step
    baseline = [report.load_run(baseline_name, baseline_dir)] if baseline_dir else []
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    primary = distributed.is_primary()
    with rich_progress.Progress(*columns, disable=not primary) as bar:
        task = bar.add_task("scoring", total=None)

        def show(unit: str, done: int, total: int) -> None:
            bar.update(task, description=unit, completed=done, total=total)
            if primary and not bar.console.is_terminal:
                print(f"[{done}/{total}] {unit}", flush=True)

        results = protocol.evaluate(
            Scorer(network, params, mesh=mesh),
            tokenizer,
            manifest,
            f"{Path(checkpoint_path).name} step {taken}",
            chosen,
            prepared_dir,
            output_dir,
            settings,
            allow_seen=allow_seen,
            progress=show,
        )
    if primary:
        runs = [*baseline, report.Run(run_name, results)]
        paths = report.write(runs, output_dir)
        Console(width=200).print(report.rich_table(runs))
        print(f"report: {paths['html']}")
    return results


gin.external_configurable(evaluate, "evaluate")


def _score_items(arguments: argparse.Namespace) -> None:
    if not arguments.checkpoint or not arguments.output:
        raise FlanError("--items needs --checkpoint=FOLDER and --output=FILE.jsonl.")
    mesh = partitioning.make_mesh()
    network, params, tokenizer, _ = checkpoints.load_model(arguments.checkpoint, mesh=mesh)
    count = items.score_items(arguments.items, arguments.output, Scorer(network, params, mesh=mesh), tokenizer)
    if distributed.is_primary():
        print(json.dumps({"items": count, "output": arguments.output}) if arguments.json else f"{count} items scored")


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line; scores plain items, or evaluates as gin says."""
    parser = argparse.ArgumentParser(
        prog="python -m flan_jax.eval",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--gin_file=FILE and --gin.NAME=VALUE configure the job; macros are listed in the file.",
    )
    parser.add_argument("--items", help='JSONL of {"id", "prompt", "options"}')
    parser.add_argument("--checkpoint", help="checkpoint folder, with --items")
    parser.add_argument("--output", help="JSONL of log-likelihoods to write, with --items")
    parser.add_argument("--allow_seen", action="store_true", help="score datasets that are not held out, labelled so")
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object, last line")
    distributed.add_arguments(parser)
    with one_line_errors():
        files, bindings, rest = configuration.split_arguments(sys.argv[1:] if argv is None else argv)
        arguments = parser.parse_args(rest)
        with distributed.pod(arguments):
            if arguments.items:
                _score_items(arguments)
                return
            configuration.parse(files or ["runs/eval.gin"], bindings)
            extra = {"allow_seen": True} if arguments.allow_seen else {}
            results = gin.get_configurable("evaluate")(**extra)
            if arguments.json and distributed.is_primary():
                print(json.dumps(results))


if __name__ == "__main__":
    main()

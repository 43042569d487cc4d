r"""Scores clusters that a model has never seen, by the likelihoods of the answer options.

python -m flan_jax.eval --gin_file=runs/eval.gin --gin.CHECKPOINT_PATH="'runs/without_nli'" \
  --gin.EVAL_OUTPUT_DIR="'runs/without_nli/nli'" --gin.PREPARED_DIR="'prepared'"
python -m flan_jax.eval --items=FILE.jsonl --checkpoint=FOLDER --output=SCORES.jsonl

On a pod, run the same command on every host; see `flan_jax.distributed`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gin
from rich import progress as rich_progress
from rich.console import Console

from flan_jax import configuration, distributed, gin_files, macro_checks, options, output, protocol
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.files import user_path
from flan_jax.json_lines import to_json
from flan_jax.lazy import lazy_imports
from flan_jax.splits import DEV_SIZE
from flan_jax.values import WEIGHTS
from flan_jax.wording import counted

with lazy_imports():  # so that a wrong command line is reported at once
    from flan_jax import partitioning, reporting
    from flan_jax.checkpoint import arrays
    from flan_jax.checkpoint import manifest as manifests
    from flan_jax.data import drafts, line_tokens
    from flan_jax.evaluation import evaluator, jobs
    from flan_jax.models import automatic
    from flan_jax.scoring import items, scorer
    from flan_jax.training import notices
    from flan_jax.training.hooks import progress


def _name(checkpoint_path: str | Sequence[str] | Mapping[str, str]) -> str:
    """What a run is called where nobody says it: by what its checkpoints' manifests say."""
    several = checkpoint_path.values() if isinstance(checkpoint_path, Mapping) else checkpoint_path
    paths = [checkpoint_path] if isinstance(checkpoint_path, str) else list(several)
    found = {manifests.Manifest.load(path).tuning["status"] for path in paths}
    return "untuned" if found == {manifests.UNTUNED} else "model" if manifests.UNKNOWN in found else "tuned"


@macro_checks.checked
def evaluate(
    *,
    checkpoint_path: str | Sequence[str] | Mapping[str, str],
    output_dir: str,
    prepared_dir: str,
    datasets: Sequence[str] | None,
    step: int | str | None = None,
    parameters: str = WEIGHTS[0],
    run_name: str | None = None,
    baseline_dir: str | None = None,
    baseline_name: str = "untuned",
    max_examples: int | None = None,
    max_dev_examples: int = DEV_SIZE,
    max_input_tokens: int | None = None,
    max_new_tokens: int | None = None,
    joint: str = protocol.AUTO,
    style: str | Sequence[str] = "instructions",
    seeds: Sequence[int] = (0,),
    ways: Sequence[str] | None = None,
    generate: bool = True,
    allow_seen: bool = False,
    contamination: str | None = None,
    computation: Mapping[str, Any] | str | None = None,
    mesh_shape: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Evaluates checkpoints by the paper's protocol, and writes results and a report.

    Args:
      checkpoint_path: a checkpoint folder (CHECKPOINT_PATH), several of them, or {cluster: folder}.
      output_dir: EVAL_OUTPUT_DIR. An interrupted evaluation continues there.
      prepared_dir: the folder that `flan_jax.prepare` wrote.
      datasets: names of clusters and datasets; None for all that the checkpoint holds out.
      step: the checkpoint's step. None takes the last one, as the paper does; "all" takes each saved step; "follow"
        takes each step that a running training saves, until that run ends.
      parameters: which weights of a checkpoint: the last ones ("params"), or their mean over steps ("ema").
      run_name: the run's name in the report; None for "untuned", "tuned" or "model", as its manifest says.
      baseline_dir: the output of an earlier evaluation, shown beside this one.
      baseline_name: the name of that evaluation in the report.
      max_examples: test examples of each dataset; None for all.
      max_dev_examples: dev examples of each dataset.
      max_input_tokens: longest prompt with its exemplars, in tokens (None: 1,024). Fields of longer prompts are cut.
      max_new_tokens: longest generated answer, in tokens; None takes the limit of the dataset's metric.
      joint: what stands between prompt and answer: "auto", "eos", "newline", "space" or "joined" (`flan_jax.protocol`).
      style: how records become prompts, for example "instructions", "gpt3" or "5_shots" (`flan_jax.styles`). Several
        styles give one run each.
      seeds: seeds of exemplars and shuffled options. If a style draws either, there is one run for each seed, and the
        report shows their mean and standard deviation.
      ways: further ways to score options, "pmi" and "channel" (`flan_jax.ways`). They cost more.
      generate: whether to evaluate datasets without options too, by the text that the model generates.
      allow_seen: whether to score datasets that are not held out too. They are labelled as seen.
      contamination: the file that `flan_jax.contamination` wrote. It adds scores on clean examples.
      computation: fields of `models.config.COMPUTATION` that differ from the model's own; "auto" lets
        `models.automatic` choose.
      mesh_shape: sizes of the mesh axes data, fsdp and tensor.

    Returns:
      The results of the last run, as in results.json.

    Raises:
      FlanError: bad input.
    """
    styles = tuple(style)
    protocol.joint(None, False, joint)
    if contamination is not None and not user_path(contamination).is_file():
        raise FlanError(f"no file {contamination}: CONTAMINATION is what python -m flan_jax.contamination wrote.")
    settings = evaluator.Settings(
        max_examples,
        max_dev_examples,
        max_input_tokens=max_input_tokens,
        joint=joint,
        max_new_tokens=max_new_tokens,
        ways=tuple(ways or ()),
        computation=automatic.asked(computation),
    )
    mesh = partitioning.make_mesh(**(mesh_shape or {}))
    baseline = [reporting.load_run(baseline_name, baseline_dir)] if baseline_dir else []
    finished: list[reporting.Run] = []
    groups: dict[str, list[str]] = {}  # runs that differ only in their seed
    failed: list[evaluator.NoResultError] = []  # runs whose checkpoint gave NaN or infinity

    def planned(step: int | str | None) -> list[jobs.Run]:
        name = _name(checkpoint_path) if run_name is None else run_name
        if baseline_dir and name == baseline_name:
            raise FlanError(f"the evaluated run and the one in {baseline_dir} are both called {name!r}: give RUN_NAME.")
        runs = jobs.plan(checkpoint_path, step, datasets, output_dir, name, settings, styles, tuple(seeds))
        if not user_path(prepared_dir).is_dir():
            raise FlanError(f"no folder {prepared_dir}: PREPARED_DIR is what python -m flan_jax.prepare wrote.")
        return [dataclasses.replace(run, which=parameters) for run in runs]

    def work(runs: Sequence[jobs.Run]) -> None:
        for run in runs:
            try:
                with _progress(run.name) as show, notices.finishing("the evaluation ends after this unit") as ending:
                    how: dict[str, Any] = {"allow_seen": allow_seen, "generate": generate}
                    results = jobs.evaluate(run, prepared_dir, mesh, ending=ending, progress=show, **how)
            except evaluator.NoResultError as error:
                failed.append(error)
                continue
            finished.append(reporting.Run(run.name, results, run.output_dir))
            if run.group:
                groups.setdefault(run.group, []).append(run.name)
        if not finished:
            raise failed[0]
        if distributed.is_primary():
            together = {
                name: names
                for name, names in groups.items()
                if len(names) > 1 and reporting.have_spread([run for run in finished if run.name in names])
            }
            console = Console(width=output.width(200), markup=False, emoji=False, highlight=False)
            paths = reporting.write([*baseline, *finished], output_dir, contamination, together, console.print)
            for failure in failed:
                print(failure)
            for done in finished:
                if draft := drafts.said_of(done.results):
                    print(f"{done.name} was tuned on {draft}")
                for one in done.results["invalid"]:
                    print(f"{done.name}: {one['dataset']} has no result: {one['reason']}")
                invalid = {one["dataset"] for one in done.results["invalid"]}
                others = [one for one in done.results["skipped"] if one["dataset"] not in invalid]
                for line in reporting.skipped(others):
                    print(f"{done.name} skipped {line}")
            print(f"report: {paths['html']}", flush=True)

    if step != jobs.FOLLOW:
        work(planned(step))
    else:
        jobs.follow(checkpoint_path[0], lambda saved: work([jobs.of_step(run, saved) for run in planned(saved)]))
    return dict(finished[-1].results)


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar in a terminal; elsewhere one line for each unit of work."""
    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        progress.TimeLeft(),
    )
    primary = distributed.is_primary()
    with rich_progress.Progress(*columns, disable=not primary) as bar:
        task = bar.add_task(name, total=None)

        def show(unit: str, done: int, total: int) -> None:
            bar.update(task, description=f"{name}: {unit}", completed=done, total=total)
            if primary and not bar.console.is_terminal:
                print(f"[{done}/{total}] {name}: {unit}", flush=True)

        yield show


gin.external_configurable(evaluate, "evaluate")


def _score_items(arguments: argparse.Namespace) -> None:
    if not arguments.checkpoint or not arguments.output:
        raise FlanError("--items needs --checkpoint=FOLDER and --output=FILE.jsonl.")
    protocol.joint(None, False, arguments.joint)  # before the model is read, so that a wrong name is found at once
    mesh = partitioning.make_mesh()
    network, params, tokenizer, manifest = arrays.load_model(
        arguments.checkpoint, arguments.step, mesh, which=arguments.which
    )
    engine = scorer.Scorer(network, params, mesh=mesh)
    joint = protocol.joint(manifest.separator, engine.has_encoder, arguments.joint, otherwise=protocol.JOINED)
    primary = distributed.is_primary()
    if primary:
        print(protocol.joint_line(joint, arguments.joint), flush=True)
    tokenizer = line_tokens.LineTokenizer(tokenizer)
    done = items.score_items(arguments.items, arguments.output, engine, tokenizer, joint)
    if primary:
        failed = f", {done.errors} of {done.items} have an error" if done.errors else ""
        about = {"items": done.items, "errors": done.errors, "joint": joint, "output": arguments.output}
        print(
            to_json(about) if arguments.json else f"{counted(done.items - done.errors, 'items')} scored{failed}",
            flush=True,
        )
    if done.errors:
        raise FlanError(
            f"{done.errors} of {counted(done.items, 'items')} cannot be scored: their lines of {arguments.output} say "
            "why; the others are scored."
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line; then scores plain items, or evaluates as gin says."""
    parser = options.Parser(
        prog="python -m flan_jax.eval",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--gin_file=FILE and --gin.NAME=VALUE configure the evaluation; runs/eval.gin lists the macros.",
    )
    parser.add_argument(
        "--items", type=options.path, help='score the items in a JSONL file of {"id", "prompt", "options"}'
    )
    parser.add_argument("--checkpoint", type=options.path, help="with --items: the checkpoint folder")
    parser.add_argument(
        "--step", type=options.count_or_none, help="with --items: the checkpoint's step; by default the last"
    )
    options.add_parameters(parser)
    parser.add_argument("--output", type=options.path, help="with --items: the JSONL file of log-likelihoods to write")
    parser.add_argument(
        "--joint",
        default=protocol.AUTO,
        help=f"between prompt and option, with --items: {', '.join(protocol.JOINTS)}; auto takes the checkpoint's",
    )
    parser.add_argument(
        "--allow_seen", action="store_true", help="score datasets that are not held out too; they are labelled as seen"
    )
    parser.add_argument("--tasks", **options.TASKS)
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object, last line")
    distributed.add_arguments(parser)
    with one_line_errors():
        files, bindings, rest = configuration.split_arguments(sys.argv[1:] if argv is None else argv)
        arguments = parser.parse_args(rest)
        with distributed.pod(arguments):
            if arguments.items:
                _score_items(arguments)
                return
            if arguments.which != WEIGHTS[0]:
                raise FlanError(
                    f"--parameters goes with --items: without it, give --gin.PARAMETERS=\"'{arguments.which}'\"."
                )
            configuration.parse(files or [gin_files.EVALUATION], bindings)
            extra = {"allow_seen": True} if arguments.allow_seen else {}
            # In the main thread Python would drop Ctrl-C where it comes while JAX collects garbage.
            with notices.listening((signal.SIGINT,), "stopped; the same command goes on after what is done"):
                try:
                    results = gin.get_configurable("evaluate")(**extra)
                except evaluator.BrokenOffError as error:
                    line = str(error).partition("\n")[0].rstrip(".")
                    print(f"flan_jax: {line}; the same command goes on after what is done.", file=sys.stderr)
                    sys.exit(notices.BROKEN_OFF)
            if arguments.json and distributed.is_primary():
                print(to_json(results))


if __name__ == "__main__":
    main()

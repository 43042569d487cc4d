"""The whole of FLAN in minutes: `python -m flan_jax.quickstart`.

Prepares data, evaluates the untuned model on NLI, tunes it on every other cluster, evaluates again and writes the
report. By default on the bundled samples, with Gemma 3 270M where the extra `quickstart` is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from flan_jax import catalog, options
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.files import AnyPath, user_path
from flan_jax.json_lines import to_json
from flan_jax.values import Number

MIXTURE = "flan_without_nli"
CLUSTER = "nli"
GEMMA = "gemma3-270m"
TINY = "tiny"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the quickstart; each stage is one of the binaries, called as a user would."""
    parser = options.Parser(prog="python -m flan_jax.quickstart", description=__doc__)
    parser.add_argument(
        "--data", default="samples", type=options.path, help="samples, tfds, or a folder of JSONL in TFDS's field names"
    )
    parser.add_argument("--model", default="", help=f"{GEMMA}, {TINY}, a GGUF file, or a checkpoint folder")
    parser.add_argument(
        "--steps", type=options.count_or_none, default=0, help="tuning steps (default: 8, tiny model: 200)"
    )
    parser.add_argument(
        "--batch_size", type=options.count, default=2, help="rows of 1,280 slots a step, rounded up to the devices"
    )
    parser.add_argument(
        "--learning_rate",
        type=options.of(Number(least=0, most=1000)),
        default=0,
        help="default: 3e-4, tiny model: 1e-2",
    )
    parser.add_argument(
        "--max_examples",
        type=options.count_or_none,
        default=0,
        help="test and dev examples a dataset (default: 5 of the samples, 50 of other data)",
    )
    parser.add_argument("--to", default="runs/quickstart", type=options.path, help="where everything is written")
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object, last line")
    with one_line_errors():
        arguments = parser.parse_args(argv)
        results = run(arguments)
        if arguments.json:
            print(to_json(results))


def run(arguments: argparse.Namespace) -> dict:
    """Prepares, evaluates, tunes, evaluates again; returns the last report's results.

    Raises:
      FlanError: bad input of any stage.
    """
    say = Console(highlight=False).print
    began = time.time()

    def stage(text: str) -> None:
        say(f"[bold]{(time.time() - began) / 60:5.1f} min[/bold]  {text}")

    to = user_path(arguments.to, "--to")
    max_examples = arguments.max_examples or (5 if arguments.data == "samples" else 50)
    start, tiny = _start(arguments, to, stage)
    vocabulary = str(start / "vocabulary")
    prepared = to / "prepared"

    stage(f"prepare: {arguments.data} rendered and tokenized into {prepared}")
    names = ",".join(dict.fromkeys(d.name for d in (*catalog.mixture(MIXTURE), *catalog.datasets(CLUSTER))))
    _in_process(
        "prepare",
        f"--data={arguments.data}",
        f"--datasets={names}",
        f"--vocabulary={vocabulary}",
        f"--to={prepared}",
    )

    def evaluate(checkpoint: AnyPath, output: AnyPath, name: str, baseline: AnyPath | None = None) -> None:
        _in_process(
            "eval",
            "--gin_file=runs/eval.gin",
            f"--gin.CHECKPOINT_PATH={str(checkpoint)!r}",
            f"--gin.EVAL_OUTPUT_DIR={str(output)!r}",
            f"--gin.PREPARED_DIR={str(prepared)!r}",
            f"--gin.RUN_NAME={name!r}",
            "--gin.BASELINE_NAME='before'",
            f"--gin.BASELINE_DIR={str(baseline) if baseline else None!r}",
            f"--gin.DATASETS=({CLUSTER!r},)",
            f"--gin.MAX_EXAMPLES={max_examples}",
            f"--gin.MAX_DEV_EXAMPLES={max_examples}",
            "--allow_seen",  # a checkpoint of unknown history may be given; the report labels it
        )

    stage(f"evaluate: {CLUSTER} before tuning")
    evaluate(start, to / "eval_before", "before")
    steps = arguments.steps or (200 if tiny else 8)
    devices = _devices()
    rows = -(-arguments.batch_size // devices) * devices  # which all devices share
    stage(f"tune: {steps} steps of {rows} rows on {MIXTURE}")
    _in_process(
        "train",
        f"--gin_file=runs/{MIXTURE}.gin",
        f"--gin.MODEL_DIR={str(to / 'tuned')!r}",
        f"--gin.PREPARED_DIR={str(prepared)!r}",
        f"--gin.INITIAL_CHECKPOINT_PATH={str(start)!r}",
        f"--gin.TRAIN_STEPS={steps}",
        f"--gin.BATCH_SIZE={rows}",
        f"--gin.LEARNING_RATE={arguments.learning_rate or (1e-2 if tiny else 3e-4)}",
        f"--gin.LOG_PERIOD={10 if tiny else 1}",
    )
    stage(f"evaluate: {CLUSTER} after tuning, never seen in it")
    evaluate(to / "tuned", to / "eval_after", "after", to / "eval_before")
    stage(f"done: {to / 'eval_after' / 'report.html'}")
    if arguments.data == "samples":
        say("The bundled samples are a handful of records a dataset: these figures show that it runs, no more.")
    return json.loads((to / "eval_after" / "results.json").read_text())


def _start(arguments: argparse.Namespace, to: AnyPath, stage) -> tuple[AnyPath, bool]:
    """The checkpoint folder to start from, and whether it is the tiny random model."""
    from flan_jax.formats import pretrained

    wanted = arguments.model
    if not wanted:
        try:
            pretrained.locate(GEMMA)
            wanted = GEMMA
        except FlanError as error:
            stage(f"model: a tiny random one, which learns nothing worth reporting. {error}")
            wanted = TINY
    if (user_path(wanted) / "manifest.json").exists():
        return user_path(wanted), False
    folder = to / "start"
    if (folder / "manifest.json").exists():
        stage(f"model: {folder} from an earlier quickstart")
        return folder, wanted == TINY
    stage(f"model: {wanted} converted to {folder}")
    tuning = "untuned" if wanted in (GEMMA, TINY) else "unknown"
    _in_process("convert", f"--from={wanted}", f"--to={folder}", f"--tuning={tuning}")
    return folder, wanted == TINY


def _devices() -> int:
    """How many devices training will have. JAX is asked in a process of its own: here it would hold their memory."""
    command = [sys.executable, "-c", "import jax; print(jax.device_count())"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.split()
    return int(lines[-1]) if lines and lines[-1].isdecimal() else 1


def _in_process(binary: str, *arguments: str) -> None:
    """Runs one of the binaries in a process of its own, so that TensorFlow stays in `prepare`.

    Raises:
      SystemExit: it failed; it has printed its own line.
    """

    done = subprocess.run([sys.executable, "-m", f"flan_jax.{binary}", *arguments], env=os.environ, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()

"""A first study in a few minutes.

python -m flan_jax.quickstart

It takes Gemma 3 270M and asks it to make sentences of given words. Then it tunes the model on the bundled samples of
all other clusters, asks again, and draws what has changed. It is the same as `python -m flan_jax.study` with
gin/studies/quickstart.gin.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from flan_jax import configuration, options, study
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.formats.names import GEMMA
from flan_jax.json_lines import to_json
from flan_jax.quiet import quiet_loggers

FILE = "studies/quickstart.gin"
_TINY = "tiny"


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and runs the study."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = options.Parser(
        prog="python -m flan_jax.quickstart", description=__doc__, formatter_class=options.AsWritten
    )
    parser.add_argument(
        "--data", default="samples", type=options.data, help="samples, tfds, or a folder of JSONL in TFDS's field names"
    )
    parser.add_argument("--model", default="", help=f"{GEMMA}, {_TINY}, or a checkpoint folder")
    parser.add_argument("--steps", type=options.count_or_none, help="tuning steps, in place of those in the gin file")
    parser.add_argument("--max_examples", type=options.count, help="test examples, in place of those in the gin file")
    parser.add_argument(
        "--to", default="runs/quickstart", type=options.path, help="folder for everything that is written"
    )
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object, last line")
    quiet_loggers()
    with one_line_errors():
        _, bindings, rest = configuration.split_arguments(given)
        arguments = parser.parse_args(rest)
        results = run(arguments, bindings, given)
        if arguments.json:
            print(to_json(results))


def run(arguments: argparse.Namespace, bindings: Sequence[str], given: Sequence[str]) -> dict[str, Any]:
    """Runs the study.

    Returns:
      What the study's study.json holds.

    Raises:
      FlanError: bad input of any step.
    """
    began = time.time()
    model = arguments.model or _model()
    own = [f"STUDY_DIR = {arguments.to!r}", f"DATA = {arguments.data!r}", f"MODELS = ({model!r},)"]
    train: dict[str, Any] = {"TRAIN_STEPS": arguments.steps} if arguments.steps else {}
    if model == _TINY:  # its vocabulary is bytes, so texts are four times as long
        train |= {"TASK_FEATURE_LENGTHS": None, "BATCH_SIZE": 1}
    settings = study.settings_of(
        [FILE],
        [*own, *bindings],
        train,
        {"MAX_EXAMPLES": arguments.max_examples} if arguments.max_examples else None,
    )
    found = study.run(settings, ["python", "-m", "flan_jax.quickstart", *given])
    print(f"{(time.time() - began) / 60:.1f} minutes; the same again: {shlex.join(found['again'])}")
    if model == _TINY:
        print("This was a random model, which learns nothing worth reporting.")
    return found


def _model() -> str:
    """The packaged model, if it is installed."""
    from flan_jax.formats import pretrained

    try:
        pretrained.locate(GEMMA)
        return GEMMA
    except FlanError as error:
        print(f"a tiny random model, which learns nothing worth reporting: {error}")
        return _TINY


if __name__ == "__main__":
    main()

r"""Tunes a model.

python -m flan_jax.train --gin_file=runs/flan_without_nli.gin --gin.MODEL_DIR="'runs/first'" \
  --gin.PREPARED_DIR="'prepared'" --gin.INITIAL_CHECKPOINT_PATH="'models/gemma3-270m'"

--gin.EVAL_PERIOD=1000 also evaluates during training, on dev examples only; DATASETS, MAX_DEV_EXAMPLES, STYLE,
GENERATE and MAX_NEW_TOKENS say how.

On a pod, run the same command on every host; see `flan_jax.distributed`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import gin

from flan_jax import configuration, distributed, macros, options
from flan_jax.errors import one_line_errors
from flan_jax.json_lines import finite, to_json


def _evaluation() -> Any:
    """The hook that evaluates during training, as its macros say; None without EVAL_PERIOD."""
    declared = configuration.declared_macros()
    if "EVAL_PERIOD" not in declared or configuration.macro("EVAL_PERIOD") is None:
        return None
    from flan_jax.evaluation import during_training

    arguments = {argument: setting.macro for argument, setting in macros.BY_ARGUMENT.items() if setting.macro}
    own = {a.partition(".")[2]: m for a, m in arguments.items() if a.startswith("evaluating.") and m in declared}
    return during_training.evaluating(**{name: configuration.macro(macro) for name, macro in own.items()})


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and the gin files, then runs `loop.train`."""
    parser = options.Parser(
        prog="python -m flan_jax.train",
        formatter_class=options.AsWritten,
        description=__doc__,
        epilog="--gin_file=FILE (repeatable) and --gin.NAME=VALUE configure the run; runs/tune.gin lists the macros.",
    )
    parser.add_argument("--tasks", **options.TASKS)
    parser.add_argument("--json", action="store_true", help="print the last step's figures as one JSON object")
    distributed.add_arguments(parser)
    with one_line_errors():
        files, bindings, rest = configuration.split_arguments(sys.argv[1:] if argv is None else argv)
        arguments = parser.parse_args(rest)
        from flan_jax.training import configurables, notices  # noqa: F401 - what a run file configures

        with notices.listening() as listener, distributed.pod(arguments), listener.joined():
            configuration.parse(files or ["runs/flan_without_nli.gin"], bindings)
            result = gin.get_configurable("train")(config_text=gin.config_str(), evaluation=_evaluation())
            if arguments.json and distributed.is_primary():
                # Some figures of a skipped batch are not finite.
                print(to_json(finite({"step": result.step, **result.metrics})))
            if result.status:
                sys.exit(result.status)


if __name__ == "__main__":
    main()

"""lm-evaluation-harness with FLAN-JAX checkpoints as its model `flan_jax` (extra `lm_eval`).

python -m flan_jax.lm_eval --model_args checkpoint=FOLDER,max_length=2048 --tasks hellaswag --num_fewshot 5

Everything else is the harness's own command line: `python -m flan_jax.lm_eval --help`, `... ls tasks`. The harness
finds models by name in a registry. This module registers ours and then calls the harness.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from flan_jax import options
from flan_jax.errors import FlanError, one_line_errors

_COMMANDS = ("run", "ls", "validate")


def with_model(arguments: Sequence[str]) -> list[str]:
    """The harness's arguments, with `--model flan_jax` added if they name no model."""
    named = any(a.partition("=")[0] in ("--model", "-M", "--config", "-C") for a in arguments)
    wants_help = _wants_help(arguments)
    command = arguments[0] if arguments and arguments[0] in _COMMANDS else "run"
    if named or wants_help or not arguments or command != "run":
        return list(arguments)
    rest = arguments[1:] if arguments[0] == "run" else arguments
    return ["run", "--model", "flan_jax", *rest]


def _wants_help(arguments: Sequence[str]) -> bool:
    return any(a in ("-h", "--help") for a in arguments)


def main(argv: Sequence[str] | None = None) -> None:
    """Registers the model and calls the harness."""
    with one_line_errors():
        try:
            from lm_eval.__main__ import cli_evaluate
            from lm_eval.api import registry
        except ModuleNotFoundError as error:
            missing = str(error.name).partition(".")[0]
            if _wants_help(sys.argv[1:] if argv is None else argv):
                print(options.as_started(__doc__ or ""))
                print(f"{missing} is not installed, which has the other options: pip install -e '.[lm_eval]'.")
                return
            raise FlanError(f"{missing} is not installed: pip install -e '.[lm_eval]'.") from error
        if "flan_jax" not in registry.model_registry:  # the harness imports it when it makes a model
            registry.model_registry.register("flan_jax", target="flan_jax.lm_eval.model:FlanJaxLM")
        given = sys.argv[1:] if argv is None else argv
        if _wants_help(given):  # the harness's help knows nothing of this model
            print(options.as_started(__doc__ or ""))
        sys.argv = ["lm-eval", *with_model(given)]
        try:
            cli_evaluate()
        except ValueError as error:
            if "tasks not found" not in str(error).lower():
                raise
            raise FlanError(f"{error}; python -m flan_jax.lm_eval ls tasks lists the harness's own.") from error
        except OSError as error:  # `datasets` says so where there is no network
            if error.errno is not None or "reach" not in str(error):
                raise
            raise FlanError(
                f"the data of a task cannot be had: {error}; connect to a network, or write a task over local files "
                "and give its folder by --include_path."
            ) from error


if __name__ == "__main__":
    main()

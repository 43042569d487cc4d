"""The command `flan-jax`: `flan-jax train ...` is the same as `python -m flan_jax.train ...`."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

import flan_jax
from flan_jax import options
from flan_jax.errors import one_line_errors, unknown_name

# The order of the help follows the order of the work. `flan-jax NAME` runs the module flan_jax.NAME.
COMMANDS = {
    "first": {"quickstart": "tune a real model in minutes, and score a cluster that it never saw"},
    "data": {
        "browse": "show datasets, templates, mixtures, examples, packed rows and runs",
        "prepare": "render and tokenize datasets, your own too",
        "export": "write the text of a task or a mixture as JSON lines",
    },
    "models": {
        "convert": "import and export weights: Hugging Face, GGUF, T5X",
        "infer": "ask a model",
        "verify": "check a model, its data and this program against each other",
    },
    "training": {
        "precompile": "plan a run for a TPU slice, without one",
        "train": "tune a model",
    },
    "evaluation": {
        "eval": "score datasets and clusters",
        "report": "compare evaluations, as Markdown, JSON and a page",
        "audit": "say what of an evaluation a model or a mixture has seen",
        "contamination": "find test examples whose text is in a corpus",
        "lm_eval": "run lm-evaluation-harness on a checkpoint (extra lm_eval)",
    },
    "experiments": {"study": "run an experiment of the paper, to its tables and figures"},
    "many machines": {
        "launch.local_pod": "try a pod here: several processes, on CPU",
        "launch.sweep": "plan trainings and evaluations as units, and run them here",
        "launch.tpu_vm": "run on TPU virtual machines, which are made and deleted",
        "launch.gke": "write manifests for TPU slices of Kubernetes",
        "launch.xm_launch": "run as an XManager experiment (extra xmanager)",
    },
}
SHELLS = ("bash", "zsh")

# The options are read from each command's own help, so that they are written down in one place.
_COMPLETION = """\
_flan_jax() {
  local word=${COMP_WORDS[COMP_CWORD]} known
  if [ "$COMP_CWORD" -eq 1 ]; then
    known="COMMANDS --help --version --completion="
  elif [[ $word == --gin* ]]; then
    known="--gin_file= MACROS"
  elif [[ $word == -* ]]; then
    known=$(flan-jax "${COMP_WORDS[1]}" --help 2> /dev/null | sed -nE 's/^ +(-., )?(--[a-z_]+).*/\\2/p')
  fi
  COMPREPLY=($(compgen -W "$known" -- "$word"))
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != *= ]]; then COMPREPLY=("${COMPREPLY[0]} "); fi
}
complete -o default -o nospace -F _flan_jax flan-jax
"""


def completion(shell: str) -> str:
    """A shell script that completes commands, options and macros.

    A user loads it with `eval "$(flan-jax --completion=bash)"`.

    Args:
      shell: one of `SHELLS`.
    """
    from flan_jax import macros

    names = [name for group in COMMANDS.values() for name in group]
    bound = [f"--gin.{setting.macro}=" for setting in macros.BY_ARGUMENT.values() if setting.macro]
    script = _COMPLETION.replace("COMMANDS", " ".join(names)).replace("MACROS", " ".join(sorted(set(bound))))
    return ("autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "") + script


def _listed() -> str:
    width = max(len(name) for group in COMMANDS.values() for name in group)
    lines = []
    for title, group in COMMANDS.items():
        lines += ["", f"{title}:", *(f"  {name:{width}}  {what}" for name, what in group.items())]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names, and passes it the other arguments."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["help"]:  # as git has it: flan-jax help, flan-jax help train
        given = [*given[1:2], "--help"]
    with one_line_errors(only_shows=True):
        if not given or given[0].startswith("-"):
            parser = options.Parser(
                prog="flan-jax",
                usage="flan-jax COMMAND [OPTION ...]",
                description="FLAN-JAX tunes language models on instructions, and scores them on tasks that they never "
                "saw.\n" + _listed(),
                epilog="flan-jax COMMAND --help lists the options of a command.",
                formatter_class=options.AsWritten,
            )
            parser.add_argument("--version", action="version", version=f"flan-jax {flan_jax.__version__}")
            parser.add_argument(
                "--completion",
                choices=SHELLS,
                help='print the completion for a shell: eval "$(flan-jax --completion=bash)"',
            )
            arguments = parser.parse_args(given or ["--help"])
            print(completion(arguments.completion), end="")
            return
        command, *rest = given
        known = [name for group in COMMANDS.values() for name in group]
        if command not in known:
            raise unknown_name("command", command, known, "flan-jax --help lists them.")
    sys.argv = [command, *rest]
    runpy.run_module(f"flan_jax.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

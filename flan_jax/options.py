"""Command-line options: checked by the kinds of `flan_jax.values`, with errors in one line."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from flan_jax import own_tasks, values
from flan_jax.errors import FlanError
from flan_jax.values import MESH_AXES, OUR_DATA, OUR_VOCABULARIES, SEEDS, Kind, Number, Unfit, Where, Whole, Word

_MODULE = "python -m flan_jax."
AsWritten = argparse.RawDescriptionHelpFormatter  # keeps the line breaks of a description


def as_started(text: str) -> str:
    """Writes the commands in a text as this program was started: as `flan-jax train` or `python -m flan_jax.train`."""
    started = Path(sys.orig_argv[1]).stem if len(sys.orig_argv) > 1 else ""
    return text.replace(_MODULE, "flan-jax ") if started == "flan-jax" else text


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line on standard error with near matches. The exit status is then 2.

    Options must be written in full. The beginning of a name could mean another option than the user thought.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        shown = {name: as_started(text) for name, text in options.items() if isinstance(text, str)}
        super().__init__(*arguments, **{"allow_abbrev": False, **options, **shown})

    def error(self, message: str) -> NoReturn:
        """Prints the message as one line and ends the program with status 2."""
        head, _, rest = message.partition("unrecognized arguments: ")
        if not head and rest:
            first = (rest.split() or [""])[0].partition("=")[0]
            known = [name for name in self._option_string_actions if name.startswith("--")]
            near = difflib.get_close_matches(first, known, n=2, cutoff=0.6)
            message += "" if rest.strip() else f"{rest!r}"
            message += f": did you mean {' or '.join(near)}?" if near else ""
        print(f"flan_jax: {' '.join(message.split()).rstrip('.')}; see {self.prog} --help.", file=sys.stderr)
        sys.exit(2)


def of(kind: Kind) -> Callable[[str], Any]:
    """The `type` of an option whose value must fit a kind.

    Example:
      >>> of(Whole(1))("1e3")
      1000
    """

    def parsed(text: str) -> Any:
        value: Any = text
        if isinstance(kind, Whole | Number):
            try:
                value = int(text)
            except ValueError:
                try:
                    value = float(text)
                except ValueError:
                    value = text
        try:
            return kind.fit(value)
        except (Unfit, FlanError) as error:
            said = str(error).rstrip(".") or f"it has to be {kind.wanted}"
            shown = text if text and text.isprintable() and len(text) < 100 else repr(text)[:100]
            raise argparse.ArgumentTypeError(f"{shown}: {said}") from error

    return parsed


def mesh_sizes(text: str, example: str = "data=2,tensor=4") -> dict[str, int]:
    """Sizes of mesh axes from a text such as "data=2,tensor=4"; an empty text gives {}.

    Raises:
      FlanError: another axis, one that is there twice, or a size that is no whole number.

    >>> mesh_sizes("data=-1,tensor=4")
    {'data': -1, 'tensor': 4}
    """
    sizes: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, size = part.partition("=")
        if name not in MESH_AXES or name in sizes or not re.fullmatch("-?[0-9]{1,9}", size):
            raise FlanError(f"--mesh={text}: write sizes of data, fsdp and tensor, each once, such as {example}.")
        sizes[name] = int(size)
    return sizes


def _own_tasks(text: str) -> str:
    """The `type` of --tasks. The modules are in use from here on."""
    try:
        return ",".join(own_tasks.use(text))
    except FlanError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error


TASKS: dict[str, Any] = {
    "type": _own_tasks,
    "metavar": "MODULE",
    "help": "your own modules with more datasets, separated by commas: my_tasks, or a file",
}
path = of(Where(wanted="the path or the URL of a file or folder"))
data = of(Where(OUR_DATA, wanted="samples, tfds, or the path or the URL of a folder"))
vocabulary = of(Where(OUR_VOCABULARIES, wanted="bytes, or the path or the URL of a file or folder"))
count = of(Whole(1))
count_or_none = of(Whole(0))
seed = of(Whole(0, SEEDS))
word = of(Word())


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """Adds the option --parameters, which weights of a checkpoint to read. The parsed value is called `which`."""
    parser.add_argument(
        "--parameters",
        dest="which",
        default=values.WEIGHTS[0],
        choices=values.WEIGHTS,
        help="weights of a checkpoint: the last (params), or their mean over steps (ema) of a run with EMA_DECAY",
    )

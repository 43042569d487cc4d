"""Options of a command line: checked by the kinds of `flan_jax.values`, wrong ones in one line."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from flan_jax import own_tasks, values
from flan_jax.errors import FlanError
from flan_jax.values import SEEDS, Kind, Number, Unfit, Where, Whole, Word

_MODULE = "python -m flan_jax."
AsWritten = argparse.RawDescriptionHelpFormatter  # for descriptions with lines of their own


def as_started(text: str) -> str:
    """A text with examples of commands, in the way in which this one was started: `flan-jax train`, or as a module."""
    started = Path(sys.orig_argv[1]).stem if len(sys.orig_argv) > 1 else ""
    return text.replace(_MODULE, "flan-jax ") if started == "flan-jax" else text


class Parser(argparse.ArgumentParser):
    """argparse's, whose errors are one line on standard error with exit status 2, and have near matches.

    Options are written in full: a beginning could mean another option than the one that was thought of.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        shown = {name: as_started(text) for name, text in options.items() if isinstance(text, str)}
        super().__init__(*arguments, **{"allow_abbrev": False, **options, **shown})

    def error(self, message: str) -> NoReturn:
        """Prints the line and ends."""
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
    """The `type` of an option whose value is of a kind."""

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


def _own_tasks(text: str) -> str:
    """The `type` of --tasks: the modules are used from here on."""
    try:
        return ",".join(own_tasks.use(text))
    except FlanError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error


TASKS: dict[str, Any] = {
    "type": _own_tasks,
    "metavar": "MODULE",
    "help": "modules of one's own with more datasets, with commas: my_tasks, or a file",
}
path = of(Where(wanted="the path or the URL of a file or folder"))
count = of(Whole(1))
count_or_none = of(Whole(0))
seed = of(Whole(0, SEEDS))
word = of(Word())


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """Adds --parameters, which of a checkpoint's weights are read; parsed, it is `which`."""
    parser.add_argument(
        "--parameters",
        dest="which",
        default=values.WEIGHTS[0],
        choices=values.WEIGHTS,
        help="of a checkpoint: the last parameters (params), or their mean over steps (ema), with EMA_DECAY",
    )

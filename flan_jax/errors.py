"""Errors that a user can cause and mend: one line that names the thing, the place and the remedy."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


class FlanError(ValueError):
    """Bad input. The message is one line: what is wrong, where, and what to do."""


class NotFiniteError(FlanError):
    """A model gave a number that is NaN or infinite where a score or a next token was asked for.

    Attributes:
      number: of the first prompt of the call with which it happened.
      found: what was found for each prompt, with None where it is not finite; or None where the call ended there.
    """

    def __init__(self, message: str, number: int, found: Sequence[Any] | None = None) -> None:
        super().__init__(message)
        self.number, self.found = number, found


def unknown_name(what: str, name: str, known: Iterable[str], hint: str = "") -> FlanError:
    """A FlanError for a name that does not exist, with its near matches.

    Args:
      what: the sort of thing, for example "dataset".
      name: the name that was asked for.
      known: the names that exist.
      hint: what else to do, appended to the message.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        remedy = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    elif len(known) <= 20:
        remedy = "there are: " + ", ".join(known) + "."
    else:
        remedy = f"there are {len(known)}, for example " + ", ".join(known[:5]) + "."
    return FlanError(" ".join(part for part in (f"unknown {what} {name!r}: {remedy}", hint) if part))


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns a FlanError into its one line on standard error and exit status 2; for the binaries."""
    try:
        yield
    except FlanError as error:
        # gin adds a line about the call to whatever passes through it.
        print(f"flan_jax: {str(error).strip().partition(chr(10))[0]}", file=sys.stderr)
        sys.exit(2)

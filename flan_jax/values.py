"""Kinds of values: each kind checks a value and says in words what is wanted.

Macros (`flan_jax.macros`), arguments of functions, and command-line options (`flan_jax.options`) use the same kinds. A
kind also returns the value's normal form: 1000 for 1e3 if a whole number is wanted, the full path for `~/runs`.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from flan_jax import files
from flan_jax.errors import FlanError, near_names

_BREAKS_LINE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")
LARGEST = 2**31 - 1  # steps, rows and lengths are computed in int32
SEEDS = 2**32 - 1  # JAX uses 32 bits of a seed; two seeds that share them would be the same


class Unfit(ValueError):
    """A value of the wrong kind. Its text, if it has one, replaces the kind's `wanted` in the message."""


class Kind(Protocol):
    """What a value may be.

    Attributes:
      wanted: what is wanted in words, such as "a whole number of at least 1".
    """

    @property
    def wanted(self) -> str:
        """See above."""
        ...

    def fit(self, value: Any) -> Any:
        """The normal form of the value.

        Raises:
          Unfit: the value is of another kind.
        """
        ...


def checked(name: str, kind: Kind, value: Any, meaning: str = "") -> Any:
    """Checks that a value fits a kind, and returns its normal form.

    Args:
      name: the macro, argument or option that has the value.
      kind: what it may be.
      value: what it is.
      meaning: what it is for, in a few words.

    Raises:
      FlanError: it does not fit; the message has the name, the value and what is wanted.

    Example:
      >>> checked("BATCH_SIZE", Whole(1), 1e3)
      1000
      >>> checked("BATCH_SIZE", Whole(1), "many", "rows of a step")
      Traceback (most recent call last):
      ...
      flan_jax.errors.FlanError: BATCH_SIZE is 'many': it has to be a whole number of at least 1 (rows of a step).
    """
    try:
        return kind.fit(value)
    except Unfit as error:
        said = f"{_said(kind, error)}{f' ({meaning})' if meaning else ''}"
        raise FlanError(f"{name} is {shown(value)}: {said}{'' if said.endswith('?') else '.'}") from error


def _said(kind: Kind, error: Unfit) -> str:
    return str(error).rstrip(".") or f"it has to be {kind.wanted}"


def _inner(key: Any, kind: Kind, error: Unfit) -> str:
    said = _said(kind, error)
    return f"{shown(key)} {said.removeprefix('it ')}" if said.startswith("it has") else f"{shown(key)}: {said}"


def shown(value: Any) -> str:
    r"""A value as one short line for a message.

    Example:
      >>> shown("a\nb"), shown([0] * 1000)[-10:]
      ("'a\\nb'", ', 0, 0, 0]')
    """
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python refuses to print a number with thousands of digits
        text = "a number of too many digits"
    return text if len(text) <= 100 else f"{text[:70]}...{text[-20:]}"


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole number. 1e3 and 8.0 fit; True and "8" do not."""

    least: int = 0
    most: int = LARGEST

    @property
    def wanted(self) -> str:
        """See `Kind`."""
        return f"a whole number {_range(self.least, self.most)}"

    def fit(self, value: Any) -> int:
        """See `Kind`."""
        if not _is_finite(value) or value != int(value) or value < self.least:
            raise Unfit
        if value > self.most:
            raise Unfit(f"it can be {self.most} at most")
        return int(value)


@dataclasses.dataclass(frozen=True)
class Number:
    """A finite number."""

    above: float | None = None
    least: float | None = None
    most: float | None = None
    below: float | None = None

    @property
    def wanted(self) -> str:
        """See `Kind`."""
        parts = []
        if self.above is not None:
            parts.append(f"above {self.above:g}")
        if self.least is not None:
            parts.append(f"of at least {self.least:g}")
        if self.most is not None:
            parts.append(f"of at most {self.most:g}")
        if self.below is not None:
            parts.append(f"below {self.below:g}")
        return " and ".join([" ".join(["a number", *parts[:1]]), *parts[1:]])

    def fit(self, value: Any) -> float:
        """See `Kind`."""
        if not _is_finite(value):
            raise Unfit
        if self.above is not None and value <= self.above:
            raise Unfit
        if self.least is not None and value < self.least:
            raise Unfit
        if self.most is not None and value > self.most:
            raise Unfit
        if self.below is not None and value >= self.below:
            raise Unfit
        try:
            return float(value)
        except OverflowError as error:
            raise Unfit from error


@dataclasses.dataclass(frozen=True)
class Switch:
    """True or False."""

    wanted: str = "True or False"

    def fit(self, value: Any) -> bool:
        """See `Kind`."""
        if not isinstance(value, bool):
            raise Unfit
        return value


@dataclasses.dataclass(frozen=True)
class Text:
    """A text that is not empty and has no line breaks or control characters."""

    wanted: str = "a text in quotes, on one line"

    def fit(self, value: Any) -> str:
        """See `Kind`."""
        if not isinstance(value, str) or not value.strip() or _BREAKS_LINE.search(value):
            raise Unfit
        return value


@dataclasses.dataclass(frozen=True)
class Word:
    """A name that other programs take as an argument: it has no spaces and does not look like an option."""

    wanted: str = "a name without spaces that begins with a letter or a digit"

    def fit(self, value: Any) -> str:
        """See `Kind`."""
        if not isinstance(value, str) or not value[:1].isalnum() or not value.isprintable() or " " in value:
            raise Unfit
        return value


@dataclasses.dataclass(frozen=True)
class Where:
    """A path on this machine or a URL of object storage; see `files.user_path`.

    Attributes:
      names: words that are allowed in place of a path. A folder of such a name is written as a path: `./samples`.
      wanted: what is wanted, in words.
    """

    names: tuple[str, ...] = ()
    wanted: str = "the path or the URL of a file or folder, in quotes"

    def fit(self, value: Any) -> str:
        """See `Kind`."""
        if isinstance(value, str) and value in self.names:
            return value
        if not isinstance(value, str | os.PathLike):
            raise Unfit
        if _BREAKS_LINE.search(str(value)):  # every message about it would be of several lines
            raise Unfit("a path is on one line, without control characters")
        try:
            path = files.user_path(value)
        except FlanError as error:
            raise Unfit(str(error)) from error
        return str(path.absolute() if str(path) in self.names else path)


@dataclasses.dataclass(frozen=True)
class OneOf:
    """One of several given texts."""

    names: tuple[str, ...]

    @property
    def wanted(self) -> str:
        """See `Kind`."""
        return _either([repr(name) for name in self.names])

    def fit(self, value: Any) -> str:
        """See `Kind`."""
        if not isinstance(value, str):
            raise Unfit
        if value not in self.names:  # if no name is near, the value may be meant for another kind; see Either
            said = near_names(value, self.names)
            raise Unfit(said if said.startswith("did you mean") else "")
        return value


@dataclasses.dataclass(frozen=True)
class Named:
    """A name that must be known.

    Attributes:
      known: called with the name; raises a FlanError with near matches if it does not exist.
      wanted: what is wanted, in words.
    """

    known: Callable[[str], Any]
    wanted: str

    def fit(self, value: Any) -> str:
        """See `Kind`."""
        if not isinstance(value, str) or not value.strip():
            raise Unfit
        try:
            self.known(value)
        except FlanError as error:
            raise Unfit(str(error)) from error
        return value


@dataclasses.dataclass(frozen=True)
class Several:
    """One value of a kind, or several different ones; the normal form is a tuple."""

    kind: Kind

    @property
    def wanted(self) -> str:
        """See `Kind`."""
        return f"{self.kind.wanted}, or several in brackets"

    def fit(self, value: Any) -> tuple[Any, ...]:
        """See `Kind`."""
        if isinstance(value, str | os.PathLike) or not isinstance(value, Sequence | set | frozenset):
            return (self.kind.fit(value),)
        found = tuple(self.kind.fit(part) for part in value)
        if not found or len(set(found)) < len(found):
            raise Unfit("name one or more" if not found else "one is there twice")
        return found


@dataclasses.dataclass(frozen=True)
class Keyed:
    """A dictionary with known keys, each with its own kind. Keys may be left out."""

    kinds: Mapping[str, Kind]

    @property
    def wanted(self) -> str:
        """See `Kind`."""
        return "a dictionary such as {" + ", ".join(f"{name!r}: ..." for name in self.kinds) + "}"

    def fit(self, value: Any) -> dict[str, Any]:
        """See `Kind`."""
        if not isinstance(value, Mapping):
            raise Unfit
        found = {}
        for key, inner in value.items():
            if key not in self.kinds:
                raise Unfit(f"unknown key {shown(key)}: {near_names(str(key), self.kinds)}")
            try:
                found[key] = self.kinds[key].fit(inner)
            except Unfit as error:
                raise Unfit(_inner(key, self.kinds[key], error)) from error
        return found


@dataclasses.dataclass(frozen=True)
class ByName:
    """A dictionary with any names as keys and values of one kind. It may not be empty."""

    names: Named
    kind: Kind

    @property
    def wanted(self) -> str:
        """See `Kind`."""
        return f"a dictionary from {self.names.wanted} to {self.kind.wanted}"

    def fit(self, value: Any) -> dict[str, Any]:
        """See `Kind`."""
        if not isinstance(value, Mapping):
            raise Unfit
        if not value:
            raise Unfit("name one or more")
        found = {}
        for key, inner in value.items():
            try:
                name = self.names.fit(key)
            except Unfit as error:
                raise Unfit(f"key {_inner(key, self.names, error)}") from error
            try:
                found[name] = self.kind.fit(inner)
            except Unfit as error:
                raise Unfit(_inner(key, self.kind, error)) from error
        return found


@dataclasses.dataclass(frozen=True)
class Either:
    """A value of any of several kinds; the first that fits decides."""

    kinds: tuple[Kind, ...]

    @property
    def wanted(self) -> str:
        """See `Kind`."""
        return _either([kind.wanted for kind in self.kinds])

    def fit(self, value: Any) -> Any:
        """See `Kind`."""
        reasons = []
        for kind in self.kinds:
            try:
                return kind.fit(value)
            except Unfit as error:
                reasons.append(str(error))
        raise Unfit(next(filter(None, reasons), ""))


@dataclasses.dataclass(frozen=True)
class Nothing:
    """None; `means` says what it stands for."""

    means: str = ""

    @property
    def wanted(self) -> str:
        """See `Kind`."""
        return f"None ({self.means})" if self.means else "None"

    def fit(self, value: Any) -> None:
        """See `Kind`."""
        if value is not None:
            raise Unfit


@dataclasses.dataclass(frozen=True)
class Made:
    """An object that is made in Python or by a gin reference.

    Attributes:
      types: returns the classes that it may have. It is only called when there is a value, because the imports are
        slow.
      wanted: what is wanted, in words.
    """

    types: Callable[[], tuple[Any, ...]]
    wanted: str

    def fit(self, value: Any) -> Any:
        """See `Kind`."""
        if not isinstance(value, self.types()) or isinstance(value, type):
            raise Unfit
        return value


TOKENS = Whole(2, 2**20)  # tokens of an input or a target
OUR_DATA = ("samples", "tfds")  # words for data beside folders; see `data.samples`
OUR_VOCABULARIES = ("bytes",)
WEIGHTS = ("params", "ema")  # a checkpoint's last parameters, or their mean over steps (EMA_DECAY)
MESH_AXES = ("data", "fsdp", "tensor")
PER_TOKEN, PER_EXAMPLE = LOSS_AVERAGES = ("per_token", "per_example")


def or_none(kind: Kind, means: str = "") -> Either:
    """A kind that also allows None."""
    return Either((kind, Nothing(means)))


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that is too large for a float
        return isinstance(value, int)


def _range(least: int, most: int) -> str:
    return f"of at least {least}" if most >= LARGEST and most != SEEDS else f"from {least} to {most}"


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

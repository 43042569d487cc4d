"""What a value may be: kinds that check a value and say in words what is wanted.

Macros (`flan_jax.macros`), arguments of functions and options of command lines (`flan_jax.options`) share them. A kind
gives the value back as it is to be used: 1e3 as 1000 where a whole number is wanted, `~/runs` with the home folder.
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
LARGEST = 2**31 - 1  # steps, rows and lengths are int32 where they are computed with
SEEDS = 2**32 - 1  # JAX takes 32 bits of a seed, and two that share them would be the same


class Unfit(ValueError):
    """A value that is of another kind. Its text, if it has one, says what is wrong and wanted, in place of `wanted`."""


class Kind(Protocol):
    """What a value may be.

    Attributes:
      wanted: in words, as "a whole number of at least 1".
    """

    @property
    def wanted(self) -> str:
        """See above."""
        ...

    def fit(self, value: Any) -> Any:
        """The value as it is to be used.

        Raises:
          Unfit: it is of another kind.
        """
        ...


def checked(name: str, kind: Kind, value: Any, meaning: str = "") -> Any:
    """A value that fits its kind, as it is to be used.

    Args:
      name: the macro, argument or option that has the value.
      kind: what it may be.
      value: what it is.
      meaning: what it is for, in a few words.

    Raises:
      FlanError: it does not fit; the line has the name, the value and what is wanted.

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
    r"""A value for a message: one short line.

    Example:
      >>> shown("a\nb"), shown([0] * 1000)[-10:]
      ("'a\\nb'", ', 0, 0, 0]')
    """
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python prints no number of thousands of digits
        text = "a number of too many digits"
    return text if len(text) <= 100 else f"{text[:70]}...{text[-20:]}"


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole number; 1e3 and 8.0 are some, True and "8" are not."""

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
    """A text that is not empty, and stays on its line in tables and messages."""

    wanted: str = "a text in quotes, on one line"

    def fit(self, value: Any) -> str:
        """See `Kind`."""
        if not isinstance(value, str) or not value.strip() or _BREAKS_LINE.search(value):
            raise Unfit
        return value


@dataclasses.dataclass(frozen=True)
class Word:
    """A name that other programs take as an argument: without spaces, and no option."""

    wanted: str = "a name without spaces that begins with a letter or a digit"

    def fit(self, value: Any) -> str:
        """See `Kind`."""
        if not isinstance(value, str) or not value[:1].isalnum() or not value.isprintable() or " " in value:
            raise Unfit
        return value


@dataclasses.dataclass(frozen=True)
class Where:
    """A path of this machine or a URL of object storage; see `files.user_path`.

    Attributes:
      names: words that stand for something else than a path.
      wanted: in words.
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
            return str(files.user_path(value))
        except FlanError as error:
            raise Unfit(str(error)) from error


@dataclasses.dataclass(frozen=True)
class OneOf:
    """One of some texts."""

    names: tuple[str, ...]

    @property
    def wanted(self) -> str:
        """See `Kind`."""
        return _either([repr(name) for name in self.names])

    def fit(self, value: Any) -> str:
        """See `Kind`."""
        if not isinstance(value, str):
            raise Unfit
        if value not in self.names:  # a name that is near none may have been meant for another kind: see Either
            said = near_names(value, self.names)
            raise Unfit(said if said.startswith("did you mean") else "")
        return value


@dataclasses.dataclass(frozen=True)
class Named:
    """A name that something knows.

    Attributes:
      known: raises a FlanError, with near matches, for a name that does not exist.
      wanted: in words.
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
    """One value of a kind, or several that differ; gives a tuple."""

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
    """A dictionary of known keys, each of which has a kind; not all of them need be there."""

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
    """A dictionary, not empty, whose keys are names and whose values are of one kind."""

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
    """Any of some kinds; the first that fits."""

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
    """None, which stands for what `means` says."""

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
    """Something that is made by Python, or by a reference in gin.

    Attributes:
      types: gives the classes that it may be of; asked where there is a value: libraries take long.
      wanted: in words.
    """

    types: Callable[[], tuple[Any, ...]]
    wanted: str

    def fit(self, value: Any) -> Any:
        """See `Kind`."""
        if not isinstance(value, self.types()) or isinstance(value, type):
            raise Unfit
        return value


TOKENS = Whole(2, 2**20)  # of an input or a target
WEIGHTS = ("params", "ema")  # of a checkpoint: the last parameters, or their mean over steps (EMA_DECAY)
MESH_AXES = ("data", "fsdp", "tensor")
PER_TOKEN, PER_EXAMPLE = LOSS_AVERAGES = ("per_token", "per_example")


def or_none(kind: Kind, means: str = "") -> Either:
    """A kind, or None."""
    return Either((kind, Nothing(means)))


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return isinstance(value, int)


def _range(least: int, most: int) -> str:
    return f"of at least {least}" if most >= LARGEST and most != SEEDS else f"from {least} to {most}"


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

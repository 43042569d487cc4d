"""Reads and writes JSON: results without NaN, and users' files with one JSON value on each line."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, RemotePath, is_remote, user_path


class NotFiniteNumber(ValueError):
    """A number in JSON is NaN or infinite. None of our results may hold one."""


# ----------------------------------------------------------------------------------------------------------- results


def to_json(value: Any, *, indent: int | None = None, ascii_only: bool = True, what: str = "a result") -> str:
    """Writes JSON, on one line or indented. Every result goes through here.

    Args:
      value: dicts, lists, texts and numbers.
      indent: spaces for each level; None for one line.
      ascii_only: whether letters outside ASCII are written as escapes.
      what: what the value is, for the error message.

    Raises:
      FlanError: a number is NaN or infinite, which JSON does not have. The message says where it is.

    Example:
      >>> to_json({"accuracy": 0.5})
      '{"accuracy": 0.5}'
      >>> to_json({"accuracy": float("nan")})
      Traceback (most recent call last):
      ...
      flan_jax.errors.FlanError: a result is not finite (accuracy is nan): nothing is written.
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    except ValueError as error:
        if (found := first_not_finite(value)) is None:
            raise
        place, number = found
        raise FlanError(f"{what} is not finite ({place or 'the value'} is {number}): nothing is written.") from error


def from_json(text: str | bytes, *, keys_once: bool = False) -> Any:
    """Reads JSON. A byte order mark, which some editors write, is removed.

    Args:
      text: the JSON.
      keys_once: whether to refuse a key that stands twice in an object. If not, the last one counts.

    Raises:
      NotFiniteNumber: a number is NaN, infinite, or too large for a float.
      RepeatedKeyError: a key stands twice.
      ValueError: the text is not JSON.

    Example:
      >>> from_json('{"accuracy": 0.5}')
      {'accuracy': 0.5}
    """
    try:
        hook = object_with_keys_once if keys_once else None
        text = text.removeprefix("\ufeff") if isinstance(text, str) else text  # of bytes, Python removes it
        return json.loads(text, parse_constant=_no_result, parse_float=_finite_result, object_pairs_hook=hook)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_result(text: str) -> Any:
    raise NotFiniteNumber(f"{text} is no number of a result")


def _finite_result(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_result(text)


def first_not_finite(value: Any, place: str = "") -> tuple[str, float] | None:
    """The first number in dicts and lists that is NaN or infinite, as (place, number); None if all are finite.

    Example:
      >>> first_not_finite({"a": [1.0, float("inf")]})
      ('a/1', inf)
    """
    if isinstance(value, float):
        return None if math.isfinite(value) else (place, value)
    if isinstance(value, Mapping):
        inner: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    else:
        return None
    parts = (first_not_finite(part, f"{place}/{name}" if place else str(name)) for name, part in inner)
    return next((found for found in parts if found is not None), None)


def finite(value: Any) -> Any:
    """The value with each NaN or infinite number replaced by None.

    Example:
      >>> finite({"loss": float("nan"), "step": 3})
      {'loss': None, 'step': 3}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(part) for name, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value


class ChangedLines(ValueError):
    """A file of results was cut off, edited or damaged after it was written."""


def bound_lines(header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]], what: str) -> str:
    """The text of a file of results: a header, then one line for each result.

    The header gets the key `digest`, a digest of the whole file. `read_lines` uses it to find changes.

    Raises:
      FlanError: a number is NaN or infinite.
    """
    rest = [to_json(line, ascii_only=False, what=what) for line in lines]
    found = _start_of_digest(header)
    for line in rest:
        found.update(line.encode() + b"\n")
    return "\n".join([to_json({**header, "digest": found.hexdigest()}, ascii_only=False, what=what), *rest]) + "\n"


def read_lines(path: AnyPath) -> list[dict[str, Any]]:
    """Reads a file that `bound_lines` made; the header is the first item.

    Files of earlier versions have no digest in their header, so changes in them are not found. A caller that must be
    sure checks that the header has `digest`.

    Raises:
      NotFiniteNumber: a number is NaN or infinite.
      ChangedLines: the file differs from what its header's digest says.
      ValueError: a line is not JSON, or the first line is not a header.
    """
    # str.splitlines would also split at U+2028 and U+0085 inside a text.
    with io.BytesIO(path.read_bytes()) if is_remote(path) else path.open("rb") as file:
        header = from_json(file.readline())
        if not isinstance(header, dict):
            raise ValueError(f"{path} begins with no header")
        found, lines = _start_of_digest(header), [header]
        for line in file:
            found.update(line.rstrip(b"\r\n") + b"\n")  # a copy may have other line ends
            lines.append(from_json(line))
    if header.get("digest", found.hexdigest()) != found.hexdigest():
        raise ChangedLines(f"{path} is not as it was written")
    return lines


def _start_of_digest(header: Mapping[str, Any]) -> Any:
    rest = {name: value for name, value in header.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode() + b"\n")


# ---------------------------------------------------------------------------------------------------- lines of JSON

_LONGEST_LINE = 64 * 2**20  # bytes; a longer line is not one record, and would fill the memory
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")  # valid UTF-8 can only hold a surrogate as a JSON escape
_OLD_LINE_ENDS = re.compile(rb"\}[ \t]*\r[ \t\r]*\{")  # two objects on what counts as one line
# The first bytes of files that are not JSON lines in UTF-8, and what to say about each.
_OTHER_FORMATS = (
    (b"\xff\xfe\x00\x00", "is text in UTF-32; save it as UTF-8"),
    (b"\x00\x00\xfe\xff", "is text in UTF-32; save it as UTF-8"),
    (b"\xff\xfe", "is text in UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "is text in UTF-16; save it as UTF-8"),
    (b"\x1f\x8b", "is compressed by gzip; unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd; unpack it"),
    (b"\xfd7zXZ\x00", "is compressed by xz; unpack it"),
    (b"BZh", "is compressed by bzip2; unpack it"),
    (b"PK\x03\x04", "is a zip file; unpack it"),
    (b"PAR1", "is a Parquet file; write its rows as JSON lines"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself; run git lfs pull"),
)
_TABLES = (".csv", ".tsv")


@dataclasses.dataclass(frozen=True)
class JsonLine:
    """One line of a file of JSON lines.

    Attributes:
      number: the line's number, from 1. Blank lines count.
      value: the line's value; None if it cannot be read.
      problem: why it cannot be read, in a few words; empty if it can.
    """

    number: int
    value: Any
    problem: str = ""


def read_json_lines(
    source: str | AnyPath | Iterable[bytes], where: str = "", strict: bool = True
) -> Iterator[JsonLine]:
    """Yields the lines of a file of JSON lines in UTF-8, one at a time. Blank lines are skipped.

    A byte order mark is removed. A lone surrogate, which a JSON escape can make but UTF-8 cannot hold, becomes U+FFFD.
    A line that cannot be read is yielded with its problem, and reading goes on.

    Args:
      source: a file, or lines, for example of standard input.
      where: the file's name in error messages; by default its path.
      strict: see `parse_json`.

    Raises:
      FlanError: the file cannot be read, or is not text in UTF-8 at all (UTF-16, compressed, Parquet and so on).
    """
    with contextlib.ExitStack() as stack:
        try:
            if isinstance(source, str | Path | RemotePath):
                where = where or str(source)
                source = _cut_lines(stack.enter_context(user_path(source).open("rb")))
            for number, line in enumerate(source, 1):
                if number == 1 and (problem := _other_format(line, where)):
                    raise FlanError(f"{where} {problem}.")
                line = line.removeprefix(_BYTE_ORDER_MARK)  # on every line: joined files may have more marks
                if len(line) > _LONGEST_LINE:
                    problem = f"longer than {_LONGEST_LINE / 2**20:.0f} MiB; write one object a line"
                    yield JsonLine(number, None, problem)
                elif line.strip():
                    yield _json_line(number, line, strict)
        except OSError as error:
            raise FlanError(f"cannot read {where}: {error.strerror or error}.") from error


def _cut_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file. Of a line that is too long, only the beginning, which is still too long."""
    while line := file.readline(_LONGEST_LINE + 1):
        end = line
        while len(end) > _LONGEST_LINE and not end.endswith(b"\n"):
            end = file.readline(_LONGEST_LINE + 1)
        yield line


def _json_line(number: int, line: bytes, strict: bool) -> JsonLine:
    try:
        return JsonLine(number, parse_json(line, strict))
    except ValueError as error:
        return JsonLine(number, None, str(error))


def _other_format(head: bytes, name: str) -> str:
    """What is wrong with a file of this name that begins with these bytes; empty if nothing is."""
    for magic, problem in _OTHER_FORMATS:
        if head.startswith(magic):
            return problem
    if head.strip() == b"[":
        return "is one JSON list over many lines; write an object a line, as jq -c '.[]' does"
    if name.lower().endswith(_TABLES) and head.removeprefix(_BYTE_ORDER_MARK).strip()[:1] != b"{":
        return "is a table of text; write an object a line, as DataFrame.to_json(orient='records', lines=True) does"
    if (head[:1] == b"\0") != (head[1:2] == b"\0"):  # UTF-16: two bytes for an ASCII character
        return "is text in UTF-16; save it as UTF-8"
    return ""


def parse_json(line: bytes, strict: bool = True) -> Any:
    """Reads one line of JSON in UTF-8. A lone surrogate in it becomes U+FFFD.

    Args:
      line: the line.
      strict: whether to refuse some things that Python reads: NaN and infinite numbers, which are not JSON, and a key
        that stands twice in an object. If not, the last one counts.

    Raises:
      ValueError: it cannot be read; the message says why in a few words.

    Example:
      >>> parse_json(b'{"prompt": "Why?"}')
      {'prompt': 'Why?'}
    """
    try:
        value = (_STRICT if strict else _LENIENT).decode(line.decode("utf-8"))
        return as_unicode(value) if _SURROGATE_ESCAPE.search(line) else value
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        if _OLD_LINE_ENDS.search(line):
            raise ValueError("not JSON (several lines that end with CR alone: save the file with LF)") from None
        within = b"\n" in line.strip()  # not counting the end of the line itself
        where = f", line {error.lineno}" if within and error.lineno > 1 else ""
        raise ValueError(f"not JSON ({error.msg}{where})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:  # from the hooks below, or a number of over 4,300 digits
        raise ValueError(str(error) if isinstance(error, _NotJsonError) else "a number has too many digits") from None


class _NotJsonError(ValueError):
    """Something that Python reads although it is not JSON."""


def _constant(name: str) -> Any:
    raise _NotJsonError(f"not JSON ({name})")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise _NotJsonError(f"the number {digits[:20]} is out of range")
    return number


class RepeatedKeyError(_NotJsonError):
    """A key stands twice in a JSON object, and nobody can say which value counts."""


def object_with_keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for `object_pairs_hook` of `json`.

    Raises:
      RepeatedKeyError: a key stands twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RepeatedKeyError(f"the key {as_unicode(twice[:40])!r} stands twice")
    return found


_STRICT = json.JSONDecoder(object_pairs_hook=object_with_keys_once, parse_constant=_constant, parse_float=_finite)
_LENIENT = json.JSONDecoder()


def as_unicode(value: Any) -> Any:
    """A text or a JSON value with U+FFFD in place of each lone surrogate."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:  # a pair of surrogate escapes makes one character, a lone one makes none
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value
    if isinstance(value, list):
        return [as_unicode(v) for v in value]
    if isinstance(value, Mapping):
        return {as_unicode(k): as_unicode(v) for k, v in value.items()}
    return value


# ------------------------------------------------------------------------------------------------------------- ids


def refuse_same_ids(numbered: Iterable[tuple[int, Any]], where: str) -> None:
    """Refuses ids that could not tell two answers apart.

    Args:
      numbered: (line number, id) of each line of a file; an id is any JSON value.
      where: the file, for the message.

    Raises:
      FlanError: an id is null, or two lines have the same id.
    """
    lines: dict[str, int] = {}
    for number, identity in numbered:
        if identity is None:
            raise FlanError(f"{where} line {number}: the id is null; give every line an id of its own.")
        key = json.dumps(identity, sort_keys=True)
        if key in lines:
            shown = key if len(key) <= 60 else f"{key[:40]}..."
            raise FlanError(f"{where} lines {lines[key]} and {number} have the same id {shown}; give each its own.")
        lines[key] = number

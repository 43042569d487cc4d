"""The files of a corpus: how each is packed and what it holds, recognized by its content, and its text in blocks.

A file's name can be wrong or say nothing. It only decides that `.json`, `.jsonl` and `.ndjson` hold JSON. What cannot
be read as text is refused by name, because skipping a file would make the examples in it look clean.
"""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import glob
import gzip
import json
import lzma
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import zstandard

from flan_jax.content import normalized_words
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, RemotePath, is_url, user_path

TEXT, JSON_LINES = "text", "JSON lines"

LINES_SUFFIXES = {".jsonl", ".ndjson", ".jsonlines", ".ldjson"}
_JSON_SUFFIXES = LINES_SUFFIXES | {".json"}
_PACKED_SUFFIXES = {".gz", ".gzip", ".bz2", ".xz", ".lzma", ".zst", ".zstd"}
_HEAD = 1 << 16  # bytes that show what a file is
_LONGEST_WORD = 16  # blocks; longer text without white space is cut
_ZSTD_WINDOW = 1 << 31  # the largest window that its files may ask for

_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
# The first bytes of files that are not text.
_OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x04\x22\x4d\x18": "compressed by lz4",
    b"\xff\x06\x00\x00sNaPpY": "compressed by snappy",
    b"\x1f\x9d": "compressed by compress",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"FEA1": "Feather",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"Obj\x01": "Avro",
    b"ORC": "ORC",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "PDF",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "a NumPy array",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself (git lfs pull)",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
_REMEDY = "unpack or convert it to text or JSON lines in UTF-8 (plain, .gz, .bz2, .xz or .zst), or leave it out"


@dataclasses.dataclass(frozen=True)
class CorpusFile:
    """A file that can be read.

    Attributes:
      path: the file.
      form: TEXT, which is one document, or JSON_LINES, where each line is a document.
      is_empty: whether it is empty.
    """

    path: AnyPath
    form: str
    is_empty: bool = False


def corpus_files(patterns: Sequence[str]) -> list[CorpusFile]:
    """The files of paths and globs (** for any depth), each once, sorted.

    Raises:
      FlanError: a pattern that matches no file, a folder, or a file that cannot be read as text.
    """
    found: set[AnyPath] = set()
    for pattern in patterns:
        # A name such as "data [v2].jsonl" is also a glob, which does not match itself.
        given = user_path(pattern) if is_url(pattern) else Path(pattern)
        if isinstance(given, RemotePath):
            matches: set[AnyPath] = {given} if given.exists() else set()
        else:
            named = [given] if os.path.lexists(given) else glob.glob(os.fspath(given), recursive=True)
            matches = set(map(Path, named))
        folders = {path for path in matches if path.is_dir()}
        if folders and "**" not in pattern:
            raise FlanError(f"{min(folders)} is a folder: give its files, for example '{min(folders)}/**/*'.")
        if not matches - folders:
            raise FlanError(f"no corpus file matches {pattern!r}: give text or JSON-lines files, or a glob.")
        if broken := [path for path in matches - folders if not path.is_file()]:
            raise FlanError(f"corpus file {min(broken)} is no file (a broken link, or a pipe): leave it out.")
        found |= matches - folders
    return [_recognized(path) for path in sorted(found, key=str)]


def is_json_lines(path: AnyPath) -> bool:
    """Whether the name means JSON lines, in any packing and in upper or lower case."""
    return _suffix(path) in _JSON_SUFFIXES


def _recognized(path: AnyPath) -> CorpusFile:
    with reading(path), _unpacked(path) as (file, _):
        head = b""
        while len(head) < _HEAD and (more := file.read(_HEAD - len(head))):
            head += more
    if not head:
        return CorpusFile(path, TEXT, is_empty=True)
    if what := _no_text(head):
        raise FlanError(f"corpus file {path} is {what}: {_REMEDY}.")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    is_json = is_json_lines(path)
    if re.match(rb"\[\s*[\[{\"]" if not is_json else rb"\[", start):
        raise FlanError(f"corpus file {path} is one JSON array: write an object a line, for example with jq -c '.[]'.")
    # Its strings write line breaks as \n. As text, the words on both sides would be one.
    return CorpusFile(path, JSON_LINES if is_json or _begins_with_object(start) else TEXT)


def _suffix(path: AnyPath) -> str:
    """The suffix before those of compression, in lower case."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _PACKED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _begins_with_object(start: bytes) -> bool:
    line, _, rest = start.partition(b"\n")
    if not rest and len(start) >= _HEAD // 2:  # a line that goes on
        return re.match(rb"\{\s*\"", start) is not None
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _no_text(head: bytes) -> str:
    """What kind of file begins like this; empty if it is text."""
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            return what
    if head.startswith((_GZIP, _XZ, _ZSTD)) or re.match(rb"BZh[1-9]1AY", head):
        return "compressed twice"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if b"\0" in head:
        return "binary"
    text = head.decode("utf-8", errors="replace")
    if text.count("\ufffd") > 1 + len(text) // 100:
        return "no text in UTF-8"
    return ""


@contextlib.contextmanager
def _unpacked(path: AnyPath) -> Iterator[tuple[Any, IO[bytes]]]:
    """(the content, the file itself)."""
    with path.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        if magic.startswith(_GZIP):
            yield gzip.GzipFile(fileobj=raw), raw
        elif magic.startswith(_BZIP2) and magic[3:4].isdigit():
            yield bz2.BZ2File(raw), raw
        elif magic == _XZ or _suffix_is_lzma(path):
            yield lzma.LZMAFile(raw), raw  # noqa: SIM115
        elif magic.startswith(_ZSTD) or re.match(rb"[\x50-\x5f]\x2a\x4d\x18", magic):  # or a frame to be skipped
            yield _Zstd(raw), raw
        else:
            yield raw, raw


def _suffix_is_lzma(path: AnyPath) -> bool:
    return path.suffix.lower() == ".lzma"  # the old format, which has no first bytes of its own


class _Zstd:
    """Reads frames of zstd. The library's own reader does not notice that a file was cut off."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._rest = raw, b""
        self._frame: zstandard.ZstdDecompressionObj | None = None  # the open one

    def read(self, size: int) -> bytes:
        """About `size` bytes; none at the end."""
        while True:
            packed = self._rest or self._raw.read(max(size // 4, 1 << 12))
            self._rest = b""
            if not packed:
                if self._frame is not None:
                    raise EOFError("it ends in the middle of a zstd frame")
                return b""
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
            found = self._frame.decompress(packed)
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
            if found:
                return found


@contextlib.contextmanager
def reading(path: AnyPath) -> Iterator[None]:
    """A block in which errors of reading or unpacking name the file.

    Raises:
      FlanError: it is damaged, cut off, or cannot be read.
    """
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise FlanError(f"corpus file {path} cannot be read: {str(error).rstrip('.') or 'it is cut off'}.") from error


def blocks(file: CorpusFile, block_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yields (a block that ends at the end of a word, or of a line for JSON lines; bytes read of the packed file).

    Raises:
      FlanError: the file is damaged or cut off.
    """
    is_json = file.form == JSON_LINES
    with reading(file.path), _unpacked(file.path) as (content, raw):
        ends = b"\n" if is_json else b" \n\t\r"
        rest: list[bytes] = []  # of earlier blocks without an end
        while block := content.read(block_bytes):
            # At the end of a line if possible, because lines are compared as a whole.
            line_end = max(block.rfind(b"\n"), -1 if is_json else block.rfind(b"\r"))
            cut = line_end + 1 or max(block.rfind(ends[i : i + 1]) for i in range(len(ends))) + 1
            if not cut and (len(rest) < _LONGEST_WORD or is_json):
                rest.append(block)
                continue
            cut = cut or len(block)
            yield b"".join([*rest, block[:cut]]), raw.tell()
            rest = [block[cut:]]
        if last := b"".join(rest):
            yield last, raw.tell()


def _last_words(block: bytes, count: int) -> list[str]:
    """The last words of a block, read from its end."""
    size = 64 * max(count, 1)
    while size < len(block):
        words = normalized_words(block[-size:].decode(errors="replace"))[1:]  # the first may be only a part
        if len(words) >= count:
            return words[len(words) - count :]
        size *= 4
    words = normalized_words(block.decode(errors="replace"))
    return words[max(0, len(words) - count) :]


def pieces(file: CorpusFile, longest: int, block_bytes: int) -> Iterator[tuple[bytes, list[str], int]]:
    """Yields (block, the words before it with which an n-gram could begin, bytes read) of one file."""
    before: list[str] = []
    for block, read in blocks(file, block_bytes):
        yield block, before, read
        if file.form == TEXT:
            before = [*before, *_last_words(block, longest - 1)]
            before = before[max(0, len(before) - longest + 1) :]

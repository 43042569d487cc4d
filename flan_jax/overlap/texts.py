"""Reads the text that an audit compares: JSON lines of any form, plain text, prepared examples, a data folder.

All of it is streamed. As tuning text, every text in JSON lines counts. As an evaluation set, only what a prompt shows
counts; entries with names like answers, labels, titles and ids are left out, and reported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax import catalog, content, json_lines
from flan_jax.data import examples as example_files
from flan_jax.data.samples import SAMPLES, samples_folder
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, RemotePath, user_path
from flan_jax.overlap import corpus, evaluated, seen

BLOCK_BYTES = 1 << 20
JSON_SUFFIX = "jsonl"

_NOT_SHOWN = re.compile(r"answer|label|target|output|completion|response|reference|title|^idx?$|_id$|^source$", re.I)
# A passage is shown, whatever comes before its name: "reference_passage", "source_document".
_SHOWN = re.compile(r"(passage|context|document|article|story|paragraph|premise|hypothesis|question|dialogue)s?$", re.I)
_NAMED = re.compile(r"^[^\n:]{1,40}: *")  # "Question: ..." in a prompt
_NUMBERED = re.compile(r"^\s*\(?(?:\d{1,3}|[A-Za-z])[.)] +")  # "2. ..." or "(b) ..." in a list
_LINE_END = re.compile(r"\r\n?|\n|<br */?>", re.I)
_DOCUMENTS_AT_ONCE = 2000


def open_files(patterns: Sequence[str]) -> list[corpus.CorpusFile]:
    """The files of paths and globs, each once, whatever it is called.

    Raises:
      FlanError: one is missing, a folder, or not text.
    """
    found = {file.path.resolve(): file for file in corpus.corpus_files(patterns)}
    return list(found.values())


def folder_files(folder: AnyPath) -> tuple[list[AnyPath], list[AnyPath]]:
    """(JSON lines, other files) in a folder and all folders below. Files whose name begins with a dot are left out.

    Raises:
      FlanError: a folder in it cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise FlanError(f"{error.filename} cannot be read: {error.strerror}.") from error

    lines: list[AnyPath] = []
    others: list[AnyPath] = []
    if isinstance(folder, RemotePath):
        for name in folder.all_files():
            if corpus.is_json_lines(folder / name):
                lines.append(folder / name)
            elif not any(part.startswith(".") for part in name.split("/")):
                others.append(folder / name)
        return sorted(lines), sorted(others)
    known: set[str] = set()
    for place, names, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in known:  # a link to a folder above
            names.clear()
            continue
        known.add(real)
        for path in (Path(place) / name for name in files):
            if corpus.is_json_lines(path):
                lines.append(path)
            elif not path.name.startswith(".") and not any(p.startswith(".") for p in path.relative_to(folder).parts):
                others.append(path)
    return sorted(lines), sorted(others)


def has_rows(path: AnyPath) -> bool:
    """Whether the name means one object on each line. `.json` alone can just as well be the settings of a model."""
    return any(suffix.lower() in corpus.LINES_SUFFIXES for suffix in path.suffixes)


def is_about(path: AnyPath) -> bool:
    """Whether a file beside data describes them, such as a README, by its name."""
    return path.suffix.lower() in (".md", ".rst") or path.stem.upper() in ("README", "LICENSE", "SOURCES", "CITATION")


def rows(file: corpus.CorpusFile) -> Iterator[Any]:
    """Yields the values of a file of JSON lines.

    Raises:
      FlanError: a line is not JSON, or the file is damaged or cut off.
    """
    number = 0
    for block, _ in corpus.blocks(file, BLOCK_BYTES):
        for line in block.split(b"\n"):
            number += 1
            if not (line := line.removeprefix(b"\xef\xbb\xbf")).strip():
                continue
            try:
                yield json_lines.parse_json(line, strict=False)
            except ValueError as error:
                raise FlanError(f"{file.path} line {number}: {error}; mend it, or leave the line out.") from error


# --------------------------------------------------------------------------------------------------- tuning text


def search_files(search: seen.Search, files: Sequence[corpus.CorpusFile], longest: int) -> int:
    """Adds files to a search, and returns how many documents with text they hold.

    Args:
      search: the search.
      files: JSON lines, where each line is a document; any other file is one document.
      longest: words of the longest n-gram that is searched for.
    """
    documents = 0
    for file in files:
        if file.form == corpus.TEXT:
            documents += not file.is_empty
            for block, before, _ in corpus.pieces(file, longest, BLOCK_BYTES):
                text = block.decode(errors="replace")
                search.words([*before, *content.normalized_words(text)])
                _search_keys(search, [_whole_texts([text])])
        else:
            documents += _search_rows(search, rows(file))
    return documents


def _search_rows(search: seen.Search, values: Iterator[Any]) -> int:
    count = 0
    words: list[str] = []
    keys: list[set[int]] = []
    hashes: list[str] = []

    def take() -> None:
        search.hashes(np.array(hashes, "S16"))
        search.words(words)
        _search_keys(search, keys)
        for found in (hashes, words, keys):
            found.clear()

    for value in values:
        texts = list(content.texts_of(value))
        count += any(text.strip() for text in texts)
        if isinstance(value, Mapping):
            fields = value["fields"] if isinstance(value.get("fields"), Mapping) else value
            hashes.append(content.content_hash(fields))
        for text in texts:
            words += content.normalized_words(text)
            words.append("")
        keys.append(_whole_texts(texts))
        if len(keys) == _DOCUMENTS_AT_ONCE or len(words) > BLOCK_BYTES:
            take()
    take()
    return count


def _search_keys(search: seen.Search, keys: Sequence[set[int]]) -> None:
    documents = np.repeat(np.arange(len(keys)), [len(found) for found in keys])
    search.texts(documents, np.fromiter((key for found in keys for key in found), np.uint64, len(documents)))


def _whole_texts(texts: Sequence[str]) -> set[int]:
    """Keys of texts, of their lines, and of lines without their number in a list or the name before a colon."""
    found = set(content.text_keys(texts))
    for text in texts:
        for line in _LINE_END.split(text) if any(end in text for end in "\n\r<") else [text]:
            parts = [line, _NAMED.sub("", line)]
            if (bare := _NUMBERED.sub("", line)) != line:
                parts += [bare, _NAMED.sub("", bare)]
            for part in dict.fromkeys(parts):
                if part != text and (words := content.normalized_words(part)):
                    found.add(content.text_key(words))
    return found


# ------------------------------------------------------------------------------------------------ evaluation sets


def of_files(name: str, files: Sequence[corpus.CorpusFile]) -> seen.Evaluated:
    """JSON lines as an evaluation set.

    Raises:
      FlanError: a file is plain text, or a line is not an object.
    """
    if plain := [file.path for file in files if file.form == corpus.TEXT and not file.is_empty]:
        raise FlanError(f"{plain[0]} is no evaluation set: give JSON lines, an object a record.")

    def records() -> Iterator[seen.Record]:
        for file in files:
            for value in rows(file) if not file.is_empty else ():
                if not isinstance(value, Mapping):
                    raise FlanError(f"{file.path}: a line holds no object; an evaluation set has an object a record.")
                yield of_row(value)

    return seen.Evaluated(name, records)


def of_row(value: Mapping[str, Any]) -> seen.Record:
    """A row of any form as an evaluated record."""
    fields = value["fields"] if isinstance(value.get("fields"), Mapping) else value
    shown = {name: part for name, part in fields.items() if _is_shown(name, fields)}
    passed_over = tuple(name for name in fields if name not in shown and _says_something(fields[name]))
    texts = tuple(part for part in shown.values() if isinstance(part, str))
    listed = tuple(text for part in shown.values() if not isinstance(part, str) for text in content.texts_of(part))
    return seen.Record(content.content_hash(fields), texts, listed, passed_over)


def _is_shown(name: str, fields: Mapping[str, Any]) -> bool:
    """Whether a prompt shows an entry, by its name. A "source" beside a "target" is a text that is translated."""
    if name.lower() == "source" and any(other.lower() == "target" for other in fields):
        return True
    return bool(_SHOWN.search(name)) or not _NOT_SHOWN.search(name)


def _says_something(value: Any) -> bool:
    return any(len(content.normalized_words(text)) >= content.FEWEST for text in content.texts_of(value))


def of_prepared(prepared_dir: str | AnyPath, dataset: catalog.Dataset) -> seen.Evaluated:
    """The test examples of a prepared dataset as an evaluation set."""
    found = example_files.read(prepared_dir, dataset.name, "test")
    return seen.Evaluated(dataset.name, lambda: (evaluated.record_of(dataset, row) for row in found))


def of_data(data: str | AnyPath, dataset: catalog.Dataset) -> seen.Evaluated:
    """The test rows of a dataset in a folder of data, or its validation rows if there are none.

    Raises:
      FlanError: there are neither.
    """
    rules = dataset.splits
    files = data_files(data, dataset, (rules.test,) if rules.exact else (rules.test, "test", "validation"))
    split = user_path(files[0]).name.partition(".")[0]  # the first one that exists
    own = [path for path in files if user_path(path).name.partition(".")[0] == split]
    whole = [path for path in own if user_path(path).name == f"{split}.{JSON_SUFFIX}"]
    return of_files(dataset.name, open_files(whole or own))  # shards, or a packed file


def data_files(data: str | AnyPath, dataset: catalog.Dataset, splits: Sequence[str]) -> list[str]:
    """The files of a dataset in a folder of data, or of the samples, in the order of the splits.

    Raises:
      FlanError: there are none.
    """
    folder = (samples_folder(dataset) if data == SAMPLES else user_path(data)) / dataset.folder
    found = [path for split in splits for path in sorted(folder.glob(f"{split}.{JSON_SUFFIX}*"))]
    if not found:
        raise FlanError(
            f"no {' or '.join(f'{split}.{JSON_SUFFIX}' for split in splits)} of {dataset.name} in {folder}."
        )
    return [str(path) for path in found]

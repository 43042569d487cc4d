"""Finds dev and test examples that share an n-gram with a corpus.

Brown et al. 2020, appendix C; FLAN paper, appendix C.

The n-grams of the examples are in memory (about 10 bytes each, and their words once in each process). The corpus is
read in blocks by several processes. In JSON lines, each line is a document. Any other file is one document, and n-grams
may span its lines. `corpus` says what can be read.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax import catalog, templates
from flan_jax.content import normalized_words
from flan_jax.data import examples as example_files
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, user_path
from flan_jax.overlap import corpus as corpus_room
from flan_jax.overlap.ngrams import N, NgramIndex, passages
from flan_jax.wording import counted

SPLITS = ("dev", "test")
VERSION = 2  # version of the results' form; records of the first had no hash
BLOCK_BYTES = 4 << 20  # of the decompressed corpus, for each task


# ------------------------------------------------------------------------------------------------------- examples


def shown_texts(record: catalog.Dataset, fields: dict[str, Any]) -> list[str]:
    """The texts of an example that some forward template shows, in order. Label words do not count."""
    patterns = [record.templates[number].input for number in record.forward_templates]
    names = dict.fromkeys(name for pattern in patterns for name in templates.placeholders(pattern))
    texts: list[str] = []
    for name in names:
        value = fields.get(name, "")
        if name != templates.OPTIONS or not record.labels:
            found = value if isinstance(value, list) else [value]
            texts += [text for text in found if isinstance(text, str)]  # another program's files may hold anything
    return texts


def prepared_datasets(prepared_dir: str | AnyPath) -> list[catalog.Dataset]:
    """The datasets and variants with examples in PREPARED_DIR.

    Raises:
      FlanError: there are none.
    """
    examples = user_path(prepared_dir) / "examples"
    found = [d for d in catalog.evaluated() if (examples / catalog.whole(d.name) / "test.jsonl").exists()]
    if not found:
        raise FlanError(f"no test examples in {prepared_dir}: run python -m flan_jax.prepare --to={prepared_dir}.")
    return found


# ---------------------------------------------------------------------------------------------------------- search


@dataclasses.dataclass(frozen=True)
class _Hits:
    """What a block contains: the numbers of n-grams, in how many of its documents each is, and totals."""

    numbers: np.ndarray
    documents: np.ndarray
    num_documents: int
    num_words: int
    broken_lines: int = 0


def _search(index: NgramIndex, block: bytes, before: list[str], field: str | None) -> _Hits:
    """Searches a block for n-grams: of JSON lines if there is a field, otherwise of text."""
    if field is None:
        words = [*before, *normalized_words(block.decode(errors="replace"))]
        numbers = np.unique(index.find(words)[1])
        return _Hits(numbers, np.ones(len(numbers), np.int64), 0, len(words) - len(before))
    words, starts, broken = [], [], 0
    for line in block.split(b"\n"):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[field]
        except (ValueError, KeyError, TypeError, RecursionError):
            text = None
        if not isinstance(text, str):
            broken += 1
            continue
        starts.append(len(words))
        words += normalized_words(text)
        words.append("")  # no n-gram spans two documents
    at, numbers = index.find(words)
    documents = np.searchsorted(starts, at, side="right")
    pairs = np.unique(np.stack([numbers, documents]), axis=1)
    numbers, counts = np.unique(pairs[0], return_counts=True)
    return _Hits(numbers, counts, len(starts), len(words) - len(starts), broken)


_index: NgramIndex | None = None  # of a worker


def _start_worker(folder: Path) -> None:
    global _index
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    _index = NgramIndex.load(folder)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """Ends a worker whose parent was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _search_in_worker(block: bytes, before: list[str], field: str | None) -> _Hits:
    return _search(_index, block, before, field)


@contextlib.contextmanager
def _searcher(index: NgramIndex, workers: int) -> Iterator[Callable[..., futures.Future]]:
    """A function that submits `_search`, to a pool if there are several workers."""
    if workers == 1:

        def search_here(*arguments: Any) -> futures.Future:
            future: futures.Future = futures.Future()
            future.set_result(_search(index, *arguments))
            return future

        yield search_here
        return
    with tempfile.TemporaryDirectory(prefix="flan_jax_ngrams_") as name:
        index.save(Path(name))
        context = multiprocessing.get_context("spawn")
        pool = futures.ProcessPoolExecutor(workers, context, _start_worker, (Path(name),))
        try:
            yield lambda *arguments: pool.submit(_search_in_worker, *arguments)
        except futures.process.BrokenProcessPool as error:
            raise FlanError("a worker died, out of memory or killed: run it again with fewer --workers.") from error
        finally:
            pool.shutdown(cancel_futures=True)


class _Found:
    """In how many documents each n-gram of the index is, and in which file first."""

    def __init__(self, count: int):
        self.documents = np.zeros(count, np.int64)
        self.first_file = np.full(count, -1, np.int32)
        self._last_text = np.full(count, -1, np.int32)  # a text is one document, however many blocks it has
        self.totals: collections.Counter[str] = collections.Counter()
        self.lines: collections.defaultdict[int, list[int]] = collections.defaultdict(lambda: [0, 0])

    def add(self, file: int, is_text: bool, hits: _Hits) -> None:
        self.lines[file][0] += hits.num_documents
        self.lines[file][1] += hits.broken_lines
        new = hits.numbers[self.first_file[hits.numbers] < 0]
        self.first_file[new] = file
        if is_text:
            self.documents[hits.numbers[self._last_text[hits.numbers] != file]] += 1
            self._last_text[hits.numbers] = file
        else:
            self.documents[hits.numbers] += hits.documents
        self.totals.update(documents=hits.num_documents, words=hits.num_words, broken_lines=hits.broken_lines)


def _scan(
    index: NgramIndex,
    files: Sequence[corpus_room.CorpusFile],
    field: str,
    workers: int,
    block_bytes: int,
    progress: Callable[[str, int, int], None],
) -> _Found:
    found = _Found(len(index.keys))
    sizes = [file.path.stat().st_size for file in files]
    waiting: collections.deque[tuple[int, int, futures.Future]] = collections.deque()

    def take() -> None:
        number, done, future = waiting.popleft()
        found.add(number, files[number].form == corpus_room.TEXT, future.result())
        progress(str(files[number].path), done, sum(sizes))

    with _searcher(index, workers) as search:
        for number, file in enumerate(files):
            as_field = field if file.form == corpus_room.JSON_LINES else None
            found.totals["documents"] += as_field is None and not file.is_empty
            for block, before, read in corpus_room.pieces(file, max(index.lengths, default=1), block_bytes):
                waiting.append((number, sum(sizes[:number]) + read, search(block, before, as_field)))
                found.totals["bytes"] += len(block)
                if len(waiting) > 2 * workers:
                    take()
        while waiting:
            take()
    for number, (good, broken) in sorted(found.lines.items()):
        if broken and not good:
            raise FlanError(
                f"corpus file {files[number].path}: none of its {broken:,} lines is a JSON object with the text field "
                f"{field!r}; name it with --field, or leave the file out."
            )
    if not found.totals["words"]:
        raise FlanError(
            f"the corpus holds no words: {counted(len(files), 'files')}, {counted(found.totals['bytes'], 'bytes')}."
        )
    return found


# --------------------------------------------------------------------------------------------------------- results


def check(
    datasets: Sequence[catalog.Dataset],
    prepared_dir: str | AnyPath,
    corpus: Sequence[str],
    *,
    n: int = N,
    ignore_above: int | None = None,
    field: str = "text",
    workers: int = 1,
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Any]:
    """Divides dev and test examples into clean ones, and dirty ones that share an n-gram with the corpus.

    Args:
      datasets: the datasets whose examples are searched for.
      prepared_dir: where `flan_jax.prepare` wrote the examples.
      corpus: paths and globs of text and JSON-lines files, plain, .gz, .bz2, .xz or .zst; see `corpus.corpus_files`.
      n: words of an n-gram; `passages` says what happens to shorter examples.
      ignore_above: n-grams in more documents than this are common phrases and do not count (GPT-3: 10); None counts
        all.
      field: the field of a JSON line that holds the text.
      workers: number of processes.
      block_bytes: bytes of the corpus for each task.
      progress: called with (file, bytes read, bytes in all).

    Returns:
      {"version", "ngram", "ignore_above", "corpus": {"files", "forms", "empty_files", "bytes", "documents", "words",
      "broken_lines", "broken"}, "datasets": {name: {split: {"clean": [{"id", "hash"}], "dirty": [{"id", "hash",
      "ngram", "file", "documents", "matched", "ngrams"}]}}}}. The hash identifies the record, whatever its id. "forms"
      counts files read as text and as JSON lines. "bytes" are those of the unpacked files. "broken" counts broken lines
      by file. A dirty example has the first n-gram that was found, with the first file and the number of documents that
      hold it, and how many of its distinct n-grams were found at all.

    Raises:
      FlanError: bad options, missing examples, or a file of the corpus that cannot be read, or in which no line has a
        text or any words.
    """
    if n < 1 or workers < 1 or block_bytes < 1 or (ignore_above is not None and ignore_above < 0):
        raise FlanError("--ngram and --workers are 1 or more, --ignore_above is 0 or more.")
    files = corpus_room.corpus_files(corpus)

    def rows(record: catalog.Dataset, split: str) -> Iterator[tuple[dict[str, str], list[tuple[int, list[str]]]]]:
        for row in example_files.read(prepared_dir, record.name, split):
            yield {"id": row["id"], "hash": row["hash"]}, passages(shown_texts(record, row["fields"]), n)

    units = [(record, split) for record in datasets for split in SPLITS]
    index = NgramIndex.build((p for _, found in rows(*unit) for p in found) for unit in units)
    found = _scan(index, files, field, workers, block_bytes, progress)
    matched = found.documents > 0
    if ignore_above is not None:
        matched &= found.documents <= ignore_above

    results: dict[str, Any] = {}
    for record, split in units:
        clean, dirty = [], []
        for identity, parts in rows(record, split):
            hits = _hits_of_example(index, parts, matched)
            if not hits["matched"]:
                clean.append(identity)
                continue
            number = hits.pop("number")
            where = {"file": str(files[found.first_file[number]].path), "documents": int(found.documents[number])}
            dirty.append(identity | hits | where)
        results.setdefault(record.name, {})[split] = {"clean": clean, "dirty": dirty}
    totals = {name: found.totals[name] for name in ("bytes", "documents", "words", "broken_lines")}
    return {
        "version": VERSION,
        "ngram": n,
        "ignore_above": ignore_above,
        "corpus": {
            "files": [str(file.path) for file in files],
            "forms": dict(collections.Counter(file.form for file in files if not file.is_empty)),
            "empty_files": sum(file.is_empty for file in files),
            **totals,
            "broken": {str(files[i].path): broken for i, (_, broken) in sorted(found.lines.items()) if broken},
        },
        "datasets": results,
    }


def _hits_of_example(index: NgramIndex, parts: list[tuple[int, list[str]]], matched: np.ndarray) -> dict[str, Any]:
    numbers_of_all: list[np.ndarray] = []
    first: dict[str, Any] = {}
    for length, words in parts:
        starts, numbers = index.find(words, (length,))
        hits = np.flatnonzero(matched[numbers])
        if len(hits) and not first:
            start = starts[hits[0]]
            first = {"ngram": " ".join(words[start : start + length]), "number": int(numbers[hits[0]])}
        numbers_of_all.append(numbers)
    distinct = np.unique(np.concatenate(numbers_of_all)) if numbers_of_all else np.empty(0, np.int64)
    return first | {"matched": int(matched[distinct].sum()), "ngrams": len(distinct)}

"""Compares evaluated records with the text that a checkpoint was tuned on, for the results of an evaluation.

The tuning text is read from the token stores of PREPARED_DIR, which the manifest names by their digests. Comparisons
are kept in PREPARED_DIR/overlap, under the digests of both sides.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from flan_jax import catalog, content, templates
from flan_jax.data import token_store
from flan_jax.errors import FlanError, StorageError
from flan_jax.files import AnyPath, user_path, write_atomic
from flan_jax.overlap import seen
from flan_jax.overlap.ngrams import N

VERSION = 2  # version of the comparison; results of earlier ones are not used

_EXAMPLES_AT_ONCE = 1000


class Vocabulary(Protocol):
    """Turns tokens into text; see `data.vocabularies.Tokenizer`."""

    fingerprint: str

    def decode_all(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of tokens."""


def record_of(dataset: catalog.Dataset, row: Mapping[str, Any]) -> seen.Record:
    """A prepared record in the form that is searched for: what some forward template shows of it."""
    patterns = [dataset.templates[number].input for number in dataset.forward_templates]
    names = dict.fromkeys(name for pattern in patterns for name in templates.placeholders(pattern))
    texts, listed = [], []
    for name in names:
        value = row["fields"].get(name, "")
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list) and (name != templates.OPTIONS or not dataset.labels):
            listed += [text for text in value if isinstance(text, str)]
    return seen.Record(row["hash"], tuple(texts), tuple(listed))


# ------------------------------------------------------------------------------------------------ the tuning text


def unrecorded(tuning: Mapping[str, Any]) -> list[str]:
    """Why the text of a manifest's tuning is not completely known; empty if it is.

    Args:
      tuning: `tuning` of the manifest.
    """
    reasons = []
    if tuning["status"] == "unknown":
        reasons.append("nobody knows what it was tuned on")
    text = {entry["dataset"] for entry in tuning.get("text", ())}
    if missing := sorted(set(tuning["datasets"]) - text):
        reasons.append(f"the text of {', '.join(missing)} is not recorded")
    told = {catalog.dataset(name).cluster for name in {*tuning["datasets"], *text} if catalog.exists(name)}
    if clusters := sorted(set(tuning["clusters"]) - told):
        reasons.append(f"of {', '.join(clusters)} only the cluster is declared")
    return reasons


def store_of(
    prepared_dir: str | AnyPath, entry: Mapping[str, Any], fingerprint: str
) -> tuple[token_store.DatasetTokens | None, str]:
    """The token store with the records that a manifest's entry names, or the reason why there is none."""
    name = entry["dataset"]
    folders: list[Any] = sorted(user_path(prepared_dir).glob(f"tokens/{fingerprint[:16]}*/{name}"))
    infos = [(folder, token_store.read_info(folder) or {}) for folder in folders]
    # The same text first. The same records in another style show what they are, but not the words around them.
    for key in ("digest", "records_digest"):
        for folder, info in infos:
            if entry[key] is not None and info.get(key) == entry[key]:
                tokens = token_store.DatasetTokens(folder)
                if len(tokens.records.hashes):
                    return tokens, ""
    if infos:
        return None, f"{name} in {prepared_dir} is of other data or of an earlier version"
    return None, f"{prepared_dir} has no {name} for this vocabulary"


def search_store(search: seen.Search, tokens: token_store.DatasetTokens, vocabulary: Vocabulary | None) -> None:
    """Adds a token store to a search: its records, their texts, and the words of every rendering.

    Args:
      search: the search.
      tokens: the store.
      vocabulary: the vocabulary of its tokens; without it, no n-grams are compared.
    """
    search.hashes(np.asarray(tokens.records.hashes))
    texts = np.asarray(tokens.records.texts)
    search.texts(texts["record"], texts["key"])
    for start in range(0, len(tokens.index) if vocabulary is not None else 0, _EXAMPLES_AT_ONCE):
        numbers = range(start, min(start + _EXAMPLES_AT_ONCE, len(tokens.index)))
        words: list[str] = []
        for text in vocabulary.decode_all([part for number in numbers for part in tokens.example(number)]):
            words += content.normalized_words(text)
            words.append("")
        search.words(words)


# -------------------------------------------------------------------------------------------------------- results


def kin(dataset: catalog.Dataset, tuning: Mapping[str, Any]) -> dict[str, str]:
    """The datasets of the tuning that were made from the same texts as this one, and how they are related."""
    there = set(tuning["datasets"]) | {entry["dataset"] for entry in tuning.get("text", ())}
    of_clusters = {name for name in catalog.kin_of(dataset.name) if _cluster(name) in tuning["clusters"]}
    return {name: why for name, why in catalog.kin_of(dataset.name).items() if name in there | of_clusters}


def _cluster(name: str) -> str | None:
    return catalog.dataset(name).cluster if catalog.exists(name) else None


@dataclasses.dataclass(frozen=True)
class Overlap:
    """How much of some evaluation sets is in the text that a checkpoint was tuned on.

    Attributes:
      found: flags of the records, by evaluation set and by dataset of the tuning.
      reasons: why not all of the text was compared; empty if it was.
    """

    found: Mapping[str, Mapping[str, seen.Found]]
    reasons: tuple[str, ...]

    def whole(self, name: str) -> seen.Found | None:
        """The flags for an evaluation set in any of the text; None if nothing was compared."""
        parts = list(self.found[name].values())
        return functools.reduce(operator.or_, parts) if parts else None


def search(
    tuning: Mapping[str, Any],
    vocabulary: Vocabulary,
    prepared_dir: str | AnyPath,
    evaluated: Mapping[catalog.Dataset, Sequence[Mapping[str, Any]]],
    *,
    n: int = N,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Overlap:
    """Compares evaluated records with the text that a checkpoint was tuned on.

    Args:
      tuning: `tuning` of the checkpoint's manifest.
      vocabulary: the checkpoint's vocabulary.
      prepared_dir: PREPARED_DIR, with the token stores that it was tuned on.
      evaluated: the records of each dataset, from `data.examples.read`.
      n: words of an n-gram.
      progress: called with (what is read, done, total).
    """
    sets = [seen.Evaluated(d.name, lambda d=d, rows=rows: _records(d, rows)) for d, rows in evaluated.items()]
    reasons = unrecorded(tuning)
    stores: dict[str, list[token_store.DatasetTokens]] = {}
    for entry in tuning.get("text", ()):
        try:
            tokens, reason = store_of(prepared_dir, entry, vocabulary.fingerprint)
        except FlanError as error:
            tokens, reason = None, str(error)
        if tokens is None:
            reasons.append(reason)
        else:
            stores.setdefault(entry["dataset"], []).append(tokens)
    if not reasons and not stores:
        reasons.append("it was never tuned, so its manifest says")
    finder = None
    results: dict[str, dict[str, seen.Found]] = {one.name: {} for one in sets}
    digests = {one.name: _digest(one, n) for one in sets}
    total = sum(len(found) for found in stores.values())
    done = 0
    for name, found in stores.items():
        for tokens in found:
            progress(f"overlap with {name}", done, total)
            done += 1
            keys = {one: f"{digest[:16]}_{tokens.digest[:16]}" for one, digest in digests.items()}
            kept = {one: _kept(prepared_dir, key) for one, key in keys.items()}
            if any(part is None for part in kept.values()):
                finder = finder or seen.Finder(sets, n)
                search = seen.Search(finder)
                tokens.verify()
                search_store(search, tokens, vocabulary)
                all_found = search.found()
                for one, where in finder.places.items():
                    kept[one] = all_found.part(where)
                    _keep(prepared_dir, keys[one], kept[one])
            for one, part in kept.items():
                results[one][name] = results[one][name] | part if name in results[one] else part
    if done:
        progress("overlap", done, total)
    return Overlap(results, tuple(reasons))


def check(
    tuning: Mapping[str, Any],
    vocabulary: Vocabulary,
    prepared_dir: str | AnyPath,
    evaluated: Mapping[catalog.Dataset, Sequence[Mapping[str, Any]]],
    *,
    n: int = N,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, dict[str, Any]]:
    """Compares evaluated records with the text that a checkpoint was tuned on, and counts what was found.

    Args:
      tuning: `tuning` of the checkpoint's manifest.
      vocabulary: the checkpoint's vocabulary.
      prepared_dir: PREPARED_DIR, with the token stores that it was tuned on.
      evaluated: the records of each dataset, from `data.examples.read`.
      n: words of an n-gram.
      progress: called with (what is read, done, total).

    Returns:
      For each dataset:
      - "checked": whether all of the tuning text was compared; "reason": what was not, and why.
      - "n": words of an n-gram; "of": the number of records.
      - "identical", "text", "ngram": how many records are in the tuning text as a record, by a whole text, or by an
        n-gram; "seen": in any of these ways.
      - "short": records without a text of n words, which are only compared as a whole.
      - "tiny": records of fewer than 3 words in all, which only the same record matches.
      - "with": {dataset of the tuning: records seen in it}; "kin": {dataset of the tuning: how it is related}.
      The numbers are of what was compared; they are None if nothing was.
    """
    overlap = search(tuning, vocabulary, prepared_dir, evaluated, n=n, progress=progress)
    return {
        d.name: _entry(overlap, list(_records(d, rows)), d.name, n) | {"kin": kin(d, tuning)}
        for d, rows in evaluated.items()
    }


def _records(dataset: catalog.Dataset, rows: Sequence[Mapping[str, Any]]) -> Iterator[seen.Record]:
    return (record_of(dataset, row) for row in rows)


def _entry(overlap: Overlap, records: Sequence[seen.Record], name: str, n: int) -> dict[str, Any]:
    lengths = [[len(content.normalized_words(text)) for text in (*r.texts, *r.listed)] for r in records]
    tiny = sum(sum(each) < content.FEWEST for each in lengths)
    reasons = [*overlap.reasons, *filter(None, [seen.too_little(tiny, len(records))])]
    entry: dict[str, Any] = {
        "checked": not reasons,
        "reason": f"not checked: {'; '.join(reasons)}" if reasons else "",
        "n": n,
        "of": len(records),
        "short": sum(max(each, default=0) < n for each in lengths),
        "tiny": tiny,
        **dict.fromkeys((*seen.WAYS, "seen")),
        "with": {},
    }
    if (whole := overlap.whole(name)) is not None:
        entry |= {way: int(getattr(whole, way).sum()) for way in (*seen.WAYS, "seen")}
        entry["with"] = {other: int(part.seen.sum()) for other, part in overlap.found[name].items() if part.seen.any()}
    return entry


# ---------------------------------------------------------------------------------------------------------- cache


def _digest(one: seen.Evaluated, n: int) -> str:
    """A digest of the records as they are searched for, and of how."""
    found = hashlib.sha256(f"{VERSION} {n} {seen.COMMON}\n".encode())
    for record in one.records():
        found.update(content.content_hash({"is": record.hash, "texts": record.texts, "listed": record.listed}).encode())
    return found.hexdigest()


def _path(prepared_dir: str | AnyPath, key: str) -> AnyPath:
    return user_path(prepared_dir) / "overlap" / f"{key}.json"


def _kept(prepared_dir: str | AnyPath, key: str) -> seen.Found | None:
    try:
        kept = json.loads(_path(prepared_dir, key).read_text())
        flags = {way: np.zeros(kept["of"], bool) for way in seen.WAYS}
        for way in seen.WAYS:
            flags[way][kept[way]] = True
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return seen.Found(**flags)


def _keep(prepared_dir: str | AnyPath, key: str, found: seen.Found) -> None:
    kept = {"of": len(found.text)} | {way: np.flatnonzero(getattr(found, way)).tolist() for way in seen.WAYS}
    with contextlib.suppress(FlanError, StorageError):  # a folder that cannot be written costs time, but no result
        write_atomic(_path(prepared_dir, key), json.dumps(kept) + "\n")

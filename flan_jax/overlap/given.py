"""What an argument on the command line means: text that was tuned on, or records of an evaluation."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from flan_jax import catalog, parts, styles
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data import token_store, vocabularies
from flan_jax.errors import FlanError, unknown_name
from flan_jax.files import AnyPath, user_path
from flan_jax.overlap import contamination, evaluated, seen, texts
from flan_jax.parts import reading


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What was tuned on.

    Attributes:
      name: its name in the table.
      datasets: names of datasets of the catalog.
      clusters: all clusters that it was tuned on.
      search: adds its text to a search.
      reasons: what of its text cannot be compared, and why.
    """

    name: str
    datasets: frozenset[str]
    clusters: frozenset[str]
    search: Callable[[seen.Search], None]
    reasons: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the text of names is.

    Attributes:
      prepared: PREPARED_DIR, or None.
      data: a folder of JSONL, or None.
      vocabulary: of prepared tokens, see `vocabularies.load`; None if a checkpoint has it.
    """

    prepared: str | None = None
    data: str | None = None
    vocabulary: str | None = None

    def tokenizer(self) -> vocabularies.Tokenizer:
        """The vocabulary of prepared tokens; by default bytes."""
        return vocabularies.load(self.vocabulary or "bytes")


def tuned(given: str, places: Places) -> Tuned:
    """What an argument of --tuned means.

    Raises:
      FlanError: it is no folder, file or name, or its text is nowhere.
    """
    if (mixture := _mixture(given)) is not None:
        styled = {record.name: mixture.styles_of(record.name) for record in mixture.datasets}
        return _of_names(given, list(styled), places, styled)
    path = user_path(given)
    if (path / "manifest.json").is_file():
        return _of_checkpoint(path, places)
    if path.is_dir() and (path / "tokens").is_dir():
        names = sorted({found.name for found in path.glob("tokens/*/*") if not found.name.startswith(".")})
        return _of_names(given, names, dataclasses.replace(places, prepared=given, data=None))
    if files := _files(given):
        opened, reasons = _opened(files)
        return Tuned(given, frozenset(), frozenset(), lambda search: _search_files(search, opened, given), reasons)
    return _of_names(given, list(dict.fromkeys(catalog.whole(d.name) for d in _named(given))), places)


def _mixture(given: str) -> parts.Mixture | None:
    """The mixture in a file or a dictionary; None for anything else.

    Raises:
      FlanError: it is a mixture with a mistake.
    """
    try:
        found = reading.read(given)
    except FlanError:
        return None
    is_name = found == {"mixture": given}
    return parts.of(found) if not is_name and ("mixture" in found or "parts" in found) else None


@dataclasses.dataclass(frozen=True)
class _Files:
    """The files that an argument means.

    Attributes:
      lines: JSON lines, or what was given by its own path.
      others: other files in a folder.
    """

    lines: tuple[str, ...]
    others: tuple[str, ...] = ()


def _files(given: str) -> _Files | None:
    """The files of a path, a glob, or a folder with JSON lines in it or below; None for a name."""
    path = user_path(given)
    if path.is_dir():
        lines, others = texts.folder_files(path)
        if not any(texts.has_rows(found) for found in lines):
            raise FlanError(
                f"{given} is a folder without manifest.json, tokens/, examples/ or JSON lines: give a checkpoint, a "
                "prepared folder, or files."
            )
        return _Files(tuple(map(str, lines)), tuple(map(str, others)))
    is_path = path.exists() or glob.has_magic(given) or path.suffix or ("/" in given and not catalog.exists(given))
    return _Files((given,)) if is_path else None


def _opened(files: _Files) -> tuple[list[Any], tuple[str, ...]]:
    """The files of tuning text, and why other files in their folder cannot be compared."""
    opened, reasons = texts.open_files(files.lines), []
    for path in files.others:
        try:
            opened += texts.open_files((path,))
        except FlanError as error:
            reasons.append(str(error).rstrip("."))
    return opened, tuple(reasons)


def _search_files(search: seen.Search, files: Sequence[Any], given: str) -> None:
    if not texts.search_files(search, files, search.longest):
        raise FlanError(f"{given} holds no text: there is nothing to compare with.")


def _named(given: str) -> tuple[catalog.Dataset, ...]:
    names = [*(d.name for d in catalog.datasets()), *(c.name for c in catalog.clusters()), *catalog.mixture_names()]
    try:
        return catalog.named(given)
    except FlanError:
        try:
            return catalog.mixture(styles.split_name(given)[0])
        except FlanError as error:
            raise unknown_name(
                "file, folder, dataset, cluster or mixture", given, names, "Files are given by their path."
            ) from error


def _of_checkpoint(folder: AnyPath, places: Places) -> Tuned:
    manifest = Manifest.load(folder)
    tuning = manifest.tuning
    stores, reasons = [], evaluated.unrecorded(tuning)
    tokenizer = manifest.load_vocabulary(folder)
    for entry in tuning.get("text", ()):
        found, reason = None, f"the text of {entry['dataset']} is looked for in --prepared, which is not given"
        if places.prepared:
            found, reason = evaluated.store_of(places.prepared, entry, tokenizer.fingerprint)
        if found is None:
            reasons.append(reason)
        else:
            stores.append(found)
    if tuning["status"] == UNTUNED and not tuning["datasets"]:
        reasons.append("it was never tuned, so its manifest says")

    def search(one: seen.Search) -> None:
        for store in stores:
            evaluated.search_store(one, store, tokenizer)

    names = {*tuning["datasets"], *(entry["dataset"] for entry in tuning.get("text", ()))}
    return Tuned(folder.name, frozenset(names), frozenset(tuning["clusters"]), search, tuple(dict.fromkeys(reasons)))


def _of_names(
    given: str, names: Sequence[str], places: Places, styled: Mapping[str, Sequence[styles.TextStyle]] | None = None
) -> Tuned:
    """Datasets by name; their text is in the prepared folder (in the styles of a mixture) or in the folder of data."""
    records = [catalog.dataset(name) for name in names]
    if not places.prepared and not places.data:
        raise FlanError(f"{given} is a name: say with --prepared or --data where its text is.")
    reasons: list[str] = []
    stores: list[token_store.DatasetTokens] = []
    files: list[Any] = []
    tokenizer = places.tokenizer()
    for record in records:
        folders = sorted(user_path(places.prepared).glob(f"tokens/*/{record.name}")) if places.prepared else []
        own = [folder for folder in folders if folder.parent.name.startswith(tokenizer.fingerprint[:16])]
        if own and styled is not None:
            wanted = {f"{tokenizer.fingerprint[:16]}{style.suffix}": style.name for style in styled[record.name]}
            there = [folder for folder in own if folder.parent.name in wanted]
            missing = wanted.keys() - {folder.parent.name for folder in there}
            reasons += [f"{record.name} in {wanted[name]} is not in {places.prepared}" for name in sorted(missing)]
            own = there or own
        if own or folders:
            stores += map(token_store.DatasetTokens, (own if styled is not None and own else (own or folders)[:1]))
            if not len(stores[-1].records.hashes):
                reasons.append(f"the store of {record.name} does not say what its records are")
            if not own:
                reasons.append(f"n-grams of {record.name}: its tokens are of another vocabulary, give --vocabulary")
        elif places.data:
            try:
                files += texts.open_files(texts.data_files(places.data, record, ("train",)))
            except FlanError as error:
                reasons.append(str(error).rstrip("."))
        else:
            reasons.append(f"{record.name} is not in {places.prepared}")
    if not stores and not files:
        raise FlanError(f"the text of {given} is nowhere: {'; '.join(dict.fromkeys(reasons))}.")

    def search(one: seen.Search) -> None:
        for store in stores:
            matching = store.folder.parent.name.startswith(tokenizer.fingerprint[:16])
            evaluated.search_store(one, store, tokenizer if matching else None)
        texts.search_files(one, files, one.longest)

    clusters = frozenset(record.cluster for record in records)
    return Tuned(PurePosixPath(given).name, frozenset(names), clusters, search, tuple(dict.fromkeys(reasons)))


def evaluation_sets(given: str, places: Places) -> tuple[list[seen.Evaluated], list[str]]:
    """The evaluation sets that an argument of --evaluated means, and what of it cannot be compared and why.

    Raises:
      FlanError: it is no folder, file or name, or has no records.
    """
    path = user_path(given)
    if path.is_dir() and (path / "examples").is_dir():
        return [texts.of_prepared(path, record) for record in contamination.prepared_datasets(path)], []
    if files := _files(given):
        others = [f"{path} is no JSON lines" for path in files.others if not texts.is_about(user_path(path))]
        return [texts.of_files(given, texts.open_files(files.lines))], others
    found, reasons = [], []
    for record in _named(given):
        try:
            if places.prepared and (user_path(places.prepared) / "examples" / catalog.whole(record.name)).is_dir():
                found += [texts.of_prepared(places.prepared, one) for one in catalog.variants(record)]
            elif places.data:
                found.append(texts.of_data(places.data, record))
            else:
                raise FlanError(
                    f"{record.name} has no examples" + (f" in {places.prepared}" if places.prepared else "")
                )
        except FlanError as error:
            reasons.append(str(error).rstrip("."))
    if not found:
        raise FlanError(f"no records of {given}: {'; '.join(reasons)}; say with --prepared or --data where they are.")
    return found, reasons

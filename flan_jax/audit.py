"""Says which records of evaluation sets a model or a mixture has seen: by name, by kinship, as a record, by its text.

python -m flan_jax.audit --tuned runs/without_nli --evaluated nli --prepared prepared
python -m flan_jax.audit --tuned flan_without_nli more.jsonl --evaluated rte mine.jsonl --data data --json

--tuned: checkpoint folders, mixtures, datasets, clusters, prepared folders, folders of JSONL, files of JSON lines or
plain text. --evaluated: datasets, clusters, prepared folders, folders of JSONL, files of JSON lines. The text of a name
is taken from --prepared or --data. Exit status: 0 where nothing was seen, 1 where something was, 3 where nothing was
but not all could be compared, 2 for an error.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rich.console import Console
from rich.table import Table

from flan_jax import catalog, content, options, own_data, parts, styles
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data import token_store, vocabularies
from flan_jax.errors import FlanError, one_line_errors, unknown_name
from flan_jax.files import AnyPath, ready, user_path, write_atomic
from flan_jax.json_lines import to_json
from flan_jax.overlap import contamination, evaluated, seen, texts
from flan_jax.parts import reading
from flan_jax.values import Whole

NOTHING, SEEN, INCOMPLETE = 0, 1, 3  # exit statuses; 2 is an error
ALL = "all"  # the name of several texts together


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What was tuned on.

    Attributes:
      name: for the table.
      datasets: of the catalog, by name.
      clusters: all that it was tuned on.
      search: takes its text into a search.
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
      vocabulary: as `vocabularies.load` takes it, of prepared tokens; None where a checkpoint says it.
    """

    prepared: str | None = None
    data: str | None = None
    vocabulary: str | None = None

    def tokenizer(self) -> vocabularies.Tokenizer:
        """The vocabulary of prepared tokens; bytes by default."""
        return vocabularies.load(self.vocabulary or "bytes")


# ------------------------------------------------------------------------------------------------- what was tuned on


def tuned(given: str, places: Places) -> Tuned:
    """What a word of --tuned means.

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
    """The mixture of a file or a dictionary; None where it is something else.

    Raises:
      FlanError: it is one, with a mistake.
    """
    try:
        found = reading.read(given)
    except FlanError:
        return None
    is_name = found == {"mixture": given}
    return parts.of(found) if not is_name and ("mixture" in found or "parts" in found) else None


@dataclasses.dataclass(frozen=True)
class _Files:
    """Files that a word means.

    Attributes:
      lines: JSON lines, or what was given by its own path.
      others: what else lies in a folder.
    """

    lines: tuple[str, ...]
    others: tuple[str, ...] = ()


def _files(given: str) -> _Files | None:
    """The files of a path, a glob, or a folder with JSON lines in it or below; None where it is a name."""
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
    """The files of tuning text, and why others of their folder cannot be compared."""
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
    """Datasets by name, their text from the prepared folder, in the styles of a mixture, or the folder of data."""
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


# ---------------------------------------------------------------------------------------------- what is evaluated


def evaluation_sets(given: str, places: Places) -> tuple[list[seen.Evaluated], list[str]]:
    """The evaluation sets that a word of --evaluated means, and what of it cannot be compared and why.

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


# ------------------------------------------------------------------------------------------------------ comparison


def audit(
    tuned_on: Sequence[str],
    sets: Sequence[str],
    places: Places,
    n: int = evaluated.N,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Compares evaluation sets with what was tuned on.

    Args:
      tuned_on: checkpoints, names, folders and files.
      sets: names, folders and files.
      places: where the text of names is.
      n: words of an n-gram.
      progress: called with a line on what is being read.

    Returns:
      {"ngram", "status", "left_out", "rows": [{"evaluated", "tuned", "records", "short", "tiny", "passed_over":
      [names], "name": "dataset", "cluster" or "", "kin": {name: how}, "identical", "text", "ngram", "seen", "checked",
      "reason"}]}. Of several texts the last row of a set, with "tuned" "all", is their union. "passed_over": entries of
      files that are not looked for. "left_out": what of `sets` has no row, and why.

    Raises:
      FlanError: bad input.
    """
    meant = [evaluation_sets(given, places) for given in dict.fromkeys(sets)]
    unique = list({one.name: one for found, _ in meant for one in found}.values())
    left_out = list(dict.fromkeys(reason for _, reasons in meant for reason in reasons))
    sources = [tuned(given, places) for given in dict.fromkeys(tuned_on)]
    progress(f"reading {len(unique)} evaluation sets")
    finder = seen.Finder(unique, n)
    for name, where in finder.places.items():
        if where.start == where.stop:
            raise FlanError(f"evaluation set {name} has no records.")
    rows: dict[str, list[dict[str, Any]]] = {one.name: [] for one in unique}
    whole: seen.Found | None = None
    for source in sources:
        progress(f"reading {source.name}")
        search = seen.Search(finder)
        source.search(search)
        found = search.found()
        whole = found if whole is None else whole | found
        for one in unique:
            by_name = _by_name(one.name, source.datasets, source.clusters)
            kin = _kin(one.name, [*source.datasets, source.name])
            rows[one.name].append(_row(one.name, source.name, finder, found, by_name, kin, source.reasons))
    if len(sources) > 1:
        for name, listed in rows.items():
            words = next((row["name"] for row in listed if row["name"]), "")
            kin = {other: how for row in listed for other, how in row["kin"].items()}
            reasons = tuple(dict.fromkeys(row["reason"] for row in listed if row["reason"]))
            listed.append(_row(name, ALL, finder, whole, words, kin, reasons))
    listed = [row for found in rows.values() for row in found]
    anything = any(row["seen"] or row["name"] for row in listed)
    complete = not left_out and all(row["checked"] for row in listed)
    status = SEEN if anything else NOTHING if complete else INCOMPLETE
    return {"ngram": n, "status": status, "left_out": left_out, "rows": listed}


def _by_name(name: str, datasets: frozenset[str], clusters: frozenset[str]) -> str:
    """How a set was seen by its name: itself, or what the hold-out rule counts as its cluster."""
    if catalog.whole(name) in datasets:
        return "dataset"
    if catalog.exists(name) and catalog.shares_cluster(catalog.dataset(name), clusters):
        return "cluster"
    return ""


def _kin(name: str, others: Sequence[str]) -> dict[str, str]:
    """Kin of an evaluation set among names; one outside the catalog is known by what its name begins with."""
    if not catalog.exists(name):
        known = {other for record in catalog.datasets() for other, _ in record.kin if not catalog.exists(other)}
        name = next((other for other in sorted(known) if _outside(name, other)), name)
    found = {}
    for kin, how in catalog.kin_of(name).items():
        if any(other == kin or _outside(other, kin) for other in others):
            found[kin] = how
    return found


def _outside(given: str, kin: str) -> bool:
    parts = PurePosixPath(given).parts[-2:]
    return not catalog.exists(kin) and any(part.startswith(kin) for part in parts)


def _row(
    name: str,
    source: str,
    finder: seen.Finder,
    found: seen.Found,
    by_name: str,
    kin: Mapping[str, str],
    reasons: Sequence[str],
) -> dict[str, Any]:
    where = finder.places[name]
    part = found.part(where)
    counts = {way: int(getattr(part, way).sum()) for way in (*seen.WAYS, "seen")}
    short, tiny = (int(flags[where].sum()) for flags in (finder.short, finder.tiny))
    about = {"evaluated": name, "tuned": source, "records": where.stop - where.start, "short": short, "tiny": tiny}
    about["passed_over"] = finder.passed_over[name]
    if words := seen.too_little(tiny, where.stop - where.start):
        reasons = [*reasons, f"{_shown(name)}: {words}"]
    if common := int(finder.common[where].sum()):
        reasons = [
            *reasons,
            f"{_shown(name)}: {common:,} records show only short texts that over {seen.COMMON:,} records have, which "
            "tell nothing",
        ]
    reason = "; ".join(reasons)
    return about | {"name": by_name, "kin": dict(kin)} | counts | {"checked": not reasons, "reason": reason}


# ------------------------------------------------------------------------------------------------------------ shown


def table(results: Mapping[str, Any]) -> Table:
    """The results as one table."""
    n = results["ngram"]
    shown = Table(box=None, header_style="bold")
    for head in ("evaluated", "tuned on", "by name", "kin"):
        shown.add_column(head, overflow="fold")
    for head in ("records", "identical", "whole text", f"{n}-gram", "seen", "%"):
        shown.add_column(head, justify="right")
    shown.add_column("compared")
    for row in results["rows"]:
        percent = f"{100 * row['seen'] / row['records']:.1f}"
        numbers = (f"{row[name]:,}" for name in ("records", *seen.WAYS, "seen"))
        compared = "yes" if row["checked"] else "in part" if row["seen"] else "no"
        words = (_shown(row["evaluated"]), _shown(row["tuned"]), row["name"] or "–", ", ".join(row["kin"]) or "–")
        shown.add_row(*words, *numbers, percent, compared)
    return shown


def _shown(given: str) -> str:
    """A path without the folders far above."""
    return "/".join(PurePosixPath(given).parts[-2:])


def _notes(results: Mapping[str, Any]) -> list[str]:
    """What the table cannot say."""
    n, lines = results["ngram"], []
    own = [row for row in results["rows"] if row["tuned"] != ALL]
    for row in own:
        name = _shown(row["evaluated"])
        if row["short"]:
            lines.append(
                f"{name}: {row['short']:,} of {row['records']:,} records have no text of {n} words, so no {n}-gram "
                "can see them; their texts are matched whole."
            )
        if row["passed_over"]:
            lines.append(
                f"{name}: {', '.join(row['passed_over'])} not compared, being named like answers, labels, titles and "
                "ids; rename what a prompt shows."
            )
        if row["tiny"]:
            lines.append(
                f"{name}: {row['tiny']:,} records have under {content.FEWEST} words in all: only the same record "
                "matches them."
            )
    for row in own:
        lines += [f"{_shown(row['evaluated'])} and {kin}: {how}." for kin, how in row["kin"].items()]
    lines += [f"{_shown(row['tuned'])}: not all is compared: {row['reason']}." for row in own if row["reason"]]
    lines += [f"Not compared: {reason}." for reason in results["left_out"]]
    return list(dict.fromkeys(lines))


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, compares and prints."""
    parser = options.Parser(
        prog="python -m flan_jax.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tuned", nargs="+", required=True, type=options.path, help="what was tuned on")
    parser.add_argument("--evaluated", nargs="+", required=True, type=options.path, help="evaluation sets")
    parser.add_argument("--prepared", type=options.path, help="PREPARED_DIR, with the text of names and checkpoints")
    parser.add_argument("--data", type=options.path, help="folder of JSONL, with the text of names")
    parser.add_argument("--vocabulary", help="of prepared tokens: a folder or file, or bytes; a checkpoint has its own")
    parser.add_argument("--ngram", type=options.of(Whole(1, 1000)), default=evaluated.N, help="words in an n-gram")
    parser.add_argument("--to", type=options.path, help="JSON file to write the results to, too")
    parser.add_argument("--tasks", **options.TASKS)
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object, last line")
    with one_line_errors():
        arguments = parser.parse_args(argv)
        given = [*arguments.tuned, *arguments.evaluated]
        to = ready(user_path(arguments.to, "--to"), given) if arguments.to else None
        prepared, data = (None if p is None else str(p) for p in (arguments.prepared, arguments.data))
        for name, place in (("--prepared", prepared), ("--data", data)):
            if place is not None and not user_path(place, name).is_dir():
                raise FlanError(f"{name}={place} is no folder.")
        own_data.used_of(prepared)
        began = time.monotonic()
        results = audit(
            [str(given) for given in arguments.tuned],
            [str(given) for given in arguments.evaluated],
            Places(prepared, data, arguments.vocabulary),
            arguments.ngram,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
        results["seconds"] = round(time.monotonic() - began, 1)
        if to is not None:
            write_atomic(to, to_json(results, ascii_only=False, indent=1) + "\n")
        Console(width=None if sys.stdout.isatty() else 200).print(table(results))
        for line in _notes(results):
            print(line)
        if arguments.json:
            print(to_json(results))
        if results["status"] != NOTHING:
            sys.stdout.flush()
            sys.exit(results["status"])


if __name__ == "__main__":
    main()

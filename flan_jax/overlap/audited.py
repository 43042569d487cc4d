"""Compares evaluation sets with what was tuned on: by name, by kinship, as a record, and by their text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from flan_jax import catalog
from flan_jax.errors import FlanError
from flan_jax.overlap import evaluated, seen
from flan_jax.overlap.given import Places, evaluation_sets, tuned

NOTHING, SEEN, INCOMPLETE = 0, 1, 3  # exit statuses; 2 is an error
ALL = "all"  # the name of several texts together


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
      progress: called with a line about what is being read.

    Returns:
      {"ngram", "status", "left_out", "rows": [{"evaluated", "tuned", "records", "short", "tiny", "passed_over":
      [names], "name": "dataset", "cluster" or "", "kin": {name: how}, "identical", "text", "ngram", "seen", "checked",
      "reason"}]}. With several texts, the last row of a set has "tuned" "all" and is their union. "passed_over" lists
      entries of files that are not searched for. "left_out" lists those of `sets` without a row, and why.

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
    """How the name shows that a set was seen: by itself, or by what the hold-out rule counts as its cluster."""
    if catalog.whole(name) in datasets:
        return "dataset"
    if catalog.exists(name) and catalog.shares_cluster(catalog.dataset(name), clusters):
        return "cluster"
    return ""


def _kin(name: str, others: Sequence[str]) -> dict[str, str]:
    """An evaluation set's kin among names. Kin outside the catalog is recognized by the start of a name."""
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
        reasons = [*reasons, f"{short_name(name)}: {words}"]
    if common := int(finder.common[where].sum()):
        reasons = [
            *reasons,
            f"{short_name(name)}: {common:,} records show only short texts that over {seen.COMMON:,} records have, "
            "which tell nothing",
        ]
    reason = "; ".join(reasons)
    return about | {"name": by_name, "kin": dict(kin)} | counts | {"checked": not reasons, "reason": reason}


def short_name(given: str) -> str:
    """The last folders of a path."""
    return "/".join(PurePosixPath(given).parts[-2:])

"""Says what in a user's data folder is not used, and why, so that nobody believes that it is."""

from __future__ import annotations

import collections
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from flan_jax import catalog
from flan_jax.errors import FlanError
from flan_jax.splits import SplitSlice, resolve_splits
from flan_jax.wording import counted

_SPLITS = {"train": "train", "validation": "dev", "test": "test"}  # and other names that people use for them
_LIKE_DATA = (*_SPLITS, "dev", "json")  # parts of names of files that a user may expect to be read
_SUFFIX = ".jsonl"
_SHOWN_ROWS = 5  # how many bad rows of a file are shown
_SHOWN_FILES = 3  # how many files of a folder without data are shown


def lines(bad_rows: Iterable[str], notes: Iterable[str]) -> Iterator[str]:
    """The lines to print: the first bad rows of each file and how many more it has, then notes.

    Each line is printed once, because variants may share a file.
    """
    by_place: dict[str, list[str]] = collections.defaultdict(list)
    for row in dict.fromkeys(bad_rows):
        by_place[re.split(r" (?:line|record) ", row, maxsplit=1)[0]].append(row)
    for place, rows in by_place.items():
        yield from rows[:_SHOWN_ROWS]
        if len(rows) > _SHOWN_ROWS:
            yield f"{counted(len(rows) - _SHOWN_ROWS, 'more rows')} of {place}"
    yield from dict.fromkeys(notes)


def split_files(record: catalog.Dataset, folder: Path) -> tuple[list[Path], list[Path]]:
    """(files of splits, other files) in a dataset's folder, in order.

    A split is one that a dataset with that folder declares, or train, validation or test. Hidden files, such as
    ._train.jsonl, are ignored.
    """
    seen = sorted(folder.iterdir()) if folder.is_dir() else []
    seen = [file for file in seen if not file.name.startswith(".")]
    given = [file for file in seen if file.suffix == _SUFFIX and file.stem in _names(record)]
    return given, [file for file in seen if file not in given]


def foreign_files(record: catalog.Dataset, others: Sequence[Path]) -> list[str]:
    """Notes on files that look like data but are no splits.

    Args:
      record: the dataset.
      others: the files in its folder that are no splits.
    """
    alike = [file for file in others if not file.is_dir() and _looks_like_data(file)]
    return [f"{_named(file)}, {_why_not(record, file)}" for file in sorted(alike, key=lambda f: f.suffix != _SUFFIX)]


def but(record: catalog.Dataset, others: Sequence[Path]) -> str:
    """What a folder without any split has instead, for an error message; empty if it has nothing."""
    shown = [file for file in others if not file.is_dir()]
    if not shown:
        return ""
    named = ", ".join(file.name for file in shown[:_SHOWN_FILES]) + (" ..." if len(shown) > _SHOWN_FILES else "")
    why = [_why_not(record, file) for file in shown if file.suffix == _SUFFIX]
    return f" (it has {named}, {why[0] if why else f'not {_SUFFIX}'})"


def _looks_like_data(file: Path) -> bool:
    return file.suffix == _SUFFIX or any(part in file.name.lower() for part in _LIKE_DATA)


def _why_not(record: catalog.Dataset, file: Path) -> str:
    if file.suffix != _SUFFIX:
        return f"which does not end in {_SUFFIX}"
    return f"whose name is no split ({', '.join(sorted(_names(record)))})"


def unread_rows(
    record: catalog.Dataset,
    given: Sequence[Path],
    sizes: Mapping[str, int],
    splits: Mapping[str, SplitSlice],
) -> list[str]:
    """Notes on usable rows that no split uses, neither of this dataset nor of another one with the same folder.

    Args:
      record: the dataset.
      given: the JSONL files in its folder.
      sizes: the number of usable rows of each file, by the file's name without suffix.
      splits: what the dataset uses.
    """
    taken = [splits]
    for other in catalog.datasets():
        if other.folder == record.folder and other != record:
            with contextlib.suppress(FlanError):  # it has no data here
                taken.append(resolve_splits(other, sizes))
    sources: dict[str, dict[str, None]] = {}  # split: the files that it comes from
    # File: (first row, last row, user of these rows).
    parts: dict[str, list[tuple[int, int, str]]] = collections.defaultdict(list)
    for split, shown in _SPLITS.items():
        for part in (of[split] for of in taken if split in of):
            sources.setdefault(shown, {})[part.split] = None
            parts[part.split].append((part.start, part.stop, f"{shown} takes {part.size:,}"))
    come = ", ".join(f"{split} from {' and '.join(files)}" for split, files in sources.items())
    notes = []
    for file in given:
        size, of_file = sizes.get(file.stem, 0), parts[file.stem]
        if not size:
            continue
        used = _length((start, stop) for start, stop, _ in of_file)
        if not of_file:
            notes.append(f"{_named(file)}, {counted(size, 'rows')} that no split takes ({come})")
        elif used < size:
            takers = ", ".join(dict.fromkeys(taker for *_, taker in of_file))
            notes.append(f"{size - used:,} of {counted(size, 'rows')} of {_named(file)} ({takers})")
    return notes


def _length(ranges: Iterable[tuple[int, int]]) -> int:
    """How many rows are in any of the ranges."""
    total = reached = 0
    for start, stop in sorted(ranges):
        total += max(0, stop - max(start, reached))
        reached = max(reached, stop)
    return total


def _named(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def _names(record: catalog.Dataset) -> set[str]:
    rules = [other.splits for other in catalog.datasets() if other.folder == record.folder]
    declared = {name for rule in rules for name in (rule.train, rule.dev, rule.test) if name}
    return {*_SPLITS, *declared}

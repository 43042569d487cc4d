"""Dev and test examples for the evaluator: one JSON line for each example, with its fields before any template.

    PREPARED_DIR/examples/<dataset>/{dev,test,exemplars}.jsonl, info.json

A line is {"id", "hash", "fields"}. The id says where the example was: "12#3" is the third turn of record "12",
"12#fr-en" a direction. The hash identifies its content. All variants of a dataset are in one file, and the field
`variant` says which one an example belongs to. `info.json` has a digest of each file, so that a changed file, or one of
other data, is never used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flan_jax import catalog, content
from flan_jax.data import again
from flan_jax.data.token_store import read_info
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, local, user_path, whole_folder
from flan_jax.json_lines import as_unicode, read_json_lines
from flan_jax.templates import OPTIONS

VERSION = 3  # version of the folder's form; the first had no hashes, the second one example for each record
DEV, TEST, EXEMPLARS = "dev", "test", "exemplars"
EVALUATED = (TEST, DEV)
# Names of files, and what `splits.resolve_splits` calls them.
SPLITS = {DEV: "validation", TEST: "test", EXEMPLARS: "train"}

_BLOCK = 1 << 20


def write_folder(
    folder: AnyPath,
    rows: Mapping[str, Iterable[tuple[str, Mapping[str, Any]]]],
    about: Mapping[str, Any] | None = None,
    after: Callable[[], Mapping[str, Any]] = dict,
) -> dict[str, Any]:
    """Writes the examples of a dataset, whole or not at all, and replaces existing ones.

    Args:
      folder: PREPARED_DIR/examples/<dataset>.
      rows: (id, fields) of the records of "dev", "test" and "exemplars", as far as they exist.
      about: further entries of info.json.
      after: called when all are written; its result is added to info.json.

    Returns:
      The info: {"version", "files": {name: {"records", "sha256", "content"}}, "sizes": {name: records}, ...}; `content`
        is a
      digest of the records' hashes.

    Raises:
      FlanError: a text has a lone surrogate, which no UTF-8 file can hold.
    """
    files = {}
    with whole_folder(folder) as building:
        for name, found in rows.items():
            hashes, whole = [], hashlib.sha256()
            with (building / f"{name}.jsonl").open("wb") as file:
                for identity, fields in found:
                    hashes.append(content.content_hash(fields))
                    row = {"id": identity, "hash": hashes[-1], "fields": fields}
                    line = _line(row, f"{folder / name}.jsonl")
                    whole.update(line)
                    file.write(line)
            files[name] = {
                "records": len(hashes),
                "sha256": whole.hexdigest(),
                "content": content.digest(hashes),
            }
        sizes = {name: file["records"] for name, file in files.items()}
        info = {"version": VERSION, **(about or {}), "files": files, "sizes": sizes, **after()}
        (building / "info.json").write_text(json.dumps(info, indent=1) + "\n")
    return info


def _line(row: Mapping[str, Any], place: str) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError as error:
        parts = {"id": row["id"], **{f"field {name!r}": value for name, value in row["fields"].items()}}
        where = next(name for name, value in parts.items() if as_unicode(value) != value)
        raise FlanError(
            f"record {as_unicode(row['id'])!r} of {place}: its {where} has a lone surrogate "
            f"({error.object[error.start]!a}), which UTF-8 cannot hold: mend that text, or leave the record out."
        ) from error


def read(prepared_dir: str | AnyPath, dataset: str, split: str, limit: int | None = None) -> list[dict[str, Any]]:
    """Reads PREPARED_DIR/examples/<dataset>/<split>.jsonl.

    Args:
      prepared_dir: the folder that `flan_jax.prepare` wrote.
      dataset: the name of a dataset, or of a variant; then only its examples are read.
      split: "dev", "test" or "exemplars".
      limit: how many to read, from the first; None for all.

    Returns:
      {"id": str, "hash": str, "fields": {name: str or list of str}} for each example.

    Raises:
      FlanError: the file is missing, broken, has changed, or is of an earlier version. A missing dev file gives an
        empty list, since a source may have test data only.
    """
    wanted = catalog.dataset(dataset).variant if catalog.exists(dataset) else ""
    dataset = catalog.whole(dataset)
    folder = user_path(prepared_dir) / "examples" / dataset
    path = folder / f"{split}.jsonl"
    info = read_info(folder)
    anew = f"run {again.command(dataset, prepared_dir, info, overwrite=True)}"
    if split not in _files(info) and not path.exists():
        if split == DEV and folder.exists():
            return []
        what = "exemplars" if split == EXEMPLARS else f"{split} examples"
        if split in EVALUATED and folder.exists() and "--datasets" not in anew:
            raise FlanError(
                f"no {what} of {dataset!r} in {prepared_dir}: {anew} --{split}=NUMBER, which holds so many back."
            )
        raise FlanError(
            f"no {what} of {dataset!r} in {prepared_dir}: run {again.command(dataset, prepared_dir, info)}."
        )
    if info is None or info.get("version") != VERSION:
        raise FlanError(
            f"examples of {dataset!r} in {prepared_dir} are of an earlier version of FLAN-JAX, which said less of each "
            f"and had fewer of some: {anew}."
        )
    try:
        here = local(path)
    except FileNotFoundError as error:
        raise FlanError(f"{path} is missing, though info.json names it: {anew}.") from error
    if _digest(here) != _file(info, split).get("sha256"):
        raise FlanError(f"{path} is not as it was prepared (its digest differs from info.json): {anew}.")
    rows: list[Any] = []
    for line in read_json_lines(here, str(path)):
        if limit is not None and len(rows) >= limit:
            break
        row = line.value
        is_row = isinstance(row, dict) and isinstance(row.get("fields"), dict)
        if not is_row or not all(isinstance(row.get(key), str) for key in ("id", "hash")):
            raise FlanError(f"{path} line {line.number} is broken; prepare {dataset!r} again with --overwrite: {anew}.")
        if wanted and row["fields"].get(catalog.VARIANT) != wanted:
            continue
        rows.append({"id": row["id"], "hash": row["hash"], "fields": row["fields"]})
    return rows


def has(prepared_dir: str | AnyPath, dataset: str, split: str) -> bool:
    """Whether a split of a dataset was prepared. A variant counts as its dataset."""
    folder = user_path(prepared_dir) / "examples" / catalog.whole(dataset)
    return split in _files(read_info(folder)) or (folder / f"{split}.jsonl").exists()


def identity(prepared_dir: str | AnyPath, dataset: str, split: str) -> dict[str, Any] | None:
    """Which records a split of a dataset has: {"records": how many, "digest": of their hashes}; None if unknown."""
    found = _file(read_info(user_path(prepared_dir) / "examples" / catalog.whole(dataset)), split)
    if not {"records", "content"} <= found.keys():
        return None
    return {"records": found["records"], "digest": found["content"]}


class UnusableError(FlanError):
    """An example that cannot be asked, or whose answer cannot be scored."""


def check(fields: Mapping[str, Any], shown: Iterable[str], ranked: bool) -> None:
    """Checks that a prompt and a score can be made from fields. The files may come from another program.

    Args:
      fields: the example's fields.
      shown: the names of the fields that a prompt shows.
      ranked: whether it must have options.

    Raises:
      UnusableError: a shown field is not text, no option is the answer, or there is no answer.
    """
    for name, value in fields.items():
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str) for text in texts):
            raise UnusableError(f"field {name!r} is no text and no list of texts.")
    for name in shown:
        if not isinstance(fields.get(name), str):
            raise UnusableError(f"there is no text for {name!r}.")
    answer = fields.get("answer", "")
    if ranked:
        options = fields.get(OPTIONS)
        if not isinstance(options, list) or not options:
            raise UnusableError("it has no list of options.")
        if answer not in options:
            raise UnusableError("its answer is not one of its options.")
    references = fields.get("references") or answer
    references = [references] if isinstance(references, str) else references
    if not all(map(str.strip, references)):
        raise UnusableError("its answer is empty.")


def _files(info: Mapping[str, Any] | None) -> Mapping[str, Any]:
    files = (info or {}).get("files")
    return files if isinstance(files, dict) else {}


def _file(info: Mapping[str, Any] | None, split: str) -> Mapping[str, Any]:
    found = _files(info).get(split)
    return found if isinstance(found, dict) else {}


def _digest(path: Path) -> str:
    whole = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                whole.update(block)
    except OSError:
        return ""
    return whole.hexdigest()

"""The token store: training examples on disk, memory-mapped. They are rendered and tokenized once for each vocabulary.

    PREPARED_DIR/tokens/<vocabulary>[_<style>]/<dataset>/{tokens.bin, index.npy, hashes.npy, ids.npy, texts.npy,
      info.json}

`tokens.bin` holds the inputs, then the targets of every example, without BOS and EOS. Rendering r of record i (of n
records) is at index r x n + i. Hashes, ids and texts identify the records, see `identity`. Changing a mixture, a
hold-out or a rate never tokenizes again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import os
import shlex
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax import styles
from flan_jax.data import again, staging
from flan_jax.data.identity import Identities
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, RemotePath, staging_home, user_path, whole_folder
from flan_jax.json_lines import from_json

VERSION = 2  # version of the folder's form; the first had no hashes

# In the info of conversations that a chat template wrote: its digest, and the last token of its prompts.
TEMPLATE, SEPARATOR = "chat_template", "separator"
_PART = 1 << 24  # bytes of a file that are read at a time

INDEX = np.dtype(
    [
        ("offset", np.int64),
        ("input_length", np.int32),
        ("target_length", np.int32),
        ("template", np.int16),
        ("record", np.int32),
    ]
)


@dataclasses.dataclass(frozen=True)
class TokenizedExample:
    """One rendering of one record, without BOS and EOS."""

    inputs: Sequence[int]
    targets: Sequence[int]
    template: int
    record: int


def folder_of(prepared_dir: str | AnyPath, fingerprint: str, style: styles.TextStyle = styles.PAPER) -> AnyPath:
    """The folder of a vocabulary's datasets in a style."""
    return user_path(prepared_dir) / "tokens" / f"{fingerprint[:16]}{style.suffix}"


def write_dataset(
    folder: str | AnyPath,
    info: dict[str, Any],
    examples: Iterable[TokenizedExample],
    after: Callable[[], dict[str, Any]] = dict,
    records: Identities | None = None,
) -> dict[str, Any]:
    """Writes one dataset, whole or not at all, and replaces an existing one.

    Only one process at a time may write a folder.

    Args:
      folder: .../tokens/<vocabulary>/<dataset>.
      info: `num_records`, `renderings`, `vocab_size`, and other entries to keep.
      examples: renderings in the order of their index: all records of rendering 0, then of rendering 1, ...
      after: called when all examples are written; its result is added to the info.
      records: the identities of the records; without them, no text can be compared with them.

    Returns:
      The written info, with counts, checksums, a `digest` of all files, and a `records_digest` of the records alone,
      which is the same for every vocabulary, style and seed.

    Raises:
      FlanError: the disk is full or refuses the files; an earlier folder is then unchanged.
    """
    folder = user_path(folder)
    with whole_folder(folder) as building:
        dtype = np.dtype(np.uint16 if info["vocab_size"] <= 1 << 16 else np.uint32)
        rows, offset, checksum = [], 0, 0
        whole = hashlib.sha256()
        with (building / "tokens.bin").open("wb") as file:
            for example in examples:
                content = np.asarray([*example.inputs, *example.targets], dtype).tobytes()
                checksum = zlib.crc32(content, checksum)
                whole.update(content)
                file.write(content)
                lengths = len(example.inputs), len(example.targets)
                rows.append((offset, *lengths, example.template, example.record))
                offset += sum(lengths)
        index = np.array(rows, INDEX)
        records = records or Identities.of(())
        arrays = {"index": index, "hashes": records.hashes, "ids": records.ids, "texts": records.texts}
        for name, array in arrays.items():
            np.save(building / f"{name}.npy", array)
            whole.update(array.tobytes())
        info = {
            "version": VERSION,
            **info,
            **after(),
            "num_examples": len(index),
            "num_tokens": offset,
            "mean_input_length": float(index["input_length"].mean()) if len(index) else 0.0,
            "mean_target_length": float(index["target_length"].mean()) if len(index) else 0.0,
            "tokens_dtype": dtype.name,
            "tokens_crc32": checksum,
            **{f"{name}_crc32": zlib.crc32(array.tobytes()) for name, array in arrays.items()},
            "records_digest": records.digest,
            "digest": whole.hexdigest(),
        }
        (building / "info.json").write_text(json.dumps(info, indent=1) + "\n")
    return info


def read_info(folder: str | AnyPath) -> dict[str, Any] | None:
    """A dataset's info.json; None if there is none that can be read."""
    try:
        info = from_json((user_path(folder) / "info.json").read_bytes())
    except (OSError, ValueError):
        return None
    return info if isinstance(info, dict) else None


def data_of(prepared_dir: str | AnyPath) -> str:
    """What --data was for all that is in PREPARED_DIR, quoted; FOLDER where it is not known, or was not the same."""
    place = user_path(prepared_dir)
    each = [*place.glob("examples/*/info.json"), *place.glob("tokens/*/*/info.json")]
    found = {str((read_info(path.parent) or {}).get(again.DATA, "")) for path in each}
    return shlex.quote(found.pop() or "FOLDER") if len(found) == 1 else "FOLDER"


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    """A file as an array. An empty file, which cannot be mapped, gives an empty array."""
    return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)


def _checksum(path: Path, array: np.ndarray) -> int:
    """The CRC-32 of an array in a file.

    It is read in parts, because mapped pages would count as memory of this process.
    """
    found = 0
    with path.open("rb") as file:
        file.seek(-array.nbytes, os.SEEK_END)  # after the header
        while part := file.read(_PART):
            found = zlib.crc32(part, found)
    return found


class DatasetTokens:
    """The tokenized examples of one dataset.

    Attributes:
      name: the dataset's name.
      info: its info.json.
      num_records: n.
      renderings: the number of renderings of each record.
      index: structured array of `INDEX`, one entry for each example.
      tokens: the tokens of all examples; `index` says where each lies.
      folder: its folder.
      records: the identities of the records; empty if they are unknown.
    """

    def __init__(self, folder: AnyPath) -> None:
        self.name = folder.name
        self.folder = folder
        if isinstance(folder, RemotePath):
            try:
                folder = staging.staged(folder)
            except FileNotFoundError as error:
                raise self._corrupt("info.json cannot be read") from error
        self._here = folder
        info = read_info(folder)
        if info is None:
            raise self._corrupt("info.json cannot be read")
        if info.get("version") != VERSION:
            raise FlanError(
                f"token store of {self.name!r} in {folder} is of an earlier version of FLAN-JAX, which kept no hashes "
                f"of records; run {self._again()}."
            )
        self.info = info
        try:
            names = ("index", "hashes", "ids", "texts")
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
            self.index = arrays.pop("index")
            self.records = Identities(**arrays)
            self._tokens = _mapped(folder / "tokens.bin", np.dtype(info["tokens_dtype"]))
            self.tokens = self._tokens.view(np.ndarray)  # a slice of it costs a fifth of a slice of the map
            self._checksum = info["tokens_crc32"]
            self.num_records, self.renderings = int(info["num_records"]), int(info["renderings"])
            complete = len(self.index) == info["num_examples"] and len(self._tokens) == info["num_tokens"]
            same = complete and _checksum(folder / "index.npy", self.index) == info["index_crc32"]
            files = ((name, _checksum(folder / f"{name}.npy", array)) for name, array in arrays.items())
            changed = [name for name, found in files if found != info[f"{name}_crc32"]]
        except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
            raise self._corrupt(f"{type(error).__name__}: {error}") from error
        if not complete:
            raise self._corrupt("files are shorter or longer than they were written")
        if not same or self.index.dtype != INDEX:
            raise self._corrupt("index.npy has changed")
        if changed:
            raise self._corrupt(f"{changed[0]}.npy has changed")

    @property
    def digest(self) -> str:
        """A digest of everything that is stored: tokens, index and records."""
        return self.info["digest"]

    def example(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The inputs and targets of an example, int32, without BOS and EOS."""
        entry = self.index[number]
        middle = entry["offset"] + entry["input_length"]
        tokens = self.tokens[entry["offset"] : middle + entry["target_length"]].astype(np.int32)
        return tokens[: entry["input_length"]], tokens[entry["input_length"] :]

    def first(self, count: int) -> np.ndarray:
        """Whether each record is among the first `count` by content hash, bool [n].

        Equal records are ordered by their numbers. The order is the same on all hosts, in all styles and vocabularies,
        and wherever the rows were in a file.

        Raises:
          FlanError: the identities of the records are unknown.
        """
        hashes = np.asarray(self.records.hashes)
        if not len(hashes):
            raise FlanError(
                f"token store of {self.name!r} does not say what its records are, so that none can be chosen: "
                f"run {self._again()}; or leave 'examples' out of RATES."
            )
        chosen = np.zeros(len(hashes), bool)
        chosen[np.argsort(hashes, kind="stable")[:count]] = True
        return chosen

    def entries(self, count: int = 1 << 20) -> Iterator[np.ndarray]:
        """Yields the index in order, in parts of `count` entries, read and not mapped."""
        with (self._here / "index.npy").open("rb") as file:
            file.seek(-self.index.nbytes, os.SEEK_END)
            while len(part := np.fromfile(file, INDEX, count)):
                yield part

    def forget(self) -> None:
        """Frees the memory for what was read of the mapped files. It is read again when needed."""
        for array in (self.index, self._tokens):
            if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                array.base.madvise(mmap.MADV_DONTNEED)

    def verify(self) -> None:
        """Reads every token and compares the checksum.

        Raises:
          FlanError: the tokens have changed.
        """
        if _checksum(self._here / "tokens.bin", self._tokens) != self._checksum:
            raise self._corrupt("tokens.bin has changed")

    def _corrupt(self, reason: str) -> FlanError:
        if isinstance(self.folder, RemotePath) and staging_home().exists():
            reason += f"; if the copy in {staging_home()} alone is, remove it"
        return FlanError(f"token store of {self.name!r} in {self.folder} is corrupt ({reason}); run {self._again()}.")

    def _again(self) -> str:
        """The command that prepares it again."""
        place = self.folder.parent.parent.parent  # PREPARED_DIR/tokens/<vocabulary>/<dataset>
        return again.command(self.name, place, read_info(self.folder), tokens=True, overwrite=True)


class TokenStore:
    """The tokenized datasets of one vocabulary and style."""

    def __init__(self, folder: AnyPath) -> None:
        self._folder = folder
        self._open: dict[str, DatasetTokens] = {}
        self._known: tuple[str, ...] = ()  # names that were found when the folder was last listed

    @classmethod
    def open(cls, prepared_dir: str | AnyPath, fingerprint: str, style: styles.TextStyle = styles.PAPER) -> TokenStore:
        """Opens the store of a vocabulary and a style.

        Raises:
          FlanError: nothing was prepared there for them.
        """
        folder = folder_of(prepared_dir, fingerprint, style)
        if not folder.is_dir():
            styled = "" if style == styles.PAPER else f" --style={style.name}"
            there: Iterable[AnyPath] = folder.parent.iterdir() if folder.parent.is_dir() else ()
            others = [one for one in there if one.name[len(folder.name) - len(style.suffix) :] == style.suffix]
            other = "it holds another's: give --vocabulary or the checkpoint that it was prepared for, or "
            prepare = f"run python -m flan_jax.prepare --data={data_of(prepared_dir)} "
            prepare += f"--vocabulary=CHECKPOINT/vocabulary{styled} --to={prepared_dir}"
            if not user_path(prepared_dir).is_dir():
                raise FlanError(f"no folder {prepared_dir} of prepared data: {prepare}, or give another folder.")
            raise FlanError(
                f"nothing prepared in {prepared_dir} for this vocabulary ({fingerprint[:16]}) and style {style.name}; "
                f"{other if others else ''}{prepare}."
            )
        return cls(folder)

    @property
    def names(self) -> tuple[str, ...]:
        """The datasets in the store."""
        folders: list[Any]
        if isinstance(self._folder, RemotePath):  # one request for each would be slow
            folders = [path.parent for path in self._folder.glob(f"*/{staging.INFO}")]
        else:
            folders = [path for path in self._folder.iterdir() if path.is_dir()]
        self._known = tuple(sorted(path.name for path in folders if not path.name.startswith(".")))
        return self._known

    def __getitem__(self, name: str) -> DatasetTokens:
        """The tokens of a dataset, verified when first opened.

        Raises:
          FlanError: it is not there, or corrupt.
        """
        if name not in self._open:
            if name not in self._known and name not in self.names:
                raise FlanError(
                    f"dataset {name!r} is not in {self._folder}; there are: {', '.join(self._known) or 'none'}. "
                    f"Run {again.command(name, self._folder.parent.parent, tokens=True)}."
                )
            tokens = DatasetTokens(self._folder / name)
            tokens.verify()
            self._open[name] = tokens
        return self._open[name]

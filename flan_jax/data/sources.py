"""Where records come from: TFDS, a folder of local JSONL that is imported into TFDS's form, or the bundled samples.

A dead source never stops the rest: `open_all` names it, with what to do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import shutil
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle as tfds_shuffle

from flan_jax import catalog, own_data
from flan_jax.data import again, left_out, network, usable
from flan_jax.data.local_rows import BadRow, FileRows, read_fields
from flan_jax.data.samples import SAMPLES, TFDS, samples_folder
from flan_jax.errors import FlanError, StorageError, cannot, near_names, system_error_number
from flan_jax.files import AnyPath, RemotePath, home, local, user_path, written
from flan_jax.splits import SplitSlice, resolve_splits
from flan_jax.values import OUR_DATA

# TFDS sorts the rows that it writes by a hash, a gigabyte at a time. In buckets on the disk it takes as long.
tfds_shuffle.MAX_MEM_BUFFER_SIZE, tfds_shuffle.BUCKETS_NUMBER = 64 * 2**20, 256

_SCHEMAS: dict[str, tfds.features.FeaturesDict] = {}  # of imported sources; TensorFlow traces each once

# A builder without own data looks for figures in a bucket that TFDS itself has switched off. Each look leaves an empty
# temporary folder.
tfds.core.DatasetInfo.initialize_from_bucket = lambda self: None


class SourceError(FlanError):
    """A source that cannot be opened, with the reason and the remedy."""

    def __init__(self, dataset: str, reason: str, remedy: str, refused: bool = False) -> None:
        super().__init__(f"dataset {dataset}: {reason}; {remedy}.")
        self.skipped = Skipped(dataset, reason, remedy, refused)


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A dataset that was left out.

    Attributes:
      dataset: its name.
      reason: why.
      remedy: what to do.
      refused: whether its data are fine, but this machine's disk is full or refuses such a file.
    """

    dataset: str
    reason: str
    remedy: str
    refused: bool = False


@dataclasses.dataclass(frozen=True)
class OpenSource:
    """A dataset's records, ready to be read.

    Attributes:
      builder: the TFDS builder.
      splits: `train`, `validation` (dev) and `test`, those that exist.
      origin: where the data came from, for reports.
      content: identifies the records, wherever they are.
      bad_rows: rows of local JSONL that were left out.
      notes: what else of local JSONL is not used, one line for each file: rows without a label, an empty file.
      data: the --data that they were read from, by its whole path.
    """

    builder: tfds.core.DatasetBuilder
    splits: dict[str, SplitSlice]
    origin: str
    content: str
    bad_rows: tuple[BadRow, ...] = ()
    notes: tuple[str, ...] = ()
    data: str = ""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Lines about rows and files that are not used. None for our samples, which have such rows on purpose."""
        return () if self.origin == SAMPLES else tuple(left_out.lines(map(str, self.bad_rows), self.notes))

    def read(self, split: str, shuffle: bool = False, seed: int | None = None) -> tf.data.Dataset:
        """The records of a split in the TFDS schema, with `tfds_id`, which names a record whatever the order."""
        config = tfds.ReadConfig(add_tfds_id=True, shuffle_seed=seed, try_autocache=False)
        return self.builder.as_dataset(split=self.splits[split].tfds, shuffle_files=shuffle, read_config=config)


def open_source(record: catalog.Dataset, data: str | AnyPath) -> OpenSource:
    """Opens a dataset.

    Args:
      record: the dataset.
      data: "samples", "tfds" (TFDS's own data folder; what is missing is downloaded), a TFDS data folder, or a folder
        of local JSONL: `<folder>/<split>.jsonl` with TFDS's field names.

    Raises:
      SourceError: it is missing, dead or manual, or its files cannot be read.
    """
    try:
        return _opened(record, data)
    except (FlanError, StorageError, OSError, MemoryError):
        raise
    except Exception as error:  # one dataset's data can make a library raise anything; the others go on
        if catalog.own_samples(record.name) is None:
            what, remedy = "data", "get its data again"
        else:  # the fields and templates of its module are checked in this way
            what, remedy = "data, fields or templates", "mend the module that it is in, or its data"
        reason = f"its {what} cannot be read ({first_line(error)})"
        raise SourceError(record.name, reason, f"{remedy}, or leave the dataset out") from error


def _opened(record: catalog.Dataset, data: str | AnyPath) -> OpenSource:
    if data == TFDS:
        return _from_tfds(record)
    folder = samples_folder(record) if data == SAMPLES else user_path(data, "--data")
    if isinstance(folder, RemotePath):
        folder = _staged(record, folder)
    if data == SAMPLES and not folder.is_dir():  # of a user's own dataset; the others go on
        remedy = f"add {record.folder}/train.jsonl and so on, or give --data=FOLDER"
        raise SourceError(record.name, f"there is no folder of samples {folder}", remedy)
    if not folder.is_dir():
        raise FlanError(f"no folder {folder}: --data is samples, tfds, or a folder of data.")
    if (folder / record.folder).is_file():
        raise SourceError(record.name, f"{folder / record.folder} is a file, not a folder", "remove it or make it one")
    given, others = left_out.split_files(record, folder / record.folder)
    if given:
        with _cache_of(record):
            data_dir, bad_rows, notes = _imported(record, given)
        notes = (*notes, *left_out.foreign_files(record, others))
        name = user_path(data).name  # a folder that is called as one of our names is none of ours
        origin = SAMPLES if data == SAMPLES else f"./{name}" if name in OUR_DATA else name
    else:
        data_dir, bad_rows, notes, origin = folder, (), (), TFDS
    nothing = SourceError(
        record.name,
        f"no folder {record.folder}/ of JSONL{left_out.but(record, others)} and no prepared {record.source} in "
        f"{folder}",
        f"add {record.folder}/train.jsonl and so on with the fields of {'its schema' if record.schema else 'TFDS'}, "
        "or leave the dataset out",
    )
    try:
        builder = builder_of(record, data_dir)
    except SourceError:
        if record.schema:  # of one's own, which no version of TFDS has
            raise nothing from None
        raise
    if not builder.is_prepared():
        raise nothing
    splits = _resolved(record, builder)
    if given:
        notes = (*notes, *left_out.unread_rows(record, given, _sizes(builder), splits))
    content = data_dir.name if given else _content(record, builder)  # the import's folder is named after its content
    return OpenSource(builder, splits, origin, content, bad_rows, notes, again.to_say(data))


def open_all(
    records: Sequence[catalog.Dataset], data: str | AnyPath
) -> Iterator[tuple[catalog.Dataset, OpenSource | Skipped]]:
    """Opens one dataset after another. A source that fails yields a Skipped, and the next one follows."""
    for record in records:
        try:
            yield record, open_source(record, data)
        except SourceError as error:
            yield record, error.skipped


def _staged(record: catalog.Dataset, folder: RemotePath) -> Path:
    """A folder on this machine with the files of a dataset from a folder on object storage.

    Raises:
      SourceError: it has no JSONL of the dataset.
    """
    own = folder / record.folder
    if not any(own.glob("*.jsonl")):
        raise SourceError(
            record.name,
            f"no folder {record.folder}/ of JSONL in {folder}",
            "add one, or copy data of TFDS to a disk: TensorFlow reads them, which knows no object storage",
        )
    return local(own).parent


def _resolved(record: catalog.Dataset, builder: tfds.core.DatasetBuilder) -> dict[str, SplitSlice]:
    try:
        return resolve_splits(record, _sizes(builder))
    except FlanError as error:
        reason = str(error).rstrip(".").removeprefix(f"dataset {record.name}: ")
        raise SourceError(record.name, reason, "leave it out or add the split") from error


def _content(record: catalog.Dataset, builder: tfds.core.DatasetBuilder) -> str:
    """Identifies prepared data by name, version and sizes, since TFDS has no digest of them."""
    sizes = {name: [info.num_examples, info.num_bytes] for name, info in builder.info.splits.items()}
    return f"{record.source}-{hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()[:16]}"


def _sizes(builder: tfds.core.DatasetBuilder) -> dict[str, int]:
    return {name: info.num_examples for name, info in builder.info.splits.items()}


def builder_of(record: catalog.Dataset, data_dir: Path | None = None) -> tfds.core.DatasetBuilder:
    """A dataset's TFDS builder, in the version that its record names.

    Raises:
      SourceError: TFDS has no such builder.
    """
    if record.schema and data_dir is None:
        raise SourceError(
            record.name, "it is data of your own, which TFDS has not", "give --data=FOLDER with its JSONL"
        )
    if own_data.is_origin(record.source):
        raise SourceError(
            record.name, f"it was prepared from {record.source}", "give the PREPARED_DIR that holds it, as --prepared"
        )
    try:
        return tfds.builder(record.source, data_dir=None if data_dir is None else str(data_dir))
    except Exception as error:  # an unknown name, a removed version, or a builder without its library
        raise SourceError(
            record.name,
            f"TFDS has no {record.source} ({first_line(error)})",
            "install the version of tensorflow-datasets that setup.py names, or leave the dataset out",
        ) from error


def _from_tfds(record: catalog.Dataset) -> OpenSource:
    builder = builder_of(record)
    if not builder.is_prepared():
        if record.manual:
            raise SourceError(record.name, f"{record.source} has to be fetched by hand", record.manual)
        if (url := address(builder)) is not None and not network.is_reachable(url):
            host = urllib.parse.urlsplit(url).netloc
            raise SourceError(
                record.name,
                f"{record.source} is not in {builder.data_dir}, and {host} cannot be reached",
                "check the network, or give --data=FOLDER of TFDS data or JSONL that you have, or --data=samples",
            )
        try:
            with _quietly():
                builder.download_and_prepare()
        except Exception as error:  # any failed download is a dead source, whatever it raises
            if system_error_number(error) is not None:
                raise _refused(record, cannot("write", builder.data_dir, error)) from error
            raise SourceError(
                record.name,
                f"{record.source} cannot be downloaded ({first_line(error)})",
                "check the network, or import your own copy with --data=FOLDER",
            ) from error
    return OpenSource(builder, _resolved(record, builder), TFDS, _content(record, builder), data=TFDS)


def address(builder: tfds.core.DatasetBuilder) -> str | None:
    """An address that a builder downloads from: one that names its configuration, if any does, or the first."""
    addresses = list(builder.url_infos or ())
    config = builder.builder_config.name.lower() if builder.builder_config else ""
    named = [url for url in addresses if config and config in url.lower()]
    return next(iter(named or addresses), None)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps TFDS from printing a line and several bars for every dataset that it writes."""
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def first_line(error: Exception) -> str:
    """An exception on one line: its kind and the beginning of its message."""
    reason = str(error).strip().partition("\n")[0][:160]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


# ------------------------------------------------------------------------------------------------- local JSONL


@contextlib.contextmanager
def _cache_of(record: catalog.Dataset) -> Iterator[None]:
    """A full disk below FLAN_JAX_HOME stops datasets that are not imported yet, but no others."""
    folder = home() / "imported"
    try:
        with written(folder):
            yield
    except SourceError:
        raise
    except FlanError as error:
        raise _refused(record, error) from error


def _refused(record: catalog.Dataset, error: FlanError) -> SourceError:
    reason, _, remedy = str(error).rstrip(".").rpartition("; ")
    return SourceError(record.name, reason, remedy, refused=True)


def _imported(record: catalog.Dataset, files: Sequence[Path]) -> tuple[Path, tuple[BadRow, ...], tuple[str, ...]]:
    """The TFDS data folder with the files' rows, made once for their content; its bad rows and notes."""
    if odd := [sign for sign in str(home()) if sign in "*?["]:
        raise SourceError(
            record.name,
            f"its rows are imported into FLAN_JAX_HOME {home()}, and {odd[0]} in a path is a pattern to TFDS",
            "set FLAN_JAX_HOME to a folder without any of * ? [",
        )
    folder = files[0].parent
    digest = hashlib.sha256(f"{record.source} {usable.code_digest(record)}".encode())
    if record.schema:
        digest.update(repr(record.schema).encode())
    for file in files:
        try:
            with file.open("rb") as opened:
                digest.update(file.name.encode() + b"\x00" + hashlib.file_digest(opened, "sha256").digest())
        except OSError as error:
            reason = f"cannot read {folder.name}/{file.name}: {error.strerror or error}"
            raise SourceError(record.name, reason, "mend the file or remove it") from error
    data_dir = home() / "imported" / f"{folder.name}-{digest.hexdigest()[:16]}"
    notes = data_dir / "bad_rows.json"
    lock = home() / "locks" / f"{data_dir.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(lock):  # processes that prepare at the same time share the import
        if not notes.exists():
            building = data_dir.with_name(f".{data_dir.name}.building")
            shutil.rmtree(building, ignore_errors=True)  # of a killed process
            shutil.rmtree(data_dir, ignore_errors=True)
            try:
                bad_rows, said = import_jsonl(record, files, building)
                found = {"bad_rows": [dataclasses.asdict(row) for row in bad_rows], "notes": said}
                (building / notes.name).write_text(json.dumps(found))
                building.rename(data_dir)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    found = json.loads(notes.read_text())
    return data_dir, tuple(BadRow(**row) for row in found["bad_rows"]), tuple(found["notes"])


_FEATURES = {
    "text": tfds.features.Text,
    "texts": lambda: tfds.features.Sequence(tfds.features.Text()),
    "int": lambda: tfds.features.Scalar(np.int64),
    "float": lambda: tfds.features.Scalar(np.float32),
}


def _form(record: catalog.Dataset, data_dir: Path) -> tuple[str, str, str | None, tfds.features.FeaturesDict]:
    """Name, version, config and schema in which local JSONL is written.

    Raises:
      SourceError: TFDS has no such dataset, or its own schema has an unknown kind of field.
    """
    if not record.schema:
        builder = builder_of(record, data_dir)
        config = builder.builder_config.name if builder.builder_config else None
        return builder.name, str(builder.version), config, builder.info.features
    fields = {}
    for name, kind in record.schema:
        if isinstance(kind, str) and kind not in _FEATURES:
            remedy = "mend the module that it is in"
            raise SourceError(record.name, f"field {name!r} of its schema: {near_names(kind, _FEATURES)}", remedy)
        fields[name] = _FEATURES[kind]() if isinstance(kind, str) else tfds.features.ClassLabel(names=list(kind))
    return record.tfds_name, record.tfds_version or "1.0.0", None, tfds.features.FeaturesDict(fields)


def import_jsonl(record: catalog.Dataset, files: Sequence[Path], data_dir: Path) -> tuple[list[BadRow], list[str]]:
    """Writes local JSONL in TFDS's own form, so that TFDS and SeqIO read it exactly like a download.

    A row is left out and returned if it lacks a field that the dataset reads, if a value does not fit the schema, or if
    it has no usable label, answer or text. A field that nothing reads gets an empty value. Rows that `keep` drops are
    written, and noted. A lone surrogate in a text becomes U+FFFD.

    Args:
      record: the dataset.
      files: `<split>.jsonl` with TFDS's field names.
      data_dir: the TFDS data folder to write to.

    Returns:
      The rows that were left out, in order; and notes, see `OpenSource`.

    Raises:
      SourceError: no row can be used, or a file cannot be read.
    """
    name, version, config, features = _form(record, data_dir)
    if not record.schema:
        features = _SCHEMAS.setdefault(record.source, features)
    needed = read_fields(record, features)
    found = [FileRows(record, file, features, needed) for file in files]
    splits = {}
    try:
        for file, rows in zip(files, found, strict=True):
            read = rows.read()
            if (first := next(read, None)) is not None:  # TFDS has no empty splits
                splits[file.stem] = itertools.chain([first], read)
        if splits:
            with _quietly():
                tfds.dataset_builders.store_as_tfds_dataset(
                    name=name,
                    version=version,
                    features=features,
                    split_datasets={split: enumerate(rows) for split, rows in splits.items()},
                    config=config,
                    data_dir=str(data_dir),
                )
    except FlanError as error:
        raise SourceError(record.name, str(error).rstrip("."), "mend the file or remove it") from error
    bad_rows = [row for file in found for row in file.bad_rows]
    if not splits:
        more = len(bad_rows) + sum(file.more for file in found) - 1
        example = f" (first: {bad_rows[0]}, and {more:,} more)" if bad_rows else ""
        raise SourceError(record.name, f"no usable row in {files[0].parent}{example}", "mend the files")
    return bad_rows, [note for file in found for note in file.notes()]

"""Reads a registered SeqIO task or mixture with `inputs` and `targets`, as text. TensorFlow is imported here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data import tasks  # noqa: F401 - gives SeqIO our names, so that they can be told from others
from flan_jax.data.catalog_tasks import CatalogTask
from flan_jax.data.own.records import DEV, TEST, TRAIN, Reading, Record, UnusableRecord, record_of, text_of
from flan_jax.errors import FlanError, unknown_name
from flan_jax.splits import DEV_SIZE
from flan_jax.templates import OPTIONS
from flan_jax.wording import counted

MAX_RECORDS = 1_000_000  # for a source of unknown size, which may have no end
_INPUTS, _TARGETS = "inputs", "targets"
_BEFORE = "_pretokenized"  # seqio.preprocessors.tokenize calls the text so
_MIXTURE_SEED = 0  # seed of the choice which task of a mixture is drawn
_OWN_SPLITS = ("validation", "test")


def read(name: str, module: str | None = None, *, max_examples: int | None = None) -> Reading:
    """Reads the training records of a task or mixture, and those of its own validation and test splits.

    Features that are already tokenized come with their text, or the task's own vocabulary decodes them.

    Args:
      name: the name of the task or mixture.
      module: the module that registers it, as Python imports it; None if it is registered already.
      max_examples: how many training records to read, from the first. A mixture has no end and needs it.

    Raises:
      FlanError: the module fails, there is no such task, it has no inputs and targets, or it has no end and no limit is
        given.
    """
    if module:
        _import(module)
    task = _task(name)
    _refuse_ours(task)
    if isinstance(task, seqio.Mixture) and max_examples is None:
        raise FlanError(f"{name} is a mixture, which is drawn by its rates without end: give --max_examples=NUMBER.")
    features = task.output_features
    for feature in (_INPUTS, _TARGETS):
        if feature not in features:
            known = ", ".join(features) or "none"
            raise FlanError(f"{name} has no feature {feature!r}, only {known}: it cannot be tuned on as it is.")
    splits = list(task.splits)
    if TRAIN not in splits:
        raise FlanError(
            f"{name} has no split 'train', only {', '.join(splits) or 'none'}: there is nothing to tune on."
        )
    found = Reading()
    found.records = list(_records(task, TRAIN, max_examples, found))
    read = len(found.records) + len(found.bad)
    if isinstance(task, seqio.Mixture) and read < max_examples:
        found.notes.append(f"the mixture ends after {counted(read, 'records')}, where one of its tasks has no more")
    if not isinstance(task, seqio.Mixture):
        own = [split for split in _OWN_SPLITS if split in splits]  # the last one is for test; it may be the only one
        for part, split in zip((TEST, DEV), reversed(own), strict=False):
            most = DEV_SIZE if part == DEV else max_examples
            if records := list(_records(task, split, most, found)):
                found.splits[part] = records
    return found


def _refuse_ours(task: Any) -> None:
    """Refuses tasks of the catalog. Their clusters are known, and must not get another one in this way."""
    every = task.tasks if isinstance(task, seqio.Mixture) else [task]
    ours = [one.name for one in every if isinstance(one, CatalogTask)]
    if ours:
        where = "is" if task.name in ours else f"draws from {ours[0]}, which is"
        raise FlanError(
            f"{task.name} {where} of the catalog, with its own cluster: prepare that by --datasets, and "
            "list both among the 'parts' of a mixture."
        )


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except FlanError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise FlanError(
                f"--module={module}: there is no such module; start in the folder that it lies in, or put that on "
                "PYTHONPATH."
            ) from error
        raise FlanError(f"--module={module} needs {error.name!r}, which is not installed.") from error
    except (Exception, SystemExit) as error:  # a user's module can raise anything
        said = " ".join(str(error).split())[:200] or "no reason"
        raise FlanError(
            f"--module={module}: importing it fails ({type(error).__name__}: {said.rstrip('.')})."
        ) from error


def _task(name: str) -> Any:
    known = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
    if name not in known:
        try:
            return seqio.get_mixture_or_task(name)
        except ValueError as error:
            more = "" if known else "None is registered: give --module=MODULE, which does it."
            raise unknown_name("SeqIO task or mixture", name, known, more) from error
    return seqio.get_mixture_or_task(name)


def _records(task: Any, split: str, most: int | None, reading: Reading) -> Iterator[Record]:
    """The usable records of a split; the others are noted."""
    ends = {"seed": _MIXTURE_SEED} if isinstance(task, seqio.Mixture) else {}
    try:
        dataset = task.get_dataset(None, split=split, shuffle=False, **ends)
        endless = dataset.cardinality().numpy() == tf.data.INFINITE_CARDINALITY
        if endless and most is None:
            raise FlanError(f"{task.name} has no end in its split {split!r}: give --max_examples=NUMBER.")
        _refuse(task, dataset.element_spec)
        ids = "" if split == TRAIN else f"{split} "
        for number, row in enumerate(dataset.take(MAX_RECORDS + 1 if most is None else most).as_numpy_iterator()):
            if most is None and number == MAX_RECORDS:
                raise FlanError(
                    f"{task.name} has more than {MAX_RECORDS:,} records, or no end: give --max_examples=NUMBER."
                )
            try:
                inputs, answer = (_text(task, row, feature, reading) for feature in (_INPUTS, _TARGETS))
                options = [one.decode("utf-8") for one in row[OPTIONS].tolist()] if _has_options(row) else None
                yield record_of(f"{ids}{number}", inputs, answer, options)
            except UnusableRecord as problem:
                reading.bad.append((f"{split} record {number}", str(problem)))
    except FlanError:
        raise
    except Exception as error:  # a user's preprocessors can fail in any way
        said = " ".join(str(error).split())[:200] or "no reason"
        raise FlanError(
            f"SeqIO task {task.name}: reading its split {split!r} fails ({type(error).__name__}: {said.rstrip('.')})."
        ) from error


def _has_options(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get(OPTIONS), np.ndarray) and row[OPTIONS].dtype == object and row[OPTIONS].ndim == 1


def _refuse(task: Any, spec: Mapping[str, Any]) -> None:
    """Refuses features that are packed, or are neither text nor tokens."""
    if packed := [name for name in spec if name.endswith(("_segment_ids", "_positions"))]:
        raise FlanError(
            f"{task.name} is packed already ({packed[0]}): register the task without packing, which happens here later."
        )
    for feature in (_INPUTS, _TARGETS):
        if feature not in spec and f"{feature}{_BEFORE}" not in spec:
            raise FlanError(f"{task.name} gives no {feature!r}, only {', '.join(spec)}: mend its preprocessors.")
        tensor = spec.get(f"{feature}{_BEFORE}", spec.get(feature))
        if tensor.dtype == tf.string and tensor.shape.rank == 0:
            continue
        if tensor.dtype.is_integer and tensor.shape.rank == 1:
            if isinstance(task.output_features[feature].vocabulary, seqio.PassThroughVocabulary):
                raise FlanError(f"{feature} of {task.name} are numbers of no vocabulary, so that they are no text.")
            continue
        shape = f"{tensor.dtype.name} of rank {tensor.shape.rank}"
        raise FlanError(f"{feature} of {task.name} are {shape}: they have to be a text, or the tokens of one.")


def _text(task: Any, row: Mapping[str, Any], feature: str, reading: Reading) -> str:
    """A feature's text: from before it was tokenized, or decoded."""
    value = row.get(f"{feature}{_BEFORE}", row.get(feature))
    if isinstance(value, bytes):
        try:
            return text_of(value.decode("utf-8"), feature)
        except UnicodeDecodeError as error:
            raise UnusableRecord(f'"{feature}" is no UTF-8') from error
    note = f"{feature} of {task.name} are tokens; they are decoded by the task's own vocabulary"
    if note not in reading.notes:
        reading.notes.append(note)
    vocabulary = task.output_features[feature].vocabulary
    ids = [int(one) for one in value]
    while ids and ids[-1] in (vocabulary.pad_id, vocabulary.eos_id):
        ids.pop()
    return text_of(str(vocabulary.decode(ids)), feature)

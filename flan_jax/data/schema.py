"""Reads JSON rows in the TFDS schema. Types are strict: text does not become a number, nor a number a label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from flan_jax import catalog
from flan_jax.tasks.fields import is_blank
from flan_jax.wording import counted

_LABEL_NAMES = ("label", "polarity")  # fields that are plain numbers in TFDS, but mean labels
_LONGEST = 60  # characters of a value that are shown


class Misfit(ValueError):
    """A row that does not fit the schema: which field, and why."""


def row_of(
    record: catalog.Dataset, given: Any, features: tfds.features.FeaturesDict, needed: frozenset[str]
) -> dict[str, Any]:
    """A JSON value as a row of the TFDS schema.

    Args:
      record: the dataset; its `spellings` of labels are understood.
      given: the value.
      features: the schema.
      needed: the top-level fields that the dataset reads. Others may be missing or null, and get an empty value.

    Raises:
      Misfit: a field is missing or does not fit.
    """
    if not isinstance(given, Mapping):
        raise Misfit("not an object")
    row = {}
    for name, feature in features.items():
        if name not in needed and given.get(name) is None:
            row[name] = _empty(feature)
            continue
        if name not in given:
            raise Misfit(f"field {name!r} is missing")
        try:
            row[name] = _fitted(given[name], feature, name, record.spellings)
        except Misfit as problem:
            raise Misfit(f"field {name!r} {problem}") from None
    return row


def is_unlabelled(row: Mapping[str, Any], features: tfds.features.FeaturesDict) -> bool:
    """Whether a label of a row is -1, which means no label in TFDS."""
    return any(row[name] == -1 for name, feature in features.items() if _is_label(feature, name))


def blank_text(row: Mapping[str, Any], features: tfds.features.FeaturesDict, needed: frozenset[str]) -> str:
    """The first top-level text field among `needed` that shows nothing; "" if there is none."""
    texts = [name for name, feature in features.items() if name in needed and _is_text(feature)]
    return next((name for name in texts if bool(is_blank(row[name]))), "")


def labels_of(row: Mapping[str, Any], features: tfds.features.FeaturesDict, needed: frozenset[str]) -> str:
    """The labels of a row, appended to what is wrong with it: " (label is 7)"; "" if it has none."""
    names = [name for name, feature in features.items() if name in needed and _is_label(feature, name)]
    return f" ({', '.join(f'{name} is {row[name]}' for name in names)})" if names else ""


def _is_label(feature: Any, name: str) -> bool:
    number = isinstance(feature, tfds.features.Tensor) and np.dtype(feature.np_dtype).kind in "if"
    return isinstance(feature, tfds.features.ClassLabel) or (number and name in _LABEL_NAMES)


def _is_text(feature: Any) -> bool:
    return isinstance(feature, tfds.features.Text) or (
        isinstance(feature, tfds.features.Tensor) and feature.shape == () and _kind(feature) in "OSU"
    )


def _kind(feature: Any) -> str:
    return np.dtype(feature.np_dtype).kind


def _fitted(value: Any, feature: Any, name: str, spellings: Sequence[tuple[Any, Any]]) -> Any:
    """A value in the form of a schema's feature. Raises Misfit."""
    if isinstance(feature, tfds.features.FeaturesDict):
        if not isinstance(value, Mapping):
            raise Misfit("is not an object")
        fitted = {}
        for inner_name, inner in feature.items():
            if inner_name not in value:
                raise Misfit(f"lacks {inner_name!r}")
            try:
                fitted[inner_name] = _fitted(value[inner_name], inner, inner_name, spellings)
            except Misfit as problem:
                raise Misfit(f"{inner_name}: {problem}") from None
        return fitted
    if isinstance(feature, tfds.features.Sequence):
        return _fitted_list(value, feature, name, spellings)
    if _is_text(feature):
        if not isinstance(value, str):
            raise Misfit(f"is {type(value).__name__}, not text")
        return value
    if _is_label(feature, name):
        value = next((meant for spelt, meant in spellings if type(spelt) is type(value) and spelt == value), value)
    if isinstance(feature, tfds.features.ClassLabel):
        return _class_number(value, feature)
    if isinstance(feature, tfds.features.Tensor) and feature.shape == ():
        _check_number(value, np.dtype(feature.np_dtype))
        return value
    try:
        feature.encode_example(value)
    except Exception as error:  # a kind of feature that no dataset has yet; whatever it raises, the value does not fit
        raise Misfit(f"does not fit the schema ({str(error).partition(chr(10))[0][:80]})") from error
    return value


def _fitted_list(value: Any, feature: Any, name: str, spellings: Sequence[tuple[Any, Any]]) -> list[Any]:
    inner = feature.feature
    if isinstance(value, str):
        raise Misfit("is text, not a list")
    if isinstance(inner, tfds.features.FeaturesDict) and isinstance(value, Mapping):
        value = list(_transposed(value, inner))
    if not isinstance(value, list):
        raise Misfit(f"does not fit the schema ({_shown(value)} is not a list)")
    if feature._length is not None and len(value) != feature._length:
        raise Misfit(f"does not fit the schema ({counted(len(value), 'values')}, not {feature._length})")
    return [_fitted(one, inner, name, spellings) for one in value]


def _transposed(value: Mapping[str, Any], inner: Any) -> Iterator[dict[str, Any]]:
    """The objects in an object of lists, which is TFDS's form of a list of objects."""
    for name in inner:
        if name not in value:
            raise Misfit(f"lacks {name!r}")
        if not isinstance(value[name], list):
            raise Misfit(f"{name}: is not a list")
    if len({len(value[name]) for name in inner}) > 1:
        raise Misfit("has lists of unequal lengths")
    for values in zip(*(value[name] for name in inner), strict=True):
        yield dict(zip(inner, values, strict=True))


def _class_number(value: Any, feature: tfds.features.ClassLabel) -> int:
    names = feature.names or ()
    if isinstance(value, str) and value in names:
        return names.index(value)
    if type(value) is int and -1 <= value < feature.num_classes:
        return value
    wanted = f"0 to {feature.num_classes - 1}" + (f" or one of {', '.join(map(repr, names))}" if names else "")
    raise Misfit(f"does not fit the schema ({_shown(value)} is not {wanted[:100]})")


def _check_number(value: Any, dtype: np.dtype) -> None:
    if dtype.kind == "b":
        fits, wanted = isinstance(value, bool), "true or false"
    elif dtype.kind in "iu":
        fits = type(value) is int and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
        wanted = f"a whole number of {8 * dtype.itemsize} bits"
    else:
        # Python compares whole numbers of any size with its own floats; NumPy's floats raise OverflowError.
        fits = type(value) in (int, float) and abs(value) <= float(np.finfo(dtype).max) and math.isfinite(value)
        wanted = "a number"
    if not fits:
        raise Misfit(f"does not fit the schema ({_shown(value)} is not {wanted})")


def _shown(value: Any) -> str:
    """A value on one line, cut, in JSON."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | Mapping):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _empty(feature: Any) -> Any:
    if isinstance(feature, tfds.features.FeaturesDict):
        return {name: _empty(inner) for name, inner in feature.items()}
    if isinstance(feature, tfds.features.Sequence):
        return []
    if isinstance(feature, tfds.features.ClassLabel):
        return -1
    dtype = np.dtype(feature.np_dtype) if hasattr(feature, "np_dtype") else np.dtype(object)
    return "" if dtype.kind in "OSU" else dtype.type(-1 if dtype.kind in "if" else 0)

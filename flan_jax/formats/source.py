"""The common form of a model in any format: a shape, a vocabulary, and parameters one tensor at a time.

A model need not fit into memory. A writer asks for one layer's tensor after another, in the order that suits its files.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_dtypes
import numpy as np

from flan_jax import models
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError

Path = tuple[
    str, ...
]  # of a parameter in the tree of `flan_jax.models`, for example (decoder, layers, mlp, wo, kernel)


_FLOATS = tuple(map(np.dtype, (np.float32, np.float16, ml_dtypes.bfloat16, np.float64)))


class Leaf(NamedTuple):
    """A parameter of `flan_jax.models`.

    Attributes:
      path: its place in the tree.
      shape: the shape of one layer's tensor.
      num_layers: how many layers are stacked on axis 0; 0 for a parameter outside the layers.
    """

    path: Path
    shape: tuple[int, ...]
    num_layers: int

    @property
    def layers(self) -> tuple[int | None, ...]:
        """The numbers of its layers; (None,) outside the layers."""
        return tuple(range(self.num_layers)) if self.num_layers else (None,)

    @property
    def size(self) -> int:
        """How many numbers it has in all layers."""
        return math.prod(self.shape) * max(self.num_layers, 1)


@dataclasses.dataclass(frozen=True)
class Source:
    """A model that can be read one tensor at a time.

    Attributes:
      config: its shape.
      tensor: maps (path, layer) to a float32 array of `Leaf.shape`; layer is None outside the layers.
      tokenizer: its vocabulary, or None if the format has none.
      name: what it is, for the history.
      manifest: what it was tuned on, if that is known.
      step: steps that it was trained, if known.
      max_positions: the longest text that it was made for, in tokens, if the format says so. Nothing here is cut at it;
        exports say it again.

    Raises:
      FlanError: the vocabulary has ids for which the model has no embeddings.
    """

    config: models.DecoderConfig
    tensor: Callable[[Path, int | None], np.ndarray]
    tokenizer: vocabularies.Tokenizer | None
    name: str
    manifest: Manifest | None = None
    step: int = 0
    max_positions: int | None = None

    def __post_init__(self) -> None:
        if self.tokenizer is not None:
            vocabularies.check_fits(self.tokenizer, self.config.vocab_size, self.name)


@functools.cache
def leaves(config: models.DecoderConfig) -> tuple[Leaf, ...]:
    """The parameters of a model of that shape."""
    found = []
    for keys, x in jax.tree_util.tree_leaves_with_path(models.build(config).abstract_params()):
        path = tuple(key.key for key in keys)
        stacked = "layers" in path
        found.append(Leaf(path, x.shape[1:] if stacked else x.shape, x.shape[0] if stacked else 0))
    return tuple(found)


def refuse_dtype(dtype: np.dtype | str, where: str) -> None:
    """Refuses weights whose numbers need scales that are stored elsewhere, or mean nothing here.

    Args:
      dtype: the dtype in the file.
      where: the file and the tensor, for messages.

    Raises:
      FlanError: it is none of float32, float16, bfloat16 and float64.
    """
    if not any(dtype == known for known in _FLOATS):
        raise FlanError(
            f"{where} is stored as {dtype}; float32, float16, bfloat16 and float64 can be converted: get the model "
            "without quantization."
        )


def as_float32(array: np.ndarray, where: str) -> np.ndarray:
    """The same numbers in float32.

    Args:
      array: an array from a file.
      where: the file and the tensor, for messages.

    Raises:
      FlanError: float32 cannot hold them exactly, some are not finite, or their dtype is not supported.
    """
    refuse_dtype(array.dtype, where)
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.asarray(array, np.float32)
        finite = not converted.size or bool(np.isfinite(converted.min()) and np.isfinite(converted.max()))
    if array.dtype == np.float64 and not np.array_equal(converted, array, equal_nan=True):
        raise FlanError(f"{where} holds float64 numbers that float32 does not hold exactly: save the model in float32.")
    if not finite:
        count = int((~np.isfinite(converted)).sum())
        raise FlanError(
            f"{where}: {count} of {converted.size} numbers are NaN or infinite; the weights are damaged: get them "
            "again."
        )
    return converted


def tree_of(source: Source) -> dict:
    """All parameters in memory, layers stacked on axis 0."""
    params: dict = {}
    for leaf in leaves(source.config):
        *above, last = leaf.path
        inner = params
        for name in above:
            inner = inner.setdefault(name, {})
        tensors = [source.tensor(leaf.path, layer) for layer in leaf.layers]
        inner[last] = np.stack(tensors) if leaf.num_layers else tensors[0]
    return params


def of_tree(params: dict) -> Callable[[Path, int | None], np.ndarray]:
    """`Source.tensor` for parameters in memory."""

    def tensor(path: Path, layer: int | None) -> np.ndarray:
        leaf = params
        for name in path:
            leaf = leaf[name]
        return np.asarray(leaf if layer is None else leaf[layer])

    return tensor

"""Low-rank adapters (Hu et al. 2021): a kernel W becomes W + scale * A B, and only A and B are trained.

They lie beside the kernel that they change: `lora_a` [inputs, rank], `lora_b` [rank, outputs] and `lora_scale`. If
layers are stacked, these are the first dimension. A `Dense` that finds adapters uses them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flan_jax.models import nested
from flan_jax.models.decoder import Model
from flan_jax.models.encoder_decoder import EncoderDecoder, build
from flan_jax.models.layers import LORA_A, LORA_B, LORA_SCALE
from flan_jax.models.nested import Path
from flan_jax.models.prompt import SOFT

TRAINED = (LORA_A, LORA_B)
NAMES = (*TRAINED, LORA_SCALE)
AXIS = "lora_rank"  # the logical axis of the rank
RANK, ALPHA = 8, 16.0
TARGETS = ("*attention", "mlp")  # all projections


def kernels(model: Model) -> tuple[Path, ...]:
    """The paths of the kernels that can have adapters: projections in layers."""
    leaves = jax.tree_util.tree_leaves_with_path(model.abstract_params())
    named = [tuple(part.key for part in path) for path, _ in leaves]
    return tuple(path for path in named if "layers" in path and path[-1] == "kernel")


class _Adapted:
    """The methods that adapters add to a model."""

    def init(self, rng: jax.Array) -> dict[str, Any]:
        """Random float32 parameters, with adapters that do not change the model yet."""
        params = super().init(rng)  # type: ignore[misc]
        return nested.merged(params, self.adapters(rng, params))

    def adapters(self, rng: jax.Array, params: Any) -> dict[str, Any]:
        """The adapters alone: A is random as in `peft`, B is zero."""
        del params
        plain = build(self.config)
        shapes, axes = plain.abstract_params(), plain.logical_axes()
        found: dict[str, Any] = {}
        for number, path in enumerate(self.targets):
            shape, names = _at(shapes, path).shape, _at(axes, path)
            layers, inputs, outputs = _sides(names, shape)
            limit = math.prod(inputs) ** -0.5
            key = jax.random.fold_in(jax.random.fold_in(rng, 0x10A), number)
            into = jax.random.uniform(key, (*layers, *inputs, self.rank), jnp.float32, -limit, limit)
            _put(found, (*path[:-1], LORA_A), into)
            _put(found, (*path[:-1], LORA_B), jnp.zeros((*layers, self.rank, *outputs)))
            _put(found, (*path[:-1], LORA_SCALE), jnp.full(layers, self.alpha / self.rank, jnp.float32))
        return found

    def logical_axes(self) -> dict[str, Any]:
        """The tree of parameters as tuples of logical axis names."""
        axes = super().logical_axes()  # type: ignore[misc]
        found: dict[str, Any] = {}
        for path in self.targets:
            layers, inputs, outputs = _sides(names := _at(axes, path), names)
            _put(found, (*path[:-1], LORA_A), (*layers, *inputs, AXIS))
            _put(found, (*path[:-1], LORA_B), (*layers, AXIS, *outputs))
            _put(found, (*path[:-1], LORA_SCALE), tuple(layers))
        return nested.merged(axes, found)


@dataclasses.dataclass(frozen=True)
class AdaptedDecoder(_Adapted, Model):
    """A decoder with adapters.

    Attributes:
      rank: the rank of A B.
      alpha: the scale is alpha / rank.
      targets: the paths of the kernels with adapters.
    """

    rank: int = RANK
    alpha: float = ALPHA
    targets: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class AdaptedEncoderDecoder(_Adapted, EncoderDecoder):
    """An encoder-decoder with adapters; see `AdaptedDecoder`."""

    rank: int = RANK
    alpha: float = ALPHA
    targets: tuple[Path, ...] = ()


Adapted = AdaptedDecoder | AdaptedEncoderDecoder


def adapted(model: Model, rank: int, alpha: float, targets: tuple[Path, ...]) -> Adapted:
    """A model with adapters at these kernels."""
    kind = AdaptedEncoderDecoder if isinstance(model, EncoderDecoder) else AdaptedDecoder
    return kind(model.config, rank, alpha, targets)


def is_adapter(path: Path) -> bool:
    """Whether a parameter belongs to an adapter or is a soft prompt."""
    return path[-1] in NAMES or SOFT in path


def delta(a: Any, b: Any, scale: Any) -> Any:
    """scale * A B as matrices [inputs, outputs], for all layers at once if they are stacked.

    For NumPy or JAX arrays.
    """
    stacked = a.shape[: scale.ndim]
    a, b = a.reshape(*stacked, -1, a.shape[-1]), b.reshape(*stacked, b.shape[scale.ndim], -1)
    return (a @ b) * scale[..., None, None]


def merged(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a model without adapters that computes the same.

    Parameters without adapters stay as they are.
    """
    found = {name: merged(x) if isinstance(x, Mapping) else x for name, x in params.items() if name not in NAMES}
    if LORA_A in params:
        kernel = params["kernel"]
        change = delta(*(params[name] for name in NAMES)).reshape(kernel.shape)
        found["kernel"] = kernel + change.astype(kernel.dtype)
    return found


def _sides(axes: tuple[str, ...], values: tuple) -> tuple[tuple, tuple, tuple]:
    """(layers, inputs, outputs) of a kernel's shape or axes; `embed` is alone on its side."""
    first = int(axes[0] == "layers")
    middle = first + 1 if axes[first] == "embed" else len(axes) - 1
    return values[:first], values[first:middle], values[middle:]


def _at(tree: Any, path: Path) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _put(tree: dict[str, Any], path: Path, leaf: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf

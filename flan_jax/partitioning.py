"""Mesh, logical axis rules, and the shardings of parameters, optimizer state and batches.

Sharding is data: one table says on which mesh axis each logical axis may lie. The same code runs on one CPU, one GPU
and a pod slice; a dimension that its mesh axes do not divide stays whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flan_jax.errors import FlanError

MESH_AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axes, in T5X's names. A name that is not here is an error; None keeps the axis whole.
RULES: dict[str, str | tuple[str, ...] | None] = {
    # batches and activations
    "batch": ("data", "fsdp"),
    "length": None,
    "activation_embed": None,
    # parameters: one axis is sharded like the activations (tensor), the other gathered when used (fsdp)
    "vocab": "tensor",
    "embed": "fsdp",
    "mlp": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "kv": None,
    "relpos_buckets": None,
    "layers": None,  # scanned over, never split
}


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of axes data, fsdp and tensor; one of the sizes may be -1 and takes the devices that are left.

    Raises:
      FlanError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [data, fsdp, tensor]
    known = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) > 1 or any(s == 0 or s < -1 for s in sizes) or len(devices) % known:
        raise FlanError(f"a mesh of data={data}, fsdp={fsdp}, tensor={tensor} does not fit {len(devices)} devices.")
    sizes = [len(devices) // known if s == -1 else s for s in sizes]
    if math.prod(sizes) != len(devices):
        raise FlanError(
            f"a mesh of data={data}, fsdp={fsdp}, tensor={tensor} has {math.prod(sizes)} places for {len(devices)} "
            "devices; set one size to -1 to take them all."
        )
    return jax.make_mesh(tuple(sizes), MESH_AXES, devices=devices, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def partition_spec(mesh: Mesh, axes: Sequence[str | None], shape: Sequence[int]) -> PartitionSpec:
    """Where an array of these logical axes lies.

    Raises:
      FlanError: a logical axis without a rule, or two axes of the array on one mesh axis.
    """
    used: dict[str, str] = {}
    entries: list[tuple[str, ...] | str | None] = []
    for name, size in zip(axes, shape, strict=True):
        if name is not None and name not in RULES:
            raise FlanError(f"logical axis {name!r} has no rule in flan_jax.partitioning.RULES.")
        target = RULES[name] if name is not None else None
        mesh_axes = (target,) if isinstance(target, str) else target or ()
        mesh_axes = tuple(a for a in mesh_axes if mesh.shape[a] > 1)
        for axis in mesh_axes:
            if axis in used:
                raise FlanError(
                    f"logical axes {used[axis]!r} and {name!r} of one array both lie on mesh axis {axis!r}."
                )
            used[axis] = str(name)
        if not mesh_axes or size % math.prod(mesh.shape[a] for a in mesh_axes):
            entries.append(None)
        else:
            entries.append(mesh_axes if len(mesh_axes) > 1 else mesh_axes[0])
    return PartitionSpec(*entries)


def _is_axes(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(v, str) or v is None for v in value)


def parameter_shardings(mesh: Mesh, logical_axes: Any, shapes: Any) -> Any:
    """A NamedSharding for every parameter, as a tree like `shapes`."""
    return jax.tree.map(
        lambda axes, x: NamedSharding(mesh, partition_spec(mesh, axes, x.shape)), logical_axes, shapes, is_leaf=_is_axes
    )


def optimizer_state_shardings(
    mesh: Mesh, tx: optax.GradientTransformation, abstract_params: Any, logical_axes: Any
) -> Any:
    """A NamedSharding for every leaf of the optimizer's state, as a tree like `jax.eval_shape(tx.init, params)`.

    A statistic lies like its parameter. Adafactor's row and column statistics lack one of the parameter's two largest
    dimensions (optax's rule) and lie like what is left. Counters and place-holders are replicated.
    """
    by_path: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[int, ...]]] = {}
    leaves = jax.tree_util.tree_leaves_with_path(logical_axes, is_leaf=_is_axes)
    for (path, axes), shape in zip(leaves, jax.tree.leaves(abstract_params), strict=True):
        by_path[_names(path)] = (axes, tuple(shape.shape))

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        names = _names(path)
        for start in range(len(names)):
            if names[start:] in by_path:
                axes, shape = by_path[names[start:]]
                kept = _statistic_axes(axes, shape, tuple(leaf.shape), names[:start])
                if kept is not None:
                    return NamedSharding(mesh, partition_spec(mesh, kept, leaf.shape))
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, jax.eval_shape(tx.init, abstract_params))


def _statistic_axes(
    axes: tuple[str, ...], shape: tuple[int, ...], leaf_shape: tuple[int, ...], prefix: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The logical axes of an optimizer statistic of a parameter, or None for a place-holder."""
    if leaf_shape == shape:
        return axes
    if len(shape) < 2:
        return None
    second, largest = (int(d) for d in np.argsort(shape)[-2:])  # as optax._src.factorized chooses them
    dropped = {"v_row": largest, "v_col": second}.get(prefix[-1] if prefix else "")
    if dropped is None or leaf_shape != tuple(np.delete(shape, dropped)):
        return None
    return tuple(axis for i, axis in enumerate(axes) if i != dropped)


def _names(path: Any) -> tuple[str, ...]:
    return tuple(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)


def batch_shardings(mesh: Mesh, shapes: Mapping[str, Any]) -> dict[str, NamedSharding]:
    """Rows lie on (data, fsdp); everything else of a batch is whole."""
    return {
        name: NamedSharding(mesh, partition_spec(mesh, ("batch", *[None] * (len(x.shape) - 1)), x.shape))
        for name, x in shapes.items()
    }


def rows_per_shard_of(mesh: Mesh) -> int:
    """How many ways the rows of a batch are split: data x fsdp."""
    return mesh.shape["data"] * mesh.shape["fsdp"]

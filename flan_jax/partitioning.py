"""Meshes, rules for logical axes, and the shardings of parameters, optimizer state and batches.

Sharding is data: one table says on which mesh axes each logical axis may lie. The same code runs on one CPU, one GPU, a
pod slice and several slices. If the size of a dimension is not divisible by its mesh axes, every device holds the whole
dimension; `undivided` reports where that costs much memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from flan_jax.errors import FlanError
from flan_jax.values import MESH_AXES
from flan_jax.wording import counted

# Logical axis -> mesh axes. The names are T5X's. A name that is not here is an error; None keeps the axis whole.
RULES: dict[str, str | tuple[str, ...] | None] = {
    # batches and activations
    "batch": ("data", "fsdp"),
    "length": None,
    "block_length": "tensor",  # between attention and MLP, where slots are independent of each other
    "activation_embed": None,
    # Parameters: one axis is split like the activations (tensor), another one is gathered when used (fsdp).
    "vocab": "tensor",
    "embed": "fsdp",
    "mlp": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "kv": None,
    "relpos_buckets": None,
    "lora_rank": None,
    "prompt_length": None,
    "layers": None,  # layers are scanned over and never split
}


LARGE_BYTES = 16 * 2**20  # bytes of a parameter on one device; `undivided` reports larger ones only


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes data, fsdp and tensor. One size may be -1: it takes the devices that are left.

    Tensor is the innermost axis and lies on nearest neighbours. If there are several TPU slices, joined by the
    data-centre network, each slice holds a part of the data axis. Then only sums of gradients go between slices.

    Args:
      data: number of copies of the parameters; each copy works on its share of the rows.
      fsdp: number of shards of parameters and rows. A parameter is gathered where it is used.
      tensor: number of shards of heads, feed-forward units and vocabulary.
      devices: the devices; None takes all devices of the pod. The abstract devices of a TPU topology work too.

    Raises:
      FlanError: the product of the sizes is not the number of devices, or they cannot be laid out on the devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [data, fsdp, tensor]
    known = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) > 1 or any(s == 0 or s < -1 for s in sizes) or len(devices) % known:
        raise FlanError(
            f"a mesh of data={data}, fsdp={fsdp}, tensor={tensor} does not fit {counted(len(devices), 'devices')}: the "
            "product of the three (MESH in gin) has to be the number of devices, and -1 takes what is left."
        )
    sizes = [len(devices) // known if s == -1 else s for s in sizes]
    if math.prod(sizes) != len(devices):
        raise FlanError(
            f"a mesh of data={data}, fsdp={fsdp}, tensor={tensor} has {math.prod(sizes)} places for "
            f"{counted(len(devices), 'devices')}; set one size of MESH to -1 to take them all."
        )
    return Mesh(_laid_out(sizes, devices), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _laid_out(sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """The devices as an array [data, fsdp, tensor]; slices are the outermost part of data."""
    slices: dict[int, list[Any]] = {}
    for device in devices:
        # A GPU's slice is its host. GPUs are ordered by host already.
        slices.setdefault(getattr(device, "slice_index", 0) if device.platform == "tpu" else 0, []).append(device)
    data, *inner = sizes
    if data % len(slices):
        raise FlanError(
            f"a mesh of data={data}, fsdp={inner[0]}, tensor={inner[1]} does not fit {len(slices)} slices: only the "
            "data axis goes between slices, so it has to be a multiple of their number."
        )
    if len({len(members) for members in slices.values()}) > 1:
        raise FlanError(f"the {len(slices)} slices differ in size; take slices of one topology.")
    shape = (data // len(slices), *inner)
    return np.concatenate([_laid_out_in_slice(shape, slices[number]) for number in sorted(slices)])


def _laid_out_in_slice(sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """The devices of one slice as an array [data, fsdp, tensor]. Neighbours in the mesh are neighbours in the torus."""
    # v3 has two devices on each chip. If fsdp is even, they are two parts of fsdp: both then need the same parameters,
    # which cross the chip's links once.
    cores = 2 if devices[0].device_kind == "TPU v3" and any(d.core_on_chip for d in devices) else 1
    split = next((axis for axis in (1, 2, 0) if sizes[axis] % cores == 0), None)
    try:
        if split is None:
            raise ValueError("no axis takes the two cores of a chip")
        chips = [d for d in devices if cores == 1 or d.core_on_chip == 0]
        shape = [size // cores if axis == split else size for axis, size in enumerate(sizes)]
        if devices[0].device_kind == "TPU v3":
            laid = _laid_out_on_torus(shape, chips)
        else:
            laid = mesh_utils.create_device_mesh(shape, chips, allow_split_physical_axes=True)
    except (ValueError, NotImplementedError, AssertionError) as error:
        reason = str(error).partition("\n")[0][:200].rstrip(".")
        raise FlanError(
            f"{len(devices)} devices of kind {devices[0].device_kind!r} cannot be laid out as data x fsdp x tensor = "
            f"{' x '.join(map(str, sizes))} ({reason}); choose other sizes."
        ) from error
    if cores == 1:
        return laid
    by_place = {(*d.coords, d.core_on_chip): d for d in devices}
    both = np.empty((*laid.shape, cores), object)
    for place, chip in np.ndenumerate(laid):
        both[place] = [by_place[(*chip.coords, core)] for core in range(cores)]
    return np.moveaxis(both, -1, split + 1).reshape(sizes)


def _laid_out_on_torus(sizes: Sequence[int], chips: Sequence[Any]) -> np.ndarray:
    """The chips of a 2D slice as an array [data, fsdp, tensor].

    Tensor takes whole rings of x, and steps along y. Fsdp takes the chips between those steps, which are next to each
    other. JAX's own layout of v3 would follow the chips' numbers.
    """
    chips = sorted(chips, key=lambda chip: chip.coords[::-1])
    data, fsdp, tensor = sizes
    ring = 1 + max(chip.coords[0] for chip in chips)
    if tensor % ring:
        ring = tensor
    grid = np.empty(len(chips), object)
    grid[:] = chips
    return grid.reshape(data, tensor // ring, fsdp, ring).swapaxes(1, 2).reshape(sizes)


def partition_spec(mesh: Mesh | AbstractMesh, axes: Sequence[str | None], shape: Sequence[int]) -> PartitionSpec:
    """On which mesh axes the dimensions of an array lie.

    Args:
      mesh: the mesh.
      axes: the logical axis of each dimension, or None.
      shape: the array's shape.

    Raises:
      FlanError: a logical axis without a rule, or two axes of the array on one mesh axis.
    """
    entries: list[tuple[str, ...] | str | None] = []
    for targets, size in zip(_targets(mesh, axes), shape, strict=True):
        divided = bool(targets) and size % math.prod(mesh.shape[a] for a in targets) == 0
        entries.append((targets if len(targets) > 1 else targets[0]) if divided else None)
    return PartitionSpec(*entries)


def _targets(mesh: Mesh | AbstractMesh, axes: Sequence[str | None]) -> list[tuple[str, ...]]:
    """The mesh axes on which each logical axis may lie; only axes of a size above 1."""
    used: dict[str, str] = {}
    found = []
    for name in axes:
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
        found.append(mesh_axes)
    return found


def undivided(mesh: Mesh, logical_axes: Any, shapes: Any) -> str | None:
    """One line about large parameters that the rules would split but that are not divisible; None if there are none.

    Such a dimension stays whole on every device. For a small parameter that is right. For a large one it wastes memory.
    """
    found = []
    leaves = jax.tree_util.tree_leaves_with_path(logical_axes, is_leaf=is_axes)
    for (path, axes), x in zip(leaves, jax.tree.leaves(shapes), strict=True):
        held = math.prod(NamedSharding(mesh, partition_spec(mesh, axes, x.shape)).shard_shape(x.shape))
        held *= x.dtype.itemsize
        for name, size, targets in zip(axes, x.shape, _targets(mesh, axes), strict=True):
            ways = math.prod(mesh.shape[a] for a in targets)
            if size % ways and held >= LARGE_BYTES:
                found.append((held, f"{'/'.join(names(path))} ({name} {size} by {' x '.join(targets)} {ways})"))
    if not found:
        return None
    total = sum(held for held, _ in found)
    shown = [text for _, text in sorted(found, reverse=True)]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return (
        f"not divisible, so whole on every device that could share them: {', '.join(shown[:3])}{more}; "
        f"{total / 2**20:.0f} MiB a device. Another mesh or a padded size would split them."
    )


def is_axes(value: Any) -> bool:
    """Whether the value is the tuple of logical axis names of one array.

    Example:
      >>> is_axes(("embed", None)), is_axes({"kernel": ("embed",)})
      (True, False)
    """
    return isinstance(value, tuple) and all(isinstance(v, str) or v is None for v in value)


def parameter_shardings(mesh: Mesh, logical_axes: Any, shapes: Any) -> Any:
    """The NamedSharding of every parameter.

    Args:
      mesh: the mesh.
      logical_axes: a tree like `shapes` with each parameter's tuple of logical axes.
      shapes: a tree of arrays or of their shapes and dtypes.
    """
    return jax.tree.map(
        lambda axes, x: NamedSharding(mesh, partition_spec(mesh, axes, x.shape)), logical_axes, shapes, is_leaf=is_axes
    )


@dataclasses.dataclass(frozen=True)
class Along:
    """Says that an array of the optimizer's state lies like some dimensions of its parameter.

    Attributes:
      axes: the parameter's logical axes.
      shape: the parameter's shape.
      dims: for every dimension of the array, the dimension of the parameter that it lies like; None keeps it whole.
    """

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dims: tuple[int | None, ...]


def along_shardings(mesh: Mesh, along: Any, shapes: Any) -> Any:
    """The NamedSharding of every array of an optimizer's state.

    Args:
      mesh: the mesh.
      along: a tree like `shapes` whose leaves are `Along`, or None for an array that stays whole.
      shapes: the arrays' shapes.

    Raises:
      FlanError: an array has another number of dimensions than declared, or the devices do not divide one.
    """

    def sharding(path: Any, x: Any, declared: Along | None) -> NamedSharding:
        if declared is None:
            return NamedSharding(mesh, PartitionSpec())
        spec = partition_spec(mesh, declared.axes, declared.shape)
        try:
            found = NamedSharding(mesh, PartitionSpec(*(None if dim is None else spec[dim] for dim in declared.dims)))
            if len(declared.dims) != len(x.shape):
                raise ValueError
            found.shard_shape(tuple(x.shape))
        except (ValueError, IndexError) as error:
            raise FlanError(
                f"the optimizer's {'/'.join(names(path))}, {tuple(x.shape)}, cannot lie like dimensions "
                f"{declared.dims} of its parameter, {declared.shape}: what it declares of its state is wrong."
            ) from error
        return found

    return jax.tree_util.tree_map_with_path(sharding, shapes, along)


def names(path: Any) -> tuple[str, ...]:
    """The keys of a path into a tree, as strings."""
    return tuple(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)


def batch_shardings(mesh: Mesh, shapes: Mapping[str, Any]) -> dict[str, NamedSharding]:
    """The NamedSharding of every array of a batch: rows are split over data and fsdp, everything else is whole.

    Args:
      mesh: the mesh.
      shapes: arrays [R, ...] by name, or their shapes and dtypes.
    """
    return {
        name: NamedSharding(mesh, partition_spec(mesh, ("batch", *[None] * (len(x.shape) - 1)), x.shape))
        for name, x in shapes.items()
    }


def layout(mesh: Mesh) -> contextlib.AbstractContextManager:
    """A block in which `constrain` lays traced arrays out on this mesh.

    Outside such a block `constrain` does nothing.
    """
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def constrain(x: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """Lays an array out by its logical axes, on the mesh of the `layout` around it, if there is one.

    The gradient is laid out in the same way. So a constraint on a cast parameter scatters the sum of its gradient over
    the rows, in the dtype of the cast.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(mesh, axes, x.shape))


def row_shards() -> int:
    """The number of parts into which the `layout` around splits the rows of a batch; 1 without a layout."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else rows_per_shard_of(mesh)


def rows_per_shard_of(mesh: Mesh | AbstractMesh) -> int:
    """The number of parts into which a mesh splits the rows of a batch: data x fsdp."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def local_rows(mesh: Mesh, num_rows: int) -> np.ndarray:
    """The rows of a batch that this process's devices hold, ascending. A host reads no others."""
    held = np.zeros(num_rows, bool)
    sharding = NamedSharding(mesh, partition_spec(mesh, ("batch",), (num_rows,)))
    for (rows,) in sharding.addressable_devices_indices_map((num_rows,)).values():
        held[rows] = True
    return np.flatnonzero(held)


def global_batch(
    batch: Mapping[str, np.ndarray], shardings: Mapping[str, NamedSharding], rows: np.ndarray, num_rows: int
) -> dict[str, jax.Array]:
    """Joins the rows of all processes into one batch on all devices.

    Args:
      batch: arrays [R, ...] of the rows `rows`.
      shardings: the shardings of the arrays [num_rows, ...], by name.
      rows: the rows of this process, from `local_rows`.
      num_rows: the number of rows of all processes.
    """

    def of(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            wanted = range(num_rows)[index[0]]
            first = int(np.searchsorted(rows, wanted.start))
            return x[(slice(first, first + len(wanted)), *index[1:])]

        return jax.make_array_from_callback((num_rows, *x.shape[1:]), sharding, part)

    return {name: of(x, shardings[name]) for name, x in batch.items()}

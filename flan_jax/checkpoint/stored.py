"""Reads a step's files slice by slice, without a model, to check that all of it is there and right."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from flan_jax import distributed, files
from flan_jax.checkpoint import digests, saved_digests
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, user_path
from flan_jax.values import WEIGHTS

PARAMS, EMA = WEIGHTS
OPT_STATE, ADAPTERS = "opt_state", "adapters"
ITEMS = (PARAMS, ADAPTERS, OPT_STATE, EMA)  # the items of a step; some may be missing

_AT_ONCE = 64 << 20  # bytes that are read at a time, or one slice of an array's first axis
_SMALL, _PARTS = 256 << 10, 16  # bytes below which a chunk is not cut further; most parts of a dimension
_ARRAY = "/.zarray"
# The kinds of leaves in Orbax's metadata.
_KINDS = {"jax.Array", "None", "Dict", "List", "NamedTuple", "scalar", "np.ndarray"}


def kvstore(folder: AnyPath) -> dict[str, Any]:
    """How TensorStore addresses the folder of one item of a step, with all its arrays."""
    return {"driver": "ocdbt", "base": files.kvstore(folder)}


def opened(folder: AnyPath, name: str) -> tensorstore.TensorStore:
    """Opens one array of an item by its path, such as `decoder/layers/mlp/wo/kernel`."""
    spec = {"driver": "zarr", "kvstore": kvstore(folder) | {"path": f"{name.replace('/', '.')}/"}}
    return tensorstore.open(spec, read=True).result()


def chunk(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """The part of an array, or of one layer of it, that is read as a whole.

    Every dimension is cut into as many parts as hosts of a pod may share it, so that each host reads its own: up to
    `_PARTS`, but only as long as a chunk is worth a request.
    """
    parts = [1] * len(shape)
    while itemsize * math.prod(n // p for n, p in zip(shape, parts, strict=True)) > _SMALL:
        open_to_it = [i for i, (n, p) in enumerate(zip(shape, parts, strict=True)) if n % (2 * p) == 0 and p < _PARTS]
        if not open_to_it:
            break
        parts[min(open_to_it, key=lambda i: (parts[i], -shape[i]))] *= 2
    return tuple(n // p for n, p in zip(shape, parts, strict=True))


def chunked(tree: Any) -> Any:
    """How Orbax has to cut each array of a tree when it saves: layers separately, and each as `chunk` says."""

    def of(path: Any, x: Any) -> ocp.SaveArgs:
        is_stacked = "layers" in jax.tree_util.keystr(path, simple=True, separator="/").split("/") and x.ndim > 1
        size = x.dtype.itemsize
        one = chunk(x.shape[is_stacked:], size)
        return ocp.SaveArgs(chunk_byte_size=max(size, size * math.prod(one)), shard_axes=(0,) if is_stacked else ())

    return jax.tree_util.tree_map_with_path(of, tree)


def fault(model_dir: str | AnyPath, step: int, items: Sequence[str] = ITEMS, together: bool = False) -> str | None:
    """Reads the whole of a step and says what is wrong with it; None if nothing is.

    Args:
      model_dir: a checkpoint folder.
      step: the step.
      items: the items that matter; an item that was not saved does not count.
      together: whether the processes of a pod share the reading. All must call it, and see the same folder.
    """
    number, count = (jax.process_index(), jax.process_count()) if together else (0, 1)
    own: dict[str, Any] = {"fault": None, "sums": {}}
    saved: Mapping[str, Mapping[str, digests.Digest]] | None = None
    try:
        saved = saved_digests.read(model_dir, step)
        for item in items:
            folder = saved_digests.step_folder(model_dir, step) / item
            if _is_there(folder, saved):
                names = _names(folder, None if saved is None else saved.get(item, {}))
                own["sums"][item] = {name: _summed(folder, name, number, count) for name in names}
    except Exception as error:  # TensorStore and json can raise anything
        own["fault"] = without_remedy(error, model_dir)
    everyone = [json.loads(text) for text in distributed.gathered(json.dumps(own))] if together else [own]
    if said := next((one["fault"] for one in everyone if one["fault"]), None):
        return said
    for item, by_path in own["sums"].items() if saved is not None else ():
        found = {}
        for name, (dtype, shape, _) in by_path.items():
            checksum = _total(one["sums"][item][name][2] for one in everyone)
            found[name] = digests.Digest(dtype, tuple(shape), checksum)
        if difference := digests.difference(saved.get(item, {}), found):
            return difference
    return None


def unreadable(model_dir: str | AnyPath, step: int, items: Sequence[str] = ITEMS) -> str | None:
    """What is wrong with a step's metadata, without reading its numbers; None if nothing is."""
    try:
        saved = saved_digests.read(model_dir, step)
        for item in items:
            folder = saved_digests.step_folder(model_dir, step) / item
            if _is_there(folder, saved):
                _names(folder, None if saved is None else saved.get(item, {}))
    except Exception as error:
        return without_remedy(error, model_dir)
    return None


def averaged(model_dir: str | AnyPath, step: int) -> Mapping[str, digests.Digest]:
    """The digests of a step's mean of the trained parameters, by their paths.

    Raises:
      FlanError: the step has no mean.
    """
    saved = saved_digests.read(model_dir, step) or {}
    if EMA not in saved:
        raise FlanError(
            f"step {step} of {model_dir} has no mean of parameters ({EMA}): it was trained without EMA_DECAY; take "
            f"{PARAMS}."
        )
    return saved[EMA]


def has_shapes(model_dir: str | AnyPath, step: int, wanted: Mapping[str, Any]) -> bool:
    """Whether a step was saved with arrays of exactly these names and shapes; `wanted` has trees of shapes by item."""
    try:
        saved = saved_digests.read(model_dir, step) or {}
    except FlanError:
        return False
    return all(
        {name: one.shape for name, one in saved.get(item, {}).items()}
        == {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}
        for item, tree in wanted.items()
        for leaves in [jax.tree_util.tree_leaves_with_path(tree)]
    )


def _is_there(folder: AnyPath, saved: Mapping[str, Any] | None) -> bool:
    """Whether an item was saved. Steps of an earlier version do not say so, but have parameters at least."""
    return folder.exists() or (folder.name == PARAMS if saved is None else folder.name in saved)


def _names(folder: AnyPath, saved: Mapping[str, Any] | None) -> list[str]:
    """The names of an item's arrays.

    Raises:
      FlanError: they are not those that were saved, or Orbax's metadata are damaged.
    """
    about = folder / "_METADATA"
    try:
        values = json.loads(about.read_bytes())
        known = set()
        for leaf in values["tree_metadata"].values():
            kind = leaf["value_metadata"]["value_type"]
            keys = [(part["key"], part["key_type"]) for part in leaf["key_metadata"]]
            if kind not in _KINDS or not all(isinstance(key, str) and number in (1, 2) for key, number in keys):
                raise ValueError(f"an entry of kind {kind!r}")
            if kind not in ("None", "Dict", "List", "NamedTuple"):
                known.add("/".join(key for key, _ in keys))
    except FileNotFoundError as error:
        raise FlanError(f"{about} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FlanError(f"{about} is damaged ({str(error)[:100].rstrip('.')})") from error
    beside: Any
    for beside in (folder / "_sharding", *sorted((folder / "array_metadatas").glob("*"))):
        try:
            said = json.loads(beside.read_bytes()) if beside.exists() else {}
            listed = said.get("array_metadatas", [])
            named = {one["array_metadata"]["param_name"].replace(".", "/") for one in listed}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FlanError(f"{beside} is damaged ({str(error)[:100].rstrip('.')})") from error
        for name in sorted(named - known):
            raise FlanError(f"{beside} is damaged (it speaks of {name})")
    names = tensorstore.KvStore.open(kvstore(folder)).result().list().result()
    there = {key.decode(errors="replace").removesuffix(_ARRAY) for key in names if key.decode().endswith(_ARRAY)}
    wanted = known if saved is None else set(saved)
    for name in sorted(wanted ^ known):
        raise FlanError(f"{about} is damaged ({'lacks' if name in wanted else 'also has'} {name})")
    for name in sorted(wanted):
        if name.replace("/", ".") not in there:
            raise FlanError(f"array {name} is missing")
    if not wanted and (saved is None or folder.name != OPT_STATE):  # an optimizer may have no state at all
        raise FlanError(f"{folder} holds no array")
    return sorted(wanted)


def _summed(folder: AnyPath, name: str, number: int, count: int) -> tuple[str, list[int], str]:
    """An array's dtype and shape, and the checksum of one process's share of its slices."""
    store, sums = opened(folder, name), digests.Sums()
    dtype = store.dtype.numpy_dtype
    if not store.shape:
        if number == 0:
            sums.add_layer(np.asarray(store.read().result()), None)
        return dtype.name, [], sums.checksum
    whole = max(1, store.chunk_layout.read_chunk.shape[0])  # slices in one chunk
    slices = max(1, _AT_ONCE // max(1, dtype.itemsize * math.prod(store.shape[1:])))
    slices = max(whole, slices - slices % whole) if whole <= slices else slices
    for index, start in enumerate(range(0, store.shape[0], slices)):
        if index % count == number:
            sums.add(np.asarray(store[start : min(start + slices, store.shape[0])].read().result()), start)
    return dtype.name, list(store.shape), sums.checksum


def _total(checksums: Iterable[str]) -> str:
    """The checksum of an array from those of several `digests.Sums`, each with some of its slices."""
    halves = [(int(one[:8], 16), int(one[8:], 16)) for one in checksums]
    return "".join(f"{sum(half) % 2**32:08x}" for half in zip(*halves, strict=True))


def without_remedy(error: Exception, model_dir: str | AnyPath) -> str:
    """What is wrong, for a message that has a remedy of its own; see `reason`."""
    return reason(error, model_dir).removesuffix("; copy the checkpoint anew")


def reason(error: BaseException, model_dir: str | AnyPath | None = None) -> str:
    """What a library says is wrong, in one short line. The exception's cause usually says it best.

    If it names a file of `model_dir`, that is appended in full.
    """
    while isinstance(error.__cause__, Exception) and not isinstance(error, FlanError):
        error = error.__cause__
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    text = f"{first} {more[0]}" if first.endswith(":") and more else first
    if isinstance(error, FlanError):
        return text.rstrip(". ")
    text = re.sub(r"\s*\[[a-z_]+='.*", "", text)  # the place in TensorStore's source
    file = None
    if model_dir is not None:
        base = re.escape(str(user_path(model_dir).absolute()))
        file = next(iter(re.findall(rf'{base}/checkpoints/[^\s"\':,\]]+', str(error))), None)
    short = text[:200].rstrip(":. ")
    return short if file is None or file in short else f"{short}: {file}"

"""Our own checkpoint folders, one layer's tensor at a time. `checkpoint.arrays` reads and writes them as a whole.

The files are Orbax's. Orbax takes any leaf for which it has a handler. Ours asks for one layer after another and writes
each in its own chunks, so that a later conversion can read single layers, and each host of a pod its share.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint import future, type_handlers

from flan_jax import models
from flan_jax.checkpoint import adapters, choosing, digests, saved_digests, saving, stored
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, orbax_folder
from flan_jax.formats.source import Leaf, Source, as_float32, leaves
from flan_jax.formats.source import Path as ParameterPath
from flan_jax.models import lora, nested, prompt

_READ_AT_ONCE = 1 << 30  # bytes of one parameter's layers; a chunk of a trained checkpoint holds all layers


class _Streamed:
    """A leaf for Orbax whose content is only asked for when it is written."""

    def __init__(self, leaf: Leaf, source: Source) -> None:
        self.leaf, self._source = leaf, source
        self.shape = ((leaf.num_layers,) if leaf.num_layers else ()) + leaf.shape
        self.dtype = np.dtype(np.float32)
        self.ndim, self.size = len(self.shape), leaf.size
        self.nbytes = self.size * self.dtype.itemsize
        self.chunk = ((1,) if leaf.num_layers else ()) + stored.chunk(leaf.shape, self.dtype.itemsize)
        self._sums = digests.Sums()

    @property
    def digest(self) -> digests.Digest:
        """The digest of what was written."""
        return digests.Digest(self.dtype.name, self.shape, self._sums.checksum)

    def write(self, into: tensorstore.TensorStore) -> None:
        for layer in self.leaf.layers:
            tensor = self._source.tensor(self.leaf.path, layer)
            if tensor.shape != self.leaf.shape:
                where = "/".join(self.leaf.path)
                raise FlanError(
                    f"{self._source.name}: {where} has shape {tensor.shape} instead of {self.leaf.shape}: "
                    "the model is of another shape than is said."
                )
            tensor = np.asarray(tensor, self.dtype)
            self._sums.add_layer(tensor, layer)
            (into if layer is None else into[layer]).write(tensor).result()


class _StreamedHandler(type_handlers.TypeHandler):
    """Writes `_Streamed` leaves in Orbax's form for arrays of one process."""

    def typestr(self) -> str:
        return "jax.Array"  # it is read like one

    async def serialize(self, values: Sequence[_Streamed], infos: Sequence[Any], args: Any = None) -> list[Any]:
        async def write() -> None:
            for value, info in zip(values, infos, strict=True):
                await info.await_path_creation()
                spec = type_handlers.get_json_tspec_write(
                    info,
                    use_ocdbt=True,
                    global_shape=value.shape,
                    local_shape=value.chunk,
                    dtype=value.dtype,
                    process_index=0,
                )
                value.write(tensorstore.open(spec, create=True, open=True, context=info.ts_context).result())

        return [future.CommitFutureAwaitingContractedSignals(write(), name="streamed")]

    async def metadata(self, infos: Sequence[Any]) -> Sequence[Any]:
        raise TypeError("this handler only writes; as jax.Array, leaves are read by ArrayHandler")

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> Sequence[Any]:
        raise TypeError("this handler only writes; as jax.Array, leaves are read by ArrayHandler")


def write(source: Source, manifest: Manifest, folder: AnyPath) -> None:
    """Writes a checkpoint folder with the parameters as its step 0.

    Args:
      source: the model, with its tokenizer.
      manifest: the manifest of the new checkpoint.
      folder: the folder to write into.

    Raises:
      FlanError: a tensor cannot be read, or has another shape.
    """
    tree: dict[str, Any] = {}
    streamed = {leaf.path: _Streamed(leaf, source) for leaf in leaves(source.config)}
    for (*above, last), value in streamed.items():
        inner = tree
        for name in above:
            inner = inner.setdefault(name, {})
        inner[last] = value
    registry = type_handlers.create_type_handler_registry(
        (jax.Array, type_handlers.ArrayHandler()), (_Streamed, _StreamedHandler())
    )
    handlers = {"params": ocp.PyTreeCheckpointHandler(type_handler_registry=registry)}
    options = ocp.CheckpointManagerOptions(create=True, enable_async_checkpointing=False)
    opened = ocp.CheckpointManager(
        orbax_folder(folder / "checkpoints", to_write=True), options=options, item_handlers=handlers
    )
    with saving.quietly(), contextlib.closing(opened) as manager:
        items = ocp.args.Composite(params=ocp.args.PyTreeSave(tree))
        manager.save(0, args=items, custom_metadata=saved_digests.note(None))
        manager.wait_until_finished()
    saved_digests.write(folder, 0, {"params": {"/".join(name): value.digest for name, value in streamed.items()}})
    source.tokenizer.save(folder / "vocabulary")
    manifest.save(folder)


def read(folder: AnyPath, step: int | None = None, which: str = stored.PARAMS) -> Source:
    """Opens a checkpoint folder.

    Args:
      folder: the checkpoint folder.
      step: its step; None takes the last.
      which: the last parameters or their mean, one of `values.WEIGHTS`.

    Raises:
      FlanError: it is no checkpoint folder, is damaged, or lacks the step.
    """
    if (base := adapters.load(folder)) is not None:
        return _with_adapters(folder, base, step, which)
    manifest = Manifest.load(folder)
    config = models.DecoderConfig.from_dict(manifest.model)
    tokenizer = manifest.load_vocabulary(folder)
    found = choosing.steps(folder)
    step = (found or [0])[-1] if step is None else step
    if step not in found:
        raise FlanError(f"no step {step} in {folder}: there are {', '.join(map(str, found)) or 'none'}.")
    averaged = {tuple(name.split("/")) for name in stored.averaged(folder, step)} if which == stored.EMA else set()
    shapes: dict[ParameterPath, tuple[int, ...]] = {
        leaf.path: ((leaf.num_layers,) if leaf.num_layers else ()) + leaf.shape for leaf in leaves(config)
    }
    kept: dict[str, Any] = {}  # the layers that were read last, since they are mostly asked for in order
    items = (stored.PARAMS, stored.EMA) if averaged else (stored.PARAMS,)
    with choosing.explained(folder, step, items):
        checked = {item: saved_digests.Reading(folder, step, item) for item in items}

    def item_of(path: ParameterPath) -> str:
        return stored.EMA if path in averaged else stored.PARAMS

    def stored_tensor(path: ParameterPath, layer: int | None) -> np.ndarray:
        if kept.get("path") != path:
            item = saved_digests.step_folder(folder, step) / item_of(path)
            kept.update(path=path, store=stored.opened(item, "/".join(path)), at=None)
        store = kept["store"]
        if store.shape != (expected := shapes[path]):
            raise ValueError(f"{'/'.join(path)} has shape {store.shape}, and {expected} by the manifest")
        if layer is None:
            return store.read().result()
        count = max(1, _READ_AT_ONCE // max(1, 4 * math.prod(store.shape[1:])))
        if store.chunk_layout.read_chunk.shape[0] == 1:
            count = 1
        start = layer - layer % count
        if kept["at"] != start:
            kept.update(at=start, layers=None)
            kept["layers"] = store[start : min(start + count, shapes[path][0])].read().result()
        return kept["layers"][layer - start]

    def tensor(path: ParameterPath, layer: int | None) -> np.ndarray:
        with choosing.explained(folder, step, items):
            try:
                found = stored_tensor(path, layer)
            except (ValueError, OSError) as error:
                what = f"step {step} of {folder} cannot be read ({stored.reason(error, folder)})"
                raise FlanError(f"{what}: it is damaged; copy it anew.") from error
            checked[item_of(path)].add("/".join(path), found, layer, 0 if layer is None else shapes[path][0])
        return as_float32(found, f"step {step} of {folder}: {'/'.join(path)}")

    return Source(
        config, tensor, tokenizer, f"{folder.name} step {step}" + (f" ({which})" if averaged else ""), manifest, step
    )


def adapters_of(folder: AnyPath, step: int | None, which: str = stored.PARAMS) -> tuple[int, dict[str, Any]]:
    """The adapters in a checkpoint folder that holds only these.

    Args:
      folder: the checkpoint folder.
      step: its step; None takes the last.
      which: the last adapters or their mean, one of `values.WEIGHTS`.

    Returns:
      (step, nested dicts of arrays, layers stacked).

    Raises:
      FlanError: it lacks the step, or is damaged.
    """
    found = choosing.steps(folder)
    step = (found or [0])[-1] if step is None else step
    if step not in found:
        raise FlanError(f"no step {step} in {folder}: there are {', '.join(map(str, found)) or 'none'}.")
    tree: dict[str, Any] = {}
    averaged = stored.averaged(folder, step) if which == stored.EMA else {}
    with choosing.explained(folder, step, (stored.ADAPTERS,)):
        saved = saved_digests.read(folder, step) or {}
        for item in (stored.ADAPTERS, stored.EMA) if averaged else (stored.ADAPTERS,):
            for name, one in saved.get(item, {}).items():
                try:
                    x = np.asarray(stored.opened(saved_digests.step_folder(folder, step) / item, name).read().result())
                except (ValueError, OSError) as error:
                    what = f"step {step} of {folder} cannot be read ({stored.reason(error, folder)})"
                    raise FlanError(f"{what}: it is damaged; copy it anew.") from error
                saved_digests.compare(folder, step, {name: one}, {name: digests.of_array(x)})
                tree = nested.merged(tree, nested.at(name.split("/"), x))
    return step, tree


def _with_adapters(folder: AnyPath, base: adapters.Base, step: int | None, which: str) -> Source:
    """The model with its adapters merged in, one layer at a time."""
    plain = read(base.check(), base.step)
    step, tree = adapters_of(folder, step, which)
    if any(prompt.SOFT in path for path in nested.paths(tree)):
        raise FlanError(f"{folder} holds a soft prompt, for which this format has no place; --format=peft has one.")
    manifest = Manifest.load(folder)

    def tensor(path: ParameterPath, layer: int | None) -> np.ndarray:
        found, beside = plain.tensor(path, layer), tree
        for name in path[:-1]:
            beside = beside.get(name, {})
        if path[-1] != "kernel" or lora.NAMES[0] not in beside:
            return found
        parts = (beside[name] if layer is None else beside[name][layer] for name in lora.NAMES)
        return found + lora.delta(*parts).reshape(found.shape).astype(found.dtype)

    name = f"{folder.name} step {step}" + (f" ({which})" if which != stored.PARAMS else "")
    return Source(plain.config, tensor, manifest.load_vocabulary(folder), name, manifest, step)

"""Our own checkpoint folders, one layer's tensor at a time: what `checkpoint.arrays` reads and writes whole.

The files are Orbax's. It takes any leaf for which it has a handler; ours asks for one layer after another and writes
each as a chunk of its own, so that a later conversion can read them singly.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint import future, type_handlers

from flan_jax import models
from flan_jax.checkpoint import arrays
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.formats.source import Leaf, Source, as_float32, leaves
from flan_jax.formats.source import Path as ParameterPath

_READ_AT_ONCE = 1 << 30  # bytes of one parameter's layers; a chunk of a trained checkpoint holds all layers


class _Streamed:
    """A leaf for Orbax whose content is asked for when it is written."""

    def __init__(self, leaf: Leaf, source: Source) -> None:
        self.leaf, self._source = leaf, source
        self.shape = ((leaf.num_layers,) if leaf.num_layers else ()) + leaf.shape
        self.dtype = np.dtype(np.float32)
        self.ndim, self.size = len(self.shape), leaf.size
        self.nbytes = self.size * self.dtype.itemsize
        self.chunk = ((1,) if leaf.num_layers else ()) + leaf.shape

    def write(self, into: tensorstore.TensorStore) -> None:
        for layer in self.leaf.layers:
            tensor = self._source.tensor(self.leaf.path, layer)
            if tensor.shape != self.leaf.shape:
                where = "/".join(self.leaf.path)
                raise FlanError(
                    f"{self._source.name}: {where} has shape {tensor.shape} instead of {self.leaf.shape}: "
                    "the model is of another shape than is said."
                )
            (into if layer is None else into[layer]).write(np.asarray(tensor, np.float32)).result()


class _StreamedHandler(type_handlers.TypeHandler):
    """Writes `_Streamed` leaves as Orbax writes arrays of one process."""

    def typestr(self) -> str:
        return "jax.Array"  # it is read as one

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


def write(source: Source, manifest: Manifest, folder: Path) -> None:
    """Writes a checkpoint folder with the parameters as its step 0.

    Args:
      source: the model; its tokenizer is there.
      manifest: of the new checkpoint.
      folder: to write into.

    Raises:
      FlanError: a tensor cannot be read, or has another shape.
    """
    tree: dict[str, Any] = {}
    for leaf in leaves(source.config):
        *above, last = leaf.path
        inner = tree
        for name in above:
            inner = inner.setdefault(name, {})
        inner[last] = _Streamed(leaf, source)
    registry = type_handlers.create_type_handler_registry(
        (jax.Array, type_handlers.ArrayHandler()), (_Streamed, _StreamedHandler())
    )
    handlers = {"params": ocp.PyTreeCheckpointHandler(type_handler_registry=registry)}
    options = ocp.CheckpointManagerOptions(create=True, enable_async_checkpointing=False)
    path = (folder / "checkpoints").absolute()
    with contextlib.closing(ocp.CheckpointManager(path, options=options, item_handlers=handlers)) as manager:
        manager.save(0, args=ocp.args.Composite(params=ocp.args.PyTreeSave(tree)))
        manager.wait_until_finished()
    source.tokenizer.save(folder / "vocabulary")
    manifest.save(folder)


def read(folder: Path, step: int | None = None) -> Source:
    """Opens a checkpoint folder.

    Raises:
      FlanError: it is none, is damaged, or lacks the step.
    """
    manifest = Manifest.load(folder)
    config = models.DecoderConfig.from_dict(manifest.model)
    tokenizer = vocabularies.load(folder / "vocabulary")
    found = arrays.steps(folder)
    step = (found or [0])[-1] if step is None else step
    if step not in found:
        raise FlanError(f"no step {step} in {folder}: there are {', '.join(map(str, found)) or 'none'}.")
    base = f"file://{(folder / 'checkpoints' / str(step) / 'params').absolute()}/"
    stored: dict[ParameterPath, int] = {leaf.path: leaf.num_layers for leaf in leaves(config)}
    kept: dict[str, Any] = {}  # the layers read last: they are mostly asked for in order

    def tensor(path: ParameterPath, layer: int | None) -> np.ndarray:
        try:
            if kept.get("path") != path:
                kvstore = {"driver": "ocdbt", "base": base, "path": ".".join(path) + "/"}
                kept.update(path=path, store=tensorstore.open({"driver": "zarr", "kvstore": kvstore}).result(), at=None)
            store = kept["store"]
            if layer is None:
                return store.read().result()
            count = max(1, _READ_AT_ONCE // max(1, 4 * math.prod(store.shape[1:])))
            if store.chunk_layout.read_chunk.shape[0] == 1:
                count = 1
            start = layer - layer % count
            if kept["at"] != start:
                kept.update(at=start, layers=None)
                kept["layers"] = store[start : min(start + count, stored[path])].read().result()
            return kept["layers"][layer - start]
        except (ValueError, OSError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise FlanError(
                f"step {step} of {folder} cannot be read ({reason}): it is damaged; copy it anew."
            ) from error

    def finite(path: ParameterPath, layer: int | None) -> np.ndarray:
        return as_float32(tensor(path, layer), f"step {step} of {folder}: {'/'.join(path)}")

    return Source(config, finite, tokenizer, f"{folder.name} step {step}", manifest, step)

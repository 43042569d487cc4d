"""Reads and writes T5X's native checkpoints, without T5X: a msgpack file of TensorStore specs beside zarr folders.

    checkpoint_<step>/checkpoint                                {version, optimizer: {state: {...}, target: {...}}}
    checkpoint_<step>/target.decoder.layers_0.mlp.wo.kernel/    zarr v2
    checkpoint_<step>/state.param_states.decoder.[...].v/       Adafactor's statistics

Parameters have T5X's paths here too. T5X keeps layers separate (`layers_0`), or stacks them on axis 1 when it scans
(`layers`), and merges heads and their dimensions in attention kernels.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorstore
from flax import serialization

from flan_jax import models
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.formats.source import Leaf, Source, as_float32, leaves
from flan_jax.formats.source import Path as ParameterPath

VERSION = 3  # bfloat16 is written as such
_CHUNK_BYTES = 64 << 20  # T5X's chunks are no larger
_SCAN_AXIS = 1


@dataclasses.dataclass(frozen=True)
class OptimizerState:
    """What T5X keeps besides the parameters, with T5X's names and shapes.

    Attributes:
      step: steps taken.
      param_states: nested dicts like T5X's parameters. For Adafactor each ends in {m, v, v_col, v_row}; what is not
        kept is a single zero.
    """

    step: int
    param_states: dict[str, Any]


def locate(folder: Path) -> Path | None:
    """The folder with the msgpack file: `folder` itself, or its last `checkpoint_<step>`; None if neither has one."""
    if (folder / "checkpoint").is_file():
        return folder
    found = [(int(m[1]), p.parent) for p in folder.glob("*/checkpoint") if (m := _STEP.fullmatch(p.parent.name))]
    return max(found)[1] if found else None


_STEP = re.compile(r"checkpoint_(\d+)")


def read(
    folder: Path,
    config: models.DecoderConfig,
    tokenizer: vocabularies.Tokenizer | None = None,
    manifest: Manifest | None = None,
) -> Source:
    """Opens the parameters of a checkpoint. Layers may be separate or scanned.

    Args:
      folder: the folder with the msgpack file.
      config: the shape, which T5X keeps in gin files elsewhere.
      tokenizer: the vocabulary, which T5X keeps elsewhere too.
      manifest: what the model was tuned on, if known.

    Raises:
      FlanError: it is damaged, or its parameters are not those of `config`.
    """
    contents = _contents(folder)
    stored = _flat(contents["target"])
    unread = set(stored)
    names: dict[ParameterPath, str] = {}
    for leaf in leaves(config):
        names[leaf.path] = scanned = _name(leaf.path)
        for layer in (None,) if scanned in stored else leaf.layers:
            name, shape = _name(leaf.path, layer), t5x_shape(leaf, scanned=layer is None and bool(leaf.num_layers))
            if name not in stored:
                raise FlanError(f"{folder} lacks the parameter {name}: it is no checkpoint of that model.")
            if (found := _shape(stored[name])) != shape:
                raise FlanError(f"{folder}: {name} has shape {found} instead of {shape}: give the model of that shape.")
            unread.discard(name)
    if unread:
        raise FlanError(
            f"{folder} holds parameters that the model has not: {', '.join(sorted(unread)[:3])}: "
            "give the model of that shape."
        )
    shapes = {leaf.path: leaf.shape for leaf in leaves(config)}

    def tensor(path: ParameterPath, layer: int | None) -> np.ndarray:
        if layer is not None and names[path] in stored:
            name, part = names[path], (slice(None), layer)
        else:
            name, part = _name(path, layer), ...
        array = as_float32(_load(folder, stored[name], part), f"{folder}: {name}")
        if array.size != math.prod(shapes[path]):
            raise FlanError(f"{folder}: {name} has shape {array.shape} in its own file; copy the checkpoint anew.")
        return array.reshape(shapes[path])

    step = int(contents["state"]["step"])
    return Source(config, tensor, tokenizer, f"{folder.name} of T5X", manifest, step)


def is_scanned(folder: Path) -> bool:
    """Whether the checkpoint stacks its layers."""
    return any("layers" in name.split("/") for name in _flat(_contents(folder)["target"]))


def read_optimizer(folder: Path) -> OptimizerState:
    """The step and the optimizer's statistics, in memory.

    Raises:
      FlanError: the checkpoint is damaged.
    """
    state = _contents(folder)["state"]

    def loaded(tree: Any) -> Any:
        return _load(folder, tree) if _is_leaf(tree) else {name: loaded(inner) for name, inner in tree.items()}

    return OptimizerState(int(state["step"]), loaded(state.get("param_states", {})))


def write(source: Source, folder: Path, optimizer: OptimizerState | None = None, scanned: bool = False) -> None:
    """Writes a checkpoint of T5X with the same names, specs, shapes and chunks as its own.

    Args:
      source: the model.
      folder: `checkpoint_<step>`, to be made.
      optimizer: the step and the statistics. Without them, T5X can still use the checkpoint for inference, and for
        tuning with a new optimizer. Missing statistics are not made up.
      scanned: whether to stack layers on axis 1 under the name `layers`; all layers of one parameter are then in
        memory.
    """
    folder.mkdir(parents=True)
    target: dict[str, Any] = {}
    for leaf in leaves(source.config):
        if scanned and leaf.num_layers:
            layers = [source.tensor(leaf.path, i).reshape(t5x_shape(leaf)) for i in leaf.layers]
            _put(target, _name(leaf.path), _store(folder, f"target/{_name(leaf.path)}", np.stack(layers, _SCAN_AXIS)))
            continue
        for layer in leaf.layers:
            name = _name(leaf.path, layer)
            array = np.asarray(source.tensor(leaf.path, layer), np.float32).reshape(t5x_shape(leaf))
            _put(target, name, _store(folder, f"target/{name}", array))
    optimizer = OptimizerState(0, {}) if optimizer is None else optimizer
    state: dict[str, Any] = {"step": np.asarray(optimizer.step, np.int32)}
    for name, array in _flat(optimizer.param_states).items():
        whole = f"state/param_states/{name}"
        # T5X keeps arrays without axes to shard, such as Adafactor's placeholders, in the msgpack file.
        _put(state, f"param_states/{name}", array if array.shape in ((), (1,)) else _store(folder, whole, array))
    contents = {"version": VERSION, "optimizer": _sorted({"state": state, "target": target})}
    (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(contents, in_place=True))


def t5x_shape(leaf: Leaf, scanned: bool = False) -> tuple[int, ...]:
    """The shape of a parameter in T5X: heads and their dimensions merged, scanned layers on axis 1."""
    shape = leaf.shape
    if leaf.path[-1] == "kernel" and len(shape) == 3:
        out = leaf.path[-2] == "out"
        shape = (shape[0] * shape[1], shape[2]) if out else (shape[0], shape[1] * shape[2])
    if leaf.path[-1] in ("bias", "scale"):  # of all heads
        shape = (math.prod(shape),)
    return (*shape[:_SCAN_AXIS], leaf.num_layers, *shape[_SCAN_AXIS:]) if scanned else shape


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> list[int]:
    """T5X's chunks: the longest axis is divided by larger and larger divisors until a chunk has at most 64 MiB."""
    chunk = list(shape)
    while math.prod(chunk) * itemsize > _CHUNK_BYTES:
        axis = int(np.argmax(chunk))
        chunk[axis] = next(n for n in range(chunk[axis] - 1, 0, -1) if shape[axis] % n == 0)
    return chunk


def _name(path: ParameterPath, layer: int | None = None) -> str:
    return "/".join(f"layers_{layer}" if part == "layers" and layer is not None else part for part in path)


def _contents(folder: Path) -> dict[str, Any]:
    path = folder / "checkpoint"
    try:
        contents = serialization.msgpack_restore(path.read_bytes())
        optimizer = contents["optimizer"]
        if "step" not in optimizer["state"] or "target" not in optimizer:
            raise KeyError("target")
    except FileNotFoundError as error:
        raise FlanError(f"no T5X checkpoint at {folder}: the file checkpoint is missing.") from error
    except Exception as error:  # msgpack raises ValueErrors of its own, and TypeErrors for other content
        raise FlanError(f"{path} cannot be read as a T5X checkpoint ({type(error).__name__}); copy it anew.") from error
    return optimizer


def _is_leaf(value: Any) -> bool:
    return not isinstance(value, Mapping) or {"driver", "metadata"} <= set(value)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in tree.items():
            if _is_leaf(value):
                yield prefix + name, value
            else:
                yield from walk(value, f"{prefix}{name}/")

    return dict(walk(tree, prefix))


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    *above, last = name.split("/")
    for part in above:
        tree = tree.setdefault(part, {})
    tree[last] = value


def _sorted(tree: Any) -> Any:
    return {k: _sorted(tree[k]) for k in sorted(tree)} if isinstance(tree, dict) else tree


def _shape(stored: Any) -> tuple[int, ...]:
    return tuple(stored["metadata"]["shape"]) if isinstance(stored, Mapping) else np.shape(stored)


def _load(folder: Path, stored: Any, part: Any = ...) -> np.ndarray:
    """An array in the msgpack file, or the one that a spec there names."""
    if not isinstance(stored, Mapping):
        return np.asarray(stored)[part]
    # Specs name the bucket that they were written to, and older ones have the path beside the store. Whatever folders a
    # spec names, the array is in this one, because the checkpoint may have been moved.
    told = stored.get("kvstore", {}).get("path") or stored.get("path")
    if not isinstance(told, str) or not PurePosixPath(told).name:
        raise FlanError(f"{folder} does not say where one of its arrays is; copy the checkpoint anew.")
    path = folder / PurePosixPath(told).name
    try:
        kvstore = {"driver": "file", "path": f"{path.absolute()}/"}
        return tensorstore.open({"driver": "zarr", "kvstore": kvstore}, read=True).result()[part].read().result()
    except (ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise FlanError(f"{path} cannot be read ({reason}); copy the checkpoint anew.") from error


def _store(folder: Path, name: str, array: np.ndarray) -> dict[str, Any]:
    """Writes a zarr folder. Returns its spec for the msgpack file, with a path relative to the checkpoint."""
    spec = {
        "driver": "zarr",
        "dtype": array.dtype.name,
        "kvstore": {"driver": "file", "path": name.replace("/", ".") + "/"},
        "metadata": {
            "chunks": chunk_shape(array.shape, array.dtype.itemsize),
            "compressor": {"id": "gzip", "level": 1},
            "shape": list(array.shape),
        },
    }
    placed = spec | {"kvstore": {"driver": "file", "path": f"{folder.absolute()}/{spec['kvstore']['path']}"}}
    tensorstore.open(placed, create=True, open=True).result().write(array).result()
    return spec

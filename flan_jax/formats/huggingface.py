"""Folders of transformers, both ways: config.json, safetensors (in one file or sharded) and the tokenizer."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import save_file

from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.formats import huggingface_config, huggingface_tokenizer
from flan_jax.formats.huggingface_config import GEMMA3_MULTIMODAL, T5
from flan_jax.formats.huggingface_tensors import tensors
from flan_jax.formats.source import Path as ParameterPath
from flan_jax.formats.source import Source, leaves

SHARD_BYTES = 2 << 30
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_EMBEDDING = "embed_tokens.weight"
# Copies of the embedding, frequencies that follow from the configuration, and a table that T5's code never reads.
_REDUNDANT = ("rotary_emb.inv_freq", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_REDUNDANT += ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)


class _Files:
    """Tensors by name in the files of a folder; one file is open at a time, so that its pages can go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file, self._open = None, None
        if (folder / _INDEX).is_file():
            try:
                self.names: dict[str, str] = dict(json.loads((folder / _INDEX).read_text())["weight_map"])
            except (ValueError, KeyError) as error:
                raise FlanError(f"{folder / _INDEX} is broken ({error}); get it again.") from error
            for file in sorted(set(self.names.values())):
                if not (folder / file).is_file():
                    raise FlanError(f"{folder} lacks {file}, which {_INDEX} names; get it again.")
        elif (folder / _WEIGHTS).is_file():
            self._file = _WEIGHTS
            self.names = {}
            self.names = dict.fromkeys(self._opened(_WEIGHTS).keys(), _WEIGHTS)
        else:
            raise FlanError(f"{folder} has no {_WEIGHTS}: other weight files (pytorch_model.bin, ...) are not read.")

    def load(self, name: str) -> np.ndarray:
        """A tensor, in float32."""
        try:
            return self._opened(self.names[name]).get_tensor(name).astype(np.float32)
        except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
            raise FlanError(f"{self._folder / self.names[name]}: {name} cannot be read ({error}).") from error

    def shape(self, name: str) -> tuple[int, ...]:
        """What the file's header says."""
        return tuple(self._opened(self.names[name]).get_slice(name).get_shape())

    def _opened(self, file: str) -> Any:
        if self._open is None or file != self._file:
            try:
                # Not mapped: pages of a map stay with the process until somebody else wants the memory.
                self._file, self._open = file, safetensors.safe_open(self._folder / file, "np", backend="pread")
            except (safetensors.SafetensorError, OSError) as error:
                raise FlanError(f"{self._folder / file} cannot be read ({error}); get it again.") from error
        return self._open


def read(folder: Path) -> Source:
    """Opens a folder of Llama, Gemma 3 (text), Qwen 3 or T5 1.1 (Flan-T5).

    Raises:
      FlanError: a file is missing or broken, or the model is not covered.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FlanError(f"{path} cannot be read ({error}); get it again from where it came.") from error
    files = _Files(folder)
    family, config = huggingface_config.read(values, files.names, str(path))
    placed = {key: tensor._replace(name=name) for key, tensor, name in _placed(config, family, files, folder, values)}
    shapes = {leaf.path: leaf.shape for leaf in leaves(config)}
    for (parameter, _), tensor in placed.items():
        expected = tensor.to_theirs(np.broadcast_to(np.float32(0), shapes[parameter])).shape
        if (found := files.shape(tensor.name)) != expected:
            raise FlanError(f"{folder}: {tensor.name} has shape {found}; by {path.name} it should be {expected}.")

    def load(parameter: ParameterPath, layer: int | None) -> np.ndarray:
        tensor = placed[parameter, layer]
        return tensor.to_ours(files.load(tensor.name))

    tokenizer = huggingface_tokenizer.read(folder, family, values)
    vocabularies.check_fits(tokenizer, config.vocab_size, str(folder))
    manifest = Manifest.load(folder) if (folder / "manifest.json").is_file() else None
    return Source(config, load, tokenizer, f"{values.get('_name_or_path') or folder.name} ({family})", manifest)


def _placed(config: Any, family: str, files: _Files, folder: Path, values: Mapping[str, Any]) -> Any:
    """(key, tensor, its name in this folder) of every tensor; refuses what is missing and what is left."""
    prefix = ""
    if family != T5:
        found = [name.removesuffix(_EMBEDDING) for name in files.names if name.endswith(_EMBEDDING)]
        prefix = found[0] if found else "model."
    unread = set(files.names)
    for key, tensor in tensors(config, family).items():
        names = [prefix + tensor.name]
        if tensor.name == "lm_head.weight":  # beside the model, not in it
            names = [name for name in files.names if name.endswith(tensor.name)] or [tensor.name]
        if names[0] not in files.names:
            raise FlanError(f"{folder} lacks the tensor {names[0]}: the weights are not those of config.json.")
        unread.discard(names[0])
        yield key, tensor, names[0]
    ignored = (*_REDUNDANT, "lm_head.weight") if config.tied_embeddings else _REDUNDANT
    left = sorted(name for name in unread if not name.endswith(ignored))
    if values["model_type"] == GEMMA3_MULTIMODAL:  # pictures are left out
        left = [name for name in left if "vision_tower" not in name and "multi_modal_projector" not in name]
    if left:  # biases, adapters, experts: without them the model would be a different one
        raise FlanError(f"{folder} holds tensors that are not covered: {', '.join(left[:3])}.")


def write(source: Source, folder: Path, dtype: str = "float32", shard_bytes: int = SHARD_BYTES) -> None:
    """Writes a folder that transformers loads, one shard in memory at a time.

    Args:
      source: the model; its tokenizer is there.
      folder: to write into.
      dtype: of the weights, "float32" or "bfloat16".
      shard_bytes: a file is closed before it gets larger, unless one tensor is.

    Raises:
      FlanError: transformers has no such architecture.
    """
    config = source.config
    values = huggingface_config.write(config, source.tokenizer, dtype)
    family = values["model_type"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values, indent=1) + "\n")
    sizes = {leaf.path: math.prod(leaf.shape) * DTYPES[dtype].itemsize for leaf in leaves(config)}
    shards: list[list[Any]] = [[]]
    used = 0
    for key, tensor in tensors(config, family).items():
        if shards[-1] and used + sizes[key[0]] > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append((key, tensor))
        used += sizes[key[0]]
    weight_map: dict[str, str] = {}
    prefix = "" if family == T5 else "model."
    for number, shard in enumerate(shards, 1):
        file = _WEIGHTS if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        content = {}
        for (path, layer), tensor in shard:
            name = tensor.name if tensor.name == "lm_head.weight" else prefix + tensor.name
            array = tensor.to_theirs(source.tensor(path, layer)).astype(DTYPES[dtype])
            content[name] = np.ascontiguousarray(array)
            weight_map[name] = file
        save_file(content, folder / file, metadata={"format": "pt"})
        del content
    if len(shards) > 1:
        total = sum(sizes[path] for path, _ in itertools.chain.from_iterable([[k for k, _ in s] for s in shards]))
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / _INDEX).write_text(json.dumps(index, indent=1) + "\n")
    huggingface_tokenizer.write(source.tokenizer, folder, family)

"""Reads and writes folders of transformers: config.json, safetensors (one file or shards) and the tokenizer."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.formats import huggingface_config, huggingface_tokenizer, names
from flan_jax.formats.downloads import refuse_pointer
from flan_jax.formats.huggingface_fields import GEMMA3_MULTIMODAL, T5
from flan_jax.formats.huggingface_files import GENERATION, INDEX, WEIGHTS, WeightFiles
from flan_jax.formats.huggingface_placing import place, redundant
from flan_jax.formats.huggingface_tensors import tensors
from flan_jax.formats.names import MAX_POSITIONS
from flan_jax.formats.source import Path as ParameterPath
from flan_jax.formats.source import Source, as_float32, leaves

SHARD_BYTES = 2 << 30
_DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in names.DTYPES}


# Fields that config.json may leave out, and the tensors whose shape depends on them.
_USUAL = {"vocab_size": ("embed", "lm_head", "shared"), "num_key_value_heads": ("k_proj", "v_proj")}


def read(folder: Path) -> Source:
    """Opens a folder of one of `huggingface_fields.FAMILIES`.

    Raises:
      FlanError: a file is missing or broken, or the model is not supported.
    """
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".model", ".txt", ".jinja"):
            refuse_pointer(file)
    path = folder / "config.json"
    values = _json(path)
    files = WeightFiles(folder)
    family, config = huggingface_config.read(values, files.names, str(path))
    if family == T5 and (folder / GENERATION).is_file():
        start = _json(folder / GENERATION).get("decoder_start_token_id")
        if start not in (None, 0):
            raise FlanError(f"{folder / GENERATION}: decoder_start_token_id is {start!r}; decoders start with 0 here.")
    if (layers := config.num_layers + config.num_encoder_layers) > len(files.names):
        raise FlanError(f"{path} says {layers} layers, and the weights are {len(files.names)} tensors in all.")
    config, placed = place(config, family, files, folder)
    left = sorted(set(files.names) - {tensor.name for tensor in placed.values()} - redundant(config, family, files))
    if values["model_type"] == GEMMA3_MULTIMODAL:  # its image part is left out
        left = [name for name in left if "vision_tower" not in name and "multi_modal_projector" not in name]
    if left:  # biases, adapters, experts; without them it would be another model
        raise FlanError(f"{folder} holds tensors that are not covered: {', '.join(left[:3])}.")
    shapes = {leaf.path: leaf.shape for leaf in leaves(config)}
    for (parameter, _), tensor in placed.items():
        expected = tensor.to_theirs(np.broadcast_to(np.float32(0), shapes[parameter])).shape
        if (found := files.shape(tensor.name)) != expected:
            text = values.get("text_config") or values
            unsaid = [key for key, of in _USUAL.items() if text.get(key) is None and any(o in tensor.name for o in of)]
            usual = f" and the usual {unsaid[0]}, which it does not say," if unsaid else ""
            raise FlanError(
                f"{folder}: {tensor.name} has shape {found}; by {path.name}{usual} it should be {expected}."
            )

    def load(parameter: ParameterPath, layer: int | None) -> np.ndarray:
        tensor = placed[parameter, layer]
        return tensor.to_ours(files.load(tensor.name))

    tokenizer = huggingface_tokenizer.read(folder, family, values)
    vocabularies.check_fits(tokenizer, config.vocab_size, str(folder))
    manifest = Manifest.load(folder) if (folder / "manifest.json").is_file() else None
    name = f"{values.get('_name_or_path') or folder.name} ({family})"
    return Source(config, load, tokenizer, name, manifest, max_positions=huggingface_config.positions_of(values))


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FlanError(f"{path} cannot be read ({error}); get it again from where it came.") from error
    if not isinstance(values, dict):
        raise FlanError(f"{path} holds no fields but a {type(values).__name__}; get it again from where it came.")
    return values


def write(source: Source, folder: Path, dtype: str = "float32", shard_bytes: int = SHARD_BYTES) -> None:
    """Writes a folder that transformers can load. One shard is in memory at a time.

    Args:
      source: the model, with its tokenizer.
      folder: the folder to write into.
      dtype: dtype of the weights, "float32" or "bfloat16".
      shard_bytes: a file is closed before it gets larger, unless a single tensor is larger.

    Raises:
      FlanError: transformers has no such architecture.
    """
    config = source.config
    history = source.manifest.history if source.manifest else ()
    known = [source.max_positions, *(one.get(MAX_POSITIONS) for one in reversed(history))]
    values = huggingface_config.write(config, source.tokenizer, dtype, next(filter(None, known), None))
    family = values["model_type"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values, indent=1) + "\n")
    sizes = {leaf.path: math.prod(leaf.shape) * _DTYPES[dtype].itemsize for leaf in leaves(config)}
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
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        content = {}
        for (path, layer), tensor in shard:
            name = tensor.name if tensor.name == "lm_head.weight" else prefix + tensor.name
            array = tensor.to_theirs(source.tensor(path, layer)).astype(_DTYPES[dtype])
            as_float32(array, f"{source.name}: {name} in {dtype}")  # finds numbers that bfloat16 would make infinite
            content[name] = np.ascontiguousarray(array)
            weight_map[name] = file
        save_file(content, folder / file, metadata={"format": "pt"})
        del content
    if len(shards) > 1:
        total = sum(sizes[path] for path, _ in itertools.chain.from_iterable([[k for k, _ in s] for s in shards]))
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")
    huggingface_tokenizer.write(source.tokenizer, folder, family)

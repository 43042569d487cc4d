"""Writes folders of adapters that `peft` can load: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from flan_jax import models
from flan_jax.formats import huggingface_config
from flan_jax.formats.huggingface_fields import T5
from flan_jax.formats.huggingface_tensors import tensors
from flan_jax.formats.source import Source, as_float32
from flan_jax.models import lora, prompt

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write(source: Source, adapters: Mapping[str, Any], base: str, folder: Path) -> None:
    """Writes adapters for a folder of transformers with the model `base`.

    Args:
      source: the model with its adapters merged in, for its shape and vocabulary.
      adapters: nested dicts of arrays, layers stacked, from `native.adapters_of`.
      base: the name of the model without adapters.
      folder: the folder to write into.

    Raises:
      FlanError: transformers has no such architecture, or a number is not finite.
    """
    config = source.config
    folder.mkdir(parents=True, exist_ok=True)
    if prompt.SOFT in adapters.get("decoder", {}):
        _write_prompt(config, np.asarray(adapters["decoder"][prompt.SOFT]["embedding"]), base, folder)
        return
    family = huggingface_config.write(config, source.tokenizer, "float32")["model_type"]
    prefix = "" if family == T5 else "model."
    content: dict[str, np.ndarray] = {}
    modules: list[str] = []
    rank, scale = 0, 1.0
    for (path, layer), tensor in tensors(config, family).items():
        beside: Any = adapters
        for name in path[:-1]:
            beside = beside.get(name, {})
        if path[-1] != "kernel" or lora.NAMES[0] not in beside:
            continue
        a, b, factor = (beside[name] if layer is None else beside[name][layer] for name in lora.NAMES)
        rank, scale = a.shape[-1], float(factor)
        module = prefix + tensor.name.removesuffix(".weight")
        modules.append(module)
        for name, matrix in (("lora_A", a.reshape(-1, rank).T), ("lora_B", b.reshape(rank, -1).T)):
            key = f"base_model.model.{module}.{name}.weight"
            content[key] = np.ascontiguousarray(as_float32(np.asarray(matrix), f"{source.name}: {key}"))
    about = {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM" if config.num_encoder_layers else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": _targets(config, modules),
    }
    (folder / CONFIG).write_text(json.dumps(about, indent=1) + "\n")
    save_file(content, folder / WEIGHTS, metadata={"format": "pt"})


def _write_prompt(config: models.DecoderConfig, embedding_PxD: np.ndarray, base: str, folder: Path) -> None:
    about = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "num_virtual_tokens": embedding_PxD.shape[0],
        "token_dim": config.embed_dim,
        "num_transformer_submodules": 1,
        "num_attention_heads": config.num_heads,
        "num_layers": config.num_layers,
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(about, indent=1) + "\n")
    content = {"prompt_embeddings": as_float32(embedding_PxD, f"the soft prompt of {base}")}
    save_file(content, folder / WEIGHTS, metadata={"format": "pt"})


def _targets(config: models.DecoderConfig, modules: list[str]) -> list[str]:
    """The names of the modules: their last parts, which a decoder's layers share; their full names in T5."""
    if config.num_encoder_layers:
        return modules
    return sorted({".".join(module.split(".")[-2:]) for module in modules})

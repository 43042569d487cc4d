"""COMPUTATION="auto": dtype, attention, remat and head_chunk by where a model is computed, and a line that says why.

What is chosen changes how a step is computed, not what it computes, but for the dtype: bfloat16 rounds.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
from humanize import naturalsize

from flan_jax.models.config import AUTO, AUTOMATIC, DecoderConfig
from flan_jax.models.encoder_decoder import build

# Of a device's memory, beside parameters and optimizer: what layers may keep, and what logits may take at once.
_KEPT, _LOGITS = 0.5, 0.1
_BYTES_A_PARAMETER = 18  # float32 itself, its gradient and two of the optimizer; a bfloat16 copy where it is used
_LOGITS_COPIES = 3  # logits, their softmax and their gradient, float32


@dataclasses.dataclass(frozen=True)
class Device:
    """One of the devices that a model is computed on.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      kind: as JAX names it.
      memory: bytes; None where it is not known.
      capability: of a GPU, such as 9.0; 0 for others.
    """

    platform: str
    kind: str
    memory: float | None = None
    capability: float = 0.0

    @classmethod
    def of(cls, device: Any) -> Device:
        """Of a device that is here. CPU devices share the machine's memory."""
        if device.platform == "cpu":
            memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / jax.local_device_count()
        else:
            memory = (device.memory_stats() or {}).get("bytes_limit")
        return cls(device.platform, device.device_kind, memory, float(getattr(device, "compute_capability", 0) or 0))


@dataclasses.dataclass(frozen=True)
class Step:
    """What a device has of a training step.

    Attributes:
      rows: packed rows of a microbatch.
      slots: of a row.
      targets: target slots of a row.
      parameter_shards: devices that share the parameters.
      tensor_shards: devices that share a layer's heads and units, and the vocabulary.
    """

    rows: float
    slots: int
    targets: int
    parameter_shards: int = 1
    tensor_shards: int = 1


def asked(computation: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """COMPUTATION as a dictionary: "auto" is that for all fields that can be chosen."""
    return dict.fromkeys(AUTOMATIC, AUTO) if computation == AUTO else dict(computation or {})


def chosen(
    config: DecoderConfig, computation: Mapping[str, Any] | str | None, device: Device, step: Step | None = None
) -> tuple[dict[str, Any], str]:
    """What a model is computed with.

    Args:
      config: the model.
      computation: COMPUTATION; fields that are "auto" are chosen, others stay.
      device: one of those it is computed on.
      step: of a training; None where nothing is trained. Remat and head_chunk then stay as they are.

    Returns:
      COMPUTATION without "auto", and a line that says what was chosen and why; empty where nothing was.
    """
    given, why = asked(computation), {}
    wanted = [name for name in AUTOMATIC if given.get(name) == AUTO]
    fixed = {name: value for name, value in given.items() if value != AUTO}
    if "dtype" in wanted:
        fixed["dtype"], why["dtype"] = _dtype(device)
    if "attention" in wanted:
        fixed["attention"], why["attention"] = _attention(config, fixed.get("dtype", config.dtype), device, step)
    if step is not None and "remat" in wanted:
        fixed["remat"], why["remat"] = _remat(config, fixed.get("dtype", config.dtype), device, step)
    if step is not None and "head_chunk" in wanted:
        fixed["head_chunk"], why["head_chunk"] = _head_chunk(config, device, step)
    said = ", ".join(f"{name} {fixed[name]} ({reason})" for name, reason in why.items())
    return fixed, f"COMPUTATION chosen for {device.kind}: {said}." if said else ""


def _dtype(device: Device) -> tuple[str, str]:
    if device.platform == "tpu" or (device.platform == "gpu" and device.capability >= 8):
        return "bfloat16", "fast here; parameters stay float32"
    return "float32", "nothing else is faster here"


def _attention(config: DecoderConfig, dtype: str, device: Device, step: Step | None) -> tuple[str, str]:
    if device.platform == "cpu":
        return "segments", "it leaves out what lies between segments"
    if config.positions == "relative_bias":
        return "xla", "the kernels take no relative biases"
    if device.platform == "tpu":
        return ("splash", "JAX's kernel") if step else ("xla", "the kernel knows no scoring trees")
    widest = 256 if device.capability >= 9 else 128
    if config.attention_softcap:
        return "xla", "cuDNN has no soft-cap"
    if dtype != "bfloat16" or config.head_dim > widest or config.head_dim % 8 or device.capability < 8:
        return "xla", f"cuDNN takes bfloat16 and heads of 8, 16, ..., {widest}"
    return "cudnn", "cuDNN's kernel"


def _remat(config: DecoderConfig, dtype: str, device: Device, step: Step) -> tuple[str, str]:
    if device.memory is None:
        return "full", "the device does not say how much memory it has"
    heads = 2 * config.num_heads * config.head_dim + 2 * config.num_kv_heads * config.head_dim
    by_policy = {"save_dots": heads + 2 * config.embed_dim + 2 * config.mlp_dim, "save_attention": heads}
    layers = config.num_layers + config.num_encoder_layers
    slots = step.rows * step.slots * layers * (2 if dtype == "bfloat16" else 4)
    free = device.memory - _BYTES_A_PARAMETER * parameters(config) / step.parameter_shards
    free -= slots * config.embed_dim  # the input of every layer, which is kept anyway
    for policy, width in by_policy.items():
        kept = slots * width / step.tensor_shards
        if kept <= _KEPT * free:
            return policy, f"keeps {naturalsize(kept)} of {naturalsize(device.memory)} a device"
    return "full", f"more does not fit beside the parameters in {naturalsize(device.memory)} a device"


def _head_chunk(config: DecoderConfig, device: Device, step: Step) -> tuple[int, str]:
    if device.platform == "cpu":
        return config.head_chunk, "chunks without targets are left out"
    bytes_a_slot = _LOGITS_COPIES * 4 * step.rows * config.vocab_size / step.tensor_shards
    chunk, room = step.targets, _LOGITS * (device.memory or 0)
    while chunk > config.head_chunk and bytes_a_slot * chunk > room:
        chunk = max(config.head_chunk, -(-chunk // 2))
    return chunk, f"logits take {naturalsize(bytes_a_slot * chunk)} at once"


def parameters(config: DecoderConfig) -> int:
    """How many parameters a model has."""
    return sum(x.size for x in jax.tree.leaves(build(config).abstract_params()))

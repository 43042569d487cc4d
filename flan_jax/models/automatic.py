"""COMPUTATION="auto": chooses dtype, attention, remat and head_chunk for the device, with a line that says why.

The choice changes how a step is computed but not its result, except for the dtype: bfloat16 rounds.
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

# Shares of a device's memory besides parameters and optimizer: for what layers keep, and for logits at one time.
_KEPT, _LOGITS = 0.5, 0.1
# Float32 parameter, its gradient and two optimizer arrays, and a bfloat16 copy where it is used.
_BYTES_A_PARAMETER = 18
_LOGITS_COPIES = 3  # logits, their softmax and their gradient, in float32


@dataclasses.dataclass(frozen=True)
class Device:
    """One of the devices that compute a model.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      kind: its name in JAX.
      memory: in bytes; None if unknown.
      capability: a GPU's compute capability, such as 9.0; 0 for others.
    """

    platform: str
    kind: str
    memory: float | None = None
    capability: float = 0.0

    @classmethod
    def of(cls, device: Any) -> Device:
        """Describes a JAX device. CPU devices share the machine's memory."""
        if device.platform == "cpu":
            memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / jax.local_device_count()
        else:
            memory = (device.memory_stats() or {}).get("bytes_limit")
        return cls(device.platform, device.device_kind, memory, float(getattr(device, "compute_capability", 0) or 0))


@dataclasses.dataclass(frozen=True)
class Step:
    """A device's part of a training step.

    Attributes:
      rows: packed rows of a microbatch.
      slots: slots of a row.
      targets: target slots of a row.
      parameter_shards: number of devices that share the parameters.
      tensor_shards: number of devices that share a layer's heads and units, and the vocabulary.
    """

    rows: float
    slots: int
    targets: int
    parameter_shards: int = 1
    tensor_shards: int = 1


def asked(computation: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """COMPUTATION as a dictionary. "auto" becomes "auto" for all fields that can be chosen."""
    return dict.fromkeys(AUTOMATIC, AUTO) if computation == AUTO else dict(computation or {})


def asked_dtype(own: str | None, computation: Mapping[str, Any] | str | None) -> str | None:
    """The dtype in which COMPUTATION has a model computed; "auto" where the device decides.

    Args:
      own: the model's, which counts where COMPUTATION names none; None if it is not known.
      computation: COMPUTATION.
    """
    return asked(computation).get("dtype", own)


def chosen(
    config: DecoderConfig, computation: Mapping[str, Any] | str | None, device: Device, step: Step | None = None
) -> tuple[dict[str, Any], str]:
    """Chooses how a model is computed.

    Args:
      config: the model.
      computation: COMPUTATION; fields with "auto" are chosen, others stay.
      device: one of the devices that compute it.
      step: a device's part of a training step; None if nothing is trained. Remat and head_chunk then stay as they are.

    Returns:
      COMPUTATION without "auto", and a line that says what was chosen and why; empty if nothing was.
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
    free -= slots * config.embed_dim  # the input of every layer, which is always kept
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
    """The number of a model's parameters."""
    return sum(x.size for x in jax.tree.leaves(build(config).abstract_params()))

"""Chooses between the ways to compute attention; `flan_jax.models.attention` says which slots see each other.

| `attention` | where    | what                                                                                     |
|-------------|----------|------------------------------------------------------------------------------------------|
| `xla`       | anywhere | blocks of queries, each over all keys up to its end; can do all that a model needs       |
| `segments`  | anywhere | row by row, each block only over its own segments' keys; meant for one CPU device        |
| `splash`    | TPU      | JAX's Pallas kernel                                                                      |
| `cudnn`     | GPU      | cuDNN's kernel, bfloat16 only                                                            |

If a kernel cannot do something, it refuses in one line. Models with relative biases (LaMDA-PT, T5) need `xla` or
`segments`. `cudnn` cannot soft-cap scores (Gemma 2). `segments` leaves some cases to `xla`: relative biases of trees,
of caches, and of a batch that several devices share; and trees that look at an encoder.
"""

from __future__ import annotations

from typing import Any

import jax

from flan_jax.errors import FlanError
from flan_jax.models import attention
from flan_jax.models.attention import Bias, Slots
from flan_jax.models.attention_cudnn import attend_by_cudnn
from flan_jax.models.attention_segments import attend_in_segments
from flan_jax.models.config import ATTENTION_BLOCK

PLATFORMS = {"splash": "tpu", "cudnn": "gpu"}


def attend(
    q_BxQxGxPxK: jax.Array,
    k_BxSxGxK: jax.Array,
    v_BxSxGxK: jax.Array,
    queries: Slots,
    keys: Slots,
    *,
    causal: bool,
    window: int = 0,
    is_global: jax.Array | bool = True,
    bias: Bias | None = None,
    by_slot_SxHxLxL: jax.Array | None = None,
    softcap: float = 0.0,
    block: int = ATTENTION_BLOCK,
    implementation: str = "xla",
) -> jax.Array:
    """`flan_jax.models.attention.attend` by one of the ways of `DecoderConfig.attention`. They agree up to rounding.

    Values at padding slots are finite and differ between the ways. `by_slot_SxHxLxL` are the biases as an array, if
    they have that form; see `relative.Biases`.

    Raises:
      FlanError: this way cannot do it.
    """
    arrays = q_BxQxGxPxK, k_BxSxGxK, v_BxSxGxK
    local: dict[str, Any] = {"window": window, "is_global": is_global}
    if implementation == "segments" and not _has_form(queries, keys, causal, bias, by_slot_SxHxLxL):
        implementation = "xla"
    if implementation == "xla":
        return attention.attend(*arrays, queries, keys, causal=causal, bias=bias, softcap=softcap, block=block, **local)
    if implementation == "segments":
        bias_HxLxS = None if by_slot_SxHxLxL is None else by_slot_SxHxLxL[0]
        local |= {"causal": causal, "bias_HxLxS": bias_HxLxS}
        return attend_in_segments(*arrays, queries, keys, block=block, softcap=softcap, **local)
    if bias is not None:
        raise _refusal(implementation, "takes no relative bias")
    if implementation == "cudnn":
        if softcap:
            raise _refusal("cudnn", "takes no soft-cap of its scores")
        if q_BxQxGxPxK.dtype.itemsize != 2:
            raise _refusal("cudnn", f"computes in bfloat16, not in {q_BxQxGxPxK.dtype.name}", "dtype='bfloat16' or ")
        return attend_by_cudnn(*arrays, queries, keys, causal=causal, **local)
    if not causal or queries is not keys:
        raise _refusal(implementation, "is causal self-attention only")
    if queries.branches is not None:
        raise _refusal("splash", "knows no branches of scoring trees")
    from flan_jax.models.attention_splash import attend_by_splash  # Pallas is slow to import and seldom needed

    return attend_by_splash(*arrays, queries, softcap=softcap, **local)


def _has_form(queries: Slots, keys: Slots, causal: bool, bias: Bias | None, by_slot: jax.Array | None) -> bool:
    """Whether `segments` can compute this; the module says what it cannot."""
    if bias is None and causal:
        return True
    plain = queries.branches is None and keys.branches is None
    return plain and (bias is None or (queries is keys and by_slot is not None and len(by_slot) == 1))


def _refusal(implementation: str, why: str, other: str = "") -> FlanError:
    return FlanError(f"attention={implementation!r} {why}: set {other}attention='xla'.")


def refuse(implementation: str, platform: str) -> None:
    """Refuses a way that does not run on a platform, before anything is compiled.

    Args:
      implementation: the way.
      platform: the platform, `jax.Device.platform`.

    Raises:
      FlanError: the way is for another platform.
    """
    needed = PLATFORMS.get(implementation, platform)
    if platform != needed:
        raise _refusal(implementation, f"runs on {needed.upper()}, and the devices here are {platform.upper()}")

"""Rotary position embedding (Su et al. 2021) in half-rotation form, and the ways to stretch its wavelengths."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax.models.config import DecoderConfig


def frequencies(config: DecoderConfig) -> tuple[np.ndarray, np.ndarray]:
    """The radians per position of each pair of dimensions, [K/2] float32: in global layers, and in local ones.

    Local layers with a base of their own (`local_rope_theta`) are not scaled; others rotate like global layers.
    "linear" divides all frequencies by the factor. "llama3" (Llama 3.1's model card) does so only for wavelengths
    beyond `rope_original_length / rope_low_frequency_factor`, leaves those below `rope_original_length /
    rope_high_frequency_factor`, and blends in between.
    """
    c = config
    exponent = np.arange(c.head_dim // 2) * 2 / c.head_dim
    unscaled = c.rope_theta**-exponent
    scaled = unscaled / c.rope_scaling_factor
    if c.rope_scaling == "llama3":
        turns = c.rope_original_length * unscaled / (2 * np.pi)  # turns within the length of pretraining
        low, high = c.rope_low_frequency_factor, c.rope_high_frequency_factor
        unstretched = np.clip((turns - low) / (high - low), 0, 1)
        scaled = unstretched * unscaled + (1 - unstretched) * scaled
    chosen = unscaled if c.rope_scaling == "none" else scaled
    local = chosen if c.local_rope_theta is None else c.local_rope_theta**-exponent
    return chosen.astype(np.float32), local.astype(np.float32)


def tables(config: DecoderConfig, positions_BxL: jax.Array, is_global: jax.Array | bool) -> tuple[jax.Array, jax.Array]:
    """The cosines and sines [B, L, K/2] of a layer; `is_global` may be traced."""
    of_global_F, of_local_F = frequencies(config)
    frequency_F = jnp.where(is_global, of_global_F, of_local_F) if config.window else jnp.asarray(of_global_F)
    angle_BxLxF = positions_BxL[..., None].astype(jnp.float32) * frequency_F
    return jnp.cos(angle_BxLxF), jnp.sin(angle_BxLxF)


def rotate(x_BxLxHxK: jax.Array, cos_BxLxF: jax.Array, sin_BxLxF: jax.Array) -> jax.Array:
    """Applies the rotary embedding."""
    first, second = jnp.split(x_BxLxHxK.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos_BxLxF[:, :, None], sin_BxLxF[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x_BxLxHxK.dtype)

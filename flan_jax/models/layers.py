"""Layers of the decoder, with T5X's parameter paths and logical axis names."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from flan_jax.models.attention import Slots, attend, relative_buckets
from flan_jax.models.config import DecoderConfig


def parameter(
    module: nn.Module, name: str, shape: Sequence[int], axes: Sequence[str], init: nn.initializers.Initializer
):
    """Declares a float32 parameter with its logical axis names."""
    return module.param(name, nn.with_logical_partitioning(init, tuple(axes)), tuple(shape), jnp.float32)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, in float32."""

    epsilon: float
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., D] -> [..., D]."""
        scale = parameter(self, "scale", x.shape[-1:], (self.axis,), nn.initializers.ones)
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.epsilon)
        return (normed * scale).astype(x.dtype)


class Dense(nn.Module):
    """A projection without bias whose kernel has as many axes as names."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    contract: str
    fan_in: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Contracts x with the kernel as the einsum `contract` says."""
        init = nn.initializers.normal(self.fan_in**-0.5)
        kernel = parameter(self, "kernel", self.shape, self.axes, init)
        return jnp.einsum(self.contract, x, kernel.astype(x.dtype))


def rotary_tables(positions_BxL: jax.Array, head_dim: int, theta: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines [B, L, K/2] of the rotary embedding (Su et al. 2021), half-rotation form."""
    fraction = jnp.arange(head_dim // 2, dtype=jnp.float32) * 2 / head_dim
    angle_BxLxF = positions_BxL[..., None].astype(jnp.float32) / jnp.power(theta, fraction)
    return jnp.cos(angle_BxLxF), jnp.sin(angle_BxLxF)


def rotate(x_BxLxHxK: jax.Array, cos_BxLxF: jax.Array, sin_BxLxF: jax.Array) -> jax.Array:
    """Applies the rotary embedding."""
    first, second = jnp.split(x_BxLxHxK.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos_BxLxF[:, :, None], sin_BxLxF[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x_BxLxHxK.dtype)


class SelfAttention(nn.Module):
    """Causal grouped-query attention with its projections; see `flan_jax.models.attention` for who sees whom."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        x_BxLxD: jax.Array,
        slots: Slots,
        is_global: jax.Array,
        rel_embedding_HxR: jax.Array | None,
    ) -> jax.Array:
        """[B, L, D] -> [B, L, D]."""
        c = self.config
        num_rows, length, _ = x_BxLxD.shape
        groups, per_group = c.num_kv_heads, c.num_heads // c.num_kv_heads

        def project(heads: int, name: str) -> jax.Array:
            axes = ("embed", "heads" if name == "query" else "kv_heads", "kv")
            shape = (c.embed_dim, heads, c.head_dim)
            return Dense(shape, axes, "bld,dhk->blhk", c.embed_dim, name=name)(x_BxLxD)

        q_BxLxHxK, k_BxLxGxK, v_BxLxGxK = (
            project(h, n) for h, n in ((c.num_heads, "query"), (groups, "key"), (groups, "value"))
        )
        if c.qk_norm:
            q_BxLxHxK = RMSNorm(c.norm_epsilon, "kv", name="query_norm")(q_BxLxHxK)
            k_BxLxGxK = RMSNorm(c.norm_epsilon, "kv", name="key_norm")(k_BxLxGxK)
        if c.positions == "rope":
            theta = jnp.where(is_global, c.rope_theta, c.local_rope_theta) if c.window else c.rope_theta
            tables = rotary_tables(slots.positions, c.head_dim, theta)
            q_BxLxHxK, k_BxLxGxK = rotate(q_BxLxHxK, *tables), rotate(k_BxLxGxK, *tables)
        scale = c.head_dim**-0.5 if c.attention_scale is None else c.attention_scale
        q_BxLxGxPxK = (q_BxLxHxK * scale).reshape(num_rows, length, groups, per_group, c.head_dim)

        def bias(positions_BxQ: jax.Array, positions_BxS: jax.Array) -> jax.Array:
            back = positions_BxQ[:, :, None] - positions_BxS[:, None, :]
            buckets = relative_buckets(back, c.relative_buckets, c.relative_max_distance)
            bias_BxHxQxS = jnp.moveaxis(rel_embedding_HxR.T[buckets], -1, 1)
            return bias_BxHxQxS.reshape(num_rows, groups, per_group, *back.shape[1:])

        out_BxLxGxPxK = attend(
            q_BxLxGxPxK,
            k_BxLxGxK,
            v_BxLxGxK,
            slots,
            slots,
            causal=True,
            window=c.window,
            is_global=is_global,
            bias=None if rel_embedding_HxR is None else bias,
            block=c.attention_block,
        )
        out_BxLxHxK = out_BxLxGxPxK.reshape(num_rows, length, c.num_heads, c.head_dim)
        shape = (c.num_heads, c.head_dim, c.embed_dim)
        return Dense(shape, ("heads", "kv", "embed"), "blhk,hkd->bld", c.num_heads * c.head_dim, name="out")(
            out_BxLxHxK
        )


class Mlp(nn.Module):
    """Gated feed-forward layer (Shazeer 2020)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        """[B, L, D] -> [B, L, D]."""
        c = self.config
        activation = nn.silu if c.activation == "silu" else nn.gelu
        into = ((c.embed_dim, c.mlp_dim), ("embed", "mlp"), "bld,df->blf", c.embed_dim)
        gate = activation(Dense(*into, name="wi_0")(x_BxLxD))
        hidden = nn.with_logical_constraint(gate * Dense(*into, name="wi_1")(x_BxLxD), ("batch", "length", "mlp"))
        return Dense((c.mlp_dim, c.embed_dim), ("mlp", "embed"), "blf,fd->bld", c.mlp_dim, name="wo")(hidden)

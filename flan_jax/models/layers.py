"""The parts of layers, with T5X's parameter paths and logical axis names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from flan_jax import partitioning
from flan_jax.models import rotary
from flan_jax.models.attention import Slots
from flan_jax.models.attention_switch import attend
from flan_jax.models.config import DecoderConfig
from flan_jax.models.dropout import ACTIVATIONS, CROSS_WEIGHTS, WEIGHTS, Dropout, dropped
from flan_jax.models.relative import Biases, biases
from flan_jax.models.remat import KEY, MIXED, QUERY, VALUE, policy

# Activations in the layers' projections, and between layers. Between layers every slot is independent. So the sums of
# projections over tensor are scattered over the length, not repeated, and norms and residuals are computed once.
WHOLE = ("batch", "length", "activation_embed")
BETWEEN = ("batch", "block_length", "activation_embed")


JOINED_SLOTS = 1024  # from so many slots on, projections of one input are one product, if that suits the platform

LORA_A, LORA_B, LORA_SCALE = "lora_a", "lora_b", "lora_scale"  # beside a kernel that has an adapter; see `lora`


def parameter(
    module: nn.Module, name: str, shape: Sequence[int], axes: Sequence[str], init: nn.initializers.Initializer
) -> Any:
    """Declares a float32 parameter with its logical axis names."""
    return module.param(name, nn.with_logical_partitioning(init, tuple(axes)), tuple(shape), jnp.float32)


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32, over the last axis, or over as many axes as it has names."""

    epsilon: float
    axes: tuple[str, ...] = ("embed",)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., D] -> [..., D]."""
        over = tuple(range(-len(self.axes), 0))
        scale = parameter(self, "scale", x.shape[-len(self.axes) :], self.axes, nn.initializers.ones)
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=over, keepdims=True) + self.epsilon)
        return (normed * scale).astype(x.dtype)


class Dense(nn.Module):
    """A projection. Its kernel has as many axes as names. It has no bias unless asked for.

    It is computed as a product of matrices. If heads were a dimension of their own, the TPU's compiler would lay out
    the products for the gradient of x so that it could not add them while they are made.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    fan_in: float
    contracted: int = 1
    use_bias: bool = False

    def setup(self) -> None:
        """Declares the parameters."""
        self.kernel = parameter(self, "kernel", self.shape, self.axes, nn.initializers.normal(self.fan_in**-0.5))
        if self.use_bias:
            axes = self.axes[self.contracted :]
            self.bias = parameter(self, "bias", self.shape[self.contracted :], axes, nn.initializers.zeros)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Contracts the last axes of x with the first `contracted` axes of the kernel."""
        return self.finished(x, product(self._rows(x), self.matrix(x.dtype)))

    def matrix(self, dtype: Any) -> jax.Array:
        """The kernel [inputs, outputs] in a dtype, where it is used."""
        # Cast before it is gathered over fsdp, so its gradient is cast before it is scattered: half the bytes in
        # bfloat16.
        kernel = partitioning.constrain(self.kernel.astype(dtype), self.axes)
        return kernel.reshape(math.prod(self.shape[: self.contracted]), -1)

    def finished(self, x: jax.Array, out: jax.Array) -> jax.Array:
        """The projection of x from its product with the kernel: adds adapter and bias, and restores the shape."""
        outputs = self.shape[self.contracted :]
        if self.has_variable("params", LORA_A):
            out += self._adapter(self._rows(x))
        out = out.reshape(*out.shape[:-1], *outputs)
        return out + self.bias.astype(x.dtype) if self.use_bias else out

    def _rows(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[: x.ndim - self.contracted], -1)

    def _adapter(self, x: jax.Array) -> jax.Array:
        """What an adapter adds: [..., I] -> [..., O]."""
        a, b, scale = (self.get_variable("params", name) for name in (LORA_A, LORA_B, LORA_SCALE))
        low = product(x, a.astype(x.dtype).reshape(x.shape[-1], -1))
        return product(low * scale.astype(x.dtype), b.astype(x.dtype).reshape(low.shape[-1], -1))


def projected(x: jax.Array, joined: bool, *projections: Dense) -> list[jax.Array]:
    """Projections of the same x [..., D]. If `joined`, they are computed as one product.

    On a CPU, wide products are faster than narrow ones, and copying the kernels costs little if there are many slots.
    If there are few, as in decoding, the copy would cost more than the products. So they stay separate.
    """
    if not joined or math.prod(x.shape[:-1]) < JOINED_SLOTS:
        return [projection(x) for projection in projections]
    kernels = [projection.matrix(x.dtype) for projection in projections]
    ends = np.cumsum([kernel.shape[1] for kernel in kernels])[:-1]
    parts = jnp.split(product(x, jnp.concatenate(kernels, axis=1)), ends, axis=-1)
    return [projection.finished(x, part) for projection, part in zip(projections, parts, strict=True)]


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., I] times [I, O] -> [..., O].

    JAX computes the kernel's gradient as the transpose of an [O, I] product, which takes XLA up to 2.4 times as long on
    CPU (`docs/decisions.md`). Here it is an [I, O] product.
    """
    return x @ kernel


def _product_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _product_backward(kept: tuple[jax.Array, jax.Array], d_out: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    slots = tuple(range(x.ndim - 1))
    d_kernel = jax.lax.dot_general(x, d_out, ((slots, slots), ((), ())))
    return jax.lax.dot_general(d_out, kernel, (((x.ndim - 1,), (1,)), ((), ()))), d_kernel


product.defvjp(_product_forward, _product_backward)


class Memory(NamedTuple):
    """An encoder's output, for the decoder to look at.

    Attributes:
      hidden_BxSxD: hidden states after the encoder's final norm.
      slots: where they are, [B, S]. A decoder's slot looks at those with its own segment number.
    """

    hidden_BxSxD: jax.Array
    slots: Slots


class Keyed(NamedTuple):
    """Keys and values that one layer has computed before, each [B, S, G, K], rotated.

    Attributes:
      keys: not scaled.
      values: as projected.
      slots: where they are, [B, S].
    """

    keys: jax.Array
    values: jax.Array
    slots: Slots


class Attention(nn.Module):
    """Grouped-query attention with its projections; `flan_jax.models.attention` says which slots see each other.

    It is self-attention (causal in a decoder, not in an encoder), or a decoder's attention to an encoder's memory,
    which has no positions.
    """

    config: DecoderConfig
    causal: bool = True

    @nn.compact
    def __call__(
        self,
        x_BxLxD: jax.Array,
        slots: Slots,
        is_global: jax.Array | bool = True,
        bias: Biases | None = None,
        memory: Memory | Keyed | None = None,
        cached: Keyed | None = None,
        dropout: Dropout | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Computes [B, L, D] -> [B, L, D], and returns the keys and values that it computed for that.

        These are of x; or of the memory, if there is one and it does not come as keys already. `cached` comes before x.
        """
        c = self.config
        num_rows, length, _ = x_BxLxD.shape
        groups, per_group = c.num_kv_heads, c.num_heads // c.num_kv_heads
        x_BxLxD = partitioning.constrain(x_BxLxD, WHOLE)
        y_BxSxD, key_slots = (x_BxLxD, slots) if memory is None else (memory[0], memory.slots)
        scale = c.head_dim**-0.5 if c.attention_scale is None else c.attention_scale

        def projection(name: str, heads: int, fan_in: float) -> Dense:
            axes = ("embed", "heads" if name == QUERY else "kv_heads", "kv")
            return Dense((c.embed_dim, heads, c.head_dim), axes, fan_in, use_bias=c.qkv_bias, name=name)

        def named(x_BxSxHxK: jax.Array, name: str) -> jax.Array:
            axes = ("batch", "length", "heads" if name == QUERY else "kv_heads", "kv")
            return checkpoint_name(partitioning.constrain(x_BxSxHxK, axes), name)

        # Scores then start with unit variance, whatever the scale.
        query = projection(QUERY, c.num_heads, c.embed_dim * c.head_dim * scale**2)
        of_keys = [] if isinstance(memory, Keyed) else [projection(name, groups, c.embed_dim) for name in (KEY, VALUE)]
        if memory is None:
            found = projected(x_BxLxD, c.is_for_cpu, query, *of_keys)
        else:
            found = [query(x_BxLxD), *(projected(y_BxSxD, c.is_for_cpu, *of_keys) if of_keys else [])]
        q_BxLxHxK, *keyed = (named(x, name) for x, name in zip(found, (QUERY, KEY, VALUE), strict=False))
        k_BxSxGxK, v_BxSxGxK = keyed or (memory.keys, memory.values)
        if c.qk_norm:
            of_query, of_key = (("heads", "kv"), ("kv_heads", "kv")) if c.qk_norm_across_heads else (("kv",), ("kv",))
            q_BxLxHxK = RMSNorm(c.norm_epsilon, of_query, name="query_norm")(q_BxLxHxK)
            if not isinstance(memory, Keyed):
                k_BxSxGxK = RMSNorm(c.norm_epsilon, of_key, name="key_norm")(k_BxSxGxK)
        if c.positions == "rope":
            tables = rotary.tables(c, slots.positions, is_global)
            q_BxLxHxK, k_BxSxGxK = rotary.rotate(q_BxLxHxK, *tables), rotary.rotate(k_BxSxGxK, *tables)
        q_BxLxGxPxK = (q_BxLxHxK * scale).reshape(num_rows, length, groups, per_group, c.head_dim)
        computed = k_BxSxGxK, v_BxSxGxK
        # All queries have the same mask, so setting a key's value to zero is the same as setting its weights to zero.
        v_BxSxGxK = dropped(v_BxSxGxK, dropout, WEIGHTS if memory is None else CROSS_WEIGHTS, shared=(3,))
        if cached is not None:
            own = Keyed(k_BxSxGxK, v_BxSxGxK, slots)
            # A row that all share is repeated here, for one layer at a time, and not in the cache.
            cached = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_rows, *x.shape[1:])), cached)
            k_BxSxGxK, v_BxSxGxK, key_slots = jax.tree.map(lambda *x: jnp.concatenate(x, 1), cached, own)

        def bias_of(asked: slice, seen: slice) -> jax.Array:
            bias_BxHxQxS = bias.between(slots.positions, key_slots.positions, asked, seen)
            return bias_BxHxQxS.reshape(-1, groups, per_group, *bias_BxHxQxS.shape[2:])

        out_BxLxGxPxK = attend(
            q_BxLxGxPxK,
            k_BxSxGxK,
            v_BxSxGxK,
            slots,
            key_slots,
            causal=self.causal,
            window=c.window,
            is_global=is_global,
            bias=None if bias is None else bias_of,
            by_slot_SxHxLxL=None if bias is None else bias.by_slot_SxHxLxL,
            softcap=c.attention_softcap,
            block=c.attention_block,
            implementation=c.attention,
        )
        out_BxLxHxK = out_BxLxGxPxK.reshape(num_rows, length, c.num_heads, c.head_dim)
        out_BxLxHxK = checkpoint_name(partitioning.constrain(out_BxLxHxK, ("batch", "length", "heads", "kv")), MIXED)
        shape = (c.num_heads, c.head_dim, c.embed_dim)
        dense = Dense(shape, ("heads", "kv", "embed"), c.num_heads * c.head_dim, 2, name="out")
        return partitioning.constrain(dense(out_BxLxHxK), BETWEEN), computed


class RelativeBias(nn.Module):
    """T5's table of relative position biases, shared by all layers."""

    config: DecoderConfig
    bidirectional: bool = False

    @nn.compact
    def __call__(self, slots: Slots) -> Biases:
        """The biases of these slots. All layers share them."""
        c = self.config
        shape, axes = (c.num_heads, c.relative_buckets), ("heads", "relpos_buckets")
        table_HxR = parameter(self, "rel_embedding", shape, axes, nn.initializers.normal(c.embed_dim**-0.5))
        return biases(table_HxR, slots, c, self.bidirectional)


class Mlp(nn.Module):
    """A gated feed-forward layer (Shazeer 2020)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, dropout: Dropout | None = None) -> jax.Array:
        """[B, L, D] -> [B, L, D]."""
        c = self.config
        activation = nn.silu if c.activation == "silu" else nn.gelu
        x_BxLxD = partitioning.constrain(x_BxLxD, WHOLE)
        into = ((c.embed_dim, c.mlp_dim), ("embed", "mlp"), c.embed_dim)
        both = projected(x_BxLxD, c.is_for_cpu, *(Dense(*into, name=name) for name in ("wi_0", "wi_1")))
        # With the barriers, XLA computes activation and gradient once, and not in each product that uses them.
        gate_BxLxF, up_BxLxF = (jax.lax.optimization_barrier(x_BxLxF) for x_BxLxF in both)
        hidden = dropped(activation(gate_BxLxF) * up_BxLxF, dropout, ACTIVATIONS)
        hidden = partitioning.constrain(hidden, ("batch", "length", "mlp"))
        hidden = jax.lax.optimization_barrier(hidden)
        out = Dense((c.mlp_dim, c.embed_dim), ("mlp", "embed"), c.mlp_dim, name="wo")
        return partitioning.constrain(out(hidden), BETWEEN)


def stacked(layer: type[nn.Module], config: DecoderConfig, num_layers: int) -> nn.Module:
    """Layers one after another, with parameters stacked on axis 0. Called as (carry, [N] inputs, constants).

    Args:
      layer: (carry, per-layer input, constants) -> (carry, per-layer output).
      config: the configuration of the layers; its `remat` says what they keep for the backward pass.
      num_layers: N.
    """
    if (kept := policy(config.remat)) is not None:
        layer = nn.remat(layer, prevent_cse=False, policy=kept)
    return nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast),
        length=num_layers,
        unroll=num_layers if config.unroll else 1,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )(config)

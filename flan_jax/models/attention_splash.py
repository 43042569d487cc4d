"""Causal attention over packed rows by splash attention, JAX's Pallas kernel for TPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import PartitionSpec

from flan_jax import partitioning
from flan_jax.models.attention import Slots

LANES = 128  # the kernel's blocks are multiples of it
SPLASH_BLOCK = 512  # slots in a block of queries or keys, if the row's length is a multiple of it


def attend_by_splash(
    q_BxLxGxPxK: jax.Array,
    k_BxLxGxK: jax.Array,
    v_BxLxGxK: jax.Array,
    slots: Slots,
    *,
    window: int,
    is_global: jax.Array | bool,
    softcap: float = 0.0,
    interpret: bool = False,
) -> jax.Array:
    """Causal self-attention by JAX's Pallas kernel; see `flan_jax.models.attention.attend`.

    Blocks after a query's own, or outside a local layer's window, are not computed. Segments are told apart inside a
    block. Under a mesh, each device computes its own rows and heads. The tensor axis splits key heads if it divides
    their number, or else the queries of each key head, or else every device of the axis computes all heads.

    A kernel's mask is fixed when the program is compiled. So if `is_global` is traced (because layers are scanned),
    there are two kernels, and `jax.lax.cond` chooses one.

    Args:
      q_BxLxGxPxK: scaled queries.
      k_BxLxGxK: keys.
      v_BxLxGxK: values.
      slots: where they are, all on the trunk. Padding attends to padding.
      window: how many positions a local layer sees back; 0 for no limit.
      is_global: whether this layer ignores the window.
      softcap: bound of the scores; 0 for none.
      interpret: whether to run the kernel's program without a TPU, slowly.
    """
    length, head_dim = q_BxLxGxPxK.shape[1], q_BxLxGxPxK.shape[-1]
    padding = -length % LANES
    padded = length + padding
    block = next(b for b in (SPLASH_BLOCK, 2 * LANES, LANES) if padded % b == 0)

    def of_shard(
        q_BxLxGxPxK: jax.Array,
        k_BxLxGxK: jax.Array,
        v_BxLxGxK: jax.Array,
        segments_BxL: jax.Array,
        is_global: jax.Array,
    ) -> jax.Array:
        def rows(x: jax.Array) -> jax.Array:
            return jnp.pad(x, ((0, 0), (0, padding), *[(0, 0)] * (x.ndim - 2))) if padding else x

        rows_here, _, groups, per_group, _ = q_BxLxGxPxK.shape
        q_BxHxLxK = rows(q_BxLxGxPxK.reshape(rows_here, length, -1, head_dim)).transpose(0, 2, 1, 3)
        k_BxGxLxK, v_BxGxLxK = (rows(x).transpose(0, 2, 1, 3) for x in (k_BxLxGxK, v_BxLxGxK))
        segments = splash.SegmentIds(rows(segments_BxL), rows(segments_BxL))

        def attended(mask: masks.Mask) -> jax.Array:
            kernel = _splash(mask, groups * per_group, block, softcap, interpret)
            return jax.vmap(kernel)(q_BxHxLxK, k_BxGxLxK, v_BxGxLxK, segments)

        everything, near = masks.CausalMask((padded, padded)), masks.LocalMask((padded, padded), (window - 1, 0), 0)
        if not window:
            out_BxHxLxK = attended(everything)
        else:
            out_BxHxLxK = jax.lax.cond(is_global, lambda: attended(everything), lambda: attended(near))
        out_BxLxHxK = out_BxHxLxK.transpose(0, 2, 1, 3)[:, :length]
        return out_BxLxHxK.reshape(rows_here, length, groups, per_group, head_dim)

    arrays = q_BxLxGxPxK, k_BxLxGxK, v_BxLxGxK, slots.segments, jnp.asarray(is_global)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return of_shard(*arrays)
    of_keys = partitioning.partition_spec(mesh, ("batch", "length", "kv_heads", "kv"), k_BxLxGxK.shape)
    of_queries = PartitionSpec(*of_keys[:3], None, None)
    if of_keys[2] is None:
        spread = partitioning.partition_spec(mesh, ("batch", "length", None, "heads", "kv"), q_BxLxGxPxK.shape)
        of_queries = PartitionSpec(*of_keys[:3], spread[3], None)
    of_slots = PartitionSpec(*of_keys[:2])
    return jax.shard_map(
        of_shard,
        in_specs=(of_queries, of_keys, of_keys, of_slots, PartitionSpec()),
        out_specs=of_queries,
        check_vma=False,  # pallas_call does not take part in it
    )(*arrays)


def _splash(mask: masks.Mask, heads: int, block: int, softcap: float, interpret: bool) -> splash.SplashAttentionKernel:
    """The kernel for one row: queries [H, L, K], keys and values [G, L, K], segments -> [H, L, K]."""
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    return splash.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=softcap or None,
        interpret=interpret,
    )

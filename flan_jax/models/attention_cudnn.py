"""Attention over packed rows by cuDNN's kernel, on GPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flan_jax.models.attention import Slots, visible


def attend_by_cudnn(
    q_BxQxGxPxK: jax.Array,
    k_BxSxGxK: jax.Array,
    v_BxSxGxK: jax.Array,
    queries: Slots,
    keys: Slots,
    *,
    causal: bool,
    window: int,
    is_global: jax.Array | bool,
    library: str = "cudnn",
) -> jax.Array:
    """Attention by cuDNN's kernel, through `jax.nn.dot_product_attention`; see `flan_jax.models.attention.attend`.

    Segments, branches and windows become a mask [B, 1, Q, S], which cuDNN adds to the scores. Blocks after a query's
    own are not computed. cuDNN needs bfloat16, heads of at most 128 (256 from Hopper on) and a multiple of 8, and an
    even number of slots.

    Args:
      q_BxQxGxPxK: scaled queries.
      k_BxSxGxK: keys.
      v_BxSxGxK: values.
      queries: where the queries are.
      keys: where the keys are. With `causal` they are the same slots, after those of a cache if there is one.
      causal: whether a query sees no slot after its own.
      window: how many positions a local layer sees back; 0 for no limit.
      is_global: whether this layer ignores the window; may be traced.
      library: "cudnn", or "xla" for the same call without a GPU.
    """
    num_rows, num_queries, groups, per_group, head_dim = q_BxQxGxPxK.shape
    seen_BxQxS = visible(queries, keys)
    cached = k_BxSxGxK.shape[1] - num_queries
    if causal and cached:  # the kernel would take the cache's first key for the first query's own
        seen_BxQxS &= jnp.arange(k_BxSxGxK.shape[1]) <= cached + jnp.arange(num_queries)[:, None]
    if window:
        back = queries.positions[:, :, None] - keys.positions[:, None, :]
        seen_BxQxS &= jnp.asarray(is_global) | (back < window)
    out_BxQxHxK = jax.nn.dot_product_attention(
        q_BxQxGxPxK.reshape(num_rows, num_queries, groups * per_group, head_dim),
        k_BxSxGxK,
        v_BxSxGxK,
        mask=seen_BxQxS[:, None],
        scale=1.0,
        is_causal=causal and not cached,
        implementation=library,
    )
    return out_BxQxHxK.reshape(q_BxQxGxPxK.shape)

"""Grouped-query attention over packed rows: which slots see each other, and how attention is computed.

One mask serves packed training rows, scoring trees and encoders. A query slot sees a key slot if

- both have the same segment, which is not 0;
- the key is on the trunk (branch 0) or on the query's own branch;
- in a causal layer, the key does not come later in the row;
- in a local layer, the key's position is less than `window` before the query's.

Keys of a cache come before all of a row's own slots. A prefix that many segments share has the segment `EVERY`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax.models.config import ATTENTION_BLOCK

MASKED = -1e30  # finite, so that a row of padding gives no NaN
EVERY = -1  # segment of keys that the slots of every segment see

Bias = Callable[[slice, slice], jax.Array]

# In float32 whatever the operands are. With scores and weights in bfloat16, the output would be off by up to 1 %.
product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


class Slots(NamedTuple):
    """Where the slots of a batch of rows are, each array [B, L].

    Attributes:
      positions: positions within each segment, from 0.
      segments: the segment's number; 0 is padding. Slots see only their own segment.
      branches: 0 is the trunk; other numbers are the options of a scoring tree. None puts all slots on the trunk, and
        says that a segment's slots are next to each other, so that distances in the row are distances of positions.
    """

    positions: jax.Array
    segments: jax.Array
    branches: jax.Array | None = None

    def part(self, slots: slice) -> Slots:
        """Some slots of each row."""
        return Slots(*(None if x is None else x[:, slots] for x in self))


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
    softcap: float = 0.0,
    block: int = ATTENTION_BLOCK,
) -> jax.Array:
    """Softmax attention in blocks of queries. A causal block only looks at keys up to its own end.

    Args:
      q_BxQxGxPxK: scaled queries; G groups of P heads share a key head.
      k_BxSxGxK: keys.
      v_BxSxGxK: values.
      queries: where the queries are.
      keys: where the keys are. With `causal` they are the same slots, after those of a cache if there is one.
      causal: whether a query sees no slot after its own.
      window: how many positions a local layer sees back, itself included; 0 for no limit.
      is_global: whether this layer ignores the window; may be traced.
      bias: maps (slots of queries, slots of keys) to numbers that are added to their scores, [B, G, P, Q, S].
      softcap: bound of the scores; see `soft_capped`.
      block: number of queries in a block.

    Returns:
      [B, Q, G, P, K] in the dtype of the values.
    """
    length, num_keys = q_BxQxGxPxK.shape[1], k_BxSxGxK.shape[1]
    cached = num_keys - length if causal else 0

    def attended(start: int) -> jax.Array:
        stop = min(start + block, length)
        asked, seen_keys = slice(start, stop), slice(0, cached + stop if causal else num_keys)
        q, k = queries.part(asked), keys.part(seen_keys)
        scores = product("bqgpk,bsgk->bgpqs", q_BxQxGxPxK[:, asked], k_BxSxGxK[:, seen_keys])
        scores = soft_capped(scores, softcap)
        if bias is not None:
            scores += bias(asked, seen_keys)
        seen = visible(q, k)
        if causal:
            seen &= np.arange(seen_keys.stop)[None, None, :] <= np.arange(cached + start, cached + stop)[None, :, None]
        if window:
            seen &= is_global | (q.positions[:, :, None] - k.positions[:, None, :] < window)
        weights = jax.nn.softmax(jnp.where(seen[:, None, None], scores, MASKED), axis=-1)
        return product("bgpqs,bsgk->bqgpk", weights, v_BxSxGxK[:, seen_keys]).astype(v_BxSxGxK.dtype)

    return jnp.concatenate([attended(start) for start in range(0, length, block)], 1)


def soft_capped(x: jax.Array, cap: float) -> jax.Array:
    """c tanh(x / c): close to x if that is small, and never beyond c (Gemma 2). With a cap of 0, x itself."""
    return cap * jnp.tanh(x / cap) if cap else x


def visible(queries: Slots, keys: Slots) -> jax.Array:
    """Whether a query may see a key by segment and branch: [B, Q, S]."""
    segment_q, segment_k = queries.segments[:, :, None], keys.segments[:, None, :]
    seen = ((segment_q == segment_k) | (segment_k == EVERY)) & (segment_q > 0)
    if keys.branches is None:
        return seen
    branch_k = keys.branches[:, None, :]
    return seen & ((branch_k == 0) | (branch_k == queries.branches[:, :, None]))


def relative_buckets(distance: jax.Array, buckets: int, max_distance: int, bidirectional: bool = False) -> jax.Array:
    """T5's bucket for the distance of a key (Raffel et al. 2020): exact for small distances, then logarithmic.

    Args:
      distance: query position minus key position.
      buckets: the number of buckets.
      max_distance: from this distance on, all keys are in the last bucket.
      bidirectional: whether keys ahead have the upper half of the buckets. Otherwise they are all in bucket 0.
    """
    ahead: jax.Array | int = 0
    if bidirectional:
        buckets //= 2
        ahead = (distance < 0).astype(jnp.int32) * buckets
        distance = jnp.abs(distance)
    distance = jnp.maximum(distance, 0)
    exact = buckets // 2
    ratio = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / np.log(max_distance / exact)
    far = exact + (ratio * (buckets - exact)).astype(jnp.int32)
    return ahead + jnp.where(distance < exact, distance, jnp.minimum(far, buckets - 1))

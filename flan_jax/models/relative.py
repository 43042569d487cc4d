"""T5's relative biases of attention (Raffel et al. 2020), computed once for all layers."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from flan_jax import partitioning
from flan_jax.models.attention import Slots, relative_buckets
from flan_jax.models.config import DecoderConfig


class Biases(NamedTuple):
    """What all layers add to their scores.

    Attributes:
      by_distance_HxN: for trees and caches, by distance: from M back to M ahead, N = 2M + 1. Larger distances have the
        bias of the largest.
      by_slot_SxHxLxL: for rows without branches, whose slots in a segment are as far apart as their positions. There is
        one copy for each shard of the rows, so that the gradient is summed over shards once, and not in every layer.
    """

    by_distance_HxN: jax.Array | None
    by_slot_SxHxLxL: jax.Array | None

    def between(self, queries_BxL: jax.Array, keys_BxS: jax.Array, asked: slice, seen: slice) -> jax.Array:
        """The biases [B or 1, H, Q, K] between queries and keys.

        Args:
          queries_BxL: positions of the queries.
          keys_BxS: positions of the keys: those of the queries, after a cache's if there is one.
          asked: the Q slots of queries.
          seen: the K slots of keys.
        """
        if self.by_slot_SxHxLxL is not None:
            bias_SxHxQxS = self.by_slot_SxHxLxL[:, :, asked, seen]
            shards = bias_SxHxQxS.shape[0]
            return bias_SxHxQxS if shards == 1 else jnp.repeat(bias_SxHxQxS, len(queries_BxL) // shards, axis=0)
        furthest = self.by_distance_HxN.shape[1] // 2
        ahead = keys_BxS[:, None, seen] - queries_BxL[:, asked, None]
        return jnp.moveaxis(self.by_distance_HxN.T[jnp.clip(ahead + furthest, 0, 2 * furthest)], -1, 1)


def biases(table_HxR: jax.Array, slots: Slots, config: DecoderConfig, bidirectional: bool) -> Biases:
    """The biases of slots that attend to each other, in the table's dtype. They are added to scores in float32.

    Args:
      table_HxR: biases by bucket.
      slots: [B, L].
      config: has the distances of the buckets.
      bidirectional: see `relative_buckets`.
    """
    num_rows, length = slots.segments.shape

    def buckets(back: jax.Array) -> jax.Array:
        return relative_buckets(back, config.relative_buckets, config.relative_max_distance, bidirectional)

    if slots.branches is not None:
        furthest = config.relative_max_distance  # from this distance on, all are in the last bucket
        return Biases(table_HxR[:, buckets(furthest - jnp.arange(2 * furthest + 1))], None)
    shards = partitioning.row_shards()
    shards = shards if num_rows % shards == 0 else 1
    slot = jnp.arange(length)
    # A product with one-hot buckets, as in T5X. The gradient of a look-up would be a scatter of L x L terms.
    one_hot_LxLxR = jax.nn.one_hot(buckets(slot[:, None] - slot), config.relative_buckets, dtype=table_HxR.dtype)
    by_slot_HxLxL = jnp.einsum("hr,qsr->hqs", table_HxR, one_hot_LxLxR, precision=jax.lax.Precision.HIGHEST)
    by_slot_SxHxLxL = jnp.broadcast_to(by_slot_HxLxL, (shards, *by_slot_HxLxL.shape))
    return Biases(None, partitioning.constrain(by_slot_SxHxLxL, ("batch", "heads", None, None)))

"""Attention that computes little outside of segments: one row and one block of queries at a time.

A packed row holds many short segments. A block of queries needs no key before the start of its first query's segment,
and, if it may look ahead, none after the end of its last query's segment. These places differ from row to row and are
only known when the rows are there. So each block takes the smallest of a few widths of keys that holds them
(`jax.lax.switch`). A loop over rows and blocks keeps the program small. Keys of a cache come before those of each
block.

The backward pass is written by hand (Dao et al. 2022, algorithm 4, with blocks of queries only). From the forward pass
it needs only the output and the logarithm of each softmax's denominator. Differentiating the switch would keep the
terms of every width.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from flan_jax.models.attention import MASKED, Slots, product, soft_capped, visible
from flan_jax.models.remat import MIXED


class How(NamedTuple):
    """Settings that are fixed when a program is compiled.

    Attributes:
      block: number of queries in a block; divides the row's length and the number of keys.
      window: how many positions a local layer sees back, itself included; 0 for no limit.
      cached: number of keys of a cache, which come before the row's own.
      softcap: bound of the scores; 0 for none.
      causal: whether keys are those of the queries' own row, and no key after a query is seen.
    """

    block: int
    window: int
    cached: int = 0
    softcap: float = 0.0
    causal: bool = True

    def widths(self, length: int) -> tuple[int, ...]:
        """The widths of keys to choose from, in blocks: 1, 2, 3, 4, 6, 9, ... and the whole row."""
        blocks, found, width = length // self.block, [], 1
        while width < blocks:
            found.append(width)
            width = max(width + 1, width * 3 // 2)
        return (*found, blocks)


def attend_in_segments(
    q_BxLxGxPxK: jax.Array,
    k_BxSxGxK: jax.Array,
    v_BxSxGxK: jax.Array,
    queries: Slots,
    keys: Slots,
    *,
    window: int,
    is_global: jax.Array | bool,
    block: int,
    softcap: float = 0.0,
    causal: bool = True,
    bias_HxLxS: jax.Array | None = None,
) -> jax.Array:
    """The same as `flan_jax.models.attention.attend`. A segment's slots must be next to each other; padding gives 0.

    Keys are those of a cache, if there is one, then the queries' own. Without `causal`, they may be an encoder's.
    `bias_HxLxS` is added to the scores of every row; it cannot be combined with a cache.
    """
    length, num_keys = q_BxLxGxPxK.shape[1], k_BxSxGxK.shape[1]
    block = min(block, length)
    how = How(block, window, num_keys - length if causal else 0, softcap, causal)

    def padded(x: jax.Array, axes: tuple[int, ...] = (1,)) -> jax.Array:
        pad = [(0, -x.shape[axis] % block if axis in axes else 0) for axis in range(x.ndim)]
        return jnp.pad(x, pad) if any(map(any, pad)) else x

    def of_keys(x: jax.Array) -> jax.Array:  # those of a cache come first, in any number
        return jnp.concatenate([x[:, : how.cached], padded(x[:, how.cached :])], 1) if how.cached else padded(x)

    q_BxGxPxLxK = padded(q_BxLxGxPxK).transpose(0, 2, 3, 1, 4)
    k_BxGxSxK, v_BxGxSxK = (of_keys(x).transpose(0, 2, 1, 3) for x in (k_BxSxGxK, v_BxSxGxK))
    if bias_HxLxS is not None:
        groups, per_group = q_BxGxPxLxK.shape[1:3]
        bias_HxLxS = padded(bias_HxLxS, (1, 2)).reshape(groups, per_group, q_BxGxPxLxK.shape[3], k_BxGxSxK.shape[2])
    own = jax.tree.map(padded, queries)
    seen = own if causal else jax.tree.map(padded, keys)
    arrays = q_BxGxPxLxK, k_BxGxSxK, v_BxGxSxK, own, seen, jnp.asarray(is_global), bias_HxLxS
    # Only scoring and decoding have a cache, and they need no gradient.
    out_BxGxPxLxK = _forward(how, *arrays, keys.part(slice(0, how.cached)))[0] if how.cached else _attend(how, *arrays)
    return out_BxGxPxLxK.transpose(0, 3, 1, 2, 4)[:, :length]


def _choices(how: How, segments_BxL: jax.Array, of_keys_BxS: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For each block the number of its width, and the first key that it needs: [B, blocks]."""
    length = segments_BxL.shape[1]
    slot_L = jnp.arange(length)
    if how.causal:
        begins_BxL = jnp.diff(segments_BxL, axis=1, prepend=-1) != 0
        start_BxL = jax.lax.cummax(jnp.where(begins_BxL, slot_L, 0), axis=1)
        # Padding needs nothing. So a block that begins with padding needs only what its first slot of a segment needs:
        # itself.
        first_BxN = jnp.where(segments_BxL > 0, start_BxL, slot_L)[:, :: how.block]
        needed_BxN = slot_L[:: how.block] // how.block - first_BxN // how.block + 1
    else:
        # All keys from the lowest to the highest number in a block. So none is missed, whatever their order.
        of_blocks_BxNxQ = segments_BxL.reshape(len(segments_BxL), -1, how.block)
        most = jnp.iinfo(segments_BxL.dtype).max
        low_BxN = jnp.where(of_blocks_BxNxQ > 0, of_blocks_BxNxQ, most).min(axis=2)
        keys_Bx1xS, bounds = of_keys_BxS[:, None], (low_BxN, of_blocks_BxNxQ.max(axis=2))
        needed_BxNxS = (keys_Bx1xS >= bounds[0][..., None]) & (keys_Bx1xS <= bounds[1][..., None])
        first_BxN = jnp.argmax(needed_BxNxS, axis=2)
        last_BxN = of_keys_BxS.shape[1] - 1 - jnp.argmax(needed_BxNxS[..., ::-1], axis=2)
        slots_BxN = jnp.where(needed_BxNxS.any(axis=2), last_BxN - first_BxN + 1, 1)
        needed_BxN = -(-slots_BxN // how.block)
    return jnp.searchsorted(jnp.asarray(how.widths(of_keys_BxS.shape[1])), needed_BxN), first_BxN


def _seen(
    how: How,
    queries: Slots,
    keys: Slots,
    is_global: jax.Array,
    start_q: Any,
    start_k: Any,
    width: int,
    cached: Slots | None = None,
) -> jax.Array:
    """Which keys of a row the queries of a block see: [block, width], or [block, cached + width]."""

    def part(slots: Slots, start: Any, size: int) -> Slots:
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size)[None], slots)

    queries, keys, place_S = part(queries, start_q, how.block), part(keys, start_k, width), start_k + jnp.arange(width)
    if cached is not None:
        keys = jax.tree.map(lambda front, own: jnp.concatenate([front[None], own], 1), cached, keys)
        place_S = jnp.pad(place_S, (how.cached, 0), constant_values=-1)
    seen = visible(queries, keys)[0]
    if how.causal:
        seen &= place_S[None, :] <= start_q + np.arange(how.block)[:, None]
    if how.window:
        seen &= is_global | (queries.positions[0, :, None] - keys.positions[0, None, :] < how.window)
    return seen


def _scores(
    q_GxMxK: jax.Array, k_GxSxK: jax.Array, bias_GxMxS: jax.Array | None, seen_QxS: jax.Array, softcap: float
) -> jax.Array:
    """Masked scores [G, M, S] for M = P x Q queries, float32."""
    scores = soft_capped(product("gmk,gsk->gms", q_GxMxK, k_GxSxK), softcap)
    if bias_GxMxS is not None:
        scores += bias_GxMxS
    per_group = scores.shape[1] // seen_QxS.shape[0]
    return jnp.where(jnp.tile(seen_QxS, (per_group, 1)), scores, MASKED)


def _of_scores(bias_GxPxLxS: jax.Array | None, start_q: Any, start_k: Any, shape: tuple[int, int]) -> jax.Array | None:
    """The biases for a block's scores, [G, P x block, width]."""
    if bias_GxPxLxS is None:
        return None
    starts, sizes = (0, 0, start_q, start_k), (*bias_GxPxLxS.shape[:2], *shape)
    return jax.lax.dynamic_slice(bias_GxPxLxS, starts, sizes).reshape(sizes[0], -1, shape[1])


def _over_blocks(how: How, num_keys: int, choices: tuple[jax.Array, jax.Array], body: Any, carry: Any) -> tuple:
    """Scans a row's blocks with `body(carry, start of queries, start of keys, width of keys) -> (carry, output)`."""
    choice_N, first_N = choices
    widths = how.widths(num_keys)

    def step(carry: Any, x: tuple[jax.Array, ...]) -> tuple[Any, Any]:
        number, choice, first = x

        def taking(width: int) -> Any:
            slots = width * how.block
            start_k = (number + 1) * how.block - slots if how.causal else first
            start_k = jnp.clip(start_k, 0, num_keys - slots)
            return lambda carry: body(carry, number * how.block, start_k, slots)

        return jax.lax.switch(choice, [taking(width) for width in widths], carry)

    return jax.lax.scan(step, carry, (jnp.arange(len(choice_N)), choice_N, first_N))


def _block(x_GxPxLxK: jax.Array, start: jax.Array, block: int) -> jax.Array:
    """Some slots of a row, as [G, P x block, ...]."""
    part = jax.lax.dynamic_slice_in_dim(x_GxPxLxK, start, block, axis=2)
    return part.reshape(part.shape[0], -1, *part.shape[3:])


def _joined(x_NxGxMxK: jax.Array, per_group: int) -> jax.Array:
    """Blocks [N, G, P x block, ...] as a row [G, P, L, ...]."""
    blocks, groups, _, *rest = x_NxGxMxK.shape
    x = jnp.moveaxis(x_NxGxMxK.reshape(blocks, groups, per_group, -1, *rest), 0, 2)
    return x.reshape(groups, per_group, -1, *rest)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how: How, q: jax.Array, k: jax.Array, v: jax.Array, *rest: Any) -> jax.Array:
    """Queries [B, G, P, L, K], keys and values [B, G, S, K] -> [B, G, P, L, K]."""
    return _forward(how, q, k, v, *rest)[0]


def _forward(
    how: How,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    slots: Slots,
    key_slots: Slots,
    is_global: jax.Array,
    bias_GxPxLxS: jax.Array | None,
    cached: Slots | None = None,
) -> tuple:
    per_group = q.shape[2]
    # What depends only on slots is the same for all layers. JAX would compute the masks of every block and width before
    # the loop over layers, and keep them, broadcast. This makes them wait for the queries.
    q, slots, key_slots, is_global = jax.lax.optimization_barrier((q, slots, key_slots, is_global))
    num_keys = key_slots.segments.shape[1]

    def row(xs: tuple) -> tuple[jax.Array, jax.Array]:
        q_GxPxLxK, k_GxTxK, v_GxTxK, slots, key_slots, choices, cached = xs

        def body(_: None, start_q: jax.Array, start_k: jax.Array, width: int) -> tuple[None, tuple]:
            def part(x_GxTxK: jax.Array) -> jax.Array:
                own = jax.lax.dynamic_slice_in_dim(x_GxTxK, how.cached + start_k, width, axis=1)
                return jnp.concatenate([x_GxTxK[:, : how.cached], own], 1) if how.cached else own

            seen = _seen(how, slots, key_slots, is_global, start_q, start_k, width, cached)
            k_GxSxK, v_GxSxK = part(k_GxTxK), part(v_GxTxK)
            bias = _of_scores(bias_GxPxLxS, start_q, start_k, seen.shape)
            scores = _scores(_block(q_GxPxLxK, start_q, how.block), k_GxSxK, bias, seen, how.softcap)
            top = scores.max(axis=-1)
            terms = jnp.exp(scores - top[..., None])
            total = terms.sum(axis=-1)
            out = product("gms,gsk->gmk", terms, v_GxSxK)
            some = top > MASKED  # a padding query sees no key
            scale = jnp.where(some, 1 / total, 0.0)[..., None]
            return None, ((out * scale).astype(v_GxSxK.dtype), jnp.where(some, top + jnp.log(total), 0.0))

        _, (out, log_total) = _over_blocks(how, num_keys, choices, body, None)
        return _joined(out, per_group), _joined(log_total, per_group)

    choices = _choices(how, slots.segments, key_slots.segments)
    out, log_total = jax.lax.map(row, (q, k, v, slots, key_slots, choices, cached))
    out, log_total = checkpoint_name(out, MIXED), checkpoint_name(log_total, MIXED)
    return out, (q, k, v, slots, key_slots, is_global, bias_GxPxLxS, out, log_total)


def _backward(how: How, kept: tuple, d_out: jax.Array) -> tuple:
    q, k, v, slots, key_slots, is_global, bias_GxPxLxS, out, log_total = kept
    per_group, num_keys = q.shape[2], k.shape[2]

    def row(d_bias_GxPxLxS: jax.Array | None, xs: tuple) -> tuple[jax.Array | None, tuple]:
        q_GxPxLxK, *of_keys, slots, key_slots, choices, d_out_GxPxLxK, log_GxPxL, inner_GxPxL = xs

        def body(sums: tuple, start_q: jax.Array, start_k: jax.Array, width: int) -> tuple[tuple, jax.Array]:
            seen = _seen(how, slots, key_slots, is_global, start_q, start_k, width)
            k_GxSxK, v_GxSxK = (jax.lax.dynamic_slice_in_dim(x, start_k, width, axis=1) for x in of_keys)
            queries = functools.partial(_block, start=start_q, block=how.block)
            q_GxMxK, d_out_GxMxK = queries(q_GxPxLxK), queries(d_out_GxPxLxK)
            bias = _of_scores(bias_GxPxLxS, start_q, start_k, seen.shape)
            scores = _scores(q_GxMxK, k_GxSxK, bias, seen, how.softcap)
            weights = jnp.exp(scores - queries(log_GxPxL)[..., None])
            d_weights = product("gmk,gsk->gms", d_out_GxMxK, v_GxSxK)
            d_scores = weights * (d_weights - queries(inner_GxPxL)[..., None])
            d_k_GxSxK, d_v_GxSxK, d_bias_GxPxLxS = sums
            if bias is not None:
                starts, shape = (0, 0, start_q, start_k), (*d_bias_GxPxLxS.shape[:2], *seen.shape)
                more = jax.lax.dynamic_slice(d_bias_GxPxLxS, starts, shape) + d_scores.reshape(shape)
                d_bias_GxPxLxS = jax.lax.dynamic_update_slice(d_bias_GxPxLxS, more, starts)
            if how.softcap:  # the derivative of c tanh(x / c); masked scores are far beyond c and count for nothing
                d_scores *= 1 - jnp.square(jnp.clip(scores / how.softcap, -1, 1))
            d_v = product("gms,gmk->gsk", weights, d_out_GxMxK)
            d_k = product("gms,gmk->gsk", d_scores, q_GxMxK)

            def added(total: jax.Array, x: jax.Array) -> jax.Array:
                x = x + jax.lax.dynamic_slice_in_dim(total, start_k, width, axis=1)
                return jax.lax.dynamic_update_slice_in_dim(total, x, start_k, axis=1)

            d_q = product("gms,gsk->gmk", d_scores, k_GxSxK).astype(q_GxMxK.dtype)
            return (added(d_k_GxSxK, d_k), added(d_v_GxSxK, d_v), d_bias_GxPxLxS), d_q

        zeros = jnp.zeros(of_keys[0].shape, jnp.float32)
        sums = zeros, zeros, d_bias_GxPxLxS
        (d_k, d_v, d_bias_GxPxLxS), d_q = _over_blocks(how, num_keys, choices, body, sums)
        return d_bias_GxPxLxS, (_joined(d_q, per_group), d_k, d_v)

    inner = (d_out.astype(jnp.float32) * out.astype(jnp.float32)).sum(axis=-1)
    choices = _choices(how, slots.segments, key_slots.segments)
    d_bias = None if bias_GxPxLxS is None else jnp.zeros(bias_GxPxLxS.shape, jnp.float32)
    xs = (q, k, v, slots, key_slots, choices, d_out, log_total, inner)
    d_bias, (d_q, d_k, d_v) = jax.lax.scan(row, d_bias, xs)
    nothing = jax.tree.map(lambda x: np.zeros(x.shape, jax.dtypes.float0), (slots, key_slots, is_global))
    d_bias = None if d_bias is None else d_bias.astype(bias_GxPxLxS.dtype)
    return d_q, d_k.astype(k.dtype), d_v.astype(v.dtype), *nothing, d_bias


_attend.defvjp(_forward, _backward)

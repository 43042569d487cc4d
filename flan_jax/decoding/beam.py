"""Beam search, in the semantics of transformers with `early_stopping=False`, rows independent of each other.

A step takes the W best continuations of K beams, W being K for each token that ends a text, and K more. Of these,
sequences that end are candidates for the result if they are among the first K, at their sum of log-probabilities over
their length to the power of the length penalty; the best K that go on are the next beams. A row is done when its best
beam, at its present length, is below all K results, or at its limit, where all end.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flan_jax.errors import FlanError
from flan_jax.models import Cache

_NEVER = -1e36  # added to scores; below any score that _STEEPEST lets there be
_STEEPEST = 10  # of length penalties


@dataclasses.dataclass(frozen=True)
class Beams:
    """A beam search.

    Attributes:
      num: K.
      length_penalty: exponent of the length that scores are divided by, -10 to 10; above 0 it favours long sequences.
    """

    num: int
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.num < 1:
            raise FlanError(f"a beam search has one beam or more, not {self.num}.")
        if not math.isfinite(self.length_penalty) or abs(self.length_penalty) > _STEEPEST:
            raise FlanError(
                f"the length penalty of a beam search is a number from -{_STEEPEST} to {_STEEPEST}, not "
                f"{self.length_penalty}."
            )


class _State(NamedTuple):
    """B rows of K beams and K results, of up to T tokens."""

    cache: Cache
    tokens_BxKxT: jax.Array
    scores_BxK: jax.Array
    ended_BxKxT: jax.Array
    ended_scores_BxK: jax.Array
    ended_lengths_BxK: jax.Array
    has_ended_BxK: jax.Array
    is_open_B: jax.Array
    is_finite_B: jax.Array
    step: jax.Array


def search(
    logits_BxV: jax.Array,
    cache: Cache,
    limits_B: jax.Array,
    forward: Callable[[Cache, jax.Array, jax.Array], tuple[jax.Array, Cache]],
    *,
    beams: Beams,
    room: int,
    ends_V: jax.Array,
    num_ends: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Searches each row's best continuation.

    Args:
      logits_BxV: of the first token, float32.
      cache: of the prompts, with `room` empty slots at its end.
      limits_B: most tokens of a row, up to `room`; 0 leaves it out.
      forward: (cache [B K rows], tokens [B K], how many were generated before them) -> (logits of what follows
        [B K, V], the cache with these tokens).
      beams: the search.
      room: T.
      ends_V: which tokens end a sequence; such a token is its last.
      num_ends: how many those are.

    Returns:
      (tokens [B, T], lengths [B], scores [B], whether all logits that were looked at are finite [B]).
    """
    num_rows, vocab = logits_BxV.shape
    count, first_slot = beams.num, cache.keys.shape[2] - room
    width = max(2, 1 + num_ends) * count  # K of them go on, whatever ends
    rows_Bx1 = jnp.arange(num_rows)[:, None]

    def expand(state: _State, logits_BxKxV: jax.Array) -> _State:
        is_finite_B = state.is_finite_B & (jnp.isfinite(logits_BxKxV).all((1, 2)) | ~state.is_open_B)
        scores_BxKxV = jax.nn.log_softmax(logits_BxKxV) + state.scores_BxK[..., None]
        scores_BxW, at_BxW = jax.lax.top_k(scores_BxKxV.reshape(num_rows, -1), min(width, count * vocab))
        from_BxW, tokens_BxW = at_BxW // vocab, (at_BxW % vocab).astype(jnp.int32)
        sequences_BxWxT = state.tokens_BxKxT[rows_Bx1, from_BxW].at[:, :, state.step].set(tokens_BxW)
        length = state.step + 1
        ends_BxW = ends_V[tokens_BxW] | (length >= limits_B)[:, None]

        running_BxW = scores_BxW + ends_BxW * _NEVER
        scores_BxK, best_BxK = jax.lax.top_k(running_BxW, count)
        from_BxK = from_BxW[rows_Bx1, best_BxK]

        is_result_BxW = ends_BxW & (jnp.arange(ends_BxW.shape[1]) < count)
        result_BxW = scores_BxW / length.astype(jnp.float32) ** beams.length_penalty
        result_BxW += ~state.is_open_B[:, None] * _NEVER + ~is_result_BxW * _NEVER
        merged = (
            jnp.concatenate([old, new], 1)
            for old, new in (
                (state.ended_BxKxT, sequences_BxWxT),
                (state.ended_lengths_BxK, jnp.full(result_BxW.shape, length)),
                (state.has_ended_BxK, is_result_BxW),
            )
        )
        ended_scores_BxK, kept_BxK = jax.lax.top_k(jnp.concatenate([state.ended_scores_BxK, result_BxW], 1), count)
        ended_BxKxT, lengths_BxK, has_ended_BxK = (x[rows_Bx1, kept_BxK] for x in merged)

        best_B = scores_BxK[:, 0] / length.astype(jnp.float32) ** beams.length_penalty
        worst_B = jnp.where(has_ended_BxK.all(1), ended_scores_BxK.min(1), _NEVER)
        return _State(
            cache=state.cache.reordered((rows_Bx1 * count + from_BxK).ravel(), first_slot),
            tokens_BxKxT=sequences_BxWxT[rows_Bx1, best_BxK],
            scores_BxK=scores_BxK,
            ended_BxKxT=ended_BxKxT,
            ended_scores_BxK=ended_scores_BxK,
            ended_lengths_BxK=lengths_BxK,
            has_ended_BxK=has_ended_BxK,
            is_open_B=state.is_open_B & (best_B > worst_B) & ~ends_BxW.all(1) & is_finite_B,
            is_finite_B=is_finite_B,
            step=length,
        )

    def advance(state: _State) -> _State:
        last_BxK = jax.lax.dynamic_index_in_dim(state.tokens_BxKxT, state.step - 1, 2, keepdims=False)
        logits, cache = forward(state.cache, last_BxK.ravel(), state.step - 1)
        return expand(state._replace(cache=cache), logits.reshape(num_rows, count, vocab))

    nothing_BxK = jnp.zeros((num_rows, count), jnp.int32)
    blank_BxKxT = jnp.zeros((num_rows, count, room), jnp.int32)
    state = _State(
        cache=cache.rows(jnp.repeat(jnp.arange(num_rows), count)),
        tokens_BxKxT=blank_BxKxT,
        scores_BxK=jnp.where(jnp.arange(count) == 0, nothing_BxK, jnp.float32(_NEVER)),  # all beams are the same yet
        ended_BxKxT=blank_BxKxT,
        ended_scores_BxK=jnp.full((num_rows, count), _NEVER, jnp.float32),
        ended_lengths_BxK=nothing_BxK,
        has_ended_BxK=nothing_BxK > 0,
        is_open_B=limits_B > 0,
        is_finite_B=jnp.ones_like(limits_B, bool),
        step=jnp.int32(0),
    )
    state = expand(state, jnp.repeat(logits_BxV[:, None], count, 1))
    state = jax.lax.while_loop(lambda state: state.is_open_B.any(), advance, state)
    return state.ended_BxKxT[:, 0], state.ended_lengths_BxK[:, 0], state.ended_scores_BxK[:, 0], state.is_finite_B

"""What a generator does on the device: the prompt in one pass, then a token at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flan_jax.decoding import sampling
from flan_jax.models import Cache, EncoderDecoder, Model


class State(NamedTuple):
    """A batch of B rows between two steps.

    Attributes:
      cache: of all tokens but the last of each row.
      tokens_BxT: what was generated; filled up with an end.
      last_B: the last token of each row.
      starts_B: position of the first generated token.
      counts_B: tokens generated, the end too.
      limits_B: most tokens of each row.
      seeds_B: of the draws.
      is_done_B: rows that get no more.
      is_finite_B: rows whose logits were finite at each step so far.
      step: tokens generated in the rows that are not done.
    """

    cache: Cache
    tokens_BxT: jax.Array
    last_B: jax.Array
    starts_B: jax.Array
    counts_B: jax.Array
    limits_B: jax.Array
    seeds_B: jax.Array
    is_done_B: jax.Array
    is_finite_B: jax.Array
    step: jax.Array

    def rows(self, numbers_R: jax.Array) -> State:
        """Rows by their numbers, in order."""
        others = {
            key: jnp.take(x, numbers_R, axis=0) for key, x in self._asdict().items() if key not in ("cache", "step")
        }
        return State(cache=self.cache.rows(numbers_R), step=self.step, **others)


class Steps:
    """The steps of one model. Each is traced as part of a program that the generator compiles.

    Args:
      model: the model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    def prefilled(
        self, params: Any, tokens_BxP: jax.Array, lengths_B: jax.Array, room: int
    ) -> tuple[jax.Array, Cache, jax.Array]:
        """Logits [B, V] of the first new token, the prompts' cache with room behind, and the new tokens' positions."""
        num_rows, length = tokens_BxP.shape
        positions_BxP = jnp.broadcast_to(jnp.arange(length), tokens_BxP.shape)
        segments_BxP = (positions_BxP < lengths_B[:, None]).astype(jnp.int32)
        prompt = tokens_BxP, positions_BxP, segments_BxP
        if isinstance(self._model, EncoderDecoder):
            memory = self._model.encode(params, *prompt)
            nothing_Bx1 = jnp.zeros((num_rows, 1), jnp.int32)
            hidden, cache = self._model.extend(params, nothing_Bx1, nothing_Bx1, nothing_Bx1 + 1, memory=memory)
            hidden_BxD, starts_B = hidden[:, 0], jnp.ones_like(lengths_B)
        else:
            hidden_BxPxD, cache = self._model.extend(params, *prompt)
            hidden_BxD, starts_B = hidden_BxPxD[jnp.arange(num_rows), jnp.maximum(lengths_B - 1, 0)], lengths_B
        return self._model.logits(params, hidden_BxD), cache.with_room(room), starts_B

    def stepped(
        self, params: Any, cache: Cache, tokens_B: jax.Array, starts_B: jax.Array, before: jax.Array, room: int
    ) -> tuple[jax.Array, Cache]:
        """Logits [B, V] after one more token of each row, of which `before` were generated earlier."""
        segments_Bx1 = jnp.ones_like(tokens_B)[:, None]
        positions_Bx1 = (starts_B + before)[:, None]
        hidden_Bx1xD, new = self._model.extend(params, tokens_B[:, None], positions_Bx1, segments_Bx1, cache=cache)
        written = cache.written(new, cache.keys.shape[2] - room + before)
        return self._model.logits(params, hidden_Bx1xD[:, 0]), written

    def started(
        self,
        params: Any,
        room: int,
        kind: str,
        tokens_BxP: jax.Array,
        lengths_B: jax.Array,
        limits_B: jax.Array,
        seeds_B: jax.Array,
        ends_1xV: jax.Array,
        numbers: tuple,
    ) -> State:
        """The prompts [B, P] and their first tokens, in a state with room for more."""
        logits_BxV, cache, starts_B = self.prefilled(params, tokens_BxP, lengths_B, room)
        first_B = sampling.next_tokens(logits_BxV, seeds_B, 0, numbers, kind)
        is_finite_B = jnp.isfinite(logits_BxV).all(-1) | (limits_B == 0)
        return State(
            cache=cache,
            tokens_BxT=jnp.full((len(first_B), room), 0, jnp.int32).at[:, 0].set(first_B),
            last_B=first_B,
            starts_B=starts_B,
            counts_B=jnp.minimum(limits_B, 1),
            limits_B=limits_B,
            seeds_B=seeds_B,
            is_done_B=ends_1xV[0][first_B] | (limits_B <= 1) | ~is_finite_B,
            is_finite_B=is_finite_B,
            step=jnp.int32(1),
        )

    def advanced(
        self,
        params: Any,
        kind: str,
        state: State,
        until: jax.Array,
        fewest: jax.Array,
        ends_1xV: jax.Array,
        numbers: tuple,
    ) -> State:
        """More tokens, up to so many of a row, while more than the fewest rows go on."""
        room = state.tokens_BxT.shape[1]

        def advance(s: State) -> State:
            logits_BxV, cache = self.stepped(params, s.cache, s.last_B, s.starts_B, s.step - 1, room)
            chosen_B = sampling.next_tokens(logits_BxV, s.seeds_B, s.step, numbers, kind)
            next_B = jnp.where(s.is_done_B, 0, chosen_B)
            counts_B = s.counts_B + ~s.is_done_B
            is_finite_B = s.is_finite_B & (jnp.isfinite(logits_BxV).all(-1) | s.is_done_B)
            return s._replace(
                cache=cache,
                tokens_BxT=s.tokens_BxT.at[:, s.step].set(next_B),
                last_B=next_B,
                counts_B=counts_B,
                is_done_B=s.is_done_B | ends_1xV[0][next_B] | (counts_B >= s.limits_B) | ~is_finite_B,
                is_finite_B=is_finite_B,
                step=s.step + 1,
            )

        return jax.lax.while_loop(lambda s: (s.step < until) & ((~s.is_done_B).sum() > fewest), advance, state)

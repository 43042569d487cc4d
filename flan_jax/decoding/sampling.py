"""The next token of each row: the likeliest, or one that is drawn."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax.errors import FlanError

_COLDEST = 1e-6  # temperature above 0
_BLOCK = 256  # tokens among which the likeliest is looked for at once

GREEDY, DRAWN, FILTERED = "greedy", "drawn", "filtered"


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, in the order in which transformers applies it.

    Attributes:
      temperature: divides the logits; 0 takes the likeliest token always.
      top_k: only so many tokens can be drawn, and those that tie with the last; 0 for no limit.
      top_p: only the likeliest tokens can be drawn that are needed to reach this probability (Holtzman et al. 2020),
        and those that tie with the last.
      seed: of the draws.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.top_k, int) or self.top_k >= 2**31:
            raise FlanError(f"top_k {self.top_k}: give a whole number from 0 to {2**31 - 1}.")
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise FlanError(
                f"temperature {self.temperature}, top_k {self.top_k}, top_p {self.top_p}: give a temperature and a "
                "top_k of 0 or more, and a top_p above 0 and up to 1."
            )
        if self.temperature != 0 and not _COLDEST <= self.temperature <= 1 / _COLDEST:
            raise FlanError(  # logits over it would be infinite, or all the same
                f"temperature {self.temperature}: give 0, or a number from {_COLDEST:g} to {1 / _COLDEST:g}."
            )

    @property
    def kind(self) -> str:
        """GREEDY, DRAWN from all tokens, or FILTERED by top_k or top_p: three programs.

        >>> [Sampling().kind, Sampling(temperature=1).kind, Sampling(temperature=1, top_p=0.9).kind]
        ['greedy', 'drawn', 'filtered']
        """
        if self.temperature == 0:
            return GREEDY
        return FILTERED if self.top_k or self.top_p < 1 else DRAWN

    @property
    def numbers(self) -> tuple[np.float32, np.int32, np.float32]:
        """Temperature, top_k and top_p, as `next_tokens` takes them."""
        return np.float32(self.temperature), np.int32(self.top_k), np.float32(self.top_p)


def row_seeds(prompts: Sequence[Sequence[int]], seed: int) -> np.ndarray:
    """A seed for each prompt, uint32, from its tokens: whatever else is in the batch, it is the same.

    A prompt that occurs again gets another one each time.
    """
    seen: collections.Counter[tuple[int, ...]] = collections.Counter()
    seeds = np.zeros(len(prompts), np.uint32)
    for i, prompt in enumerate(map(tuple, prompts)):
        digest = hashlib.sha256(f"{seed}/{seen[prompt]}/{prompt}".encode()).digest()
        seeds[i] = int.from_bytes(digest[:4], "little")
        seen[prompt] += 1
    return seeds


def only_likeliest(logits_BxV: jax.Array, top_k: jax.Array | int, top_p: jax.Array | float) -> jax.Array:
    """The logits with -inf for the tokens that cannot be drawn; top_p is of what top_k leaves.

    >>> only_likeliest(jnp.array([[1.0, 3.0, 2.0]]), top_k=2, top_p=1.0).tolist()
    [[-inf, 3.0, 2.0]]
    """
    vocab = logits_BxV.shape[-1]
    sorted_BxV = -jnp.sort(-logits_BxV, axis=-1)
    last = jnp.where(top_k > 0, jnp.minimum(top_k, vocab), vocab) - 1
    kth_Bx1 = jnp.take_along_axis(sorted_BxV, jnp.full((len(logits_BxV), 1), last), axis=-1)
    left_BxV = jnp.where(sorted_BxV >= kth_Bx1, sorted_BxV, -jnp.inf)
    probability_BxV = jax.nn.softmax(left_BxV, axis=-1)
    before_BxV = jnp.cumsum(probability_BxV, axis=-1) - probability_BxV
    kept_BxV = (left_BxV > -jnp.inf) & ((before_BxV < top_p) | (top_p >= 1))  # 1 keeps all, whatever the rounding
    kept_BxV = kept_BxV.at[:, 0].set(True)  # and the likeliest stays where top_p is 0 in float32
    lowest_Bx1 = jnp.where(kept_BxV, left_BxV, jnp.inf).min(-1, keepdims=True)
    return jnp.where(logits_BxV >= lowest_Bx1, logits_BxV, -jnp.inf)


def likeliest(logits_BxV: jax.Array) -> jax.Array:
    """The first of the tokens with the largest logit of each row, int32 [B]: the same as `jnp.argmax`.

    A row with a NaN gets some token; who asks has to look for NaN. It looks for the block of tokens first, and then in
    that block. XLA's CPU code for a maximum is 18 times as fast as that for its place.

    >>> likeliest(jnp.array([[0.0, 2.0, 2.0], [1.0, -1.0, 0.0]])).tolist()
    [1, 0]
    """
    num_rows, vocab = logits_BxV.shape
    if vocab % _BLOCK or vocab == _BLOCK:
        return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    blocks_BxNxW = logits_BxV.reshape(num_rows, -1, _BLOCK)
    block_B = jnp.argmax(blocks_BxNxW.max(-1), axis=-1)
    within_BxW = jnp.take_along_axis(blocks_BxNxW, block_B[:, None, None], axis=1)[:, 0]
    return (block_B * _BLOCK + jnp.argmax(within_BxW, axis=-1)).astype(jnp.int32)


def next_tokens(
    logits_BxV: jax.Array,
    seeds_B: jax.Array,
    step: jax.Array | int,
    numbers: tuple[jax.Array, jax.Array, jax.Array],
    kind: str,
) -> jax.Array:
    """Chooses a token for each row.

    Args:
      logits_BxV: float32.
      seeds_B: see `row_seeds`.
      step: how many tokens were generated before; a row's draw depends on its seed and the step alone.
      numbers: temperature, top_k and top_p.
      kind: see `Sampling.kind`.

    Returns:
      int32 [B].
    """
    if kind == GREEDY:
        return likeliest(logits_BxV)
    temperature, top_k, top_p = numbers
    logits_BxV = logits_BxV / temperature
    if kind == FILTERED:
        logits_BxV = only_likeliest(logits_BxV, top_k, top_p)

    def draw(seed: jax.Array, logits_V: jax.Array) -> jax.Array:
        # By name: other generators draw otherwise under vmap, so that a draw would depend on the other rows.
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), seed), step)
        return jax.random.categorical(key, logits_V)

    return jax.vmap(draw)(seeds_B, logits_BxV).astype(jnp.int32)

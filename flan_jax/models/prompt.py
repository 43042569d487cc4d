"""Prompt tuning (Lester et al. 2021): trained embeddings before every segment. Nothing else is trained.

They are computed once for a batch, as a cache that every segment of every row sees. Rows stay packed as they are, and
positions continue after the prompt.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from flan_jax.errors import FlanError
from flan_jax.models import nested
from flan_jax.models.attention import Slots
from flan_jax.models.cache import Cache
from flan_jax.models.decoder import Model, cast_layers
from flan_jax.models.layers import Memory

SOFT = "soft_prompt"
PATH = ("decoder", SOFT, "embedding")  # path of the embeddings [P, D], as layers take them
AXES = ("prompt_length", "embed")


@dataclasses.dataclass(frozen=True)
class Prompted(Model):
    """A decoder with a soft prompt.

    Attributes:
      length: P, the number of its slots.
    """

    length: int = 0

    def init(self, rng: jax.Array) -> dict[str, Any]:
        """Random float32 parameters."""
        params = super().init(rng)
        return nested.merged(params, self.adapters(rng, params))

    def adapters(self, rng: jax.Array, params: Any) -> dict[str, Any]:
        """The prompt alone: embeddings of random tokens of the model."""
        table = params["decoder"]["token_embedder"]["embedding"]
        ids = jax.random.randint(jax.random.fold_in(rng, 0x50F7), (self.length,), 0, self.config.vocab_size)
        scale = self.config.embed_dim**0.5 if self.config.scale_embeddings else 1.0
        return nested.at(PATH, jnp.take(table, ids, axis=0) * scale)

    def logical_axes(self) -> dict[str, Any]:
        """The tree of parameters as tuples of logical axis names."""
        return nested.merged(super().logical_axes(), nested.at(PATH, AXES))

    def prefix(self, params: Any) -> Cache:
        """The keys and values of the prompt, which every segment sees."""
        embedding = params["decoder"][SOFT]["embedding"][None].astype(self.config.dtype)
        positions = jnp.arange(self.length, dtype=jnp.int32)[None]
        slots = Slots(positions, jnp.ones_like(positions), jnp.zeros_like(positions))
        given = {"params": params}, embedding, slots, Cache.empty(self.config, 1), None
        return self._root(self.config).apply(*given, method="extend")[1].for_all()

    def hidden(
        self,
        params: Any,
        tokens_BxL: jax.Array,
        positions_BxL: jax.Array,
        segments_BxL: jax.Array,
        branches_BxL: jax.Array | None = None,
    ) -> jax.Array:
        """See `Model.hidden`; the prompt comes before every segment."""
        params = cast_layers(params, self.config.dtype)
        return self.extend(params, tokens_BxL, positions_BxL, segments_BxL, branches_BxL)[0]

    def extend(
        self,
        params: Any,
        tokens_BxL: jax.Array,
        positions_BxL: jax.Array,
        segments_BxL: jax.Array,
        branches_BxL: jax.Array | None = None,
        *,
        cache: Cache | None = None,
        memory: Memory | None = None,
    ) -> tuple[jax.Array, Cache]:
        """See `Model.extend`; the prompt comes before the cache. The returned cache does not contain it."""
        before = self.prefix(params)
        if cache is not None:
            before = _joined(before, cache)
        positions_BxL = positions_BxL + self.length
        return super().extend(
            params, tokens_BxL, positions_BxL, segments_BxL, branches_BxL, cache=before, memory=memory
        )


def _joined(prefix: Cache, cache: Cache) -> Cache:
    rows = cache.slots.segments.shape[0]
    keys, values = (
        jnp.concatenate([jnp.broadcast_to(a, (a.shape[0], rows, *a.shape[2:])).astype(b.dtype), b], axis=2)
        for a, b in zip(prefix[:2], cache[:2], strict=True)
    )
    slots = jax.tree.map(
        lambda a, b: jnp.concatenate([jnp.broadcast_to(a, (rows, a.shape[1])), b], axis=1), prefix.slots, cache.slots
    )
    return Cache(keys, values, slots, cache.memory)


def prompted(model: Model, length: int) -> Prompted:
    """A model with a soft prompt.

    Raises:
      FlanError: the model is an encoder-decoder, or its attention takes no cache.
    """
    if model.config.num_encoder_layers:
        raise FlanError("a soft prompt stands before a decoder's segments: an encoder-decoder takes none.")
    if model.config.attention in ("splash", "cudnn"):
        raise FlanError(f"a soft prompt takes no attention={model.config.attention!r}: set attention='xla'.")
    return Prompted(model.config, length)

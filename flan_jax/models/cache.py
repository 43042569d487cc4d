"""Keys and values that were computed before, for later slots to attend to.

It has two uses. Decoding keeps a cache of fixed size and writes each new slot into it. Scoring computes exemplars that
many prompts share once, and gives their cache to every row of these prompts (`for_all`). Position, segment and branch
decide which slots of a cache a query sees; their place does not matter, so gaps do no harm.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from flan_jax.models.attention import EVERY, Slots
from flan_jax.models.config import DecoderConfig


class Cache(NamedTuple):
    """Keys and values of S slots in N layers.

    Attributes:
      keys: [N, B, S, G, K], rotated to their positions.
      values: [N, B, S, G, K].
      slots: where they are, [B, S]; segment 0 is an empty slot.
      memory: the same for an encoder's slots, which each layer of a decoder projects in its own way.
    """

    keys: jax.Array
    values: jax.Array
    slots: Slots
    memory: Cache | None = None

    @classmethod
    def empty(cls, config: DecoderConfig, num_rows: int, num_slots: int = 0) -> Cache:
        """A cache of empty slots."""
        shape = (config.num_layers, num_rows, num_slots, config.num_kv_heads, config.head_dim)
        nowhere = jnp.zeros((num_rows, num_slots), jnp.int32)
        return cls(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype), Slots(nowhere, nowhere, nowhere))

    def with_room(self, num_slots: int) -> Cache:
        """The cache with `num_slots` empty slots added at its end."""
        keys, values = (jnp.pad(x, ((0, 0), (0, 0), (0, num_slots), (0, 0), (0, 0))) for x in self[:2])
        slots = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, num_slots))), self.slots)
        return Cache(keys, values, slots, self.memory)

    def written(self, new: Cache, start: jax.Array | int) -> Cache:
        """The cache with the slots of another one written from place `start` on; its memory stays.

        Args:
          new: the other cache, with as many rows.
          start: may be traced. If the slots do not fit there, they move back, as in `jax.lax.dynamic_update_slice`.
        """
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, x.astype(old.dtype), start, 2)
            for old, x in zip(self[:2], new[:2], strict=True)
        )
        slots = jax.tree.map(
            lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x, start, 1), self.slots, new.slots
        )
        return Cache(keys, values, slots, self.memory)

    def for_all(self) -> Cache:
        """The cache, visible from every segment: a prefix that the segments of a row share."""
        segments = jnp.where(self.slots.segments > 0, EVERY, 0)
        return self._replace(slots=self.slots._replace(segments=segments))

    def rows(self, numbers: jax.Array) -> Cache:
        """Rows by their numbers, in that order and as often as named; the memory's rows too."""
        memory = None if self.memory is None else self.memory.rows(numbers)
        keys, values = (jnp.take(x, numbers, axis=1) for x in self[:2])
        return Cache(keys, values, jax.tree.map(lambda x: jnp.take(x, numbers, axis=0), self.slots), memory)

    def reordered(self, numbers: jax.Array, start: int) -> Cache:
        """Rows by their numbers, but only from place `start` on.

        What lies before, and the memory, stays where it is.
        """
        keys, values = (x.at[:, :, start:].set(jnp.take(x[:, :, start:], numbers, axis=1)) for x in self[:2])
        slots = jax.tree.map(lambda x: x.at[:, start:].set(jnp.take(x[:, start:], numbers, axis=0)), self.slots)
        return Cache(keys, values, slots, self.memory)

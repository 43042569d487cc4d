"""Dropout at T5X's places, by masks that each row makes from a key of its own.

A mask depends on its row's key, the layer and the place, and on nothing else: not on what other rows there are, on
which device the row lies, or whether a layer is computed twice. Where T5X has one mask for all slots of a row, so it is
here: everywhere but after the encoder's final norm.

| place         | what is dropped                                                                |
|---------------|--------------------------------------------------------------------------------|
| `EMBEDDING`   | embedded tokens, before the first layer                                        |
| `WEIGHTS`     | attention's weights of a key, for all queries (of the memory: `CROSS_WEIGHTS`) |
| `ATTENDED`    | what attention adds to the residual (of the memory: `CROSS_ATTENDED`)          |
| `ACTIVATIONS` | the inner activations of the feed-forward layer                                |
| `FED`         | what the feed-forward layer adds to the residual                               |
| `FINAL`       | hidden states after the final norm                                             |

All queries of a row share the mask of attention's weights, so to drop a key's weight is to set its value to zero. That
works with every way to compute attention. Query heads that share a key head share its mask.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

(EMBEDDING, WEIGHTS, ATTENDED, CROSS_WEIGHTS, CROSS_ATTENDED, ACTIVATIONS, FED, FINAL) = range(8)
ENCODER, DECODER, LAYERS = 8, 9, 10  # what keys are made for besides places


@functools.partial(jax.tree_util.register_dataclass, data_fields=["keys_B"], meta_fields=["rate"])
@dataclasses.dataclass(frozen=True)
class Dropout:
    """Which numbers are dropped in a batch of rows.

    Attributes:
      keys_B: a key of `jax.random` for each row.
      rate: the share that is dropped, from 0 to below 1.
    """

    keys_B: jax.Array
    rate: float

    def within(self, *numbers: int | jax.Array) -> Dropout:
        """That of a part of the model, which may be a traced number, such as a layer's."""
        keys_B = self.keys_B
        for number in numbers:
            keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, number)
        return Dropout(keys_B, self.rate)


def dropped(x: jax.Array, dropout: Dropout | None, place: int, shared: tuple[int, ...] = (1,)) -> jax.Array:
    """x [B, ...] with a share of its numbers zero and the others divided by what is left; x itself without dropout.

    Args:
      x: its first axis is that of the rows.
      dropout: of this part of the model.
      place: one of the places above.
      shared: axes along which all have one mask; the length by default.
    """
    if dropout is None:
        return x
    left = 1.0 - dropout.rate
    shape = tuple(1 if axis in shared else size for axis, size in enumerate(x.shape))[1:]
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, left, shape))(dropout.within(place).keys_B)
    return jnp.where(kept, x / jnp.asarray(left, x.dtype), jnp.zeros((), x.dtype))

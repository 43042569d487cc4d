"""Dropout at T5X's places. Each row makes its masks from a key of its own.

A mask depends only on the row's key, the layer and the place. It does not depend on other rows, on the device of the
row, or on whether a layer is computed twice. As in T5X, all slots of a row have the same mask, except after the
encoder's final norm.

| place         | what is dropped                                                                |
|---------------|--------------------------------------------------------------------------------|
| `EMBEDDING`   | embedded tokens, before the first layer                                        |
| `WEIGHTS`     | attention's weights of a key, for all queries (of the memory: `CROSS_WEIGHTS`) |
| `ATTENDED`    | what attention adds to the residual (of the memory: `CROSS_ATTENDED`)          |
| `ACTIVATIONS` | the inner activations of the feed-forward layer                                |
| `FED`         | what the feed-forward layer adds to the residual                               |
| `FINAL`       | hidden states after the final norm                                             |

All queries of a row share the mask of attention's weights. So dropping a key's weight is the same as setting its value
to zero, which works with every way to compute attention. Query heads that share a key head share its mask.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

(EMBEDDING, WEIGHTS, ATTENDED, CROSS_WEIGHTS, CROSS_ATTENDED, ACTIVATIONS, FED, FINAL) = range(8)
ENCODER, DECODER, LAYERS = 8, 9, 10  # keys are also made for these, besides the places


@functools.partial(jax.tree_util.register_dataclass, data_fields=["keys_B"], meta_fields=["rate"])
@dataclasses.dataclass(frozen=True)
class Dropout:
    """Dropout for a batch of rows.

    Attributes:
      keys_B: a key of `jax.random` for each row.
      rate: the share that is dropped, from 0 to below 1.
    """

    keys_B: jax.Array
    rate: float

    def within(self, *numbers: int | jax.Array) -> Dropout:
        """Dropout for a part of the model. Its number may be traced, such as a layer's."""
        keys_B = self.keys_B
        for number in numbers:
            keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, number)
        return Dropout(keys_B, self.rate)


def dropped(x: jax.Array, dropout: Dropout | None, place: int, shared: tuple[int, ...] = (1,)) -> jax.Array:
    """x [B, ...] with a share of its numbers set to zero and the others scaled up; x itself without dropout.

    Args:
      x: its first axis is that of the rows.
      dropout: the dropout of this part of the model.
      place: one of the places above.
      shared: axes along which all have the same mask; by default the length.
    """
    if dropout is None:
        return x
    left = 1.0 - dropout.rate
    shape = tuple(1 if axis in shared else size for axis, size in enumerate(x.shape))[1:]
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, left, shape))(dropout.within(place).keys_B)
    return jnp.where(kept, x / jnp.asarray(left, x.dtype), jnp.zeros((), x.dtype))

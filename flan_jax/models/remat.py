"""What the forward pass of a layer keeps for the backward pass, by name.

The input of every layer is always kept. Anything else that is kept costs memory for each layer; the rest is computed
again. Bytes are for each slot and layer in bfloat16, for a decoder of width D, H heads of K, G key heads and
feed-forward F.

| name             | kept besides the layer's input                              | bytes                          |
|------------------|-------------------------------------------------------------|--------------------------------|
| `full`           | nothing: the whole layer is computed twice                  | 0                              |
| `save_attention` | queries, keys, values and attention's output                | 2 (2 HK + 2 GK)                |
| `save_dots`      | the outputs of all projections: those, and the MLP's        | 2 (2 HK + 2 GK + 2 D + 2 F)    |
| `none`           | everything, attention's weights and the softmax's terms too | grows with the length of a row |

cuDNN's attention is one operation that returns what its gradient needs. All but `full` keep that: 2 HK + 4 H more.

`save_attention` computes norms, attention scores and the MLP again. `save_dots` computes norms, scores and activations
again; the only matrix products among these are those of attention itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from flan_jax.lazy import lazy_imports

with lazy_imports():  # a command line only needs the names
    import jax

# Names that layers give to these arrays for the policies.
QUERY, KEY, VALUE, MIXED = ATTENTION = ("query", "key", "value", "mixed")


def _by_cudnn(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether this is cuDNN's attention, which JAX cannot name. Its gradient needs its output and its sums."""
    return primitive.name == "dot_product_attention_fwd_wrapper"


def _either(*policies: Callable[..., Any]) -> Callable[..., Any]:
    return jax.checkpoint_policies.save_from_both_policies(*policies)


def _named(*names: str) -> Callable[..., Any]:
    return _either(jax.checkpoint_policies.save_only_these_names(*names), _by_cudnn)


POLICIES: dict[str, Callable[[], Callable[..., Any] | None]] = {
    "full": lambda: jax.checkpoint_policies.nothing_saveable,
    "save_attention": lambda: _named(*ATTENTION),
    # "No batch dimensions" tells projections from the products of queries, keys and values.
    "save_dots": lambda: _either(jax.checkpoint_policies.dots_with_no_batch_dims_saveable, _named(MIXED)),
    "none": lambda: None,
}


@functools.cache
def policy(name: str) -> Callable[..., Any] | None:
    """One of POLICIES, in the form for `jax.checkpoint`; None keeps everything."""
    return POLICIES[name]()

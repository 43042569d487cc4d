"""What the forward pass of a layer keeps for the backward pass, by name.

The input of every layer is always kept. What else is kept costs memory once a layer; what is not is computed again.
Bytes are per slot and layer at bfloat16, for a decoder of width D, H heads of K, G key heads and feed-forward F.

| name             | kept besides the layer's input                              | bytes                          |
|------------------|-------------------------------------------------------------|--------------------------------|
| `full`           | nothing: the whole layer is computed twice                  | 0                              |
| `save_attention` | queries, keys, values and what attention makes of them      | 2 (2 HK + 2 GK)                |
| `save_dots`      | the outputs of all projections: those, and the MLP's        | 2 (2 HK + 2 GK + 2 D + 2 F)    |
| `none`           | everything, attention's weights and the softmax's terms too | grows with the length of a row |

cuDNN's attention is one operation that gives back what its gradient needs; all but `full` keep that: 2 HK + 4 H more.

`save_attention` computes norms, the attention's scores and the MLP again; `save_dots` norms, scores and activations,
which is no matrix product but those of attention itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from flan_jax.lazy import lazy_imports

with lazy_imports():  # a command line asks for the names
    import jax

QUERY, KEY, VALUE, MIXED = ATTENTION = ("query", "key", "value", "mixed")  # what layers name for the policies


def _by_cudnn(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether this is cuDNN's attention, which JAX has no name for; its gradient needs its output and its sums."""
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
    """One of POLICIES, as `jax.checkpoint` takes it; None keeps everything."""
    return POLICIES[name]()

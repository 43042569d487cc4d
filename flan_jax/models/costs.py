"""Counts a model's parameters and the multiply-adds that its definition needs. Nothing else counts them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

import jax

from flan_jax.models.config import DecoderConfig
from flan_jax.models.encoder_decoder import build


@dataclasses.dataclass(frozen=True)
class Work:
    """What a model has to compute.

    Attributes:
      slots: slots of the decoder.
      head_slots: slots at which logits are needed.
      pairs: pairs of a slot and a slot that it looks at, in the decoder's self-attention of one layer.
      encoder_slots: slots of the encoder.
      encoder_pairs: such pairs in the encoder's self-attention.
      cross_pairs: pairs of a decoder's slot and an encoder's slot.
    """

    slots: float
    head_slots: float
    pairs: float = 0.0
    encoder_slots: float = 0.0
    encoder_pairs: float = 0.0
    cross_pairs: float = 0.0


@dataclasses.dataclass(frozen=True)
class Products:
    """Multiply-adds of a forward pass.

    Attributes:
      layers: products of slots with weights.
      scores: products of slots with slots, in attention.
      head: products of hidden states with the vocabulary.
    """

    layers: float
    scores: float
    head: float

    @property
    def forward_flops(self) -> float:
        """Floating-point operations of a forward pass: two for each multiply-add."""
        return 2.0 * (self.layers + self.scores + self.head)

    def step_flops(self, trained: Shares | None = None) -> float:
        """Floating-point operations of a training step, without recomputation (Chowdhery et al. 2022, appendix B).

        The backward pass has two products for each one of the forward pass: one for the gradient of the input, and one
        for the gradient of the weights, which only trained weights need.

        Args:
          trained: the trained share; None for everything.
        """
        if trained is None:
            return 3.0 * self.forward_flops
        # If nothing below the head is trained, no input needs a gradient. Scores have two inputs and no weights.
        inputs = 2.0 * (self.layers + 2.0 * self.scores + self.head) * trained.below_head
        return self.forward_flops + inputs + 2.0 * (self.layers * trained.layers + self.head * trained.head)


@dataclasses.dataclass(frozen=True)
class Shares:
    """The share of a model's weights that is trained.

    Attributes:
      layers: the trained share of the weights in its layers' products.
      head: 1 if the LM head is trained.
      below_head: whether anything below the head is trained.
    """

    layers: float
    head: float
    below_head: bool


def products(config: DecoderConfig, work: Work) -> Products:
    """Multiply-adds of a forward pass. Embeddings are looked up, not multiplied."""
    c = config
    width, kv_width = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    # With the output projection, and with the values.
    queries, keys = 2 * c.embed_dim * width, 2 * c.embed_dim * kv_width
    layer = queries + keys + 3 * c.embed_dim * c.mlp_dim
    layers = c.num_layers * layer * work.slots
    pairs = c.num_layers * work.pairs
    if c.num_encoder_layers:
        layers += c.num_encoder_layers * layer * work.encoder_slots
        layers += c.num_layers * (queries * work.slots + keys * work.encoder_slots)
        pairs += c.num_encoder_layers * work.encoder_pairs + c.num_layers * work.cross_pairs
    return Products(layers, 2.0 * width * pairs, c.embed_dim * c.vocab_size * work.head_slots)


def parameters(config: DecoderConfig) -> int:
    """The number of a model's parameters."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(build(config).abstract_params()))


def shares(config: DecoderConfig, trained: Collection[tuple[str, ...]]) -> Shares:
    """The share of a model's weights that is trained.

    Args:
      config: the model.
      trained: the paths of the trained parameters.
    """
    head = "token_embedder" if config.tied_embeddings else "logits_dense"
    of_layers = {True: 0, False: 0}
    for path, x in jax.tree_util.tree_leaves_with_path(build(config).abstract_params()):
        names = tuple(part.key for part in path)
        if "layers" in names and names[-1] == "kernel":
            of_layers[names in trained] += math.prod(x.shape)
    is_head = [head in path for path in trained]
    return Shares(
        of_layers[True] / sum(of_layers.values()),
        float(any(is_head)),
        not all(is_head) or config.tied_embeddings,
    )

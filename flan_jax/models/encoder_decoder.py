"""T5 1.1: an encoder, and a decoder that looks at it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from flan_jax import partitioning
from flan_jax.models.attention import Slots
from flan_jax.models.cache import Cache
from flan_jax.models.config import DecoderConfig
from flan_jax.models.decoder import Decoder, Model, TokenEmbedder, cast_layers
from flan_jax.models.dropout import ATTENDED, EMBEDDING, ENCODER, FED, FINAL, LAYERS, Dropout, dropped
from flan_jax.models.layers import BETWEEN, Attention, Memory, Mlp, RelativeBias, RMSNorm, stacked


class EncoderLayer(nn.Module):
    """One layer, in the form for `nn.scan`: (carry, per-layer input, constants) -> (carry, None)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, number: Any, constants: tuple) -> tuple[jax.Array, None]:
        """[B, L, D] -> [B, L, D]."""
        c = self.config
        norm = functools.partial(RMSNorm, c.norm_epsilon)
        slots, bias, dropout = constants
        dropout = dropout and dropout.within(number)
        x_BxLxD = partitioning.constrain(x_BxLxD, BETWEEN)
        y_BxLxD = norm(name="pre_attention_layer_norm")(x_BxLxD)
        y_BxLxD, _ = Attention(c, causal=False, name="attention")(y_BxLxD, slots, bias=bias, dropout=dropout)
        x_BxLxD += dropped(y_BxLxD, dropout, ATTENDED)
        y_BxLxD = Mlp(c, name="mlp")(norm(name="pre_mlp_layer_norm")(x_BxLxD), dropout)
        return x_BxLxD + dropped(y_BxLxD, dropout, FED), None


class Encoder(nn.Module):
    """Layers that see the whole of their segment, before and after."""

    config: DecoderConfig
    shared_embedder: TokenEmbedder

    def setup(self) -> None:
        """Declares the modules; layers are stacked on axis 0."""
        self.layers = stacked(EncoderLayer, self.config, self.config.num_encoder_layers)
        self.encoder_norm = RMSNorm(self.config.norm_epsilon)
        self.relpos_bias = RelativeBias(self.config, bidirectional=True)

    def __call__(self, tokens: jax.Array, slots: Slots, dropout: Dropout | None = None) -> jax.Array:
        """Computes hidden states [B, S, D] after the final norm, from tokens [B, S]."""
        dropout = dropout and dropout.within(ENCODER)
        x_BxSxD = dropped(self.shared_embedder(tokens), dropout, EMBEDDING)
        numbers_N = dropout and jnp.arange(self.config.num_encoder_layers)
        x_BxSxD, _ = self.layers(
            x_BxSxD, numbers_N, (slots, self.relpos_bias(slots), dropout and dropout.within(LAYERS))
        )
        return dropped(self.encoder_norm(x_BxSxD), dropout, FINAL, shared=())


class _Root(nn.Module):
    """Encoder and decoder, and the embedding that they share."""

    config: DecoderConfig

    def setup(self) -> None:
        """Declares the three modules."""
        self.token_embedder = TokenEmbedder(self.config)
        self.encoder = Encoder(self.config, self.token_embedder)
        self.decoder = Decoder(self.config, self.token_embedder)

    def encode(self, tokens: jax.Array, slots: Slots, dropout: Dropout | None = None) -> jax.Array:
        """See `Encoder.__call__`."""
        return self.encoder(tokens, slots, dropout)

    def hidden(self, tokens: jax.Array, slots: Slots, memory: Memory, dropout: Dropout | None = None) -> jax.Array:
        """See `Decoder.__call__`."""
        return self.decoder(tokens, slots, memory, dropout=dropout)[0]

    def extend(self, tokens: jax.Array, slots: Slots, cache: Cache, memory: Memory | None) -> tuple[jax.Array, Cache]:
        """See `Decoder.__call__`."""
        return self.decoder(tokens, slots, memory, cache)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """See `Decoder.logits`."""
        return self.decoder.logits(hidden)

    def everything(self, tokens: jax.Array) -> jax.Array:
        """Touches every parameter, for initialization."""
        slots = Slots(tokens, tokens)
        return self.logits(self.hidden(tokens, slots, Memory(self.encode(tokens, slots), slots)))


@dataclasses.dataclass(frozen=True)
class EncoderDecoder(Model):
    """An encoder-decoder as functions of its parameters, which are a nested dict with T5X's paths.

    Rows are packed on both sides. A decoder's slots look at the encoder's slots with the same row and segment number.
    So one prompt is encoded once for any number of options, which are branches of one segment of the decoder.
    """

    _root: ClassVar[type[nn.Module]] = _Root

    def encode(
        self,
        params: Any,
        tokens_BxS: jax.Array,
        positions_BxS: jax.Array,
        segments_BxS: jax.Array,
        *,
        dropout: Dropout | None = None,
    ) -> Memory:
        """Computes what the decoder looks at.

        Args:
          params: the parameters.
          tokens_BxS: token ids.
          positions_BxS: positions within each segment.
          segments_BxS: segment numbers; 0 is padding. Slots see only their own segment.
          dropout: dropout of a training step; None drops nothing.
        """
        slots = Slots(positions_BxS, segments_BxS)
        hidden_BxSxD = _Root(self.config).apply(
            {"params": cast_layers(params, self.config.dtype)}, tokens_BxS, slots, dropout, method="encode"
        )
        return Memory(hidden_BxSxD, slots)

    def hidden(
        self,
        params: Any,
        tokens_BxL: jax.Array,
        positions_BxL: jax.Array,
        segments_BxL: jax.Array,
        branches_BxL: jax.Array | None = None,
        *,
        memory: Memory,
        dropout: Dropout | None = None,
    ) -> jax.Array:
        """Hidden states [B, L, D] of the decoder after its final norm.

        Args:
          params: the parameters.
          tokens_BxL: the decoder's token ids. A sequence starts with the token before its first one (T5: id 0).
          positions_BxL: positions within each segment.
          segments_BxL: segment numbers; 0 is padding. A segment looks at the memory's segment with the same number.
          branches_BxL: 0 is the trunk; None puts all slots on it.
          memory: the result of `encode` for the same rows.
          dropout: dropout of a training step; None drops nothing.
        """
        slots = Slots(positions_BxL, segments_BxL, branches_BxL)
        return _Root(self.config).apply(
            {"params": cast_layers(params, self.config.dtype)}, tokens_BxL, slots, memory, dropout, method="hidden"
        )


def build(config: DecoderConfig) -> Model:
    """The model of a configuration: an `EncoderDecoder` if it has encoder layers, otherwise a `Model`."""
    return EncoderDecoder(config) if config.num_encoder_layers else Model(config)

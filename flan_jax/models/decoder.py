"""The decoder: embedding, scanned layers, final norm, and logits where they are asked for."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from flan_jax import partitioning
from flan_jax.models.attention import Slots, soft_capped
from flan_jax.models.cache import Cache
from flan_jax.models.config import DecoderConfig
from flan_jax.models.dropout import (
    ATTENDED,
    CROSS_ATTENDED,
    DECODER,
    EMBEDDING,
    FED,
    FINAL,
    LAYERS,
    Dropout,
    dropped,
)
from flan_jax.models.layers import (
    BETWEEN,
    WHOLE,
    Attention,
    Keyed,
    Memory,
    Mlp,
    RelativeBias,
    RMSNorm,
    parameter,
    stacked,
)


class DecoderLayer(nn.Module):
    """One layer, in the form for `nn.scan`: (carry, per-layer input, constants) -> (carry, keys and values)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, of_layer: Any, constants: Any) -> tuple[jax.Array, tuple | None]:
        """Computes [B, L, D] -> [B, L, D].

        With cached keys, also returns the layer's own keys and those of the memory.
        """
        c = self.config
        norm = functools.partial(RMSNorm, c.norm_epsilon)
        is_global, cached, remembered, number = of_layer
        slots, bias, memory, cached_slots, memory_slots, dropout = constants
        dropout = dropout and dropout.within(number)
        cached = None if cached is None else Keyed(cached[0], cached[1], cached_slots)
        memory = memory if remembered is None else Keyed(remembered[0], remembered[1], memory_slots)
        x_BxLxD = partitioning.constrain(x_BxLxD, BETWEEN)
        y_BxLxD = norm(name="pre_self_attention_layer_norm")(x_BxLxD) if c.pre_norms else x_BxLxD
        attention = Attention(c, name="self_attention")
        y_BxLxD, own = attention(y_BxLxD, slots, is_global, bias, cached=cached, dropout=dropout)
        if c.post_norms:
            y_BxLxD = norm(name="post_self_attention_layer_norm")(y_BxLxD)
        x_BxLxD += dropped(y_BxLxD, dropout, ATTENDED)
        if memory is not None:
            y_BxLxD = norm(name="pre_cross_attention_layer_norm")(x_BxLxD)
            cross = Attention(c, False, name="encoder_decoder_attention")
            y_BxLxD, projected = cross(y_BxLxD, slots, memory=memory, dropout=dropout)
            remembered = projected if remembered is None else None  # keys that were given are not returned
            x_BxLxD += dropped(y_BxLxD, dropout, CROSS_ATTENDED)
        y_BxLxD = norm(name="pre_mlp_layer_norm")(x_BxLxD) if c.pre_norms else x_BxLxD
        y_BxLxD = Mlp(c, name="mlp")(y_BxLxD, dropout)
        if c.post_norms:
            y_BxLxD = norm(name="post_mlp_layer_norm")(y_BxLxD)
        return x_BxLxD + dropped(y_BxLxD, dropout, FED), None if cached is None else (own, remembered)


class TokenEmbedder(nn.Module):
    """The embedding table. If they are tied, it is the LM head too."""

    config: DecoderConfig

    def setup(self) -> None:
        """Declares the table [V, D]."""
        c = self.config
        shape, axes = (c.vocab_size, c.embed_dim), ("vocab", "embed")
        small = c.scale_embeddings or (c.tied_embeddings and not c.scale_tied_logits)
        std = c.embed_dim**-0.5 if small else 1.0
        self.embedding = parameter(self, "embedding", shape, axes, nn.initializers.normal(std))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Looks up tokens [B, L] -> [B, L, D]. Embeddings [B, L, D] of a soft prompt are returned as they are."""
        c = self.config
        if jnp.issubdtype(tokens.dtype, jnp.floating):
            return tokens.astype(c.dtype)
        embedding = partitioning.constrain(self.embedding, ("vocab", "activation_embed"))
        x_BxLxD = partitioning.constrain(jnp.take(embedding, tokens, axis=0).astype(c.dtype), BETWEEN)
        return x_BxLxD * jnp.asarray(c.embed_dim**0.5, x_BxLxD.dtype) if c.scale_embeddings else x_BxLxD

    def attend(self, hidden: jax.Array) -> jax.Array:
        """hidden [..., D] -> logits [..., V], float32."""
        c = self.config
        if c.scale_tied_logits:
            hidden = hidden * c.embed_dim**-0.5
        embedding = partitioning.constrain(self.embedding.astype(hidden.dtype), ("vocab", "embed"))
        return jnp.einsum("...d,vd->...v", hidden, embedding, preferred_element_type=jnp.float32)


class LogitsDense(nn.Module):
    """An LM head with parameters of its own."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """hidden [..., D] -> logits [..., V], float32."""
        c = self.config
        init = nn.initializers.normal(c.embed_dim**-0.5)
        kernel = parameter(self, "kernel", (c.embed_dim, c.vocab_size), ("embed", "vocab"), init)
        kernel = partitioning.constrain(kernel.astype(hidden.dtype), ("embed", "vocab"))
        return jnp.einsum("...d,dv->...v", hidden, kernel, preferred_element_type=jnp.float32)


class Decoder(nn.Module):
    """The decoder of `Model`, and of an encoder-decoder, where it shares the encoder's embedding."""

    config: DecoderConfig
    shared_embedder: TokenEmbedder | None = None

    def setup(self) -> None:
        """Declares the modules; layers are stacked on axis 0."""
        c = self.config
        if self.shared_embedder is None:
            self.token_embedder = TokenEmbedder(c)
        self.layers = stacked(DecoderLayer, c, c.num_layers)
        self.decoder_norm = RMSNorm(c.norm_epsilon)
        if c.positions == "relative_bias":
            self.relpos_bias = RelativeBias(c)
        if not c.tied_embeddings:
            self.logits_dense = LogitsDense(c)

    def _embedder(self) -> TokenEmbedder:
        return self.token_embedder if self.shared_embedder is None else self.shared_embedder

    def __call__(
        self,
        tokens: jax.Array,
        slots: Slots,
        memory: Memory | None = None,
        cache: Cache | None = None,
        dropout: Dropout | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Computes hidden states [B, L, D] after the final norm, from tokens [B, L].

        With a memory, the layers look at it. With a cache, its slots come before these; the keys and values of these
        slots are then returned as another cache.
        """
        bias = self.relpos_bias(slots) if self.config.positions == "relative_bias" else None
        dropout = dropout and dropout.within(DECODER)
        x_BxLxD = dropped(self._embedder()(tokens), dropout, EMBEDDING)
        is_global_N = jnp.asarray(self.config.global_layers)
        cached, remembered = (None, None) if cache is None else (cache, cache.memory)
        of_layers = (is_global_N, cached and (cached.keys, cached.values), remembered and remembered[:2])
        of_layers += (dropout and jnp.arange(self.config.num_layers),)
        constants = (slots, bias, memory, cached and cached.slots, remembered and remembered.slots)
        constants += (dropout and dropout.within(LAYERS),)
        x_BxLxD, computed = self.layers(x_BxLxD, of_layers, constants)
        if computed is not None:
            own, remembered = computed
            of_memory = cache.memory if remembered is None else Cache(remembered[0], remembered[1], memory.slots)
            computed = Cache(own[0], own[1], slots, of_memory)
        return partitioning.constrain(dropped(self.decoder_norm(x_BxLxD), dropout, FINAL), WHOLE), computed

    def logits(self, hidden: jax.Array) -> jax.Array:
        """hidden [..., D] -> logits [..., V], float32."""
        c = self.config
        logits = self._embedder().attend(hidden) if c.tied_embeddings else self.logits_dense(hidden)
        return soft_capped(logits, c.logits_softcap)


class _Root(nn.Module):
    """Puts everything under `decoder`, as T5X does."""

    config: DecoderConfig

    def setup(self) -> None:
        """Declares the decoder."""
        self.decoder = Decoder(self.config)

    def hidden(self, tokens: jax.Array, slots: Slots, dropout: Dropout | None = None) -> jax.Array:
        """See `Decoder.__call__`."""
        return self.decoder(tokens, slots, dropout=dropout)[0]

    def extend(self, tokens: jax.Array, slots: Slots, cache: Cache, memory: None) -> tuple[jax.Array, Cache]:
        """See `Decoder.__call__`."""
        return self.decoder(tokens, slots, memory, cache)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """See `Decoder.logits`."""
        return self.decoder.logits(hidden)

    def everything(self, tokens: jax.Array) -> jax.Array:
        """Touches every parameter, for initialization."""
        return self.logits(self.hidden(tokens, Slots(tokens, tokens)))


def cast_layers(params: Any, dtype: str) -> Any:
    """Casts the kernels of stacked layers to the dtype of the computation.

    They are cast once for all layers. So their gradients leave the loop over layers in that dtype, with half the bytes
    in bfloat16, and the loop itself casts nothing.
    """

    def cast(path: Any, x: jax.Array) -> jax.Array:
        names = [getattr(part, "key", None) for part in path]
        return x.astype(dtype) if "layers" in names and names[-1] == "kernel" else x

    return jax.tree_util.tree_map_with_path(cast, params)


@dataclasses.dataclass(frozen=True)
class Model:
    """A decoder as functions of its parameters, which are a nested dict with T5X's paths.

    `flan_jax.models.attention` says which slots see each other.
    """

    config: DecoderConfig
    _root: ClassVar[type[nn.Module]] = _Root

    def init(self, rng: jax.Array) -> dict[str, Any]:
        """Random float32 parameters."""
        return nn.unbox(self._boxed(rng))

    def abstract_params(self) -> dict[str, Any]:
        """The tree of parameters as shapes and dtypes."""
        return jax.tree.map(lambda x: x, _shapes(self))  # a copy, because callers may change theirs

    def logical_axes(self) -> dict[str, Any]:
        """The tree of parameters as tuples of logical axis names."""
        return jax.tree.map(lambda box: tuple(box.names), _boxes(self), is_leaf=_is_box)

    def hidden(
        self,
        params: Any,
        tokens_BxL: jax.Array,
        positions_BxL: jax.Array,
        segments_BxL: jax.Array,
        branches_BxL: jax.Array | None = None,
        *,
        dropout: Dropout | None = None,
    ) -> jax.Array:
        """Hidden states [B, L, D] after the final norm.

        Args:
          params: the parameters.
          tokens_BxL: token ids.
          positions_BxL: positions within each segment.
          segments_BxL: segment numbers; 0 is padding. Slots see only their own segment.
          branches_BxL: 0 is the trunk; None puts all slots on it.
          dropout: dropout of a training step; None drops nothing.
        """
        slots = Slots(positions_BxL, segments_BxL, branches_BxL)
        params = cast_layers(params, self.config.dtype)
        return _Root(self.config).apply({"params": params}, tokens_BxL, slots, dropout, method="hidden")

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
        """Like `hidden`, for slots that come after those of a cache.

        Args:
          params: the parameters.
          tokens_BxL: token ids.
          positions_BxL: positions within each segment; they continue those of the cache.
          segments_BxL: segment numbers; 0 is padding. Slots see their own segment, in the cache too, and the cache's
            segment `EVERY`.
          branches_BxL: 0 is the trunk; None puts all slots on it.
          cache: what came before, in B rows, or in one row for all of them; None for nothing.
          memory: for an encoder-decoder, the result of `encode`, unless the cache has its keys from an earlier call.

        Returns:
          (hidden [B, L, D], the cache of these slots alone, with the memory's keys); see `Cache.written`.
        """
        branches_BxL = jnp.zeros_like(segments_BxL) if branches_BxL is None else branches_BxL
        slots = Slots(positions_BxL, segments_BxL, branches_BxL)
        cache = Cache.empty(self.config, tokens_BxL.shape[0]) if cache is None else cache
        return self._root(self.config).apply({"params": params}, tokens_BxL, slots, cache, memory, method="extend")

    def logits(self, params: Any, hidden: jax.Array) -> jax.Array:
        """The logits [..., V] in float32 for hidden states [..., D]."""
        return self._root(self.config).apply({"params": params}, hidden, method="logits")

    def head(self, params: Any) -> dict[str, Any]:
        """The part of the parameters that `logits` needs, as a tree that it takes."""
        name = "token_embedder" if self.config.tied_embeddings else "logits_dense"
        if name in params:  # the embedding of an encoder-decoder
            return {name: params[name]}
        return {"decoder": {name: params["decoder"][name]}}

    def _boxed(self, rng: jax.Array) -> Any:
        tokens = jnp.zeros((1, 1), jnp.int32)
        return self._root(self.config).init(rng, tokens, method="everything")["params"]


def _is_box(x: Any) -> bool:
    return isinstance(x, nn.Partitioned)


# A start of training asks seven times, and would trace the whole model each time. Callers must not change the results.
@functools.lru_cache(maxsize=16)
def _shapes(model: Model) -> dict[str, Any]:
    """The tree of parameters as shapes, for whatever the model's `init` makes."""
    return jax.eval_shape(model.init, jax.random.key(0))


@functools.lru_cache(maxsize=16)
def _boxes(model: Model) -> dict[str, Any]:
    """The tree of the modules' parameters as shapes, in boxes that name their axes."""
    return jax.eval_shape(model._boxed, jax.random.key(0))

"""The shape of a decoder, and the shapes that have names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from flan_jax.errors import FlanError, unknown_name


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """One decoder covers LaMDA-PT, Llama and Gemma 3 by these fields.

    Attributes:
      vocab_size: V, rows of the embedding.
      num_layers: N.
      embed_dim: D.
      num_heads: H, query heads.
      num_kv_heads: G, key and value heads; H is a multiple of it.
      head_dim: K.
      mlp_dim: F.
      activation: "silu" or "gelu" (tanh approximation), of the gate.
      positions: "rope", or "relative_bias" (T5's, one table for all layers).
      rope_theta: base of the rotary wavelengths, in global layers.
      local_rope_theta: the same in local layers; unused without a window.
      window: positions that a local layer sees back, itself included; 0 for none.
      global_every: every so-manieth layer is global; 0 makes all global.
      qk_norm: normalise queries and keys a head (Gemma 3).
      post_norms: normalise the output of attention and MLP too (Gemma 3).
      scale_embeddings: multiply embeddings by sqrt(D) (Gemma).
      tied_embeddings: the LM head is the embedding.
      norm_epsilon: of every RMS norm.
      attention_scale: factor of the queries; None is 1/sqrt(K).
      relative_buckets: buckets of the relative bias.
      relative_max_distance: distance from which on all share the last bucket.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      remat: "none" keeps every activation, "full" recomputes each layer in the backward pass.
      attention_block: queries a block of the causal attention.
    """

    vocab_size: int
    num_layers: int
    embed_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    activation: str = "silu"
    positions: str = "rope"
    rope_theta: float = 10_000.0
    local_rope_theta: float = 10_000.0
    window: int = 0
    global_every: int = 0
    qk_norm: bool = False
    post_norms: bool = False
    scale_embeddings: bool = False
    tied_embeddings: bool = True
    norm_epsilon: float = 1e-6
    attention_scale: float | None = None
    relative_buckets: int = 32
    relative_max_distance: int = 128
    dtype: str = "float32"
    remat: str = "full"
    attention_block: int = 256

    def __post_init__(self) -> None:
        for name, allowed in (
            ("activation", ("silu", "gelu")),
            ("positions", ("rope", "relative_bias")),
            ("dtype", ("float32", "bfloat16")),
            ("remat", ("none", "full")),
        ):
            if getattr(self, name) not in allowed:
                raise FlanError(f"DecoderConfig.{name} is {getattr(self, name)!r}; it can be {' or '.join(allowed)}.")
        if self.num_heads % self.num_kv_heads:
            raise FlanError(f"num_heads {self.num_heads} is no multiple of num_kv_heads {self.num_kv_heads}.")

    @property
    def global_layers(self) -> tuple[bool, ...]:
        """Which layers see everything before them."""
        if not self.window or not self.global_every:
            return (True,) * self.num_layers
        return tuple((i + 1) % self.global_every == 0 for i in range(self.num_layers))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DecoderConfig:
        """From what `to_dict` gave.

        Raises:
          FlanError: a field is missing or unknown.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise FlanError(f"the model's configuration does not fit this version of FLAN-JAX: {error}.") from error


PRESETS = {
    "gemma3_270m": DecoderConfig(
        vocab_size=262_144,
        num_layers=18,
        embed_dim=640,
        num_heads=4,
        num_kv_heads=1,
        head_dim=256,
        mlp_dim=2048,
        activation="gelu",
        rope_theta=1e6,
        local_rope_theta=1e4,
        window=512,
        global_every=6,
        qk_norm=True,
        post_norms=True,
        scale_embeddings=True,
        attention_scale=256**-0.5,
    ),
    "smollm2_135m": DecoderConfig(
        vocab_size=49_152,
        num_layers=30,
        embed_dim=576,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        mlp_dim=1536,
        rope_theta=1e5,
        norm_epsilon=1e-5,
    ),
    "tiny": DecoderConfig(
        vocab_size=384,
        num_layers=3,
        embed_dim=128,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        mlp_dim=384,
    ),
}


def preset(name: str) -> DecoderConfig:
    """The shape of that name.

    Raises:
      FlanError: there is none; the message has near matches.
    """
    if name not in PRESETS:
        raise unknown_name("model", name, PRESETS)
    return PRESETS[name]

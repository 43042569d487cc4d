"""The shape of a model. Shapes that have names are in `gin/models/`; see `flan_jax.configuration.model_config`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from flan_jax.errors import FlanError
from flan_jax.models.remat import POLICIES
from flan_jax.values import Kind, Number, Switch, Whole, checked

ATTENTION_BLOCK = 256  # queries a block, unless a model says otherwise

# How a model is computed, not what it is.
COMPUTATION = ("dtype", "remat", "attention", "attention_block", "head_chunk", "unroll")
AUTO = "auto"  # what some of them can be in COMPUTATION, for `models.automatic` to choose
AUTOMATIC = ("dtype", "attention", "remat", "head_chunk")

CHOICES: dict[str, tuple[str, ...]] = {
    "activation": ("silu", "gelu"),
    "positions": ("rope", "relative_bias"),
    "dtype": ("float32", "bfloat16"),
    "rope_scaling": ("none", "linear", "llama3"),
    "remat": tuple(POLICIES),
    "attention": ("xla", "segments", "splash", "cudnn"),
}
# By the annotation of a field, and by its name where zero or less says something; without a default, 1 or more.
_KINDS: dict[str, Kind] = {"int": Whole(0), "bool": Switch(), "float": Number(above=0)}
_OWN_KINDS: dict[str, Kind] = {
    "global_every": Whole(-1),
    "attention_softcap": Number(least=0),
    "logits_softcap": Number(least=0),
}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """LaMDA-PT, Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3, OLMo 2 and T5 1.1 by these fields; with encoder layers, an
    encoder-decoder.

    Attributes:
      vocab_size: V, rows of the embedding.
      num_layers: N, of the decoder.
      embed_dim: D.
      num_heads: H, query heads.
      num_kv_heads: G, key and value heads; H is a multiple of it.
      head_dim: K.
      mlp_dim: F.
      activation: "silu" or "gelu" (tanh approximation), of the gate.
      positions: "rope", or "relative_bias" (T5's, one table for all layers).
      num_encoder_layers: 0 is a decoder alone. An encoder has the decoder's other dimensions and relative biases.
      rope_theta: base of the rotary wavelengths, in global layers.
      local_rope_theta: the same in local layers, which are then not scaled (Gemma 3); None rotates them as global ones.
        Unused without a window.
      rope_scaling: "none", "linear" (Gemma 3) or "llama3", of the wavelengths in global layers; see `rotary`.
      rope_scaling_factor: how often longer the scaled wavelengths are.
      rope_low_frequency_factor: of "llama3": wavelengths longer than the original length over it are scaled in full.
      rope_high_frequency_factor: of "llama3": those shorter than the original length over it are not.
      rope_original_length: of "llama3": positions before the scaling.
      window: positions that a local layer sees back, itself included; 0 for none.
      global_every: every so-manieth layer is global; 0 makes all global, -1 none (Mistral).
      global_first: so many layers at the start are global in any case (Qwen 2 and 3 with a window).
      qkv_bias: add a bias to queries, keys and values (Qwen 2).
      qk_norm: normalise queries and keys a head (Gemma 3, Qwen 3).
      qk_norm_across_heads: with `qk_norm`, normalise all heads of a position at once (OLMo 2).
      pre_norms: normalise the input of attention and MLP (all but OLMo 2).
      post_norms: normalise the output of attention and MLP (OLMo 2), or that too (Gemma 2 and 3).
      scale_embeddings: multiply embeddings by sqrt(D) (Gemma).
      tied_embeddings: the LM head is the embedding.
      scale_tied_logits: a tied head takes hidden states divided by sqrt(D) (T5, T5X).
      norm_epsilon: of every RMS norm.
      attention_scale: factor of the queries; None is 1/sqrt(K), T5 has 1.
      attention_softcap: c of c tanh(score / c), which keeps attention's scores within it (Gemma 2); 0 for none.
      logits_softcap: the same of the logits (Gemma 2).
      relative_buckets: buckets of the relative bias.
      relative_max_distance: distance from which on all share the last bucket.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      remat: what layers keep for the backward pass: "full" (nothing), "save_attention", "save_dots" or "none"
        (everything); see `flan_jax.models.remat`.
      attention: how self-attention is computed: "xla" or "segments" anywhere, "splash" on TPU, "cudnn" on GPU; see
        `flan_jax.models.attention_switch`.
      attention_block: queries a block of the attention "xla" and "segments".
      head_chunk: target slots of each row whose logits are alive at once in training, but no fewer than 256 of all rows
        of a device. Each chunk adds a gradient as large as the head, and devices that share the parameters communicate
        in each; chunks without targets are left out. Where memory allows, all in one is fastest on GPU.
      unroll: straight-line code instead of loops, so that a compiler counts every layer; slow to compile.
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
    num_encoder_layers: int = 0
    rope_theta: float = 10_000.0
    local_rope_theta: float | None = 10_000.0
    rope_scaling: str = "none"
    rope_scaling_factor: float = 1.0
    rope_low_frequency_factor: float = 1.0
    rope_high_frequency_factor: float = 4.0
    rope_original_length: int = 8192
    window: int = 0
    global_every: int = 0
    global_first: int = 0
    qkv_bias: bool = False
    qk_norm: bool = False
    qk_norm_across_heads: bool = False
    pre_norms: bool = True
    post_norms: bool = False
    scale_embeddings: bool = False
    tied_embeddings: bool = True
    scale_tied_logits: bool = False
    norm_epsilon: float = 1e-6
    attention_scale: float | None = None
    attention_softcap: float = 0.0
    logits_softcap: float = 0.0
    relative_buckets: int = 32
    relative_max_distance: int = 128
    dtype: str = "float32"
    remat: str = "full"
    attention: str = "xla"
    attention_block: int = ATTENTION_BLOCK
    head_chunk: int = 64
    unroll: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            kind = _OWN_KINDS.get(field.name, _KINDS.get(str(field.type).removesuffix(" | None")))
            value = getattr(self, field.name)
            if kind is not None and not (value is None and "None" in str(field.type)):
                required = field.default is dataclasses.MISSING or field.name in ("attention_block", "head_chunk")
                checked(f"DecoderConfig.{field.name}", Whole(1) if required else kind, value)
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise FlanError(f"DecoderConfig.{name} is {getattr(self, name)!r}; it can be {' or '.join(allowed)}.")
        if self.num_heads % self.num_kv_heads:
            raise FlanError(f"num_heads {self.num_heads} is no multiple of num_kv_heads {self.num_kv_heads}.")
        if self.attention not in ("xla", "segments") and self.positions == "relative_bias":
            raise FlanError(f"DecoderConfig.attention {self.attention!r} takes no relative bias: leave it at 'xla'.")
        if self.attention == "cudnn" and self.dtype != "bfloat16":
            raise FlanError(
                "DecoderConfig.attention 'cudnn' computes in bfloat16: set dtype='bfloat16' or another one."
            )
        if self.num_encoder_layers and self.positions != "relative_bias":
            raise FlanError("DecoderConfig: with num_encoder_layers, positions has to be 'relative_bias'.")
        if self.positions == "rope" and self.head_dim % 2:
            raise FlanError(f"DecoderConfig.head_dim is {self.head_dim}: rotary positions turn pairs, so make it even.")
        if not (self.pre_norms or self.post_norms):
            raise FlanError("DecoderConfig: without pre_norms, post_norms has to be True: layers need one of them.")
        if self.qk_norm_across_heads and not self.qk_norm:
            raise FlanError("DecoderConfig.qk_norm_across_heads says how qk_norm is done: set that to True as well.")
        if self.num_encoder_layers and not (self.pre_norms and not self.post_norms):
            raise FlanError("DecoderConfig: an encoder-decoder has pre_norms and no post_norms.")
        if self.attention_softcap and self.attention == "cudnn":
            raise FlanError("DecoderConfig.attention 'cudnn' takes no attention_softcap: set attention='xla'.")
        if self.attention_softcap and self.positions == "relative_bias":
            raise FlanError("DecoderConfig.attention_softcap does not go with relative biases: leave it at 0.")

    @property
    def global_layers(self) -> tuple[bool, ...]:
        """Which layers see everything before them."""
        if not self.window or not self.global_every:
            return (True,) * self.num_layers
        every = self.global_every if self.global_every > 0 else self.num_layers + 1
        return tuple(i < self.global_first or (i + 1) % every == 0 for i in range(self.num_layers))

    @property
    def is_for_cpu(self) -> bool:
        """Whether it is computed as suits one CPU device: by `segments`, projections of one input as one product."""
        return self.attention == "segments"

    def computed(self, **how: Any) -> DecoderConfig:
        """The same model computed in another way: other values of `COMPUTATION`.

        Raises:
          FlanError: a field that would make it another model.
        """
        for name in how:
            if name not in COMPUTATION:
                raise FlanError(f"{name} is no way to compute a model: give some of {', '.join(COMPUTATION)}.")
        return dataclasses.replace(self, **how)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DecoderConfig:
        """From what `to_dict` gave; a field that an older manifest lacks has its default.

        Raises:
          FlanError: a field is missing or unknown.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise FlanError(f"the model's configuration does not fit this version of FLAN-JAX: {error}.") from error

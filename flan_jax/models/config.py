"""The shape of a model. `gin/models/` has shapes by name; see `flan_jax.configuration.model_config`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from flan_jax.errors import FlanError
from flan_jax.models.remat import POLICIES
from flan_jax.values import Kind, Number, Switch, Whole, checked

ATTENTION_BLOCK = 256  # queries in a block, unless a model says otherwise

# Fields that say how a model is computed, not what it is.
COMPUTATION = ("dtype", "remat", "attention", "attention_block", "head_chunk", "unroll")
AUTO = "auto"  # a value that some of them can have in COMPUTATION; `models.automatic` then chooses
AUTOMATIC = ("dtype", "attention", "remat", "head_chunk")

CHOICES: dict[str, tuple[str, ...]] = {
    "activation": ("silu", "gelu"),
    "positions": ("rope", "relative_bias"),
    "dtype": ("float32", "bfloat16"),
    "rope_scaling": ("none", "linear", "llama3"),
    "remat": tuple(POLICIES),
    "attention": ("xla", "segments", "splash", "cudnn"),
}
# The kind of a field by its type, and by its name if 0 or less has a meaning. A field without a default must be 1 or
# more.
_KINDS: dict[str, Kind] = {"int": Whole(0), "bool": Switch(), "float": Number(above=0)}
_OWN_KINDS: dict[str, Kind] = {
    "global_every": Whole(-1),
    "attention_softcap": Number(least=0),
    "logits_softcap": Number(least=0),
}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder, or of an encoder-decoder if it has encoder layers.

    Its fields cover LaMDA-PT, Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3, OLMo 2 and T5 1.1.

    Attributes:
      vocab_size: V, the number of rows of the embedding.
      num_layers: N, the number of the decoder's layers.
      embed_dim: D.
      num_heads: H, the number of query heads.
      num_kv_heads: G, the number of key and value heads; H is a multiple of it.
      head_dim: K.
      mlp_dim: F.
      activation: "silu" or "gelu" (tanh approximation), of the gate.
      positions: "rope", or "relative_bias" (T5's, one table for all layers).
      num_encoder_layers: 0 for a decoder alone. An encoder has the decoder's other dimensions, and relative biases.
      rope_theta: base of the rotary wavelengths in global layers.
      local_rope_theta: base in local layers, which are then not scaled (Gemma 3). None rotates them like global layers.
        Not used without a window.
      rope_scaling: scaling of the wavelengths in global layers: "none", "linear" (Gemma 3) or "llama3"; see `rotary`.
      rope_scaling_factor: factor by which scaled wavelengths are longer.
      rope_low_frequency_factor: for "llama3": wavelengths longer than the original length divided by it are fully
        scaled.
      rope_high_frequency_factor: for "llama3": wavelengths shorter than the original length divided by it are not
        scaled.
      rope_original_length: for "llama3": number of positions before the scaling.
      window: how many positions a local layer sees back, itself included; 0 for none.
      global_every: every layer with a number that is a multiple of it is global; 0 makes all layers global, -1 none
        (Mistral).
      global_first: the first so many layers are always global (Qwen 2 and 3 with a window).
      qkv_bias: whether queries, keys and values have a bias (Qwen 2).
      qk_norm: whether the queries and keys of each head are normalised (Gemma 3, Qwen 3).
      qk_norm_across_heads: with `qk_norm`, whether all heads of a position are normalised together (OLMo 2).
      pre_norms: whether the input of attention and MLP is normalised (all but OLMo 2).
      post_norms: whether the output of attention and MLP is normalised (OLMo 2; in Gemma 2 and 3 besides the input).
      scale_embeddings: whether embeddings are multiplied by sqrt(D) (Gemma).
      tied_embeddings: whether the LM head is the embedding.
      scale_tied_logits: whether hidden states are divided by sqrt(D) before a tied head (T5, T5X).
      norm_epsilon: epsilon of every RMS norm.
      attention_scale: factor of the queries; None is 1/sqrt(K), T5 has 1.
      attention_softcap: c in c tanh(score / c), which bounds attention scores (Gemma 2); 0 for none.
      logits_softcap: the same for the logits (Gemma 2).
      relative_buckets: number of buckets of the relative bias.
      relative_max_distance: from this distance on, all keys are in the last bucket.
      dtype: dtype of the computation, "float32" or "bfloat16"; parameters are float32.
      remat: what layers keep for the backward pass: "full" (nothing), "save_attention", "save_dots" or "none"
        (everything); see `flan_jax.models.remat`.
      attention: how self-attention is computed: "xla" or "segments" anywhere, "splash" on TPU, "cudnn" on GPU; see
        `flan_jax.models.attention_switch`.
      attention_block: queries in a block of the attention "xla" and "segments".
      head_chunk: target slots of each row whose logits exist at one time in training, but at least 256 of all rows of a
        device. Each chunk adds a gradient as large as the head, and devices that share the parameters communicate in
        each. Chunks without targets are skipped. If memory allows, one chunk for all is fastest on GPU.
      unroll: whether to write loops as straight-line code, so that a compiler counts every layer. Slow to compile.
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
        """Which layers are global: they see everything before them."""
        if not self.window or not self.global_every:
            return (True,) * self.num_layers
        every = self.global_every if self.global_every > 0 else self.num_layers + 1
        return tuple(i < self.global_first or (i + 1) % every == 0 for i in range(self.num_layers))

    @property
    def is_for_cpu(self) -> bool:
        """Whether it is computed in the way for one CPU device.

        That is with `segments`, and with projections of one input as one product.
        """
        return self.attention == "segments"

    def computed(self, **how: Any) -> DecoderConfig:
        """The same model, computed with other values of `COMPUTATION`.

        Raises:
          FlanError: a field that would make it another model.
        """
        for name in how:
            if name not in COMPUTATION:
                raise FlanError(f"{name} is no way to compute a model: give some of {', '.join(COMPUTATION)}.")
        return dataclasses.replace(self, **how)

    def to_dict(self) -> dict[str, Any]:
        """The shape as values that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DecoderConfig:
        """Reads what `to_dict` gave. A field that an older manifest lacks has its default.

        Raises:
          FlanError: a field is missing or unknown.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise FlanError(f"the model's configuration does not fit this version of FLAN-JAX: {error}.") from error

"""config.json of transformers, both ways. What would change the computation and is not covered here is refused."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.models import DecoderConfig

LLAMA, GEMMA3, GEMMA3_MULTIMODAL, QWEN3, T5 = "llama", "gemma3_text", "gemma3", "qwen3", "t5"
FAMILIES = (LLAMA, GEMMA3, GEMMA3_MULTIMODAL, QWEN3, T5)

# What transformers takes where a file is silent.
_DEFAULTS: dict[str, dict[str, Any]] = {
    LLAMA: {"vocab_size": 32_000, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "hidden_act": "silu"},
    QWEN3: {
        "vocab_size": 151_936,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "head_dim": 128,
    },
    GEMMA3: {
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "rope_theta": 1e6,
    },
    T5: {
        "vocab_size": 32_128,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "relu",
    },
}

# What says nothing of how logits are computed from weights, or only what is checked elsewhere.
_NO_PART = (
    "architectures model_type torch_dtype dtype transformers_version use_cache bos_token_id eos_token_id pad_token_id "
    "decoder_start_token_id max_position_embeddings n_positions initializer_range initializer_factor attention_dropout "
    "dropout_rate classifier_dropout pretraining_tp cache_implementation task_specific_params is_encoder_decoder "
    "output_past max_window_layers is_llama_config id2label label2id problem_type return_dict chunk_size_feed_forward "
    "unsloth_version unsloth_fixed is_decoder"
)
_MAX_POSITIONS = 8192  # what tools of the ecosystem cut texts at; a rotary or relative model has no such number


class _Fields:
    """Fields of a file; those that nobody asked for are found at the end."""

    def __init__(self, values: Mapping[str, Any], family: str, path: str) -> None:
        self._values, self._path = {**_DEFAULTS[family], **values}, path
        self._unread = set(values)

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        self._unread.discard(name)
        value = self._values.get(name)
        return default if value is None else value

    def need(self, name: str) -> Any:
        value = self.get(name)
        if value is None:
            raise FlanError(f"{self._path} lacks the field {name}; get the file again from where it came.")
        return value

    def only(self, name: str, *covered: Any) -> Any:
        """The value, which has to be one of `covered`; the first is the default."""
        value = self.get(name, covered[0])
        if value not in covered:
            raise self.refusal(name, value)
        return value

    def refusal(self, name: str, value: Any) -> FlanError:
        return FlanError(f"{self._path}: {name} is {value!r}, which is not covered: this variant cannot be converted.")

    def finish(self) -> None:
        for name in sorted(self._unread - set(_NO_PART.split())):
            if self._values[name] and not name.startswith(("_", "transformers.")):
                raise FlanError(
                    f"{self._path}: the field {name} ({str(self._values[name])[:60]!r}) is unknown here and may change "
                    "the computation; remove it if it does not."
                )


def read(values: Mapping[str, Any], tensors: Collection[str], path: str) -> tuple[str, DecoderConfig]:
    """The family and the shape that a config.json names.

    Args:
      values: its content.
      tensors: names of the weights, which say whether T5 has a head of its own.
      path: the file, for errors.

    Raises:
      FlanError: a family, a variant or a field that is not covered.
    """
    family = values.get("model_type")
    if family not in FAMILIES:
        raise FlanError(f"{path}: model_type is {family!r}; llama, gemma3_text, gemma3, qwen3 and t5 can be converted.")
    if "quantization_config" in values:
        raise FlanError(f"{path}: quantization_config: quantized weights are not covered; get the unquantized ones.")
    if family == T5:
        return family, _read_t5(_Fields(values, T5, path), "lm_head.weight" in tensors)
    if family == GEMMA3_MULTIMODAL:
        values, family = values.get("text_config") or {}, GEMMA3
    return family, _read_decoder(_Fields(values, family, path), family)


def _read_decoder(f: _Fields, family: str) -> DecoderConfig:
    heads, embed_dim, layers = f.need("num_attention_heads"), f.need("hidden_size"), f.need("num_hidden_layers")
    for name in ("attention_bias", "mlp_bias", "use_sliding_window", "use_bidirectional_attention"):
        f.only(name, False)
    for name in ("final_logit_softcapping", "attn_logit_softcapping"):
        f.only(name, None)
    f.only("partial_rotary_factor", 1.0)
    common = {
        "vocab_size": f.need("vocab_size"),
        "num_layers": layers,
        "embed_dim": embed_dim,
        "num_heads": heads,
        "num_kv_heads": f.get("num_key_value_heads", heads),
        "head_dim": f.get("head_dim", embed_dim // heads),
        "mlp_dim": f.need("intermediate_size"),
        "norm_epsilon": float(f.need("rms_norm_eps")),
        "tied_embeddings": bool(f.get("tie_word_embeddings")),
        "qk_norm": family in (QWEN3, GEMMA3),
        **_read_rope(f),
    }
    if family != GEMMA3:
        f.only("hidden_act", "silu", "swish")
        kinds = f.get("layer_types")
        if kinds is not None and set(kinds) != {"full_attention"}:
            raise f.refusal("layer_types", sorted(set(kinds)))
        if family == LLAMA:
            f.only("sliding_window", None)
        f.get("sliding_window")
        f.finish()
        return DecoderConfig(**common, activation="silu")
    f.only("hidden_activation", "gelu_pytorch_tanh")
    f.only("hidden_act", "gelu_pytorch_tanh")
    every = f.get("sliding_window_pattern", 6)
    kinds = f.get(
        "layer_types", ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
    )
    config = DecoderConfig(
        **common,
        activation="gelu",
        post_norms=True,
        scale_embeddings=True,
        attention_scale=f.need("query_pre_attn_scalar") ** -0.5,
        **_pattern(kinds, f.need("sliding_window"), f),
    )
    f.finish()
    return config


def _pattern(kinds: list[str], window: int, f: _Fields) -> dict[str, Any]:
    if set(kinds) == {"full_attention"}:
        return {"window": 0, "global_every": 0}
    for every in range(1, len(kinds) + 2):
        if kinds == ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(len(kinds))]:
            return {"window": window, "global_every": every}
    raise f.refusal("layer_types", kinds)


def _read_rope(f: _Fields) -> dict[str, Any]:
    """Rotary settings, as transformers 5 writes them (rope_parameters) or as 4 did (rope_theta, rope_scaling, ...)."""
    found: dict[str, Any] = {}
    parameters = f.get("rope_parameters", {})
    local = parameters.get("sliding_attention", {})
    parameters = parameters.get("full_attention", parameters)
    if local.get("rope_type", "default") != "default":
        raise f.refusal("rope_parameters.sliding_attention.rope_type", local["rope_type"])
    old = f.get("rope_scaling", {})
    scaling = {**old, **parameters}
    place = "rope_scaling" if old else "rope_parameters"
    found["rope_theta"] = float(parameters.get("rope_theta", f.get("rope_theta", 10_000.0)))
    found["local_rope_theta"] = float(local.get("rope_theta", f.get("rope_local_base_freq", 10_000.0)))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise f.refusal(f"{place}.rope_type", kind)
    known = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"}
    known |= {"low_freq_factor", "high_freq_factor", "partial_rotary_factor"}
    for name in sorted(set(scaling) - known):
        raise f.refusal(f"{place}.{name}", scaling[name])
    if scaling.get("partial_rotary_factor", 1.0) != 1.0:
        raise f.refusal(f"{place}.partial_rotary_factor", scaling["partial_rotary_factor"])
    if kind == "default":
        return found
    found |= {"rope_scaling": kind, "rope_scaling_factor": float(scaling["factor"])}
    if kind == "llama3":
        found |= {
            "rope_low_frequency_factor": float(scaling["low_freq_factor"]),
            "rope_high_frequency_factor": float(scaling["high_freq_factor"]),
            "rope_original_length": int(scaling["original_max_position_embeddings"]),
        }
    return found


def _read_t5(f: _Fields, has_head: bool) -> DecoderConfig:
    gate = f.need("feed_forward_proj")
    if gate not in ("gated-gelu", "gated-silu"):
        raise f.refusal("feed_forward_proj", gate)  # T5 1.0 has no gate
    f.only("dense_act_fn", {"gated-gelu": "gelu_new"}.get(gate, "silu"))
    f.only("is_gated_act", True)
    f.only("tie_encoder_decoder", False)
    # Up to transformers 4 tie_word_embeddings says both; 5 ties whatever has no weights of its own.
    scaled = bool(f.get("scale_decoder_outputs", f.get("tie_word_embeddings", True)))
    f.get("tie_word_embeddings")
    config = DecoderConfig(
        vocab_size=f.need("vocab_size"),
        num_layers=f.get("num_decoder_layers", f.need("num_layers")),
        num_encoder_layers=f.need("num_layers"),
        embed_dim=f.need("d_model"),
        num_heads=f.need("num_heads"),
        num_kv_heads=f.need("num_heads"),
        head_dim=f.need("d_kv"),
        mlp_dim=f.need("d_ff"),
        activation="gelu" if gate == "gated-gelu" else "silu",
        positions="relative_bias",
        tied_embeddings=scaled or not has_head,
        scale_tied_logits=scaled,
        norm_epsilon=float(f.need("layer_norm_epsilon")),
        attention_scale=1.0,
        relative_buckets=f.need("relative_attention_num_buckets"),
        relative_max_distance=f.need("relative_attention_max_distance"),
    )
    f.finish()
    return config


# ------------------------------------------------------------------------------------------------------------ writing


def family_of(c: DecoderConfig) -> str:
    """The family of transformers that computes what a model of this shape computes.

    Raises:
      FlanError: there is none.
    """
    plain_scale = c.attention_scale in (None, c.head_dim**-0.5)
    gemma = c.qk_norm and c.post_norms and c.scale_embeddings
    if c.num_encoder_layers:
        traits = (c.qk_norm, c.post_norms, c.scale_embeddings, c.window, c.num_heads != c.num_kv_heads)
        if not any(traits) and c.attention_scale == 1.0 and c.tied_embeddings == c.scale_tied_logits:
            return T5
    elif c.positions == "rope" and not c.scale_tied_logits:
        if c.activation == "gelu" and gemma and c.rope_scaling != "llama3":
            return GEMMA3
        if c.activation == "silu" and plain_scale and not (c.post_norms or c.scale_embeddings or c.window):
            return QWEN3 if c.qk_norm else LLAMA
    kind = "encoder-decoder" if c.num_encoder_layers else "decoder"
    raise FlanError(
        f"transformers has no architecture for this {kind} (positions {c.positions}, activation {c.activation}, "
        f"attention_scale {c.attention_scale}, ...); Llama, Qwen 3, Gemma 3 and T5 1.1 shapes can be exported."
    )


def write(c: DecoderConfig, tokenizer: vocabularies.Tokenizer, dtype: str) -> dict[str, Any]:
    """The content of a config.json that transformers 4 and 5 read.

    Args:
      c: the shape.
      tokenizer: its special ids are named.
      dtype: of the weights, "float32" or "bfloat16".

    Raises:
      FlanError: transformers has no such architecture.
    """
    family = family_of(c)
    eos = tokenizer.eos_id if len(tokenizer.stop_ids) == 1 else list(tokenizer.stop_ids)
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": eos, "pad_token_id": tokenizer.pad_id}
    common = {"model_type": family, "vocab_size": c.vocab_size, "torch_dtype": dtype, **ids}
    if family == T5:
        return {
            "architectures": ["T5ForConditionalGeneration"],
            **common,
            "is_encoder_decoder": True,
            "decoder_start_token_id": tokenizer.pad_id,
            "d_model": c.embed_dim,
            "d_kv": c.head_dim,
            "d_ff": c.mlp_dim,
            "num_layers": c.num_encoder_layers,
            "num_decoder_layers": c.num_layers,
            "num_heads": c.num_heads,
            "relative_attention_num_buckets": c.relative_buckets,
            "relative_attention_max_distance": c.relative_max_distance,
            "dropout_rate": 0.0,
            "layer_norm_epsilon": c.norm_epsilon,
            "feed_forward_proj": f"gated-{c.activation}",
            "tie_word_embeddings": c.tied_embeddings,
        }
    if family in (LLAMA, GEMMA3, QWEN3) and c.embed_dim % c.num_heads:
        raise FlanError(
            f"transformers refuses {family} models whose width ({c.embed_dim}) is no multiple of their heads "
            f"({c.num_heads}): this shape cannot be exported."
        )
    values = {
        "architectures": [{LLAMA: "LlamaForCausalLM", GEMMA3: "Gemma3ForCausalLM", QWEN3: "Qwen3ForCausalLM"}[family]],
        **common,
        "hidden_size": c.embed_dim,
        "intermediate_size": c.mlp_dim,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim,
        "rms_norm_eps": c.norm_epsilon,
        "tie_word_embeddings": c.tied_embeddings,
        "max_position_embeddings": _MAX_POSITIONS,
        "attention_bias": False,
        "rope_theta": c.rope_theta,
    }
    if c.rope_scaling != "none":
        scaling: dict[str, Any] = {"rope_type": c.rope_scaling, "factor": c.rope_scaling_factor}
        if c.rope_scaling == "llama3":
            scaling |= {
                "low_freq_factor": c.rope_low_frequency_factor,
                "high_freq_factor": c.rope_high_frequency_factor,
                "original_max_position_embeddings": c.rope_original_length,
            }
            values["max_position_embeddings"] = int(c.rope_original_length * c.rope_scaling_factor)
        values["rope_scaling"] = scaling
    if family != GEMMA3:
        return values | {"hidden_act": "silu"}
    scale = c.head_dim**-0.5 if c.attention_scale is None else c.attention_scale
    scalar = round(scale**-2)
    if not math.isclose(scalar**-0.5, scale, rel_tol=1e-6):
        raise FlanError(f"Gemma 3 in transformers wants 1 / attention_scale^2 to be whole; it is {scale**-2}.")
    return values | {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": scalar,
        "sliding_window": c.window or _MAX_POSITIONS,
        "layer_types": ["full_attention" if g else "sliding_attention" for g in c.global_layers],
        "rope_local_base_freq": c.local_rope_theta,
    }

"""Reads and writes config.json of transformers.

Fields that would change the computation and are not supported are refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.formats.huggingface_fields import (
    FAMILIES,
    GEMMA2,
    GEMMA3,
    GEMMA3_MULTIMODAL,
    LLAMA,
    MISTRAL,
    OLMO2,
    QWEN2,
    QWEN3,
    T5,
    Fields,
)
from flan_jax.models import DecoderConfig

_MAX_POSITIONS = 8192  # where nobody says it: other tools cut texts at this length; a rotary model has no such limit
_MOST_LAYERS = 100_000  # no model has more, and the error message would take long
_FULL, _SLIDING = "full_attention", "sliding_attention"

# The modules of each family.
_TRAITS = ("activation", "qkv_bias", "qk_norm", "qk_norm_across_heads", "pre_norms", "post_norms", "scale_embeddings")
_DECODERS: dict[str, tuple[Any, ...]] = {
    LLAMA: ("silu", False, False, False, True, False, False),
    MISTRAL: ("silu", False, False, False, True, False, False),
    QWEN2: ("silu", True, False, False, True, False, False),
    QWEN3: ("silu", False, True, False, True, False, False),
    OLMO2: ("silu", False, True, True, False, True, False),
    GEMMA2: ("gelu", False, False, False, True, True, True),
    GEMMA3: ("gelu", False, True, False, True, True, True),
}


def read(values: Mapping[str, Any], tensors: Collection[str], path: str) -> tuple[str, DecoderConfig]:
    """The family and the shape in a config.json.

    Args:
      values: its content.
      tensors: names of the weights, which show whether T5 has a separate head.
      path: the file, for error messages.

    Raises:
      FlanError: a family, variant or field that is not supported, or a value that no model can have.
    """
    if not isinstance(values, Mapping):
        raise FlanError(f"{path} holds no fields but a {type(values).__name__}; get it again from where it came.")
    family = values.get("model_type")
    if family not in FAMILIES:
        raise FlanError(f"{path}: model_type is {family!r}; {', '.join(FAMILIES)} can be converted.")
    if values.get("quantization_config") is not None:
        raise FlanError(f"{path}: quantization_config: quantized weights are not covered; get the unquantized ones.")
    if family == GEMMA3_MULTIMODAL:
        text = Fields(values, GEMMA3, path).table("text_config")
        ties = {name: values[name] for name in ("tie_word_embeddings",) if name in values}
        values, family = {**text, **ties}, GEMMA3
    fields = Fields(values, family, path)
    try:
        if family == T5:
            return family, _read_t5(fields, "lm_head.weight" in tensors)
        return family, _read_decoder(fields, family)
    except FlanError as error:
        raise error if path in str(error) else FlanError(f"{path}: {error}") from error


def _read_decoder(f: Fields, family: str) -> DecoderConfig:
    heads, embed_dim = f.whole("num_attention_heads"), f.whole("hidden_size")
    layers = f.whole("num_hidden_layers", most=_MOST_LAYERS)
    for name in ("attention_bias", "mlp_bias", "use_bidirectional_attention"):
        f.only(name, False)
    f.only("partial_rotary_factor", 1.0)
    head_dim = f.whole("head_dim", None)
    if head_dim is None:
        if family in (QWEN3, GEMMA2, GEMMA3):
            raise f.refusal("head_dim", None, "it has to be a whole number")
        if embed_dim % heads:
            raise f.refusal("num_attention_heads", heads, f"hidden_size {embed_dim} is no multiple of it")
        head_dim = embed_dim // heads
    kv_heads = f.whole("num_key_value_heads", None)
    if kv_heads is None:
        if family in (GEMMA2, GEMMA3):
            raise f.refusal("num_key_value_heads", None, "it has to be a whole number")
        kv_heads = heads
    if heads % kv_heads:
        raise f.refusal("num_key_value_heads", kv_heads, f"num_attention_heads {heads} is no multiple of it")
    common = {
        "vocab_size": f.whole("vocab_size"),
        "num_layers": layers,
        "embed_dim": embed_dim,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
        "mlp_dim": f.whole("intermediate_size"),
        "norm_epsilon": f.number("rms_norm_eps"),
        "tied_embeddings": f.flag("tie_word_embeddings"),
        **dict(zip(_TRAITS, _DECODERS[family], strict=True)),
        **(_read_gemma3_rope(f) if family == GEMMA3 else _read_rope(f)),
        **_read_windows(f, family, layers),
        **_read_caps(f, family),
    }
    f.finish()
    return DecoderConfig(**common)


def _read_caps(f: Fields, family: str) -> dict[str, Any]:
    """Checks the activation, and reads the scale and the bounds of attention and logits."""
    if family not in (GEMMA2, GEMMA3):
        f.only("hidden_act", "silu", "swish")
        for name in ("final_logit_softcapping", "attn_logit_softcapping"):
            f.only(name, None)
        return {}
    f.only("hidden_activation", "gelu_pytorch_tanh")
    f.only("hidden_act", "gelu_pytorch_tanh")
    if family == GEMMA3:
        f.only("attn_logit_softcapping", None)  # transformers reads it but does nothing
    return {
        "attention_scale": f.number("query_pre_attn_scalar") ** -0.5,
        "attention_softcap": f.number("attn_logit_softcapping", 0.0),
        "logits_softcap": f.number("final_logit_softcapping", 0.0),
    }


def _read_windows(f: Fields, family: str, layers: int) -> dict[str, Any]:
    """How far each layer sees."""
    kinds = f.names("layer_types")
    if family in (LLAMA, OLMO2):
        f.only("sliding_window", None)
        f.only("use_sliding_window", False)
        expected = window = 0
    elif family == MISTRAL:
        expected = window = f.whole("sliding_window", 0)
    elif family in (QWEN2, QWEN3):
        window = f.whole("sliding_window", 0) if f.flag("use_sliding_window") else 0
        first = f.whole("max_window_layers", least=0)
        default = [_SLIDING if window and i >= first else _FULL for i in range(layers)]
    else:
        window, every = f.whole("sliding_window", 0), 2
        if family == GEMMA3:
            every = f.whole("sliding_window_pattern")
        default = [_FULL if (i + 1) % every == 0 else _SLIDING for i in range(layers)]
    if family in (LLAMA, OLMO2, MISTRAL):  # if layer_types says something else, transformers follows the window
        default = [_SLIDING if expected else _FULL] * layers
        if kinds is not None and kinds != default:
            raise f.refusal("layer_types", kinds)
    kinds = default if kinds is None else kinds
    if len(kinds) != layers or not set(kinds) <= {_FULL, _SLIDING}:
        raise f.refusal("layer_types", kinds)
    if _SLIDING in kinds and not window:
        raise f.refusal("sliding_window", None, "layers of the kind sliding_attention need one")
    if _SLIDING not in kinds:
        return {"window": 0}
    found = {"window": window} if family == GEMMA3 else {"window": window, "local_rope_theta": None}
    for every in (-1, *range(2, layers + 1)):
        full = [every > 0 and (i + 1) % every == 0 for i in range(layers)]
        if kinds == [_FULL if is_full else _SLIDING for is_full in full]:
            return found | {"global_every": every}
    first = kinds.index(_SLIDING)
    if kinds == [_FULL] * first + [_SLIDING] * (layers - first):
        return found | {"global_every": -1, "global_first": first}
    raise f.refusal("layer_types", kinds)


def _read_rope(f: Fields) -> dict[str, Any]:
    """Rotary settings, as written by transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters).

    If a file has both, rope_scaling counts, as in transformers.
    """
    place = "rope_scaling" if f.table("rope_scaling") else "rope_parameters"
    scaling = f.table(place)
    f.table("rope_parameters")
    theta = f.number("rope_theta")
    if "rope_theta" in scaling:
        theta = f.positive(f"{place}.rope_theta", scaling["rope_theta"])
    return {"rope_theta": theta, **_read_scaling(f, place, scaling)}


def _read_gemma3_rope(f: Fields) -> dict[str, Any]:
    """The same for Gemma 3, whose local layers have a base of their own and are not scaled."""
    parameters, old = f.table("rope_parameters"), f.table("rope_scaling")
    for name in sorted(set(parameters) - {_FULL, _SLIDING}):
        raise f.refusal(f"rope_parameters.{name}", parameters[name])
    both = {}
    for name, field in ((_FULL, "rope_theta"), (_SLIDING, "rope_local_base_freq")):
        of_kind = {} if parameters.get(name) is None else parameters[name]
        if not isinstance(of_kind, dict):
            raise f.refusal(f"rope_parameters.{name}", of_kind, "it has to be an object")
        theta = f.number(field)
        if "rope_theta" in of_kind:
            theta = f.positive(f"rope_parameters.{name}.rope_theta", of_kind["rope_theta"])
        both[name] = of_kind, theta
    place = f"rope_parameters.{_FULL}"
    scaling, theta = both[_FULL]
    if old:
        if "rope_type" not in old:  # transformers 5 would then ignore it
            raise f.refusal("rope_scaling", old, "it has to name its rope_type")
        place, scaling = "rope_scaling", {**scaling, **old}
        theta = f.positive("rope_scaling.rope_theta", old.get("rope_theta", theta))
    local, local_theta = both[_SLIDING]
    if _read_scaling(f, f"rope_parameters.{_SLIDING}", local):
        raise f.refusal(f"rope_parameters.{_SLIDING}.rope_type", local["rope_type"])
    return {"rope_theta": theta, "local_rope_theta": local_theta, **_read_scaling(f, place, scaling)}


def _read_scaling(f: Fields, place: str, scaling: Mapping[str, Any]) -> dict[str, Any]:
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
        return {}

    def number(name: str) -> float:
        if name not in scaling:
            raise FlanError(f"{f.path} lacks the field {place}.{name}; get the file again from where it came.")
        return f.positive(f"{place}.{name}", scaling[name])

    found = {"rope_scaling": kind, "rope_scaling_factor": number("factor")}
    if kind == "llama3":
        low, high = number("low_freq_factor"), number("high_freq_factor")
        if low >= high:
            raise f.refusal(f"{place}.high_freq_factor", high, f"it has to be larger than low_freq_factor {low}")
        length = scaling.get("original_max_position_embeddings", f.get("max_position_embeddings"))
        found |= {"rope_low_frequency_factor": low, "rope_high_frequency_factor": high}
        found["rope_original_length"] = int(f.positive(f"{place}.original_max_position_embeddings", length))
    return found


def _read_t5(f: Fields, has_head: bool) -> DecoderConfig:
    gate = f.get("feed_forward_proj")
    if gate not in ("gated-gelu", "gated-silu"):
        raise f.refusal("feed_forward_proj", gate)  # T5 1.0 has no gate
    f.only("dense_act_fn", {"gated-gelu": "gelu_new"}.get(gate, "silu"))
    f.only("is_gated_act", True)
    f.only("tie_encoder_decoder", False)
    f.only("decoder_start_token_id", 0)  # decoding starts with it here
    # Up to transformers 4, tie_word_embeddings means both. Version 5 ties whatever has no weights of its own.
    tied = f.flag("tie_word_embeddings", True)
    f.refuse_null("scale_decoder_outputs")
    scaled = f.flag("scale_decoder_outputs", tied)
    layers, heads = f.whole("num_layers", most=_MOST_LAYERS), f.whole("num_heads")
    config = DecoderConfig(
        vocab_size=f.whole("vocab_size"),
        num_layers=f.whole("num_decoder_layers", layers, most=_MOST_LAYERS),
        num_encoder_layers=layers,
        embed_dim=f.whole("d_model"),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=f.whole("d_kv"),
        mlp_dim=f.whole("d_ff"),
        activation="gelu" if gate == "gated-gelu" else "silu",
        positions="relative_bias",
        tied_embeddings=not has_head,
        scale_tied_logits=scaled,
        norm_epsilon=f.number("layer_norm_epsilon"),
        attention_scale=1.0,
        relative_buckets=f.whole("relative_attention_num_buckets", least=4),
        relative_max_distance=f.whole("relative_attention_max_distance"),
    )
    f.finish()
    return config


# ------------------------------------------------------------------------------------------------------------ writing


def _is_possible(c: DecoderConfig, family: str) -> bool:
    """Whether a family with this model's modules also allows its numbers and windows."""
    scaled = c.rope_scaling != "none"
    own_base = bool(c.window) and c.local_rope_theta is not None and (scaled or c.local_rope_theta != c.rope_theta)
    if family == GEMMA3:  # local layers are never scaled
        local = not c.window or c.local_rope_theta is not None or not scaled
        return local and not c.attention_softcap and c.rope_scaling != "llama3"
    if family == GEMMA2:
        return not own_base
    if own_base or c.attention_softcap or c.logits_softcap or c.attention_scale not in (None, c.head_dim**-0.5):
        return False
    sliding = c.global_layers.count(False)
    if family in (QWEN2, QWEN3):  # only the last layers have a window, if any
        return not any(c.global_layers[c.num_layers - sliding :])
    return not sliding or family == MISTRAL


def family_of(c: DecoderConfig) -> str:
    """The family of transformers that computes the same as a model of this shape.

    Raises:
      FlanError: there is none.
    """
    traits = tuple(getattr(c, name) for name in _TRAITS)
    if c.num_encoder_layers:
        others = (c.attention_softcap, c.logits_softcap, c.window, c.num_heads != c.num_kv_heads)
        plain = traits == ("gelu", *_DECODERS[LLAMA][1:]) or traits == _DECODERS[LLAMA]
        if plain and not any(others) and c.attention_scale == 1.0 and c.tied_embeddings == c.scale_tied_logits:
            return T5
    elif c.positions == "rope" and not c.scale_tied_logits:
        family = next((name for name, theirs in _DECODERS.items() if theirs == traits), None)
        if family == LLAMA and c.window and not any(c.global_layers):
            family = MISTRAL
        if family is not None and _is_possible(c, family):
            return family
    kind = "encoder-decoder" if c.num_encoder_layers else "decoder"
    raise FlanError(
        f"transformers has no architecture for this {kind} (positions {c.positions}, activation {c.activation}, "
        f"attention_scale {c.attention_scale}, ...); Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3, OLMo 2 and T5 1.1 "
        "shapes can be exported."
    )


_ARCHITECTURES = {
    LLAMA: "LlamaForCausalLM",
    MISTRAL: "MistralForCausalLM",
    QWEN2: "Qwen2ForCausalLM",
    QWEN3: "Qwen3ForCausalLM",
    GEMMA2: "Gemma2ForCausalLM",
    GEMMA3: "Gemma3ForCausalLM",
    OLMO2: "Olmo2ForCausalLM",
}


def positions_of(values: Mapping[str, Any]) -> int | None:
    """The longest text that a model was made for, in tokens, if its config.json says so."""
    found = (values.get("text_config") or values).get("max_position_embeddings")
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def write(
    c: DecoderConfig, tokenizer: vocabularies.Tokenizer, dtype: str, max_positions: int | None = None
) -> dict[str, Any]:
    """The content of a config.json that transformers 4 and 5 can read.

    Args:
      c: the shape.
      tokenizer: the vocabulary; its special ids are written.
      dtype: dtype of the weights, "float32" or "bfloat16".
      max_positions: the longest text that it was made for, in tokens; None where nobody says it.

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
    if family not in (QWEN2, QWEN3, MISTRAL, OLMO2) and c.embed_dim % c.num_heads:
        raise FlanError(
            f"transformers refuses {family} models whose width ({c.embed_dim}) is no multiple of their heads "
            f"({c.num_heads}): this shape cannot be exported."
        )
    values = {
        "architectures": [_ARCHITECTURES[family]],
        **common,
        "hidden_size": c.embed_dim,
        "intermediate_size": c.mlp_dim,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim,
        "rms_norm_eps": c.norm_epsilon,
        "tie_word_embeddings": c.tied_embeddings,
        "max_position_embeddings": max_positions or _MAX_POSITIONS,
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
            made_for = max_positions or int(c.rope_original_length * c.rope_scaling_factor)
            values["max_position_embeddings"] = made_for
        values["rope_scaling"] = scaling
    if family in (GEMMA2, GEMMA3):
        return values | _gemma_fields(c, family)
    values["hidden_act"] = "silu"
    if family == MISTRAL:
        values["sliding_window"] = c.window
    if family in (QWEN2, QWEN3):
        sliding = c.global_layers.count(False)
        values |= {"use_sliding_window": bool(sliding), "sliding_window": c.window if sliding else None}
        values["max_window_layers"] = c.num_layers - sliding
    return values


def _gemma_fields(c: DecoderConfig, family: str) -> dict[str, Any]:
    scale = c.head_dim**-0.5 if c.attention_scale is None else c.attention_scale
    scalar = round(scale**-2)
    if not math.isclose(scalar**-0.5, scale, rel_tol=1e-6):
        raise FlanError(f"{family} in transformers wants 1 / attention_scale^2 to be whole; it is {scale**-2}.")
    values = {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": scalar,
        "sliding_window": c.window or _MAX_POSITIONS,
        "layer_types": [_FULL if is_global else _SLIDING for is_global in c.global_layers],
        "final_logit_softcapping": c.logits_softcap or None,
    }
    if family == GEMMA2:
        return values | {"attn_logit_softcapping": c.attention_softcap or None}
    return values | {"rope_local_base_freq": c.rope_theta if c.local_rope_theta is None else c.local_rope_theta}

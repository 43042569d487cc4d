"""The fields of a config.json with their types, and transformers' defaults for missing ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flan_jax.errors import FlanError

LLAMA, MISTRAL, QWEN2, QWEN3 = "llama", "mistral", "qwen2", "qwen3"
GEMMA2, GEMMA3, GEMMA3_MULTIMODAL, OLMO2, T5 = "gemma2", "gemma3_text", "gemma3", "olmo2", "t5"
FAMILIES = (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3, GEMMA3_MULTIMODAL, OLMO2, T5)

# transformers' defaults. Other sizes must be in the file: transformers has defaults for them too, but would not load
# weights with other shapes.
_SILU = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "hidden_act": "silu", "rope_theta": 10_000.0}
_QWEN = {"vocab_size": 151_936, "num_key_value_heads": 32, "max_position_embeddings": 32_768, "sliding_window": 4096}
_QWEN |= {"use_sliding_window": False, "max_window_layers": 28}
_GEMMA = {
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
}
DEFAULTS: dict[str, dict[str, Any]] = {
    LLAMA: _SILU | {"vocab_size": 32_000, "max_position_embeddings": 2048},
    MISTRAL: _SILU
    | {"vocab_size": 32_000, "num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096},
    QWEN2: _SILU | _QWEN,
    QWEN3: _SILU | _QWEN | {"head_dim": 128},
    OLMO2: _SILU | {"vocab_size": 50_304, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048},
    GEMMA2: _GEMMA
    | {
        "vocab_size": 256_000,
        "max_position_embeddings": 8192,
        "rope_theta": 10_000.0,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    GEMMA3: _GEMMA
    | {
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "rope_theta": 1e6,
        "rope_local_base_freq": 10_000.0,
        "sliding_window_pattern": 6,
    },
    T5: {
        "vocab_size": 32_128,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "relu",
    },
}

# Fields that do not say how logits are computed from weights, or that are checked elsewhere.
_NO_PART = (
    "architectures model_type torch_dtype dtype transformers_version use_cache bos_token_id eos_token_id pad_token_id "
    "decoder_start_token_id max_position_embeddings n_positions initializer_range initializer_factor attention_dropout "
    "dropout_rate classifier_dropout pretraining_tp cache_implementation task_specific_params is_encoder_decoder "
    "output_past max_window_layers is_llama_config id2label label2id problem_type return_dict chunk_size_feed_forward "
    "unsloth_version unsloth_fixed is_decoder output_attentions output_hidden_states tokenizer_class finetuning_task "
    "torchscript use_bfloat16 tf_legacy_loss sep_token_id prefix "
    # How answers are drawn. transformers 4 wrote these into every nested configuration, and into all of old models.
    "max_length do_sample early_stopping num_return_sequences temperature top_k top_p typical_p length_penalty "
    "diversity_penalty output_scores return_dict_in_generate remove_invalid_values"
)
# Similar fields, but another value changes which answer is the likeliest.
_AS_IT_IS = {"repetition_penalty": 1.0, "num_beams": 1, "num_beam_groups": 1}
_REQUIRED = object()


class Fields:
    """The fields of a file. Fields that were never read are found at the end.

    A missing field has the family's default, or else the one in the call. A field that is null has the latter, because
    transformers' files write "none" in this way.

    Args:
      values: the file's content.
      family: the family, for its defaults.
      path: the file, for messages.
    """

    def __init__(self, values: Mapping[str, Any], family: str, path: str) -> None:
        self._values, self.path = {**DEFAULTS[family], **values}, path
        self._unread = set(values)

    def refuse_null(self, name: str) -> None:
        """Refuses a null if transformers treats it differently from a missing field."""
        if name in self._values and self._values[name] is None:
            raise self.refusal(name, None)

    def get(self, name: str, default: Any = None) -> Any:
        """The value as it is."""
        self._unread.discard(name)
        value = self._values.get(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise FlanError(f"{self.path} lacks the field {name}; get the file again from where it came.")
        return default

    def whole(self, name: str, default: Any = _REQUIRED, least: int = 1, most: int = 2**31 - 1) -> int:
        """A whole number of at least `least`. Without a default, the field must exist."""
        value = self.get(name, default)
        if value is default and default is not _REQUIRED:
            return value
        if type(value) is not int or not least <= value <= most:
            raise self.refusal(name, value, f"it has to be a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: Any = _REQUIRED) -> float:
        """A finite number above zero. Without a default, the field must exist."""
        value = self.get(name, default)
        return value if value is default and default is not _REQUIRED else self.positive(name, value)

    def positive(self, name: str, value: Any) -> float:
        """The value of a field inside another one, as a finite number above zero."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.refusal(name, value, "it has to be a number above zero")
        return float(value)

    def flag(self, name: str, default: Any = _REQUIRED) -> bool:
        """True or False. Without a default, the field must exist."""
        value = self.get(name, default)
        if not isinstance(value, bool) and value is not default:
            raise self.refusal(name, value, "it has to be true or false")
        return value

    def table(self, name: str) -> dict[str, Any]:
        """An object; empty if there is none."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise self.refusal(name, value, "it has to be an object")
        return value

    def names(self, name: str) -> list[str] | None:
        """A list of words; None if there is none."""
        value = self.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            raise self.refusal(name, value, "it has to be a list of words")
        return value

    def only(self, name: str, *covered: Any) -> Any:
        """The value, which must be one of `covered`; the first of these is the default."""
        value = self.get(name, covered[0])
        if not any(value == known and type(value) in (type(known), int, float) for known in covered):
            raise self.refusal(name, value)
        return value

    def refusal(self, name: str, value: Any, wanted: str = "") -> FlanError:
        """The error with file, field and value, and what is wanted if that can be said."""
        why = f"; {wanted}." if wanted else ", which is not covered: this variant cannot be converted."
        return FlanError(f"{self.path}: {name} is {_shown(value)}{why}")

    def finish(self) -> None:
        """Refuses fields that were never read, unless they have no effect."""
        for name in sorted(self._unread - set(_NO_PART.split())):
            plain = name in _AS_IT_IS and self._values[name] == _AS_IT_IS[name]
            if self._values[name] and not plain and not name.startswith(("_", "transformers.")):
                raise FlanError(
                    f"{self.path}: the field {_shown(name)[1:-1]} ({_shown(self._values[name])}) is unknown here and "
                    "may change the computation; remove it if it does not."
                )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

"""Our parameters as a model of transformers, in float32: Llama, Gemma 3 and T5 1.1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import torch
import transformers

from flan_jax.models import DecoderConfig


def as_transformers(config: DecoderConfig, params: Any, eos_id: int, attention: str = "eager") -> Any:
    """The model of transformers with these parameters.

    Args:
      config: of a family that has one there.
      params: our parameters.
      eos_id: end of sequence, for `generate`; padding is id 0.
      attention: transformers' `attn_implementation`.
    """
    c = config
    shape = {
        "vocab_size": c.vocab_size,
        "tie_word_embeddings": c.tied_embeddings,
        "attn_implementation": attention,
        "eos_token_id": eos_id,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    decoder = {
        "num_hidden_layers": c.num_layers,
        "hidden_size": c.embed_dim,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.mlp_dim,
        "rms_norm_eps": c.norm_epsilon,
    }
    if c.num_encoder_layers:
        settings = transformers.T5Config(
            **shape,
            d_model=c.embed_dim,
            d_kv=c.head_dim,
            d_ff=c.mlp_dim,
            num_layers=c.num_encoder_layers,
            num_decoder_layers=c.num_layers,
            num_heads=c.num_heads,
            relative_attention_num_buckets=c.relative_buckets,
            relative_attention_max_distance=c.relative_max_distance,
            feed_forward_proj="gated-gelu",
            layer_norm_epsilon=c.norm_epsilon,
            decoder_start_token_id=0,
        )
        model = transformers.T5ForConditionalGeneration(settings)
        if not c.tied_embeddings:  # transformers ties the head all the same, until a checkpoint brings another
            model.lm_head.weight = torch.nn.Parameter(torch.zeros(c.vocab_size, c.embed_dim))
    elif c.qkv_bias or c.qk_norm_across_heads or not c.pre_norms or c.attention_softcap or c.logits_softcap:
        raise ValueError("only Llama, Gemma 3 and T5 1.1 are written here")
    elif c.window:
        kinds = ["full_attention" if is_global else "sliding_attention" for is_global in c.global_layers]
        ropes = {"full_attention": c.rope_theta, "sliding_attention": c.local_rope_theta}
        settings = transformers.Gemma3TextConfig(
            **shape,
            **decoder,
            rope_parameters={kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in ropes.items()},
            sliding_window=c.window,
            layer_types=kinds,
            query_pre_attn_scalar=round(c.attention_scale**-2),
        )
        model = transformers.Gemma3ForCausalLM(settings)
    else:
        rope = {"rope_type": "default", "rope_theta": c.rope_theta}
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, **decoder, rope_parameters=rope))
    named = _t5(params, c) if c.num_encoder_layers else _causal(params, c)
    weights = {f"{name}.weight": torch.tensor(np.array(value, np.float32)) for name, value in named}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - ({"lm_head.weight"} if c.tied_embeddings else set()):
        raise ValueError(f"weights do not fit: {missing[:3]} missing, {unexpected[:3]} unexpected")
    if c.tied_embeddings:
        model.tie_weights()
    return model.eval()


def _rows(kernel: Any) -> np.ndarray:
    """[D, H, K] or [D, F] to [out, in]."""
    return np.asarray(kernel).reshape(kernel.shape[0], -1).T


def _columns(kernel: Any) -> np.ndarray:
    """[H, K, D] to [out, in]."""
    return np.asarray(kernel).reshape(-1, kernel.shape[-1]).T


def _attention(attention: Any, names: str) -> Iterator[tuple[str, np.ndarray]]:
    for ours, theirs in zip(("query", "key", "value"), names.split()[:3], strict=True):
        yield theirs, _rows(attention[ours]["kernel"])
    yield names.split()[3], _columns(attention["out"]["kernel"])


def _layers(stack: Any, count: int) -> Iterator[tuple[int, Any]]:
    stack = jax.device_get(stack)
    yield from ((i, jax.tree.map(lambda x, i=i: x[i], stack)) for i in range(count))


def _causal(params: Any, c: DecoderConfig) -> Iterator[tuple[str, np.ndarray]]:
    decoder, offset = params["decoder"], 1 if c.post_norms else 0  # Gemma stores its norms' scales less one
    yield "model.embed_tokens", decoder["token_embedder"]["embedding"]
    yield "model.norm", decoder["decoder_norm"]["scale"] - offset
    if not c.tied_embeddings:
        yield "lm_head", _rows(decoder["logits_dense"]["kernel"])
    norms = {"pre_self_attention_layer_norm": "input_layernorm", "pre_mlp_layer_norm": "post_attention_layernorm"}
    if c.post_norms:
        norms["pre_mlp_layer_norm"] = "pre_feedforward_layernorm"
        norms["post_self_attention_layer_norm"] = "post_attention_layernorm"
        norms["post_mlp_layer_norm"] = "post_feedforward_layernorm"
    for i, layer in _layers(decoder["layers"], c.num_layers):
        prefix = f"model.layers.{i}"
        for name, kernel in _attention(layer["self_attention"], "q_proj k_proj v_proj o_proj"):
            yield f"{prefix}.self_attn.{name}", kernel
        if c.qk_norm:
            yield f"{prefix}.self_attn.q_norm", layer["self_attention"]["query_norm"]["scale"] - offset
            yield f"{prefix}.self_attn.k_norm", layer["self_attention"]["key_norm"]["scale"] - offset
        for ours, theirs in (("wi_0", "gate_proj"), ("wi_1", "up_proj"), ("wo", "down_proj")):
            yield f"{prefix}.mlp.{theirs}", _rows(layer["mlp"][ours]["kernel"])
        for ours, theirs in norms.items():
            yield f"{prefix}.{theirs}", layer[ours]["scale"] - offset


def _t5(params: Any, c: DecoderConfig) -> Iterator[tuple[str, np.ndarray]]:
    for name in ("shared", "encoder.embed_tokens", "decoder.embed_tokens"):
        yield name, params["token_embedder"]["embedding"]
    if not c.tied_embeddings:
        yield "lm_head", _rows(params["decoder"]["logits_dense"]["kernel"])
    for side, count in (("encoder", c.num_encoder_layers), ("decoder", c.num_layers)):
        parts = params[side]
        yield f"{side}.final_layer_norm", parts[f"{side}_norm"]["scale"]
        table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
        yield table, np.asarray(parts["relpos_bias"]["rel_embedding"]).T
        if side == "encoder":
            blocks = (("attention", "SelfAttention", "pre_attention_layer_norm"),)
        else:
            blocks = (
                ("self_attention", "SelfAttention", "pre_self_attention_layer_norm"),
                ("encoder_decoder_attention", "EncDecAttention", "pre_cross_attention_layer_norm"),
            )
        for i, layer in _layers(parts["layers"], count):
            for number, (ours, theirs, norm) in enumerate(blocks):
                prefix = f"{side}.block.{i}.layer.{number}"
                yield f"{prefix}.layer_norm", layer[norm]["scale"]
                for name, kernel in _attention(layer[ours], "q k v o"):
                    yield f"{prefix}.{theirs}.{name}", kernel
            prefix = f"{side}.block.{i}.layer.{len(blocks)}"
            yield f"{prefix}.layer_norm", layer["pre_mlp_layer_norm"]["scale"]
            for name in ("wi_0", "wi_1", "wo"):
                yield f"{prefix}.DenseReluDense.{name}", _rows(layer["mlp"][name]["kernel"])

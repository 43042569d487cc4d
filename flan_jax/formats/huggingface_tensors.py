"""Names and layouts of parameters in transformers. Linear layers are [out, in]; Gemma's norms are stored minus one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from flan_jax.formats.huggingface_fields import GEMMA2, GEMMA3, T5
from flan_jax.formats.source import Path
from flan_jax.models import DecoderConfig


class Tensor(NamedTuple):
    """A tensor of transformers.

    Attributes:
      name: its name without the prefix that some folders have. If tensors are tied, files may have the other one.
      to_ours: converts its layout to ours.
      to_theirs: converts ours to its layout.
    """

    name: str
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


def tensors(c: DecoderConfig, family: str) -> dict[tuple[Path, int | None], Tensor]:
    """(our path, layer) -> the tensor of transformers, layer after layer as transformers stores them."""
    found = {}
    for path, layer, name, layout in _t5(c) if family == T5 else _decoder(c, family in (GEMMA2, GEMMA3)):
        suffix = "bias" if path.endswith("/bias") else "weight"
        found[tuple(path.split("/")), layer] = Tensor(f"{name}.{suffix}", *_layout(layout, c))
    return found


def _layout(kind: str, c: DecoderConfig) -> tuple[Callable, Callable]:
    d, k = c.embed_dim, c.head_dim
    heads = c.num_kv_heads if "kv_heads" in kind else c.num_heads
    scaled = c.scale_tied_logits  # a separate head includes the scale
    layouts: dict[str, tuple[Callable, Callable]] = {
        "": (lambda w: w, lambda w: w),
        "less one": (lambda w: w + 1, lambda w: w - 1),
        "transposed": (np.transpose, np.transpose),
        "head": (lambda w: w.T * np.float32(d**-0.5) if scaled else w.T, np.transpose),
        "heads": (lambda w: w.T.reshape(d, heads, k), lambda w: w.reshape(d, heads * k).T),
        "kv_heads": (lambda w: w.T.reshape(d, heads, k), lambda w: w.reshape(d, heads * k).T),
        "each of heads": (lambda w: w.reshape(heads, k), np.ravel),
        "each of kv_heads": (lambda w: w.reshape(heads, k), np.ravel),
        "out": (lambda w: w.T.reshape(c.num_heads, k, d), lambda w: w.reshape(c.num_heads * k, d).T),
    }
    return layouts[kind]


_Row = tuple[str, int | None, str, str]


def _attention(ours: str, layer: int, theirs: str, names: str, kv_heads: str) -> Iterator[_Row]:
    for name, short, layout in zip(
        ("query", "key", "value", "out"), names.split(), ("heads", kv_heads, kv_heads, "out"), strict=True
    ):
        yield f"{ours}/{name}/kernel", layer, f"{theirs}.{short}", layout


def _decoder(c: DecoderConfig, gemma: bool) -> Iterator[_Row]:
    norm = "less one" if gemma else ""
    yield "decoder/token_embedder/embedding", None, "embed_tokens", ""
    for i in range(c.num_layers):
        ours, theirs = "decoder/layers", f"layers.{i}"
        if c.pre_norms:
            yield f"{ours}/pre_self_attention_layer_norm/scale", i, f"{theirs}.input_layernorm", norm
        yield from _attention(
            f"{ours}/self_attention", i, f"{theirs}.self_attn", "q_proj k_proj v_proj o_proj", "kv_heads"
        )
        of_heads = (("query", "q", "heads"), ("key", "k", "kv_heads"), ("value", "v", "kv_heads"))
        for name, short, heads in of_heads if c.qkv_bias else ():
            yield f"{ours}/self_attention/{name}/bias", i, f"{theirs}.self_attn.{short}_proj", f"each of {heads}"
        for name, short, heads in of_heads[:2] if c.qk_norm else ():
            layout = f"each of {heads}" if c.qk_norm_across_heads else norm
            yield f"{ours}/self_attention/{name}_norm/scale", i, f"{theirs}.self_attn.{short}_norm", layout
        if c.post_norms:
            yield f"{ours}/post_self_attention_layer_norm/scale", i, f"{theirs}.post_attention_layernorm", norm
            yield f"{ours}/post_mlp_layer_norm/scale", i, f"{theirs}.post_feedforward_layernorm", norm
        if c.pre_norms:
            second = "pre_feedforward_layernorm" if c.post_norms else "post_attention_layernorm"
            yield f"{ours}/pre_mlp_layer_norm/scale", i, f"{theirs}.{second}", norm
        for name, short in (("wi_0", "gate_proj"), ("wi_1", "up_proj"), ("wo", "down_proj")):
            yield f"{ours}/mlp/{name}/kernel", i, f"{theirs}.mlp.{short}", "transposed"
    yield "decoder/decoder_norm/scale", None, "norm", norm
    if not c.tied_embeddings:
        yield "decoder/logits_dense/kernel", None, "lm_head", "head"


def _t5(c: DecoderConfig) -> Iterator[_Row]:
    yield "token_embedder/embedding", None, "shared", ""
    for side, count, first in (
        ("encoder", c.num_encoder_layers, "attention"),
        ("decoder", c.num_layers, "self_attention"),
    ):
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
        yield f"{side}/relpos_bias/rel_embedding", None, bias, "transposed"
        parts = [(first, f"pre_{first}_layer_norm", "SelfAttention")]
        if side == "decoder":
            parts.append(("encoder_decoder_attention", "pre_cross_attention_layer_norm", "EncDecAttention"))
        for i in range(count):
            for number, (attention, norm, theirs) in enumerate(parts):
                block = f"{side}.block.{i}.layer.{number}"
                yield f"{side}/layers/{norm}/scale", i, f"{block}.layer_norm", ""
                yield from _attention(f"{side}/layers/{attention}", i, f"{block}.{theirs}", "q k v o", "heads")
            block = f"{side}.block.{i}.layer.{len(parts)}"
            yield f"{side}/layers/pre_mlp_layer_norm/scale", i, f"{block}.layer_norm", ""
            for name in ("wi_0", "wi_1", "wo"):
                yield f"{side}/layers/mlp/{name}/kernel", i, f"{block}.DenseReluDense.{name}", "transposed"
        yield f"{side}/{side}_norm/scale", None, f"{side}.final_layer_norm", ""
    if not c.tied_embeddings:
        yield "decoder/logits_dense/kernel", None, "lm_head", "head"

"""Shapes and parameters of GGUF's architectures."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from flan_jax.errors import FlanError
from flan_jax.formats.gguf_files import Contents, Fields
from flan_jax.formats.source import Leaf, leaves
from flan_jax.models import DecoderConfig, rotary

_GEMMA = {"activation": "gelu", "post_norms": True, "scale_embeddings": True}
ARCHITECTURES: dict[str, dict[str, Any]] = {  # the modules of each; Mistral is a llama
    "llama": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "gemma2": _GEMMA,
    "gemma3": _GEMMA | {"qk_norm": True},
    "olmo2": {"qk_norm": True, "qk_norm_across_heads": True, "pre_norms": False, "post_norms": True},
}
# llama.cpp recognizes the 27B models of Gemma 2 and 3, whose attention is scaled by D / H, by their number of layers.
_LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}
_NO_PART = frozenset(("context_length", "vocab_size", "tensor_data_layout", "rope.scaling.finetuned"))
_NO_PART |= {"rope.scaling.original_context_length", "rope.scaling.orig_ctx_len"}
_LLAMA3: dict[str, Any] = {
    "rope_low_frequency_factor": 1.0,
    "rope_high_frequency_factor": 4.0,
    "rope_original_length": 8192,
}

# Our path -> name; a number stands for the layer.
_NAMES = {
    "token_embedder/embedding": "token_embd.weight",
    "decoder_norm/scale": "output_norm.weight",
    "logits_dense/kernel": "output.weight",
    "layers/pre_self_attention_layer_norm/scale": "blk.{}.attn_norm.weight",
    "layers/self_attention/query/kernel": "blk.{}.attn_q.weight",
    "layers/self_attention/query/bias": "blk.{}.attn_q.bias",
    "layers/self_attention/query_norm/scale": "blk.{}.attn_q_norm.weight",
    "layers/self_attention/key/kernel": "blk.{}.attn_k.weight",
    "layers/self_attention/key/bias": "blk.{}.attn_k.bias",
    "layers/self_attention/key_norm/scale": "blk.{}.attn_k_norm.weight",
    "layers/self_attention/value/kernel": "blk.{}.attn_v.weight",
    "layers/self_attention/value/bias": "blk.{}.attn_v.bias",
    "layers/self_attention/out/kernel": "blk.{}.attn_output.weight",
    "layers/post_self_attention_layer_norm/scale": "blk.{}.post_attention_norm.weight",
    "layers/pre_mlp_layer_norm/scale": "blk.{}.ffn_norm.weight",
    "layers/mlp/wi_0/kernel": "blk.{}.ffn_gate.weight",
    "layers/mlp/wi_1/kernel": "blk.{}.ffn_up.weight",
    "layers/mlp/wo/kernel": "blk.{}.ffn_down.weight",
    "layers/post_mlp_layer_norm/scale": "blk.{}.post_ffw_norm.weight",
}
_HEAD, _EMBEDDING, _FREQUENCIES = "output.weight", "token_embd.weight", "rope_freqs.weight"


def config(architecture: str, fields: Fields, contents: Contents) -> DecoderConfig:
    """The shape in a file's fields.

    Args:
      architecture: one of `ARCHITECTURES`.
      fields: the metadata.
      contents: the tensors; they show whether there is a separate head, and how rotary positions are scaled.

    Raises:
      FlanError: a field is missing, wrong, or unknown here.
    """

    def name(short: str) -> str:
        return f"{architecture}.{short}"

    heads, embed_dim = fields.whole(name("attention.head_count")), fields.whole(name("embedding_length"))
    layers = fields.whole(name("block_count"))
    head_dim = fields.whole(name("attention.key_length"), max(1, embed_dim // heads))
    for short in ("attention.value_length", "rope.dimension_count"):
        if (found := fields.whole(name(short), head_dim)) != head_dim:
            raise FlanError(f"{fields.path}: {name(short)} is {found} and a head has {head_dim}; not covered.")
    scaling = fields.text(name("rope.scaling.type"), "none")
    if scaling not in ("none", "linear"):
        raise FlanError(
            f"{fields.path} scales its rotary embedding ({name('rope.scaling.type')} is {scaling!r}); not covered."
        )
    values = {
        "vocab_size": _rows(fields, contents),
        "num_layers": layers,
        "embed_dim": embed_dim,
        "num_heads": heads,
        "num_kv_heads": fields.whole(name("attention.head_count_kv"), heads),
        "head_dim": head_dim,
        "mlp_dim": fields.whole(name("feed_forward_length")),
        "rope_theta": fields.number(name("rope.freq_base"), 10_000.0),
        "norm_epsilon": fields.number(name("attention.layer_norm_rms_epsilon")),
        "tied_embeddings": _is_tied(contents),
        **ARCHITECTURES[architecture],
    }
    if scaling == "linear":
        values |= {"rope_scaling": "linear", "rope_scaling_factor": fields.number(name("rope.scaling.factor"))}
    if architecture in _LAYERS_OF_27B:
        large = layers == _LAYERS_OF_27B[architecture]
        values["attention_scale"] = (embed_dim // heads if large else head_dim) ** -0.5
    # What llama.cpp assumes for Gemma if a file says nothing.
    if architecture == "gemma2":
        values["window"] = fields.whole(name("attention.sliding_window"), 4096)
        values["global_every"] = fields.whole(name("attention.sliding_window_pattern"), 2)
        values["local_rope_theta"] = None
        values["attention_softcap"] = fields.number(name("attn_logit_softcapping"), 50.0)
        values["logits_softcap"] = fields.number(name("final_logit_softcapping"), 30.0)
    if architecture == "gemma3":
        values["window"] = fields.whole(name("attention.sliding_window"))
        values["global_every"] = fields.whole(name("attention.sliding_window_pattern"), 6)
        values["local_rope_theta"] = fields.number(name("rope.freq_base_swa"), 10_000.0)
    fields.finish(f"{architecture}.", _NO_PART)
    try:
        found = DecoderConfig(**values)
    except FlanError as error:
        raise FlanError(f"{fields.path}: {error}") from error
    return _with_frequencies(found, contents)


def _rows(fields: Fields, contents: Contents) -> int:
    """The number of rows of the embedding; the file can have fewer tokens."""
    table = contents.tensors.get(_EMBEDDING)
    return len(fields["tokenizer.ggml.tokens"]) if table is None else int(table.shape[-1])


def _is_tied(contents: Contents) -> bool:
    """Whether the head is the embedding: there is no head, or an equal one."""
    if _HEAD not in contents.tensors or _EMBEDDING not in contents.tensors:
        return True
    head, embedding = contents.tensors[_HEAD], contents.tensors[_EMBEDDING]
    return head.tensor_type == embedding.tensor_type and np.array_equal(head.data, embedding.data)


def _with_frequencies(c: DecoderConfig, contents: Contents) -> DecoderConfig:
    """Adds Llama 3's scaling. A file only has its factors, one for each pair of dimensions."""
    if _FREQUENCIES not in contents.tensors:
        return c
    factors = contents.load(_FREQUENCIES).ravel()
    unscaled = rotary.frequencies(c)[0]
    scaled = dataclasses.replace(
        c, rope_scaling="llama3", rope_scaling_factor=max(1.0, float(factors.max(initial=1))), **_LLAMA3
    )
    for candidate in (c, scaled):
        expected = unscaled / rotary.frequencies(candidate)[0]
        if c.rope_scaling == "none" and factors.shape == expected.shape and np.allclose(factors, expected, rtol=1e-4):
            return candidate
    raise FlanError(
        f"{contents.path} scales its rotary embedding by {_FREQUENCIES}, and not as Llama 3 does: this variant cannot "
        "be converted."
    )


def params(architecture: str, c: DecoderConfig, contents: Contents) -> dict[str, Any]:
    """The parameters, layers stacked on axis 0.

    Raises:
      FlanError: a tensor is missing, damaged or of another shape, or there are further tensors.
    """
    if c.num_layers > len(contents.tensors):
        raise FlanError(f"{contents.path} says {c.num_layers} layers, and has {len(contents.tensors)} tensors in all.")
    unread = set(contents.tensors) - {_FREQUENCIES, _HEAD}

    def load(leaf: Leaf, layer: int | None) -> np.ndarray:
        name = _NAMES["/".join(leaf.path[1:])].format(layer)
        unread.discard(name)
        array = contents.load(name)
        if leaf.path[-1] != "kernel":
            expected = (int(np.prod(leaf.shape)),) if "layers" in leaf.path else leaf.shape
        elif leaf.path[-2] == "out":
            expected = (leaf.shape[-1], int(np.prod(leaf.shape[:-1])))
        else:
            expected = (int(np.prod(leaf.shape[1:])), leaf.shape[0])
        if array.shape != expected:
            raise FlanError(
                f"{contents.path}: {name} has shape {array.shape}; by the file's fields it should be {expected}."
            )
        if architecture == "llama" and leaf.path[-2] in ("query", "key"):
            # Stored interleaved, as pairs (0, 1), (2, 3), ...; here they are halves.
            array = array.reshape(-1, c.head_dim // 2, 2, c.embed_dim).swapaxes(1, 2).reshape(array.shape)
        return (array.T if leaf.path[-1] == "kernel" else array).reshape(leaf.shape)

    found: dict[str, Any] = {}
    for leaf in leaves(c):
        *above, last = leaf.path
        inner = found
        for part in above:
            inner = inner.setdefault(part, {})
        arrays = [load(leaf, layer) for layer in leaf.layers]
        inner[last] = np.stack(arrays) if leaf.num_layers else arrays[0]
    if unread:  # biases, or frequencies of another rotary embedding; without them it would be another model
        raise FlanError(
            f"{contents.path} holds tensors that a plain {architecture} has not: {', '.join(sorted(unread)[:3])}; "
            "this variant cannot be converted."
        )
    return found

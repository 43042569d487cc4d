"""GGUF in: a file's shape, parameters and vocabulary. Parsing and dequantization are the gguf package's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.formats import gguf_tokenizer
from flan_jax.models import DecoderConfig


@dataclasses.dataclass(frozen=True)
class Gguf:
    """What a GGUF file holds.

    Attributes:
      config: the decoder's shape.
      params: float32 arrays at the paths of `flan_jax.models`, layers stacked on axis 0.
      tokenizer: the vocabulary.
      name: the model's name in the file.
    """

    config: DecoderConfig
    params: dict[str, Any]
    tokenizer: vocabularies.Tokenizer
    name: str


def read(path: str | Path) -> Gguf:
    """Reads a GGUF file of the architectures llama and gemma3, dequantized to float32.

    Raises:
      FlanError: the file is missing, broken, or of an architecture, a variant of one, or a vocabulary that is not
        covered.
    """
    try:
        reader = gguf.GGUFReader(str(path))
    except (OSError, ValueError, IndexError) as error:
        raise FlanError(f"{path} cannot be read as GGUF ({error}); download it again.") from error
    meta = {name: field.contents() for name, field in reader.fields.items()}
    architecture = meta.get("general.architecture")
    if architecture not in ("llama", "gemma3"):
        raise FlanError(f"{path} is of architecture {architecture!r}; llama and gemma3 can be converted.")
    meta = _Fields(path, meta)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    unread = set(tensors)

    def load(name: str) -> np.ndarray:
        if name not in tensors:
            raise FlanError(f"{path} lacks the tensor {name}; download it again.")
        unread.discard(name)
        tensor = tensors[name]
        return np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)

    tokenizer = gguf_tokenizer.read(meta, path)
    config = _config(architecture, meta, tensors, path)
    vocabularies.check_fits(tokenizer, config.vocab_size, str(path))
    params = _params(architecture, config, load)
    if unread:  # biases, frequencies of another rotary embedding: without them the model would be a different one
        raise FlanError(
            f"{path} holds tensors that a plain {architecture} has not: {', '.join(sorted(unread)[:3])}; "
            "this variant cannot be converted."
        )
    return Gguf(config, params, tokenizer, meta.get("general.name", ""))


class _Fields(dict):
    """A file's metadata; a field that is missing is the file's fault and ends in one line."""

    def __init__(self, path: str | Path, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise FlanError(f"{self._path} lacks the field {name}; download it again.")


def _rows(meta: Mapping[str, Any], tensors: Mapping[str, Any]) -> int:
    """Rows of the table of embeddings; the file can have fewer tokens."""
    table = tensors.get("token_embd.weight")
    return len(meta["tokenizer.ggml.tokens"]) if table is None else int(table.shape[-1])


def _config(architecture: str, meta: Mapping[str, Any], tensors: Mapping[str, Any], path: str | Path) -> DecoderConfig:
    def need(name: str) -> Any:
        return meta[f"{architecture}.{name}"]

    def get(name: str, default: Any = None) -> Any:
        return meta.get(f"{architecture}.{name}", default)

    heads, embed_dim = need("attention.head_count"), need("embedding_length")
    head_dim = get("attention.key_length", embed_dim // heads)
    if (scaling := get("rope.scaling.type", "none")) != "none":
        raise FlanError(
            f"{path} scales its rotary embedding ({architecture}.rope.scaling.type is {scaling!r}); not covered."
        )
    if (rotated := get("rope.dimension_count", head_dim)) != head_dim:
        raise FlanError(f"{path} rotates {rotated} of {head_dim} dimensions of a head; not covered.")
    common = {
        "vocab_size": _rows(meta, tensors),
        "num_layers": need("block_count"),
        "embed_dim": embed_dim,
        "num_heads": heads,
        "num_kv_heads": get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "mlp_dim": need("feed_forward_length"),
        "rope_theta": float(get("rope.freq_base", 10_000.0)),
        "norm_epsilon": float(np.float32(need("attention.layer_norm_rms_epsilon"))),
        "tied_embeddings": "output.weight" not in tensors,
    }
    if architecture == "llama":
        return DecoderConfig(**common, activation="silu")
    return DecoderConfig(
        **common,
        activation="gelu",
        local_rope_theta=10_000.0,  # fixed in the architecture; the file names the global one only
        window=need("attention.sliding_window"),
        global_every=6,  # likewise
        qk_norm=True,
        post_norms=True,
        scale_embeddings=True,
        attention_scale=common["head_dim"] ** -0.5,
    )


def _params(architecture: str, c: DecoderConfig, load: Callable[[str], np.ndarray]) -> dict[str, Any]:
    def stacked(name: str, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.stack([convert(load(f"blk.{i}.{name}.weight")) for i in range(c.num_layers)])

    def scale(name: str) -> dict[str, np.ndarray]:
        return {"scale": stacked(name, lambda w: w)}

    def heads_in(count: int, rotary: bool) -> Callable[[np.ndarray], np.ndarray]:
        def convert(w: np.ndarray) -> np.ndarray:  # [heads x K, D] -> [D, heads, K]
            w = w.reshape(count, c.head_dim, c.embed_dim)
            if rotary and architecture == "llama":  # stored interleaved: pairs (0, 1), (2, 3), ... -> halves
                w = w.reshape(count, c.head_dim // 2, 2, c.embed_dim).swapaxes(1, 2)
                w = w.reshape(count, c.head_dim, c.embed_dim)
            return w.transpose(2, 0, 1)

        return convert

    attention = {
        "query": {"kernel": stacked("attn_q", heads_in(c.num_heads, rotary=True))},
        "key": {"kernel": stacked("attn_k", heads_in(c.num_kv_heads, rotary=True))},
        "value": {"kernel": stacked("attn_v", heads_in(c.num_kv_heads, rotary=False))},
        "out": {"kernel": stacked("attn_output", lambda w: w.T.reshape(c.num_heads, c.head_dim, c.embed_dim))},
    }
    layers = {
        "pre_self_attention_layer_norm": scale("attn_norm"),
        "self_attention": attention,
        "pre_mlp_layer_norm": scale("ffn_norm"),
        "mlp": {
            "wi_0": {"kernel": stacked("ffn_gate", np.transpose)},
            "wi_1": {"kernel": stacked("ffn_up", np.transpose)},
            "wo": {"kernel": stacked("ffn_down", np.transpose)},
        },
    }
    if c.qk_norm:
        attention |= {"query_norm": scale("attn_q_norm"), "key_norm": scale("attn_k_norm")}
    if c.post_norms:
        layers |= {
            "post_self_attention_layer_norm": scale("post_attention_norm"),
            "post_mlp_layer_norm": scale("post_ffw_norm"),
        }
    decoder = {
        "token_embedder": {"embedding": load("token_embd.weight")},
        "layers": layers,
        "decoder_norm": {"scale": load("output_norm.weight")},
    }
    if not c.tied_embeddings:
        decoder["logits_dense"] = {"kernel": load("output.weight").T}
    return {"decoder": decoder}

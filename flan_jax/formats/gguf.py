"""GGUF in: a file's shape, parameters and vocabulary. Parsing and dequantization are the gguf package's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
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
    meta = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.chat")}
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

    tokenizer = _tokenizer(meta, path)
    config = _config(architecture, meta, tensors, path)
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
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
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


# ---------------------------------------------------------------------------------------------------- vocabulary

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # token types, as SentencePiece numbers them


def _tokenizer(meta: Mapping[str, Any], path: str | Path) -> vocabularies.Tokenizer:
    kind = meta.get("tokenizer.ggml.model")
    eos_id = int(meta["tokenizer.ggml.eos_token_id"])
    bos_id = int(meta["tokenizer.ggml.bos_token_id"]) if meta.get("tokenizer.ggml.add_bos_token") else None
    if kind == "llama":
        pad_id = int(meta.get("tokenizer.ggml.padding_token_id", 0))
        return vocabularies.SentencePieceTokenizer(_sentencepiece(meta), eos_id, bos_id, pad_id)
    if kind == "gpt2":
        return vocabularies.HuggingFaceTokenizer(_byte_level_bpe(meta, path), eos_id, bos_id)
    raise FlanError(f"{path} has a vocabulary of kind {kind!r}; llama (SentencePiece) and gpt2 (BPE) are covered.")


def _sentencepiece(meta: Mapping[str, Any]) -> bytes:
    """The SentencePiece model that the file's pieces, scores and types came from."""
    proto = sentencepiece_model_pb2.ModelProto()
    columns = (meta[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    unknown = int(meta.get("tokenizer.ggml.unknown_token_id", -1))
    for number, (text, score, kind) in enumerate(zip(*columns, strict=True)):
        if kind == _USER_DEFINED:
            text = text.replace(" ", "\u2581")  # the file shows these with plain spaces
        kind = _UNKNOWN if number == unknown else int(kind)
        proto.pieces.add(piece=text, score=float(score), type=kind)
    trainer = proto.trainer_spec
    trainer.model_type = sentencepiece_model_pb2.TrainerSpec.BPE
    trainer.vocab_size = len(proto.pieces)
    trainer.byte_fallback = any(piece.type == _BYTE for piece in proto.pieces)
    for name, key in (("unk", "unknown"), ("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        number = int(meta.get(f"tokenizer.ggml.{key}_token_id", -1))
        setattr(trainer, f"{name}_id", number)
        if number >= 0:
            setattr(trainer, f"{name}_piece", proto.pieces[number].piece)
    normalizer = proto.normalizer_spec
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = bool(meta.get("tokenizer.ggml.add_space_prefix", True))
    normalizer.remove_extra_whitespaces = False
    normalizer.escape_whitespaces = True
    return proto.SerializeToString()


# How text is cut before the merges, by the name in `tokenizer.ggml.pre`.
_PRE_TOKENIZERS = {
    "smollm": lambda: [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ],
    "gpt-2": lambda: [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)],
}


def _byte_level_bpe(meta: Mapping[str, Any], path: str | Path) -> bytes:
    """The tokenizer.json of a byte-level BPE."""
    pre = meta.get("tokenizer.ggml.pre")
    if pre not in _PRE_TOKENIZERS:
        raise FlanError(f"{path} cuts text as {pre!r} before its merges; covered: {', '.join(_PRE_TOKENIZERS)}.")
    tokens = meta["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_PRE_TOKENIZERS[pre]())
    tokenizer.decoder = decoders.ByteLevel()
    kinds = meta["tokenizer.ggml.token_type"]
    special = [t for t, kind in zip(tokens, kinds, strict=True) if kind in (_CONTROL, _USER_DEFINED)]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False).encode("utf-8")

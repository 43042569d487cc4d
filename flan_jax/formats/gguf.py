"""GGUF in: a file's shape, parameters and vocabulary. Parsing and dequantization are the gguf package's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.formats import gguf_files, gguf_tensors
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
    """Reads a GGUF file, or one that was split of which any part is given, dequantized to float32.

    Raises:
      FlanError: the file is missing, broken, or of an architecture, a variant of one, or a vocabulary that is not
        covered.
    """
    contents = gguf_files.read(Path(path))
    path = contents.path
    architecture = contents.fields.get("general.architecture")
    if architecture not in gguf_tensors.ARCHITECTURES:
        known = ", ".join(gguf_tensors.ARCHITECTURES)
        raise FlanError(f"{path} is of architecture {architecture!r}; {known} can be converted.")
    meta = gguf_files.Fields(path, contents.fields)
    tokenizer = _tokenizer(meta, path)
    config = gguf_tensors.config(architecture, meta, contents)
    params = gguf_tensors.params(architecture, config, contents)
    return Gguf(config, params, tokenizer, meta.get("general.name", ""))


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

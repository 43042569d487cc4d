"""The pipelines of transformers' tokenizer classes, built from vocabulary, merges and a few settings."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from flan_jax.errors import FlanError

AS_IT_IS, LLAMA, GEMMA, T5 = "TokenizersBackend", "LlamaTokenizer", "GemmaTokenizer", "T5Tokenizer"
GPT2, GPT_NEOX, QWEN2 = "GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer"
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Parts:
    """What the classes take from a folder's files."""

    def __init__(self) -> None:
        self.vocabulary: Any = None  # {text: id}; for a unigram model [(text, score)]
        self.merges: list[tuple[Any, ...]] = []  # pairs of pieces
        self.unknown_id: int | None = None
        self.byte_fallback = False
        self.charsmap: bytes | None = None
        self.proto: Any = None
        self.own_tokens: list[AddedToken] = []  # control and user-defined pieces

    def of_json(self, values: dict[str, Any]) -> None:
        """Reads them from the content of tokenizer.json."""
        model = values.get("model") or {}
        self.vocabulary = model.get("vocab")
        if isinstance(self.vocabulary, list):
            self.vocabulary = [tuple(item) for item in self.vocabulary]
        merges = model.get("merges") or []
        self.merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
        self.unknown_id, self.byte_fallback = model.get("unk_id"), bool(model.get("byte_fallback"))
        normalizer = values.get("normalizer") or {}
        for part in normalizer.get("normalizers", [normalizer]):
            if part.get("type") == "Precompiled" and self.charsmap is None:
                self.charsmap = base64.b64decode(part["precompiled_charsmap"])

    def of_sentencepiece(self, path: Path) -> None:
        """Reads them from a SentencePiece model.

        Raises:
          FlanError: it is not one, or of a kind that is not supported.
        """
        try:
            self.proto = proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
        except Exception:  # protobuf's own error, which differs between its implementations
            proto = None
        if proto is None or not proto.pieces:
            raise FlanError(
                f"{path} is no SentencePiece model (Llama 3 has one of tiktoken under that name): copy the model's "
                "tokenizer.json there."
            )
        trainer = proto.trainer_spec
        pieces = [(piece.piece, piece.score) for piece in proto.pieces]
        if trainer.model_type == sentencepiece_model_pb2.TrainerSpec.UNIGRAM:
            self.vocabulary = pieces
        elif trainer.model_type == sentencepiece_model_pb2.TrainerSpec.BPE:
            self.vocabulary = {text: number for number, (text, _) in enumerate(pieces)}
            self.merges = merges_of(self.vocabulary)
        else:
            raise FlanError(f"{path} is a SentencePiece model of words or characters; unigram and BPE are covered.")
        self.unknown_id, self.byte_fallback = trainer.unk_id, trainer.byte_fallback
        self.charsmap = proto.normalizer_spec.precompiled_charsmap or None
        kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
        self.own_tokens = [
            AddedToken(piece.piece, normalized=False, special=piece.type == kinds.CONTROL)
            for piece in proto.pieces
            if piece.type in (kinds.CONTROL, kinds.USER_DEFINED)
        ]

    def of_merges(self, folder: Path) -> None:
        """Reads them from vocab.json and merges.txt."""
        self.vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        for line in (folder / "merges.txt").read_text(encoding="utf-8").split("\n"):
            line = line.strip()
            if line and not line.startswith("#version"):
                self.merges.append(tuple(line.split()))


def merges_of(vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """The merges that a SentencePiece BPE vocabulary implies.

    These are all splits of a piece into two pieces, in the order of the pieces.

    Example:
      >>> merges_of({"a": 0, "b": 1, "ab": 2})
      [('a', 'b')]
    """
    found = []
    for text, number in vocabulary.items():
        for at in range(1, len(text)):
            left, right = text[:at], text[at:]
            if left in vocabulary and right in vocabulary:
                found.append((number, len(left), len(right), vocabulary[left], vocabulary[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def sentinels(settings: Mapping[str, Any]) -> int:
    """The number of `<extra_id_...>` tokens of a T5, with transformers' default if the files say nothing."""
    return int(settings.get("extra_ids", 100))


def built(
    folder: Path,
    kind: str,
    parts: Parts,
    settings: Mapping[str, Any],
    named: Mapping[str, Any],
    config: Mapping[str, Any],
) -> Tokenizer:
    """The pipeline of a class, or of a SentencePiece model without a class."""
    if kind not in (AS_IT_IS, T5) and isinstance(parts.vocabulary, list):
        raise FlanError(f"{folder} has a SentencePiece unigram model, which transformers' {kind} cannot run.")
    if kind == T5 and not isinstance(parts.vocabulary, list):
        raise FlanError(f"{folder} has a SentencePiece BPE model, which transformers' {kind} cannot run.")
    if kind == T5:
        return _t5(parts, settings, config)
    if kind == AS_IT_IS:
        return _of_proto(parts, settings)
    vocabulary, prefix = parts.vocabulary, settings.get("add_prefix_space")
    if kind == LLAMA:
        model = models.BPE(vocabulary, parts.merges, fuse_unk=True, byte_fallback=True)
        tokenizer = Tokenizer(model)
        prefix = True if prefix is None else bool(prefix)
        scheme = "never" if not prefix else "always" if settings.get("legacy", False) else "first"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        strip = [decoders.Strip(content=" ", left=1)] if prefix else []
        tokenizer.decoder = decoders.Sequence([*_spaces_and_bytes(), *strip])
        return tokenizer
    if kind == GEMMA:
        unknown = str(named.get("unk_token", "<unk>"))
        model = models.BPE(vocabulary, parts.merges, fuse_unk=True, unk_token=unknown, byte_fallback=True)
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.decoder = decoders.Sequence(_spaces_and_bytes())
        return tokenizer
    model = models.BPE(vocabulary, parts.merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.ByteLevel()
    words = pre_tokenizers.ByteLevel(add_prefix_space=bool(prefix))
    if kind != GPT2:
        tokenizer.normalizer = normalizers.NFC()
    if kind == GPT_NEOX:
        words = pre_tokenizers.ByteLevel(
            add_prefix_space=bool(prefix), trim_offsets=bool(settings.get("trim_offsets", True))
        )
    if kind == QWEN2:
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=bool(prefix), use_regex=False)
        words = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_QWEN2_WORDS), "isolated"), as_bytes])
    tokenizer.pre_tokenizer = words
    return tokenizer


def _spaces_and_bytes() -> list[Any]:
    return [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def _t5(parts: Parts, settings: Mapping[str, Any], config: Mapping[str, Any]) -> Tokenizer:
    pieces = list(parts.vocabulary)
    if parts.proto is not None:
        further = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(sentinels(settings)))]
        pieces += further[: max(0, config.get("vocab_size", len(pieces) + 100) - len(pieces))]
    # transformers writes 2 and False here. Other T5 models (MADLAD) have their own values, which their files say.
    unknown = 2 if parts.unknown_id is None else parts.unknown_id
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=unknown, byte_fallback=parts.byte_fallback))
    if parts.charsmap is not None:
        tokenizer.normalizer = normalizers.Precompiled(parts.charsmap)
    marked = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marked])
    spaces = decoders.Metaspace(prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), spaces]) if parts.byte_fallback else spaces
    return tokenizer


def _of_proto(parts: Parts, settings: Mapping[str, Any]) -> Tokenizer:
    """The pipeline of a SentencePiece model without a class: what SentencePiece itself does, by its own settings.

    transformers does so since 5.24. Before, it left out the space that most of these models put before a text.
    """
    trainer, spec = parts.proto.trainer_spec, parts.proto.normalizer_spec
    if isinstance(parts.vocabulary, dict):
        model = models.BPE(
            parts.vocabulary,
            parts.merges,
            unk_token=trainer.unk_piece,
            fuse_unk=True,
            byte_fallback=trainer.byte_fallback,
        )
    else:
        model = models.Unigram(parts.vocabulary, unk_id=trainer.unk_id, byte_fallback=trainer.byte_fallback)
    tokenizer = Tokenizer(model)
    steps: list[Any] = [normalizers.Precompiled(parts.charsmap)] if parts.charsmap else []
    if spec.remove_extra_whitespaces:  # spaces alone: line breaks and tabs stay
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" +"), " ")]
    if spec.escape_whitespaces:
        steps.append(normalizers.Replace(" ", "▁"))
    legacy = settings.get("legacy", True)
    if spec.add_dummy_prefix and legacy:  # before each piece of text between added tokens
        steps.append(normalizers.Prepend("▁"))
    elif spec.add_dummy_prefix:  # before the first alone
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.normalizer = normalizers.Sequence(steps)
    back = _spaces_and_bytes() if trainer.byte_fallback else [decoders.Replace("▁", " "), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*back, *([decoders.Strip(" ", 1, 0)] if spec.add_dummy_prefix else [])])
    return tokenizer

"""The vocabulary of a GGUF file, by the rules of llama.cpp. What a file does not say follows from its kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from flan_jax.data import chat, vocabularies
from flan_jax.data.chat import Chat
from flan_jax.errors import FlanError

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # token types, numbered as in SentencePiece
_PREFIX = "tokenizer.ggml."

# Tokens whose text ends a generation, whatever the file says about EOS. Chat models end their turns with them.
# fmt: off
_ENDS = frozenset((
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<｜end▁of▁sentence｜>",
))
# fmt: on


def read(meta: Mapping[str, Any], path: str | Path) -> vocabularies.Tokenizer:
    """The vocabulary in a file's metadata.

    Args:
      meta: all fields of the file whose names start with "tokenizer."; looking up a missing one raises.
      path: the file, for error messages.

    Raises:
      FlanError: a kind or a setting that is not supported.
    """
    kind = meta[f"{_PREFIX}model"]
    if kind not in ("llama", "gpt2"):
        raise FlanError(f"{path} has a vocabulary of kind {kind!r}; llama (SentencePiece) and gpt2 (BPE) are covered.")
    if meta.get(f"{_PREFIX}add_eos_token"):
        raise FlanError(f"{path}: {_PREFIX}add_eos_token is set, so that every prompt would end with EOS; clear it.")
    texts, kinds = list(meta[f"{_PREFIX}tokens"]), list(meta[f"{_PREFIX}token_type"])
    if len(texts) != len(kinds):
        raise FlanError(f"{path} has {len(texts)} tokens and {len(kinds)} token types; download it again.")
    # llama.cpp takes these for control tokens whatever their type, because older converters wrote them as plain words.
    # It does the same with "</s>"; here that stays text, since Gemma has it for HTML.
    kinds = [
        _CONTROL if text in _ENDS and text.startswith("<|") else kind for text, kind in zip(texts, kinds, strict=True)
    ]
    texts = [text or f"[EMPTY_{number}]" for number, text in enumerate(texts)]  # llama.cpp names them so
    if len(set(texts)) < len(texts):
        twice = next(text for number, text in enumerate(texts) if text in texts[:number])
        raise FlanError(f"{path} has the token {twice!r} twice; download it again.")
    # Defaults of llama.cpp for a SentencePiece vocabulary. For BPE they would be GPT-2's, and wrong for all other
    # models.
    defaults = {"bos": 1, "eos": 2, "unknown": 0} if kind == "llama" else {}

    def special(name: str) -> int | None:
        number = meta.get(f"{_PREFIX}{name}_token_id", defaults.get(name))
        if number is not None and not 0 <= int(number) < len(texts):
            raise FlanError(f"{path}: {_PREFIX}{name}_token_id is {number}, which is none of its {len(texts)} tokens.")
        return None if number is None else int(number)

    eos_id = special("eos")
    if eos_id is None:
        raise FlanError(f"{path} lacks the field {_PREFIX}eos_token_id; download it again.")
    pre = meta.get(f"{_PREFIX}pre")
    adds_bos = meta.get(f"{_PREFIX}add_bos_token", kind == "llama" or pre in _WITH_BOS)
    bos_id = special("bos") if adds_bos else None
    if adds_bos and bos_id is None:
        raise FlanError(f"{path} lacks the field {_PREFIX}bos_token_id, though texts begin with it; download it again.")
    ends = [number for number, text in enumerate(texts) if text in _ENDS and kinds[number] == _CONTROL]
    stop_ids = [number for name in ("eot", "eom") if (number := special(name)) is not None] + ends
    named = {"bos_token": special("bos"), "eos_token": eos_id}
    named |= {"unk_token": special("unknown"), "pad_token": special("padding")}
    templates = _chat(meta, {name: texts[number] for name, number in named.items() if number is not None}, path)
    if kind == "llama":
        pad_id = special("padding") or 0
        content = _sentencepiece(
            meta, texts, kinds, {name: special(name) for name in ("unknown", "bos", "eos", "padding")}
        )
        return vocabularies.SentencePieceTokenizer(content, eos_id, bos_id, pad_id, stop_ids, templates)
    content = _byte_level_bpe(meta, texts, kinds, pre, bos_id, path)
    return vocabularies.HuggingFaceTokenizer(content, eos_id, bos_id, 0, stop_ids, templates)


def _chat(meta: Mapping[str, Any], special_tokens: Mapping[str, str], path: str | Path) -> Chat | None:
    """The chat templates of a file: a default one, and others by name."""
    prefix = "tokenizer.chat_template"
    found = {}
    for name, text in meta.items():
        if name == prefix or name.startswith(f"{prefix}."):
            if not isinstance(text, str):
                raise FlanError(f"{path}: {name} is no text; download it again.")
            found[name.removeprefix(prefix).removeprefix(".") or chat.DEFAULT] = text
    return Chat(found, dict(special_tokens)) if found else None


def _sentencepiece(
    meta: Mapping[str, Any], texts: list[str], kinds: list[int], special: Mapping[str, int | None]
) -> bytes:
    """The SentencePiece model from which the file's pieces, scores and types came."""
    proto = sentencepiece_model_pb2.ModelProto()
    for number, (text, score, kind) in enumerate(zip(texts, meta[f"{_PREFIX}scores"], kinds, strict=True)):
        if kind == _USER_DEFINED:
            text = text.replace(" ", "\u2581")  # the file shows these with plain spaces
        kind = _UNKNOWN if number == special["unknown"] else int(kind)
        proto.pieces.add(piece=text, score=float(score), type=kind)
    trainer = proto.trainer_spec
    trainer.model_type = sentencepiece_model_pb2.TrainerSpec.BPE
    trainer.vocab_size = len(proto.pieces)
    trainer.byte_fallback = any(piece.type == _BYTE for piece in proto.pieces)
    for name, key in (("unk", "unknown"), ("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        number = -1 if special[key] is None else special[key]
        setattr(trainer, f"{name}_id", number)
        if number >= 0:
            setattr(trainer, f"{name}_piece", proto.pieces[number].piece)
    normalizer = proto.normalizer_spec
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = bool(meta.get(f"{_PREFIX}add_space_prefix", True))
    normalizer.remove_extra_whitespaces = False
    normalizer.escape_whitespaces = True
    return proto.SerializeToString()


# ---------------------------------------------------------------------------------------- byte-level BPE

_CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORDS = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _gpt2() -> list[Any]:
    return [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]


def _with_digits() -> list[Any]:
    return [pre_tokenizers.Digits(individual_digits=True), *_gpt2()]


def _cut_by(pattern: str) -> Callable[[], list[Any]]:
    as_bytes = {"add_prefix_space": False, "use_regex": False}
    return lambda: [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(**as_bytes)]


# How text is split before the merges, by the name in `tokenizer.ggml.pre`.
_PRE_TOKENIZERS: dict[str, Callable[[], list[Any]]] = {"smollm": _with_digits, "starcoder": _with_digits}
_PRE_TOKENIZERS |= {"refact": _with_digits, "command-r": _with_digits}
_PRE_TOKENIZERS |= {"gpt-2": _gpt2, "olmo": _gpt2, "mpt": _gpt2, "phi-2": _gpt2}
_LLAMA3 = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "lfm2")
_PRE_TOKENIZERS |= dict.fromkeys((*_LLAMA3, "dbrx", "smaug-bpe"), _cut_by(_WORDS.replace("DIGITS", r"\p{N}{1,3}")))
_PRE_TOKENIZERS |= dict.fromkeys(
    ("qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2"), _cut_by(_WORDS.replace("DIGITS", r"\p{N}"))
)
_PRE_TOKENIZERS["tekken"] = _cut_by(_TEKKEN)
# With these, texts begin with BOS if the file says nothing, and a word that is a token stays whole.
_WITH_BOS = _WHOLE_WORDS = {*_LLAMA3, "tekken"}


def _byte_level_bpe(
    meta: Mapping[str, Any], texts: list[str], kinds: list[int], pre: Any, bos_id: int | None, path: str | Path
) -> bytes:
    """The tokenizer.json of a byte-level BPE."""
    if pre not in _PRE_TOKENIZERS:
        raise FlanError(f"{path} cuts text as {pre!r} before its merges; covered: {', '.join(_PRE_TOKENIZERS)}.")
    merges = [(merge[:at], merge[at + 1 :]) for merge in meta[f"{_PREFIX}merges"] if (at := merge.find(" ", 1)) > 0]
    whole = {"ignore_merges": True} if pre in _WHOLE_WORDS else {}
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(texts)}, merges=merges, **whole))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_PRE_TOKENIZERS[pre]())
    tokenizer.decoder = decoders.ByteLevel()
    # Both are found in a text before it is split; only control tokens stand for no text.
    for wanted, is_special in ((_CONTROL, True), (_USER_DEFINED, False)):
        found = [text for text, kind in zip(texts, kinds, strict=True) if kind == wanted]
        tokenizer.add_tokens([AddedToken(text, special=is_special, normalized=False) for text in found])
    if bos_id is not None:
        bos = texts[bos_id]
        tokenizer.post_processor = processors.TemplateProcessing([bos, "$A"], None, [(bos, bos_id)])
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False).encode("utf-8")

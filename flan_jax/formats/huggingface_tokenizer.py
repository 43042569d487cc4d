"""Tokenizers of Hugging Face folders, both ways: tokenizer.json, or a SentencePiece model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2

from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.formats.huggingface_config import GEMMA3, T5
from flan_jax.formats.huggingface_fields import GEMMA2

_SETTINGS = "vocabulary.json"  # ours, beside their files: the special ids exactly as they were
_BYTES = "ByT5Tokenizer"  # has the ids of our bytes


def read(folder: Path, family: str, config: dict[str, Any]) -> vocabularies.Tokenizer:
    """The vocabulary of a folder. T5's SentencePiece model goes before its tokenizer.json; with others it is reversed.

    Raises:
      FlanError: no tokenizer that can be read is there.
    """
    settings = _json(folder / "tokenizer_config.json")
    ours = _json(folder / _SETTINGS)
    if settings.get("tokenizer_class") == _BYTES or ours.get("kind") == "bytes":
        return vocabularies.ByteTokenizer()
    models = [folder / name for name in ("spiece.model", "tokenizer.model") if (folder / name).is_file()]
    fast = folder / "tokenizer.json"
    try:
        if models and (family == T5 or not fast.is_file() or ours.get("kind") == "sentencepiece"):
            return _sentencepiece(models[0], family, settings, ours)
        if fast.is_file():
            return _huggingface(fast, settings, ours, config)
    except FlanError:
        raise
    except Exception as error:  # the libraries raise bare Exception, RuntimeError and what not
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FlanError(f"the tokenizer in {folder} cannot be read ({reason}); get it again.") from error
    raise FlanError(
        f"{folder} has no tokenizer.json, spiece.model or tokenizer.model: copy the model's own there "
        "(vocab.json with merges.txt: save it with transformers' AutoTokenizer first)."
    )


def _sentencepiece(path: Path, family: str, settings: dict, ours: dict) -> vocabularies.Tokenizer:
    content = path.read_bytes()
    if ours:
        return vocabularies.SentencePieceTokenizer(content, ours["eos_id"], ours["bos_id"], ours["pad_id"])
    pieces = sentencepiece.SentencePieceProcessor()
    pieces.LoadFromSerializedProto(content)
    adds_bos = settings.get("add_bos_token", family != T5)
    return vocabularies.SentencePieceTokenizer(content, bos_id=pieces.bos_id() if adds_bos else None)


def _huggingface(path: Path, settings: dict, ours: dict, config: dict) -> vocabularies.Tokenizer:
    content = path.read_bytes()
    if ours:
        return vocabularies.HuggingFaceTokenizer(content, ours["eos_id"], ours["bos_id"], ours["pad_id"])
    tokens = tokenizers.Tokenizer.from_str(content.decode("utf-8"))

    def special(name: str) -> int | None:
        text = settings.get(f"{name}_token")
        text = text.get("content") if isinstance(text, dict) else text
        if text is not None:
            return tokens.token_to_id(text)
        number = config.get(f"{name}_token_id")
        return number[0] if isinstance(number, list) else number

    eos, bos, pad = special("eos"), special("bos"), special("pad")
    if eos is None:
        raise FlanError(f"{path.parent}: neither tokenizer_config.json nor config.json names an end of sequence.")
    added = tokens.encode("a").ids[:1]
    if bos is None or (added != [bos] and not settings.get("add_bos_token")):
        bos = None  # the model was trained without
    return vocabularies.HuggingFaceTokenizer(content, eos, bos, 0 if pad is None else pad)


def write(tokenizer: vocabularies.Tokenizer, folder: Path, family: str) -> None:
    """Writes what AutoTokenizer reads and gives the same ids, and our special ids beside it."""
    tokenizer.save(folder)  # vocabulary.json, and the content under our names
    settings: dict[str, Any] = {"clean_up_tokenization_spaces": False}
    if tokenizer.kind == "bytes":
        settings |= {"tokenizer_class": _BYTES, "extra_ids": 0}
    elif tokenizer.kind == "sentencepiece":
        name = "spiece.model" if family == T5 else "tokenizer.model"
        (folder / "sentencepiece.model").replace(folder / name)
        proto = sentencepiece_model_pb2.ModelProto.FromString((folder / name).read_bytes())
        unigram = proto.trainer_spec.model_type == sentencepiece_model_pb2.TrainerSpec.UNIGRAM
        if unigram != (family == T5):  # transformers would read the pieces and cut text in another way
            raise FlanError(
                f"transformers has no tokenizer for a SentencePiece {'unigram' if unigram else 'BPE'} vocabulary with "
                f"{family}: this model cannot be exported."
            )
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
        kind = {T5: "T5Tokenizer", GEMMA2: "GemmaTokenizer", GEMMA3: "GemmaTokenizer"}.get(family, "LlamaTokenizer")
        settings |= {"tokenizer_class": kind, "add_bos_token": tokenizer.bos_id is not None}
        settings |= _special_tokens(tokenizer, pieces.id_to_piece)
        if kind == "T5Tokenizer":
            settings["extra_ids"] = 100
        else:
            settings |= {"unk_token": pieces.id_to_piece(pieces.unk_id()), "add_eos_token": False, "legacy": False}
            settings["add_prefix_space"] = proto.normalizer_spec.add_dummy_prefix
    else:
        tokens = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast"} | _special_tokens(tokenizer, tokens.id_to_token)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


def _special_tokens(tokenizer: vocabularies.Tokenizer, text_of: Any) -> dict[str, str]:
    ids = {"eos": tokenizer.eos_id, "bos": tokenizer.bos_id, "pad": tokenizer.pad_id}
    return {f"{name}_token": text_of(number) for name, number in ids.items() if number is not None}


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise FlanError(f"{path} is no JSON ({error}); get it again from where it came.") from error

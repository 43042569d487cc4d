"""Reads and writes tokenizers of Hugging Face folders, so that they do the same as transformers' AutoTokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2

from flan_jax.data import chat, vocabularies
from flan_jax.data.chat import Chat
from flan_jax.errors import FlanError
from flan_jax.formats import huggingface_backend
from flan_jax.formats.huggingface_config import GEMMA3, T5
from flan_jax.formats.huggingface_fields import GEMMA2
from flan_jax.formats.huggingface_files import GENERATION

_BYTES = "ByT5Tokenizer"  # has the same ids as our bytes
_PICTURE = "<image_soft_token>"  # Gemma 3's id for pictures, for which text-only models have no embedding


def read(folder: Path, family: str, config: dict[str, Any]) -> vocabularies.Tokenizer:
    """The vocabulary of a folder, with the ids that end a generation and the chat templates.

    Raises:
      FlanError: there is no readable tokenizer, or a setting of its files is not supported.
    """
    settings = huggingface_backend.json_object(folder / "tokenizer_config.json")
    ours = huggingface_backend.json_object(folder / vocabularies.SETTINGS)
    try:
        if ours:
            return _written_here(folder, ours)
        if settings.get("tokenizer_class") == _BYTES:
            return vocabularies.ByteTokenizer(_stop_ids(folder, config), _chat(folder, settings, {}))
        return _as_in_transformers(folder, family, config, settings)
    except FlanError:
        raise
    except Exception as error:  # the libraries raise bare Exception, RuntimeError and others
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FlanError(f"the tokenizer in {folder} cannot be read ({reason}); get it again.") from error


def _written_here(folder: Path, ours: dict[str, Any]) -> vocabularies.Tokenizer:
    """Reads what `write` wrote: the content under transformers' names, our settings beside it."""
    names = {"sentencepiece": ("spiece.model", "tokenizer.model"), "huggingface": ("tokenizer.json",)}
    paths = [folder / name for name in names.get(ours["kind"], ())]
    content = next((path.read_bytes() for path in paths if path.is_file()), None)
    if content is None and paths:
        raise FlanError(f"{folder} lacks {paths[0].name}, which {vocabularies.SETTINGS} names; get it again.")
    return vocabularies.of_settings(ours, content or b"", folder)


def _as_in_transformers(
    folder: Path, family: str, config: dict[str, Any], settings: dict[str, Any]
) -> vocabularies.Tokenizer:
    where = folder / "tokenizer_config.json"
    if [name for name in settings.get("fast_tokenizer_files") or () if name != "tokenizer.json"]:
        raise FlanError(f"{where}: fast_tokenizer_files names files for other versions; leave tokenizer.json alone.")
    if settings.get("fix_mistral_regex"):
        raise FlanError(
            f"{where}: fix_mistral_regex is not covered; save the tokenizer with transformers and that set."
        )
    if given := next((name for name in ("vocab", "merges") if name in settings), None):
        raise FlanError(
            f"{where}: {given} is not covered here; take it out, and leave it to the tokenizer's own files."
        )
    own_code = settings.get("auto_map")
    if own_code and (not isinstance(own_code, dict) or own_code.get("AutoTokenizer")):
        raise FlanError(
            f"{where}: auto_map names code of the folder's own, which is not run; save the tokenizer with transformers "
            "as a PreTrainedTokenizerFast, and take auto_map out."
        )
    backend = huggingface_backend.read(folder, config.get("model_type") or family, config, settings)
    content = _without_picture(backend.content, family, config)
    tokens = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
    stops = _stop_ids(folder, config)
    named = backend.special_tokens
    eos = tokens.token_to_id(named["eos_token"]) if "eos_token" in named else next(iter(stops), None)
    if eos is None:
        raise FlanError(f"{folder}: neither tokenizer_config.json nor config.json names an end of sequence.")
    bos = _added_around(backend.tokenizer, folder, family, eos)
    pad = tokens.token_to_id(named["pad_token"]) if "pad_token" in named else config.get("pad_token_id")
    is_bpe = type(backend.tokenizer.model).__name__ == "BPE"
    forced = settings.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output")
    found = vocabularies.HuggingFaceTokenizer(
        content,
        eos,
        bos,
        pad if isinstance(pad, int) and pad >= 0 else 0,
        stops,
        _chat(folder, settings, named),
        cleans_up=bool(settings.get("clean_up_tokenization_spaces") and (forced or not is_bpe)),
        splits_special=bool(settings.get("split_special_tokens")),
    )
    found.decode(found.encode(["a\u0001\u2603 "])[0])  # a vocabulary without an unknown token fails here and not later
    return found


def _added_around(tokens: tokenizers.Tokenizer, folder: Path, family: str, eos: int) -> int | None:
    """The BOS that transformers puts before a text, if any. Refuses other tokens around texts."""
    encoding = tokens.encode("a")
    is_added = [bool(mask) for mask in encoding.special_tokens_mask]
    count = len(tokens.encode("a", add_special_tokens=False).ids)
    start = is_added.index(False) if count else len(is_added)
    before, after = encoding.ids[:start], encoding.ids[start + count :]
    if family == T5:
        if before or after not in ([], [eos]):
            raise FlanError(f"{folder}: the tokenizer adds tokens around an encoder's text; only its end can be added.")
        return None
    if len(before) > 1 or after:
        added = ", ".join(str(tokens.id_to_token(i)) for i in (*before, *after))
        raise FlanError(
            f"{folder}: the tokenizer adds {added} around every text; only a BOS before it can be added: change its "
            "post_processor, or add_eos_token."
        )
    return before[0] if before else None


def _stop_ids(folder: Path, config: Mapping[str, Any]) -> list[int]:
    """All EOS ids of generation_config.json, or of config.json if it names none, as in transformers."""
    for name, values in ((GENERATION, huggingface_backend.json_object(folder / GENERATION)), ("config.json", config)):
        numbers = values.get("eos_token_id")
        found = numbers if isinstance(numbers, list) else [] if numbers is None else [numbers]
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in found):
            raise FlanError(f"{folder / name}: eos_token_id is {numbers!r}; it must be a token id, or a list of them.")
        if found := [number for number in found if number >= 0]:  # -1 is an old way to write that there is none
            return list(dict.fromkeys(found))
    return []


def _chat(folder: Path, settings: Mapping[str, Any], special_tokens: Mapping[str, str]) -> Chat | None:
    """The chat templates of a folder: files come before tokenizer_config.json."""
    templates = chat.templates_in(folder)
    given = settings.get("chat_template")
    if not templates:
        given = given or huggingface_backend.json_object(folder / "chat_template.json").get("chat_template")
        if isinstance(given, str):
            templates = {chat.DEFAULT: given}
        elif isinstance(given, list) and all(
            isinstance(one, dict) and {"name", "template"} <= set(one) for one in given
        ):
            templates = {one["name"]: one["template"] for one in given}
        elif isinstance(given, dict):
            templates = dict(given)
        elif given:
            raise FlanError(f"{folder / 'tokenizer_config.json'}: chat_template is neither a text nor a list of them.")
    if not all(isinstance(text, str) for pair in templates.items() for text in pair):
        raise FlanError(f"{folder / 'tokenizer_config.json'}: a name or a text of chat_template is no text.")
    if half := next((name for name, text in templates.items() if re.search("[\ud800-\udfff]", text)), None):
        raise FlanError(
            f"{folder / 'tokenizer_config.json'}: the chat template {half!r} holds half a character (a lone "
            "surrogate): correct it."
        )
    return Chat(templates, dict(special_tokens)) if templates else None


def _without_picture(content: bytes, family: str, config: Mapping[str, Any]) -> bytes:
    """tokenizer.json without Gemma 3's token for pictures, if the model has no embedding for it."""
    if family != GEMMA3 or _PICTURE.encode() not in content:
        return content
    values = json.loads(content)
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size") or 0
    kept = [token for token in values["added_tokens"] if token["content"] != _PICTURE or token["id"] < size]
    if len(kept) == len(values["added_tokens"]):
        return content
    values["added_tokens"] = kept
    values["model"]["vocab"].pop(_PICTURE, None)
    return json.dumps(values, ensure_ascii=False).encode()


def write(tokenizer: vocabularies.Tokenizer, folder: Path, family: str) -> None:
    """Writes files that AutoTokenizer reads with the same ids, and our special ids beside them."""
    tokenizer.save(folder)  # vocabulary.json, the content under our names, the chat templates under transformers' names
    settings: dict[str, Any] = {"clean_up_tokenization_spaces": False}
    if tokenizer.kind == "bytes":
        settings |= {"tokenizer_class": _BYTES, "extra_ids": 0}
    elif tokenizer.kind == "sentencepiece":
        name = "spiece.model" if family == T5 else "tokenizer.model"
        (folder / "sentencepiece.model").replace(folder / name)
        proto = sentencepiece_model_pb2.ModelProto.FromString((folder / name).read_bytes())
        unigram = proto.trainer_spec.model_type == sentencepiece_model_pb2.TrainerSpec.UNIGRAM
        if unigram != (family == T5):  # transformers would read the pieces but split text differently
            raise FlanError(
                f"transformers has no tokenizer for a SentencePiece {'unigram' if unigram else 'BPE'} vocabulary with "
                f"{family}: this model cannot be exported."
            )
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
        kind = {T5: "T5Tokenizer", GEMMA2: "GemmaTokenizer", GEMMA3: "GemmaTokenizer"}.get(family, "LlamaTokenizer")
        settings |= {"tokenizer_class": kind, "add_bos_token": tokenizer.bos_id is not None}
        shown = range(pieces.vocab_size())
        texts = {i: pieces.id_to_piece(i) for i in shown if pieces.is_control(i) or pieces.is_unknown(i)}
        settings |= _special_tokens(tokenizer, texts, pieces.id_to_piece(tokenizer.eos_id))
        if kind == "T5Tokenizer":
            settings["extra_ids"] = 100
        else:
            settings |= {"unk_token": pieces.id_to_piece(pieces.unk_id()), "add_eos_token": False, "legacy": False}
            settings["add_prefix_space"] = proto.normalizer_spec.add_dummy_prefix
    else:
        tokens = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        added = {number: token.content for number, token in tokens.get_added_tokens_decoder().items() if token.special}
        eos = next(t for t, i in tokenizer.control_ids.items() if i == tokenizer.eos_id)
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast"} | _special_tokens(tokenizer, added, eos)
        if not huggingface_backend.runs_as_it_is(family, tokens):
            raise FlanError(
                f"transformers cuts text for {family} in its own way, whatever tokenizer.json says, and this "
                "vocabulary in another: this model cannot be exported."
            )
        ours = huggingface_backend.json_object(folder / vocabularies.SETTINGS)
        settings["clean_up_tokenization_spaces"] = ours.get("cleans_up", False)
        settings["split_special_tokens"] = ours.get("splits_special", False)
    if tokenizer.chat is not None:  # its templates may use these, and may behave differently with one more
        named = dict(tokenizer.chat.special_tokens)
        for name in {"bos_token", "pad_token"} - set(named):
            settings.pop(name, None)
        settings |= named
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    if len(tokenizer.stop_ids) > 1:
        generation = {"eos_token_id": list(tokenizer.stop_ids), "pad_token_id": tokenizer.pad_id}
        generation |= {} if tokenizer.bos_id is None else {"bos_token_id": tokenizer.bos_id}
        generation |= {"decoder_start_token_id": tokenizer.pad_id} if family == T5 else {}
        (folder / GENERATION).write_text(json.dumps(generation, indent=1) + "\n")


def _special_tokens(tokenizer: vocabularies.Tokenizer, texts: Mapping[int, str], eos: str) -> dict[str, str]:
    """The special tokens by name.

    A BOS or padding that is also text is left out, because a name removes it from texts.
    """
    named = {"bos_token": texts.get(tokenizer.bos_id), "pad_token": texts.get(tokenizer.pad_id)}
    return {"eos_token": eos} | {name: text for name, text in named.items() if text is not None}

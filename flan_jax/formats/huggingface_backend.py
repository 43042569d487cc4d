"""The pipeline that transformers builds from a folder's tokenizer files: by its class, or from tokenizer.json.

Some classes of transformers take vocabulary, merges and post-processor from tokenizer.json and set the rest themselves;
others run the file as it is. `tokenizer_class` and the model decide which one is used.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from flan_jax.errors import FlanError
from flan_jax.formats.huggingface_pipelines import (
    AS_IT_IS,
    GEMMA,
    GPT2,
    GPT_NEOX,
    LLAMA,
    QWEN2,
    T5,
    Parts,
    built,
    sentinels,
)

# The class that transformers has for a model. Models without one run tokenizer.json as it is.
_OF_MODEL = {"qwen2": QWEN2, "qwen3": QWEN2, "t5": T5, "mt5": T5}
_OF_MODEL |= dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), GEMMA)
_WHATEVER_THE_FOLDER_SAYS = {"qwen2"}
_UNREGISTERED = {"llama"}  # transformers has no class for it and takes the one that the folder names
_OTHER_NAMES = {"PreTrainedTokenizer": AS_IT_IS, "PythonBackend": AS_IT_IS, "BloomTokenizer": AS_IT_IS}
_OTHER_NAMES |= {"MT5Tokenizer": T5}

# The tokens of a class if the files say nothing.
_STANDARD = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_END = "<|endoftext|>"
_DEFAULT_TOKENS: dict[str, dict[str, str]] = {
    AS_IT_IS: {},
    LLAMA: {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    GEMMA: {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
    T5: {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    GPT2: {"bos_token": _END, "eos_token": _END, "unk_token": _END},
    GPT_NEOX: {"bos_token": _END, "eos_token": _END, "unk_token": _END, "pad_token": "<|padding|>"},
    QWEN2: {"eos_token": _END, "unk_token": _END, "pad_token": _END},
}


@dataclasses.dataclass(frozen=True)
class Backend:
    """A pipeline and its named tokens.

    Attributes:
      tokenizer: encodes like transformers' tokenizer of the folder, with its post-processor.
      kind: the class in transformers.
      special_tokens: texts by name, for example {"eos_token": "</s>"}.
      content: tokenizer.json; unchanged if the pipeline is the file's own.
    """

    tokenizer: Tokenizer
    kind: str
    special_tokens: Mapping[str, str]
    content: bytes


def json_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if there is no file.

    Raises:
      FlanError: the file is broken, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise FlanError(f"{path} is no JSON ({error}); get it again from where it came.") from error
    if not isinstance(values, dict):
        raise FlanError(f"{path} holds no JSON object; get it again from where it came.")
    return values


def read(folder: Path, model_type: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Backend:
    """Reads tokenizer.json, a SentencePiece model, or vocab.json with merges.txt, in transformers' order.

    Args:
      folder: the folder of these files.
      model_type: the model_type in config.json.
      config: config.json.
      settings: tokenizer_config.json.

    Raises:
      FlanError: none of them exists, or the class of the tokenizer is not supported.
    """
    settings = dict(settings)
    fast = folder / "tokenizer.json"
    content = fast.read_bytes() if fast.is_file() else None
    kind = _class_of(folder, model_type, settings.get("tokenizer_class") or config.get("tokenizer_class"), content)
    parts = Parts()
    if content is not None:
        parts.of_json(json_object(fast))
        settings.pop("add_bos_token", None)  # the post-processor of the file decides
        settings.pop("add_eos_token", None)
    elif (
        model := next((p for n in ("spiece.model", "tokenizer.model") if (p := folder / n).is_file()), None)
    ) is not None:
        parts.of_sentencepiece(model)
    elif kind in (GPT2, GPT_NEOX, QWEN2) and (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        parts.of_merges(folder)
    else:
        raise FlanError(
            f"{folder} has no tokenizer.json, spiece.model or tokenizer.model: copy the model's own there "
            "(vocab.json with merges.txt: save it with transformers' AutoTokenizer first)."
        )
    named, extra, added = _tokens(folder, kind, settings, parts, content)
    own = None if content is None else _parsed(content, fast, kind)
    tokenizer = own if own is not None and kind == AS_IT_IS else built(folder, kind, parts, settings, named, config)
    if own is not None:
        tokenizer.post_processor = own.post_processor
    if kind == T5:
        extra = _that_fit(tokenizer, extra, config)
    _add(tokenizer, named, extra, added)
    if kind == QWEN2:
        tokenizer.add_tokens([AddedToken(str(token), special=True) for token in [*named.values(), *extra]])
    for number, token in added.items():
        if (found := tokenizer.token_to_id(token.content)) != number:
            raise FlanError(
                f"{folder}: the added token {token.content!r} has the id {number} in one file and {found} by the "
                "others; get the tokenizer's files again from one place."
            )
    _post_process(tokenizer, kind, content is not None, settings, named)
    if content is None or json.loads(_parsed(content, fast, kind).to_str()) != json.loads(tokenizer.to_str()):
        content = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False).encode("utf-8")
    return Backend(tokenizer, kind, {name: str(token) for name, token in named.items()}, content)


def _parsed(content: bytes, path: Path, kind: str) -> Tokenizer:
    """tokenizer.json as it is, but without truncation and padding, which callers of transformers ask for separately."""
    model = json.loads(content).get("model") or {}
    wanted = {AS_IT_IS: None, T5: "Unigram"}.get(kind, "BPE")
    if wanted not in (None, model.get("type", wanted)):
        raise FlanError(f"{path} has a model of kind {model['type']}, which transformers' {kind} cannot run.")
    if kind == AS_IT_IS and model.get("dropout"):
        raise FlanError(f"{path}: dropout is {model['dropout']}, which cuts texts at random; set it to null.")
    tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _class_of(folder: Path, model_type: str, declared: Any, content: bytes | None) -> str:
    """The class that transformers uses."""
    of_model = _OF_MODEL.get(model_type, AS_IT_IS)
    if declared is None or model_type in _WHATEVER_THE_FOLDER_SAYS:
        return of_model
    name = str(declared).removesuffix("Fast")
    name = _OTHER_NAMES.get(name, name)
    if of_model == AS_IT_IS and model_type not in _UNREGISTERED:
        return AS_IT_IS
    if name not in _DEFAULT_TOKENS:
        raise FlanError(
            f"{folder / 'tokenizer_config.json'}: tokenizer_class is {declared!r}, which is not covered; save it with "
            "transformers as a PreTrainedTokenizerFast."
        )
    return AS_IT_IS if name == LLAMA and content is not None and b'"ByteLevel"' in content else name


def runs_as_it_is(model_type: str, tokenizer: Tokenizer) -> bool:
    """Whether transformers runs this tokenizer.json unchanged, in the folder of such a model."""
    if model_type not in _WHATEVER_THE_FOLDER_SAYS:
        return True
    values = json.loads(tokenizer.to_str())
    parts = Parts()
    parts.of_json(values)
    if values["model"]["type"] != "BPE":
        return False
    theirs = json.loads(built(Path(), _OF_MODEL[model_type], parts, {}, {}, {}).to_str())
    return all(values[name] == theirs[name] for name in ("normalizer", "pre_tokenizer", "decoder"))


# ------------------------------------------------------------------------------------------------------------- tokens


def _token(value: Any, **changes: Any) -> AddedToken | str | None:
    if not isinstance(value, dict):
        return value if isinstance(value, str | AddedToken) else None
    known = {
        name: value[name] for name in ("content", "lstrip", "rstrip", "single_word", "normalized") if name in value
    }
    return AddedToken(**known, **({"special": bool(value.get("special"))} | changes))


def _is_shaped(value: Any) -> bool:
    return isinstance(value.get("content") if isinstance(value, dict) else value, str)


def _unlike(path: Path, name: str, kind: str) -> FlanError:
    return FlanError(f"{path}: {name} must be {kind}; get the file again from where it came.")


def _is_token(value: Any) -> bool:
    return isinstance(value, str | AddedToken) or (isinstance(value, dict) and value.get("__type") == "AddedToken")


def _joined(tokens: list[Any], more: list[Any]) -> list[Any]:
    """The tokens of tokenizer_config.json, and further ones of special_tokens_map.json."""
    found = list(tokens)
    for token in (_token(value, special=True) if isinstance(value, dict) else value for value in more):
        found += [] if token in found else [token]
    return found


def _tokens(
    folder: Path, kind: str, settings: dict[str, Any], parts: Parts, content: bytes | None
) -> tuple[dict[str, AddedToken | str], list[AddedToken | str], dict[int, AddedToken]]:
    """(named tokens, further special ones, added ones by id), from all files that can hold them."""
    values = dict(settings)
    if "additional_special_tokens" in values and not values.get("extra_special_tokens"):
        values["extra_special_tokens"] = values.pop("additional_special_tokens")
    for name in _STANDARD:
        if values.get(name) is not None and not _is_shaped(values[name]):
            raise _unlike(folder / "tokenizer_config.json", name, "a text, or an object with a content")
    extra = values.get("extra_special_tokens")
    if not isinstance(extra, dict | list | None):
        raise _unlike(folder / "tokenizer_config.json", "extra_special_tokens", "a list of tokens, or an object")
    of_dict = values.pop("extra_special_tokens") if isinstance(extra, dict) else {}
    added: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in values:
        listed = values["added_tokens_decoder"]
        if not isinstance(listed, dict) or not all(i.isdecimal() and _is_shaped(t) for i, t in listed.items()):
            raise _unlike(folder / "tokenizer_config.json", "added_tokens_decoder", "an object of tokens by id")
        added = {int(i): _token(token) for i, token in listed.items()}
    else:
        for name, value in json_object(folder / "special_tokens_map.json").items():
            if name == "extra_special_tokens" and isinstance(value, list):  # the one name that both files may hold
                value = _joined(_as_list(values.get(name)), value)
            elif isinstance(value, dict) and "content" in value:
                value = _token(value, special=True)
            values[name] = value
        # Only texts count here: transformers does not look into tokens that tokenizer_config.json describes as objects.
        stated = [values.get(name) for name in _STANDARD] + _as_list(values.get("extra_special_tokens"))
        special = {str(value) for value in stated if value and not isinstance(value, dict)}
        for text, number in json_object(folder / "added_tokens.json").items():
            if not isinstance(number, int) or isinstance(number, bool):
                raise _unlike(folder / "added_tokens.json", text, "a token id")
            added[number] = AddedToken(text, normalized=text not in special, special=text in special)
        for token in json.loads(content).get("added_tokens", []) if content is not None else ():
            added[token["id"]] = _token(token)
    by_text = {token.content: token for token in added.values()}

    # Named tokens: the class's own, then the SentencePiece model's, then the files'.
    named: dict[str, Any] = dict(_DEFAULT_TOKENS[kind])
    if parts.proto is not None and kind == AS_IT_IS:
        trainer = parts.proto.trainer_spec
        for name in ("bos", "eos", "unk"):
            if getattr(trainer, f"{name}_id") >= 0:
                named[f"{name}_token"] = getattr(trainer, f"{name}_piece")
    extra = values.get("extra_special_tokens")
    if isinstance(extra, dict):  # from special_tokens_map.json
        of_dict = of_dict | values.pop("extra_special_tokens")
    for name, value in {**values, **of_dict}.items():
        if name in _STANDARD or name in of_dict or (name.endswith("_token") and _is_token(value)):
            named[name] = _token(value)
    named = {name: by_text.get(str(t), t) if name in _STANDARD else t for name, t in named.items() if t is not None}
    order = {name: place for place, name in enumerate(_STANDARD)}
    named = dict(sorted(named.items(), key=lambda item: order.get(item[0], len(order))))

    listed = extra if isinstance(extra, list) else []
    if "extra_special_tokens" not in values:
        listed = parts.own_tokens if parts.proto is not None else values.get("additional_special_tokens") or []
        if kind == T5 and not any("<extra_id_" in _text(token) for token in listed):
            listed = [*listed, *(f"<extra_id_{i}>" for i in range(sentinels(settings)))]
    further = [token for value in listed if (token := _token(value)) is not None]
    return named, further, added


def _that_fit(tokenizer: Tokenizer, extra: list[AddedToken | str], config: Mapping[str, Any]) -> list[AddedToken | str]:
    """The tokens without untrained sentinels: transformers adds 100 of them, whatever the model has."""
    room = config.get("vocab_size", 1 << 30) - tokenizer.get_vocab_size()
    kept = []
    for token in extra:
        is_new = str(token).startswith("<extra_id_") and tokenizer.token_to_id(str(token)) is None
        room -= is_new
        kept += [] if is_new and room < 0 else [token]
    return kept


def _text(value: Any) -> str:
    return str(value.get("content", "")) if isinstance(value, dict) else str(value)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _add(
    tokenizer: Tokenizer,
    named: Mapping[str, AddedToken | str],
    extra: list[AddedToken | str],
    added: Mapping[int, AddedToken],
) -> None:
    """Adds tokens that the vocabulary lacks, and sets the flags of those that it has, in transformers' order."""
    tokens: list[AddedToken | str] = [added[number] for number in sorted(added)]
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()} | {str(t) for t in tokens}
    tokens += [token for token in named.values() if str(token) not in known]
    tokens += [token for token in extra if str(token) not in known and token not in tokens]
    names = {str(token) for token in named.values()}
    for place, token in enumerate(tokens):
        if isinstance(token, str):
            tokens[place] = AddedToken(token, special=True)
        elif not token.special and token.content in names:
            token.special = True
    tokenizer.add_tokens(tokens)


def _post_process(
    tokenizer: Tokenizer, kind: str, has_json: bool, settings: Mapping[str, Any], named: Mapping[str, Any]
) -> None:
    """Sets the tokens that are added around a text."""
    begins = bool(settings.get("add_bos_token")) and "bos_token" in named
    ends = bool(settings.get("add_eos_token")) and "eos_token" in named
    if kind == T5:
        begins, ends = False, True
        end = "</s>"
    else:
        end = str(named.get("eos_token"))
        if has_json and kind != GPT_NEOX:
            return
    start = str(named.get("bos_token"))
    used = [text for text, is_used in ((start, begins), (end, ends)) if is_used]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*([start] if begins else []), "$A", *([end] if ends else [])],
        pair=["$A", end, "$B", end] if kind == T5 else None,
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in dict.fromkeys(used)],
    )

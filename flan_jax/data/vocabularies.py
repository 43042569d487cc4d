"""Vocabularies without TensorFlow: SentencePiece, Hugging Face `tokenizers`, and bytes.

None adds BOS or EOS; the stream and the prompts do. For stock SeqIO see `flan_jax.data.seqio_vocabulary`.
"""

from __future__ import annotations

import abc
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import sentencepiece
import tokenizers

from flan_jax.data import chat
from flan_jax.data.chat import Chat
from flan_jax.errors import FlanError, StorageError
from flan_jax.files import AnyPath, make_folder, user_path

SETTINGS = "vocabulary.json"  # the special ids, beside the vocabulary's own file


class Tokenizer(Protocol):
    """What every vocabulary here offers.

    Attributes:
      kind: "sentencepiece", "huggingface" or "bytes".
      vocab_size: the largest id plus one.
      eos_id: end of sequence, and the separator between input and target.
      stop_ids: all ids that end a model's answer; the first is `eos_id`.
      bos_id: beginning of sequence, or None if the model uses none.
      pad_id: fills unused slots. A mask tells them from tokens, never the id.
      control_ids: ids of tokens that stand for no text, by their written form; decoding leaves them out.
      chat: the model's chat templates, or None.
      fingerprint: a hex digest of everything that decides which ids a text becomes.
    """

    kind: str
    vocab_size: int
    eos_id: int
    stop_ids: tuple[int, ...]
    bos_id: int | None
    pad_id: int

    @property
    def control_ids(self) -> Mapping[str, int]: ...  # noqa: D102 - above

    chat: Chat | None
    fingerprint: str

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without BOS and EOS."""
        ...

    def encode_written(self, texts: Sequence[str]) -> list[list[int]]:
        """Like `encode`, for text that a chat template wrote: a written control token becomes its id."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids. BOS, EOS and padding are left out."""
        ...

    def decode_all(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of ids, as `decode` has it, by all cores where the library can."""
        ...

    def decode_written(self, ids: Sequence[int]) -> str:
        """The text of ids, with control tokens written out."""
        ...

    def save(self, folder: str | AnyPath) -> None:
        """Writes the files that `load` reads."""
        ...


def _fingerprint(*parts: bytes | int | str | None) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\x00")
    return digest.hexdigest()


def digest(tokenizer: Tokenizer) -> str:
    """A hex digest of everything that a vocabulary folder decides: ids of texts, ends of answers, chat templates."""
    rest: dict[str, Any] = {"stop_ids": list(tokenizer.stop_ids)}
    if tokenizer.chat is not None and tokenizer.chat.templates:
        rest["templates"] = {name: chat.as_read(text) for name, text in tokenizer.chat.templates.items()}
        rest["special_tokens"] = dict(tokenizer.chat.special_tokens)
    return _fingerprint(tokenizer.fingerprint.encode(), json.dumps(rest, sort_keys=True).encode())


def check_fits(tokenizer: Tokenizer, num_embeddings: int, where: str) -> None:
    """Refuses a vocabulary with more ids than the model has embeddings.

    Args:
      tokenizer: the vocabulary.
      num_embeddings: rows of the model's table.
      where: what holds both, for the error message.

    Raises:
      FlanError: an id is beyond the table, where a look-up gives nothing useful.
    """
    if tokenizer.vocab_size > num_embeddings:
        raise FlanError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} ids and the model {num_embeddings} embeddings; "
            "give the model's own tokenizer, or take out the tokens that were added to it."
        )


class _Stored(abc.ABC):
    """Saving, and leaving out special ids, for the classes below."""

    kind: str
    vocab_size: int
    control_ids: Mapping[str, int]
    _file: str
    content: bytes

    def __init__(
        self,
        content: bytes,
        eos_id: int,
        bos_id: int | None,
        pad_id: int,
        stop_ids: Sequence[int] = (),
        chat: Chat | None = None,
        **flags: bool,
    ) -> None:
        self.content = content
        self.eos_id, self.bos_id, self.pad_id = eos_id, bos_id, pad_id
        self.stop_ids = tuple(dict.fromkeys((eos_id, *stop_ids)))
        self.chat = chat
        self._flags = {name: True for name, is_set in sorted(flags.items()) if is_set}
        self._left_out = {eos_id, bos_id} | ({pad_id} if self._is_no_token(pad_id) else set())
        self.fingerprint = _fingerprint(content, eos_id, bos_id, pad_id, *self._flags)

    def save(self, folder: str | AnyPath) -> None:
        """Writes the vocabulary's file, its special ids and its chat templates."""
        folder = make_folder(user_path(folder))
        if self._file:
            (folder / self._file).write_bytes(self.content)
        settings: dict[str, Any] = {"kind": self.kind, "eos_id": self.eos_id, "bos_id": self.bos_id}
        settings |= {"pad_id": self.pad_id} | self._flags
        if len(self.stop_ids) > 1:
            settings["stop_ids"] = self.stop_ids
        if self.chat is not None:
            settings["special_tokens"] = dict(self.chat.special_tokens)
            self.chat.save(folder)
        (folder / SETTINGS).write_text(json.dumps(settings) + "\n")

    def _is_no_token(self, pad_id: int) -> bool:
        """Whether the padding id stands for no text."""
        return True

    def _plain(self, ids: Sequence[int]) -> list[int]:
        return [int(i) for i in ids if int(i) not in self._left_out and 0 <= int(i) < self.vocab_size]

    def _plain_all(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """`_plain` of each row, in one pass over all."""
        ids_N = np.concatenate([np.zeros(0, np.int64), *(np.asarray(row, np.int64) for row in rows)])
        kept_N = (
            ~np.isin(ids_N, [one for one in self._left_out if one is not None])
            & (ids_N >= 0)
            & (ids_N < self.vocab_size)
        )
        before = np.concatenate([[0], np.cumsum(kept_N)])
        ends = before[np.cumsum([0, *map(len, rows)])].tolist()
        plain = ids_N[kept_N].tolist()
        return [plain[start:end] for start, end in itertools.pairwise(ends)]

    @abc.abstractmethod
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer`."""

    def decode_all(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """See `Tokenizer`."""
        return [self.decode(row) for row in rows]

    def encode_written(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`."""
        return self.encode(texts)

    def decode_written(self, ids: Sequence[int]) -> str:
        """See `Tokenizer`."""
        written = {number: text for text, number in self.control_ids.items()}
        parts: list[str] = []
        run: list[int] = []
        for number in map(int, ids):
            if number in written:
                parts += [self.decode(run), written[number]]
                run = []
            else:
                run.append(number)
        return "".join([*parts, self.decode(run)])


class SentencePieceTokenizer(_Stored):
    """A SentencePiece model, run by the sentencepiece library."""

    kind = "sentencepiece"
    _file = "sentencepiece.model"

    def __init__(
        self,
        model: bytes,
        eos_id: int | None = None,
        bos_id: int | None = None,
        pad_id: int | None = None,
        stop_ids: Sequence[int] = (),
        chat: Chat | None = None,
    ) -> None:
        """Reads a serialized ModelProto.

        Ids default to the model's own, except that BOS defaults to None; see `Tokenizer`.
        """
        # Not as an argument of the constructor, which takes empty bytes for no model, and crashes later.
        self._processor = sentencepiece.SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(model)
        eos = self._processor.eos_id() if eos_id is None else eos_id
        pad = max(self._processor.pad_id(), 0) if pad_id is None else pad_id
        super().__init__(model, eos, bos_id, pad, stop_ids, chat)
        self.vocab_size = self._processor.vocab_size()

    def _is_no_token(self, pad_id: int) -> bool:
        return self._processor.is_control(pad_id) or self._processor.is_unknown(pad_id)

    @functools.cached_property
    def control_ids(self) -> Mapping[str, int]:  # type: ignore[override]
        """See `Tokenizer`."""
        pieces = self._processor
        return {pieces.id_to_piece(i): i for i in range(self.vocab_size) if pieces.is_control(i)}

    @functools.cached_property
    def _written_ids(self) -> Mapping[str, int]:
        """The control tokens and the unknown token, which can be written too, as in llama.cpp and transformers."""
        unknown = self._processor.unk_id()
        return {**self.control_ids, **({} if unknown < 0 else {self._processor.id_to_piece(unknown): unknown})}

    @functools.cached_property
    def _written(self) -> re.Pattern[str]:
        longest_first = sorted(self._written_ids, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")" if longest_first else "(?!)")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`."""
        return self._processor.encode(list(texts))

    def encode_written(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`. Text between control tokens is encoded separately, as in llama.cpp."""
        found = []
        for text in texts:
            ids: list[int] = []
            for part in filter(None, self._written.split(text)):
                control = self._written_ids.get(part)
                ids += self._processor.encode(part) if control is None else [control]
            found.append(ids)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer`."""
        return self._processor.decode(self._plain(ids))

    def decode_all(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """See `Tokenizer`."""
        return self._processor.decode(self._plain_all(rows)) if rows else []  # of no rows the library makes ""


# `clean_up_tokenization_spaces` of transformers removes the space before these.
_CLEANED: tuple[tuple[str, str], ...] = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
)
_CLEANED += tuple((f" '{end}", f"'{end}") for end in ("m", "s", "ve", "re"))


class HuggingFaceTokenizer(_Stored):
    """A `tokenizer.json`, run by the tokenizers library. Id 0 is a token like any other."""

    kind = "huggingface"
    _file = "tokenizer.json"

    def __init__(
        self,
        tokenizer_json: bytes,
        eos_id: int,
        bos_id: int | None = None,
        pad_id: int = 0,
        stop_ids: Sequence[int] = (),
        chat: Chat | None = None,
        *,
        cleans_up: bool = False,
        splits_special: bool = False,
    ) -> None:
        """Reads a `tokenizer.json`.

        Args:
          tokenizer_json: the file's content. Its truncation and padding are removed; callers of transformers ask for
            those separately.
          eos_id: see `Tokenizer`.
          bos_id: see `Tokenizer`.
          pad_id: see `Tokenizer`.
          stop_ids: see `Tokenizer`.
          chat: see `Tokenizer`.
          cleans_up: whether decoding removes the space before punctuation.
          splits_special: whether special tokens in a text are split like any other text.
        """
        self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        if self._tokenizer.truncation is not None or self._tokenizer.padding is not None:
            tokenizer_json = json.dumps(
                json.loads(tokenizer_json) | {"truncation": None, "padding": None}, ensure_ascii=False
            ).encode()
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = splits_special
        self._cleans_up = cleans_up
        flags = {"cleans_up": cleans_up, "splits_special": splits_special}
        super().__init__(tokenizer_json, eos_id, bos_id, pad_id, stop_ids, chat, **flags)
        # Not the number of entries, because ids may have gaps.
        self.vocab_size = max(self._tokenizer.get_vocab().values(), default=-1) + 1

    def _is_no_token(self, pad_id: int) -> bool:
        return False  # the library leaves out a padding id that is a special token

    @functools.cached_property
    def control_ids(self) -> Mapping[str, int]:  # type: ignore[override]
        """See `Tokenizer`."""
        added = self._tokenizer.get_added_tokens_decoder()
        found = {token.content: number for number, token in added.items() if token.special}
        # Not `id_to_token` first: for a normalized token it gives the normalized text.
        texts = {number: token.content for number, token in added.items()}
        ends = (self.eos_id, self.bos_id)
        named = {i: texts.get(i) or self._tokenizer.id_to_token(i) for i in ends if i is not None}
        return found | {text: number for number, text in named.items() if text is not None}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`."""
        return [e.ids for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer`."""
        return self._cleaned(self._tokenizer.decode(self._plain(ids), skip_special_tokens=True))

    def decode_all(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """See `Tokenizer`."""
        return list(map(self._cleaned, self._tokenizer.decode_batch(self._plain_all(rows), skip_special_tokens=True)))

    def _cleaned(self, text: str) -> str:
        for before, after in _CLEANED if self._cleans_up else ():
            text = text.replace(before, after)
        return text


class ByteTokenizer(_Stored):
    """UTF-8 bytes with the ids of `seqio.ByteVocabulary`: padding 0, EOS 1, unknown 2, then the bytes.

    Example:
      >>> ByteTokenizer().encode(["Hi"])
      [[75, 108]]
    """

    kind = "bytes"
    _file = ""
    vocab_size = 259
    control_ids: Mapping[str, int] = {}

    def __init__(self, stop_ids: Sequence[int] = (), chat: Chat | None = None) -> None:
        super().__init__(b"bytes", eos_id=1, bos_id=None, pad_id=0, stop_ids=stop_ids, chat=chat)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`."""
        return [[b + 3 for b in text.encode("utf-8")] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer`."""
        return bytes(i - 3 for i in self._plain(ids) if i >= 3).decode("utf-8", errors="replace")


def of_settings(settings: Mapping[str, Any], content: bytes, folder: AnyPath) -> Tokenizer:
    """Reads a vocabulary that `save` wrote.

    Args:
      settings: the content of vocabulary.json.
      content: the content of the vocabulary's own file.
      folder: the folder of its chat templates.
    """
    arguments = dict(settings)
    kind, special_tokens = arguments.pop("kind"), arguments.pop("special_tokens", None)
    if special_tokens is not None and (templates := chat.templates_in(folder)):
        arguments["chat"] = Chat(templates, special_tokens)
    if kind == ByteTokenizer.kind:
        return ByteTokenizer(arguments.get("stop_ids", ()), arguments.get("chat"))
    cls = {c.kind: c for c in (SentencePieceTokenizer, HuggingFaceTokenizer)}[kind]
    return cls(content, **arguments)


def load(where: str | AnyPath) -> Tokenizer:
    """Loads a vocabulary by name or path.

    Args:
      where: "bytes", a folder that `save` wrote, a SentencePiece `.model` file, or a `tokenizer.json` with an
        end-of-sequence token of a usual name.

    Raises:
      FlanError: there is no usable vocabulary.
    """
    try:
        return _loaded(where)
    except (FlanError, StorageError):
        raise
    except Exception as error:  # the libraries raise bare Exception, RuntimeError and others
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FlanError(f"vocabulary {where} cannot be read ({reason}); get it again from where it came.") from error


def check(folder: AnyPath) -> None:
    """Checks that the vocabulary.json of a folder can be read, if it has one. Nothing is loaded.

    Raises:
      FlanError: it cannot.
    """
    try:
        settings = _settings(folder)
        reason = "" if settings is None or isinstance(settings.get("kind"), str) else "it names no kind"
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
    if reason:
        raise FlanError(f"{folder / SETTINGS} cannot be read ({reason}).")


def _loaded(where: str | AnyPath) -> Tokenizer:
    if str(where) == "bytes":
        return ByteTokenizer()
    path = user_path(where, "vocabulary")
    if (settings := _settings(path)) is not None:
        kind = settings["kind"]
        if kind == "bytes":
            return of_settings(settings, b"", path)
        cls = {c.kind: c for c in (SentencePieceTokenizer, HuggingFaceTokenizer)}[kind]
        return of_settings(settings, (path / cls._file).read_bytes(), path)
    if path.suffix == ".model" and path.is_file():
        return SentencePieceTokenizer(path.read_bytes())
    if path.suffix == ".json" and path.is_file():
        content = path.read_bytes()
        tokens = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
        for name in ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>"):
            if (eos := tokens.token_to_id(name)) is not None:
                return HuggingFaceTokenizer(content, eos)
        raise FlanError(f"vocabulary {where}: no end-of-sequence token of a usual name in it.")
    if (path / "vocabulary" / SETTINGS).is_file():
        raise FlanError(f"{where} is a checkpoint: its vocabulary is {path / 'vocabulary'}.")
    raise FlanError(
        f"no vocabulary at {str(where)!r}: give 'bytes', a checkpoint's vocabulary folder, a SentencePiece .model "
        "or a tokenizer.json."
    )


def _settings(folder: AnyPath) -> dict[str, Any] | None:
    """The vocabulary.json that `save` wrote; None if there is none."""
    try:
        return json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None

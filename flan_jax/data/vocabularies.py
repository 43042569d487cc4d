"""Vocabularies without TensorFlow: SentencePiece, Hugging Face `tokenizers`, and bytes.

None adds BOS or EOS; the stream and the prompts do. For stock SeqIO see `flan_jax.data.seqio_vocabulary`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import sentencepiece
import tokenizers

from flan_jax.errors import FlanError

_SETTINGS = "vocabulary.json"


class Tokenizer(Protocol):
    """What every vocabulary here offers.

    Attributes:
      kind: "sentencepiece", "huggingface" or "bytes".
      vocab_size: number of ids.
      eos_id: end of sequence, and the separator between input and target.
      bos_id: beginning of sequence, or None where the model wants none.
      pad_id: what fills unused slots; a mask tells them from tokens, never the id.
      fingerprint: hex digest of the content.
    """

    kind: str
    vocab_size: int
    eos_id: int
    bos_id: int | None
    pad_id: int
    fingerprint: str

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without BOS and EOS."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; BOS, EOS and padding are left out."""
        ...

    def save(self, folder: str | Path) -> None:
        """Writes what `load` reads."""
        ...


def _fingerprint(*parts: bytes | int | None) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\x00")
    return digest.hexdigest()


class _Stored:
    """Saving, and leaving special ids out, for the classes below."""

    kind: str
    _file: str
    _content: bytes

    def __init__(self, content: bytes, eos_id: int, bos_id: int | None, pad_id: int) -> None:
        self._content = content
        self.eos_id, self.bos_id, self.pad_id = eos_id, bos_id, pad_id
        self._left_out = {eos_id, bos_id} | ({pad_id} if self._is_no_token(pad_id) else set())
        self.fingerprint = _fingerprint(content, eos_id, bos_id, pad_id)

    def save(self, folder: str | Path) -> None:
        """Writes the vocabulary's file and its special ids."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self._file:
            (folder / self._file).write_bytes(self._content)
        settings = {"kind": self.kind, "eos_id": self.eos_id, "bos_id": self.bos_id, "pad_id": self.pad_id}
        (folder / _SETTINGS).write_text(json.dumps(settings) + "\n")

    def _is_no_token(self, pad_id: int) -> bool:
        """Whether the padding id stands for no text."""
        return True

    def _plain(self, ids: Sequence[int]) -> list[int]:
        return [int(i) for i in ids if int(i) not in self._left_out and 0 <= int(i) < self.vocab_size]


class SentencePieceTokenizer(_Stored):
    """A SentencePiece model, run by the sentencepiece library."""

    kind = "sentencepiece"
    _file = "sentencepiece.model"

    def __init__(
        self, model: bytes, eos_id: int | None = None, bos_id: int | None = None, pad_id: int | None = None
    ) -> None:
        """Args: the serialized ModelProto; ids default to the model's own, but BOS to None."""
        # Not an argument of the constructor: it takes empty bytes for no model, and dies of that later.
        self._processor = sentencepiece.SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(model)
        eos = self._processor.eos_id() if eos_id is None else eos_id
        pad = max(self._processor.pad_id(), 0) if pad_id is None else pad_id
        super().__init__(model, eos, bos_id, pad)
        self.vocab_size = self._processor.vocab_size()

    def _is_no_token(self, pad_id: int) -> bool:
        return self._processor.is_control(pad_id) or self._processor.is_unknown(pad_id)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`."""
        return self._processor.encode(list(texts))

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer`."""
        return self._processor.decode(self._plain(ids))


class HuggingFaceTokenizer(_Stored):
    """A `tokenizer.json`, run by the tokenizers library. Id 0 is a token like any other."""

    kind = "huggingface"
    _file = "tokenizer.json"

    def __init__(self, tokenizer_json: bytes, eos_id: int, bos_id: int | None = None, pad_id: int = 0) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        super().__init__(tokenizer_json, eos_id, bos_id, pad_id)
        self.vocab_size = self._tokenizer.get_vocab_size()

    def _is_no_token(self, pad_id: int) -> bool:
        return False  # a pad that is a special token is left out by the library

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`."""
        return [e.ids for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer`."""
        return self._tokenizer.decode(self._plain(ids), skip_special_tokens=True)


class ByteTokenizer(_Stored):
    """UTF-8 bytes with the ids of `seqio.ByteVocabulary`: padding 0, EOS 1, unknown 2, then the bytes."""

    kind = "bytes"
    _file = ""
    vocab_size = 259

    def __init__(self) -> None:
        super().__init__(b"bytes", eos_id=1, bos_id=None, pad_id=0)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`."""
        return [[b + 3 for b in text.encode("utf-8")] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer`."""
        return bytes(i - 3 for i in self._plain(ids) if i >= 3).decode("utf-8", errors="replace")


def load(where: str | Path) -> Tokenizer:
    """A vocabulary by name or path.

    Args:
      where: "bytes", a folder that `save` wrote, a SentencePiece `.model` file, or a `tokenizer.json` whose end of
        sequence is one of the usual names.

    Raises:
      FlanError: nothing usable is there.
    """
    try:
        return _loaded(where)
    except FlanError:
        raise
    except Exception as error:  # the libraries raise bare Exception, RuntimeError and what not
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FlanError(f"vocabulary {where} cannot be read ({reason}); get it again from where it came.") from error


def _loaded(where: str | Path) -> Tokenizer:
    path = Path(where)
    if str(where) == "bytes":
        return ByteTokenizer()
    if (path / _SETTINGS).is_file():
        settings = json.loads((path / _SETTINGS).read_text())
        kind = settings.pop("kind")
        if kind == "bytes":
            return ByteTokenizer()
        cls = {c.kind: c for c in (SentencePieceTokenizer, HuggingFaceTokenizer)}[kind]
        return cls((path / cls._file).read_bytes(), **settings)
    if path.suffix == ".model" and path.is_file():
        return SentencePieceTokenizer(path.read_bytes())
    if path.suffix == ".json" and path.is_file():
        content = path.read_bytes()
        tokens = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
        for name in ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>"):
            if (eos := tokens.token_to_id(name)) is not None:
                return HuggingFaceTokenizer(content, eos)
        raise FlanError(f"vocabulary {where}: no end-of-sequence token of a usual name in it.")
    raise FlanError(
        f"no vocabulary at {str(where)!r}: give 'bytes', a checkpoint's vocabulary folder, a SentencePiece .model "
        "or a tokenizer.json."
    )

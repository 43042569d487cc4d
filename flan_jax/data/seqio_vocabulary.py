"""Our vocabularies as `seqio.Vocabulary`, and SeqIO's own as ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data import vocabularies
from flan_jax.errors import FlanError

_FIRST_BYTE = 3  # after padding, EOS and unknown
_GIVE = (
    "give a seqio.SentencePieceVocabulary(path), seqio.ByteVocabulary(), a tokenizer of flan_jax.data.vocabularies, or "
    "the path of a vocabulary."
)
_PROBE = "A vocabulary, tried: it must give back 12 words."


class SeqioVocabulary(seqio.Vocabulary):
    """Wraps any `vocabularies.Tokenizer`.

    SeqIO's packing and feature converters take id 0 for padding. If 0 is a real token (as in SmolLM2), use FLAN-JAX's
    own stream for training. Encoding and decoding here are right in any case.
    """

    def __init__(self, tokenizer: vocabularies.Tokenizer) -> None:
        self._tokenizer = tokenizer
        super().__init__(extra_ids=0)

    @property
    def tokenizer(self) -> vocabularies.Tokenizer:
        """The wrapped tokenizer."""
        return self._tokenizer

    @property
    def bos_id(self) -> int | None:
        """The beginning-of-sequence id, or None."""
        return self._tokenizer.bos_id

    @property
    def eos_id(self) -> int:
        """The end-of-sequence id."""
        return self._tokenizer.eos_id

    @property
    def unk_id(self) -> int:
        """The padding id, since no text is unknown here."""
        return self._tokenizer.pad_id

    @property
    def _base_vocab_size(self) -> int:
        return self._tokenizer.vocab_size

    def _encode(self, s: str) -> Sequence[int]:
        return self._tokenizer.encode([s])[0]

    def _decode(self, ids: Iterable[int]) -> str:
        return self._tokenizer.decode(list(ids))

    def encode_tf(self, s: Any) -> Any:
        """Scalar string -> [tokens] int32; [n] strings -> ragged [n, tokens]."""
        # In Python, this would take as long as the rest of a pipeline.
        if type(self._tokenizer) is vocabularies.ByteTokenizer:
            valid = tf.strings.unicode_transcode(s, "UTF-8", "UTF-8", errors="replace")
            return _bytes(valid) if s.shape.rank == 0 else _bytes(valid, ragged=True)

        def ragged(texts: Any) -> tuple[Any, Any]:
            found = self._tokenizer.encode([t.decode("utf-8", "replace") for t in texts.numpy()])
            flat = [i for ids in found for i in ids]
            return tf.constant(flat, tf.int32), tf.constant([len(ids) for ids in found], tf.int64)

        texts = tf.reshape(s, [-1])
        flat, lengths = tf.py_function(ragged, [texts], [tf.int32, tf.int64])
        flat.set_shape([None])
        lengths.set_shape([None])
        return flat if s.shape.rank == 0 else tf.RaggedTensor.from_row_lengths(flat, lengths)

    def decode_tf(self, ids: Any) -> Any:
        """[tokens] -> scalar string; [n, tokens], ragged or not -> [n] strings."""
        rank = ids.shape.rank
        rows = tf.expand_dims(ids, 0) if rank == 1 else ids
        rows = rows.to_tensor(default_value=-1) if isinstance(rows, tf.RaggedTensor) else rows

        def decode(batch: Any) -> Any:
            return tf.constant([self.decode([i for i in row if i >= 0]) for row in batch.numpy().tolist()], tf.string)

        texts = tf.py_function(decode, [rows], tf.string)
        texts.set_shape([None])
        return texts[0] if rank == 1 else texts

    def _encode_tf(self, s: Any) -> Any:
        return self.encode_tf(s)

    def _decode_tf(self, ids: Any) -> Any:
        return self.decode_tf(ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeqioVocabulary) and other.tokenizer.fingerprint == self._tokenizer.fingerprint

    def __hash__(self) -> int:
        return hash(self._tokenizer.fingerprint)


def _bytes(texts: Any, ragged: bool = False) -> Any:
    """The ids of UTF-8 text, as in `vocabularies.ByteTokenizer`."""
    if not ragged:
        return tf.cast(tf.io.decode_raw(texts, tf.uint8), tf.int32) + _FIRST_BYTE
    flat = tf.cast(tf.io.decode_raw(tf.strings.reduce_join(texts), tf.uint8), tf.int32) + _FIRST_BYTE
    return tf.RaggedTensor.from_row_lengths(flat, tf.cast(tf.strings.length(texts), tf.int64))


class StockTokenizer:
    """A stock `seqio.Vocabulary` as a `vocabularies.Tokenizer`, as far as making text needs one."""

    kind = "seqio"

    def __init__(self, vocabulary: seqio.Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.eos_id: int = vocabulary.eos_id
        self.bos_id: int | None = None  # SeqIO adds none
        self.pad_id: int = vocabulary.pad_id
        self.vocab_size: int = vocabulary.vocab_size

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without EOS."""
        return [list(self.vocabulary.encode(text)) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return self.vocabulary.decode(list(ids))


def of(vocabulary: Any) -> tuple[seqio.Vocabulary, vocabularies.Tokenizer | StockTokenizer]:
    """What a user gives as a vocabulary, in SeqIO's form and in ours.

    Args:
      vocabulary: a `seqio.Vocabulary`, a `vocabularies.Tokenizer`, or a name or path for `vocabularies.load`.

    Raises:
      FlanError: it cannot turn text into ids; the message says what to give instead.
    """
    if isinstance(vocabulary, SeqioVocabulary):
        return vocabulary, vocabulary.tokenizer
    if isinstance(vocabulary, seqio.Vocabulary):
        _check(vocabulary)
        return vocabulary, StockTokenizer(vocabulary)
    if isinstance(vocabulary, str | os.PathLike):
        vocabulary = vocabularies.load(vocabulary)
    wanted = ("encode", "decode", "eos_id", "pad_id", "vocab_size", "fingerprint")
    if isinstance(vocabulary, type) or not all(hasattr(vocabulary, name) for name in wanted):
        shown = vocabulary.__name__ if isinstance(vocabulary, type) else type(vocabulary).__name__
        remedy = f"make one of it, {shown}(...)" if isinstance(vocabulary, type) else "it has no ids for text"
        raise FlanError(f"vocabulary {shown}: {remedy}; {_GIVE}")
    return SeqioVocabulary(vocabulary), vocabulary


def _check(vocabulary: seqio.Vocabulary) -> None:
    """Refuses a SeqIO vocabulary that does not turn text into ids and back."""
    name = type(vocabulary).__name__
    try:
        ids, tensor = vocabulary.encode(_PROBE), vocabulary.encode_tf(tf.constant(_PROBE))
        problem = _problem(vocabulary, ids, tensor)
    except Exception as error:  # the library behind it can raise anything
        first = str(error).strip().partition("\n")[0][:160].rstrip(".") or "no reason given"
        raise FlanError(f"vocabulary {name} cannot be used ({type(error).__name__}: {first}); {_GIVE}") from error
    if problem:
        raise FlanError(f"vocabulary {name} {problem}; {_GIVE}")


def _problem(vocabulary: seqio.Vocabulary, ids: Any, tensor: Any) -> str:
    if isinstance(ids, str | bytes) or not np.ndim(ids) or not np.issubdtype(np.asarray(ids).dtype, np.integer):
        return "gives text no ids"
    if tensor.dtype != tf.int32 or tensor.shape.rank != 1:
        return f"gives ids of type {tensor.dtype.name} and rank {tensor.shape.rank}, and T5X takes int32 of rank 1"
    if tensor.numpy().tolist() != [int(i) for i in ids]:
        return "gives a text other ids in TensorFlow than in Python"
    if not isinstance(vocabulary.eos_id, int) or vocabulary.eos_id < 0:
        return "has no end of sequence, which stands after inputs and targets"
    if not isinstance(vocabulary.decode([int(i) for i in ids]), str):
        return "does not turn ids back into text"
    return ""

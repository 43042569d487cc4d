"""A FLAN-JAX vocabulary as `seqio.Vocabulary`, for stock SeqIO."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import seqio
import tensorflow as tf

from flan_jax.data import vocabularies


class SeqioVocabulary(seqio.Vocabulary):
    """Wraps any `vocabularies.Tokenizer`.

    SeqIO's packing and feature converters take id 0 for padding. Where 0 is a real token (SmolLM2), use FLAN-JAX's own
    stream for training; encoding and decoding here are right for it all the same.
    """

    def __init__(self, tokenizer: vocabularies.Tokenizer) -> None:
        self._tokenizer = tokenizer
        super().__init__(extra_ids=0)

    @property
    def tokenizer(self) -> vocabularies.Tokenizer:
        """What does the work."""
        return self._tokenizer

    @property
    def bos_id(self) -> int | None:
        """Beginning of sequence, or None."""
        return self._tokenizer.bos_id

    @property
    def eos_id(self) -> int:
        """End of sequence."""
        return self._tokenizer.eos_id

    @property
    def unk_id(self) -> int:
        """There is no unknown text here; padding stands in."""
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

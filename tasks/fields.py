"""What the `fields` and `keep` functions of several clusters share. TensorFlow string operations throughout.

None of them may fail on any record that fits the TFDS schema, since one record would then end its whole dataset. What a
record lacks becomes the empty text, and `flan_jax.data.usable` leaves out the records in which a template would show one.
So an index or a label goes through `at`, and a list of answers through `filled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.lazy import lazy_imports

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


def one_line(text: Any) -> Any:
    """Text on one line, its words one space apart, none at the edges.

    Args:
      text: string tensor of any shape; the result has the same. RE2's white space is ASCII only, so separators, the
        no-break space among them, are named.
    """
    return tf.strings.strip(tf.strings.regex_replace(text, r"[\s\pZ]+", " "))


# SuperGLUE's own files have JSON's booleans where TFDS has labels named "False" and "True".
YES_NO_SPELLINGS = ((False, "False"), (True, "True"))

# Texts that speak of the options of an exam's question, for `Dataset.needs_options`.
_ASKS_FOR_ONE = r"\b(?:(?:which|what|all|any|one|two|three|none) of (?:these|those)|(?:of|of the|which) following)\b"
_ASKS_FOR_ONE += r"|\b(?:which \w+|of the \w+s) (?:below|listed)\b|\bwhich (?:choice|option|answer)\b"
_NAMES_OTHERS = r"\b(?:all|none|both|any) of (?:these|the above)\b"
EXAM_NEEDS_OPTIONS = (("question", _ASKS_FOR_ONE), ("answer", _NAMES_OTHERS))

# White space, control and format characters, marks without a letter, and the letters that show nothing.
_SHOWS_NOTHING = r"[\s\pZ\p{Cc}\p{Cf}\pM\x{115F}\x{1160}\x{2800}\x{3164}\x{FFA0}]*"


def is_blank(text: Any) -> Any:
    """Whether nothing of a text can be seen: string tensor of any shape -> boolean tensor of the same."""
    return tf.strings.regex_full_match(text, _SHOWS_NOTHING)


def filled(texts_N: Any) -> Any:
    """Those of several texts that are not blank, in their order; there may be none."""
    return tf.boolean_mask(texts_N, tf.logical_not(is_blank(texts_N)))


def at(texts_N: Any, number: Any) -> Any:
    """The text of a number, counted from 0: scalar -> scalar. "" where there is no such text, below 0 too."""
    texts_N, number = tf.convert_to_tensor(texts_N), tf.cast(number, tf.int64)
    size = tf.size(texts_N, tf.int64)
    number = tf.where((number >= 0) & (number < size), number, size)
    return tf.concat([texts_N, [""]], axis=0)[number]


def first(texts_N: Any) -> Any:
    """The first of several texts, "" where there are none."""
    return at(texts_N, 0)


def pick(words: tuple[str, ...], label: Any) -> Any:
    """The word that belongs to a label: scalar integer tensor -> scalar string tensor, "" where it is no label."""
    return at(tf.constant(words), label)


def question(text: Any) -> Any:
    """A question with exactly one question mark, "" where there is nothing but question marks."""
    bare = tf.strings.regex_replace(text, r"[\s?]+$", "")
    return tf.where(is_blank(bare), "", tf.strings.join([bare, "?"]))


def has_label(record: Mapping[str, Any]) -> Any:
    """Whether a record is labelled, a scalar boolean tensor: TFDS gives -1 where there is no label.

    Those are the test sets of GLUE, SuperGLUE and others, and SNLI's examples on which nobody agreed. They are dropped
    without a word; any other number that is no label makes an empty answer, which is said.
    """
    return tf.not_equal(record["label"], -1)


def capitalized(text: Any) -> Any:
    """Text with its first letter in upper case; string tensor of any shape, empty strings too."""
    first = tf.strings.regex_replace(text, r"(?s)^(.?).*$", r"\1")
    return tf.strings.join([tf.strings.upper(first, encoding="utf-8"), tf.strings.regex_replace(text, r"(?s)^.", "")])

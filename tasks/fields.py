"""What the `fields` and `keep` functions of several clusters share. TensorFlow string operations throughout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epy

with epy.lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


def one_line(text: Any) -> Any:
    """Text on one line, its words one space apart, none at the edges.

    Args:
      text: string tensor of any shape; the result has the same. RE2's white space is ASCII only, so separators, the
        no-break space among them, are named.
    """
    return tf.strings.strip(tf.strings.regex_replace(text, r"[\s\pZ]+", " "))


def pick(words: tuple[str, ...], label: Any) -> Any:
    """The words that belong to labels: integer tensor of any shape -> string tensor of the same."""
    return tf.gather(tf.constant(words), label)


def has_label(record: Mapping[str, Any]) -> Any:
    """Whether a record is labelled, a scalar boolean tensor: TFDS gives -1 where there is no label.

    Those are the test sets of GLUE, SuperGLUE and others, and SNLI's examples on which nobody agreed.
    """
    return record["label"] >= 0


def capitalized(text: Any) -> Any:
    """Text with its first letter in upper case; string tensor of any shape, empty strings too."""
    first = tf.strings.regex_replace(text, r"(?s)^(.?).*$", r"\1")
    return tf.strings.join([tf.strings.upper(first, encoding="utf-8"), tf.strings.regex_replace(text, r"(?s)^.", "")])

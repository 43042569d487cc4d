"""What the `fields` and `keep` functions of several clusters share. TensorFlow string operations throughout.

None of them may fail on any record that fits the TFDS schema, since one record would then end its whole dataset. What a
record lacks becomes the empty text, and `flan_jax.data.usable` leaves out the records in which a template would show one.
So an index or a label goes through `at`, and a list of answers through `filled`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


# What Windows-1252 has where Unicode and Latin-1 have control characters, from 0x80; -1 where it has nothing.
_WINDOWS_1252 = tuple(ord(bytes([code]).decode("cp1252", "ignore") or "\0") or -1 for code in range(0x80, 0xA0))

_HTML_NAMES = (
    ("quot", '"'),
    ("apos", "'"),
    ("lt", "<"),
    ("gt", ">"),
    ("nbsp", " "),
    ("hellip", "…"),
    ("mdash", "—"),
    ("ndash", "–"),
    ("lsquo", "‘"),
    ("rsquo", "’"),
    ("ldquo", "“"),
    ("rdquo", "”"),
    ("amp", "&"),  # the last, so that "&amp;lt;" becomes "&lt;"
)


def windows_1252(text: Any) -> Any:
    """A text, scalar, whose control characters are the dashes, dots and quotation marks that Windows meant by them."""
    codes = tf.strings.unicode_decode(text, "UTF-8")
    is_control = (codes >= 0x80) & (codes < 0xA0)
    meant = tf.gather(tf.constant(_WINDOWS_1252), tf.where(is_control, codes - 0x80, 0))
    codes = tf.where(is_control, meant, codes)
    return tf.strings.unicode_encode(tf.boolean_mask(codes, codes >= 0), "UTF-8")


def _with_characters(text: Any, escape: str, number: Callable[[Any], Any]) -> Any:
    """A text, scalar, with characters for its escapes. `escape` is their pattern, whose group `number` reads: [N] -> [N]."""
    text = tf.strings.regex_replace(text, r"[\x01\x02]", "")  # these two mark the numbers
    parts_N = tf.strings.split(tf.strings.regex_replace(text, escape, "\x01\\1\x02"), "\x01")
    codes = number(tf.strings.regex_replace(parts_N[1:], r"(?s)\x02.*$", ""))
    characters = tf.strings.unicode_encode(tf.expand_dims(codes, 1), "UTF-8", errors="ignore")
    rests = tf.strings.regex_replace(parts_N[1:], r"(?s)^.*?\x02", "")
    return tf.strings.join([parts_N[0], tf.strings.reduce_join(tf.strings.join([characters, rests]))])


def with_decimal_escapes(text: Any, escape: str) -> Any:
    """A text, scalar, with the characters that a pattern's first group has as a decimal number of at most six digits."""
    return _with_characters(text, escape, lambda numbers_N: tf.strings.to_number(numbers_N, tf.int32))


def with_json_escapes(text: Any) -> Any:
    r"""A text, scalar, with the characters for JSON's escapes, such as "é" for "\u00e9"."""

    def number(numbers_N: Any) -> Any:
        codes_N4 = tf.strings.unicode_decode(numbers_N, "UTF-8").to_tensor(shape=[None, 4])
        digits_N4 = tf.where(codes_N4 < 0x3A, codes_N4 - 0x30, codes_N4 % 0x20 + 9)
        return tf.reduce_sum(digits_N4 * [0x1000, 0x100, 0x10, 1], axis=1)

    return _with_characters(text, r"\\u([0-9A-Fa-f]{4})", number)


def without_html_names(text: Any, start: str = "&") -> Any:
    """Text, of any shape, with the characters for HTML's escapes by name, such as "&" for "&amp;".

    Args:
      text: string tensor.
      start: pattern of what an escape begins with.
    """
    for name, character in _HTML_NAMES:
        text = tf.strings.regex_replace(text, f"{start}{name};", character)
    return text


def without_html_escapes(text: Any, start: str = "&") -> Any:
    """A text, scalar, with the characters for HTML's escapes by name and by decimal number; see `without_html_names`."""
    return without_html_names(windows_1252(with_decimal_escapes(text, rf"{start}#(\d{{2,6}});")), start)


def without_hidden_characters(text: Any) -> Any:
    """Text without what shows nothing or stands for a lost letter: soft hyphens, zero-width marks, U+FFFD."""
    return tf.strings.regex_replace(text, r"[\p{Cf}\x{FFFD}]", "")


# What a tokenizer set apart ("She was n't sick .", `" Hello , "`), put together again. Applied in order. Text that is
# not tokenized stays as it is, and so do smileys.
_MARKS = r" ([?!]+|[)\]]+|[,;:%.])( |$)"
_APART = (
    (r"(^|[ (\[])`` ", r'\1"'),
    (r" ''([ .,;:?!)\]]|$)", r'"\1'),
    (r"``|''", '"'),
    (r"\b([Cc])an not\b", r"\1annot"),
    (r"\b([Gg])on na\b", r"\1onna"),
    (r"\b([Ww])an na\b", r"\1anna"),
    (r"\b([Gg])ot ta\b", r"\1otta"),
    (r"(\w) n(['’])t\b", r"\1n\2t"),
    (r"(\w) (['’]) ?(s|m|d|re|ve|ll|S|M|D|RE|VE|LL)\b", r"\1\2\3"),
    (r"(^|[ (\[])[`'] ([^'`]*?[^'` s]) [`']([ ,.;:?!)\]]|$)", r"\1'\2'\3"),
    (r"s '([ ,.;:?!)\]]|$)", r"s'\1"),  # "parents ' house"
    (r"([$£€]) (\d)", r"\1\2"),
    (r"(\d) ([%°])", r"\1\2"),
    (r"(^|[ (])# (\d)", r"\1#\2"),
    (r"(\d) : (\d\d)\b", r"\1:\2"),
    (r"\b(\d+) - (\d+)( [a-z]|[.,;:?!)]| [.,;:?!)]|$)", r"\1-\2\3"),
    (r"(?i)\b(re|non|e|ex|co|t|x|self|mid|pre|semi|anti|multi|bi) - ([a-z])", r"\1-\2"),
    (r"(?i)([a-z]) - in - law", r"\1-in-law"),
    (r"([a-z]) - (fi|term|haired|hearted|minded|friendly|sized|lagged)\b", r"\1-\2"),
    *((_MARKS, r"\1\2"),) * 3,
    (r" ([?!]+|[)\]]+)([.,;:?!)\]]+(?: |$))", r"\1\2"),
    (r"([^\s.]) (\.{2,})( |$)", r"\1\2\3"),
    (r" ([?!]+|[,.])([\"')\]])", r"\1\2"),
    (r" ([;:])([\"'\]])", r"\1\2"),
    (r"(^|[ \"'])([(\[]) ", r"\1\2"),
)
# Quotation marks that stand apart on both sides come in pairs. In a cutting with an odd one, the last is left over if
# the first opens a quotation. If it may close one, all stay as they are.
_PAIRED = r'(?:"|[^"]*(?:[\w:]|\b(?:said|says?|asked?|replied|shouted|thought|told \w+),) ")?[^"]*(?:"[^"]*"[^"]*)*'
_QUOTED = (
    (r'(^|[ (\[])"([^ "][^"]*[.,?!]) "( |$)', r'\1"\2"\3'),
    (r'(^|[ (\[])" ([^"]*[^" ]) "', r'\1"\2"'),
    (r'^((?:[^"]*"[^"]*")*(?:[^"]*[ (\[])?)" ([^"]+)$', r'\1"\2'),
)


def untokenized(text: Any) -> Any:
    """Tokenized text as it is usually written, on one line; string tensor of any shape."""
    text = one_line(text)
    for pattern, instead in _APART:
        text = tf.strings.regex_replace(text, pattern, instead)
    quoted = text
    for pattern, instead in _QUOTED:
        quoted = tf.strings.regex_replace(quoted, pattern, instead)
    return tf.where(tf.strings.regex_full_match(text, _PAIRED), quoted, text)

"""Translation: ParaCrawl and the WMT'14 and WMT'16 pairs, English with eight other languages.

In training a record is translated in one direction, which its English text decides, so that a dataset asks for both
directions equally often and an English text is never the question in one record and the answer in another. In
evaluation every record is asked in both directions, which are variants of the dataset and scored apart, as in the
paper's tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flan_jax.catalog import GENERATION, VARIANT, Dataset
from flan_jax.lazy import lazy_imports
from flan_jax.splits import Splits
from flan_jax.tasks.fields import one_line
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf

_HASH_KEY = (0x464C414E, 0x32303231)  # any constant does; another one would turn half of the records round


def _directions(code: str) -> tuple[str, str]:
    """The variants: out of English, and into it."""
    return f"en-{code}", f"{code}-en"


def _both(code: str, language: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The fields of a pair of English and `language` in both directions: variant, source, answer, source_language, target_language; each [2]."""

    def expand(record: Mapping[str, Any]) -> dict[str, Any]:
        english, other = one_line(record["en"]), one_line(record[code])
        return {
            VARIANT: tf.constant(_directions(code)),
            "source": tf.stack([english, other]),
            "answer": tf.stack([other, english]),
            "source_language": tf.constant(["English", language]),
            "target_language": tf.constant([language, "English"]),
        }

    return expand


def _one(code: str, language: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The same fields in the direction of training."""
    both = _both(code, language)

    def fields(record: Mapping[str, Any]) -> dict[str, Any]:
        direction = tf.strings.to_hash_bucket_strong(one_line(record["en"]), 2, _HASH_KEY)
        return {name: values_2[direction] for name, values_2 in both(record).items()}

    return fields


def _differs(code: str) -> Callable[[Mapping[str, Any]], Any]:
    """Drops the records whose two sides are the same: scores, names, and lines that nobody translated."""

    def keep(record: Mapping[str, Any]) -> Any:
        return tf.not_equal(one_line(record["en"]), one_line(record[code]))

    return keep


_WMT_SPLITS = Splits(dev="validation", test="test")


def _pair(
    name: str,
    source: str,
    code: str,
    language: str,
    templates: tuple[Template, ...],
    splits: Splits = _WMT_SPLITS,
    manual: str = "",
) -> Dataset:
    return Dataset(
        name=name,
        cluster="translation",
        source=source,
        kind=GENERATION,
        metrics=("bleu", "bleu_13a"),
        splits=splits,
        keep=_differs(code),
        fields=_one(code, language),
        expand=_both(code, language),
        variants=_directions(code),
        bare="{source}",
        gpt3_prompt=Gpt3Prompt("{source_language}: {source}\n{target_language}:", stop=("\n",)),
        templates=templates,
        manual=manual,
    )


# The texts are headings, sentences or whole paragraphs, with or without a full stop, and some hold quotation marks:
# so no template calls them sentences, puts quotation marks around them, or lets punctuation follow.

# ------------------------------------------------------------------------------------------------ ParaCrawl, Spanish

PARA_CRAWL_ENES = _pair(
    "para_crawl_enes",
    "para_crawl/enes:1.2.0",
    "es",
    "Spanish",
    (
        Template("Translate into {target_language}:\n\n{source}"),
        Template("{source}\n\nHow would a web page in {target_language} put it?"),
        Template("From: {source_language}\nInto: {target_language}\nText: {source}\nTranslation:"),
        Template("This page exists in {source_language} only. Add the {target_language} version.\n\n{source}"),
        Template("{source}\n\n({source_language} to {target_language})"),
        Template(
            "Translate faithfully, leaving nothing out, but make it sound natural.\n\nIn {source_language}: {source}\n\nIn {target_language}:"
        ),
        Template("what does this bit of the website say in {target_language}?\n\n{source}"),
        Template("Say it in {target_language}.\n{source}"),
        Template(
            "Make up a line or two of {source_language} text for a website.",
            "{source}",
            INVERTED,
        ),
        Template(
            "{answer}\n\nThis was translated from {source_language}. Reconstruct the original.", "{source}", INVERTED
        ),
    ),
    splits=Splits(test_size=1000),  # TFDS has a single split
)

# ---------------------------------------------------------------------------------------------------- WMT'14, French

WMT14_ENFR = _pair(
    "wmt14_enfr",
    "wmt14_translate/fr-en:1.0.0",
    "fr",
    "French",
    (
        Template("What's the {target_language} for this {source_language}?\n{source}"),
        Template("{source_language}: {source}\n{target_language}:"),
        Template("Put this {source_language} passage into {target_language}.\n\n{source}"),
        Template("saw this in a newspaper, can you give it to me in {target_language}?\n\n{source}"),
        Template("Accuracy first, elegance second. Put the extract into {target_language}.\n\n{source}"),
        Template("{source}\n\nWrite the same for readers of {target_language}, no more and no less."),
        Template("A line or two to translate.\n\n{source}\n\nI need it in {target_language}."),
        Template("Bilingual document, {source_language} half:\n{source}\n\nThe {target_language} half:"),
        Template("Is this French or English?\n\n{source}", "{source_language}", INVERTED),
        Template(
            "{answer}\n\nAn interpreter said this after hearing it in {source_language}. What did the interpreter hear?",
            "{source}",
            INVERTED,
        ),
    ),
)

# ----------------------------------------------------------------------------------------------------- WMT'16, Czech

WMT16_CSEN = _pair(
    "wmt16_translate_csen",
    "wmt16_translate/cs-en:1.0.0",
    "cs",
    "Czech",
    (
        Template("Provide the {target_language} translation.\n\n{source}"),
        Template("{source}\n\nIn {target_language}, please."),
        Template(
            "A book is out in Czech and English. Here's a piece of the {source_language} edition:\n\n{source}\n\nWhat does the {target_language} edition say?"
        ),
        Template("Source language: {source_language}\nTarget language: {target_language}\nSource: {source}\nTarget:"),
        Template("be our interpreter: {source_language} to {target_language}\n\n{source}"),
        Template("Read the text, then write it in {target_language}.\n\n{source}"),
        Template("{source}\n\nTranslate that for someone who only knows {target_language}."),
        Template("From {source_language} into {target_language}:\n{source}"),
        Template("Write the {target_language} subtitle for these spoken words.\n\n{source}"),
        Template(
            "1. {source}\n2. {answer}\n\nName the language of line 1, then of line 2, separated by a comma.",
            "{source_language}, {target_language}",
            INVERTED,
        ),
    ),
    manual=(
        "put czeng16pre.deduped-ignoring-sections.txt.gz from the CzEng 1.6pre page into TFDS's folder of manual "
        "downloads and run tfds build wmt16_translate/cs-en, or import your own copy with --data=FOLDER"
    ),
)

# ---------------------------------------------------------------------------------------------------- WMT'16, German

WMT16_DEEN = _pair(
    "wmt16_translate_deen",
    "wmt16_translate/de-en:1.0.0",
    "de",
    "German",
    (
        Template("Now in {target_language}: {source}"),
        Template("{source}\n\nWrite that in {target_language}."),
        Template(
            "Mind the word order, which often differs between German and English. Translate into {target_language}.\n\n{source}"
        ),
        Template(
            "Our report is missing a passage in its {target_language} version. In {source_language} it says:\n\n{source}\n\nCan you fill the gap?"
        ),
        Template("{source_language} original\n{source}\n\n{target_language} translation"),
        Template("How do you say this in {target_language}?\n{source}"),
        Template("Complete the second row.\n\n{source_language} | {target_language}\n{source} |"),
        Template("my friend only speaks {target_language}, how do i tell them this?\n\n{source}"),
        Template(
            "Translate word for word where {target_language} grammar lets you, freely where it doesn't.\n\n{source}"
        ),
        Template(
            "{answer}\n\nThat's the result of a translation from {source_language}. What did the translator start from?",
            "{source}",
            INVERTED,
        ),
    ),
)

# --------------------------------------------------------------------------------------------------- WMT'16, Finnish

WMT16_FIEN = _pair(
    "wmt16_translate_fien",
    "wmt16_translate/fi-en:1.0.0",
    "fi",
    "Finnish",
    (
        Template("{source}\n\n{target_language} version:"),
        Template("Translation wanted. Target language: {target_language}.\n\n{source}"),
        Template("Flash card, front ({source_language}): {source}\nBack ({target_language}):"),
        Template("Finnish or English, whichever this is, translate it into the other.\n\n{source}"),
        Template("Translation order\nOut of: {source_language}\nInto: {target_language}\nText: {source}"),
        Template("Keep the meaning of this text and translate it into {target_language}.\n\n{source}"),
        Template("Write this in {target_language}, as a native speaker would.\n\n{source}"),
        Template("{target_language} for: {source}"),
        Template(
            "The board gets every paper in Finnish and English.\n\n{source_language}: {source}\n\nNow supply the {target_language} text."
        ),
        Template("{source}\n\nWhat language is that?", "{source_language}", INVERTED),
    ),
)

# -------------------------------------------------------------------------------------------------- WMT'16, Romanian

WMT16_ROEN = _pair(
    "wmt16_translate_roen",
    "wmt16_translate/ro-en:1.0.0",
    "ro",
    "Romanian",
    (
        Template("Express the following in {target_language}.\n\n{source}"),
        Template("In ({source_language}): {source}\nOut ({target_language}):"),
        Template("News item, {source_language}:\n{source}\n\nDraft it in {target_language} for our other readers."),
        Template("{source}\n\ncan i have that in {target_language}? my {source_language} isn't good enough"),
        Template(
            "Translate from {source_language} to {target_language}. Don't comment on it or shorten it.\n\n{source}"
        ),
        Template(
            "This is on the screen in {source_language}, but half the audience needs {target_language}. Translate it for them.\n\n{source}"
        ),
        Template("Find the {target_language} wording that comes closest: {source}"),
        Template("If you know both Romanian and English, tell me what this is in {target_language}.\n{source}"),
        Template("{source}\n\nNow in {target_language}:"),
        Template(
            '(a) {source}\n(b) {answer}\n\nWhich language is (a) in, and which (b)? Join the two names with "and".',
            "{source_language} and {target_language}",
            INVERTED,
        ),
    ),
)

# --------------------------------------------------------------------------------------------------- WMT'16, Russian

WMT16_RUEN = _pair(
    "wmt16_translate_ruen",
    "wmt16_translate/ru-en:1.0.0",
    "ru",
    "Russian",
    (
        Template("Translate: {source}\nLanguage of the translation: {target_language}"),
        Template("{source}\n\nGive the full sense of this in {target_language}."),
        Template("Different alphabets, same meaning. Say this in {target_language}.\n\n{source}"),
        Template("Before ({source_language}):\n{source}\n\nAfter translation ({target_language}):"),
        Template(
            "a museum wrote back in {source_language} and I can't read this part. what is it in {target_language}?\n\n{source}"
        ),
        Template(
            "Type what a perfect translation program would put out.\n\n{source_language} input: {source}\n{target_language} output:"
        ),
        Template(
            "Write out what this means for someone who reads {target_language} but no {source_language}.\n\n{source}"
        ),
        Template("{source_language} -> {target_language}\nText: {source}"),
        Template("Sample of text:\n{source}\n\nIts language (Russian or English):", "{source_language}", INVERTED),
        Template(
            "{answer}\n\nThis {target_language} was made from a text in {source_language}. Write that text.",
            "{source}",
            INVERTED,
        ),
    ),
    manual=(
        "put 1mcorpus.zip, the English-Russian corpus of Yandex, into TFDS's folder of manual downloads and run "
        "tfds build wmt16_translate/ru-en, or import your own copy with --data=FOLDER"
    ),
)

# --------------------------------------------------------------------------------------------------- WMT'16, Turkish

WMT16_TREN = _pair(
    "wmt16_translate_tren",
    "wmt16_translate/tr-en:1.0.0",
    "tr",
    "Turkish",
    (
        Template("Translation into {target_language}, nothing else:\n{source}"),
        Template(
            "The text is in {source_language}. A reader of {target_language} should learn exactly the same from your translation.\n\n{source}"
        ),
        Template("our dictionary doesn't settle it, how would you put this in {target_language}?\n\n{source}"),
        Template("Q: How do you say the text below in {target_language}?\n{source}\nA:"),
        Template("Translate from {source_language} into {target_language} and keep the tone.\n\n{source}"),
        Template("{source}\n\nOur office only speaks {target_language}. Translate for us."),
        Template("This needs an exact translation into {target_language}, with nothing left out.\n\n{source}"),
        Template("Swap {source_language} for {target_language}, same content.\n\n{source}"),
        Template("Meaning in {target_language}?\n{source}"),
        Template("English, or is it Turkish?\n{source}", "{source_language}", INVERTED),
    ),
)

DATASETS = (
    PARA_CRAWL_ENES,
    WMT14_ENFR,
    WMT16_CSEN,
    WMT16_DEEN,
    WMT16_FIEN,
    WMT16_ROEN,
    WMT16_RUEN,
    WMT16_TREN,
)

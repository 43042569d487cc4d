"""Translation: ParaCrawl and the WMT'14 and WMT'16 pairs, English with eight other languages.

In training a record is translated in one direction, which its English text decides, so that a dataset asks for both
directions equally often and an English text is never the question in one record and the answer in another. In
evaluation every record is asked in both directions, which are variants of the dataset and scored apart, as in the
paper's tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from etils import epy

from flan_jax.catalog import GENERATION, VARIANT, Dataset
from flan_jax.splits import Splits
from flan_jax.tasks.fields import one_line
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with epy.lazy_imports():  # the catalog is read by processes that need no TensorFlow
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
        Template("Translate this into {target_language}:\n\n{source}"),
        Template("{source}\n\nHow would a web page in {target_language} put it?"),
        Template(
            "WEBSITE LOCALISATION\nFrom: {source_language}\nInto: {target_language}\n\nText: {source}\nTranslation:"
        ),
        Template(
            "Our site is kept in English and in Spanish, but up to now the text below exists in {source_language} only. Please supply what is missing.\n\n{source}"
        ),
        Template("{source}\n\n({source_language} to {target_language})"),
        Template(
            "You translate between Spanish and English for a living. Your latest client hates texts that sound translated, but insists that nothing be left out or added. This has come in, in {source_language}, and should go out in {target_language}:\n\n{source}"
        ),
        Template(
            "While looking for something on the internet, I landed on a page that is all in {source_language}. Can you tell me in {target_language} what this bit says?\n\n{source}"
        ),
        Template("Say it in {target_language}.\n{source}"),
        Template(
            "Write something in {source_language} that could stand on a website, be it a heading, a line from a menu or a few full sentences.",
            "{source}",
            INVERTED,
        ),
        Template(
            "These words have been translated out of {source_language}. Reconstruct the original.\n\n{answer}",
            "{source}",
            INVERTED,
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
        Template("What is the {target_language} for the following {source_language}?\n{source}"),
        Template("{source_language}: {source}\n{target_language}:"),
        Template("Put the passage below into {target_language}. It is written in {source_language}.\n\n{source}"),
        Template(
            "I speak {target_language}, and the lady next to me speaks {source_language}. She has just read this out to me from her newspaper:\n\n{source}\n\nWhat does it mean in my language?"
        ),
        Template(
            "ENGLISH AND FRENCH, WRITTEN EXAMINATION\n\nRender the extract in {target_language}. Accuracy counts for more than elegance.\n\n{source}"
        ),
        Template(
            "{source}\n\nThe words above were chosen for readers of {source_language}. Choose the words for readers of {target_language}, and let them say neither more nor less."
        ),
        Template("Would you mind translating a line or two for me? I need them in {target_language}.\n\n{source}"),
        Template(
            "Here is one half of a bilingual document, the {source_language} half:\n\n{source}\n\nNow produce the other half, which is in {target_language}."
        ),
        Template("Is this French or English?\n\n{source}", "{source_language}", INVERTED),
        Template(
            "{answer}\n\nThat is what came out of an interpreter's booth after somebody had said something in {source_language}. What had been said?",
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
            "A publisher in Prague prints every book twice, once in Czech and once in English. Somewhere in the {source_language} edition this is to be found:\n\n{source}\n\nWhat stands in its place in the {target_language} edition?"
        ),
        Template(
            "TASK: translation\nSOURCE LANGUAGE: {source_language}\nTARGET LANGUAGE: {target_language}\nSOURCE TEXT: {source}\nTARGET TEXT:"
        ),
        Template(
            "My neighbour has only Czech and I have only English. Please be our go-between and turn this from {source_language} into {target_language}.\n\n{source}"
        ),
        Template(
            "Read the following, make sure that you see what is meant, and then express the same in {target_language}.\n\n{source}"
        ),
        Template(
            "{source}\n\nOnly people who know {source_language} get anything out of this. Make it accessible to those who know {target_language} instead."
        ),
        Template("From {source_language} into {target_language}, if you would:\n{source}"),
        Template(
            "Imagine these words spoken in a film. Which subtitle would you show to an audience that follows nothing but {target_language}?\n\n{source}"
        ),
        Template(
            "1. {source}\n2. {answer}\n\nName the language of the first line, then that of the second.",
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
        Template("Translate from {source_language} to {target_language}: {source}"),
        Template("{source}\n\nWrite that in {target_language}."),
        Template(
            "German and English often put their words in a different order. Mind this as you carry the text below over from {source_language} to {target_language}.\n\n{source}"
        ),
        Template(
            "Dear colleague,\n\nOur report has to come out in English and in German, and one passage of the {target_language} version is still missing. In {source_language} it reads:\n\n{source}\n\nCould you fill the gap?"
        ),
        Template("{source_language} original\n{source}\n\n{target_language} translation"),
        Template("How do you say this in {target_language}?\n{source}"),
        Template("Complete the second row of the table.\n\n{source_language} | {target_language}\n{source} |"),
        Template(
            "Suppose you had grown up with two languages, English and German. A friend who knows nothing but {target_language} points at some words and looks at you.\n\n{source}\n\nTell your friend what is written there."
        ),
        Template(
            "It is in {source_language}, and I want it in {target_language}: word for word where the grammar lets you, freely where it does not.\n\n{source}"
        ),
        Template(
            "Work backwards. The text at the bottom is the outcome of a translation between German and English; restore what the translator was given, which was in {source_language}.\n\n{answer}",
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
        Template(
            "I am making cards for a course that is given in both Finnish and English. On the front of this one I have put, in {source_language}:\n{source}\n\nWhat belongs on the back, in {target_language}?"
        ),
        Template(
            "Whichever of the two languages this is in, Finnish or English, translate it into the other.\n\n{source}"
        ),
        Template(
            "LANGUAGE SERVICE, HELSINKI\n\nOrder: translate out of {source_language}\nDeliver in: {target_language}\nText: {source}"
        ),
        Template(
            "A text in {source_language} follows. Its meaning is to survive and its language is not: answer in {target_language}.\n\n{source}"
        ),
        Template("What would a native speaker of {target_language} write in order to convey this?\n\n{source}"),
        Template("{target_language} for: {source}"),
        Template(
            "The members of the board speak either Finnish or English, so every paper reaches them in both. You have been handed a paper in {source_language}, which says among other things:\n\n{source}\n\nSupply the words for its {target_language} twin, please."
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
        Template(
            "A news agency in Bucharest serves its readers in Romanian and English. An item has arrived in {source_language}:\n\n{source}\n\nDraft it in {target_language} for the other half of the readers."
        ),
        Template("{source}\n\nCould I have that in {target_language}? My {source_language} is not good enough."),
        Template(
            "PART B: TRANSLATION\n\nThe passage is in {source_language}, and your answer should be in {target_language}. Do not comment on it, and do not shorten it.\n\n{source}"
        ),
        Template(
            "At a conference, half of the guests understand Romanian and the other half English. These lines appear on the screen in {source_language}, and half of the guests are lost. Help them with the {target_language}.\n\n{source}"
        ),
        Template("Find the {target_language} wording that matches this as closely as possible: {source}"),
        Template(
            "Do you happen to know both Romanian and English? Then let me know, in {target_language}, what I have here.\n{source}"
        ),
        Template("{source}\n\nThe same again in {target_language}:"),
        Template(
            "Below, the same thing is said twice.\n\n(a) {source}\n(b) {answer}\n\nIn which language is (a), and in which is (b)?",
            "(a) is in {source_language}, (b) is in {target_language}",
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
        Template(
            "English and Russian do not even share an alphabet, but whatever is said in one can be said in the other. Prove it by saying this in {target_language}.\n\n{source}"
        ),
        Template("Original ({source_language}):\n{source}\n\nTranslation ({target_language}):"),
        Template(
            "A museum in Moscow has answered my enquiry in {source_language}, and part of the letter is beyond me. What would it be in {target_language}?\n\n{source}"
        ),
        Template(
            "To try out a translation program, somebody has set {source_language} as the input language and {target_language} as the output language and entered the following. Type the output of a perfect program.\n\n{source}"
        ),
        Template(
            "For a person who can read {target_language} but no {source_language}, write out what this means:\n\n{source}"
        ),
        Template("{source_language} -> {target_language}\n{source}"),
        Template(
            "Sample of text:\n{source}\n\nLanguage of the sample (Russian or English):", "{source_language}", INVERTED
        ),
        Template(
            "{answer}\n\nSo much for the {target_language}, which was made from a text in {source_language}. What might that text look like?",
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
        Template("Answer with the {target_language} translation of this and nothing else:\n{source}"),
        Template(
            "The following is in {source_language}. Translate it in such a way that a reader of {target_language} learns exactly what the first readers learned.\n\n{source}"
        ),
        Template(
            "We have a dictionary here, Turkish to English and English to Turkish, and still we cannot agree on how this should run in {target_language}. What is your suggestion?\n\n{source}"
        ),
        Template("Q: How is the text below expressed in {target_language}?\n{source}\nA:"),
        Template(
            "EXERCISE 3. Translation from {source_language} into {target_language}. Keep to the tone of the original.\n\n{source}"
        ),
        Template(
            "{source}\n\nThis has to be understood in an office where {target_language} is the only language. Lend them a hand."
        ),
        Template(
            "As a sworn translator you certify that what you hand over in {target_language} corresponds in full to what was placed before you in {source_language}. The following has been placed before you:\n\n{source}"
        ),
        Template("Swap {source_language} for {target_language} and leave the content as it is.\n\n{source}"),
        Template(
            "I can see that this is {source_language}, but there my knowledge ends. Its meaning in {target_language}?\n{source}"
        ),
        Template(
            "Is the speaker of these words using English, or is it Turkish?\n{source}", "{source_language}", INVERTED
        ),
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

"""Structure to text: CommonGen, DART, E2E NLG and WebNLG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flan_jax.catalog import GENERATION, Dataset
from flan_jax.lazy import lazy_imports
from flan_jax.tasks.fields import filled, one_line, without_html_names
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


def _answer_and_references(record: Mapping[str, Any], text_of: Callable[[Any], Any] = one_line) -> dict[str, Any]:
    """GEM gives a training record a target only; other records have a list of references, the target among them.

    `text_of` makes a text of the source, or of several, the one that is shown and scored.
    """
    answer = text_of(record["target"])
    references = filled(text_of(record["references"]))
    return {
        "answer": answer,
        "references": tf.cond(tf.size(references) > 0, lambda: references, lambda: answer[tf.newaxis]),
    }


def _triple_parts(triples: Any) -> tuple[Any, Any, Any]:
    """The subjects, relations and values of triples "subject | relation | value", without quotes around a value."""
    subjects, relations, values = (
        one_line(tf.strings.regex_replace(triples, r"(?s)^(.*?) \| (.*?) \| (.*)$", group))
        for group in (r"\1", r"\2", r"\3")
    )
    return subjects, relations, tf.strings.regex_replace(values, r'^"(.*)"$', r"\1")


def _plain_words(name: Any) -> Any:
    """The words of a relation's name: those of cityServed, CITY_SERVED and city_served are "city served"."""
    words = tf.strings.regex_replace(tf.strings.regex_replace(name, "_", " "), r"([a-z\d])([A-Z])", r"\1 \2")
    for odd, instead in ((r"^Libraryof ", "Library of "), (r"^UTCOffset$", "UTC offset")):  # as WebNLG has them
        words = tf.strings.regex_replace(words, odd, instead)
    has_acronym = tf.strings.regex_full_match(words, r".*[A-Z]{2}.*") & tf.strings.regex_full_match(words, r".*[a-z].*")
    return one_line(tf.where(has_acronym, words, tf.strings.lower(words, encoding="utf-8")))


# -------------------------------------------------------------------------------------------------------- CommonGen


def _common_gen_sentence(text: Any) -> Any:
    """The text on one line. Many in the source have a space before the last full stop."""
    return tf.strings.regex_replace(one_line(text), r" +([.!?])$", r"\1")


def _common_gen_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields concepts ("dog, run"), concept_list (one a line after "- "), answer, references."""
    concepts = filled(tf.strings.strip(record["concepts"]))
    return {
        "concepts": tf.strings.reduce_join(concepts, separator=", "),
        "concept_list": tf.strings.reduce_join(tf.strings.join(["- ", concepts]), separator="\n"),
        **_answer_and_references(record, _common_gen_sentence),
    }


COMMON_GEN = Dataset(
    name="common_gen",
    cluster="structure_to_text",
    source="gem/common_gen:1.1.0",
    # Lin et al. 2020 (CommonGen), section 3: made from captions, of Flickr30k and ActivityNet among others.
    kin=(("snli", "both have captions of Flickr30k"), ("hellaswag", "both have captions of ActivityNet")),
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    fields=_common_gen_fields,
    gpt3_prompt=Gpt3Prompt("Words: {concepts}\nSentence:", stop=("\n",)),
    templates=(
        Template("Join these words into one everyday sentence: {concepts}"),
        Template("{concepts}\n\nFit all of these into a single sentence."),
        Template("Words:\n{concept_list}\n\nWrite a short, sensible sentence. Endings may change, but use every word."),
        Template("I need a picture caption with these words in it: {concepts}"),
        Template("{concepts} -> sentence"),
        Template("{concept_list}\n\nOne short sentence with all of these words, in any order and with any endings:"),
        Template(
            "Make up a scene from these words:\n{concept_list}\n\nDescribe it in one sentence that has them all, in any form."
        ),
        Template("words for a sentence: {concepts}\nthe sentence:"),
        Template(
            "{answer}\n\nWhich few words was this sentence built from? Give dictionary forms, separated by commas.",
            "{concepts}",
            INVERTED,
        ),
        Template(
            "This line was made from a few given words, mostly nouns and verbs. Guess them, and put each on its own line after a dash.\n\n{answer}",
            "{concept_list}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- DART


def _dart_text(text: Any) -> Any:
    """The text on one line, as it was before HTML: string tensor of any shape."""
    return one_line(without_html_names(text))


def _dart_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields triples ("Oslo | country | Norway; ..."), triple_list (one a line after "- "), answer, references.

    The subject [TABLECONTEXT] stands for the table that a triple was taken from, and the relation [TITLE] for its title.
    A few texts still have HTML's escapes ("Corporation &amp; plc"), which are resolved.
    """
    subjects, relations, values = _triple_parts(filled(_dart_text(record["tripleset"])))
    subjects = tf.strings.regex_replace(subjects, r"^\[TABLECONTEXT\]$", "the table")
    relations = _plain_words(tf.strings.regex_replace(relations, r"[\[\]]", ""))
    triples = tf.strings.join([subjects, relations, values], separator=" | ")
    return {
        "triples": tf.strings.reduce_join(triples, separator="; "),
        "triple_list": tf.strings.reduce_join(tf.strings.join(["- ", triples]), separator="\n"),
        **_answer_and_references(record, _dart_text),
    }


DART = Dataset(
    name="dart",
    cluster="structure_to_text",
    source="gem/dart:1.1.0",
    # Nan et al. 2021 (DART), section 2: takes in WebNLG 2017 and the cleaned E2E.
    kin=(("web_nlg_en", "DART takes in WebNLG"), ("e2e_nlg", "DART takes in E2E")),
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    fields=_dart_fields,
    gpt3_prompt=Gpt3Prompt("Facts: {triples}\nIn plain English:", stop=("\n",)),
    templates=(
        Template("Put this data into plain English: {triples}"),
        Template("{triple_list}\n\nEach line is subject, relation and value. Write it all as running text."),
        Template("Triples: {triples}\nText:"),
        Template("A table was split into these pieces:\n\n{triple_list}\n\nWhat did it say, in words?"),
        Template("in normal language, what does this mean?\n{triples}"),
        Template("State every fact below (subject | relation | value) in fluent sentences.\n\n{triple_list}"),
        Template("Database entries:\n{triple_list}\n\nThe same in prose:"),
        Template("{triples}\n\nThe same in words:"),
        Template(
            "{answer}\n\nSplit this into single facts, one a line after a dash: subject | relation | value",
            "{triple_list}",
            INVERTED,
        ),
        Template(
            "Write the facts in this text as subject | relation | value, separated by semicolons.\n\n{answer}",
            "{triples}",
            INVERTED,
        ),
    ),
)

# ---------------------------------------------------------------------------------------------------------- E2E NLG


def _e2e_nlg_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields attributes ("name = Aromi, food = Thai"), attribute_list (one a line), answer, references."""
    meaning = one_line(record["meaning_representation"])
    lines = tf.strings.regex_replace(meaning, r"\], ?", "]\n- ")  # before "[" goes: a value may hold a comma
    return {
        "attributes": tf.strings.regex_replace(meaning, r" ?\[([^\]]*)\]", r" = \1"),
        "attribute_list": tf.strings.join(["- ", tf.strings.regex_replace(lines, r" ?\[([^\]]*)\]", r": \1")]),
        **_answer_and_references(record),
    }


E2E_NLG = Dataset(
    name="e2e_nlg",
    cluster="structure_to_text",
    source="gem/e2e_nlg:1.1.0",
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    fields=_e2e_nlg_fields,
    gpt3_prompt=Gpt3Prompt("Facts: {attributes}\nIn plain English:", stop=("\n",)),
    templates=(
        Template("Describe this place to eat or drink: {attributes}"),
        Template("Fact sheet:\n{attribute_list}\n\nWrite what a guidebook would say."),
        Template("{attributes}\n\nSay all that in plain English."),
        Template("{attribute_list}\n\nPlease describe this place briefly for our city guide."),
        Template("Data: {attributes}\nText:"),
        Template("Expand the notes into full sentences.\n\n{attribute_list}"),
        Template("someone's asking about a place to eat, tell them this: {attributes}"),
        Template("{attribute_list}\n\nThe venue in a few words:"),
        Template(
            'List what this says about the venue as "attribute = value", separated by commas. Attributes: name, eatType, food, priceRange, customer rating, area, familyFriendly, near.\n\n{answer}',
            "{attributes}",
            INVERTED,
        ),
        Template(
            'Fill in a database entry from this description, one attribute a line, like "- priceRange: £5".\n\n{answer}',
            "{attribute_list}",
            INVERTED,
        ),
    ),
)

# ----------------------------------------------------------------------------------------------------------- WebNLG


def _web_nlg_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields category, triples ("Oslo | country | Norway; ..."), triple_list (one a line), answer, references.

    The names of things have underscores for spaces, and properties and categories are written in camel case.
    """
    things, properties, values = _triple_parts(filled(tf.strings.regex_replace(record["input"], "_", " ")))
    things, values = (
        tf.strings.regex_replace(parts, r"\(comicsCharacter\)", "(comics character)") for parts in (things, values)
    )
    parts = [things, _plain_words(properties), values]
    triples = tf.strings.join(parts, separator=" | ")  # values may hold commas
    return {
        "category": _plain_words(record["category"]),
        "triples": tf.strings.reduce_join(triples, separator="; "),
        "triple_list": tf.strings.reduce_join(tf.strings.join(["- ", triples]), separator="\n"),
        **_answer_and_references(record),
    }


WEB_NLG_EN = Dataset(
    name="web_nlg_en",
    cluster="structure_to_text",
    source="gem/web_nlg_en:1.1.0",
    kind=GENERATION,
    metrics=("rouge", "rouge_stemmed"),
    fields=_web_nlg_fields,
    bare="{triples}",
    gpt3_prompt=Gpt3Prompt("Facts: {triples}\nIn plain English:", stop=("\n",)),
    templates=(
        Template("Topic: {category}\nKnown: {triples}\n\nWrite it up."),
        Template("Tell what the data says in complete sentences. Add nothing and leave nothing out.\n\n{triple_list}"),
        Template("{triples}\n\nRephrase this the way a person would write it."),
        Template("Filed under {category}:\n\n{triple_list}\n\nTurn this into an encyclopedia text."),
        Template("Facts ({category}): {triples}\nText:"),
        Template("turn my notes into prose please\n{triple_list}"),
        Template(
            "Write this data as text. Join what belongs together, so it doesn't sound like a list.\n\n{triple_list}"
        ),
        Template("How would you say this out loud? {triples}"),
        Template(
            "Extract the facts from this text, one a line, in the form\n- thing | property | value\n\n{answer}",
            "{triple_list}",
            INVERTED,
        ),
        Template(
            "{answer}\n\nWhat data was this written from? Write thing | property | value, with semicolons between facts.",
            "{triples}",
            INVERTED,
        ),
    ),
)

DATASETS = (COMMON_GEN, DART, E2E_NLG, WEB_NLG_EN)

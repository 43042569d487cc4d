"""Structure to text: CommonGen, DART, E2E NLG and WebNLG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epy

from flan_jax.catalog import GENERATION, Dataset
from flan_jax.tasks.fields import filled, one_line
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with epy.lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


def _answer_and_references(record: Mapping[str, Any]) -> dict[str, Any]:
    """GEM gives a training record a target only; other records have a list of references, the target among them."""
    answer = one_line(record["target"])
    references = filled(one_line(record["references"]))
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
    has_acronym = tf.strings.regex_full_match(words, r".*[A-Z]{2}.*") & tf.strings.regex_full_match(words, r".*[a-z].*")
    return one_line(tf.where(has_acronym, words, tf.strings.lower(words, encoding="utf-8")))


# -------------------------------------------------------------------------------------------------------- CommonGen


def _common_gen_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields concepts ("dog, run"), concept_list (one a line after "- "), answer, references."""
    concepts = filled(tf.strings.strip(record["concepts"]))
    return {
        "concepts": tf.strings.reduce_join(concepts, separator=", "),
        "concept_list": tf.strings.reduce_join(tf.strings.join(["- ", concepts]), separator="\n"),
        **_answer_and_references(record),
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
        Template(
            "Join these words up into one sentence about something that could well happen on an ordinary day: {concepts}"
        ),
        Template("{concepts}\n\nFit every one of these into a single sentence."),
        Template(
            "Words to work with:\n{concept_list}\n\nCompose a short, sensible sentence around them. Their endings may change, but none may be left out."
        ),
        Template("I need a caption for a picture, and it has to bring in these words: {concepts}. What could it say?"),
        Template("{concepts} -> sentence"),
        Template(
            "LANGUAGE EXERCISE\n\nForm a grammatical sentence from the words listed here. Each must be used, in any order and any form.\n\n{concept_list}"
        ),
        Template(
            "Please picture a simple scene that has all of this in it, and tell me in one sentence what is going on there.\n{concept_list}"
        ),
        Template(
            "My sister and I are playing a game: one of us calls out a few words and the other has to say a sentence that has them all. She has just called out: {concepts}. What can I say?"
        ),
        Template(
            "{answer}\n\nWhich few words was the writer of this sentence told to use? Give their dictionary forms, separated by commas.",
            "{concepts}",
            INVERTED,
        ),
        Template(
            "The line below was written around a handful of given words, mostly nouns and verbs. Guess which words they were, and put each on a line of its own after a dash.\n\n{answer}",
            "{concept_list}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- DART


def _dart_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields triples ("Oslo | country | Norway; ..."), triple_list (one a line after "- "), answer, references.

    The subject [TABLECONTEXT] stands for the table that a triple was taken from, and the relation [TITLE] for its title.
    """
    subjects, relations, values = _triple_parts(filled(record["tripleset"]))
    subjects = tf.strings.regex_replace(subjects, r"^\[TABLECONTEXT\]$", "the table")
    relations = _plain_words(tf.strings.regex_replace(relations, r"[\[\]]", ""))
    triples = tf.strings.join([subjects, relations, values], separator=" | ")
    return {
        "triples": tf.strings.reduce_join(triples, separator="; "),
        "triple_list": tf.strings.reduce_join(tf.strings.join(["- ", triples]), separator="\n"),
        **_answer_and_references(record),
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
        Template("Put the following data into plain English: {triples}"),
        Template(
            "{triple_list}\n\nEach line above has a subject, a relation and a value, set apart by bars. Express it all as running text."
        ),
        Template("Triples: {triples}\nSentence:"),
        Template("A table has been taken apart into these pieces:\n\n{triple_list}\n\nWhat did it say, in words?"),
        Template(
            "I am hopeless at reading data. Would you be so kind as to tell me in normal language what this means?\n{triples}"
        ),
        Template(
            "DATA TO TEXT\n\nThe input consists of facts in the form subject | relation | value. Produce a fluent sentence or two in which all of them are stated.\n\n{triple_list}"
        ),
        Template(
            "Imagine an encyclopedia that is written by a machine, straight from a database. What would it print for these entries?\n\n{triple_list}"
        ),
        Template("{triples}\n\nVerbalize."),
        Template(
            "{answer}\n\nDivide what is said here into single facts, one a line after a dash, each of the form subject | relation | value.",
            "{triple_list}",
            INVERTED,
        ),
        Template(
            "Which entries of a knowledge base does the text below put into words? Write them as subject | relation | value, with semicolons in between.\n\n{answer}",
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
        Template("Turn this record of a place to eat or drink into plain English: {attributes}"),
        Template(
            "Fact sheet:\n{attribute_list}\n\nWrite what a guidebook would say about the place, leaving nothing out."
        ),
        Template("{attributes}\n\nSay all of that in a sentence or two."),
        Template(
            "We are adding a venue to our city guide, and these details are all we have:\n\n{attribute_list}\n\nCould you please write its description for us?"
        ),
        Template("Data: {attributes}\nText:"),
        Template(
            "WRITING TASK\n\nThe notes give the particulars of a coffee shop, pub or restaurant. Expand them into full sentences. Use every note and add nothing of your own.\n\n{attribute_list}"
        ),
        Template(
            "You work at a tourist office, and a visitor asks about somewhere to eat. Your screen shows the following: {attributes}. What do you say about it?"
        ),
        Template("How would you describe a venue if this were all you knew about it?\n\n{attribute_list}"),
        Template(
            '{answer}\n\nNote down what this tells us about the venue, in the form "attribute = value", separated by commas. The attributes to choose from are name, eatType, food, priceRange, customer rating, area, familyFriendly and near.',
            "{attributes}",
            INVERTED,
        ),
        Template(
            'Fill in a database entry from the description below: one attribute a line, written like "- priceRange: £5".\n\n{answer}',
            "{attribute_list}",
            INVERTED,
        ),
    ),
)

# ----------------------------------------------------------------------------------------------------------- WebNLG


def _web_nlg_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields category, triples ("Oslo, country, Norway; ..."), triple_list (one a line), answer, references.

    The names of things have underscores for spaces, and properties and categories are written in camel case.
    """
    things, properties, values = _triple_parts(filled(tf.strings.regex_replace(record["input"], "_", " ")))
    parts = [things, _plain_words(properties), values]
    lines = tf.strings.join(["- ", tf.strings.join(parts, separator=" | ")])
    return {
        "category": _plain_words(record["category"]),
        "triples": tf.strings.reduce_join(tf.strings.join(parts, separator=", "), separator="; "),
        "triple_list": tf.strings.reduce_join(lines, separator="\n"),
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
        Template("Topic: {category}\nWhat is known: {triples}\n\nWrite it up."),
        Template(
            "What can be learned from the data below? Tell it in complete sentences, and neither add nor omit anything.\n\n{triple_list}"
        ),
        Template("{triples}\n\nRephrase this so that it reads like a text by a human being."),
        Template(
            'You write for an online work of reference. The record on your desk is filed under "{category}" and holds nothing but this:\n\n{triple_list}\n\nSupply the text.'
        ),
        Template("Facts ({category}): {triples}\nText:"),
        Template(
            "Dear editor, could you please turn my notes into prose? Every note names a thing, a property that it has, and the value of the property.\n\n{triple_list}"
        ),
        Template(
            "EXERCISE: FROM TRIPLES TO ENGLISH\n\nJoin what belongs together, so that the result does not sound like a list.\n\n{triple_list}"
        ),
        Template("How would one say this out loud? {triples}"),
        Template(
            "Extract the facts from this text and note each on a line of its own, in the form\n- thing | property | value\n\n{answer}",
            "{triple_list}",
            INVERTED,
        ),
        Template(
            "{answer}\n\nWhat data was this written from? Separate a thing, its property and the value by commas, and one such triple from the next by a semicolon.",
            "{triples}",
            INVERTED,
        ),
    ),
)

DATASETS = (COMMON_GEN, DART, E2E_NLG, WEB_NLG_EN)

"""Commonsense: COPA, HellaSwag, PIQA and StoryCloze."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.lazy import lazy_imports
from flan_jax.splits import Splits
from flan_jax.tasks.fields import at, has_label, one_line
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


# ------------------------------------------------------------------------------------------------------------- COPA


def _copa_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields premise, relation ("cause" or "effect"), question, cue, gapped, link, beginning, wrong, options, answer.

    The cue asks for the next sentence. The gap stands for a sentence, before the premise for a cause and after it for an
    effect. The link is "because" or "so"; the beginning is the premise with the link after it, for a choice to follow.
    Wrong is the other choice.
    """
    premise = one_line(record["premise"])
    asks_for_cause = tf.equal(record["question"], "cause")
    is_known = asks_for_cause | tf.equal(record["question"], "effect")
    options = tf.stack([one_line(record["choice1"]), one_line(record["choice2"])])
    bare = tf.strings.regex_replace(premise, r"[\s.!?]+$", "")
    link = tf.where(asks_for_cause, "because", "so")
    return {
        "premise": premise,
        "relation": tf.where(is_known, record["question"], ""),
        "question": tf.where(asks_for_cause, "What was the cause of this?", "What happened as a result?"),
        "cue": tf.where(asks_for_cause, "Why?", "And then?"),
        "gapped": tf.where(asks_for_cause, tf.strings.join(["____ ", premise]), tf.strings.join([premise, " ____"])),
        "link": link,
        "beginning": tf.strings.join([bare, link], separator=" "),
        "wrong": at(options, 1 - record["label"]),
        "options": options,
        "answer": at(options, record["label"]),
    }


COPA = Dataset(
    name="copa",
    cluster="commonsense",
    source="super_glue/copa:1.0.2",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(dev_size=50),
    keep=has_label,
    fields=_copa_fields,
    gpt3_prompt=Gpt3Prompt("{beginning}", premise="{link}", mid_sentence=True),
    templates=(
        Template("{premise}\n\n{question}\n\n{options}"),
        Template("Event: {premise}\nLikely {relation}:\n{options}"),
        Template("Add a sentence.\n\n{premise} {cue}\n\n{options}"),
        Template(
            "{premise}\n\nOf these two, which is the more likely {relation}?\n\n{options}",
            open_input="{premise}\n\nWhat would be a likely {relation}?",
        ),
        Template("I said: {premise}\nThey asked: {question}\nWhat should I answer?\n{options}"),
        Template("Give a plausible {relation} of the event.\n\nEvent: {premise}\n\n{options}"),
        Template("Use your common sense.\n\n{premise}\n\nWhat's the {relation}?\n{options}"),
        Template("Fill the gap with a sentence: {gapped}\n{options}"),
        Template("{answer}\n\nThat is the {relation}. Of what? Answer in a sentence.", "{premise}", INVERTED),
        Template(
            "Something happened. Its likely {relation}: {answer}\nNothing to do with it: {wrong}\n\nSay in one sentence what happened.",
            "{premise}",
            INVERTED,
        ),
    ),
)

# -------------------------------------------------------------------------------------------------------- HellaSwag


def _without_markers(text: Any, instead: str) -> Any:
    """WikiHow passages carry the section marks [header], [title], [step] and [substeps]."""
    text = tf.strings.regex_replace(text, r"\s*\[header\]\s*", " ")
    return tf.strings.strip(tf.strings.regex_replace(text, r"\s*\[(?:title|step|substeps?)\]\s*", instead))


# How HellaSwag's texts were taken apart, applied in order. A straight quotation mark after a number is an inch sign.
_HELLASWAG_APART = (
    (r"(\d) , (\d{3})\b", r"\1,\2"),
    (r"(\S) ([,;:!?)]+)", r"\1\2"),
    (r"([^.])\.\.( \D|$)", r"\1.\2"),  # a full stop after a sentence that has one
    (r"([!?:])\.( \D|$)", r"\1\2"),
    (r'(\d) "( by |[,.;:)x]|$)', r'\1"\2'),
    (r'\b(by|x) ([\d./ ]*\d) "', r'\1 \2"'),
    (r'^([^"]*(?:[,:]|\b(?:says?|said|saying|like))) " ([^"]*)$', r'\1 "\2'),  # opened here and closed later
    (r'^([^"]*[.?!]) "( [^"]*|)$', r'\1"\2'),  # opened earlier
)


def _hellaswag_text(text: Any) -> Any:
    """Text with its punctuation as it is usually written. Where quotation marks may not come in pairs, they stay."""
    for pattern, instead in _HELLASWAG_APART:
        text = tf.strings.regex_replace(text, pattern, instead)
    in_pairs = (
        r'(?s)(?:(?:\d ?"|[^"])*(?:[^\d"] |\()"[^"]*")*(?:\d ?"|[^"])*'  # at the start, one may close what is cut off
    )
    quoted = tf.strings.regex_replace(text, r'([^\d ] |\()" ([^"]*[^" ]) ?"', r'\1"\2"')
    return tf.where(tf.strings.regex_full_match(text, in_pairs), quoted, text)


def _hellaswag_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields context, activity (a title such as "Long jump"), options (endings), answer.

    A caption's context ends with the beginning of its next sentence, in lower case; it gets its capital letter.
    """
    context = _hellaswag_text(_without_markers(record["context"], "\n"))
    opening = r"(?s)^(.*[.!?]\s)([a-z])([^.!?]*)$"
    head, letter, rest = (tf.strings.regex_replace(context, opening, group) for group in (r"\1", r"\2", r"\3"))
    capitalized = tf.strings.join([head, tf.strings.upper(letter), rest])
    options = _hellaswag_text(one_line(_without_markers(record["endings"], " ")))
    return {
        "context": tf.where(tf.strings.regex_full_match(context, opening), capitalized, context),
        "activity": one_line(record["activity_label"]),
        "options": options,
        "answer": at(options, record["label"]),
    }


# As its authors and the Hub give it: text, and none in the test set.
_HELLASWAG_SPELLINGS = (("0", 0), ("1", 1), ("2", 2), ("3", 3), ("", -1))

HELLASWAG = Dataset(
    name="hellaswag",
    cluster="commonsense",
    source="hellaswag:1.1.0",
    # Zellers et al. 2019 (HellaSwag), section 4: contexts are from WikiHow, as are the articles of WikiLingua.
    kin=(("wiki_lingua_english_en", "both have text of WikiHow"),),
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    keep=has_label,
    spellings=_HELLASWAG_SPELLINGS,
    fields=_hellaswag_fields,
    gpt3_prompt=Gpt3Prompt("{context}"),
    templates=(
        Template("{context}\n\nHow does this go on?\n\n{options}"),
        Template(
            "Topic: {activity}\n\n{context}\n\nPick the continuation that makes sense.\n{options}",
            open_input="Topic: {activity}\n\n{context}\n\nWrite a continuation that makes sense.",
        ),
        Template(
            "Someone describes a video or gives advice.\n\n{context}\n\nWhat would come next without surprising anyone?\n{options}"
        ),
        Template("What most likely comes next?\n{context}\n{options}"),
        Template(
            "The rest of this passage is missing. Choose what could have stood there.\n\n{context}\n\n{options}",
            open_input="The rest of this passage is missing. Find words that could have stood there.\n\n{context}",
        ),
        Template("Opening: {context}\nEnding:\n{options}"),
        Template('found this under "{activity}":\n\n{context}\n\nany idea how it continues?\n{options}'),
        Template("{context}\n\nFinish naturally.\n\n{options}"),
        Template(
            "Topic: {activity}\nEnd of the text: {answer}\n\nWrite the part that comes before it.",
            "{context}",
            INVERTED,
        ),
        Template(
            "Begin a short text on the subject below, as advice or as a description of a video. Leave the end to someone else.\n\nSubject: {activity}",
            "{context}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- PIQA


def _piqa_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields goal, wrong (the solution that does not work), options, answer.

    A goal may be a question, a purpose ("to cool a pan"), half a sentence or just an object ("radio"), which the
    solutions say something about.
    """
    options = tf.stack([one_line(record["sol1"]), one_line(record["sol2"])])
    return {
        "goal": one_line(record["goal"]),
        "wrong": at(options, 1 - record["label"]),
        "options": options,
        "answer": at(options, record["label"]),
    }


PIQA = Dataset(
    name="piqa",
    cluster="commonsense",
    source="piqa:1.0.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(dev_size=100),
    keep=has_label,
    fields=_piqa_fields,
    gpt3_prompt=Gpt3Prompt("{goal}"),
    templates=(
        Template(
            "{goal}\n\nWhich of the two is right?\n\n{options}",
            open_input="{goal}\n\nAnswer or complete this correctly.",
        ),
        Template("Goal: {goal}\nSolution?\n{options}"),
        Template(
            "Household topic: {goal}\n\nChoose the tip that would work in practice.\n\n{options}",
            open_input="Household topic: {goal}\n\nWrite a tip that would work in practice.",
        ),
        Template(
            "need help with this: {goal}\nwhich reply can I trust?\n{options}",
            open_input="need help with this: {goal}\nwhat would you reply?",
        ),
        Template(
            "Think about how everyday things behave, then select the line that goes with the prompt.\n\nPrompt: {goal}\n\n{options}",
            open_input="Think about how everyday things behave, then answer or complete the prompt.\n\nPrompt: {goal}",
        ),
        Template("Give sound advice.\n\n{goal}\n\n{options}"),
        Template(
            "{goal}\n\nOnly one of these would work. Which?\n{options}",
            open_input="Answer this if it is a question. If it is the start of a sentence, finish it.\n\n{goal}",
        ),
        Template("My note is about this: {goal}\n\nWhat should it say, to be true and useful?\n\n{options}"),
        Template(
            "{answer}\n\nWhat is this advice or fact about? Name the goal, question or thing.", "{goal}", INVERTED
        ),
        Template("Right: {answer}\nWrong: {wrong}\n\nWhat goal or thing is this about?", "{goal}", INVERTED),
    ),
)

# ------------------------------------------------------------------------------------------------------- StoryCloze


def _story_cloze_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields context (four sentences), wrong (the other ending), options (endings), answer. Labels count from one."""
    options = one_line(record["endings"])
    right = record["label"] - 1
    return {
        "context": one_line(record["context"]),
        "wrong": at(options, 1 - right),
        "options": options,
        "answer": at(options, right),
    }


STORY_CLOZE = Dataset(
    name="story_cloze",
    cluster="commonsense",
    source="story_cloze/2016:1.0.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(train="validation", dev="validation", test="test"),
    keep=has_label,  # -1 where the file lacks the column
    manual=(
        "ask for the Story Cloze Test of spring 2016 at https://cs.rochester.edu/nlp/rocstories and put its files, named "
        "cloze_test_val__spring2016.csv and cloze_test_test__spring2016.csv, into downloads/manual in TFDS's data folder"
    ),
    fields=_story_cloze_fields,
    gpt3_prompt=Gpt3Prompt("{context}"),
    templates=(
        Template("{context}\n\nHow does the story end?\n\n{options}"),
        Template(
            "Story: {context}\nLast sentence:\n{options}",
            open_input="Story: {context}\nWrite the sentence that ends it:",
        ),
        Template(
            "Four sentences of a five-sentence story. Add the last one so that it makes sense.\n\n{context}\n\n{options}"
        ),
        Template("Choose an ending.\n{context}\n{options}", open_input="Write an ending.\n{context}"),
        Template(
            "can't decide how to end this, which line goes better with the rest?\n\n{context}\n\n{options}",
            open_input="can't think of a way to end this, what line goes well with the rest?\n\n{context}",
        ),
        Template("The final sentence was cut off.\n\n{context}\n\nWhat was it?\n{options}"),
        Template("{context}\n\nOn the next page, the story closes with:\n{options}"),
        Template(
            "Which sentence brings this to a believable close?\n\n{context}\n\n{options}",
            open_input="What single sentence brings this to a believable close?\n\n{context}",
        ),
        Template("Write four sentences of a story that lead up to this ending:\n\n{answer}", "{context}", INVERTED),
        Template(
            "Make up the first four sentences of a short story. The right ending should follow naturally and the wrong one shouldn't fit.\n\nRight: {answer}\nWrong: {wrong}",
            "{context}",
            INVERTED,
        ),
    ),
)

DATASETS = (COPA, HELLASWAG, PIQA, STORY_CLOZE)

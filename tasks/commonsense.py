"""Commonsense: COPA, HellaSwag, PIQA and StoryCloze."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epy

from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.splits import Splits
from flan_jax.tasks.fields import at, has_label, one_line
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with epy.lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


# ------------------------------------------------------------------------------------------------------------- COPA


def _copa_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields premise, relation ("cause" or "effect"), question, link, beginning, wrong (the other choice), options, answer.

    The link is "because" or "so"; the beginning is the premise with the link after it, for a choice to follow.
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
        Template("Event: {premise}\nMore likely {relation}:\n{options}"),
        Template(
            "Here is the first half of a sentence. Which of the choices would you use as the other half?\n\n{beginning} ...\n\n{options}",
            open_input="Here is the first half of a sentence. What would you use as the other half?\n\n{beginning} ...",
        ),
        Template(
            "Things seldom happen out of the blue, and seldom without consequences. Suppose this is what happened:\n\n{premise}\n\nOf the two things listed below, which is the more natural {relation}?\n\n{options}",
            open_input="Things seldom happen out of the blue, and seldom without consequences. Suppose this is what happened:\n\n{premise}\n\nWhat would be a natural {relation}?",
        ),
        Template(
            'My niece never runs out of questions. I told her this: "{premise}" At once she asked: "{question}" What should I have said?\n{options}'
        ),
        Template(
            "CAUSES AND EFFECTS\n\nMark the sentence that gives a plausible {relation} of the event described.\n\nEvent: {premise}\n\n{options}"
        ),
        Template(
            "Please pick the more sensible of two opinions. Both are about the {relation} of what it says here:\n\n{premise}\n\n{options}",
            open_input="Please give me a sensible opinion on the {relation} of what it says here:\n\n{premise}",
        ),
        Template("Fill the gap: {beginning} ___\n{options}"),
        Template("Think of something that could have this as its {relation}.\n\n{answer}", "{premise}", INVERTED),
        Template(
            "Something has happened. The first of these sentences names its likely {relation}, while the second has nothing to do with it:\n- {answer}\n- {wrong}\n\nSay in one sentence what has happened.",
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


def _hellaswag_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields context, activity (a title such as "Long jump"), options (endings), answer.

    A caption's context ends with the beginning of its next sentence, in lower case; it gets its capital letter.
    """
    context = _without_markers(record["context"], "\n")
    opening = r"(?s)^(.*[.!?]\s)([a-z])([^.!?]*)$"
    head, letter, rest = (tf.strings.regex_replace(context, opening, group) for group in (r"\1", r"\2", r"\3"))
    capitalized = tf.strings.join([head, tf.strings.upper(letter), rest])
    options = one_line(_without_markers(record["endings"], " "))
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
            "Topic: {activity}\n\nText: {context}\n\nPick the continuation that makes sense.\n{options}",
            open_input="Topic: {activity}\n\nText: {context}\n\nWrite a continuation that makes sense.",
        ),
        Template(
            "Below is the beginning of a text, either the description of a video or a piece of advice.\n\n{context}\n\nFour continuations have been proposed, but in three of them things happen that would surprise anyone. Which is the fourth?\n\n{options}",
            open_input="Below is the beginning of a text, either the description of a video or a piece of advice.\n\n{context}\n\nContinue it in such a way that nothing happens that would surprise anyone.",
        ),
        Template("What most likely comes after the following?\n{context}\n{options}"),
        Template(
            "The last part of this passage has been lost:\n\n{context}\n\nChoose the words that could have stood there.\n\n{options}",
            open_input="The last part of this passage has been lost:\n\n{context}\n\nFind words that could have stood there.",
        ),
        Template(
            "COMMON SENSE QUIZ\n\nRead the opening, imagine the situation, and mark the one ending that fits it.\n\nOpening: {context}\n\n{options}"
        ),
        Template(
            'I was reading aloud something filed under "{activity}" when I lost my place. This is how far I had got:\n{context}\n\nCan you work out where I should go on?\n{options}'
        ),
        Template("{context} ...\n\nFinish the text above in the most natural way.\n\n{options}"),
        Template(
            "The text that we are after is about this: {activity}. All that survives is its end.\n\n{answer}\n\nWrite what could have led up to it.",
            "{context}",
            INVERTED,
        ),
        Template(
            "Begin a short text on the subject given, either as advice to the reader or as an account of what can be seen in a video. Stop before it is finished, since somebody else will add the end.\n\nSubject: {activity}",
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
        Template("{goal}\n\nWhich of the two is right?\n\n{options}", open_input="{goal}\n\nWhat is right?"),
        Template("Goal: {goal}\nSolution?\n{options}"),
        Template(
            "A household handbook has an entry with this heading:\n\n{goal}\n\nOne of two texts belongs under it. The other would not work in practice. Choose the one that belongs.\n\n{options}",
            open_input="A household handbook has an entry with this heading:\n\n{goal}\n\nWrite what belongs under it. It should work in practice.",
        ),
        Template(
            'Someone with little practical experience has asked for help with this: "{goal}" Which reply should they trust?\n{options}',
            open_input='Someone with little practical experience has asked for help with this: "{goal}" What reply can they trust?',
        ),
        Template(
            "PHYSICAL COMMON SENSE\n\nThink of how everyday things behave, and select the line that goes with the prompt.\n\nPrompt: {goal}\n\n{options}",
            open_input="PHYSICAL COMMON SENSE\n\nThink of how everyday things behave, and write the line that goes with the prompt.\n\nPrompt: {goal}",
        ),
        Template(
            "Of the options at the bottom, one is sound and one is mistaken. Say which is the sound one.\n\nThey are about: {goal}\n\n{options}",
            open_input="Give a piece of advice that is sound, not one that is mistaken.\n\nIt is about: {goal}",
        ),
        Template(
            "{goal}\n\nOnly one of these would work, or is true of it. Which one?\n{options}",
            open_input="{goal}\n\nWhat would work, or is true of it?",
        ),
        Template("My note begins like this:\n{goal}\n\nHow should it end, so that it is true and useful?\n\n{options}"),
        Template(
            "Some advice, or a plain fact, runs as follows.\n\n{answer}\n\nWhat goal, question or thing is it about?",
            "{goal}",
            INVERTED,
        ),
        Template(
            "This would do the job: {answer}\nThis would not: {wrong}\n\nState what the job, or the subject, is.",
            "{goal}",
            INVERTED,
        ),
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
        Template("Story: {context}\nLast sentence:\n{options}"),
        Template(
            "Four sentences of a very short story are given. Its fifth and last is one of the two at the bottom; the other would not make sense in it. Find the one that belongs there.\n\n{context}\n\n{options}",
            open_input="Four sentences of a very short story are given. Add the fifth and last one, so that it makes sense there.\n\n{context}",
        ),
        Template("Choose an ending.\n{context}\n{options}", open_input="Write an ending.\n{context}"),
        Template(
            "I am writing something for our storytelling evening and cannot make up my mind about the last line. Which of my two ideas goes better with the rest?\n\n{context}\n\n{options}",
            open_input="I am writing something for our storytelling evening and cannot think of a last line. What would go well with the rest?\n\n{context}",
        ),
        Template(
            "STORY COMPLETION\n\nThe final sentence has been cut off the text. Identify it.\n\nText: {context}\n\n{options}",
            open_input="STORY COMPLETION\n\nThe final sentence has been cut off the text. Restore it.\n\nText: {context}",
        ),
        Template(
            "At bedtime a father reads to his children:\n\n{context}\n\nThen he turns over to the last page. What will it say there, if the author has any sense?\n{options}"
        ),
        Template(
            "Which of the two sentences offered brings the following to a believable conclusion?\n\n{context}\n\n{options}",
            open_input="What single sentence brings the following to a believable conclusion?\n\n{context}",
        ),
        Template(
            "Write four sentences that tell a little story and lead up to this end:\n\n{answer}", "{context}", INVERTED
        ),
        Template(
            "Make up the first four sentences of a short story. The first of these endings has to follow naturally from them, and the second must not fit.\n\nFitting: {answer}\nNot fitting: {wrong}",
            "{context}",
            INVERTED,
        ),
    ),
)

DATASETS = (COPA, HELLASWAG, PIQA, STORY_CLOZE)

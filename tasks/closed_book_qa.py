"""Closed-book question answering: ARC, Natural Questions and TriviaQA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epy

from flan_jax.catalog import CLASSIFICATION, GENERATION, Dataset
from flan_jax.splits import Splits
from flan_jax.tasks.fields import at, filled, first, one_line, question
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with epy.lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf

# -------------------------------------------------------------------------------------------------------------- ARC

_ARC_CHOICES = 4
_ARC_SPELLINGS = (("1", "A"), ("2", "B"), ("3", "C"), ("4", "D"), ("5", "E"))  # of the exams that number the choices


def _arc_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields question, others (the wrong choices, one a line), options, answer (of the one choice with the key's label)."""
    options = tf.strings.strip(record["choices"]["text"])
    right = tf.equal(record["choices"]["label"], record["answerKey"])
    wrong = tf.boolean_mask(options, tf.logical_not(right))
    answer = at(options, tf.argmax(tf.cast(right, tf.int32)))
    return {
        "question": tf.strings.strip(tf.strings.regex_replace(record["question"], r"[ \t]+", " ")),
        "others": tf.strings.reduce_join(tf.strings.join(["- ", wrong]), separator="\n"),
        "options": options,
        "answer": tf.where(tf.equal(tf.math.count_nonzero(right), 1), answer, ""),
    }


def _arc_keep(record: Mapping[str, Any]) -> Any:
    """Keeps the questions with four choices, as the paper does; a few have three or five."""
    choices = record["choices"]
    return tf.equal(tf.size(choices["text"]), _ARC_CHOICES) & tf.equal(tf.size(choices["label"]), _ARC_CHOICES)


# About a fifth of the questions are the beginning of a sentence, which the right choice completes.
_ARC_TEMPLATES = (
    Template(
        "{question}\n\nWhich of the choices is correct?\n\n{options}", open_input="{question}\n\nWhat is correct?"
    ),
    Template(
        "Here is an item from a science test for schools. It is either a question to answer or a sentence to complete.\n\n{question}\n\n{options}"
    ),
    Template("Q: {question}\n{options}\nA:"),
    Template(
        'My daughter is stuck on her homework. The worksheet says: "{question}" Only one of the four choices printed there is right. Can you tell us which?\n{options}',
        open_input='My daughter is stuck on her homework. The worksheet says: "{question}" Only one answer to that is right. Can you tell us which?',
    ),
    Template(
        "GENERAL SCIENCE\nMultiple choice. Four possibilities are offered, of which one earns the mark.\n\n1. {question}\n\n{options}",
        open_input="GENERAL SCIENCE\nShort answers. Write down no more than what earns the mark.\n\n1. {question}",
    ),
    Template(
        "Use what you know about nature and science to pick the right one of the options for the problem below.\n\nProblem: {question}\n\n{options}",
        open_input="Use what you know about nature and science to solve the problem below.\n\nProblem: {question}",
    ),
    Template(
        "{question}\n\nPlease take your time, rule out what cannot be right, and then tell me which option is left.\n\n{options}",
        open_input="{question}\n\nPlease take your time, rule out what cannot be right, and then tell me what is left.",
    ),
    Template(
        "A science teacher has thought of four choices for a new test question.\n\nThe right choice:\n- {answer}\n\nThe wrong choices:\n{others}\n\nNow only the question is missing, or a sentence for the right choice to complete. Write it.",
        "{question}",
        INVERTED,
    ),
    Template(
        'Set a problem for a school science quiz. Its solution is to be the following: "{answer}"',
        "{question}",
        INVERTED,
    ),
    Template(
        "What might the pupils have been asked, if this was marked as correct?\n{answer}\n\nThese were marked as mistakes:\n{others}",
        "{question}",
        INVERTED,
    ),
)


def _arc(name: str, config: str) -> Dataset:
    return Dataset(
        name=name,
        cluster="closed_book_qa",
        source=f"ai2_arc/{config}:1.0.0",
        paper_dataset="arc",
        kind=CLASSIFICATION,
        metrics=("accuracy",),
        splits=Splits(test="test"),
        keep=_arc_keep,
        spellings=_ARC_SPELLINGS,
        fields=_arc_fields,
        gpt3_prompt=Gpt3Prompt("Question: {question}\nAnswer:"),
        templates=_ARC_TEMPLATES,
    )


ARC_EASY = _arc("arc_easy", "ARC-Easy")
ARC_CHALLENGE = _arc("arc_challenge", "ARC-Challenge")

# ------------------------------------------------------------------------------------------------ Natural Questions


def _natural_questions_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields question, answer (the first one given) and references (all of them).

    The questions are searches, typed in lower case and without a question mark; they get exactly one.
    """
    references = filled(tf.strings.strip(record["answer"]))
    return {
        "question": question(one_line(record["question"])),
        "answer": first(references),
        "references": references,
    }


NATURAL_QUESTIONS = Dataset(
    name="natural_questions",
    cluster="closed_book_qa",
    source="natural_questions_open:1.0.0",
    folder="natural_questions_open",
    kind=GENERATION,
    metrics=("trivia_qa",),
    fields=_natural_questions_fields,
    gpt3_prompt=Gpt3Prompt("Q: {question}\nA:", stop=("\n",)),
    templates=(
        Template("{question}"),
        Template("Question: {question}\nShort answer:"),
        Template(
            "Somebody typed this into a search engine:\n\n{question}\n\nGive the piece of information that they were looking for."
        ),
        Template(
            "Please reply from memory, with no more than a name, a date, a number or a short phrase.\n\n{question}"
        ),
        Template('Hi! Do you happen to know this one: "{question}" It has been bothering me all day.'),
        Template(
            "GENERAL KNOWLEDGE TEST\n\nWrite the answer in as few words as you can. Full sentences are not required.\n\n1. {question}"
        ),
        Template("{question}\n\nAnswer the query above as briefly as a quiz contestant would."),
        Template('The host of a quiz show turns to you. "{question}" You press the buzzer. What do you say?'),
        Template('Write a question to which "{answer}" is the answer.', "{question}", INVERTED),
        Template(
            "The answer that a web search turned up was this:\n{answer}\n\nWhat question might have been typed in?",
            "{question}",
            INVERTED,
        ),
    ),
)

# --------------------------------------------------------------------------------------------------------- TriviaQA


def _trivia_qa_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields question, solution (the answer as written), answer (the same, normalized) and references.

    Normalized answers are in lower case, without punctuation or articles; the references are all of the aliases. The
    evidence documents are not used: the questions are asked with closed book.
    """
    answer = tf.strings.strip(record["answer"]["normalized_value"])
    aliases = filled(tf.strings.strip(record["answer"]["normalized_aliases"]))
    return {
        "question": one_line(record["question"]),
        "solution": one_line(record["answer"]["value"]),
        "answer": answer,
        "references": tf.unique(tf.concat([[answer], aliases], axis=0)).y,
    }


def _trivia_qa_keep(record: Mapping[str, Any]) -> Any:
    """Drops the test set, whose answers are "<unk>"."""
    return record["answer"]["value"] != "<unk>"


TRIVIA_QA = Dataset(
    name="trivia_qa",
    cluster="closed_book_qa",
    source="trivia_qa/rc:1.1.0",
    kind=GENERATION,
    metrics=("trivia_qa",),
    keep=_trivia_qa_keep,
    fields=_trivia_qa_fields,
    # A few of the questions are statements or fragments, and many hold quotation marks.
    gpt3_prompt=Gpt3Prompt("Q: {question}\nA:", stop=("\n",)),
    templates=(
        Template("Trivia: {question}"),
        Template("{question}\n\nAnswer in as few words as possible, all in small letters and without punctuation."),
        Template("Pub quiz, round one.\n{question}\nOur team puts down:"),
        Template(
            "What follows was set in a general knowledge competition. See if you can solve it without looking anything up.\n\n{question}"
        ),
        Template("Q. {question}\nA."),
        Template(
            "My grandmother does the quiz in her weekly magazine. This time a single line has stayed empty, and the clue to it is this:\n\n{question}\n\nDo you happen to know what goes there?"
        ),
        Template("Be concise, please. {question}"),
        Template("{question}\n\nThe card with the solution to this has been lost. What was on it?"),
        Template("I need a quiz question with the following solution: {solution}", "{question}", INVERTED),
        Template(
            "On the back of a trivia card it says:\n{solution}\n\nWhat does it say on the front?",
            "{question}",
            INVERTED,
        ),
    ),
)

DATASETS = (ARC_CHALLENGE, ARC_EASY, NATURAL_QUESTIONS, TRIVIA_QA)

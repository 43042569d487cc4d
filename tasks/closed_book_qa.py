"""Closed-book question answering: ARC, Natural Questions and TriviaQA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.catalog import CLASSIFICATION, GENERATION, Dataset
from flan_jax.lazy import lazy_imports
from flan_jax.splits import Splits
from flan_jax.tasks.fields import (
    EXAM_NEEDS_OPTIONS,
    at,
    filled,
    first,
    is_blank,
    one_line,
    question,
    without_hidden_characters,
)
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf

# -------------------------------------------------------------------------------------------------------------- ARC

_ARC_CHOICES = 4
_ARC_SPELLINGS = (("1", "A"), ("2", "B"), ("3", "C"), ("4", "D"), ("5", "E"))  # of the exams that number the choices


_ARC_NOTATION = (
    (r"_\{(\d+)\}", r"\1"),  # H_{2}O
    (r"\\times\b", "×"),
    (r"\\Delta ?", "Δ"),
    (r"\\Box\b", "___"),
    (r"\?\.$", "?"),
    (r"([^.])\.\.$", r"\1."),
    (r" \?$", "?"),
    (r"[ \t]+", " "),
)


def _arc_text(text: Any) -> Any:
    """Formulas in plain text, one mark at the end, and single spaces."""
    for pattern, instead in _ARC_NOTATION:
        text = tf.strings.regex_replace(text, pattern, instead)
    return tf.strings.strip(text)


def _arc_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields question, others (the wrong choices, one a line), options, answer (of the one choice with the key's label)."""
    options = _arc_text(tf.strings.strip(record["choices"]["text"]))
    right = tf.equal(record["choices"]["label"], record["answerKey"])
    wrong = tf.boolean_mask(options, tf.logical_not(right))
    answer = at(options, tf.argmax(tf.cast(right, tf.int32)))
    return {
        "question": _arc_text(tf.strings.strip(record["question"])),
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
        "{question}\n\nChoose the correct answer.\n\n{options}", open_input="{question}\n\nGive the correct answer."
    ),
    Template("From a science test: answer the question or complete the sentence.\n\n{question}\n\n{options}"),
    Template("Q: {question}\n{options}\nA:"),
    Template(
        "homework question, which one's right?\n{question}\n{options}",
        open_input="homework question, what's the right answer?\n{question}",
    ),
    Template("Science quiz: {question}\n{options}"),
    Template(
        "Use what you know about nature and science to pick the right option.\n\nProblem: {question}\n\n{options}",
        open_input="Use what you know about nature and science to answer or complete this.\n\n{question}",
    ),
    Template(
        "Take your time.\n\n{question}\n\nRule out the wrong options. What is left?\n{options}",
        open_input="Take your time.\n\n{question}\n\nWhat is the answer?",
    ),
    Template(
        "Right: {answer}\nWrong:\n{others}\n\nWrite the science question that goes with these choices, or a sentence for the right one to complete.",
        "{question}",
        INVERTED,
    ),
    Template(
        "Write a question for a school science quiz. Answer: {answer}\nWrong choices:\n{others}", "{question}", INVERTED
    ),
    Template("Marked correct: {answer}\nMarked wrong:\n{others}\n\nWhat was asked?", "{question}", INVERTED),
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
        needs_options=EXAM_NEEDS_OPTIONS,
        gpt3_prompt=Gpt3Prompt("Question: {question}\nAnswer:"),
        templates=_ARC_TEMPLATES,
    )


ARC_EASY = _arc("arc_easy", "ARC-Easy")
ARC_CHALLENGE = _arc("arc_challenge", "ARC-Challenge")

# ------------------------------------------------------------------------------------------------ Natural Questions


# How a search that is a question starts, and what makes one of others ("perth is the capital of which australian state").
# "actress who plays" and "the place where" ask nothing.
_ASKING = r"(?:who|whom|whose|what|which|when|where|why|how)(?:'?s|'?re|'?d)?"
_ASKS = (
    rf"(?i)(?:(?:(?:in|on|at|to|from|of|by|for|under|with|into|during|about|after|since|until|and|so) )?(?:the )?{_ASKING}\b"
    r"|(?:is|are|was|were|do|does|did|can|could|have|had|will|would|should|may|must)(?:n't)? "
    r"|.* (?:in|on|of|to|by|with|under|into|against|during|over|for|than|about) (?:what|which|whom|whose)\b"
    r"|.* (?:of|by|about) who\b|.* how (?:many|much|long|old|far|often)\b"
    r"|.* (?:what|who|how|when|where|why) (?:is|are|was|were|do|does|did|has|have) (?:the|he|she|it|they|his|her|a|an|i|you)\b"
    r"|.* (?:what|when|where|why|how) (?:do|does|did)\b|.* (?:who|what|where|when)$).*"
)
# Relative clauses that the patterns above take for questions.
_ASKS_NOTHING = r"(?i)(?:is an? |.*\bfrom which |the \w+ (?:who|where|when|which) ).*"


def _search(text: Any) -> Any:
    """A search of Natural Questions, with one question mark if it is a question."""
    text = one_line(text)
    asks = tf.strings.regex_full_match(text, _ASKS) & ~tf.strings.regex_full_match(text, _ASKS_NOTHING)
    asked = question(text)
    return tf.where(asks | is_blank(asked), asked, text)


def _natural_questions_answers(texts_N: Any) -> Any:
    """Answers without what Wikipedia left in them ("Peter Gardner[4] Ostrum"), and without those that are marks only."""
    texts_N = tf.strings.regex_replace(without_hidden_characters(texts_N), r"\[\d+\]|[\s\pZ]*[(\[][\s\pZ]*$", "")
    texts_N = tf.boolean_mask(texts_N, ~tf.strings.regex_full_match(texts_N, r"[\pP\s\pZ]*"))
    return filled(one_line(texts_N))


def _natural_questions_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields question, answer (the first one given) and references (all of them).

    The questions are searches, typed in lower case and without a question mark. Those that ask get exactly one.
    """
    references = _natural_questions_answers(record["answer"])
    return {
        "question": _search(record["question"]),
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
        Template("Asked: {question}\nAnswered in a few words:"),
        Template("Reply from memory, with just a name, date, number or short phrase.\n\n{question}"),
        Template("quick one: {question}"),
        Template("As few words as you can, no full sentence needed.\n\n{question}"),
        Template("{question}\n\nKeep the answer as short as a quiz contestant would."),
        Template("Fact needed.\n\n{question}\n\nGive nothing else."),
        Template("What could one ask to be told this?\n{answer}", "{question}", INVERTED),
        Template("Search result: {answer}\n\nWhat was typed into the search engine?", "{question}", INVERTED),
    ),
)

# --------------------------------------------------------------------------------------------------------- TriviaQA


def _trivia_qa_question(text: Any) -> Any:
    """A question on one line. A few are still written as CSV does: "Who wrote ""Leaves of Grass""?\""""
    text = one_line(text)
    is_csv = tf.strings.regex_full_match(text, r'".*"".*"')
    plain = tf.strings.regex_replace(tf.strings.regex_replace(text, r'^"|"$', ""), '"" ?([^"]*[^" ]) ?""', r'"\1"')
    plain = tf.strings.regex_replace(plain, '""', '"')
    return tf.strings.regex_replace(tf.where(is_csv, plain, text), r" +\?", "?")


def _trivia_qa_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields question, answer (as it is written) and references: the answer, then all of the aliases.

    The aliases are TFDS's normalized ones, in lower case and without punctuation or articles: the metric normalizes
    both sides. The evidence documents are not used: the questions are asked with closed book.
    """
    answer = one_line(record["answer"]["value"])
    normalized = tf.concat([[record["answer"]["normalized_value"]], record["answer"]["normalized_aliases"]], axis=0)
    return {
        "question": _trivia_qa_question(record["question"]),
        "answer": answer,
        "references": tf.unique(tf.concat([[answer], filled(tf.strings.strip(normalized))], axis=0)).y,
    }


def _trivia_qa_keep(record: Mapping[str, Any]) -> Any:
    """Drops the test set, whose answers are "<unk>", and answers of which nothing is left to compare."""
    answer = record["answer"]
    return (answer["value"] != "<unk>") & tf.logical_not(is_blank(answer["normalized_value"]))


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
        Template("{question}\n\nAnswer in as few words as possible."),
        Template("Pub quiz, round one.\n{question}\nOur team puts down:"),
        Template("See if you can solve this without looking it up.\n\n{question}"),
        Template("{question}\nSolution:"),
        Template("stuck on one clue in the quiz:\n{question}\nany idea?"),
        Template("Be brief. {question}"),
        Template("{question}\n\nTell me just the name or fact."),
        Template("Write a quiz question with this answer: {answer}", "{question}", INVERTED),
        Template("Back of the trivia card:\n{answer}\n\nFront of the card:", "{question}", INVERTED),
    ),
)

DATASETS = (ARC_CHALLENGE, ARC_EASY, NATURAL_QUESTIONS, TRIVIA_QA)

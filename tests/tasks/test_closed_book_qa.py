import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from flan_jax.data import sources, usable
from flan_jax.splits import resolve_splits
from flan_jax.tasks.closed_book_qa import ARC_EASY, NATURAL_QUESTIONS, TRIVIA_QA


def record(value="The Yen", normalized="yen", aliases=("yen", "japanese yen"), question="Which  currency? "):
    answer = {"value": tf.constant(value), "normalized_value": tf.constant(normalized)}
    return {
        "question": tf.constant(question),
        "answer": {**answer, "normalized_aliases": tf.constant(list(aliases), tf.string)},
    }


def test_the_answer_is_as_written():
    found = TRIVIA_QA.fields(record())
    assert (found["question"].numpy(), found["answer"].numpy()) == (b"Which currency?", b"The Yen")


@pytest.mark.parametrize(
    ("aliases", "references"),
    [
        (("yen", "japanese yen"), [b"The Yen", b"yen", b"japanese yen"]),
        (("japanese yen", "yen", "yen"), [b"The Yen", b"yen", b"japanese yen"]),
        (("", "y"), [b"The Yen", b"yen", b"y"]),
        ((), [b"The Yen", b"yen"]),
    ],
)
def test_references_are_the_answer_and_its_aliases_each_once(aliases, references):
    assert list(TRIVIA_QA.fields(record(aliases=aliases))["references"].numpy()) == references


@pytest.mark.parametrize(
    ("value", "normalized", "kept"), [("Yen", "yen", True), ("<unk>", "<unk>", False), ("?!", " ", False)]
)
def test_records_without_an_answer_are_dropped(value, normalized, kept):
    assert (int(usable.verdict(TRIVIA_QA, record(value, normalized))) == 0) == kept


@pytest.mark.slow
def test_the_evidence_is_not_read():
    features = tfds.builder(TRIVIA_QA.source, data_dir="nothing_is_here")
    assert sources.read_fields(TRIVIA_QA, features.info.features) == {"question", "answer"}


def test_validation_is_the_test_set_since_the_answers_of_the_other_are_not_public():
    found = resolve_splits(TRIVIA_QA, {"train": 138_384, "validation": 18_669, "test": 17_210})
    assert {k: v.tfds for k, v in found.items()} == {
        "train": "train[0:30000]",
        "validation": "train[138184:138384]",
        "test": "validation[0:18669]",
    }


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ('"Who wrote ""Leaves of Grass""?"', 'Who wrote "Leaves of Grass"?'),
        ('"""Serpula Lacrymans"" is a name for which decay ?"', '"Serpula Lacrymans" is a name for which decay?'),
        ('"In which "" Star Wars"" episode is he?"', 'In which "Star Wars" episode is he?'),
        ('"Getting to Know You" is a song from which film?', '"Getting to Know You" is a song from which film?'),
        ('Who said "Be quick" and "Be still"?', 'Who said "Be quick" and "Be still"?'),
    ],
)
def test_trivia_qa_questions_are_no_csv(written, shown):
    assert TRIVIA_QA.fields(record(question=written))["question"].numpy().decode() == shown


# ------------------------------------------------------------------------------------------------ Natural Questions


def natural_question(question="who", answers=("a",)):
    return {"question": tf.constant(question), "answer": tf.constant(list(answers), tf.string)}


@pytest.mark.parametrize(
    "asks",
    [
        "who sang it",
        "in what year did it end",
        "what's the name of it",
        "is greenland part of europe or north america",
        "perth is the capital of which australian state",
        "season 2 attack on titan how many episodes",
        "civil war what did the north fight for",
        "philadelphia is known as the city of what",
        "what is ? ",
    ],
)
def test_natural_questions_that_ask_get_one_question_mark(asks):
    shown = NATURAL_QUESTIONS.fields(natural_question(asks))["question"].numpy().decode()
    assert shown == asks.strip(" ?") + "?"


@pytest.mark.parametrize(
    "names",
    [
        "location of the ten commandments in the bible",
        "actress who plays penelope garcia on criminal minds",
        "the lowest temperature at which a lubricant will flow is called the",
        "name the four major layers of the earth in order",
        "is a network connection device that can build tables",
        "element named after fictional planet from which superman came",
        "dogs name in the grinch who stole christmas",
    ],
)
def test_natural_questions_that_ask_nothing_get_no_question_mark(names):
    assert NATURAL_QUESTIONS.fields(natural_question(names))["question"].numpy().decode() == names


def test_natural_questions_of_question_marks_alone_are_empty():
    assert NATURAL_QUESTIONS.fields(natural_question(" ?? "))["question"].numpy() == b""


def test_natural_questions_answers_are_clean():
    given = [
        "Peter Gardner[4] Ostrum",
        "May\xa07,\xa02018",
        "Hydro\xadgen",
        "Algeria\u200e",
        "Russia\xa0(",
        "---",
        "*",
        ")",
    ]
    found = NATURAL_QUESTIONS.fields(natural_question(answers=given))
    clean = ["Peter Gardner Ostrum", "May 7, 2018", "Hydrogen", "Algeria", "Russia"]
    assert [r.decode() for r in found["references"].numpy()] == clean
    assert found["answer"].numpy().decode() == clean[0]


@pytest.mark.parametrize(("answers", "kept"), [((")",), False), (("---", "a"), True), (("×",), True), ((), False)])
def test_natural_questions_without_an_answer_in_words_are_left_out(answers, kept):
    assert (int(usable.verdict(NATURAL_QUESTIONS, natural_question(answers=answers))) == 0) == kept


# -------------------------------------------------------------------------------------------------------------- ARC


def test_arc_formulas_are_plain_and_marks_are_single():
    texts = ["H_{2}O", "Are dogs happy?.", "become ill..", "and so on..."]
    choices = {"text": tf.constant(texts), "label": tf.constant(list("ABCD"))}
    question = tf.constant("What is q = m \\times C \\times \\Delta T in  C_{6}H_{12}O_{6} ?")
    found = ARC_EASY.fields({"question": question, "choices": choices, "answerKey": tf.constant("A")})
    assert found["question"].numpy().decode() == "What is q = m × C × ΔT in C6H12O6?"
    assert [o.decode() for o in found["options"].numpy()] == ["H2O", "Are dogs happy?", "become ill.", "and so on..."]
    assert found["answer"].numpy() == b"H2O"

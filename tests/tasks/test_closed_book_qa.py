import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from flan_jax.data import sources, usable
from flan_jax.splits import resolve_splits
from flan_jax.tasks.closed_book_qa import TRIVIA_QA


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

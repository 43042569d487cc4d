import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import flan_jax.tasks
from flan_jax import templates
from flan_jax.metrics import metric
from flan_jax.tasks.reading_comprehension_with_commonsense import COSMOS_QA, RECORD


def tensors(row):
    return {name: tf.constant(value, tf.string) if value == [] else tf.constant(value) for name, value in row.items()}


def fields(record, row):
    def text(value):
        return [v.decode() for v in value] if isinstance(value, np.ndarray) else value.decode()

    return {name: text(value.numpy()) for name, value in record.fields(tensors(row)).items()}


def kept(record, row):
    return bool(record.keep(tensors(row)))


def sample_rows(record):
    folder = Path(flan_jax.tasks.__path__[0]) / "samples" / record.folder
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    assert lines
    return [json.loads(line) for line in lines]


# -------------------------------------------------------------------------------------------------------- CosmosQA


def cosmos(label=0, answers=("a .", "b .", "c .", "None of the above choices .")):
    return {
        "id": "0",
        "context": " I  ran . ",
        "question": "Why ?",
        "label": label,
        **{f"answer{i}": a for i, a in enumerate(answers)},
    }


def test_cosmos_qa_label_counts_the_answers():
    for label, answer in enumerate(("a.", "b.", "c.", "None of the above choices.")):
        found = fields(COSMOS_QA, cosmos(label))
        assert found["answer"] == found["options"][label] == answer
    assert (found["context"], found["question"]) == ("I ran.", "Why?")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("She was n't sick , and I ca n't .", "She wasn't sick, and I can't."),
        ("I ' m sure he 's 20 . They ' ve left .", "I'm sure he's 20. They've left."),
        ('So " Sweet Home " is , she said , " over . " I left', 'So "Sweet Home" is, she said, "over." I left'),
        ('He is a " nobody " ... like', 'He is a "nobody"... like'),
        (  # which of the three marks opens a quotation is not known, so they stay
            'I took a breath . " You see me ? " I left . " What next ?',
            'I took a breath. " You see me? " I left. " What next?',
        ),
        ("a small ( 5 % ) $ 20 prize , # 1 !", "a small (5%) $20 prize, #1!"),
        ("I ' m ok :) And then ( so cold ! ) .", "I'm ok :) And then (so cold!)."),
        ("we did ? ! ? ! .... we want ..", "we did?!?!.... we want.."),
        ("my e - mail , a co - worker - she is 10 - 15", "my e-mail, a co-worker - she is 10-15"),
        ("at 2 : 30 my parents ' house is gon na", "at 2:30 my parents' house is gonna"),
        ("a tad ` mature ' for it", "a tad 'mature' for it"),
    ],
)
def test_cosmos_qa_texts_are_untokenized(source, shown):
    found = fields(COSMOS_QA, cosmos(0, (source, "b", "c", "d")) | {"context": source, "question": source})
    assert found["context"] == found["question"] == found["answer"] == found["options"][0] == shown


@pytest.mark.parametrize(
    ("row", "keep"),
    [(cosmos(3), True), (cosmos(-1), False), (cosmos(0, ("a .", "b .", " a  .", "c .")), False)],
)
def test_cosmos_qa_keeps_labelled_questions_with_four_different_answers(row, keep):
    assert kept(COSMOS_QA, row) == keep


def test_cosmos_qa_inverted_templates_do_not_show_an_answer_that_may_be_none_of_the_above():
    inverted = [t for t in COSMOS_QA.templates if not t.is_forward]
    assert inverted
    assert all("answer" not in templates.placeholders(t.input + t.target) for t in inverted)


# ----------------------------------------------------------------------------------------------------------- ReCoRD


def news(query="On Monday @placeholder's boat sank .", entities=("Ann", "Bo", "Bo Li"), answers=("Bo", "Bo Li")):
    passage = "By Reuters\n\nAnn met  Bo Li.\nBo laughed.\n@highlight\n\nAnn is well\n@highlight\n\nBo is not"
    return {"passage": passage, "query": query, "entities": list(entities), "answers": list(answers)}


def test_record_options_are_the_entities_with_the_rest_of_the_query():
    found = fields(RECORD, news())
    assert found["opening"] == "On Monday ..."
    assert found["options"] == ["Ann's boat sank .", "Bo's boat sank .", "Bo Li's boat sank ."]
    assert found["answer"] == "Bo's boat sank ."
    assert found["references"] == ["Bo's boat sank .", "Bo Li's boat sank ."]
    assert (found["entity"], found["sentence"]) == ("Bo", "On Monday Bo's boat sank .")
    assert found["query"] == "On Monday ____'s boat sank ."


@pytest.mark.parametrize(
    ("query", "rest"),
    [
        ("On Monday @placeholder's boat sank .", "'s boat sank ."),
        ("@placeholder  sang\u00a0.", "sang ."),
        ("So said (@placeholder", ""),
        ("It was @placeholder.", "."),
    ],
)
def test_record_is_measured_by_the_name_alone(query, rest):
    found = fields(RECORD, news(query))
    assert found["rest"] == rest
    record = metric("record")
    target = record.target(found, found["references"])
    assert [record.example(target, option) for option in found["options"]] == [0.0, 1.0, 1.0]
    wrong = record([target], found["options"][:1])
    assert wrong == {"f1": 0.0, "em": 0.0}


@pytest.mark.parametrize(
    ("query", "end"), [("@placeholder sang .", "\n-"), ("On Monday @placeholder's boat sank .", "\n- On Monday")]
)
def test_record_prompt_in_the_manner_of_gpt3_ends_without_a_space(query, end):
    assert templates.fill(RECORD.gpt3_prompt.input, fields(RECORD, news(query))).endswith("Bo laughed." + end)


def test_record_highlights_are_dropped_and_lines_kept():
    assert fields(RECORD, news())["passage"] == "By Reuters\nAnn met Bo Li.\nBo laughed."


def test_record_query_may_begin_or_end_with_the_placeholder():
    first = fields(RECORD, news("@placeholder sang ."))
    assert (first["opening"], first["answer"], first["sentence"]) == ("...", "Bo sang .", "Bo sang .")
    last = fields(RECORD, news("So said (@placeholder"))
    assert (last["opening"], last["answer"], last["sentence"]) == ("So said ( ...", "Bo", "So said (Bo")


def test_record_names_that_differ_in_spaces_are_one_option_and_backslashes_are_text():
    found = fields(RECORD, news("It was @placeholder .", ("A\\1", "Bo Li", "Bo\nLi", "Bo  Li"), ("Bo\nLi",)))
    assert found["options"] == ["A\\1 .", "Bo Li ."]
    assert found["references"] == ["Bo Li ."]
    assert fields(RECORD, news("It was @placeholder .", ("A\\1", "B"), ("A\\1",)))["sentence"] == "It was A\\1 ."


@pytest.mark.parametrize(
    ("row", "keep"),
    [
        (news(), True),
        (news(answers=()), False),
        (news(answers=("Cy",)), False),
        (news("No gap here ."), False),
        (news("@placeholder met @placeholder ."), False),
    ],
)
def test_record_keeps_queries_with_one_gap_and_an_answer_among_the_entities(row, keep):
    assert kept(RECORD, row) == keep


def test_record_samples_name_entities_of_their_passage():
    for row in sample_rows(RECORD):
        assert all(entity in row["passage"] for entity in row["entities"])
        assert set(row["answers"]) <= set(row["entities"])
        assert row["query"].count("@placeholder") == 1
        assert row["passage"].count("@highlight") >= 1

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import flan_jax.tasks
from flan_jax import metrics
from flan_jax.data import usable
from flan_jax.splits import resolve_splits
from flan_jax.tasks.paraphrase import DATASETS, MRPC, PAWS_WIKI, QQP, STSB

SAMPLES = Path(flan_jax.tasks.__path__[0]) / "samples"


def rows(record):
    files = sorted((SAMPLES / record.folder).glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]


def fields(record, first="A.", second="B.", label=0):
    names = ("question1", "question2") if record is QQP else ("sentence1", "sentence2")
    dtype = tf.float32 if record is STSB else tf.int64
    found = record.fields(
        {names[0]: tf.constant(first), names[1]: tf.constant(second), "label": tf.constant(label, dtype)}
    )
    return {k: v.numpy().decode() if v.shape.rank == 0 else [o.decode() for o in v.numpy()] for k, v in found.items()}


# -------------------------------------------------------------------------------------------------- MRPC and PAWS


@pytest.mark.parametrize("record", [MRPC, PAWS_WIKI], ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("tokenized", "written"),
    [
        ("He left , he said .", "He left, he said."),
        ("Shares rose $ 2.11 , or 4.4 % , to A $ 4.56 .", "Shares rose $2.11, or 4.4%, to A $4.56."),
        ("The firm 's plan doesn 't work .", "The firm's plan doesn't work."),
        ("We do n't know ; they 've left .", "We don't know; they've left."),
        ('Her aunt , " the boss " , sang " Gold " well .', 'Her aunt, "the boss", sang "Gold" well.'),
        ('" It was close , " he said . " Very . "', '"It was close," he said. "Very."'),
        ('" The shop is shut .', '"The shop is shut.'),
        ("The `` Post '' bought the `` Star '' .", 'The "Post" bought the "Star".'),
        ("It ( a mill ) burned down [ sic ] .", "It (a mill) burned down [sic]."),
        ("Is it 3 : 1 ? Yes ! It rose .5 points ...", "Is it 3:1? Yes! It rose .5 points ..."),
        ("The players ' union and the 1980 's", "The players' union and the 1980's"),
        (
            "It was ' bigger than others ', the bishops ' office said.",
            "It was 'bigger than others', the bishops' office said.",
        ),
        ("He yelled, ' What do you mean ? '", "He yelled, 'What do you mean?'"),
        ("Fewer than ' ' 10 ' ' visits , he said .", 'Fewer than "10" visits, he said.'),
        ("So it goes , ' ' he said .", 'So it goes," he said.'),
        ("Mr O 'Neill said : \" It was close .", "Mr O'Neill said: \"It was close."),
        (" No change\there. ", "No change here."),
        ("Nelson had 2 : 46 to go ; it was 7 : 5 .", "Nelson had 2:46 to go; it was 7:5."),
        ("Daniel said D 'Antonio left .", "Daniel said D'Antonio left."),
        ("Global Crossing & apos ; s chief officer", "Global Crossing's chief officer"),
        ("It is 79 & nspb ; long , Peru & amp ; Portugal .", "It is 79 long, Peru & Portugal."),
        ("The series '' Doctor Who `` began .", 'The series "Doctor Who" began.'),
        ("The corals '' A `` and '' B `` , the '' C `` .", 'The corals "A" and "B", the "C".'),
        ("An 8-10 per cent ' ' growth rate \" , said Scalise .", 'An 8-10 per cent "growth rate", said Scalise.'),
        ('The " spin " and what the firm " can not " say .', 'The "spin" and what the firm "can not" say.'),
    ],
)
def test_tokenized_text_is_written_as_usual(record, tokenized, written):
    found = fields(record, first=tokenized, second=f"x {tokenized}")
    assert found["sentence1"] == written
    assert found["sentence2"] == fields(record, first=f"x {tokenized}")["sentence1"]
    assert fields(record, first=written)["sentence1"] == written  # what is written as usual stays


@pytest.mark.parametrize("record", [MRPC, QQP, PAWS_WIKI], ids=lambda d: d.name)
def test_the_second_label_is_yes_and_each_label_has_its_relation(record):
    assert record.label_words == ("no", "yes")
    assert [fields(record, label=label)["answer"] for label in (0, 1)] == ["no", "yes"]
    assert fields(record, label=0)["relation"] != fields(record, label=1)["relation"]


def test_tokenized_samples_are_in_the_sources_dialects():
    mrpc = [row[k] for row in rows(MRPC) for k in ("sentence1", "sentence2")]
    paws = [row[k] for row in rows(PAWS_WIKI) for k in ("sentence1", "sentence2")]
    assert all(text.endswith(" .") for text in mrpc + paws)
    assert any('" ' in text for text in mrpc) and any("n 't" in text for text in mrpc)
    assert any("``" in text for text in paws) and not any("``" in text for text in mrpc)


def test_paws_samples_share_their_words_whatever_the_label():
    overlap = {0: [], 1: []}
    for row in rows(PAWS_WIKI):
        first, second = (set(row[k].lower().split()) for k in ("sentence1", "sentence2"))
        overlap[row["label"]].append(len(first & second) / len(first | second))
    assert min(np.mean(overlap[0]), np.mean(overlap[1])) > 0.6


# ------------------------------------------------------------------------------------------------------------ QQP


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ('What does ""I"" mean?', "What does 'I' mean?"),
        ('What is """"it""""?', "What is 'it'?"),
        ('"What does ""I"" mean?"', "What does 'I' mean?"),
        ('"Is it so?"', "Is it so?"),
        ('Is a "bug" an insect?', 'Is a "bug" an insect?'),
        ('"Yes" or "no"?', '"Yes" or "no"?'),
        (" How  do I\tdo it? ", "How do I do it?"),
    ],
)
def test_doubled_quotation_marks_become_apostrophes(source, shown):
    found = fields(QQP, first=source, second=source)
    assert (found["question1"], found["question2"]) == (shown, shown)


@pytest.mark.parametrize(
    ("first", "second", "label", "kept"),
    [
        ("a", "b", 0, True),
        ("a", "b", 1, True),
        ("a", "b", -1, False),
        ("", "b", 1, False),
        ("a", " ", 1, False),
        ('" "', "b", 0, False),
    ],
)
def test_qqp_keeps_labelled_pairs_of_two_questions(first, second, label, kept):
    record = {"question1": first, "question2": second, "label": label}
    tensors = {name: tf.constant(value) for name, value in record.items()}
    assert (int(usable.verdict(QQP, tensors)) == 0) == kept


def test_samples_of_qqp_have_doubled_quotation_marks():
    assert any('""' in row[k] for row in rows(QQP) for k in ("question1", "question2"))


# ---------------------------------------------------------------------------------------------------------- STS-B


@pytest.mark.parametrize(
    ("label", "answer", "rating"),
    [
        (0.0, "0", "0"),
        (0.4, "0", "0.4"),
        (0.5, "0", "0.5"),
        (0.6, "1", "0.6"),
        (1.5, "2", "1.5"),
        (1.667, "2", "1.667"),
        (2.5, "2", "2.5"),
        (3.25, "3", "3.25"),
        (3.8, "4", "3.8"),
        (4.5, "4", "4.5"),
        (4.75, "5", "4.75"),
        (5.0, "5", "5"),
    ],
)
def test_stsb_answer_is_the_rounded_score_as_one_of_the_options(label, answer, rating):
    found = fields(STSB, label=label)
    assert (found["answer"], found["rating"]) == (answer, rating)
    assert found["answer"] == f"{label:.0f}"
    assert found["options"] == ["0", "1", "2", "3", "4", "5"] == list(STSB.label_words)


def test_stsb_drops_what_has_no_score():
    assert [bool(STSB.keep({"label": tf.constant(x)})) for x in (-1.0, 0.0, 5.0)] == [False, True, True]


def test_every_stsb_template_that_is_scored_says_what_both_ends_of_the_scale_stand_for():
    for template in STSB.templates:
        text = template.input
        assert {"0", "5"} <= set(text.replace(":", " ").replace("(", " ").replace(",", " ").split()), text


# ------------------------------------------------------------------------------------------------------ the cluster


def test_splits_are_the_papers():
    sizes = {"train": 363_846, "validation": 40_430, "test": 390_965}
    qqp = {k: v.tfds for k, v in resolve_splits(QQP, sizes).items()}
    assert qqp == {"train": "train[0:30000]", "validation": "train[363646:363846]", "test": "validation[0:40430]"}
    sizes = {"train": 5_749, "validation": 1_500, "test": 1_379}
    stsb = {k: v.tfds for k, v in resolve_splits(STSB, sizes).items()}
    assert stsb == {"train": "train[0:5649]", "validation": "train[5649:5749]", "test": "validation[0:1500]"}
    sizes = {"train": 49_401, "validation": 8_000, "test": 8_000}
    paws = {k: v.tfds for k, v in resolve_splits(PAWS_WIKI, sizes).items()}
    assert paws == {"train": "train[0:30000]", "validation": "validation[0:200]", "test": "test[0:8000]"}


@pytest.mark.parametrize("record", DATASETS, ids=lambda d: d.name)
def test_metrics_exist(record):
    for name in record.metrics:
        assert callable(metrics.metric(name))

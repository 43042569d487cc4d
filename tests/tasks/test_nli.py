import json
from pathlib import Path

import pytest
import tensorflow as tf

import flan_jax.tasks
from flan_jax.splits import resolve_splits
from flan_jax.tasks.nli import ANLI_R1, ANLI_R2, ANLI_R3, CB, WNLI

SAMPLES = Path(flan_jax.tasks.__path__[0]) / "samples"
ANLI = (ANLI_R1, ANLI_R2, ANLI_R3)


def rows(record):
    files = sorted((SAMPLES / record.folder).glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]


def fields(record, label, **texts):
    values = {name: tf.constant(value) for name, value in texts.items()}
    found = record.fields({**values, "label": tf.constant(label, tf.int64)})
    return {name: value.numpy() for name, value in found.items()}


@pytest.mark.parametrize("label", [0, 1, 2])
def test_cb_puts_no_before_it_is_impossible_to_say_and_anli_after_it(label):
    cb = fields(CB, label, premise="P", hypothesis="H")
    anli = fields(ANLI_R1, label, context="P", hypothesis="H")
    assert cb["answer"].decode() == ("Yes", "No", "It's impossible to say")[label]
    assert anli["answer"].decode() == ("Yes", "It's impossible to say", "No")[label]
    assert cb["relation"].decode() == ("is true", "is not true", "may or may not be true")[label]
    assert anli["relation"].decode() == ("is true", "can be neither confirmed nor ruled out", "is false")[label]


@pytest.mark.parametrize("label", [0, 1])
def test_wnli_answers_yes_for_its_second_label(label):
    found = fields(WNLI, label, sentence1="P", sentence2="H")
    assert found["answer"] == (b"no", b"yes")[label]
    assert (b"not" in found["relation"]) == (label == 0)


def test_anli_variants_share_templates_and_paper_dataset_but_neither_source_nor_samples():
    assert {d.paper_dataset for d in ANLI} == {"anli"}
    assert len({d.templates for d in ANLI}) == 1
    assert len({d.source for d in ANLI}) == len({d.folder for d in ANLI}) == 3
    contexts = [{row["context"] for row in rows(d)} for d in ANLI]
    assert not (contexts[0] & contexts[1] or contexts[0] & contexts[2] or contexts[1] & contexts[2])


@pytest.mark.parametrize("record", ANLI, ids=lambda d: d.name)
def test_anli_samples_have_every_relation_to_each_context(record):
    labels = {}
    for row in rows(record):
        labels.setdefault(row["context"], []).append(row["label"])
    assert all(sorted(found) == [0, 1, 2] for found in labels.values())


@pytest.mark.parametrize(("record", "train", "dev"), [(CB, 250, 50), (WNLI, 635, 30)], ids=["cb", "wnli"])
def test_tiny_sets_give_fewer_examples_to_dev(record, train, dev):
    found = resolve_splits(record, {"train": train, "validation": 60, "test": 200})
    assert {k: v.tfds for k, v in found.items()} == {
        "train": f"train[0:{train - dev}]",
        "validation": f"train[{train - dev}:{train}]",
        "test": "validation[0:60]",
    }


@pytest.mark.parametrize("record", ANLI, ids=lambda d: d.name)
def test_anli_tests_on_its_own_test_split_and_caps_what_is_long(record):
    found = resolve_splits(record, {"train": 100_459, "validation": 1_200, "test": 1_200})
    assert {k: v.tfds for k, v in found.items()} == {
        "train": "train[0:30000]",
        "validation": "validation[0:200]",
        "test": "test[0:1200]",
    }


def test_wnli_samples_have_a_right_and_a_wrong_reading_of_each_text():
    labels = {}
    for row in rows(WNLI):
        if row["label"] >= 0:
            labels.setdefault(row["sentence1"], []).append(row["label"])
    assert all(sorted(found) == [0, 1] for found in labels.values())

import json
from pathlib import Path

import pytest
import tensorflow as tf

import flan_jax.tasks
from flan_jax.splits import resolve_splits
from flan_jax.tasks.nli import ANLI_R1, ANLI_R2, ANLI_R3, CB, MNLI_MATCHED, QNLI, SNLI, WNLI

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


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("How to limbo<br>Grab a pole. [substeps] Hold it.", "How to limbo\nGrab a pole. Hold it."),
        ("He left .<br>`` I do n't know , '' said Jo .<br>` Oh ' !", "He left. \"I don't know,\" said Jo. 'Oh'!"),
        ("He ran .<br>-LSB- Illustration : a bear -RSB-", "He ran. [Illustration: a bear]"),
        (
            "Sir Douglas Ralph Nicholls, {'1': \", '2': \"} (9 December 1906)",
            "Sir Douglas Ralph Nicholls (9 December 1906)",
        ),
        (
            "John Henry Newman, {'1': \", '3': 'Cong. Orat.', '4': \"} , (21 February)",
            "John Henry Newman (21 February)",
        ),
        ("Ezhou () is a city", "Ezhou is a city"),
        ("Wang Tieguan ()is a geologist", "Wang Tieguan is a geologist"),
        ("Helena Suková (] ) (born 1965)", "Helena Suková (born 1965)"),
        ("Italo Calvino (] ; 15 October 1923)", "Italo Calvino (15 October 1923)"),
        ("Always (; lit. Only You)", "Always (lit. Only You)"),
        ('Tartuffe ( ; French: "Tartuffe" , ] ), first performed', 'Tartuffe (French: "Tartuffe"), first performed'),
        ("Lucchese (pronounced ] ; born 1899)", "Lucchese (born 1899)"),
        ("David Wooster (March 13, 1711 [O.S. 1710])", "David Wooster (March 13, 1711 [O.S. 1710])"),
        ("Circus Palestine (Hebrew: קרקס\u200e \u200e , 1998 )", "Circus Palestine (Hebrew: קרקס, 1998)"),
        ('He was in the film "", "" (2002) and "X".', 'He was in the film "...", "..." (2002) and "X".'),
        ('Ansar (""Supporters"")', 'Ansar ("Supporters")'),
        ("at a cost of Â£35 million", "At a cost of £35 million"),
        ('An "x" of 4.5 , ... (so it says ) now.', 'An "x" of 4.5, ... (so it says) now.'),
    ],
)
def test_anli_texts_have_no_markup(text, written):
    found = fields(ANLI_R3, 0, context=text, hypothesis="a man left")
    assert found["premise"].decode() == written
    assert found["hypothesis"].decode() == "A man left"
    assert fields(ANLI_R3, 0, context=written, hypothesis="x")["premise"].decode().replace(
        "\n", " "
    ) == written.replace("\n", " ")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("It means ``dragonfly'' in Sioux.", 'It means "dragonfly" in Sioux.'),
        ("He had n't noticed that I 'd one phone .", "He hadn't noticed that I'd one phone."),
        ("folk 'll always win", "folk'll always win"),
    ],
)
def test_cb_texts_are_not_tokenized(text, written):
    assert fields(CB, 0, premise=text, hypothesis=text)["premise"].decode() == written


@pytest.mark.parametrize(
    ("sentence", "written"),
    [
        ("in the Temple.[citation needed][original research?]", "in the Temple."),
        ("about 1,230 km,[note 2][note 1] with", "about 1,230 km, with"),
        ("As of March 2015[update], ABC has it[7].", "As of March 2015, ABC has it."),
        (
            "Its goal is to wid[en] the[s]e [pornography] [where] it is",
            "Its goal is to wid[en] the[s]e [pornography] [where] it is",
        ),
    ],
)
def test_qnli_sentences_have_no_notes(sentence, written):
    assert fields(QNLI, 0, question="Who?", sentence=sentence)["sentence"].decode() == written


@pytest.mark.parametrize(("hypothesis", "keep"), [("n/a", False), ("N/A.", False), ("Na is a metal.", True)])
def test_mnli_keeps_what_has_a_hypothesis(hypothesis, keep):
    row = {"premise": tf.constant("P"), "hypothesis": tf.constant(hypothesis), "label": tf.constant(2, tf.int64)}
    assert bool(MNLI_MATCHED.keep(row)) == keep


def test_captions_start_with_a_capital_letter():
    found = fields(SNLI, 0, premise="a dog runs", hypothesis="an animal runs")
    assert (found["premise"], found["hypothesis"]) == (b"A dog runs", b"An animal runs")


@pytest.mark.parametrize(
    ("reading", "written"), [('The bag has come, Mama!"', "The bag has come, Mama!"), ('He was "it".', 'He was "it".')]
)
def test_wnli_readings_have_no_stray_quotation_mark(reading, written):
    assert fields(WNLI, 0, sentence1="P", sentence2=reading)["reading"].decode() == written


@pytest.mark.parametrize("record", [*ANLI, CB, MNLI_MATCHED, SNLI], ids=lambda d: d.name)
def test_the_third_answer_is_named_where_no_options_are_shown(record):
    unsure = next(word for word in record.label_words if "possible" in word).lower()
    forward = [t for t in record.templates if t.is_forward]
    assert all(unsure in t.without_options.input.lower() for t in forward)
    assert not any(unsure in t.input.lower() for t in forward)


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

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import flan_jax.tasks
from flan_jax import catalog
from flan_jax.splits import resolve_splits
from flan_jax.tasks.coreference import DATASETS, DEFINITE_PRONOUN_RESOLUTION, WINOGRANDE, WSC, WSC273


def fields(record, row):
    def text(value):
        return [v.decode() for v in value] if isinstance(value, np.ndarray) else value.decode()

    tensors = {name: tf.constant(value) for name, value in row.items()}
    return {name: text(value.numpy()) for name, value in record.fields(tensors).items()}


def kept(record, row):
    return bool(record.keep({name: tf.constant(value) for name, value in row.items()}))


def sample_rows(record):
    folder = Path(flan_jax.tasks.__path__[0]) / "samples" / record.folder
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    assert lines
    return [json.loads(line) for line in lines]


def real_rows(shared, folder):
    files = sorted((shared / "data" / folder).glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]


# ------------------------------------------------------------------------------------- Definite Pronoun Resolution


def dpr(sentence, pronoun, candidates=("Ann", "Eve"), label=0):
    return {"sentence": sentence, "pronoun": pronoun, "candidates": list(candidates), "label": label}


@pytest.mark.parametrize(
    ("sentence", "pronoun", "marked"),
    [
        ("Ann met Eve, and she waved.", "she", "Ann met Eve, and [she] waved."),
        ("Sheila said that she had won.", "she", "Sheila said that [she] had won."),
        ("It sat with a cat until it slept.", "it", "It sat with a cat until [it] slept."),
        ("They paid them for their bread.", "them", "They paid [them] for their bread."),
        ("She ended with \u201cno\u201d,  he\u2019d say.", "he", "She ended with \u201cno\u201d, [he]\u2019d say."),
    ],
)
def test_dpr_marks_the_pronoun_that_is_a_word_of_its_own(sentence, pronoun, marked):
    found = fields(DEFINITE_PRONOUN_RESOLUTION, dpr(sentence, pronoun))
    assert found["marked"] == marked
    assert found["sentence"] == marked.replace("[", "").replace("]", "")


def test_dpr_label_counts_the_candidates():
    for label, answer, wrong in ((0, "Ann", "Eve"), (1, "Eve", "Ann")):
        found = fields(DEFINITE_PRONOUN_RESOLUTION, dpr("Ann met Eve, and she waved.", "she", label=label))
        assert (found["answer"], found["wrong"], found["options"]) == (answer, wrong, ["Ann", "Eve"])


@pytest.mark.parametrize(
    ("row", "keep"),
    [
        (dpr("Ann met Eve, and she waved.", "she"), True),
        (dpr("Ann met Eve at the exit.", "it"), False),
        (dpr("The man lifted the boy onto his bed because he was tired and he slept.", "he"), False),
        (dpr("Sheila said that she knew she won.", "she"), False),
        (dpr("Ann met Eve, and she waved.", "she", ("Ann", "Ann ")), False),
        (dpr("The cat saw the cat, and it ran.", "it", ("The cat", "the cat")), False),
    ],
)
def test_dpr_keeps_what_has_a_pronoun_and_a_choice(row, keep):
    assert kept(DEFINITE_PRONOUN_RESOLUTION, row) == keep


def test_dpr_candidates_have_small_articles():
    row = dpr("The invaders beat the defenders, so they left.", "they", ("The invaders", "the defenders"))
    assert fields(DEFINITE_PRONOUN_RESOLUTION, row)["options"] == ["the invaders", "the defenders"]


# ------------------------------------------------------------------------------------------------------- Winogrande


@pytest.mark.parametrize(
    ("sentence", "written"),
    [
        ("Ian could eat lunch faster at the cafe than the diner because there were less people at the _ .", ""),
        ("Donald 's mind was made up, so Ian , too, saw _ 's point.", ""),
        ("Ian sent a demand letter. .After that _ will sue him.", "Ian sent a demand letter. After that "),
        ("Ian knows that _ likes to be touched..", ""),
    ],
)
def test_winogrande_has_no_space_before_a_mark(sentence, written):
    row = {"sentence": sentence, "option1": "Ian", "option2": "Donald", "label": 0}
    found = fields(WINOGRANDE, row)
    for text in (found["context"], found["sentence"], *found["options"]):
        assert not re.search(r" [.,]| 's|\.\.|\.\S", text)
    assert found["sentence"].startswith(written)
    assert found["options"][0].startswith("Ian")


# ----------------------------------------------------------------------------------------------------------- WSC273


def schema(before, pronoun, after, first, second, label=0):
    text = before + pronoun + after
    start = len(before)
    return {
        "text": text,
        "option1": first,
        "option1_normalized": first,
        "option2": second,
        "option2_normalized": second,
        "pronoun_start": start,
        "pronoun_end": start + len(pronoun),
        "pronoun_text": pronoun,
        "label": label,
        "idx": 0,
    }


def test_wsc273_options_are_the_candidates_with_the_rest_of_the_text():
    found = fields(WSC273, schema("Zoë \u201ccalled\u201d Chloë but ", "she", " was out.", "Zoë", "Chloë", 1))
    assert found["context"] == "Zoë \u201ccalled\u201d Chloë but"
    assert found["options"] == ["Zoë was out.", "Chloë was out."]
    assert found["answer"] == "Chloë was out."
    assert found["gapped"] == "Zoë \u201ccalled\u201d Chloë but ____ was out."


@pytest.mark.parametrize(
    ("pronoun", "after", "candidate", "option"),
    [
        ("her", " education was over.", "Emma", "Emma's education was over."),
        ("his", ' "Dibs!" came late.', "Dan", 'Dan\'s "Dibs!" came late.'),
        ("their", " hats fell off.", "the boys", "the boys' hats fell off."),
        ("Its", " lid is lost.", "The jar", "the jar's lid is lost."),
        ("his", " chin ached.", "James", "James's chin ached."),
        ("his", " hat.", "Emma's uncle", "Emma's uncle's hat."),
        ("her", ".", "Emma", "Emma."),
        ("it", ".", "the net", "the net."),
        ("it", " , so it tore.", "the net", "the net, so it tore."),
        ("her", " ; he left.", "Emma", "Emma; he left."),
        ("him", " a stern look.", "Timmy", "Timmy a stern look."),
        ("they", " sang.", "the boys", "the boys sang."),
        ("[MASK]", " hat.", "Emma", "Emma hat."),
    ],
)
def test_wsc273_candidates_stand_in_the_possessive_where_the_pronoun_does(pronoun, after, candidate, option):
    assert fields(WSC273, schema("So ", pronoun, after, candidate, "Tom"))["options"][0] == option


@pytest.mark.parametrize(
    ("before", "options"),
    [
        ("Anna puts the book away and reads ", ["the book when she gets home.", "her sister when she gets home."]),
        ("Anna has a book. ", ["The book when she gets home.", "Her sister when she gets home."]),
        ("", ["The book when she gets home.", "Her sister when she gets home."]),
    ],
)
def test_wsc273_options_go_on_from_the_context(before, options):
    found = fields(WSC273, schema(before, "it", " when she gets home.", "The book", "Her sister"))
    assert found["options"] == options
    assert (found["first"], found["second"]) == ("The book", "her sister")


def test_wsc273_samples_are_their_text_with_the_pronoun_replaced():
    for row in sample_rows(WSC273):
        start, end = row["pronoun_start"], row["pronoun_end"]
        assert row["text"][start:end] == row["pronoun_text"]
        found = fields(WSC273, row)
        for name, option in zip(("option1_normalized", "option2_normalized"), found["options"], strict=True):
            owner = row[name] + ("'s" if row["pronoun_text"] in ("his", "her") else "")
            assert f"{found['context']} {option}" == row["text"][:start] + owner + row["text"][end:]


def test_wsc273_has_no_training_data_and_is_in_no_mixture():
    found = resolve_splits(WSC273, {"test": 273})
    assert {name: s.tfds for name, s in found.items()} == {"test": "test[0:273]"}
    assert WSC273 not in catalog.mixture("flan")
    assert all(t.is_forward for t in WSC273.templates)


# -------------------------------------------------------------------------------------------------------------- WSC


def wsc(text, pronoun, index, candidate="Tom", label=1):
    return {
        "text": text,
        "span1_text": candidate,
        "span1_index": 0,
        "span2_text": pronoun,
        "span2_index": index,
        "label": label,
        "idx": 0,
    }


@pytest.mark.parametrize(
    ("text", "pronoun", "index", "marked"),
    [
        ("Tom says he thinks he won.", "he", 2, "Tom says *he* thinks he won."),
        ("Tom says he thinks he won.", "he", 4, "Tom says he thinks *he* won."),
        ("Tom says he thinks he won.", "he", 3, "Tom says *he* thinks he won."),
        ("Tom says he thinks he won.", "he", 5, "Tom says he thinks *he* won."),
        ("We saw Tom and told him.", "him", 5, "We saw Tom and told *him*."),
        ('Tom , ill , said: "He\'d go."', "he", 5, 'Tom, ill, said: "*He*\'d go."'),
        (
            "The sled of Ann 's son hit the tree .  It broke .",
            "it",
            9,
            "The sled of Ann's son hit the tree. *It* broke.",
        ),
        ("Théo asked Zoë if they  should.", "they", 4, "Théo asked Zoë if *they* should."),
        (
            'His password , " GrWQ " , was lost as it was long.',
            "it",
            9,
            'His password, "GrWQ", was lost as *it* was long.',
        ),
    ],
)
def test_wsc_marks_the_pronoun_nearest_to_its_index(text, pronoun, index, marked):
    assert fields(WSC, wsc(text, pronoun, index))["text"] == marked


@pytest.mark.parametrize(
    ("span", "candidate"), [("The  boy", "the boy"), ("Theo", "Theo"), ("The The", "the The"), ("a boy", "a boy")]
)
def test_wsc_candidate_has_a_small_article(span, candidate):
    assert fields(WSC, wsc("The boy says he won.", "he", 3, span))["candidate"] == candidate


def test_wsc_true_is_yes():
    assert WSC.label_words == ("no", "yes")
    text = "Tom says he won."
    found = [fields(WSC, wsc(text, "he", 2, label=label)) for label in (0, 1)]
    assert [(f["answer"], f["relation"]) for f in found] == [("no", "does not stand for"), ("yes", "stands for")]


@pytest.mark.parametrize(("pronoun", "label", "keep"), [("he", 1, True), ("he", -1, False), ("she", 0, False)])
def test_wsc_keeps_what_has_a_label_and_its_pronoun(pronoun, label, keep):
    assert kept(WSC, wsc("Tom says he won.", pronoun, 2, label=label)) == keep


@pytest.mark.slow
def test_wsc_marks_one_word_of_every_real_text(shared):
    rows = real_rows(shared, "wsc")
    assert len(rows) > 100
    columns = {name: tf.constant([row[name] for row in rows]) for name in rows[0]}
    data = (
        tf.data.Dataset.from_tensor_slices(columns)
        .filter(WSC.keep)
        .map(lambda row: (row["span2_text"], WSC.fields(row)))
    )
    found = [(pronoun.decode(), f["text"].decode()) for pronoun, f in data.as_numpy_iterator()]
    assert len(found) == len(rows)
    for pronoun, text in found:
        assert [m.lower() for m in re.findall(r"\*(.+?)\*", text)] == [pronoun.strip().lower()], text


def test_wsc_is_an_extra_with_a_small_dev_set():
    found = {name: s.tfds for name, s in resolve_splits(WSC, {"train": 554, "validation": 104}).items()}
    assert found == {"train": "train[0:504]", "validation": "train[504:554]", "test": "validation[0:104]"}
    assert [d.name for d in DATASETS if not d.in_flan] == ["wsc"]

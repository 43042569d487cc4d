import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from flan_jax.data import usable
from flan_jax.splits import resolve_splits
from flan_jax.tasks.commonsense import COPA, HELLASWAG, PIQA, STORY_CLOZE


def copa_fields(premise="The lake froze over.", question="cause", label=0):
    record = {"premise": premise, "choice1": "It was  cold.", "choice2": " I slept.", "question": question}
    found = COPA.fields({**{k: tf.constant(v) for k, v in record.items()}, "label": tf.constant(label, tf.int64)})
    return {name: value.numpy() for name, value in found.items()}


def story(label, endings=("One. ", "Two.")):
    return {"context": tf.constant("A.  B."), "endings": tf.constant(endings), "label": tf.constant(label, tf.int32)}


@pytest.mark.parametrize(
    ("premise", "question", "beginning"),
    [
        ("The lake froze over.", "cause", "The lake froze over because"),
        ("The lake froze over.", "effect", "The lake froze over so"),
        ("It broke! ", "effect", "It broke so"),
        ("It broke", "cause", "It broke because"),
        ("I live in the U.S. now.", "cause", "I live in the U.S. now because"),
    ],
)
def test_copa_beginning_has_a_conjunction_for_the_full_stop(premise, question, beginning):
    assert copa_fields(premise, question)["beginning"].decode() == beginning


@pytest.mark.parametrize(
    ("question", "cue", "gapped"),
    [("cause", "Why?", "____ The lake froze over."), ("effect", "And then?", "The lake froze over. ____")],
)
def test_copa_choices_are_sentences_of_their_own(question, cue, gapped):
    found = copa_fields(question=question)
    assert (found["cue"].decode(), found["gapped"].decode()) == (cue, gapped)
    assert not any("{beginning}" in t.input or "{link}" in t.input for t in COPA.templates)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('He smiles and the words " howcast original " appear.', 'He smiles and the words "howcast original" appear.'),
        ('Click " next " , then " sign in ".', 'Click "next", then "sign in".'),
        ("You will need : Rags , soda.. Mix it.", "You will need: Rags, soda. Mix it."),
        ('Say " who knows... " and wait...', 'Say "who knows..." and wait...'),
        ("It is $99 , 250 or more (say 1 , 2 ).", "It is $99,250 or more (say 1, 2)."),
        ("Girls love that!. Use it :. Go on ,. 75 to 1 inch", "Girls love that! Use it: Go on,. 75 to 1 inch"),
        ('Take a 9 " by 9 " by 2 " deep pan, see " fig ".', 'Take a 9" by 9" by 2" deep pan, see "fig".'),
        ('Cut 1 1/2 " or less, and 2 " or more.', 'Cut 1 1/2 " or less, and 2 " or more.'),
        ('Just say: " thank you for it.', 'Just say: "thank you for it.'),
        ('Is that okay? " should she answer no, wait.', 'Is that okay?" should she answer no, wait.'),
        ('" then select " control panel. ". Click it.', '" then select " control panel. ". Click it.'),
    ],
)
def test_hellaswag_is_written_as_usual(text, written):
    endings = [f"{text} {letter}" for letter in "abcd"]
    row = {"context": text, "endings": endings, "activity_label": "x", "label": 2}
    found = HELLASWAG.fields({name: tf.constant(value) for name, value in row.items()})
    assert found["context"].numpy().decode() == written
    assert [o.decode()[-1] for o in found["options"].numpy()] == list("abcd")


@pytest.mark.parametrize("record", [HELLASWAG, PIQA], ids=lambda d: d.name)
def test_no_dots_after_what_may_be_a_whole_sentence(record):
    assert not any("} ..." in t.input + t.open_input for t in record.templates)


def test_copa_asks_for_the_cause_or_for_the_effect():
    cause, effect = copa_fields(question="cause"), copa_fields(question="effect")
    assert (cause["relation"], effect["relation"]) == (b"cause", b"effect")
    assert b"cause" in cause["question"]
    assert b"result" in effect["question"]


@pytest.mark.parametrize("label", [0, 1])
def test_copa_answer_is_the_labelled_choice_and_wrong_the_other(label):
    found = copa_fields(label=label)
    choices = [b"It was cold.", b"I slept."]
    assert list(found["options"]) == choices
    assert (found["answer"], found["wrong"]) == (choices[label], choices[1 - label])


def test_copa_gives_fifty_examples_to_dev():
    found = resolve_splits(COPA, {"train": 400, "validation": 100, "test": 500})
    assert {k: v.tfds for k, v in found.items()} == {
        "train": "train[0:350]",
        "validation": "train[350:400]",
        "test": "validation[0:100]",
    }


@pytest.mark.parametrize(("label", "answer", "wrong"), [(1, b"One.", b"Two."), (2, b"Two.", b"One.")])
def test_story_cloze_labels_count_from_one(label, answer, wrong):
    found = STORY_CLOZE.fields(story(label))
    assert (found["answer"].numpy(), found["wrong"].numpy()) == (answer, wrong)
    assert found["context"].numpy() == b"A. B."


@pytest.mark.parametrize(("label", "kept"), [(-1, False), (0, False), (1, True), (2, True), (3, False)])
def test_story_cloze_keeps_what_has_a_label(label, kept):
    assert (int(usable.verdict(STORY_CLOZE, story(label))) == 0) == kept


def test_story_cloze_trains_on_validation():
    found = resolve_splits(STORY_CLOZE, {"validation": 1_871, "test": 1_871})
    assert {k: v.tfds for k, v in found.items()} == {
        "train": "validation[0:1671]",
        "validation": "validation[1671:1871]",
        "test": "test[0:1871]",
    }


@pytest.mark.slow
def test_story_cloze_says_which_files_tfds_wants():
    builder = tfds.builder(STORY_CLOZE.source, data_dir="nothing_is_here")
    wanted = [word for word in builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split() if "spring2016" in word]
    assert len(wanted) == 2
    assert all(name.strip(".") in STORY_CLOZE.manual for name in wanted)

import json
from pathlib import Path

import pytest
import tensorflow as tf

import flan_jax.tasks
from flan_jax.splits import resolve_splits
from flan_jax.tasks.sentiment import IMDB_REVIEWS, SENTIMENT140, SST2, YELP_POLARITY_REVIEWS

SAMPLES = Path(flan_jax.tasks.__path__[0]) / "samples"


def text_of(record, text, name):
    found = record.fields({"text": tf.constant(text), "label": tf.constant(0, tf.int64), "polarity": tf.constant(0)})
    return found[name].numpy().decode()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("Good.<br /><br />Very good.", "Good.\nVery good."),
        ("Good. <br/> <br> Very  good.", "Good.\nVery good."),
        ("<br />Good.<br />", "Good."),
        ("on NYC traffic shots. <hr>It's also", "on NYC traffic shots.\nIt's also"),
        (
            "Hmm. <i>Fast Times</i>, <em>then</em> <brave> & <3 <<<sigh>>>",
            "Hmm. Fast Times, then <brave> & <3 <<<sigh>>>",
        ),
        ("so that Ond&#345;ej can; L&H; R&amp;B", "so that Ondřej can; L&H; R&B"),
        ("out of the system \x96 and Nora didn\x92t", "out of the system – and Nora didn’t"),
        ("\x84heads down\x94; as a result\x85they", "„heads down”; as a result…they"),
        ("nothing\x81 there &#147;so&#148; &#55357; &#0;", "nothing there “so” &#0;"),
        ("a\x01b\x02 &#65;", "ab A"),
    ],
)
def test_imdb_html_becomes_plain_text(source, shown):
    assert text_of(IMDB_REVIEWS, source, "review") == shown


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (r"Good.\n\nVery good.", "Good.\nVery good."),
        (r"Good. \n \nVery  good.\n", "Good.\nVery good."),
        (r'He said \""No.\"" to us', 'He said "No." to us'),
        (r'a ""real"" burger', 'a "real" burger'),
        (r'5\"" heels', '5" heels'),
        (r"and\or", r"and\or"),
        (r"see his \"girlfriends\" and \"buddys\" that", 'see his "girlfriends" and "buddys" that'),
        (r"sans \u00eatre style caf\u00e9t\u00e9ria.", "sans être style cafétéria."),
        (r"and\u00a0so\u00a0far \u20AC5 \u00\ud83d", "and so far €5 \\u00"),
        (r"assault rifle?  \r\n\r\nAngry about", "assault rifle?\nAngry about"),
        (r"My dressing was ranch :\\", "My dressing was ranch :\\"),
    ],
)
def test_yelp_escapes_are_resolved(source, shown):
    assert text_of(YELP_POLARITY_REVIEWS, source, "review") == shown


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("it 's certainly an honest attempt , is n't it ? ", "it's certainly an honest attempt, isn't it?"),
        (
            "we do n't get williams ' usual tear and a smile , just",
            "we don't get williams' usual tear and a smile, just",
        ),
        (
            "if your taste runs to ` difficult ' films you absolutely ca n't",
            "if your taste runs to 'difficult' films you absolutely can't",
        ),
        ("the draw ( for `` big bad love '' ) is", 'the draw (for "big bad love") is'),
        ("will occur and not `` if . '' ", 'will occur and not "if."'),
        (
            "no more ridiculous than most of the rest of `` dragonfly ",
            'no more ridiculous than most of the rest of "dragonfly',
        ),
        ("for a '70s exploitation picture", "for a '70s exploitation picture"),
        ("in alcatraz ' ... a cinematic corpse", "in alcatraz'... a cinematic corpse"),
        ("'s pleasant enough ", "'s pleasant enough"),
        ("by harris , phifer and cam ` ron seal the deal . ", "by harris, phifer and cam 'ron seal the deal."),
        ("a $ 40 million version , 90 % of it", "a $40 million version, 90% of it"),
        ("mr. hartley 's .50 film .", "mr. hartley's .50 film."),
    ],
)
def test_sst2_is_shown_without_the_spaces_of_its_tokens(source, shown):
    found = SST2.fields({"sentence": tf.constant(source), "label": tf.constant(0, tf.int64)})
    assert found["sentence"].numpy().decode() == shown


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("sun &amp; sea", "sun & sea"),
        ("&quot;hi&quot; &lt;3 &gt;_&gt;", '"hi" <3 >_>'),
        ("&amp;lt; stays", "&lt; stays"),
        (" two  spaces ", "two spaces"),
    ],
)
def test_sentiment140_entities_are_resolved_once(source, shown):
    assert text_of(SENTIMENT140, source, "tweet") == shown


@pytest.mark.parametrize(
    ("polarity", "kept", "answer"), [(0, True, b"negative"), (2, False, None), (4, True, b"positive")]
)
def test_sentiment140_drops_neutral_tweets(polarity, kept, answer):
    record = {"text": tf.constant("hm"), "polarity": tf.constant(polarity)}
    assert bool(SENTIMENT140.keep(record)) == kept
    if kept:
        assert SENTIMENT140.fields(record)["answer"].numpy() == answer


def test_sentiment140_samples_of_the_test_split_have_neutral_tweets():
    lines = (SAMPLES / SENTIMENT140.folder / "test.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["polarity"] for line in lines} == {0, 2, 4}


@pytest.mark.parametrize("record", [IMDB_REVIEWS, YELP_POLARITY_REVIEWS], ids=lambda d: d.name)
@pytest.mark.parametrize(("label", "answer"), [(0, b"negative"), (1, b"positive")])
def test_the_first_label_is_negative(record, label, answer):
    found = record.fields({"text": tf.constant("hm"), "label": tf.constant(label, tf.int64)})
    assert found["answer"].numpy() == answer
    assert record.label_words == ("negative", "positive")


@pytest.mark.parametrize(
    ("record", "train", "test", "end"),
    [
        (IMDB_REVIEWS, 25_000, 25_000, 24_800),
        (SENTIMENT140, 1_600_000, 498, 30_000),
        (YELP_POLARITY_REVIEWS, 560_000, 38_000, 30_000),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_dev_is_the_end_of_train_and_test_is_the_labelled_test_set(record, train, test, end):
    found = resolve_splits(record, {"train": train, "test": test, "unsupervised": 50_000})
    assert {k: v.tfds for k, v in found.items()} == {
        "train": f"train[0:{end}]",
        "validation": f"train[{train - 200}:{train}]",
        "test": f"test[0:{test}]",
    }

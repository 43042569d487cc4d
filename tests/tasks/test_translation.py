import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import flan_jax.tasks
from flan_jax import catalog, content, templates
from flan_jax.data import usable
from flan_jax.splits import resolve_splits
from flan_jax.tasks.translation import DATASETS, PARA_CRAWL_ENES, WMT14_ENFR, WMT16_CSEN, WMT16_RUEN

SAMPLES = Path(flan_jax.tasks.__path__[0]) / "samples"
LANGUAGES = {
    "para_crawl_enes": ("es", "Spanish"),
    "wmt14_enfr": ("fr", "French"),
    "wmt16_translate_csen": ("cs", "Czech"),
    "wmt16_translate_deen": ("de", "German"),
    "wmt16_translate_fien": ("fi", "Finnish"),
    "wmt16_translate_roen": ("ro", "Romanian"),
    "wmt16_translate_ruen": ("ru", "Russian"),
    "wmt16_translate_tren": ("tr", "Turkish"),
}
NAMES = ["English", *(language for _, language in LANGUAGES.values())]

each_dataset = pytest.mark.parametrize("record", DATASETS, ids=lambda d: d.name)


def sample_rows(record, split="*"):
    files = sorted((SAMPLES / record.folder).glob(f"{split}.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]


def fields(record, english, other):
    """The fields of a record as text."""
    code, _ = LANGUAGES[record.name]
    found = record.fields({"en": tf.constant(english), code: tf.constant(other)})
    return {name: value.numpy().decode() for name, value in found.items()}


def directions(record, texts):
    """Whether each English text is the source, from a tf.data map as in use."""
    code, _ = LANGUAGES[record.name]
    data = tf.data.Dataset.from_tensor_slices({"en": texts, code: ["x"] * len(texts)}).map(record.fields)
    return [f["source_language"] == b"English" for f in data.as_numpy_iterator()]


def test_the_cluster_is_the_papers():
    assert [d.name for d in DATASETS] == list(LANGUAGES)


@pytest.mark.parametrize(
    ("english", "other", "kept"),
    [
        ("Il faut bien le faire.", "Il faut bien  le faire.\n", False),
        ("Chelsea - Arsenal 2:1", "Chelsea\u00a0- Arsenal 2:1", False),
        ("Arsenal", "arsenal", True),
        ("It has to be done.", "Il faut bien le faire.", True),
    ],
)
def test_what_nobody_translated_is_dropped(english, other, kept):
    for record in DATASETS:
        code, _ = LANGUAGES[record.name]
        row = {"en": tf.constant(english), code: tf.constant(other)}
        assert (int(usable.verdict(record, row)) == 0) == kept


# ------------------------------------------------------------------------------------------------------ directions


@each_dataset
def test_source_and_answer_are_the_two_sides_with_their_languages(record):
    code, language = LANGUAGES[record.name]
    for row in sample_rows(record):
        found = fields(record, row["en"], row[code])
        sides = {(found["source_language"], found["source"]), (found["target_language"], found["answer"])}
        assert {name for name, _ in sides} == {"English", language}
        assert {text.replace("\u00a0", " ") for text in (row["en"], row[code])} == {text for _, text in sides}
        assert ("English", row["en"]) in sides


@each_dataset
def test_both_directions_are_in_the_samples(record):
    sources = [fields(record, r["en"], r[LANGUAGES[record.name][0]])["source_language"] for r in sample_rows(record)]
    assert 0.25 <= np.mean([source == "English" for source in sources]) <= 0.75


def test_both_directions_are_equally_frequent():
    rng = np.random.default_rng(0)
    texts = [f"Sentence {i} of {n}." for i, n in enumerate(rng.integers(0, 1 << 30, 2000))]
    assert np.mean(directions(WMT14_ENFR, texts)) == pytest.approx(0.5, abs=0.04)  # 3.6 standard deviations


def test_the_direction_is_a_matter_of_the_english_text_alone():
    texts = [f"Text {i}" for i in range(50)]
    first = directions(WMT14_ENFR, texts)
    assert 0 < sum(first) < 50
    for record in DATASETS:
        assert directions(record, [f" {t.replace(' ', '  ')}\n" for t in texts]) == first
    for text, from_english in zip(texts, first, strict=True):
        assert (fields(WMT14_ENFR, text, "y")["source_language"] == "English") == from_english


def siphash(text, key0, key1):
    """SipHash-2-4 (Aumasson and Bernstein 2012) as the paper defines it."""
    mask = (1 << 64) - 1
    magic = b"somepseudorandomlygeneratedbytes"
    v = [int.from_bytes(magic[8 * i : 8 * i + 8], "big") ^ (key0, key1)[i % 2] for i in range(4)]

    def half_round(a, b, c, d, s, t):
        v[a], v[c] = (v[a] + v[b]) & mask, (v[c] + v[d]) & mask
        v[b] = ((v[b] << s | v[b] >> 64 - s) & mask) ^ v[a]
        v[d] = ((v[d] << t | v[d] >> 64 - t) & mask) ^ v[c]
        v[a] = (v[a] << 32 | v[a] >> 32) & mask

    def rounds(n):
        for _ in range(n):
            half_round(0, 1, 2, 3, 13, 16)
            half_round(2, 1, 0, 3, 17, 21)

    data = text.encode()
    data += bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for i in range(0, len(data), 8):
        word = int.from_bytes(data[i : i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 255
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_the_direction_never_changes():
    """Data prepared at different times must agree, so neither the hash nor its key may change."""
    assert siphash("", 0x0706050403020100, 0x0F0E0D0C0B0A0908) == 0x726FDB47DD0E0E31  # the paper's test vector
    texts = [f"Text {i}, Nr. {i * i}" * (i % 4 + 1) for i in range(60)]
    assert directions(WMT14_ENFR, texts) == [siphash(t, 0x464C414E, 0x32303231) % 2 == 0 for t in texts]


@each_dataset
def test_texts_are_on_one_line_without_no_break_spaces(record):
    found = fields(record, " One\u00a0:\n two  ", "\u00a0«\u202fdeux\u00a0»\u2003trois ")
    assert {found["source"], found["answer"]} == {"One : two", "« deux » trois"}


HOSTILE_PAIRS = [
    ("The house is old.", "Das Haus ist alt."),
    ("Paris 2012", "Paris 2012"),  # nothing to translate
    ("a\u00a0b", " c "),
]


def both(record, english, other):
    """The fields of a record in both directions, as text."""
    code, _ = LANGUAGES[record.name]
    found = record.expand({"en": tf.constant(english), code: tf.constant(other)})
    columns = {name: [text.decode() for text in value.numpy()] for name, value in found.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@each_dataset
@pytest.mark.parametrize(("english", "other"), HOSTILE_PAIRS)
def test_evaluation_asks_in_both_directions(record, english, other):
    code, language = LANGUAGES[record.name]
    out_of, into = both(record, english, other)
    assert (out_of["variant"], into["variant"]) == record.variants == (f"en-{code}", f"{code}-en")
    assert (out_of["source_language"], out_of["target_language"]) == ("English", language)
    assert (into["source_language"], into["target_language"]) == (language, "English")
    assert (out_of["source"], out_of["answer"]) == (into["answer"], into["source"])
    assert content.content_hash(out_of) != content.content_hash(into)
    assert fields(record, english, other) in (out_of, into)  # training has one of the two, word for word


@each_dataset
def test_each_direction_is_a_record_of_its_own(record):
    code, _ = LANGUAGES[record.name]
    row = {"en": tf.constant("Yes."), code: tf.constant("Da.")}
    for one, wanted in zip(catalog.variants(record), both(record, "Yes.", "Da."), strict=True):
        assert {name: value.numpy().decode() for name, value in one.fields(row).items()} == wanted
        assert (one.name, one.variant) == (f"{record.name}/{wanted['variant']}", wanted["variant"])


def test_a_pair_without_a_side_costs_itself_in_both_directions():
    pairs = {"en": ["One.", "", "Three.", "Four.", "Four."], "fr": ["Un.", "Deux.", "\u200b", "Quatre.", "4."]}
    rows = tf.data.Dataset.from_tensor_slices(pairs | {"tfds_id": ["0", "1", "2", "3", "4"]})
    found = list(usable.usable(WMT14_ENFR, rows, every=True).as_numpy_iterator())
    assert [r["record_id"].decode() for r in found] == [f"{n}#{way}" for n in (0, 3, 4) for way in WMT14_ENFR.variants]
    twice = [r["answer"].decode() for r in found if r["source"] == b"Four."]
    assert twice == ["Quatre.", "4."]  # two translations of one text are two examples


@each_dataset
@pytest.mark.parametrize(
    ("english", "other", "kept"),
    [("a", "b", True), ("", "b", False), ("a", "", False), (" \n", "b", False), ("a", "\u00a0", False)],
)
def test_pairs_with_an_empty_side_are_dropped(record, english, other, kept):
    code, _ = LANGUAGES[record.name]
    row = {"en": tf.constant(english), code: tf.constant(other)}
    assert (int(usable.verdict(record, row)) == 0) == kept


# ------------------------------------------------------------------------------------------------------- templates


def written(record, pattern):
    """A pattern with each placeholder for a language as one token, and each name of a language, too."""
    pattern = re.sub(r"\{(?:source|target)_language\}", "LANGUAGE", pattern)
    return re.sub(r"[\W_]+", " ", re.sub("|".join(NAMES), "LANGUAGE", pattern)).lower().strip()


def test_no_two_of_the_eighty_templates_differ_in_languages_alone():
    seen = {}
    for record in DATASETS:
        for template in record.templates:
            seen.setdefault(written(record, template.input), []).append(record.name)
    assert [names for names in seen.values() if len(names) > 1] == []
    assert len(seen) == 80


@each_dataset
def test_every_forward_template_says_into_which_language(record):
    _, language = LANGUAGES[record.name]
    for template in record.templates:
        if template.is_forward:
            names_both = "English" in template.input and language in template.input
            assert "{target_language}" in template.input or names_both
            assert "{source}" in template.input


@each_dataset
def test_templates_name_no_language_of_another_pair(record):
    _, language = LANGUAGES[record.name]
    for template in record.templates:
        for name in set(NAMES) - {"English", language}:
            assert name not in template.input + template.target


@each_dataset
def test_a_placeholder_for_a_language_has_no_article(record):
    """ "a {source_language} text" would be wrong for English."""
    for template in record.templates:
        assert not re.search(r"\b[Aa]n? \{(source|target)_language\}", template.input)


@each_dataset
def test_no_template_gives_the_language_of_the_answer_away_where_it_is_asked_for(record):
    for template in record.templates:
        if "{source}" not in template.target and not template.is_forward:
            assert templates.placeholders(template.target)
            assert not set(templates.placeholders(template.target)) & set(templates.placeholders(template.input))


# ------------------------------------------------------------------------------------------------ splits and samples


def test_para_crawl_has_a_single_split_whose_end_is_dev_and_test():
    found = {k: v.tfds for k, v in resolve_splits(PARA_CRAWL_ENES, {"train": 21_987_267}).items()}
    assert found == {
        "train": "train[0:30000]",
        "validation": "train[21986067:21986267]",
        "test": "train[21986267:21987267]",
    }


@pytest.mark.parametrize("record", DATASETS[1:], ids=lambda d: d.name)
def test_wmt_has_its_own_dev_and_test(record):
    found = resolve_splits(record, {"train": 600_000, "validation": 1_999, "test": 1_999})
    assert {k: v.tfds for k, v in found.items()} == {
        "train": "train[0:30000]",
        "validation": "validation[0:200]",
        "test": "test[0:1999]",
    }


def test_only_czech_and_russian_have_to_be_fetched_by_hand():
    assert [d for d in DATASETS if d.manual] == [WMT16_CSEN, WMT16_RUEN]


def test_english_sentences_of_the_samples_differ_between_pairs():
    english = [row["en"].lower() for record in DATASETS for row in sample_rows(record)]
    assert len(english) == len(set(english)) >= 8 * 24


@each_dataset
def test_samples_are_in_their_language(record):
    """Letters that the other side cannot have, over the whole of a pair's samples."""
    code, _ = LANGUAGES[record.name]
    letters = {
        "es": "áéíóúñ¿",
        "fr": "éèà«",
        "cs": "ěščřžů",
        "de": "äöüß",
        "fi": "äö",
        "ro": "ăâîșț",
        "ru": "абвгдж",
        "tr": "ığşç",
    }
    rows = sample_rows(record)
    text = {side: set("".join(row[side] for row in rows).lower()) for side in ("en", code)}
    assert set(letters[code]) <= text[code]
    assert not set(letters[code]) & text["en"] - set("șăâ")  # "Brașov"
    assert all(row["en"] != row[code] for row in rows)

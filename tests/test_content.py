import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flan_jax import content

FIELDS = {"premise": "Étude: it’s 3.5 %", "options": ["yes", "no"], "answer": "no"}


def test_a_hash_names_the_content():
    one = content.content_hash(FIELDS)
    assert len(one) == 16 and int(one, 16) >= 0
    assert content.content_hash(dict(reversed(FIELDS.items()))) == one
    assert content.content_hash(FIELDS | {"options": ("yes", "no")}) == one
    assert content.content_hash(json.loads(json.dumps(FIELDS))) == one


@pytest.mark.parametrize(
    "other",
    [
        FIELDS | {"answer": "yes"},  # equal but for the label
        FIELDS | {"options": ["no", "yes"]},
        FIELDS | {"premise": FIELDS["premise"] + " "},
        FIELDS | {"premise": FIELDS["premise"].upper()},
        FIELDS | {"premise": unicodedata.normalize("NFD", FIELDS["premise"])},
        FIELDS | {"premise": "\ufeff" + FIELDS["premise"]},
        FIELDS | {"more": ""},
        {"premise": FIELDS["premise"], "answer": "no"},
        {},
    ],
)
def test_another_record_has_another_hash(other):
    assert content.content_hash(other) != content.content_hash(FIELDS)


def test_a_lone_surrogate_has_a_hash():
    assert content.content_hash({"a": "x\ud800"}) == content.content_hash({"a": "x\ufffd"})


def test_equal_records_are_numbered():
    keys = list(content.numbered(["a", "b", "a", "a"]))
    assert keys == ["a", "b", "a#2", "a#3"] and [content.unnumbered(key) for key in keys] == ["a", "b", "a", "a"]
    assert content.digest(["a", "b"]) != content.digest(["b", "a"]) != content.digest([])


@pytest.mark.parametrize(
    "text",
    [
        "what is the café’s name",
        unicodedata.normalize("NFD", "What is the Café’s name?"),
        "  what\tis\nthe   café's\u00a0name ",
        "\ufeffWhat is the caf\u00e9s name",
        "What is the caf&eacute;&rsquo;s name?",
        "what is the caf&#233;s name",
        "Ｗｈａｔ is the café’s name",
        "wh\u00adat is the café’s na\u200bme",
    ],
)
def test_spellings_that_look_alike_are_one_text(text):
    assert content.normalized_words(text) == ["what", "is", "the", "cafés", "name"]


@pytest.mark.parametrize(("text", "words"), [("AT&T", ["att"]), ("a & b", ["a", "b"]), ("", []), ("…!", [])])
def test_words_of_marks(text, words):
    assert content.normalized_words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("北京,是首都。", ["北", "京", "是", "首", "都"]),
        ("東京 Tower カメラ", ["東", "京", "tower", "カ", "メ", "ラ"]),
        ("ไทย 5", ["ไ", "ท", "ย", "5"]),
        ("한국 사람", ["한국", "사람"]),  # has spaces
    ],
)
def test_scripts_without_spaces_have_a_word_a_letter(text, words):
    assert content.normalized_words(text) == words


@given(st.text())
def test_words_of_words_are_the_same(text):
    words = content.normalized_words(text)
    assert all(word and not any(c.isspace() for c in word) for word in words)
    assert content.text_key(words) == content.text_key(list(words))


def test_keys_of_a_record():
    keys = content.text_keys(["One two", "", "THREE!", "one  two."])
    together = content.text_key(["one", "two", "three", "one", "two"])
    assert keys == {content.text_key(["one", "two"]): 2, content.text_key(["three"]): 1, together: 5}
    assert list(content.texts_of({"a": ["x", {"b": "y"}], "c": 3, "d": None, "e": "z"})) == ["x", "y", "z"]

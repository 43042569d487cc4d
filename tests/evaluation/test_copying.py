"""What repeating the input has."""

import pytest

from flan_jax import catalog
from flan_jax.evaluation.copying import given, is_copy


def test_what_is_given_are_the_fields_of_the_bare_input():
    fields = {"context": "C.", "question": "Q?", "title": "T", "answer": "no"}
    assert given(catalog.dataset("squad_v1"), fields) == "C. Q?"
    languages = {"source_language": "English", "target_language": "French", "answer": "un chat"}
    assert given(catalog.dataset("wmt14_enfr/en-fr"), languages | {"source": "a cat"}) == "a cat"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("- Fish\n- hole\n- ICE", "ice, hole, fish"),
        ("fish,hole,ice", "ice, hole, fish"),
        ('"ice", "hole" and "fish"'.replace(" and", ","), "ice, hole, fish"),
        ("Straße", "STRASSE"),
        ("猫、犬", "犬 猫"),
        ("cafe\u0301", "café"),
        ("1,000 men.", "men: 1,000"),
    ],
)
def test_a_copy_has_all_words_and_no_others(answer, text):
    assert is_copy(answer, text) and is_copy(text, answer)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("ice, hole", "ice, hole, fish"),
        ("ice ice hole fish", "ice, hole, fish"),
        ("", ""),
        (" ?! ", "..."),
        ("पानी", "पीना"),  # water, to drink: the same consonants
        ("மீன்", "மான்"),
        ("-5", "5"),
        ("€5", "$5"),
        ("C++", "C"),
        ("x + y", "x * y"),
        ("3.14", "14.3"),
        ("1,000", "000,1"),
    ],
)
def test_other_words_are_no_copy(answer, text):
    assert not is_copy(answer, text) and not is_copy(text, answer)

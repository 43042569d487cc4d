"""What repeating the input has."""

from flan_jax import catalog, protocol, styles
from flan_jax.evaluation.copying import given, is_copy

INSTRUCTIONS = styles.parse("instructions")


def test_what_was_given_are_the_fields_in_the_order_of_the_template():
    asked = protocol.of(catalog.dataset("squad_v1"), INSTRUCTIONS)
    records = [
        {"context": f"C {n}.", "question": f"Q {n}?", "title": f"T {n}", "answer": "no", "unused": "x"}
        for n in range(2)
    ]
    for number in asked.forward:
        pattern = asked.templates[number].input
        names = [name for name in ("context", "question", "title") if f"{{{name}}}" in pattern]
        names.sort(key=lambda name: pattern.index(f"{{{name}}}"))
        assert given(asked, number, records) == [" ".join(record[name] for name in names) for record in records]


def test_the_name_of_a_language_is_wording():
    asked = protocol.of(catalog.dataset("wmt14_enfr/en-fr"), INSTRUCTIONS)
    languages = {"source_language": "English", "target_language": "French"}
    records = [languages | {"source": source} for source in ("a cat", "a dog")]
    for number in asked.forward:
        assert given(asked, number, records) == ["a cat", "a dog"]
        assert "a cat" in given(asked, number, records[:1])[0]  # of one record nothing tells what is wording
        assert given(asked, number, []) == []


def test_a_copy_has_all_words_and_no_others():
    assert is_copy("- Fish\n- hole\n- ICE", "ice, hole, fish")
    assert not is_copy("ice, hole", "ice, hole, fish")
    assert not is_copy("ice ice hole fish", "ice, hole, fish")
    assert not is_copy("", "") and not is_copy(" ?! ", "...")
    assert is_copy("Straße", "STRASSE") and is_copy("猫 犬", "犬, 猫")

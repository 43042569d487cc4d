import json

import pytest
import tensorflow as tf

from flan_jax.tasks.structure_to_text import COMMON_GEN, DART, E2E_NLG, WEB_NLG_EN


def common_gen_fields(concepts=("dog", "run"), target="A dog runs.", references=()):
    record = {"concepts": list(concepts), "target": target, "references": list(references)}
    return COMMON_GEN.fields({name: tf.constant(value, tf.string) for name, value in record.items()})


def e2e_nlg_fields(meaning="name[The Heron], food[English]", target="A pub.", references=()):
    record = {"meaning_representation": meaning, "target": target, "references": list(references)}
    return E2E_NLG.fields({name: tf.constant(value, tf.string) for name, value in record.items()})


@pytest.mark.parametrize("fields", [common_gen_fields, e2e_nlg_fields])
def test_the_target_is_the_reference_where_there_is_no_other(fields):
    assert list(fields(target=" One. ")["references"].numpy()) == [b"One."]
    both = fields(target="One.", references=["One.", "Two  words. "])
    assert both["answer"].numpy() == b"One."
    assert list(both["references"].numpy()) == [b"One.", b"Two words."]


def test_references_also_work_in_a_graph_with_lists_of_unknown_length():
    signature = {
        "concepts": tf.TensorSpec([None], tf.string),
        "target": tf.TensorSpec([], tf.string),
        "references": tf.TensorSpec([None], tf.string),
    }
    rows = [
        {"concepts": ["a"], "target": "t", "references": []},
        {"concepts": ["a", "b"], "target": "t", "references": ["t", "u"]},
    ]
    data = tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=signature)
    found = [list(f["references"].numpy()) for f in data.map(lambda record: COMMON_GEN.fields(record))]
    assert found == [[b"t"], [b"t", b"u"]]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("ivy climbs the side of a building .", "ivy climbs the side of a building."),
        ("understood anywhere in the world . visual artist", "understood anywhere in the world . visual artist"),
        ("yellow round gift box on a white vector", "yellow round gift box on a white vector"),
    ],
)
def test_common_gen_loses_the_space_before_its_last_mark_in_target_and_references(source, shown):
    found = common_gen_fields(target=source, references=[source, "A dog runs ."])
    assert found["answer"].numpy().decode() == shown
    assert [text.decode() for text in found["references"].numpy()] == [shown, "A dog runs."]


def test_common_gen_shows_the_concepts_on_one_line_and_as_a_list():
    fields = common_gen_fields(["dog ", "run", "park"])
    assert fields["concepts"].numpy() == b"dog, run, park"
    assert fields["concept_list"].numpy() == b"- dog\n- run\n- park"


def test_e2e_nlg_meaning_is_read_into_attributes_and_values():
    fields = e2e_nlg_fields("name[The Café, Old Town], customer rating[5 out of 5], priceRange[£20-25]")
    assert (
        fields["attributes"].numpy().decode()
        == "name = The Café, Old Town, customer rating = 5 out of 5, priceRange = £20-25"
    )
    assert (
        fields["attribute_list"].numpy().decode()
        == "- name: The Café, Old Town\n- customer rating: 5 out of 5\n- priceRange: £20-25"
    )


def test_e2e_nlg_collapses_double_spaces_of_the_target():
    assert e2e_nlg_fields(target="It is cheap.  It is by the river. ")["answer"].numpy() == (
        b"It is cheap. It is by the river."
    )


def triple_fields(record, *triples, target="A text.", references=(), category="WrittenWork"):
    name = "tripleset" if record is DART else "input"
    found = record.fields(
        {
            name: tf.constant(triples),
            "category": tf.constant(category),
            "target": tf.constant(target),
            "references": tf.constant(list(references), tf.string),
        }
    )
    return {k: v.numpy().tolist() if v.shape.rank else v.numpy().decode() for k, v in found.items()}


@pytest.mark.parametrize(
    ("triple", "shown"),
    [
        ("Oslo | COUNTRY | Norway", "Oslo | country | Norway"),
        ("The Mill | priceRange | £20-25", "The Mill | price range | £20-25"),
        ("The Mill | customer rating | low", "The Mill | customer rating | low"),
        ('Bananaman | FIRST_AIRED | "1983-10-03"', "Bananaman | first aired | 1983-10-03"),
        ("[TABLECONTEXT] | [TITLE] | Mayors of Oslo", "the table | title | Mayors of Oslo"),
        ("[TABLECONTEXT] | LENGTH_(KM) | 3 | 4", "the table | length (km) | 3 | 4"),
        ("A | OWNER | College of William &amp; Mary", "A | owner | College of William & Mary"),
        ('A "B" C | NAME | D "E"', 'A "B" C | name | D "E"'),
        ("Tamil | SUNDAY | ஞாயிற்று  கிழமை", "Tamil | sunday | ஞாயிற்று கிழமை"),
    ],
)
def test_dart_triples_are_legible(triple, shown):
    assert triple_fields(DART, triple)["triples"] == shown


def test_dart_texts_are_without_html():
    found = triple_fields(
        DART, "A | b | C", target="Lippincott, Williams &amp; Wilkins.", references=["R &amp; B", "D"]
    )
    assert (found["answer"], found["references"]) == ("Lippincott, Williams & Wilkins.", [b"R & B", b"D"])


def test_dart_joins_triples_on_a_line_and_as_a_list():
    found = triple_fields(DART, "A | b | C", "C | D_E | f; g")
    assert found["triples"] == "A | b | C; C | d e | f; g"
    assert found["triple_list"] == "- A | b | C\n- C | d e | f; g"


@pytest.mark.parametrize(
    ("triple", "on_a_line", "in_a_list"),
    [
        ("Oslo | isPartOf | Oslo_County", "Oslo | is part of | Oslo County", "- Oslo | is part of | Oslo County"),
        ('A_B | ISSN_number | "00-0"', "A B | ISSN number | 00-0", "- A B | ISSN number | 00-0"),
        ("A | runwayLength | 3500.0", "A | runway length | 3500.0", "- A | runway length | 3500.0"),
        ("A | 1stRunwayName | B", "A | 1st runway name | B", "- A | 1st runway name | B"),
        ("A | UTCOffset | +1", "A | UTC offset | +1", "- A | UTC offset | +1"),
        (
            "A | LibraryofCongressClassification | B",
            "A | library of congress classification | B",
            "- A | library of congress classification | B",
        ),
        (
            "Bolt_(comicsCharacter) | creator | Gary_Cohn_(comics)",
            "Bolt (comics character) | creator | Gary Cohn (comics)",
            "- Bolt (comics character) | creator | Gary Cohn (comics)",
        ),
    ],
)
def test_web_nlg_names_are_legible(triple, on_a_line, in_a_list):
    found = triple_fields(WEB_NLG_EN, triple)
    assert (found["triples"], found["triple_list"]) == (on_a_line, in_a_list)


@pytest.mark.parametrize(
    ("category", "shown"),
    [
        ("Airport", "airport"),
        ("MeanOfTransportation", "mean of transportation"),
        ("ComicsCharacter", "comics character"),
    ],
)
def test_web_nlg_category_is_in_plain_words(category, shown):
    assert triple_fields(WEB_NLG_EN, "A | b | C", category=category)["category"] == shown


@pytest.mark.parametrize("record", [DART, WEB_NLG_EN], ids=lambda d: d.name)
def test_triples_keep_their_references_and_need_a_target(record):
    assert triple_fields(record, "A | b | C", target=" One. ")["references"] == [b"One."]
    assert triple_fields(record, "A | b | C", references=["One.", "Two  words."])["references"] == [
        b"One.",
        b"Two words.",
    ]
    targets = [triple_fields(record, "A | b | C", target=t)["answer"] for t in ("One.", "", " ")]
    assert targets == ["One.", "", ""]  # an empty one is left out, see tests/data/test_usable.py


def test_every_triple_of_the_real_data_has_three_legible_parts(shared):
    with open(shared / "data" / "dart" / "train.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    triples = sorted({triple for row in rows for triple in row["tripleset"]})[:2000]
    for shown in triple_fields(DART, *triples)["triple_list"].split("\n"):
        parts = shown.removeprefix("- ").split(" | ")
        assert len(parts) == 3, shown
        assert all(parts), shown
        assert parts[1] == parts[1].strip("_[] "), shown

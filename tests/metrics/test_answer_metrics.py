"""SQuAD's, TriviaQA's and ReCoRD's answers against the published rules, written a second time and in another way."""

import string

import pytest

from flan_jax.metrics import metric

ASCII = set(string.punctuation)
TRIVIA_QA = ASCII | set("‘’´`_")


def runs(text):
    """The text cut where word characters (letters, digits, _) and others meet, as `\\b` cuts."""
    found = []
    for c in text:
        kind = c.isalnum() or c == "_"
        if found and found[-1][0] == kind:
            found[-1][1] += c
        else:
            found.append([kind, c])
    return [run for _, run in found]


def words(text, punctuation, instead):
    """Words by the official rules: lower case; punctuation, then articles; white space."""
    text = "".join(instead if c in punctuation else c for c in text.lower())
    return "".join(" " if run in ("a", "an", "the") else run for run in runs(text)).split()


def squad_words(text):
    return words(text, ASCII, "")


def trivia_qa_words(text):
    return words(text, TRIVIA_QA, " ")


def f1(wanted, given):
    """F1 of two lists of words; where there are none on a side, 1 if there are none on the other (SQuAD 2.0)."""
    if not wanted or not given:
        return float(wanted == given)
    left, same = list(wanted), 0
    for word in given:
        if word in left:
            left.remove(word)
            same += 1
    if not same:
        return 0.0
    precision, recall = same / len(given), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(
    ("name", "normal"), [("squad", squad_words), ("trivia_qa", trivia_qa_words), ("quac", trivia_qa_words)]
)
def test_answers_are_as_the_official_rules_have_them(name, normal, hostile_pairs):
    exact, best = [], []
    for references, prediction in hostile_pairs:
        given = normal(prediction)
        exact.append(any(normal(r) == given for r in references))
        best.append(max(f1(normal(r), given) for r in references))
        one = metric(name)([references], [prediction])
        assert one["em"] == 100 * exact[-1], (references, prediction)
        assert one["f1"] == pytest.approx(100 * best[-1]), (references, prediction)
    found = metric(name)([r for r, _ in hostile_pairs], [p for _, p in hostile_pairs])
    assert found == pytest.approx({"em": 100 * sum(exact) / len(exact), "f1": 100 * sum(best) / len(best)})
    assert 5 < found["em"] < 60 and found["em"] < found["f1"] < 95  # the pairs are neither all alike nor all different


SAME_FOR_TRIVIA_QA = [
    ("j k rowling", "J.K. Rowling"),
    ("ac dc", "AC/DC"),
    ("rosemary s baby", "Rosemary’s Baby"),
    ("rosemary s baby", "Rosemary's Baby"),
    ("rosemary s baby", "ROSEMARY‘S BABY!"),
    ("rock n roll", "Rock´n`Roll"),
    ("catch 22", "Catch-22"),
    ("snake case", "snake_case"),
    ("1 000", "1,000"),
    ("u s a", "The U.S.A."),
    ("spider man", "Spider–Man".replace("–", "-")),
    ("beatles", "the  Beatles"),
    ("47", " 47. "),
    ("what s going on", "“What's Going On?”".strip("“”")),
]


@pytest.mark.parametrize(("reference", "said"), SAME_FOR_TRIVIA_QA)
@pytest.mark.parametrize("name", ["trivia_qa", "quac"])
def test_punctuation_reads_as_a_space_for_trivia_qa(name, reference, said):
    assert metric(name)([["another alias", reference]], [said]) == {"em": 100.0, "f1": 100.0}
    assert metric(name).example(["another alias", reference], said) == 1.0


@pytest.mark.parametrize(
    ("reference", "said", "em"),
    [
        ("jk rowling", "J.K. Rowling", 100.0),
        ("j k rowling", "J.K. Rowling", 0.0),
        ("ACDC", "AC/DC", 100.0),
        ("1000", "1,000", 100.0),
        ("rosemarys baby", "Rosemary's Baby", 100.0),
        ("rosemarys baby", "Rosemary’s Baby", 0.0),  # ’ is no ASCII punctuation
        ("", "the", 100.0),  # nothing is left of either
        ("...", "An a the!", 100.0),
        ("", "cow", 0.0),
    ],
)
def test_squad_keeps_squads_own_normalization(reference, said, em):
    assert metric("squad")([reference], [said])["em"] == em


def test_a_trivia_qa_dataset_takes_trivia_qas_metric():
    from flan_jax import catalog

    for name in ("trivia_qa", "natural_questions"):
        first = metric(catalog.dataset(name).metrics[0])
        assert first.example(["j k rowling"], "J.K. Rowling") == 1.0 and first.headline == "em"
    first = metric(catalog.dataset("quac").metrics[0])
    assert first.headline == "f1" and first.example(["rosemary s baby"], "Rosemary’s") == pytest.approx(0.8)


# ------------------------------------------------------------------------------------------------------------- ReCoRD


@pytest.mark.parametrize("rest", ["", ".", " told the council.", "’s horse, which he had sold", "'s", " 東京"])
def test_record_compares_names_without_the_rest_of_the_sentence(rest, hostile_pairs):
    record = metric("record")
    for references, prediction in hostile_pairs[:100]:
        given = squad_words(prediction)
        target = {"references": [(r + rest).strip() for r in references], "rest": rest}
        found = record([target], [(prediction + rest).strip()])
        kept = [squad_words(r) for r in references]
        if not any(text.strip().endswith(rest.strip()) for text in (*references, prediction) if rest):
            assert found["em"] == 100 * any(given == r for r in kept), (references, prediction)
            assert found["f1"] == pytest.approx(100 * max(f1(r, given) for r in kept))


def test_a_wrong_name_gets_nothing_for_the_rest_of_the_sentence():
    rest = "told the council that the gas lamps would stay."
    target = {"references": [f"Otto Frey {rest}", f"Frey {rest}"], "rest": rest}
    said = [f"Linda Castro {rest}", f"Frey {rest}", "Frey", f"Otto {rest}"]
    record = metric("record")
    assert [record.example(target, text) for text in said] == pytest.approx([0.0, 1.0, 1.0, 2 / 3])
    assert record([target] * 4, said) == pytest.approx({"em": 50.0, "f1": 100 * (2 + 2 / 3) / 4})


@pytest.mark.parametrize("name", ["record", "multirc"])
def test_a_field_that_a_metric_needs_is_asked_for(name):
    from flan_jax.errors import FlanError

    needed = metric(name).needs[0]
    with pytest.raises(FlanError, match=f"example 1 has no {needed}"):
        metric(name)([{"references": ["yes"], needed: "x"}, {"references": ["yes"]}], ["yes", "no"])
    with pytest.raises(FlanError, match=f"metric {name} needs {needed}"):
        metric(name).target({"id": "7"}, ["yes"])

import re

import numpy as np
import pytest

from flan_jax import catalog
from flan_jax.evaluation.figures import all_metrics, example_score, headline, ranked, summarize


def _prediction(scores, answer, **more):
    return {"loglikelihood": scores, "answer": answer, "tokens": [1] * len(scores), "bytes": [1] * len(scores)} | more


def test_ranking_ties_go_to_the_first_option():
    assert ranked(_prediction([-1.0, -1.0, -2.0], 0), "sum") == 0


def test_normalised_ranking():
    prediction = _prediction([-4.0, -3.0], 0) | {"tokens": [4, 1], "bytes": [2, 1]}
    assert ranked(prediction, "sum") == 1
    assert ranked(prediction, "per_token") == 0
    assert ranked(prediction, "per_byte") == 0


def _random_predictions(rng, count, options, accuracy):
    found = []
    for _ in range(count):
        answer = int(rng.integers(options))
        scores = rng.normal(size=options)
        best = answer if rng.random() < accuracy else (answer + 1) % options
        scores[best] = scores.max() + 1
        words = ["yes", "it is not possible to tell", "no"]
        found.append(_prediction(scores.tolist(), answer, options=words, cut_tokens=0))
    return found


def test_summary_matches_numpy():
    rng = np.random.default_rng(0)
    record = catalog.dataset("snli")
    test = {n: _random_predictions(rng, 40, 3, 0.3 + 0.05 * n) for n in record.forward_templates}
    dev = {n: _random_predictions(rng, 20, 3, 0.9 if n == 2 else 0.2) for n in record.forward_templates}
    figures = summarize(record, test, dev)
    shares = [np.mean([int(np.argmax(p["loglikelihood"])) == p["answer"] for p in rows]) for rows in test.values()]
    np.testing.assert_allclose(figures["mean"], np.mean(shares))
    np.testing.assert_allclose(figures["std"], np.std(shares, ddof=1))
    assert figures["best_dev_template"] == 2
    np.testing.assert_allclose(figures["best_dev"], shares[list(test).index(2)])
    np.testing.assert_allclose(figures["random"], 1 / 3)
    first = [p["answer"] for p in next(iter(test.values()))]
    np.testing.assert_allclose(figures["majority"], np.bincount(first).max() / len(first))


def test_pmi_is_the_sum_less_what_the_option_gets_without_the_prompt():
    prediction = _prediction([-4.0, -3.0], 0, unconditional=[-9.0, -2.0])
    assert ranked(prediction, "sum") == 1
    assert ranked(prediction, "pmi") == 0


def test_metrics_of_ranked_options():
    rng = np.random.default_rng(1)
    record = catalog.dataset("glue_mrpc")
    words = list(record.label_words)
    predictions = [p | {"options": words} for p in _random_predictions(rng, 60, 2, 0.7)]
    said = np.array([np.argmax(p["loglikelihood"]) for p in predictions])
    wanted = np.array([p["answer"] for p in predictions])
    yes = words.index("yes")
    both, given, there = ((said == yes) & (wanted == yes)).sum(), (said == yes).sum(), (wanted == yes).sum()
    found = all_metrics(record, predictions)
    assert found["f1"] == pytest.approx(100 * 2 * both / (given + there))
    assert found["accuracy"] == pytest.approx(100 * np.mean(said == wanted))
    # In GPT-3's words the answers read otherwise and mean the same.
    other = [p | {"options": ["True", "False"], "words": words} for p in predictions]
    assert all_metrics(record, other) == found


def test_multirc_needs_all_answers_to_a_question():
    record = catalog.dataset("multirc")
    words = list(record.label_words)
    yes, no = words.index("yes"), words.index("no")

    def line(question, answer, said):
        scores = [0.0, 0.0]
        scores[said] = 1.0
        return _prediction(scores, answer, options=words, question_id=question)

    lines = [line("a", yes, yes), line("a", no, no), line("b", yes, yes), line("b", no, yes)]
    found = all_metrics(record, lines)
    assert found["em"] == pytest.approx(50.0)
    assert found["f1a"] == pytest.approx(100 * 2 * 2 / (3 + 2))


def _answer(prediction, references, **more):
    line = {"prediction": prediction, "references": references, "finish": "eos", "cut_tokens": 0} | more
    return line | {"score": example_score(catalog.dataset("squad_v1"), references, prediction)}


def test_summary_of_generated_answers():
    record = catalog.dataset("squad_v1")
    right, half, wrong = ["the red fox"], ["red fox runs"], ["a hen"]
    test = {
        0: [_answer("Red fox.", right), _answer("fox", half), _answer("nothing", wrong, finish="length")],
        3: [_answer("Red fox.", right), _answer("red fox runs", half), _answer("hen", wrong)],
    }
    dev = {0: [_answer("hen", wrong)], 3: [_answer("cow", wrong)]}
    found = summarize(record, test, dev)
    by_hand = [np.mean([1.0, 0.5, 0.0]), 1.0]
    assert headline(record).headline == found["metric"] == "f1"
    np.testing.assert_allclose([t["value"] for t in found["templates"]], by_hand)
    np.testing.assert_allclose((found["mean"], found["std"]), (np.mean(by_hand), np.std(by_hand, ddof=1)))
    assert (found["best_dev_template"], found["best_dev"]) == (0, pytest.approx(0.5))
    assert found["random"] is None and found["majority"] is None
    assert [t["unfinished"] for t in found["templates"]] == [1, 0]
    assert found["metrics"]["em"] == pytest.approx(100 * np.mean([1 / 3, 1.0]))
    spread = np.std([1.0, 0.5, 0.0], ddof=1) / np.sqrt(3)
    assert found["stderr"] == pytest.approx(np.mean([spread, 0.0]))


def test_the_standard_error_of_turns_of_one_conversation_is_not_that_of_as_many_examples():
    """Values of one passage count together; where they are the same, as one."""
    record = catalog.dataset("squad_v1")
    said = [_answer("fox", ["fox"]), _answer("hen", ["fox"]), _answer("fox", ["fox"])]
    each = summarize(record, {0: said}, {})["stderr"]
    three = [line | {"passage": f"story {i}"} for i, line in enumerate(said) for _ in range(3)]
    assert summarize(record, {0: three}, {})["stderr"] == pytest.approx(each)
    assert summarize(record, {0: [{**line, "passage": str(i)} for i, line in enumerate(three)]}, {})["stderr"] < each
    assert summarize(record, {0: [line | {"passage": "one"} for line in said]}, {})["stderr"] is None


def test_a_single_text_has_no_bleu():
    assert example_score(catalog.dataset("wmt14_enfr"), ["le chat"], "le chat") is None
    assert example_score(catalog.dataset("xsum"), ["a cat sat"], "a cat sat") == pytest.approx(1.0)
    assert example_score(catalog.dataset("natural_questions"), ["Paris", "paris, france"], "Paris") == 1.0


@pytest.mark.parametrize("record", catalog.datasets(), ids=lambda record: record.name)
def test_every_dataset_has_a_headline_among_its_metrics(record):
    rows = {
        "classification": _prediction([0.0, -1.0], 0, options=list(record.label_words[:2]) or ["a", "b"]),
        "generation": {"prediction": "3", "references": ["3"]},
    }[record.kind]
    rows = rows | {"question_id": "q", "rest": ".", "rating": "3.8"}
    found = all_metrics(record, [rows, rows])
    assert record.kind == "classification" or headline(record).headline in found


def test_copying_is_a_baseline_of_generated_answers():
    """CommonGen's given words by themselves have much ROUGE-1, and answers that are only they are counted."""
    record = catalog.dataset("common_gen")
    references = {"a": ["The dog runs home."], "b": ["A boy throws a ball."]}
    given = {"a": "dog, run, home", "b": "ball, boy, throw", "unused": "x"}
    said = {0: ("The dog runs.", "throw boy ball"), 4: ("Home, dog, run!", "Ball. Boy. Throw. Ball.")}
    test = {
        n: [
            {"id": one, "prediction": answer, "references": references[one], "finish": "eos", "cut_tokens": 0}
            | {"score": example_score(record, references[one], answer)}
            for one, answer in zip("ab", answers, strict=True)
        ]
        for n, answers in said.items()
    }
    found = summarize(record, test, {}, given)
    shares = []  # ROUGE-1's F1 by hand: shared words of those said and of those wanted
    for one, (wanted,) in references.items():
        words, right = (set(re.findall(r"\w+", text.lower())) for text in (given[one], wanted))
        count = len(right) + ("a" in right)  # "a" stands there twice
        shares.append(2 * len(words & right) / (len(words) + count))
    assert found["copied"] == pytest.approx(np.mean(shares))
    assert [t["copies"] for t in found["templates"]] == [1, 1]
    unknown = summarize(record, test, {})
    assert unknown["copied"] is None and "copies" not in unknown["templates"][0]


def test_a_right_answer_is_no_copy():
    """The words of a sentence with its case restored are those that were given."""
    record = catalog.dataset("true_case")
    line = {"id": "a", "prediction": "The U.S. won.", "references": ["The U.S. won."], "finish": "eos", "cut_tokens": 0}
    found = summarize(
        record, {0: [line, line | {"id": "b", "references": ["Nobody won."]}]}, {}, dict.fromkeys("ab", "the u.s. won.")
    )
    assert (found["mean"], found["copied"], found["templates"][0]["copies"]) == (0.5, 0.0, 1)

"""The headline of each dataset is that of the paper's tables; where the paper prints none, that of its benchmark."""

import numpy as np
import pytest

from flan_jax import catalog
from flan_jax.evaluation.figures import all_metrics, headline, is_right, ranked, summarize
from flan_jax.metrics import metric

# The paper's table 2: accuracy or exact match, and F1 for DROP, MultiRC and SQuAD. The others by their clusters.
HEADLINES = {"drop": "f1", "multirc": "f1a", "squad_v1": "f1", "squad_v2": "f1", "coqa": "f1", "quac": "f1"}
HEADLINES |= {"natural_questions": "em", "trivia_qa": "em", "cola": "matthews", "stsb": "pearson"}
HEADLINES |= {"fix_punct": "exact", "true_case": "exact", "word_segment": "exact", "math_dataset": "accuracy"}
BY_CLUSTER = {"translation": "bleu", "summarization": "rouge1", "structure_to_text": "rouge1"}


def expected_headline(record):
    by_kind = "accuracy" if record.kind == catalog.CLASSIFICATION else BY_CLUSTER.get(record.cluster)
    return HEADLINES.get(record.name, by_kind)


def line(options, answer, chosen, **more):
    """A prediction whose sum is highest at `chosen`."""
    scores = [-3.0] * len(options)
    scores[chosen] = -1.0
    sizes = {"tokens": [1] * len(options), "bytes": [1] * len(options)}
    return {"options": list(options), "answer": answer, "loglikelihood": scores, "cut_tokens": 0} | sizes | more


@pytest.mark.parametrize("record", catalog.datasets(), ids=lambda record: record.name)
def test_headlines_are_the_papers(record):
    assert headline(record).headline == expected_headline(record)
    more = {"question_id": "q", "rest": ".", "rating": "3.8"}
    if record.kind == catalog.CLASSIFICATION:
        words = list(record.label_words) or ["a", "b"]
        rows = [line(words, i % len(words), 0, **more) for i in range(6)]
    else:
        rows = [{"prediction": "3", "references": ["3"], "finish": "eos", "cut_tokens": 0}] * 3
    found = summarize(record, {0: rows}, {0: rows})
    first = metric(record.metrics[0])
    assert found["metric"] == expected_headline(record)
    assert found["headline_metric"] == {"name": first.name, "key": first.headline, "version": first.version}
    assert found["mean"] == found["best_dev"] == pytest.approx(found["metrics"][first.headline] / 100)
    assert set(found["metrics"]) == set(found["metric_versions"])
    if record.kind == catalog.CLASSIFICATION:
        assert {"accuracy", "macro_f1", "top_answer"} <= set(found["metrics"])


SECONDARY = {
    "multirc": {"f1a", "em"},
    "cola": {"matthews"},
    "cb": {"mean_f1"},
    "stsb": {"pearson", "spearman", "pearson_rating", "spearman_rating"},
    "glue_mrpc": {"f1"},
    "glue_qqp": {"f1"},
    "squad_v1": {"em", "f1"},
    "drop": {"em", "f1", "drop_em", "drop_f1"},
    "trivia_qa": {"em", "f1"},
    "record": {"em", "f1"},
    "xsum": {"rouge1", "rouge2", "rougeLsum", "rouge1_stemmed", "rouge2_stemmed", "rougeLsum_stemmed"},
    "e2e_nlg": {"rouge1", "rouge2", "rougeLsum", "rouge1_stemmed", "rouge2_stemmed", "rougeLsum_stemmed"},
    "wmt16_translate_deen": {"bleu", "bleu_13a"},
}


@pytest.mark.parametrize("name", SECONDARY)
def test_secondary_values_stand_in_the_means(name):
    record = catalog.dataset(name)
    keys = {key for used in record.metrics for key in metric(used).keys}
    ranked = {"accuracy", "macro_f1", "top_answer"} if record.kind == catalog.CLASSIFICATION else set()
    assert keys - ranked == SECONDARY[name]


# ------------------------------------------------------------------------- ways to rank, and dev, by the headline


def multirc_lines(questions, wanted, chosen, **scores):
    return [
        line(("no", "yes"), w, c, question_id=q) | {name: values[i] for name, values in scores.items()}
        for i, (q, w, c) in enumerate(zip(questions, wanted, chosen, strict=True))
    ]


def test_every_way_to_rank_is_measured_by_the_headline():
    """F1a by the sum, per token, per byte and by PMI, of the same lines."""
    wanted, chosen = [1, 0, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]
    # Per token "no" is always higher, per byte "yes"; without its prompt each right answer is the less likely one.
    tokens, sizes = [[9, 1]] * 6, [[1, 9]] * 6
    bare = [[-9.0, -1.0] if w == 0 else [-1.0, -9.0] for w in wanted]
    lines = multirc_lines("aabbcc", wanted, chosen, tokens=tokens, bytes=sizes, unconditional=bare)
    found = summarize(catalog.dataset("multirc"), {2: lines}, {})
    template = found["templates"][0]
    assert template["sum"] == template["value"] == found["mean"] == pytest.approx(2 * 2 / (3 + 3))
    assert template["per_token"] == found["mean_per_token"] == 0.0
    assert template["per_byte"] == found["mean_per_byte"] == pytest.approx(2 * 3 / (3 + 6))
    assert template["pmi"] == found["mean_pmi"] == 1.0
    assert found["metrics"]["accuracy"] == pytest.approx(100 * 4 / 6)
    assert found["metrics"]["em"] == pytest.approx(100 / 3)


def test_the_best_template_on_dev_is_that_of_the_headline():
    """One template says "no" to all and has the higher accuracy; another finds the right candidates."""
    wanted = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    never, often = [0] * 10, [1, 1, 1, 0, 0, 1, 1, 0, 0, 0]
    dev = {n: multirc_lines("abcdefghij", wanted, said) for n, said in ((0, never), (4, often))}
    test = {n: multirc_lines("abcdefghij", wanted, said) for n, said in ((0, often), (4, never))}
    record = catalog.dataset("multirc")
    accuracies = {n: all_metrics(record, lines)["accuracy"] for n, lines in dev.items()}
    assert accuracies[0] > accuracies[4]
    found = summarize(record, test, dev)
    assert found["best_dev_template"] == 4 and found["best_dev"] == 0.0


def test_the_baselines_are_those_of_the_headline():
    wanted = [1, 0, 0, 1, 0, 0, 0, 0] * 30
    found = summarize(catalog.dataset("multirc"), {0: multirc_lines(["q"] * 240, wanted, [0] * 240)}, {})
    assert found["majority"] == pytest.approx(2 * 0.25 / (0.25 + 1))  # F1 of "yes" to all
    assert found["random"] == pytest.approx(2 * 0.25 * 0.5 / 0.75, abs=0.02)  # precision 1/4, recall 1/2
    assert found["stderr"] is None
    constant = summarize(catalog.dataset("cola"), {0: [line(("no", "yes"), i % 2, 1) for i in range(40)]}, {})
    assert constant["mean"] == constant["majority"] == 0.0 and abs(constant["random"]) < 0.1
    assert constant["metrics"]["top_answer"] == 100.0 and constant["metrics"]["accuracy"] == 50.0
    assert constant["templates"][0]["undefined"] == ["matthews"]


def test_the_share_of_the_top_answer_goes_by_place_where_every_example_has_its_own_options():
    rows = [line([f"ending {i}{letter}" for letter in "abcd"], i % 4, 1) for i in range(40)]
    found = all_metrics(catalog.dataset("hellaswag"), rows)
    assert found["top_answer"] == 100.0 and found["accuracy"] == 25.0
    assert found["macro_f1"] == pytest.approx(100 * (2 * 10 / (10 + 40)) / 4)


# -------------------------------------------------------------------------------------------------------------- ReCoRD

REST = "told the council that the lamps would stay."
NAMES = ("Linda Castro", "Otto Frey", "Frey", "Marlow Heights")


def record_line(chosen, right=(1, 2), **more):
    options = [f"{name} {REST}" for name in NAMES]
    return line(options, right[0], chosen, references=[options[i] for i in right], rest=REST, **more)


@pytest.mark.parametrize(("chosen", "right", "f1"), [(1, True, 1.0), (2, True, 1.0), (0, False, 0.0), (3, False, 0.0)])
def test_any_right_name_is_right_and_a_wrong_one_gets_nothing(chosen, right, f1):
    record, rows = catalog.dataset("record"), [record_line(chosen)] * 2
    assert is_right(rows[0]) is right
    found = summarize(record, {0: rows}, {0: rows})
    assert found["metric"] == "accuracy" and found["mean"] == found["best_dev"] == float(right)
    assert found["metrics"]["f1"] == found["metrics"]["em"] == 100 * f1
    assert found["random"] == 0.5  # two of the four names
    assert found["templates"][0]["per_byte"] == float(right)


def test_record_in_other_words_and_orders():
    """In GPT-3's manner and with shuffled options, references are in the dataset's own words."""
    own = [f"{name} {REST}" for name in NAMES]
    shown = record_line(2) | {"options": [word.upper() for word in own], "words": own}
    shuffled = line(own[::-1], 2, 1, references=[own[1], own[2]], rest=REST)
    for row in (shown, shuffled):
        assert is_right(row)
        assert all_metrics(catalog.dataset("record"), [row])["f1"] == 100.0


@pytest.mark.parametrize("score", ["sum", "per_token", "per_byte", "pmi"])
def test_ranking_is_that_of_numpy(score):
    rng = np.random.default_rng(5)
    for _ in range(200):
        count = int(rng.integers(2, 6))
        scores = rng.integers(-6, 0, count).astype(float)  # with ties
        sizes, bare = rng.integers(0, 4, (2, count)), rng.integers(-6, 0, count).astype(float)
        row = {"loglikelihood": scores.tolist(), "tokens": sizes[0].tolist(), "bytes": sizes[1].tolist()}
        values = {
            "sum": scores,
            "per_token": scores / np.maximum(sizes[0], 1),
            "per_byte": scores / np.maximum(sizes[1], 1),
            "pmi": scores - bare,
        }
        assert ranked(row | {"unconditional": bare.tolist()}, score) == int(np.argmax(values[score]))


def test_the_standard_error_of_an_accuracy():
    rows = [record_line(i % 3) for i in range(60)]
    found = summarize(catalog.dataset("record"), {0: rows}, {})
    p = found["mean"]
    assert found["stderr"] == pytest.approx(np.sqrt(p * (1 - p) / 59))

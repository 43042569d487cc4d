"""Metrics of labels and numbers against scikit-learn, scipy and their definitions."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from flan_jax.errors import FlanError
from flan_jax.metrics import metric

HOSTILE_LABELS = ("yes", "no", "Yes", "it’s not possible to tell", "東京", "1,000", "...", "")


def draw(seed, labels, count=300, right=0.6):
    rng = np.random.default_rng(seed)
    targets = rng.choice(labels, count).tolist()
    said = [t if rng.random() < right else str(rng.choice(labels)) for t in targets]
    return targets, [f" {s}\n" if rng.random() < 0.3 else s for s in said]


def stripped(texts):
    return [text.strip() for text in texts]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("labels", [("no", "yes"), HOSTILE_LABELS, ("a", "b", "c")], ids=["binary", "hostile", "three"])
def test_labels_are_measured_as_by_scikit_learn(labels, seed):
    targets, said = draw(seed, labels)
    clean = stripped(said)
    assert metric("accuracy")(targets, said)["accuracy"] == pytest.approx(
        100 * sklearn_metrics.accuracy_score(targets, clean)
    )
    assert metric("matthews")(targets, said)["matthews"] == pytest.approx(
        100 * sklearn_metrics.matthews_corrcoef(targets, clean)
    )
    macro = 100 * sklearn_metrics.f1_score(targets, clean, average="macro", zero_division=0)
    shares = metric("answer_shares")(targets, said)
    assert shares["macro_f1"] == pytest.approx(macro)
    assert shares["top_answer"] == pytest.approx(100 * max(clean.count(label) for label in labels) / len(clean))
    assert metric("mean_multiclass_f1")(targets, said)["mean_f1"] == pytest.approx(macro)
    yes = sklearn_metrics.f1_score([t == "yes" for t in targets], [s == "yes" for s in clean], zero_division=0)
    assert metric("binary_f1")(targets, said)["f1"] == pytest.approx(100 * yes)


@pytest.mark.parametrize("seed", range(4))
def test_macro_f1_is_that_of_the_definition(seed):
    targets, said = draw(seed, HOSTILE_LABELS[:5], count=40)
    said, scores = stripped(said), []
    for label in set(targets) | set(said):
        both = sum(t == s == label for t, s in zip(targets, said, strict=True))
        scores.append(2 * both / (targets.count(label) + said.count(label)))
    assert metric("answer_shares")(targets, said)["macro_f1"] == pytest.approx(100 * sum(scores) / len(scores))


def test_a_constant_answer_shows_at_a_glance():
    targets = ["yes"] * 70 + ["no"] * 30
    found = metric("answer_shares")(targets, ["yes"] * 100)
    assert metric("accuracy")(targets, ["yes"] * 100) == {"accuracy": pytest.approx(70.0)}
    assert found == pytest.approx({"top_answer": 100.0, "macro_f1": 100 * (2 * 70 / 170) / 2})


def test_of_several_right_answers_the_given_one_counts():
    targets = [["0", "3"], ["1"], ["3", "0"], ["2"]]
    assert metric("answer_shares")(targets, ["3", "1", "0", "2"]) == {"macro_f1": 100.0, "top_answer": 25.0}


@pytest.mark.parametrize("seed", range(4))
def test_correlations_are_those_of_scipy(seed):
    rng = np.random.default_rng(seed)
    targets = [f"{value:g}" for value in rng.integers(0, 51, 300) / 10]
    said = [
        str(rng.choice([t, "3", "4.2", "-0", "1e0", "5.0 ", "three", "nan", "inf", "", "٣", "1,5"])) for t in targets
    ]

    def number(text):
        try:
            value = float(text)
        except ValueError:
            return -1.0
        return value if math.isfinite(value) else -1.0

    pair = [float(t) for t in targets], [number(s) for s in said]
    found = metric("pearson_spearman")(targets, said)
    assert found["pearson"] == pytest.approx(100 * stats.pearsonr(*pair).statistic)
    assert found["spearman"] == pytest.approx(100 * stats.spearmanr(*pair).statistic)
    assert found["pearson"] == pytest.approx(100 * np.corrcoef(*pair)[0, 1])


def test_ratings_are_correlated_as_they_were_given():
    """STS-B: the paper's pipeline has rounded targets, GLUE the ratings; both stand in the results."""
    rng = np.random.default_rng(0)
    ratings = rng.integers(0, 501, 200) / 100
    said = np.clip(np.round(ratings + rng.normal(0, 1, 200)), 0, 5).astype(int)
    texts = [str(number) for number in said]
    targets = [{"references": [str(round(r))], "rating": f"{r:g}"} for r in ratings]
    found = metric("rating_correlation")(targets, texts)
    assert found["pearson_rating"] == pytest.approx(100 * stats.pearsonr(ratings, said).statistic)
    assert found["spearman_rating"] == pytest.approx(100 * stats.spearmanr(ratings, said).statistic)
    rounded = metric("pearson_spearman")([t["references"] for t in targets], texts)
    assert rounded["pearson"] == pytest.approx(100 * stats.pearsonr(np.round(ratings), said).statistic)
    assert abs(rounded["pearson"] - found["pearson_rating"]) > 0.1
    with pytest.raises(FlanError, match="and the target of example 0 is 'high'"):
        metric("rating_correlation")([{"references": ["5"], "rating": "high"}] * 2, ["5", "4"])
    assert metric("rating_correlation").undefined(targets, ["3"] * 200) == ("pearson_rating", "spearman_rating")


@pytest.mark.parametrize("seed", range(4))
def test_multirc_is_that_of_its_definition(seed):
    """F1 over candidates, and the share of questions with all candidates right (Khashabi et al. 2018, F1a and EM)."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 8, 80)
    questions = [f"{i // 5}-{i % 5}" for i, size in enumerate(sizes) for _ in range(size)]
    order = rng.permutation(len(questions))  # candidates of a question need not stand together
    questions = [questions[i] for i in order]
    wanted = rng.integers(0, 2, len(questions))
    given = np.where(rng.random(len(questions)) < 0.8, wanted, 1 - wanted)
    words = ("no", "yes")
    targets = [{"references": [words[w]], "question_id": q} for w, q in zip(wanted, questions, strict=True)]
    found = metric("multirc")(targets, [words[g] for g in given])
    precision, recall = wanted[given == 1].mean(), given[wanted == 1].mean()
    whole = [all(wanted[i] == given[i] for i in range(len(wanted)) if questions[i] == q) for q in set(questions)]
    assert found["f1a"] == pytest.approx(100 * 2 * precision * recall / (precision + recall))
    assert found["em"] == pytest.approx(100 * np.mean(whole))
    assert metric("multirc").example is None

"""What all metrics have in common: records with versions, values that are finite, undefined ones named."""

import importlib.metadata
import inspect
import math
import pickle
import re
import sys

import numpy as np
import pytest
from sklearn.metrics import f1_score

from flan_jax import catalog, metrics
from flan_jax.errors import FlanError
from flan_jax.metrics import metric, names

METRICS = {name: metric(name) for name in names()}
binary_f1, edit_distance, matthews = METRICS["binary_f1"], METRICS["edit_distance"], METRICS["matthews"]
mean_multiclass_f1, multirc = METRICS["mean_multiclass_f1"], METRICS["multirc"]
pearson_spearman = METRICS["pearson_spearman"]

# ----------------------------------------------------------------------------------------------------------- records

SHOUTS = """
from flan_jax.metrics import Metric, percentage

METRIC = Metric(
    "shouts", "1", "shouts", lambda targets, predictions: {"shouts": percentage([p.isupper() for p in predictions])}
)
"""


@pytest.fixture
def add_file(tmp_path, monkeypatch):
    """Adds a file to the package of metrics, which looks in one more folder."""
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    before = set(sys.modules)
    yield lambda name, text: (tmp_path / f"{name}.py").write_text(text)
    metrics.metric.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("flan_jax.metrics."):
            del sys.modules[name]
            delattr(metrics, name.rpartition(".")[2])


def test_adding_a_metric_is_adding_a_file(add_file):
    with pytest.raises(FlanError, match="unknown metric 'shouts'"):
        metric("shouts")
    add_file("shouts", SHOUTS)
    assert "shouts" in names()
    assert metric("shouts")(["a", "b"], ["A", "b"]) == {"shouts": 50.0}


@pytest.mark.parametrize("text", ["", "METRIC = 3", SHOUTS])
def test_a_file_without_its_metric_is_refused(add_file, text):
    add_file("whispers", text)
    with pytest.raises(FlanError, match=r"whispers\.py must define METRIC, a Metric whose name is 'whispers'"):
        metric("whispers")


@pytest.mark.parametrize("found", [{}, {"other": 1.0}, {"shouts": 1.0, "other": 1.0}])
def test_values_are_those_of_the_record(found):
    with pytest.raises(FlanError, match="its record names"):
        metrics.Metric("shouts", "1", "shouts", lambda targets, predictions: found)(["a"], ["a"])


@pytest.mark.parametrize("name", METRICS)
def test_a_record_says_what_it_is(name):
    record = METRICS[name]
    assert record.__name__ == record.name == name
    assert list(inspect.signature(record).parameters) == ["targets", "predictions"]  # by which SeqIO tells its kind
    assert pickle.loads(pickle.dumps(record)) is record
    library, version = re.match(r"([a-z_-]+) ([\d.]+)", record.version).groups()
    assert library == "flan_jax" or importlib.metadata.version(library) == version
    assert len(set(record.keys)) == len(record.keys)


@pytest.mark.parametrize("name", [name for name, record in METRICS.items() if record.example])
def test_the_headline_is_the_mean_over_examples(name, hostile_pairs):
    record = METRICS[name]
    targets = [record.target({"rest": ".", "question_id": "q"}, references) for references, _ in hostile_pairs]
    predictions = [prediction for _, prediction in hostile_pairs]
    values = [record.example(t, p) for t, p in zip(targets, predictions, strict=True)]
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in values)
    assert record.share(record(targets, predictions)) == pytest.approx(np.mean(values))


def test_every_value_has_the_version_of_what_computes_it():
    """The share of the most frequent answer was called a macro F1 of scikit-learn."""
    for record in METRICS.values():
        assert list(record.versions) == list(record.keys) and record.versions[record.headline] == record.version
        assert set(record.secondary_versions) <= set(record.secondary)
    versions = {key: version for record in METRICS.values() for key, version in record.versions.items()}
    assert "F1" in versions["macro_f1"] and "F1" not in versions["top_answer"]
    assert "F1" in versions["f1a"] and "F1" not in METRICS["multirc"].versions["em"]
    assert "nltk" in versions["edit_distance"] and "nltk" not in versions["exact"]
    libraries = {"nltk": "edit", "scikit-learn": "f1|f1a|matthews", "scipy": "pearson|spearman"}
    libraries |= {"sacrebleu": "bleu", "rouge-score": "rouge"}
    for name, keys in libraries.items():
        used = {key for key, version in versions.items() if version.startswith(f"{name} ")}
        assert used and all(re.search(keys, key) for key in used)


def test_which_metrics_have_a_value_of_one_example():
    without = {"bleu", "bleu_13a", "pearson_spearman", "matthews", "binary_f1", "mean_multiclass_f1", "multirc"}
    without |= {"rating_correlation", "edit_distance_t5"}
    assert {name for name, record in METRICS.items() if record.example is None} == without | {"answer_shares"}


@pytest.mark.parametrize("record", catalog.datasets(), ids=lambda record: record.name)
def test_no_two_metrics_of_a_dataset_have_a_value_of_one_name(record):
    keys = [key for name in (*record.metrics, "answer_shares") for key in metric(name).keys]
    assert len(set(keys)) == len(keys)


def test_a_metric_of_a_longer_answer_gets_more_tokens():
    assert {name for name, record in METRICS.items() if record.new_tokens == 256} == {
        "bleu",
        "bleu_13a",
        "edit_distance",
        "edit_distance_t5",
        "rouge",
        "rouge_stemmed",
    }
    assert {record.new_tokens for record in METRICS.values()} == {32, 64, 256}


# ------------------------------------------------------------------------------------------------- labels, by hand


def naive_pearson(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return top / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


def naive_ranks(x):
    return [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]


@pytest.mark.parametrize("seed", range(3))
def test_binary_f1_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    targets, predictions = rng.choice(["no", "yes"], (2, 40)).tolist()
    expected = 100 * f1_score(targets, predictions, pos_label="yes")
    assert binary_f1(targets, predictions)["f1"] == pytest.approx(expected)
    assert binary_f1([[t] for t in targets], [f" {p}\n" for p in predictions])["f1"] == pytest.approx(expected)


def test_binary_f1_without_a_yes_is_zero():
    assert binary_f1(["no", "no"], ["no", "maybe"]) == {"f1": 0.0}


@pytest.mark.parametrize("seed", range(3))
def test_pearson_spearman_is_that_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    wanted, given = rng.integers(0, 6, (2, 30)).tolist()
    found = pearson_spearman([str(x) for x in wanted], [str(x) for x in given])
    assert found["pearson"] == pytest.approx(100 * naive_pearson(wanted, given))
    assert found["spearman"] == pytest.approx(100 * naive_pearson(naive_ranks(wanted), naive_ranks(given)))


def test_pearson_spearman_takes_what_is_no_number_as_below_the_scale():
    targets = ["0", "2", "5", "3"]
    as_minus_one = pearson_spearman(targets, ["-1", "2", "5", "-1"])
    assert pearson_spearman(targets, ["very alike", "2", "5", "nan"]) == as_minus_one


@pytest.mark.parametrize(("targets", "predictions"), [(["1", "2"], ["3", "3"]), (["4", "4"], ["1", "2"])])
def test_pearson_spearman_of_a_constant_is_zero(targets, predictions):
    assert pearson_spearman(targets, predictions) == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize("seed", range(3))
def test_matthews_is_the_correlation_of_two_answers(seed):
    rng = np.random.default_rng(seed)
    targets, predictions = rng.choice(["no", "yes"], (2, 50)).tolist()
    numbers = [[float(x == "yes") for x in column] for column in (targets, predictions)]
    assert matthews(targets, predictions)["matthews"] == pytest.approx(100 * naive_pearson(*numbers))
    assert matthews(targets, ["yes"] * 50) == {"matthews": 0.0}


def test_mean_multiclass_f1_averages_over_the_answers():
    targets, predictions = ["a", "a", "b", "c"], ["a", "b", "b", "b"]
    # a: precision 1, recall 1/2; b: precision 1/3, recall 1; c: never given.
    assert mean_multiclass_f1(targets, predictions)["mean_f1"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)


def test_multirc_counts_whole_questions():
    answers = [("1-1", "yes"), ("1-1", "no"), ("1-2", "yes"), ("1-2", "yes"), ("2-1", "no")]
    targets = [{"question_id": q, "references": [a]} for q, a in answers]
    assert multirc(targets, ["yes", "no", "yes", "no", "no"]) == pytest.approx({"f1a": 80.0, "em": 200 / 3})


def test_edit_distance_is_in_words_to_the_nearest_reference():
    targets = ["One two three.", ["a b", "a b c"]]
    assert edit_distance(targets, ["One three.", " a b c"]) == {"edit_distance": 0.5, "exact": 50.0}


# ---------------------------------------------------------------------------------------------- what has no value


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("targets", "predictions"), [([], []), (["yes"], []), (["yes", "no"], ["yes"]), ([[]], ["yes"])]
)
def test_what_has_no_value_is_refused(name, targets, predictions):
    with pytest.raises(FlanError, match=r"there must be as many|example 0 has no reference") as caught:
        METRICS[name](targets, predictions)
    assert "\n" not in str(caught.value)


HOSTILE_TEXTS = ["", " ", "\n", "...", "nan", "-inf", "1e400", "-1e308", "\ud800", "é" * 999, "a the an", "0"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", sorted(set(METRICS) - {"multirc", "pearson_spearman", "rating_correlation", "record"}))
def test_every_value_is_a_finite_number(name):
    for targets in (["", "a"], ["yes", "yes"], [["", "b"], ["\u3000"]], ["3", "4.5"]):
        for text in HOSTILE_TEXTS:
            for predictions in ([text, text], [text, "yes"], ["", text]):
                found = METRICS[name](targets, predictions)
                assert found and all(math.isfinite(value) for value in found.values()), (targets, predictions, found)
    assert all(math.isfinite(value) for value in METRICS[name](["a"], [""]).values())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("given", [["1e308", "-1e308"], ["1e300", "2"], ["inf", "1"], ["1e-300", "2e-300"], ["", "5"]])
def test_correlations_of_numbers_of_any_size(given):
    found = pearson_spearman(["1", "2"], given)
    assert all(-100.001 <= value <= 100.001 for value in found.values())


@pytest.mark.parametrize("target", ["nan", "inf", "-Infinity", "1e400", "", "three"])
def test_targets_of_a_correlation_are_numbers(target):
    with pytest.raises(FlanError, match="a correlation needs numbers, and the target of example 1 is"):
        pearson_spearman(["1", target], ["1", "2"])


@pytest.mark.parametrize(
    ("name", "targets", "predictions", "expected"),
    [
        ("pearson_spearman", ["1", "2"], ["3", "3"], ("pearson", "spearman")),
        ("pearson_spearman", ["1", "1"], ["3", "4"], ("pearson", "spearman")),
        ("pearson_spearman", ["1", "2"], ["no", "nan"], ("pearson", "spearman")),
        ("pearson_spearman", ["1", "2"], ["3", "4"], ()),
        ("matthews", ["a", "b"], ["a", "a "], ("matthews",)),
        ("matthews", ["a", "b"], ["a", "b"], ()),
        ("accuracy", ["a", "a"], ["a", "a"], ()),
        ("binary_f1", ["no", "no"], ["no", "maybe"], ("f1",)),
        ("binary_f1", ["no", "yes"], ["no", "no"], ()),
    ],
)
def test_what_is_zero_for_want_of_a_value_is_said(name, targets, predictions, expected):
    assert metric(name).undefined(targets, predictions) == expected
    for value in expected:
        assert METRICS[name](targets, predictions)[value] == 0.0


# ------------------------------------------------------------------------------------------------- sums of statistics


def _labels(rng, labels):
    targets = rng.choice(labels, 60).tolist()
    return targets, [t if rng.random() < 0.5 else str(rng.choice(labels)) for t in targets]


def _examples(name, seed, few_pairs):
    """Targets and predictions that the metric takes, hostile ones among them."""
    rng = np.random.default_rng(seed)
    if name.startswith("bleu"):
        pairs = few_pairs(seed)
        return [r for r, _ in pairs], [p for _, p in pairs]
    if name in ("pearson_spearman", "rating_correlation"):
        targets, said = _labels(rng, ["0", "1.5", "2", "4.999", "5"])
        if name == "rating_correlation":
            targets = [{"references": [str(round(float(t)))], "rating": t} for t in targets]
        return targets, [s if i % 9 else "no number" for i, s in enumerate(said)]
    labels = ["no", "yes"] if name in ("multirc", "binary_f1") or seed % 2 else ["yes", "no", "", "東京"]
    targets, said = _labels(rng, labels)
    if name == "multirc":
        targets = [{"references": [t], "question_id": str(i // 3)} for i, t in enumerate(targets)]
    return targets, said


SUMMED = [name for name in names() if metric(name).statistics]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", SUMMED)
def test_a_headline_follows_from_the_sums_of_its_examples(name, seed, few_pairs):
    """So that examples can be drawn anew for an interval, without computing the metric a thousand times."""
    found, (targets, said) = metric(name), _examples(name, seed, few_pairs)
    statistics = found.statistics(targets, said)
    assert len(statistics) == len(targets)
    rng = np.random.default_rng(seed)
    draws = [range(len(targets)), range(7), [3], [3, 3, 3], *rng.integers(0, len(targets), (5, len(targets)))]
    expected = [found.share(found([targets[i] for i in drawn], [said[i] for i in drawn])) for drawn in draws]
    sums = np.stack([statistics[list(drawn)].sum(0) for drawn in draws])
    np.testing.assert_allclose(found.of_sums(sums), expected, atol=1e-9)
    assert not found.of_sums(np.zeros_like(sums)).any()


@pytest.mark.parametrize("name", SUMMED)
def test_sums_of_constant_answers_give_what_the_metric_does(name, few_pairs):
    found, (targets, _) = metric(name), _examples(name, 1, few_pairs)
    for said in (["yes"] * len(targets), ["2"] * len(targets), [""] * len(targets)):
        value = found.of_sums(found.statistics(targets, said).sum(0))
        assert value == pytest.approx(found.share(found(targets, said)), abs=1e-9)


def test_every_headline_has_values_or_sums():
    """Otherwise a report has no interval and no test of a dataset."""
    assert {"matthews", "multirc", "bleu", "pearson_spearman"} <= set(SUMMED)
    for record in catalog.datasets():
        headline = metric(record.metrics[0])
        assert (headline.example is None) == (headline.statistics is not None) == (headline.of_sums is not None)

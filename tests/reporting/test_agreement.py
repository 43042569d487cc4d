"""Figures of results.json that contradict each other are refused, and not shown."""

import json

import pytest

from flan_jax import reporting
from flan_jax.errors import FlanError


@pytest.fixture
def run(make_run):
    return make_run("tuned", {"rte": 1.0, "piqa": 0.5})


def best_by_test(figures):
    """Names the template with the highest figure that is not the best on dev."""
    highest = max(t["dev"] for t in figures["templates"])
    other = next(t for t in figures["templates"] if t["dev"] < highest)
    figures.update(best_dev=other["value"], best_dev_template=other["template"])


def without_dev(figures, *, of):
    for t in figures["templates"]:
        t["dev"] = None if of is None or t["template"] == of else t["dev"]


def accuracy_of_all(figures, percent):
    for one in (figures, *figures["templates"]):
        one["metrics"]["accuracy"] = percent


def best_way(figures):
    ways = figures["dev_ways"]
    ways["per_byte"] = ways["sum"] + 0.1
    for t in figures["templates"]:
        t["dev_ways"]["per_byte"] = ways["per_byte"]
    figures["best_dev_way"] = "sum"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.update(best_dev=0.99, best_dev_template=None), "has 0.9900 for the template that is best on dev"),
        (lambda f: f.pop("best_dev_template"), "for the template that is best on dev, and does not name it"),
        (lambda f: f.update(best_dev=None), "as the best on dev, and no figure of it"),
        (lambda f: f.update(best_dev_template=True), "has template 'True' as the best on dev, which it has not"),
        (best_by_test, "as the best on dev, with 0."),
        (lambda f: without_dev(f, of=f["best_dev_template"]), "as the best on dev, with no figure there, and template"),
        (lambda f: f.update(random=0.9, majority=0.1), "has 0.9000 for random answers, and 2 labels"),
        (lambda f: f.update(random=0.1), "has 0.1000 for random answers, and 2 labels"),
        (lambda f: f.update(majority=0.1), "has 0.1000 for the best of 2 labels, of which one has 0.5000 or more"),
        (lambda f: f.update(examples=40.0), "has 40.0 examples"),
        (
            lambda f: f.update(data={"test": {"records": 50, "digest": "d"}}, skipped_examples=3),
            "has 40 examples and 3 that were left out, of 50 records",
        ),
        (
            lambda f: f.update(shots={"wanted": 5, "mean": 5.0, "without": 0, "of": 40}),
            "has shots of 40 prompts, and 40 examples with 8 templates",
        ),
        (lambda f: f["templates"][0].update(sum=0.99), "for template 0, whose sum is 0.9900"),
        (lambda f: accuracy_of_all(f, 12.0), "for template 0, whose accuracy is 0.1200"),
        (lambda f: f.update(mean_per_byte=0.99), "has mean_per_byte 0.9900, and templates whose mean is"),
        (lambda f: f.update(mean_nothing=0.99), "has mean_nothing 0.9900, and templates without it"),
        (lambda f: f["dev_ways"].update(per_byte=0.99), "has 0.9900 for per_byte on dev, and templates whose mean is"),
        (lambda f: f.update(best_dev_way="pmi"), "has 'pmi' as the way to score that is best on dev, which it has not"),
        (best_way, "has sum as the way to score that is best on dev, which is not the highest there"),
        (lambda f: f.update(stderr=0.5), "has a standard error of 0.5000, and templates whose mean is"),
    ],
)
def test_figures_that_contradict_each_other_are_refused(run, change, says):
    """A best dev of 99.0 was shown without its template, and 90.0 for guessing between two."""
    path = run.output_dir / "results.json"
    results = json.loads(path.read_text())
    change(results["datasets"]["rte"])
    path.write_text(json.dumps(results))
    with pytest.raises(FlanError) as caught:
        reporting.load_run("tuned", run.output_dir)
    line = str(caught.value)
    assert line.startswith(f"{path}: dataset rte has ") and says in line and "\n" not in line
    assert line.endswith("run python -m flan_jax.eval again.")


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.update(best_dev=None, best_dev_template=None),
        lambda f: f.update(data={"test": {"records": 50, "digest": "d"}}, skipped_examples=10),
        lambda f: f.update(data={"test": {"records": 50}}),
        lambda f: f.update(data={"dev": {"records": 7}}, skipped_examples=0),
        lambda f: f["templates"].sort(key=lambda t: -t["template"]),
        lambda f: [t.pop("dev") for t in f["templates"]],  # as a version before that kept none
        lambda f: [f.pop(key) for key in ("dev_ways", "best_dev_way", "stderr", "random", "majority")],
        lambda f: [f.pop(key) for key in ("mean_per_byte", "mean_per_token", "mean_per_character", "best_dev_way")],
        lambda f: [t.update(stderr=None) for t in f["templates"]] and f.update(stderr=None),
    ],
)
def test_what_is_not_there_contradicts_nothing(run, change):
    path = run.output_dir / "results.json"
    results = json.loads(path.read_text())
    change(results["datasets"]["rte"])
    path.write_text(json.dumps(results))
    assert set(reporting.load_run("tuned", run.output_dir).datasets) == {"rte", "piqa"}


def test_equals_on_dev_may_each_be_the_best(run):
    path = run.output_dir / "results.json"
    results = json.loads(path.read_text())
    figures = results["datasets"]["rte"]
    last = figures["templates"][-1]
    for t in figures["templates"]:
        t["dev"] = 0.5
    figures.update(best_dev=last["value"], best_dev_template=last["template"])
    path.write_text(json.dumps(results))
    assert reporting.load_run("tuned", run.output_dir).figures("rte")["best_dev"] == last["value"]


def test_a_key_that_stands_twice_is_named(run):
    """The last one counted, and the first was as good."""
    path = run.output_dir / "results.json"
    path.write_text(path.read_text().replace('"rte": {', '"rte": {}, "rte": {', 1))
    with pytest.raises(FlanError) as caught:
        reporting.load_run("tuned", run.output_dir)
    said = "is no result (the key 'rte' stands twice): run python -m flan_jax.eval again."
    assert str(caught.value) == f"{path} {said}"

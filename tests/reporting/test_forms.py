"""Full text or letters: the better on dev is named, and test has no say."""

import dataclasses
import json

import numpy as np
import pytest

from flan_jax import reporting
from flan_jax.reporting import details, forms, groups


def with_dev(run, dataset, dev):
    """The run with this figure on dev, by template in turn."""
    for t, value in zip(run.results["datasets"][dataset]["templates"], np.resize(dev, 99), strict=False):
        t["dev"] = None if value is None else float(value)
    run.__dict__.pop("datasets", None)
    return run


@pytest.fixture
def both(make_run):
    """Full text is better on test, everywhere."""
    text = make_run("tuned instructions", {"snli": 3.0, "rte": 3.0}, style="instructions")
    letters = make_run("tuned lettered", {"snli": -3.0, "rte": -3.0}, style="lettered_options")
    return text, letters


@pytest.mark.parametrize(
    ("text_dev", "letters_dev", "better"),
    [
        ([0.2], [0.8], "letters"),
        ([0.8], [0.2], "full text"),
        ([0.5], [0.5], "full text"),  # the paper's form
        ([0.0, 1.0], [0.6], "letters"),  # means over the templates count
        ([None], [0.6], None),
        ([0.6], [0.4, None], None),
    ],
)
def test_dev_decides(both, text_dev, letters_dev, better):
    text, letters = with_dev(both[0], "rte", text_dev), with_dev(both[1], "rte", letters_dev)
    assert forms.pairs([letters, text]) == [(text, letters)]
    found = {form.dataset: form for form in forms.forms(text, letters)}
    form = found["rte"]
    assert form.better == better
    means = [run.results["datasets"]["rte"]["mean"] for run in (text, letters)]
    assert means[0] > means[1] and form.test == tuple(means)
    assert form.score == {"full text": means[0], "letters": means[1], None: None}[better]
    row = next(row for row in forms.forms_table([text, letters]).rows if row[1] == "rte")
    assert row[5] == (better or "–") and row[6] == ("–" if better is None else f"{100 * form.score:.1f}")


def test_the_report_has_it(both, tmp_path):
    with_dev(both[0], "rte", [0.1])
    paths = reporting.write(list(both), tmp_path / "out")
    (pair,) = json.loads(paths["json"].read_text())["forms"]
    assert (pair["full_text"], pair["letters"]) == ("tuned instructions", "tuned lettered")
    assert pair["datasets"]["rte"]["better_on_dev"] in ("full text", "letters")
    for suffix in ("md", "html"):
        text = paths[suffix].read_text("utf-8")
        assert "Full text or letters" in text and "better on dev" in text
        assert "of equals it is the full text" in text and "All other figures and tests are of the sum" in text


def changed(run, **more):
    return dataclasses.replace(run, name=run.name + " other", results={**run.results, **more})


def test_only_runs_that_differ_in_nothing_else_are_pairs(both, make_run):
    text, letters = both
    others = [
        changed(text, weights="other"),
        changed(text, checkpoint="another step 0"),
        changed(text, settings={"style": "instructions", "seed": 3}),
        make_run("few", {"rte": 1.0}, style="2_shots"),
        make_run("gpt3", {"rte": 1.0}, style="gpt3"),
    ]
    assert forms.pairs([letters, *others]) == []
    few = make_run("few lettered", {"rte": 1.0}, style="lettered_options_2_shots")
    assert forms.pairs([letters, *others, few, text]) == [(text, letters), (others[3], few)]
    assert forms.forms_table([text]).rows == [] and forms.to_dict([text]) == []


def test_datasets_that_cannot_be_compared_are_left_out(both, add_generation):
    for run in both:
        add_generation(run, "squad_v1", "f1")
        run.__dict__.pop("datasets", None)
    both[1].results["datasets"]["snli"]["metric"] = "other"
    both[1].results["datasets"]["snli"]["headline_metric"] = {"name": "other", "key": "other", "version": "1"}
    both[1].__dict__.pop("datasets", None)
    assert [form.dataset for form in forms.forms(*both)] == ["rte"]


def test_groups_are_pairs_too(make_run):
    names = [("a text", "2_shots"), ("b text", "2_shots"), ("a letters", "lettered_options_2_shots")]
    names.append(("b letters", "lettered_options_2_shots"))
    four = [make_run(name, {"rte": 1.0}, style=style, seed=n) for n, (name, style) in enumerate(names)]
    some = groups.grouped(four, {"text": ["a text", "b text"], "letters": ["a letters", "b letters"]})
    ((text, letters),) = forms.pairs(some)
    (form,) = forms.forms(text, letters)
    each = [[t["dev"] for t in run.results["datasets"]["rte"]["templates"]] for run in four]
    assert form.dev == pytest.approx((np.mean(each[:2]), np.mean(each[2:])))


def test_the_ways_to_score_and_the_best_of_them_on_dev(make_run):
    run = make_run("tuned", {"rte": 1.0})
    old = make_run("old", {"rte": 1.0})
    for figures in old.results["datasets"].values():  # of a version before
        del figures["best_dev_way"], figures["mean_per_character"]
    evidence = reporting.gather([run, old])
    table = details.rankings_table([run, old], evidence)
    assert table.head[1:8] == ("sum", "per token", "per byte", "per character", "best on dev", "std. error", "ECE")
    (row,) = table.rows
    figures = run.results["datasets"]["rte"]
    best = figures["best_dev_way"]
    value = figures["mean"] if best == "sum" else figures[f"mean_{best}"]
    assert row[5] == f"{best.replace('_', ' ')} ({100 * value:.1f})"
    assert row[11] == row[12] == "–"


@pytest.fixture
def four(make_run):
    """Two runs in each form, of the models x and y."""
    styles = ("instructions", "instructions", "lettered_options", "lettered_options")
    runs = [make_run(f"r{n}", {"rte": 1.0}, style=style, seed=n) for n, style in enumerate(styles)]
    for run, weights in zip(runs, "xyyx", strict=True):
        run.results.update(weights=weights, checkpoint=f"{run.name} step 9")
    return runs


def in_groups(four):
    return groups.grouped(four, {"text": ["r0", "r1"], "letters": ["r2", "r3"]})


def test_groups_of_the_same_models_are_pairs(four):
    assert [(text.name, letters.name) for text, letters in forms.pairs(in_groups(four))] == [("text", "letters")]


@pytest.mark.parametrize("change", [{"weights": "z"}, {"settings": {"style": "lettered_options", "seed": 3}}])
def test_groups_of_other_models_or_settings_are_no_pairs(four, change):
    """All of them had "2 checkpoints" in place of weights, and dev chose between four models."""
    four[3].results.update(change)
    assert forms.pairs(in_groups(four)) == []
    assert forms.forms_table(in_groups(four)).rows == []


def test_a_group_and_one_of_its_models_are_no_pair(four):
    assert forms.pairs([*in_groups(four)[:1], *four[2:]]) == []


def test_other_dev_examples_choose_no_form(both):
    text, letters = with_dev(both[0], "rte", [0.2]), with_dev(both[1], "rte", [0.8])
    for run, digest in ((text, "d1"), (letters, "d2")):
        run.results["datasets"]["rte"]["data"] = {"dev": {"digest": digest}}
        run.__dict__.pop("datasets", None)
    found = {form.dataset: form.better for form in forms.forms(text, letters)}
    assert found["rte"] is None and found["snli"] is not None

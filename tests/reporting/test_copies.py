"""One model that was asked the same twice has no spread over runs, whatever its results say of it."""

import json
import shutil

import pytest

from flan_jax import reporting
from flan_jax.errors import FlanError
from flan_jax.reporting import copies


@pytest.fixture
def run(make_run):
    return make_run("a", {"rte": 0.5, "snli": 0.5}, count=60)


def copied(run, name, change=lambda results: None):
    """A copy of a run in a folder of its own, loaded."""
    folder = run.output_dir.with_name(name)
    shutil.copytree(run.output_dir, folder)
    results = json.loads((folder / "results.json").read_text())
    change(results)
    (folder / "results.json").write_text(json.dumps(results))
    return reporting.load_run(name, folder)


def without(*names):
    def change(results):
        for name in names:
            del results["datasets"][name]

    return change


@pytest.mark.parametrize("change", [without(), without("snli"), lambda r: r.update(made="2026-11-30", weights="w")])
def test_results_that_do_not_say_their_weights_are_compared_by_scores(run, change):
    """An exact copy had 71.7 ± 0.0."""
    other = copied(run, "b", change)
    with pytest.raises(FlanError, match="a and b, which are the same model, asked the same"):
        reporting.grouped([run, other], {"g": ["a", "b"]})


@pytest.mark.parametrize(("off", "is_one"), [(1e-7, True), (1e-3, False)])
def test_scores_are_compared_up_to_rounding(run, rewrite, off, is_one):
    other = copied(run, "b")
    for path in (other.output_dir / "predictions").rglob("*.jsonl"):
        rewrite(path, lambda i, p: p | {"loglikelihood": [v * (1 + off) for v in p["loglikelihood"]]})
    assert copies.are_one(run, other) == is_one


def test_other_words_and_other_records_are_no_copies(run, rewrite):
    other = copied(run, "b")
    for path in (other.output_dir / "predictions").rglob("*.jsonl"):
        rewrite(path, lambda i, p: p | {"prompt": "So? " + p["prompt"]})
    assert not copies.are_one(run, other)
    third = copied(run, "c")
    for path in (third.output_dir / "predictions").rglob("*.jsonl"):
        rewrite(path, lambda i, p: p | {"hash": f"{i + 99:016x}"})
    assert not copies.are_one(run, third)


def test_where_some_prompts_are_alike_by_chance_it_is_no_copy(run, rewrite):
    """Of a few exemplars two seeds may draw the same one for some examples."""
    other = copied(run, "b")
    for path in (other.output_dir / "predictions").rglob("*.jsonl"):
        rewrite(path, lambda i, p: p | ({"prompt": "Another exemplar. " + p["prompt"]} if i % 5 else {}))
    assert not copies.are_one(run, other)


def test_weights_decide_where_both_say_them(run):
    """Predictions are not read then; equal ones of other weights would have been edited."""
    named = [copied(run, name, lambda r, name=name: r.update(weights=name)) for name in "bc"]
    assert not copies.are_one(*named)
    assert copies.are_one(named[0], copied(run, "d", lambda r: r.update(weights="b")))


def test_without_predictions_equal_figures_show_nothing(run):
    other = copied(run, "b")
    shutil.rmtree(other.output_dir / "predictions")
    assert not copies.are_one(run, other)


def test_a_log_and_a_run_of_ours_are_two(run):
    log = reporting.Run("log", {**run.results, "harness": "lm-evaluation-harness 0.4.9"}, run.output_dir)
    assert not copies.are_one(run, log)

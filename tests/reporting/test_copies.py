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
    assert copies.same_on(run, other) == (["rte", "snli"] if is_one else [])


def test_other_words_and_other_records_are_no_copies(run, rewrite):
    other = copied(run, "b")
    for path in (other.output_dir / "predictions").rglob("*.jsonl"):
        rewrite(path, lambda i, p: p | {"prompt": "So? " + p["prompt"]})
    assert not copies.same_on(run, other)
    third = copied(run, "c")
    for path in (third.output_dir / "predictions").rglob("*.jsonl"):
        rewrite(path, lambda i, p: p | {"hash": f"{i + 99:016x}"})
    assert not copies.same_on(run, third)


def test_where_some_prompts_are_alike_by_chance_it_is_no_copy(run, rewrite):
    """Of a few exemplars two seeds may draw the same one for some examples."""
    other = copied(run, "b")
    for path in (other.output_dir / "predictions").rglob("*.jsonl"):
        rewrite(path, lambda i, p: p | ({"prompt": "Another exemplar. " + p["prompt"]} if i % 5 else {}))
    assert not copies.same_on(run, other)


def test_weights_decide_where_both_say_them_and_scores_do_not_contradict(run, rewrite):
    """A copy whose weights were edited had 25.0 ± 0.0: other weights never give the same scores to the last digit."""
    first = copied(run, "b", lambda r: r.update(weights="b"))
    edited = copied(run, "c", lambda r: r.update(weights="c"))
    assert copies.same_on(first, edited) == ["rte", "snli"]
    for path in (edited.output_dir / "predictions").rglob("*.jsonl"):
        rewrite(path, lambda i, p: p | {"loglikelihood": [v * (1 + 1e-7) for v in p["loglikelihood"]]})
    assert not copies.same_on(first, edited)
    assert copies.same_on(first, copied(run, "d", lambda r: r.update(weights="b")))


def without_predictions(run, name, change=lambda results: None):
    other = copied(run, name, change)
    shutil.rmtree(other.output_dir / "predictions")
    return other


def test_without_predictions_equal_figures_show_nothing(run):
    assert not copies.same_on(run, without_predictions(run, "b", lambda r: r.update(made="yesterday")))


@pytest.mark.parametrize("known", [{}, {"model_digest": "m"}, {"made": "2026-12-01"}, {"keys": True}])
def test_without_predictions_one_checkpoint_is_a_copy(run, known):
    """Two results that were the same byte for byte had 25.0 ± 0.0 of 2 runs."""

    def change(results):
        results.update({name: value for name, value in known.items() if name != "keys"})
        results["cost"] = "1" if known else ""
        for t in (t for d in results["datasets"].values() for t in d["templates"] if "keys" in known):
            t["key"] = f"k{t['template']}"

    first = without_predictions(run, "b", change)
    other = without_predictions(run, "c", lambda r: (change(r), known and r.update(cost="2")))
    assert copies.same_on(first, other) == ["rte", "snli"]
    if known and "keys" not in known:
        later = without_predictions(run, "d", lambda r: (change(r), r.update(checkpoint="gemma step 1", cost="2")))
        assert not copies.same_on(first, later)


def test_keys_of_templates_count_more_than_weights(run):
    def change(results):
        for t in (t for d in results["datasets"].values() for t in d["templates"]):
            t["key"] = f"k{t['template']}"

    first = without_predictions(run, "b", lambda r: (change(r), r.update(weights="b")))
    assert copies.same_on(first, without_predictions(run, "c", lambda r: (change(r), r.update(weights="c"))))


def test_a_log_and_a_run_of_ours_are_two(run):
    log = reporting.Run("log", {**run.results, "harness": "lm-evaluation-harness 0.4.9"}, run.output_dir)
    assert not copies.same_on(run, log)


def test_a_copy_is_named_with_its_folder_and_a_remedy(run):
    other = copied(run, "b")
    with pytest.raises(FlanError) as caught:
        reporting.grouped([run, other], {"g": ["a", "b"]})
    (line,) = str(caught.value).splitlines()
    assert f"({run.output_dir} and {other.output_dir})" in line and line.endswith("so leave one of them out.")


# ------------------------------------------------------------------------------------- seeds that draw nothing


def _seeds(make_run, style, shots=None):
    """Runs of one model by two seeds: for rte a seed draws something, for cb nothing."""
    made = []
    for seed in range(2):
        run = make_run(f"s{seed}", {"rte": 0.5}, style=style, count=60, seed=seed, prompt=f"Drawn {seed}.")
        same = make_run(f"same{seed}", {"cb": 0.5}, style=style, count=60, seed=9)
        shutil.copytree(same.output_dir / "predictions" / "cb", run.output_dir / "predictions" / "cb")
        run.results["datasets"]["cb"] = same.results["datasets"]["cb"]
        run.results["settings"]["seed"], run.results["weights"] = seed, "w"
        if shots is not None:
            run.results["datasets"]["cb"]["shots"] = {"wanted": 5, "mean": shots, "without": 0, "of": 600}
        run.__dict__.pop("datasets", None)
        made.append(run)
    return made


@pytest.mark.parametrize(("style", "shots"), [("5_shots", 0.0), ("5_shots", None), ("shuffled_options", None)])
def test_a_dataset_for_which_seeds_draw_nothing_has_no_spread(make_run, style, shots):
    """No exemplar fitted, and there was 65.2 ± 0.0 of 3 runs."""
    runs = _seeds(make_run, style, shots)
    assert copies.same_on(*runs) == ["cb"]
    group = reporting.groups.as_one("g", runs)
    assert list(group.datasets) == ["rte"]
    reason = "its runs s0 and s1 are the same model there, asked the same"
    assert {"dataset": "cb", "reason": reason} in group.results["skipped"]
    assert reporting.have_spread(runs)
    for one in runs:
        del one.results["datasets"]["rte"]
        one.__dict__.pop("datasets", None)
    assert not reporting.have_spread(runs)


def test_generated_text_has_no_options_to_shuffle(make_run, add_generation):
    """Without prompts of many records too, results say so."""
    runs = [make_run(f"s{n}", {"rte": 0.5}, style="shuffled_options", prompt=f"Drawn {n}.", seed=n) for n in range(2)]
    for n, run in enumerate(runs):
        add_generation(run, "squad_v1", "em", [[1.0, 0.0] * 2 + [1.0]] * 2)
        run.results["settings"]["seed"], run.results["weights"] = n, "w"
    assert copies.same_on(*runs) == ["squad_v1"]


def test_a_few_draws_may_be_alike_by_chance(make_run):
    runs = [make_run(f"s{n}", {"rte": 0.5}, style="shuffled_options", count=4, seed=1) for n in range(2)]
    for n, run in enumerate(runs):
        run.results["settings"]["seed"], run.results["weights"] = n, "w"
    assert not copies.same_on(*runs)


def test_options_in_another_order_are_the_same_where_the_prompt_does_not_show_it(make_run, rewrite):
    runs = [make_run(name, {"rte": 0.5}, style="shuffled_options", count=60, seed=1) for name in "ab"]
    backwards = ("options", "loglikelihood", "tokens", "bytes", "characters")
    for path in (runs[1].output_dir / "predictions").rglob("*.jsonl"):
        rewrite(path, lambda i, p: p | {k: p[k][::-1] for k in backwards} | {"answer": 1 - p["answer"]})
    assert copies.same_on(*runs) == ["rte"]  # by their scores
    for n, run in enumerate(runs):
        run.results["settings"]["seed"], run.results["weights"] = n, "w"
    assert copies.same_on(*runs) == ["rte"]  # by what was asked


# ------------------------------------------------------------------------------- a checkpoint for each cluster


def _of_clusters(make_run, name, seeds, weights):
    """A run with a checkpoint for rte and one for sst2, whose predictions are of seeds."""
    run = make_run(name, {"rte": 0.5}, count=60, seed=seeds[0])
    other = make_run(f"{name}2", {"sst2": 0.5}, count=60, seed=seeds[1])
    shutil.copytree(other.output_dir / "predictions" / "sst2", run.output_dir / "predictions" / "sst2")
    run.results["datasets"].update(other.results["datasets"])
    run.results["checkpoints"] = {"rte": "nli step 1", "sst2": "sentiment step 1"}
    run.results["weights"] = weights
    run.__dict__.pop("datasets", None)
    return run


_BY_DATASET = {"rte": "x", "sst2": "y"}


@pytest.mark.parametrize(
    ("seeds", "weights", "same"),
    [
        ((1, 2), [_BY_DATASET, dict(reversed(_BY_DATASET.items()))], ["rte", "sst2"]),
        ((1, 3), [_BY_DATASET, {"rte": "x", "sst2": "z"}], ["rte"]),
        ((3, 4), [_BY_DATASET, {"rte": "v", "sst2": "w"}], []),  # weights decide
        # Results of earlier versions list the weights of all clusters, and predictions say which is of what.
        ((1, 2), [["x", "y"], ["y", "x"]], ["rte", "sst2"]),
        ((1, 3), [["x", "y"], ["x", "z"]], ["rte"]),
        ((1, 3), [["x", "y"], _BY_DATASET | {"sst2": "z"}], ["rte"]),
        ((3, 4), [["x", "y"], ["v", "w"]], []),
    ],
)
def test_checkpoints_of_clusters_are_compared_one_by_one(make_run, seeds, weights, same):
    """The same models in another order had 63.1 ± 0.0, and so had rte where one of two was shared."""
    runs = [
        _of_clusters(make_run, name, of, said) for name, of, said in zip("ab", ((1, 2), seeds), weights, strict=True)
    ]
    assert copies.same_on(*runs) == same
    if 0 < len(same) < 2:
        assert list(reporting.groups.as_one("g", runs).datasets) == ["sst2"]


def test_lists_of_the_same_weights_are_one_without_predictions(make_run):
    runs = [
        _of_clusters(make_run, name, (1, 2), said) for name, said in zip("ab", (["x", "y"], ["y", "x"]), strict=True)
    ]
    for run in runs:
        shutil.rmtree(run.output_dir / "predictions")
    assert copies.same_on(*runs) == ["rte", "sst2"]

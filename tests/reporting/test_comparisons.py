import json

import numpy as np
import pytest
from scipy import stats

from flan_jax import reporting
from flan_jax.reporting import comparisons, details, runs, statistics
from flan_jax.reporting.notes import notes


def test_figures_follow_from_the_predictions(make_run):
    both = [make_run("a", {"rte": 0.4}, count=80), make_run("bc", {"rte": 1.2}, count=80)]
    (comparison,) = reporting.gather(both).comparisons
    found = comparison.datasets["rte"]
    values_E = []
    for run in both:
        rows = runs.predictions(run, "rte")
        values_E.append(np.mean([[np.argmax(p["loglikelihood"]) == p["answer"] for p in r] for r in rows.values()], 0))
    differences = values_E[1] - values_E[0]
    assert found.interval.value == pytest.approx(differences.mean())
    assert found.examples == 80 and found.means == pytest.approx(tuple(v.mean() for v in values_E))
    assert found.interval.stderr == pytest.approx(differences.std(ddof=1) / np.sqrt(80), rel=0.06)
    theirs = stats.ttest_rel(values_E[1], values_E[0]).pvalue
    assert found.p == pytest.approx(theirs, abs=0.02) and found.p < 0.05
    assert found.corrected == found.p and found.verdict == "higher"  # the only test: the cluster has one dataset
    assert comparison.clusters == {}


def test_the_difference_of_a_cluster_counts_every_variant(make_run):
    skills = {"anli_r1": 0.1, "anli_r2": 0.5, "rte": 1.0}
    both = [make_run("a", skills), make_run("bc", {n: s + 1 for n, s in skills.items()})]
    (comparison,) = reporting.gather(both).comparisons
    parts = [comparison.datasets[n] for n in skills]
    cluster = comparison.clusters["nli"]
    assert cluster.interval.value == pytest.approx(np.mean([p.interval.value for p in parts]))
    a, b = (run.results["clusters"]["nli"]["mean"] for run in both)
    assert cluster.interval.value == pytest.approx(b - a)
    # Examples of different datasets are resampled by themselves: variances add up.
    assert cluster.interval.stderr == pytest.approx(np.sqrt(sum(p.interval.stderr**2 for p in parts)) / 3, rel=0.1)


def test_p_values_are_corrected_over_the_whole_report(make_run):
    names = ("snli", "rte", "cb", "copa")
    skills = dict(zip(names, (0.2, 0.3, 0.4, 0.5), strict=True))
    three = [
        make_run(n, {d: s + more for d, s in skills.items()}, count=60, seed=i)
        for i, (n, more) in enumerate((("a", 0.0), ("b", 0.15), ("c", 0.4)))
    ]
    found = reporting.gather(three).comparisons
    listed = [d for c in found for d in (*c.datasets.values(), *c.clusters.values())]
    assert comparisons.tests(found) == len(listed) == 2 * (len(names) + 1)  # nli has three of them, sentiment one
    expected = statistics.holm(dict(enumerate(d.p for d in listed)))
    assert [d.corrected for d in listed] == [expected[i] for i in range(len(listed))]
    assert any(d.p < 0.05 <= d.corrected and d.verdict == "" for d in listed)
    assert f"all {len(listed)} tests" in reporting.markdown(three, reporting.gather(three))


def test_a_single_example_has_no_interval(make_run, tmp_path):
    both = [make_run(name, {"rte": 0.3, "cola": 0.3, "anli_r1": 0.3}, count=1, seed=i) for i, name in enumerate("ab")]
    evidence = reporting.gather(both)
    found = reporting.to_dict(both, evidence)
    for name in ("rte", "cola"):
        of_run = found["values"]["a"][name]
        assert of_run["over_examples"] == of_run["over_templates"] == {"interval": None, "stderr": None}
        compared = found["comparisons"][0]["datasets"][name]
        assert compared["interval"] is None and compared["verdict"] == "n < 50"
    assert found["comparisons"][0]["clusters"]["nli"]["interval"] is None
    assert " to " not in details.comparison_table(evidence.comparisons[0], runs.common(both)).markdown()
    reporting.write(both, tmp_path / "out")  # plots too


def test_an_interval_without_width_is_explained(make_run):
    sure, other = make_run("sure", {"rte": 50.0}), make_run("other", {"rte": 0.0})
    assert not [note for note in notes([other], reporting.gather([other])) if "no width" in note]
    (note,) = [note for note in notes([sure, other], reporting.gather([sure, other])) if "no width" in note]
    assert "sure: rte" in note and "other" not in note


def test_runs_over_other_examples_are_named(make_run):
    both = [make_run("a", {"rte": 1.0, "cb": 1.0}), make_run("b", {"rte": 1.0}, count=60)]
    both[1].results["datasets"]["cb"] = both[0].results["datasets"]["cb"]
    (note,) = [note for note in notes(both, reporting.gather(both)) if "other examples" in note]
    assert "rte (a 40, b 60)" in note and "cb" not in note


@pytest.mark.parametrize(("count", "verdict"), [(49, "n < 50"), (50, "higher")])
def test_there_is_no_verdict_below_fifty_pairs(make_run, count, verdict):
    both = [make_run("a", {"rte": -2.0}, count=count), make_run("bc", {"rte": 3.0}, count=count)]
    (comparison,) = reporting.gather(both).comparisons
    found = comparison.datasets["rte"]
    assert found.verdict == verdict and (found.p is None) == (count < 50)
    row = details.comparison_table(comparison, runs.common(both)).rows[0]
    assert row[0] == "rte" and row[2] == str(count) and row[-1] == verdict
    assert (row[-3] == "–") == (count < 50)


def test_equal_runs_do_not_differ(make_run):
    both = [make_run(n, {"rte": 1.0, "snli": 0.1}, count=60, seed=1) for n in ("a", "b")]
    (comparison,) = reporting.gather(both).comparisons
    for found in (*comparison.datasets.values(), *comparison.clusters.values()):
        assert found.interval.value == 0 and found.interval.bounds == (0, 0) and found.p == 1 and found.verdict == ""


def test_one_template_has_no_spread_over_templates(make_run):
    both = [make_run(n, {"rte": 1.0}, count=60, seed=i, templates=[2]) for i, n in enumerate("ab")]
    found = reporting.gather(both)
    assert found.comparisons[0].datasets["rte"].over_templates is None
    assert found.intervals["a"]["rte"][1] is None
    (row,) = details.spread_table(both, found).rows
    assert row[4] == "–"


def test_runs_of_different_templates(make_run):
    one = make_run("a", {"rte": 0.2}, count=60, style="gpt3", templates=[0])
    many = make_run("bc", {"rte": 1.0}, count=60)
    found = reporting.gather([one, many]).comparisons[0].datasets["rte"]
    assert found.over_templates is not None
    assert found.over_templates.stderr > 0
    text = reporting.markdown([one, many], reporting.gather([one, many]))
    assert "Wording 0 of rte" in text


def test_one_example_is_enough_to_be_shown_and_not_to_judge(make_run):
    both = [make_run("a", {"rte": 1.0}, count=1), make_run("bc", {"rte": 1.0}, count=1)]
    found = reporting.gather(both)
    assert found.comparisons[0].datasets["rte"].verdict == "n < 50"
    reporting.to_dict(both, found)
    assert "| rte | accuracy |" in reporting.markdown(both, found)


def test_other_numbers_of_examples_pair_on_what_is_shared(make_run):
    both = [make_run("a", {"rte": 1.0}, count=70), make_run("bc", {"rte": 1.0}, count=55)]
    (comparison,) = reporting.gather(both).comparisons
    assert comparison.datasets["rte"].examples == 55


def test_other_metrics_are_not_compared(make_run, add_generation):
    both = [make_run("a", {"rte": 0.5}), make_run("bc", {"rte": 0.5})]
    for run, version in zip(both, (None, "flan_jax 2"), strict=True):
        add_generation(run, "squad_v1", "f1", np.full((2, 5), 0.5))
        if version:
            run.results["datasets"]["squad_v1"]["headline_metric"] = {"name": "squad", "key": "f1", "version": version}
    found = reporting.gather(both)
    assert set(found.comparisons[0].datasets) == {"rte"}
    said = "measured by f1 (version not recorded) in a and f1 (flan_jax 2) in bc"
    assert found.comparisons[0].apart == {"squad_v1": said}
    text = reporting.markdown(both, found)
    assert said in text and "squad_v1 in no mean: the runs measure by different metrics" in text


def test_other_words_and_other_templates_are_told(make_run, tmp_path):
    """A difference is then of model and wording together, whatever its verdict."""
    first, same, reworded = (make_run(name, {"rte": 0.5}, count=60) for name in ("a", "b", "c"))
    fewer = make_run("d", {"rte": 0.5}, count=60, templates=(0, 1))
    template = reworded.results["datasets"]["rte"]["templates"][0]
    template["input"] = "Is it so? {premise} {hypothesis}"
    found = {}
    for other in (same, reworded, fewer):
        both, shown = [first, other], []
        reporting.write(both, tmp_path / "out", show=shown.append)
        found[other.name] = json.loads((tmp_path / "out" / "report.json").read_text())["comparisons"][0]["reworded"]
        line = f"{other.name} beside a: rte asked in other words, or with other templates. "
        where = [any(line in str(part) for part in shown), line in (tmp_path / "out" / "report.md").read_text()]
        assert where == [bool(found[other.name])] * 2
        assert f"\n{other.name} beside a" in shown  # and the table with its verdict, in the terminal too
    assert found == {"b": [], "c": ["rte"], "d": ["rte"]}


def test_predictions_that_were_changed_are_told_in_the_terminal(make_run, tmp_path):
    both, shown = [make_run("a", {"rte": 0.5}), make_run("b", {"rte": 0.5})], []
    path = both[1].output_dir / "predictions" / "rte" / "test_t0.jsonl"
    path.write_text(path.read_text()[:-40])
    reporting.write(both, tmp_path / "out", show=shown.append)
    said = (
        "b has no values of single examples (test_t0.jsonl cannot be read: it was cut off or changed) for rte: left out"
    )
    assert any(said in str(part) for part in shown)


def test_runs_without_a_dataset_in_common_say_so(make_run, tmp_path):
    both, shown = [make_run("a", {"rte": 0.5}), make_run("b", {"cola": 0.5})], []
    reporting.write(both, tmp_path / "out", show=shown.append)
    assert "b beside a: nothing is compared, as they have no dataset in common." in shown


def test_json_has_intervals_and_tests(make_run, tmp_path):
    both = [make_run("a", {"rte": 0.5, "snli": 0.1}, count=60), make_run("bc", {"rte": 1.5, "snli": 0.1}, count=60)]
    path = reporting.write(both, tmp_path / "out")["json"]
    found = json.loads(path.read_text())
    (comparison,) = found["comparisons"]
    assert found["tests"] == 3 and set(comparison["clusters"]) == {"nli"}
    rte = comparison["datasets"]["rte"]
    assert rte["metric"] == "accuracy" and rte["p"] <= rte["p_holm"] <= 1 and len(rte["interval"]) == 2
    assert rte["over_templates"]["stderr"] > 0 and rte["examples"] == 60

import io
import json
import shutil

import numpy as np
import pytest

from flan_jax import catalog, reporting
from flan_jax.evaluation import figures
from flan_jax.json_lines import bound_lines, read_lines
from flan_jax.reporting import pairing, runs, tables, values
from flan_jax.reporting.values import UnusableError


def _values(run, name):
    return values.values_of(runs.predictions(run, name), run.figures(name), run.style.name)


def _files(run, name):
    return sorted((run.output_dir / "predictions" / name).glob("*.jsonl"))


# ---------------------------------------------------------------------------------------------------------- answers


def test_a_constant_answer_shows_at_a_glance(make_run, rewrite):
    run = make_run("tuned", {"rte": 1.0}, count=60)
    for path in _files(run, "rte"):
        rewrite(path, lambda i, line: line | {"loglikelihood": [-1.0, -2.0]})
    run.results["datasets"]["rte"] |= {"mean": 0.5, "std": 0.0}
    for t in run.results["datasets"]["rte"]["templates"]:
        t |= {"sum": 0.5, "value": 0.5, "metrics": {"accuracy": 50.0}}
    run.results["datasets"]["rte"]["metrics"] = {"accuracy": 50.0}  # of a version that did not count answers
    found = reporting.gather([run])
    value = found.values["tuned"]["rte"]
    assert value.share == 1.0 and value.most == "yes" and value.constant == len(value.answers)
    assert value.macro_f1 == pytest.approx(1 / 3)  # F1 of "yes" is 2/3, of "no" 0
    text = reporting.markdown([run], found)
    assert f"| 100.0 yes ({len(value.answers)} of {len(value.answers)} constant) |" in text
    assert 'class="marked"' in reporting.page([run], found)


def test_results_that_have_the_shares_are_believed(make_run):
    run = make_run("tuned", {"rte": 1.0})
    run.results["datasets"]["rte"]["metrics"] |= {"macro_f1": 12.5, "top_answer": 97.0}
    assert tables.answers(run, "rte", None) == (0.125, 0.97)
    assert tables.most_frequent(run, "rte", None) == "97.0 (nearly constant)"
    assert tables.answers(run, "rte", reporting.gather([run])) == (0.125, 0.97)


def test_options_of_their_own_are_counted_by_place(make_run, rewrite):
    run = make_run("tuned", {"copa": 1.0}, count=12)
    for path in _files(run, "copa"):
        rewrite(path, lambda i, line: line | {"options": [f"a{i}", f"b{i}", f"c{i}"], "loglikelihood": [-3, -1, -2]})
    run.results["datasets"]["copa"]["metrics"] = {}
    rows = runs.predictions(run, "copa")
    for t in run.figures("copa")["templates"]:
        t |= {"sum": 1 / 3, "value": 1 / 3, "metrics": {}}
    found = values.values_of(rows, run.figures("copa"), "instructions")
    assert found.most == "option 2" and found.macro_f1 is None and found.constant == len(rows)


def test_texts_are_counted_too(make_run, add_generation):
    run = make_run("tuned", {"rte": 1.0})
    add_generation(run, "squad_v1", "f1", np.full((2, 5), 0.25))
    assert _values(run, "squad_v1").share == 1.0


def test_any_reference_is_right():
    line = {"id": "a", "hash": "h", "options": ["x", "y", "z"], "answer": 0, "references": ["x", "z"]}
    line |= {"loglikelihood": [-3.0, -2.0, -1.0], "template": 0}
    found = values.values_of({0: [line]}, {"templates": [{"template": 0, "sum": 1.0}]}, "instructions")
    assert found.values_ExT.tolist() == [[1.0]]


# -------------------------------------------------------------------------------------------------------- templates


def test_templates_of_other_examples_give_no_values(make_run):
    """A mean over 39 of 40 examples was shown as one over all."""
    run = make_run("tuned", {"rte": 1.0})
    rows = runs.predictions(run, "rte")
    first, *rest = rows
    whole = values.values_of(rows, run.figures("rte"), "instructions")
    for number in rest:  # another order is no other example
        rows[number] = rows[number][::-1]
    found = values.values_of(rows, run.figures("rte"), "instructions")
    np.testing.assert_array_equal(found.values_ExT, whole.values_ExT)
    del run.figures("rte")["metrics"]
    listed = [t for t in run.figures("rte")["templates"] if t["template"] == first]
    rows[first] = rows[first][:3] + rows[first][4:]
    listed[0]["sum"] = listed[0]["value"] = float(np.mean(np.delete(whole.values_ExT[:, 0], 3)))
    with pytest.raises(UnusableError, match="its templates have 39 of 40 examples in common"):
        values.values_of(rows, run.figures("rte"), "instructions")


def test_predictions_of_another_job_are_not_believed(make_run, rewrite):
    run = make_run("tuned", {"rte": 1.0})
    path = _files(run, "rte")[0]
    rewrite(path, lambda i, line: line | {"loglikelihood": line["loglikelihood"][::-1]})
    with pytest.raises(UnusableError, match="its results say .* so they are of different jobs or versions"):
        _values(run, "rte")
    found = reporting.gather([run])
    assert found.values["tuned"] == {} and "different jobs" in found.unusable["tuned"]["rte"]
    assert "different jobs or versions" in reporting.markdown([run], found)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("top_answer", "for top_answer and its results say 99.00"),
        ("macro_f1", "for macro_f1 and its results say 99.00"),
        ("majority", "give 50.00 for majority and its results say 95.00"),
        ("random", "give 50.00 for random and its results say 45.00"),
    ],
)
def test_figures_that_predictions_contradict_are_named(make_run, key, said):
    """A model whose answers vary was shown as nearly constant, and labels of two equal halves as 95 % one."""
    run = make_run("tuned", {"rte": 0.0})
    figures = run.figures("rte")
    assert reporting.gather([run]).unusable == {"tuned": {}}
    if key in figures:
        figures[key] = {"majority": 0.95, "random": 0.45}[key]
    else:
        for t in figures["templates"]:
            t["metrics"][key] = 99.0
    found = reporting.gather([run])
    assert said in found.unusable["tuned"]["rte"] and said in reporting.markdown([run], found)


def test_shares_that_an_earlier_version_did_not_keep_contradict_nothing(make_run):
    run = make_run("old", {"rte": 0.0})
    for t in run.figures("rte")["templates"]:
        del t["metrics"]["top_answer"]
    run.figures("rte")["majority"] = 0.6
    assert reporting.gather([run]).unusable == {"old": {}}


def test_predictions_of_another_job_with_the_same_figures_are_not_believed(make_run):
    run, other = make_run("tuned", {"rte": 9.0}), make_run("other", {"rte": 9.0}, seed=1)
    assert run.figures("rte")["mean"] == other.figures("rte")["mean"] == 1  # so that figures tell nothing
    for t in run.results["datasets"]["rte"]["templates"]:
        t["key"] = "k"  # that of the fixture's files
    for one, key in [*((path, "k") for path in _files(run, "rte")), (_files(other, "rte")[2], "l")]:
        _, *lines = read_lines(one)
        one.write_text(bound_lines({"key": key}, lines, "lines"))
    assert _values(run, "rte").values_ExT.all()
    shutil.copy(_files(other, "rte")[2], _files(run, "rte")[2])
    with pytest.raises(UnusableError, match="test_t2.jsonl is of another job or template than the results"):
        runs.predictions(run, "rte")


# ---------------------------------------------------------------------------------------------------------- pairing


def test_runs_pair_by_content_and_not_by_id(make_run, rewrite):
    a, b = make_run("a", {"rte": 1.0}), make_run("bc", {"rte": 1.0})

    def other(i, line):  # ids are moved on by one; the last record is another one
        return line | {"id": f"test-{(i + 1) % 40}", "hash": "f" * 16 if i == 39 else line["hash"]}

    for path in _files(b, "rte"):
        rewrite(path, other)
    first, second = _values(a, "rte"), _values(b, "rte")
    places = pairing.pair(first, second)
    assert [list(p) for p in places] == [list(range(39))] * 2


def test_equal_ids_of_other_data_do_not_pair(make_run, rewrite):
    a, b = make_run("a", {"rte": 1.0}), make_run("bc", {"rte": 1.0})
    for path in _files(b, "rte"):
        rewrite(path, lambda i, line: line | {"hash": f"{i + 1000:016x}"})
    with pytest.raises(UnusableError, match="no record is in both"):
        pairing.pair(_values(a, "rte"), _values(b, "rte"))
    (comparison,) = reporting.gather([a, b]).comparisons
    assert comparison.datasets == comparison.clusters == {} and comparison.apart == {"rte": "no record is in both"}


def test_predictions_without_digests_are_shown_and_not_compared(make_run, rewrite):
    a, b = make_run("a", {"rte": 1.0}), make_run("bc", {"rte": 1.0})
    for path in _files(b, "rte"):
        rewrite(path, lambda i, line: {k: v for k, v in line.items() if k != "hash"})
    found = reporting.gather([a, b])
    assert "rte" in found.intervals["bc"] and found.comparisons[0].datasets == {}
    assert "do not say what their records are" in reporting.markdown([a, b], found)


def test_records_that_stand_twice_pair_one_by_one(make_run, rewrite):
    a, b = make_run("a", {"rte": 1.0}), make_run("bc", {"rte": 1.0})
    for run in (a, b):
        for path in _files(run, "rte"):
            rewrite(path, lambda i, line: line | {"hash": f"{i // 2:016x}", "id": "same"})
    first = _values(a, "rte")
    assert len(first.ids) == 40
    places = pairing.pair(first, _values(b, "rte"))
    assert len(places[0]) == 40 and len(set(places[1].tolist())) == 40


def test_templates_are_the_same_by_their_words(make_run):
    a, b = make_run("a", {"rte": 1.0}), make_run("bc", {"rte": 1.0})
    assert pairing.same_templates(_values(a, "rte"), _values(b, "rte"))
    b.results["datasets"]["rte"]["templates"][0]["input"] = "another wording"
    assert not pairing.same_templates(_values(a, "rte"), _values(reporting.Run("bc", b.results, b.output_dir), "rte"))
    old, other = (make_run(n, {"rte": 1.0}, words=False, style=s) for n, s in (("o", "instructions"), ("p", "5_shots")))
    assert pairing.same_templates(_values(old, "rte"), _values(old, "rte"))
    assert not pairing.same_templates(_values(old, "rte"), _values(other, "rte"))


def test_a_group_is_the_mean_of_its_runs(make_run):
    several = [_values(make_run(n, {"rte": 1.0}, seed=i), "rte") for i, n in enumerate("abc")]
    found = pairing.as_one(several)
    np.testing.assert_allclose(found.values_ExT, np.mean([v.values_ExT for v in several], axis=0))
    assert found.hashes == several[0].hashes and len(found.answers) == 3 * len(several[0].answers)
    np.testing.assert_allclose(found.calibration.counts_B.sum(), 3 * several[0].calibration.counts_B.sum())
    fewer = _values(make_run("d", {"rte": 1.0}, templates=[0, 2]), "rte")
    with pytest.raises(UnusableError, match="its runs were asked with other templates"):
        pairing.as_one([*several, fewer])
    short = _values(make_run("e", {"rte": 1.0}, count=30), "rte")
    with pytest.raises(UnusableError, match="its runs share 30 of 40 records"):
        pairing.as_one([*several, short])


# ---------------------------------------------------------------------------------------------- metrics of a whole set


def add_texts(run, name, seed, *, count=60, right=0.7, templates=2, stored=True, together=1):
    """Adds a dataset of generated texts with figures that follow from them; so many examples share a passage."""
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(20)]
    record = catalog.dataset(name)
    test = {}
    for number in record.forward_templates[:templates]:
        lines = []
        for i in range(count):
            wanted = np.random.default_rng(i).choice(words, 8).tolist()
            said = " ".join(w if rng.random() < right else str(rng.choice(words)) for w in wanted)
            line = {"id": f"{i // together}#{1 + i % together}", "hash": f"{i:016x}", "dataset": name, "prompt": "?"}
            line |= {"split": "test", "template": number, "cut_tokens": 0, "finish": "stop"}
            line |= {"passage": f"story {i // together}"} if together > 1 else {}
            line |= {"prediction": said, "references": [" ".join(wanted)]}
            score = figures.example_score(record, line["references"], said)
            statistics = figures.example_statistics(record, line["references"], said)
            line |= {"score": score} if score is not None else {"statistics": statistics} if stored else {}
            lines.append(line)
        test[number] = lines
        place = run.output_dir / "predictions" / name
        place.mkdir(parents=True, exist_ok=True)
        text = "\n".join(json.dumps(line) for line in ({"key": "k"}, *lines))
        (place / f"test_t{number}.jsonl").write_text(text + "\n")
    more = {"cluster": record.cluster, "paper_dataset": record.paper_dataset, "status": "held out"}
    run.results["datasets"][name] = more | figures.summarize(record, test, {})
    return reporting.Run(run.name, run.results, run.output_dir)


@pytest.mark.parametrize("stored", [True, False])
def test_bleu_has_intervals_and_tests(make_run, stored):
    name = "wmt14_enfr/en-fr"
    both = [
        add_texts(make_run(run, {"rte": 1.0}), name, seed, right=right, templates=count, stored=stored)
        for run, seed, right, count in (("untuned", 1, 0.5, 1), ("tuned", 2, 0.8, 3))
    ]
    found = reporting.gather(both)
    assert not any(found.unusable.values())
    for run in both:
        value = found.values[run.name][name]
        assert value.metric == "bleu" and value.sample().value == pytest.approx(run.figures(name)["mean"])
        over_examples, over_both = found.intervals[run.name][name]
        low, high = over_examples.bounds
        assert low < run.figures(name)["mean"] < high and (over_both is None) == (run.name == "untuned")
    difference = found.comparisons[0].datasets[name]
    assert difference.metric == "bleu" and difference.verdict == "higher" and difference.p < 0.01
    assert difference.interval.value == pytest.approx(both[1].figures(name)["mean"] - both[0].figures(name)["mean"])
    text = reporting.markdown(both, found)
    assert f"| {name} | bleu | 60 |" in text and f"{name} (bleu)" in text


def test_directions_of_the_same_records_vary_together(make_run):
    """The mean of two directions whose figures go up and down together is as uncertain as one of them."""
    both = [make_run(name, {"rte": 1.0}) for name in ("untuned", "tuned")]
    for name in ("wmt14_enfr/en-fr", "wmt14_enfr/fr-en"):  # the same texts, and so the same figures
        both = [add_texts(run, name, seed, right=0.5 + 0.02 * seed) for seed, run in enumerate(both)]
    (found,) = reporting.gather(both).comparisons
    one, other = (found.datasets[f"wmt14_enfr/{direction}"] for direction in ("en-fr", "fr-en"))
    mean = found.clusters["translation"]
    assert one.interval.value == other.interval.value == mean.interval.value
    assert mean.interval.stderr == pytest.approx(one.interval.stderr, rel=1e-6)  # and not less by the root of 2
    assert mean.p == pytest.approx(one.p, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "key"), [("cola", "matthews"), ("multirc", "f1a"), ("stsb", "pearson"), ("rte", "accuracy")]
)
def test_intervals_are_of_the_headline(make_run, name, key):
    """Of these they were of accuracy, which is another number."""
    first, other = (make_run(run, {name: skill}, count=70) for run, skill in (("untuned", 0.3), ("tuned", 2.0)))
    found = reporting.gather([first, other])
    for run in (first, other):
        value, (interval, _) = found.values[run.name][name], found.intervals[run.name][name]
        assert value.metric == key and interval.value == pytest.approx(run.figures(name)["mean"])
        np.testing.assert_allclose(value.sample().values_T, [t["value"] for t in run.figures(name)["templates"]])
    difference = found.comparisons[0].datasets[name]
    assert difference.metric == key and difference.verdict == "higher"
    assert reporting.to_dict([first, other], found)["values"]["tuned"][name]["of"] == key


def test_predictions_that_lack_what_the_metric_needs_have_an_accuracy(make_run, rewrite):
    run = make_run("tuned", {"multirc": 1.0})
    for path in _files(run, "multirc"):
        rewrite(path, lambda i, line: {k: v for k, v in line.items() if k != "question_id"})
    assert _values(run, "multirc").metric == "accuracy"


def test_a_group_has_the_mean_of_its_figures_of_sets(make_run):
    name = "wmt14_enfr/en-fr"
    several = [add_texts(make_run(run, {"rte": 1.0}), name, seed) for seed, run in enumerate("abc")]
    found = pairing.as_one([_values(run, name) for run in several])
    assert found.sample().value == pytest.approx(np.mean([run.figures(name)["mean"] for run in several]))
    wording = several[2].results["datasets"][name]["templates"][0]
    wording["input"] = "another"
    with pytest.raises(UnusableError, match="its runs were asked with other templates"):
        pairing.as_one([_values(reporting.Run(run.name, run.results, run.output_dir), name) for run in several])


# ------------------------------------------------------------------------------------------- examples with a passage


def test_turns_of_a_conversation_are_drawn_together(make_run):
    both = [
        add_texts(make_run(run, {"rte": 1.0}), "coqa", seed, count=120, right=right, together=3)
        for run, seed, right in (("untuned", 1, 0.5), ("tuned", 2, 0.8))
    ]
    found = reporting.gather(both)
    value = found.values["tuned"]["coqa"]
    assert value.sample().size == 40 and len(value.ids) == 120
    difference = found.comparisons[0].datasets["coqa"]
    assert (difference.examples, difference.groups, difference.verdict) == (120, 40, "n < 50")
    text = reporting.markdown(both, found)
    assert "120 (40 passages)" in text and "Passages of examples: coqa (40 of 120)." in text
    # Without what says so, the turns of one record are known by its id.
    lines = runs.predictions(both[1], "coqa")
    bare = {n: [{k: v for k, v in p.items() if k != "passage"} for p in of] for n, of in lines.items()}
    assert values.values_of(bare, both[1].figures("coqa"), "instructions").sample().size == 40
    # The standard error is that of the bootstrap, which is wider than of turns alone.
    stderr = both[1].figures("coqa")["stderr"]
    spread = [np.std(p, ddof=1) / np.sqrt(120) for p in value.values_ExT.T]
    assert stderr == pytest.approx(np.mean(spread), rel=0.5) and stderr != pytest.approx(np.mean(spread), rel=1e-6)


def test_a_terminal_shows_names_of_runs_as_they_are():
    """Square brackets and colons in a name are no colours and pictures."""
    from rich.console import Console

    shown = Console(width=100, record=True, file=io.StringIO())
    table = tables.Table((("", 1), ("a [v2]:x:", 1)), ("dataset", "mean"), [("rte", "[/50]")])
    shown.print(table.rich())
    text = shown.export_text()
    assert "a [v2]:x:: mean" in text and "[/50]" in text

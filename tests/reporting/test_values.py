import numpy as np
import pytest

from flan_jax import reporting
from flan_jax.reporting import runs, tables, values
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
        t |= {"sum": 0.5, "value": 0.5}
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
    figures = run.figures("copa")
    for t in figures["templates"]:
        t |= {"sum": 1 / 3, "value": 1 / 3}
    found = values.values_of(rows, figures, "instructions")
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


def test_examples_that_only_some_templates_have_are_left_out(make_run):
    run = make_run("tuned", {"rte": 1.0})
    rows = runs.predictions(run, "rte")
    first, *rest = rows
    whole = values.values_of(rows, run.figures("rte"), "instructions")
    # The row at 3 was too long with the first template, and the rest are in another order.
    rows[first] = rows[first][:3] + rows[first][4:]
    for number in rest:
        rows[number] = rows[number][::-1]
    figures = run.figures("rte")
    del figures["metrics"]
    listed = [t for t in figures["templates"] if t["template"] == first]
    listed[0]["sum"] = listed[0]["value"] = float(np.mean(np.delete(whole.values_ExT[:, 0], 3)))
    found = values.values_of(rows, figures, "instructions")
    np.testing.assert_array_equal(found.values_ExT, np.delete(whole.values_ExT, 3, axis=0))
    assert "test-3" not in found.ids


def test_predictions_of_another_job_are_not_believed(make_run, rewrite):
    run = make_run("tuned", {"rte": 1.0})
    path = _files(run, "rte")[0]
    rewrite(path, lambda i, line: line | {"loglikelihood": line["loglikelihood"][::-1]})
    with pytest.raises(UnusableError, match="its results say .* so they are of different jobs or versions"):
        _values(run, "rte")
    found = reporting.gather([run])
    assert found.values["tuned"] == {} and "different jobs" in found.unusable["tuned"]["rte"]
    assert "different jobs or versions" in reporting.markdown([run], found)


# ---------------------------------------------------------------------------------------------------------- pairing


def test_runs_pair_by_content_and_not_by_id(make_run, rewrite):
    a, b = make_run("a", {"rte": 1.0}), make_run("bc", {"rte": 1.0})

    def other(i, line):  # ids are moved on by one; the last record is another one
        return line | {"id": f"test-{(i + 1) % 40}", "hash": "f" * 16 if i == 39 else line["hash"]}

    for path in _files(b, "rte"):
        rewrite(path, other)
    first, second = _values(a, "rte"), _values(b, "rte")
    places = values.pair(first, second)
    assert [list(p) for p in places] == [list(range(39))] * 2


def test_equal_ids_of_other_data_do_not_pair(make_run, rewrite):
    a, b = make_run("a", {"rte": 1.0}), make_run("bc", {"rte": 1.0})
    for path in _files(b, "rte"):
        rewrite(path, lambda i, line: line | {"hash": f"{i + 1000:016x}"})
    with pytest.raises(UnusableError, match="no record is in both"):
        values.pair(_values(a, "rte"), _values(b, "rte"))
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
    places = values.pair(first, _values(b, "rte"))
    assert len(places[0]) == 40 and len(set(places[1].tolist())) == 40


def test_templates_are_the_same_by_their_words(make_run):
    a, b = make_run("a", {"rte": 1.0}), make_run("bc", {"rte": 1.0})
    assert values.same_templates(_values(a, "rte"), _values(b, "rte"))
    b.results["datasets"]["rte"]["templates"][0]["input"] = "another wording"
    assert not values.same_templates(_values(a, "rte"), _values(reporting.Run("bc", b.results, b.output_dir), "rte"))
    old, other = (make_run(n, {"rte": 1.0}, words=False, style=s) for n, s in (("o", "instructions"), ("p", "5_shots")))
    assert values.same_templates(_values(old, "rte"), _values(old, "rte"))
    assert not values.same_templates(_values(old, "rte"), _values(other, "rte"))


def test_a_group_is_the_mean_of_its_runs(make_run):
    several = [_values(make_run(n, {"rte": 1.0}, seed=i), "rte") for i, n in enumerate("abc")]
    found = values.as_one(several)
    np.testing.assert_allclose(found.values_ExT, np.mean([v.values_ExT for v in several], axis=0))
    assert found.hashes == several[0].hashes and len(found.answers) == 3 * len(several[0].answers)
    np.testing.assert_allclose(found.calibration.counts_B.sum(), 3 * several[0].calibration.counts_B.sum())
    fewer = _values(make_run("d", {"rte": 1.0}, templates=[0, 2]), "rte")
    mixed = values.as_one([*several, fewer])
    expected = np.mean([v.values_ExT.mean(1) for v in (*several, fewer)], axis=0)
    np.testing.assert_allclose(mixed.values_ExT[:, 0], expected)

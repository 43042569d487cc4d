"""Whatever stands in results.json: a report is made, or one line says what is wrong and where."""

import contextlib
import copy
import json
import re

import pytest
from written_evaluations import write_run

from flan_jax import reporting
from flan_jax.errors import FlanError
from flan_jax.reporting import groups, kinds

FEW = [None, 0.5, "x", [], {"a": 1}]
MORE = ["gone", True, -1, 3, "", {}, [1], [[]], {"a": None}]


def _whole(results, name):
    """Results with all that an evaluation writes."""
    results |= {"weights": name, "engines": {"scorer": 1}, "model": {"dtype": "float32"}, "joint": "eos"}
    results["settings"] |= {"computation": {"dtype": "float32"}, "seed": 0, "max_input_tokens": None}
    for figures in results["datasets"].values():
        figures |= {"data": {"test": {"records": 4, "digest": "x"}}, "protocol": "p", "skipped_examples": 0}
        figures["overlap"] = {"checked": True, "reason": "", "seen": 1, "of": 4, "with": {"x": 1}, "kin": {"y": "z"}}
        figures["cost"] = {"seconds": 1.0, "tokens": 5, "units": 1, "reused": 0, "device": "1 x cpu"}
    return results


def _places(value, at=()):
    """The place of every value in JSON: of a list, of the first member."""
    yield from [at] if at else []
    for key in value if isinstance(value, dict) else range(min(len(value), 1)) if isinstance(value, list) else ():
        yield from _places(value[key], (*at, key))


def _changed(results, place, new):
    results = copy.deepcopy(results)
    at = results
    for key in place[:-1]:
        at = at[key]
    if new == "gone":
        del at[place[-1]]
    else:
        at[place[-1]] = new
    return results


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(a run, its results, another run); without predictions, which results are not checked against here."""
    folder = tmp_path_factory.mktemp("made")
    runs = [write_run(folder, name, {"rte": 0.5}, count=4, seed=n, templates=(0, 1)) for n, name in enumerate("ab")]
    for run in runs:
        path = run.output_dir / "results.json"
        path.write_text(json.dumps(_whole(json.loads(path.read_text()), run.name)))
    found = [reporting.load_run(run.name, run.output_dir) for run in runs]
    return found[0], json.loads((found[0].output_dir / "results.json").read_text()), found[1]


def _shown(made, results, tmp_path):
    """Loads changed results, and shows them beside another run, and as a group."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    run = reporting.load_run("a", tmp_path)
    shown = [[made[2], run]]
    with contextlib.suppress(FlanError):  # not all can be averaged
        shown.append([groups.as_one("g", [run, made[2]])])
    for runs in shown:
        evidence = reporting.gather(runs)
        reporting.markdown(runs, evidence)
        reporting.to_dict(runs, evidence)
        list(reporting.in_terminal(runs, evidence))


@pytest.mark.parametrize("values", [FEW, pytest.param(MORE, marks=pytest.mark.slow)], ids=["few", "more"])
def test_no_value_stops_a_report_with_another_error(made, tmp_path, values):
    """Of a template without `sum`, of `metric` null and of a status {} there were tracebacks."""
    _, results, _ = made
    places = list(_places(results))
    assert len(places) > 90
    for place in places:
        for new in values:
            try:
                _shown(made, _changed(results, place, new), tmp_path)
            except FlanError as error:
                assert "\n" not in str(error), (place, new)
            except Exception as error:
                raise AssertionError(f"{place} {new!r}: {error!r}") from error


@pytest.mark.parametrize(
    ("place", "new", "said"),
    [
        (("metric",), None, "dataset rte has no text 'metric'"),
        (("metric",), 0.5, "dataset rte has no text 'metric'"),
        (("status",), {}, "dataset rte has no text 'status'"),
        (("label",), [], "dataset rte has no text 'label'"),
        (("templates", 1, "sum"), "gone", "dataset rte has 'sum' for some of its templates, and not for others"),
        (("templates", 1, "key"), 5, "dataset rte has no text 'templates.1.key'"),
        (("data", "test", "digest"), 5, "dataset rte has no text 'data.test.digest'"),
        (("headline_metric", "version"), 1, "dataset rte has no text 'headline_metric.version'"),
        (("cost", "device"), {}, "dataset rte has no text 'cost.device'"),
    ],
)
def test_the_dataset_and_the_key_are_named(made, tmp_path, place, new, said):
    with pytest.raises(FlanError, match=re.escape(f"results.json: {said}; it was edited")):
        _shown(made, _changed(made[1], ("datasets", "rte", *place), new), tmp_path)


@pytest.mark.parametrize("key", ["weights", "engines", "model", "joint", "split"])
def test_results_are_of_a_kind_too(made, tmp_path, key):
    with pytest.raises(FlanError, match=f"results.json has (no [a-z ]+ '{key}'|figures of 5 examples)"):
        _shown(made, made[1] | {key: 5}, tmp_path)


def test_what_is_not_there_is_of_no_wrong_kind():
    """Results of earlier versions lack keys."""
    assert kinds.problem_of({}, kinds.FIGURES) == kinds.problem_of({}, kinds.RESULTS) == ""

"""In what runs were asked otherwise: a note where it matters, no mean where it would be of nothing."""

import pytest

from flan_jax import catalog, reporting
from flan_jax.evaluation.evaluator import Settings
from flan_jax.reporting import asked, groups
from flan_jax.reporting.notes import notes


@pytest.fixture
def several(make_run):
    """Three runs of models of their own, asked alike; change(run, protocol=..., computation=...)."""
    runs = [make_run(name, {"rte": 0.5, "snli": 0.5}, count=60, seed=n) for n, name in enumerate("abc")]
    for run in runs:
        changed(run, "p1", weights=run.name, max_dev_examples=7, seed=0, computation={})
    return runs


def changed(run, protocol=None, weights=None, **settings):
    run.results["settings"] |= settings
    if weights:
        run.results["weights"] = weights
    for figures in run.results["datasets"].values() if protocol else ():
        figures["protocol"] = protocol
    run.__dict__.pop("datasets", None)
    return run


def said(*runs):
    return "\n".join(notes(runs, reporting.gather(runs)))


def test_what_is_alike_is_not_said(several):
    text = said(*several) + said(*reporting.grouped(several, {"g": ["b", "c"]}))
    assert "together" not in text


@pytest.mark.parametrize("settings", [{}, {"max_dev_examples": 9}, {"seed": 3}, {"max_new_tokens": 3}])
def test_other_protocols_have_no_mean(several, settings):
    """They had one where any setting differed besides: 68.6 ± 2.2, and no word."""
    changed(several[2], "p2", **settings)
    group = groups.as_one("g", several[1:])
    assert group.datasets == {}
    assert {one["reason"] for one in group.results["skipped"]} == {"its runs were asked by the protocols p1 and p2"}
    expected = "c beside b: rte, snli asked by the protocols p1 and p2. There the difference is of model and protocol"
    assert expected in said(*several[1:])


def test_limits_and_styles_explain_another_protocol(several, make_run):
    """Of options no answer is written, and yet the limit is part of the protocol's digest."""
    for run, most in zip(several, (None, 4, 1024), strict=True):
        for name, figures in run.results["datasets"].items():
            figures["protocol"] = Settings(max_new_tokens=most).protocol_of(catalog.dataset(name)).digest
        changed(run, max_new_tokens=most)
    assert len({run.figures("rte")["protocol"] for run in several}) == 3
    assert "protocol" not in said(*several) and groups.as_one("g", several).datasets
    few = changed(make_run("few", {"rte": 0.5}, style="2_shots"), "p1")
    assert "protocols" not in said(several[0], few)
    short = changed(several[1], "p1", max_input_tokens=64)
    text = said(several[2], short)
    assert "b beside c: rte, snli asked with max_input_tokens 1024 and 64" in text and "protocols" not in text


def test_other_templates_are_not_said_to_be_another_protocol_too(several):
    other = changed(several[1], "p2")
    other.results["datasets"]["rte"]["templates"][0]["input"] = "{premise} So?"
    changed(other)
    text = said(several[0], other)
    assert (
        "b beside a: rte asked in other words" in text and "b beside a: snli asked by the protocols p1 and p2" in text
    )


@pytest.mark.parametrize(
    ("style", "words"),
    [("5_shots", "exemplars of the seeds {}"), ("shuffled_options", "options in the order of the seeds {}")],
)
def test_seeds_are_said_where_they_draw_something(make_run, style, words):
    runs = [make_run(f"f{n}", {"rte": 0.5}, style=style, seed=n, count=60, prompt=f"Draw {n}.") for n in range(3)]
    for n, run in enumerate(runs):
        changed(run, weights="w", seed=n)
    assert "asked with" not in said(runs[0], changed(make_run("same", {"rte": 0.5}, style=style, seed=5), seed=0))
    assert f"f1 beside f0: rte asked with {words.format('0 and 1')}." in said(*runs[:2])
    group = reporting.grouped(runs, {"g": ["f0", "f1"]})  # what groups are for
    text = said(*group)
    assert f"f2 beside g: rte asked with {words.format('0 or 1, and 2')}." in text and "g: its runs" not in text
    for run in runs:
        changed(run, style="instructions")
        for figures in run.results["datasets"].values():
            figures["label"] = "zero-shot, held out"
        changed(run)
    assert "of the seeds" not in said(*runs[:2])


def test_a_seed_of_exemplars_that_do_not_fit_draws_nothing(make_run):
    runs = [make_run(f"f{n}", {"rte": 0.5}, style="5_shots", seed=n) for n in range(2)]
    for n, run in enumerate(runs):
        run.results["datasets"]["rte"]["shots"] = {"wanted": 5, "mean": 0.0, "without": 40, "of": 40}
        changed(run, seed=n)
    assert "of the seeds" not in said(*runs)


def test_exemplars_from_other_records_are_other_exemplars(make_run):
    runs = [make_run(f"f{n}", {"rte": 0.5}, style="5_shots", seed=n) for n in range(3)]
    for n, run in enumerate(runs):
        run.results["datasets"]["rte"]["data"] = {"exemplars": {"records": 100, "digest": f"d{n // 2}"}}
        changed(run, seed=n % 2)
    assert "f2 beside f0: rte asked with exemplars from other records." in said(runs[0], runs[2])
    assert "from other records" not in said(*runs[:2])
    left = {"dataset": "rte", "reason": "its runs were asked with exemplars from other records"}
    assert groups.as_one("g", runs).results["skipped"] == [left]


def test_an_order_of_options_is_of_ranked_datasets(make_run, add_generation):
    runs = [make_run(f"f{n}", {"rte": 0.5}, style="shuffled_options", seed=n) for n in range(2)]
    for n, run in enumerate(runs):
        add_generation(run, "squad_v1", "em", [[1.0, 0.0] * 2 + [1.0]] * 2)
        changed(run, seed=n)
    assert "f1 beside f0: rte asked with options in the order of the seeds 0 and 1." in said(*runs)


def test_the_dtype_is_said(several):
    """float32 and bfloat16 were compared and averaged, and no word."""
    changed(several[1], computation={"dtype": "float32", "attention": "segments"})
    assert "computed in" not in said(*several[:2])  # which is a model's own
    changed(several[2], computation={"dtype": "bfloat16"})
    together = "There the difference is of model and computation together."
    assert f"c beside b: rte, snli computed in float32 and bfloat16. {together}" in said(*several[1:])
    assert "c beside a: rte, snli computed in the model's own dtype and bfloat16." in said(several[0], several[2])
    several[0].results["model"] = {"dtype": "bfloat16"}
    assert "computed in" not in said(several[0], several[2])
    group = reporting.grouped(several, {"g": ["b", "c"]})
    text = said(*group)
    assert "g: its runs were computed in float32 and bfloat16 on rte, snli. Their mean and spread are of" in text
    assert group[1].datasets.keys() == {"rte", "snli"}


def test_other_engines_are_said(several, add_generation):
    """Other versions of the scorer were averaged, and no word."""
    for run, scorer in zip(several, (1, 2, 2), strict=True):
        run.results["engines"] = {"scorer": scorer, "generator": scorer + 5}
    together = "There the difference is of model and engine together."
    assert f"b beside a: rte, snli computed by scorer 1 and scorer 2. {together}" in said(*several[:2])
    assert "computed by" not in said(*several[1:])
    group = groups.as_one("g", several)
    assert group.datasets and "g: its runs were computed by scorer 1 and scorer 2 on rte, snli." in said(group)
    for run in several[:2]:
        add_generation(run, "squad_v1", "em", [[1.0, 0.0] * 2 + [1.0]] * 2)
        run.__dict__.pop("datasets", None)
    assert "squad_v1 computed by generator 6 and generator 7" in said(*several[:2])
    several[0].results["engines"] = None  # earlier results do not say it
    assert "computed by scorer" not in said(*several[:2])


@pytest.mark.parametrize(
    "other",
    [{"dev_examples": 200}, {"data": {"dev": {"records": 7, "digest": "d2"}, "test": {"records": 60, "digest": "t"}}}],
)
def test_dev_figures_of_other_dev_examples_have_no_mean(several, other):
    for run in several:
        run.results["datasets"]["rte"] |= {"data": {"dev": {"digest": "d1"}, "test": {"digest": "t"}}}
    several[2].results["datasets"]["rte"] |= other
    group = groups.as_one("g", [changed(run) for run in several[1:]])
    rte, snli = group.figures("rte"), group.figures("snli")
    assert rte["best_dev"] is None and "dev_ways" not in rte and {t["dev"] for t in rte["templates"]} == {None}
    assert snli["best_dev"] is not None and "dev_ways" in snli
    assert "g: its runs have other dev examples of rte, so nothing is best on dev there." in said(group)
    assert group.results["clusters"]["nli"]["best_dev"] is None


def test_limits_are_of_our_runs(several):
    changed(several[0], max_input_tokens=64)
    assert asked.limits(several[0], "rte") == {"max_input_tokens": "64"}
    several[0].results["harness"] = "lm-evaluation-harness 0.4.9"
    assert asked.limits(several[0], "rte") == {}

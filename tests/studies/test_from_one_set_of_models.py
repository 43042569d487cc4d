"""Studies that ask the models of held_out_clusters other questions: templates, options, contamination."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from flan_jax.errors import FlanError
from flan_jax.reporting.values import Values
from flan_jax.studies.kinds import contamination, held_out_clusters, options, template_robustness
from flan_jax.studies.kinds.contamination import split
from flan_jax.studies.kinds.template_robustness import Spread, change


def drawn(folder, name):
    """The picture of a study is there, and is more than empty axes."""
    return (folder / f"{name}.png").stat().st_size > 5000 and (folder / f"{name}.svg").exists()


@pytest.mark.slow
def test_template_robustness(run_study):
    found, folder = run_study("template_robustness")
    (one,) = found["datasets"].values()
    assert list(found["datasets"]) == ["cb"] and len(one["untuned"]["values"]) == len(one["tuned"]["values"]) > 5
    assert one["tuned"]["std"] >= 0 and found["clusters"]["nli"]["verdict"] == "fewer than 6 datasets"
    assert drawn(folder, "templates_nli") and "cb" in (folder / "study.md").read_text()


@pytest.mark.slow
def test_what_lies_in_a_folder_and_is_not_its_own_is_made_again(run_study, settings_of, capsys):
    """Results of one model, copied over another's, passed for its own; so did those of a model that was lost."""
    found, folder = run_study("template_robustness")
    commands = template_robustness.plan(settings_of("template_robustness"))
    untuned, tuned = (
        Path(commands.output_of(one)) for arm in commands.arms for one in arm.evaluations(commands.settings)
    )
    shutil.copytree(untuned, tuned, dirs_exist_ok=True)
    capsys.readouterr()
    again, _ = run_study("template_robustness")
    said = capsys.readouterr().out
    (model,) = (folder.parent / "tuned").iterdir()
    assert f"{tuned} is of tiny step 0, and {model.name} is wanted. It is evaluated again." in said
    assert again["datasets"] == found["datasets"]
    shutil.rmtree(model)
    again, _ = run_study("template_robustness")  # tuned to the same weights: nothing is evaluated
    assert again["datasets"] == found["datasets"] and "evaluated again" not in capsys.readouterr().out


@pytest.mark.slow
def test_contamination_takes_the_same_evaluations(run_study):
    found, folder = run_study("contamination")
    (one,) = found["datasets"].values()
    assert one["examples"] == 2 and one["reason"] == "" and 0 <= one["dirty"] <= 2
    evaluations = json.loads(json.dumps([p.name for p in (folder.parent / "evals").glob("*nli-instructions*")]))
    assert len(evaluations) == 2  # untuned and tuned, those of template_robustness
    assert drawn(folder, "clean")


@pytest.mark.slow
def test_options(run_study):
    found, folder = run_study("options", POINTS=("instructions", "lettered_options"))
    assert set(found["means"]["nli"]) == {"instructions", "lettered_options"}
    compared = {(one["style"], one["of"]) for one in found["gains"]}
    assert compared == {
        ("instructions", "tuned"),
        ("lettered_options", "tuned"),
        ("lettered_options", "style, untuned"),
        ("lettered_options", "style, tuned"),
    }
    assert drawn(folder, "options_nli")


@pytest.mark.parametrize(
    ("macros", "said"),
    [
        ({"POINTS": ("gpt3",)}, "POINTS has gpt3: the study compares instructions"),
        ({"POINTS": ("5_shots",)}, "POINTS has 5_shots"),
        ({"POINTS": ("lettered_option",)}, "lettered_options"),
        ({"CLUSTERS": ("nli", "translation")}, "CLUSTERS has translation, of which DATA has no dataset with options"),
    ],
)
def test_options_refuses(settings_of, macros, said):
    with pytest.raises(FlanError, match=said):
        options.plan(settings_of("options", **macros))


def test_options_asks_those_that_have_some(settings_of):
    commands = options.plan(settings_of("options", CLUSTERS=("nli", "closed_book_qa")))
    asked = {dataset for arm in commands.arms for dataset in arm.datasets}
    assert asked == {"nli", "arc_easy"}  # the data have no arc_challenge
    assert {arm.status for arm in commands.arms} == {"held out"}


# ------------------------------------------------------------------------------------------------- spread and subsets


def test_a_narrower_spread_is_told_where_enough_datasets_have_it():
    wide, narrow = Spread((0.2, 0.8), 0.42), Spread((0.5, 0.5), 0.0)
    assert (wide.mean, round(wide.range, 9)) == (0.5, 0.6)
    found = change([(wide, narrow)] * 10)
    assert found.value == pytest.approx(-0.42) and found.p == pytest.approx(2 / 1024, abs=1e-3)
    assert dataclasses.replace(found, corrected=found.p).verdict == "narrower"
    assert dataclasses.replace(change([(narrow, wide)] * 10), corrected=0.01).verdict == "wider"
    assert change([(wide, narrow)] * 5).p is None and change([(wide, narrow)] * 5).verdict == "fewer than 6 datasets"


def values(scores, passages=()):
    scores = np.array(scores, float)
    names = tuple(str(number) for number in range(len(scores)))
    more = ("accuracy", "instructions", names, names, (0, 1), ("a", "b"), np.stack([scores, scores], 1), (), None)
    return Values(*more, passages=tuple(passages))


def test_clean_and_dirty_examples():
    rng = np.random.default_rng(0)
    right = rng.random(200) < np.where(np.arange(200) < 60, 0.95, 0.4)  # the first 60 are easy
    found = split("d", values(right), values(right), {str(number) for number in range(60)})
    assert (found.examples, found.dirty, found.reason) == (200, 60, "")
    assert found.tuned == pytest.approx((right.mean(), right[60:].mean(), right[:60].mean()))
    assert found.change == pytest.approx(right[60:].mean() - right.mean()) and found.p < 0.001
    assert dataclasses.replace(found, corrected=0.01).verdict == "easier"
    chance = split("d", values(right), values(right), {str(number) for number in rng.choice(200, 60, replace=False)})
    assert chance.p > 0.01
    few = split("d", values(right), values(right), {"1"})
    assert few.p is None and few.verdict == "fewer than 10 of a kind"
    assert split("d", values(right), values(right), set()).tuned[2] is None
    every = split("d", values(right), values(right), {str(number) for number in range(200)})
    assert every.tuned[1] is None and every.change is None
    # Examples of one passage count together: here they are few.
    passages = ["a"] * 60 + ["b"] * 140
    together = split("d", values(right, passages), values(right, passages), {str(number) for number in range(60)})
    assert together.p > 0.4


def test_text_that_was_not_compared_is_no_clean_text():
    found = split("d", values([0, 1] * 50), values([1] * 100), {str(n) for n in range(50)}, ["squad is not there"])
    assert found.p is None and found.verdict == "not checked: squad is not there"


@pytest.mark.parametrize("broken", [None, dataclasses.replace(values([1, 0]), hashes=None)])
def test_predictions_that_do_not_say_what_their_records_are(broken):
    with pytest.raises(FlanError, match="d has no predictions at hand that say what their records are"):
        split("d", values([1, 0]), broken, set())


def test_nothing_of_them_is_tuned_or_evaluated_twice(settings_of):
    """The models and the evaluations with instructions are those of held_out_clusters."""
    every = held_out_clusters.plan(settings_of("held_out_clusters")).steps
    for kind in (template_robustness, contamination):
        assert {step.name for step in kind.plan(settings_of(kind.STUDY.name)).steps} < {step.name for step in every}
    own = options.plan(settings_of("options")).steps
    assert {step.name for step in own if step.job == "train"} == {step.name for step in every if step.job == "train"}

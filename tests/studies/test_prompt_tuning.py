"""The study prompt_tuning: prompts for a dataset, in front of models that never saw its cluster."""

import json

import pytest

from flan_jax.errors import FlanError
from flan_jax.studies.kinds import prompt_tuning

ASKED = {"POINTS": ("cb",), "CLUSTERS": ("nli",)}


@pytest.mark.slow
def test_prompts_from_both_starts(run_study):
    found, folder = run_study("prompt_tuning", **ASKED)
    assert set(found["means"]) == {"32", "all"} and set(found["means"]["all"]) == {"untuned", "tuned"}
    assert found["paper"]["32"] == [63.8, 78.1] and "seen" in " ".join(found["said"])
    assert (folder / "prompts.png").stat().st_size > 5000 and "FLAN 137B" in (folder / "study.md").read_text()
    manifests = [json.loads((p / "manifest.json").read_text()) for p in folder.parent.glob("tuned/flan_cb-*")]
    manifests += [json.loads((p / "manifest.json").read_text()) for p in folder.parent.glob("tuned/cb-*")]
    counts = {one["history"][-1]["composition"]["members"][0]["examples"] for one in manifests}
    assert len(manifests) == 4 and len(counts) == 1  # the samples have fewer than 32
    recipes = [one["history"][-1].get("recipe", {}) for one in manifests]
    assert sorted(bool(one) for one in recipes) == [False, False, True, True]
    assert {tuple(one["clusters"]) for one in map(lambda m: m["tuning"], manifests)} >= {("nli",)}


@pytest.mark.parametrize(
    ("macros", "said"),
    [
        ({"POINTS": ("sst2",)}, "POINTS has sst2, of sentiment: CLUSTERS have to name that"),
        ({"POINTS": ("wsc273",), "CLUSTERS": ("coreference",)}, "wsc273, which has no training data"),
        ({"POINTS": ("cbb",)}, "did you mean 'cb'"),
        ({"POINTS": ("cb", {"RATES": {"examples": 4}})}, "POINTS sets RATES, which the study sets itself"),
        ({"POINTS": ("cb", {"MODEL_DIR": "m"})}, "POINTS sets MODEL_DIR, which the study sets itself"),
        ({"POINTS": ("cb", {"PROMPT_LENGTH": 0})}, "PROMPT_LENGTH"),
        ({"POINTS": ("cb", {"PROMPT_LENGTH": 4}, {"LEARNING_RATE": 0.1})}, "POINTS has 2 dictionaries, .* in one"),
        ({"TRAIN": {"TRAIN_STEPS": 2, "PROMPT_LENGTH": 4}}, "TRAIN has PROMPT_LENGTH, which this study trains itself"),
        ({"POINTS": None, "CLUSTERS": ("translation",)}, "DATA has no dataset of SuperGLUE in CLUSTERS"),
        # A weight that brings the dataset's cluster back into the mixture of the model that is to be without it.
        ({"TRAIN": {"TRAIN_STEPS": 2, "WEIGHTS": {"nli": 1}}}, "holds out cannot be weighted back"),
    ],
)
def test_what_is_refused(settings_of, macros, said):
    with pytest.raises(FlanError, match=said):
        prompt_tuning.plan(settings_of("prompt_tuning", **ASKED | macros))


def test_prompts_are_trained_by_macros_of_their_own(settings_of):
    points = ("cb", {"PROMPT_LENGTH": 4, "LEARNING_RATE": 0.1})
    train = {"TRAIN_STEPS": 2, "BATCH_SIZE": 8, "LORA": {"rank": 2, "alpha": 4}, "WEIGHTS": {"sst2": 2.0}}
    arms = prompt_tuning.plan(settings_of("prompt_tuning", **ASKED | {"POINTS": points, "TRAIN": train})).arms
    assert {arm.status for arm in arms} == {"seen"} and {arm.datasets for arm in arms} == {("cb",)}
    for arm in arms:
        (tuning,) = arm.tunings
        assert (tuning.macros["PROMPT_LENGTH"], tuning.macros["LEARNING_RATE"], tuning.macros["LORA"]) == (4, 0.1, None)
        assert tuning.parts.examples == (32 if "32" in arm.name else None)
        if tuning.start is not None:  # it was tuned as TRAIN says
            assert tuning.start.macros["LORA"] == {"rank": 2, "alpha": 4} and "nli" not in tuning.start.clusters
            assert {part.weight for part in tuning.start.parts.parts if part.dataset == "sst2"} == {2.0}


def test_what_the_starts_are_tuned_on_is_prepared(settings_of):
    steps = prompt_tuning.plan(settings_of("prompt_tuning", **ASKED)).steps
    (prepare,) = [step for step in steps if step.job == "prepare"]
    datasets = next(word for word in prepare.argv if word.startswith("--datasets=")).partition("=")[2].split(",")
    assert {"cb", "sst2", "trec"} <= set(datasets)
    names = [step.name for step in steps]
    assert all(names.index(needed) < names.index(step.name) for step in steps for needed in step.after)

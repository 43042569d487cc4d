"""A study's scores, its gains, and what it refuses to compare."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from written_evaluations import write_run

from flan_jax import catalog
from flan_jax.checkpoint import adapters
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.configuration import model_config
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator, labels
from flan_jax.reporting.comparisons import TOO_FEW, Difference
from flan_jax.reporting.statistics import Interval
from flan_jax.studies import comparable, outcomes, results, tables
from flan_jax.studies.commands import Commands
from flan_jax.studies.means import MEAN, Group, Means
from flan_jax.studies.plan import Arm, Tuning, held_out_mixture
from flan_jax.studies.results import Gain, Results, corrected
from flan_jax.studies.settings import Settings

SKILLS = {"rte": 0.3, "cb": 0.5}


@pytest.fixture
def commands(tmp_path):
    """The untuned model, and two seeds without NLI, on NLI."""
    settings = Settings(
        "any", tmp_path, "samples", ("tiny",), ("nli",), (), (0, 1), None, {"TRAIN_STEPS": 2}, {}, ("instructions",)
    )
    tunings = tuple(Tuning("tiny", held_out_mixture("nli"), seed) for seed in (0, 1))
    arms = [Arm("untuned", "tiny", ("nli",)), Arm("tuned", "tiny", ("nli",), tunings=tunings)]
    return Commands(settings, arms)


def write(commands, arm, more=0.0, skills=None, seed=0, **options):
    """Evaluations of an arm, each seed's of its own predictions."""
    arm = next(one for one in commands.arms if one.name == arm)
    better = {name: skill + more for name, skill in (skills or SKILLS).items()}
    each = arm.evaluations(commands.settings)
    folders = [Path(commands.output_of(one)) for one in each]
    for number, (folder, evaluation) in enumerate(zip(folders, each, strict=True)):
        write_run(folder.parent, folder.name, better, seed=seed + number, **({"style": arm.style} | options))
        rewrite(folder, lambda found, of=evaluation: as_asked(found, of, commands))
    return folders


def as_asked(found, evaluation, commands):
    """Results as the evaluation writes them: with its model, its settings, and all that it was asked for."""
    tuning = evaluation.tuning
    checkpoint = (commands.checkpoint(evaluation.model) if tuning is None else commands.model_dir(tuning)).name
    style = found["settings"]["style"]
    settings = evaluator.Settings(**{name.lower(): value for name, value in evaluation.macros.items()}, style=style)
    found["settings"] = {**dataclasses.asdict(settings), "ways": []}
    wanted = {record.name: record for record in evaluator.select([evaluation.dataset])}
    for name, figures in found["datasets"].items():
        figures["protocol"] = settings.protocol_of(wanted[name]).digest
    if evaluation.tuning is None:
        found["tuning"] = {"status": UNTUNED, "datasets": [], "clusters": []}
    found["checkpoint"] = f"{checkpoint} step {commands.step_of(evaluation) or 0}"
    found["engines"] = evaluator.ENGINES
    left = [name for name in wanted if name not in found["datasets"]]
    found["skipped"] = [{"dataset": name, "reason": "it is not in the data"} for name in left]


def rewrite(folder, change):
    path = folder / "results.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def accuracy_TxE(folder, dataset):
    """Read off the predictions alone."""
    return np.array(
        [
            [np.argmax(row["loglikelihood"]) == row["answer"] for row in map(json.loads, path.open().readlines()[1:])]
            for path in sorted((folder / "predictions" / dataset).glob("test_t*.jsonl"))
        ]
    )


# ------------------------------------------------------------------------------------------------------------ scores


def test_scores_follow_from_the_predictions(commands):
    write(commands, "untuned")
    seeds = write(commands, "tuned", more=0.5, seed=5)
    found = Results(commands)
    of_seeds = [accuracy_TxE(folder, "rte") for folder in seeds]
    score = found.score("tuned", "rte")
    assert score.runs == pytest.approx([one.mean() for one in of_seeds])
    assert score.mean == pytest.approx(np.mean([one.mean() for one in of_seeds]))
    assert score.std == pytest.approx(np.std(score.runs, ddof=1))
    assert score.over_templates == pytest.approx(np.mean([one.mean(1).std() for one in of_seeds]), rel=0.1)
    whole = found.mean("tuned", ("rte", "cb"), "nli")
    each = [[accuracy_TxE(folder, name).mean() for name in ("rte", "cb")] for folder in seeds]
    assert whole.runs == pytest.approx(np.mean(each, 1)) and whole.random == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_gains_follow_from_the_predictions(commands):
    """Of the mean over seeds, beside the untuned model, with an interval as wide as a paired one of all examples."""
    (untuned,) = write(commands, "untuned", count=200)
    seeds = write(commands, "tuned", more=0.8, seed=5, count=200)
    found = Results(commands)
    whole, each = found.gains("tuned", ["untuned"], "nli")
    assert [gain.name for gain in each] == ["cb", "rte"]
    for gain in each:
        differences_SxE = [
            accuracy_TxE(folder, gain.name).mean(0) - accuracy_TxE(untuned, gain.name).mean(0) for folder in seeds
        ]
        assert gain.value == pytest.approx(np.mean(differences_SxE))
        assert gain.of_seeds == pytest.approx(np.mean(differences_SxE, 1))
        over_examples = dataclasses.replace(gain.difference, over_templates=None)
        (alone,) = corrected([dataclasses.replace(gain, difference=over_examples)])
        width = 1.96 * np.mean(differences_SxE, 0).std(ddof=1) / np.sqrt(200)
        assert alone.interval == pytest.approx((gain.value - width, gain.value + width), rel=0.15)
    assert whole.value == pytest.approx(np.mean([gain.value for gain in each]))


def test_the_better_of_several_is_chosen_for_each_dataset_and_for_the_mean(commands, tmp_path):
    arms = [*commands.arms, Arm("untuned, GPT-3's manner", "tiny", ("nli",), "gpt3")]
    commands = Commands(commands.settings, arms)
    write(commands, "untuned", skills={"rte": 3.0, "cb": 0.1})
    write(commands, "untuned, GPT-3's manner", skills={"rte": 0.1, "cb": 2.0}, templates=(0,), seed=3)
    write(commands, "tuned", skills={"rte": 2.0, "cb": 1.0}, seed=5)
    found = Results(commands)
    others = ["untuned", "untuned, GPT-3's manner"]
    whole, each = found.gains("tuned", others, "nli")
    assert {gain.name: gain.beside for gain in each} == {"rte": others[0], "cb": others[1]}
    assert whole.beside == max(others, key=lambda one: found.mean(one, ("rte", "cb"), "").mean)
    assert whole.value >= np.mean([gain.value for gain in each])


# ---------------------------------------------------------------------------------------------------------- refusals


def test_scores_of_another_status_are_refused(commands):
    write(commands, "untuned")
    write(commands, "tuned", status=labels.SEEN)
    with pytest.raises(FlanError, match="tuned: .* is seen for its model, and this study has scores that are held out"):
        Results(commands)


def test_scores_of_no_known_status_are_refused(commands):
    write(commands, "untuned")
    folders = write(commands, "tuned")

    def forget(found):
        for figures in found["datasets"].values():
            figures.pop("label"), figures.pop("status")

    rewrite(folders[1], forget)
    with pytest.raises(FlanError, match="is unknown for its model"):
        Results(commands)


@pytest.mark.parametrize("style", ["gpt3", "5_shots", "no_template"])
def test_scores_of_another_style_are_refused(commands, style):
    write(commands, "untuned")
    write(commands, "tuned", style=style, templates=(0,))
    with pytest.raises(FlanError, match=f"was asked in the style {style}, and instructions is wanted: run the study"):
        Results(commands)


def test_scores_on_other_numbers_of_examples_are_refused(commands):
    write(commands, "untuned")
    write(commands, "tuned", count=39)
    with pytest.raises(
        FlanError, match="40 in untuned and 39 in tuned seed 1 test examples: a study compares the same ones"
    ):
        Results(commands)


def test_scores_of_other_examples_are_refused(commands):
    """As many, but not the same: the test split was drawn from other records."""
    write(commands, "untuned")
    for folder in write(commands, "tuned"):
        for path in (folder / "predictions").rglob("*.jsonl"):
            path.write_text(path.read_text().replace('"id": "test-', '"id": "dev-').replace('"hash": "0', '"hash": "f'))
    with pytest.raises(FlanError, match="cannot be compared"):
        Results(commands).gains("tuned", ["untuned"], "nli")


def test_an_evaluation_without_a_result_is_refused(commands):
    write(commands, "untuned")
    folders = write(commands, "tuned")
    rewrite(folders[0], lambda found: found.update(invalid=[{"dataset": "rte", "reason": "its scores are not finite"}]))
    with pytest.raises(FlanError, match="rte has no result in .*its scores are not finite"):
        Results(commands)


def test_a_missing_evaluation_is_refused(commands):
    write(commands, "untuned")
    with pytest.raises(FlanError, match="has no results.json: run the study again"):
        Results(commands)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: r["settings"].update(max_examples=77), "max_examples 77, and None is wanted"),
        (lambda r: r["settings"].update(max_new_tokens=4), "max_new_tokens 4, and None is wanted"),
        (lambda r: r["settings"].pop("joint"), "joint None, and auto is wanted"),
        (lambda r: r.update(settings=None), "cannot be used .*has settings that are no names with values"),
        (lambda r: r["datasets"]["cb"].update(protocol="other"), "asked cb by another protocol"),
        (lambda r: r["datasets"].pop("cb"), "is of anli_r1,"),
        (lambda r: r["datasets"]["cb"]["templates"].pop(), "cannot be used .*dataset cb has a standard deviation"),
        (lambda r: r["datasets"]["cb"].update(templates=7), "dataset cb has no templates"),
        (lambda r: r["datasets"].update(sst2=r["datasets"]["cb"]), "dataset sst2 has the cluster 'nli'"),
        (lambda r: r.update(skipped=[]), "is of cb, rte, and anli_r1"),
        (lambda r: r.update(datasets={"rte": 1}), "dataset rte has no figures"),
        (lambda r: r.update(datasets=[]), "holds no datasets by name"),
        (lambda r: r.update(skipped=7), "has skipped datasets without a name"),
        (lambda r: r.update(split="dev"), "has figures of dev examples, not of test"),
        (lambda r: r["settings"].update(seed=5), "was asked with seed 5, and 0 is wanted"),
        (lambda r: r.update(engines={"scorer": 0, "generator": 1}), "was made by .*'scorer': 0"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused(commands, change, why):
    """Seeds were copied over each other: a gain of 7.5 with a spread of 0.0, and no word."""
    write(commands, "untuned")
    folders = write(commands, "tuned")
    step = next(one for one in commands.steps if one.output == str(folders[1]))
    assert outcomes.problem(commands, step) == ""
    rewrite(folders[1], change)
    assert re.search(why, outcomes.problem(commands, step))
    with pytest.raises(FlanError, match=f"tuned: .*{why}.*: run the study again"):
        Results(commands)


def test_a_template_that_was_not_asked_is_missed(commands):
    """Six of seven in one seed: a narrower interval, and a gain "for sure"."""
    write(commands, "untuned")
    write(commands, "tuned", templates=catalog.dataset("cb").forward_templates[1:])
    with pytest.raises(FlanError, match="has not the templates of .* that were to be asked"):
        Results(commands)


@pytest.mark.parametrize("text", ["", "{", '{"datasets": {', "[]", "null", '{"mean": NaN}', "\0\xff", "[" * 100_000])
def test_results_that_are_damaged_are_made_again(commands, text):
    (folder,) = write(commands, "untuned")
    (folder / "results.json").write_text(text)
    step = next(one for one in commands.steps if one.output == str(folder))
    assert outcomes.problem(commands, step).startswith("has results that cannot be used (")


def test_results_of_other_weights_are_refused(commands, monkeypatch):
    """Of a model that was replaced in its place, or of another seed's folder."""
    untuned, tuned = write(commands, "untuned"), write(commands, "tuned")
    place = Path(commands.checkpoint("tiny"))
    (place / "checkpoints" / "0").mkdir(parents=True)
    Manifest.create(model_config("tiny"), ByteTokenizer(), UNTUNED).save(place)
    monkeypatch.setattr(adapters, "weights", lambda folder, step, which: f"{Path(folder).name} {step} {which}")
    steps = {one.output: one for one in commands.steps}
    assert outcomes.problem(commands, steps[str(untuned[0])]) == f"is of other weights than those in {place}"
    rewrite(untuned[0], lambda found: found.update(weights="tiny 0 params"))
    assert outcomes.problem(commands, steps[str(untuned[0])]) == ""
    assert outcomes.problem(commands, steps[str(tuned[0])]) == ""  # its model is not there any more
    shutil.copy(tuned[1] / "results.json", tuned[0] / "results.json")  # and still the results say whose they are
    assert re.search(
        "is of .*seed_1.* step 2, and .*seed_0.* is wanted", outcomes.problem(commands, steps[str(tuned[0])])
    )
    shutil.copy(untuned[0] / "results.json", tuned[0] / "results.json")
    rewrite(tuned[0], lambda found: found.update(checkpoint=f"{commands.model_dir(commands.tunings[0]).name} step 2"))
    assert "is of a model that is declared untuned by its record" in outcomes.problem(commands, steps[str(tuned[0])])


def test_scores_of_other_records_are_refused(commands):
    write(commands, "untuned")
    for number, folder in enumerate([*write(commands, "tuned"), Path(commands.output_of(untuned_of(commands)))]):
        data = {"test": {"records": 40, "digest": f"d{number}"}}
        rewrite(folder, lambda found, data=data: found["datasets"]["rte"].update(data=data))
    with pytest.raises(FlanError, match="rte was scored on other records in .* a study compares the same ones"):
        Results(commands)


def test_scores_of_two_dtypes_are_refused(commands):
    """One seed was evaluated on another machine, where "auto" takes bfloat16."""
    write(commands, "untuned")
    folders = write(commands, "tuned")
    Results(commands)
    rewrite(folders[-1], lambda found: found["settings"].update(computation={"dtype": "bfloat16", "remat": "none"}))
    with pytest.raises(FlanError, match="in bfloat16 .*seed_1.*: a study compares scores of one dtype"):
        Results(commands)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda f: f.update(joint="newline"), "joint .*newline .*seed_1"),
        (lambda f: f.update(model={"num_layers": 9, "dtype": "float32"}), "MODEL"),
        (lambda f: f.update(model={"num_layers": 2, "dtype": "bfloat16"}), "dtype .*bfloat16 .*seed_1"),
        (lambda f: f["tuning"].update(datasets=["copa"], clusters=["commonsense"]), "datasets that it was tuned on"),
        (lambda f: f["datasets"]["cb"]["data"]["dev"].update(digest="x"), "dev records of cb"),
        (lambda f: f["datasets"]["cb"]["data"]["exemplars"].update(digest="x"), "exemplars records of cb"),
        (lambda f: f["datasets"]["cb"]["templates"][0].update(input="so?"), "wording of cb"),
    ],
)
def test_seeds_that_were_evaluated_in_two_ways_are_refused(commands, change, what):
    """One seed with "newline" and one with "eos" were a mean."""
    write(commands, "untuned")
    folders = write(commands, "tuned")

    def told(found):
        found |= {"joint": "eos", "model": {"num_layers": 2, "dtype": "float32"}}
        found["tuning"] = {"status": "tuned", "datasets": ["sst2"], "clusters": ["sentiment"]}
        for name, figures in found["datasets"].items():
            figures["data"] = {split: {"records": 40, "digest": name} for split in ("dev", "test", "exemplars")}
            for one in figures["templates"]:
                one.update(input="{premise}?", target="{answer}")

    for folder in folders:
        rewrite(folder, told)
    Results(commands)
    rewrite(folders[1], lambda f: [f.pop(key) for key in ("joint", "model")])  # as earlier versions wrote it
    Results(commands)
    rewrite(folders[1], told)
    rewrite(folders[1], change)
    with pytest.raises(FlanError, match=f"tuned: its .*{what}.*remove results.json in .*seed_1.*, and run the study"):
        Results(commands)


def test_a_computation_that_is_no_dictionary_is_named(commands):
    (folder,) = write(commands, "untuned")
    write(commands, "tuned")
    rewrite(folder, lambda found: found["settings"].update(computation="bfloat16"))
    with pytest.raises(
        FlanError,
        match=f"untuned: {folder} has results that cannot be used .*no names with values 'settings.computation'",
    ):
        Results(commands)


def test_why_seeds_have_no_values_is_said(commands):
    """The reason was that no predictions were at hand, and they were."""
    write(commands, "untuned")
    folders = write(commands, "tuned")
    rewrite(folders[0], lambda found: [one.pop("input") for one in found["datasets"]["cb"]["templates"]])
    with pytest.raises(
        FlanError, match="cb has no values .* in tuned .its runs were asked with other templates.: "
    ) as e:
        Results(commands).gains("tuned", ["untuned"], "nli")
    assert all(str(folder) in str(e.value) for folder in folders) and "evals/untuned" not in str(e.value)


def untuned_of(commands):
    return commands.arms[0].evaluations(commands.settings)[0]


def test_records_that_are_only_in_part_the_same_are_refused(commands):
    """As many of them, and a gain over 24 was shown as one over 40."""
    write(commands, "untuned")
    for folder in write(commands, "tuned"):
        for path in (folder / "predictions" / "rte").glob("*.jsonl"):
            path.write_text(path.read_text().replace('"hash": "000000000000001', '"hash": "f00000000000001'))
    with pytest.raises(FlanError, match="share 24 of 40 records of rte"):
        Results(commands).gains("tuned", ["untuned"], "nli")


@pytest.mark.parametrize("text", [None, "", '{"key": "k"}\n'])
def test_predictions_that_are_gone_are_named_with_what_helps(commands, text):
    write(commands, "untuned")
    (folder, _) = write(commands, "tuned")
    for path in (folder / "predictions" / "rte").glob("*.jsonl"):
        path.unlink() if text is None else path.write_text(text)
    with pytest.raises(FlanError, match=f"of rte in {folder} .*: remove results.json there, and run the study again"):
        Results(commands)


def test_two_arms_of_one_name_are_refused(commands):
    twice = Commands(commands.settings, [commands.arms[0], dataclasses.replace(commands.arms[0], style="gpt3")])
    with pytest.raises(FlanError, match="two arms of one name"):
        Results(twice)


# ----------------------------------------------------------------------------------------------- datasets that differ


def test_what_one_arm_lacks_is_refused(commands):
    """Where one seed had skipped a dataset, it was gone, and the mean over the others was a gain."""
    write(commands, "untuned")
    folders = write(commands, "tuned")

    def without(found):
        found["datasets"].pop("cb")
        found["skipped"].append({"dataset": "cb", "reason": "no test example of cb can be used"})

    rewrite(folders[1], without)
    with pytest.raises(FlanError, match="cb has a score in untuned and none in tuned seed 1 .no test example of cb"):
        Results(commands)


def without_cb(commands):
    """Evaluations of all arms in which nothing of CB could be asked."""

    def change(found):
        found["datasets"].pop("cb", None)
        found["skipped"] = [one for one in found["skipped"] if one["dataset"] != "cb"]
        found["skipped"].append({"dataset": "cb", "reason": "no test example of 2 can be asked"})

    for arm in commands.arms:
        for folder in write(commands, arm.name):
            rewrite(folder, change)


def test_what_has_no_score_in_any_arm_is_said_with_its_reason(commands):
    """It was gone from the page, and nothing said so."""
    without_cb(commands)
    assert Results(commands).datasets == {"nli": ["rte"]}
    said = comparable.unscored(commands)
    assert "Without a score: cb (no test example of 2 can be asked)." in said
    assert any("anli_r1, anli_r2" in one and "it is not in the data" in one for one in said)
    assert not any("rte" in one for one in said)


def test_what_is_named_and_has_no_score_is_refused(commands):
    arms = [dataclasses.replace(arm, datasets=("rte", "cb")) for arm in commands.arms]
    commands = Commands(dataclasses.replace(commands.settings, datasets=("rte", "cb")), arms)
    for arm in commands.arms:
        for evaluation in arm.evaluations(commands.settings):
            folder = Path(commands.output_of(evaluation))
            write_run(folder.parent, folder.name, {"rte": 0.3} if evaluation.dataset == "rte" else {"cb": 0.5})
            rewrite(folder, lambda found, of=evaluation: as_asked(found, of, commands))
            if evaluation.dataset == "cb":
                skipped = [{"dataset": "cb", "reason": "no test example of 2 can be asked."}]
                rewrite(folder, lambda found, skipped=skipped: found.update(datasets={}, skipped=skipped))
    with pytest.raises(
        FlanError, match="^cb has no score .no test example of 2 can be asked.: leave it out of DATASETS"
    ):
        Results(commands)


def test_means_are_over_what_all_arms_have(commands):
    """RTE alone, which is all that the data have of the cluster."""
    write(commands, "untuned", skills={"rte": 0.3})
    write(commands, "tuned", skills={"rte": 0.8}, seed=5)
    found = Results(commands)
    assert found.shared("nli", ["tuned", "untuned"]) == ("rte",)
    groups = [Group(arm.name, {"nli": arm}) for arm in commands.arms]
    means = Means(found, groups)
    assert means.datasets == {"nli": ("rte",)} and means.names == ["nli"] and means.whole == "nli"
    assert means.score(groups[1], "nli").mean == pytest.approx(found.score("tuned", "rte").mean)


def test_arms_that_share_nothing_are_refused(commands):
    def nothing(found, of):
        found["datasets"].clear()
        as_asked(found, of, commands)

    for arm in commands.arms:
        for folder, one in zip(write(commands, arm.name), arm.evaluations(commands.settings), strict=True):
            rewrite(folder, lambda found, of=one: nothing(found, of))
    with pytest.raises(FlanError, match="the data have no dataset of nli that was scored for all"):
        Means(Results(commands), [Group(arm.name, {"nli": arm}) for arm in commands.arms])


def test_a_mean_of_clusters_is_that_of_their_means(commands):
    """Whatever their numbers of datasets; and its gain is the mean of their gains."""
    arms = [
        Arm("untuned", "tiny", ("nli", "sentiment")),
        *(
            Arm(f"tuned, without {c}", "tiny", (c,), tunings=(Tuning("tiny", held_out_mixture(c), 0),))
            for c in ("nli", "sentiment")
        ),
    ]
    commands = Commands(commands.settings, arms)
    untuned = next(one for one in commands.arms if one.name == "untuned")
    for number, evaluation in enumerate(untuned.evaluations(commands.settings)):
        folder = Path(commands.output_of(evaluation))
        write_run(folder.parent, folder.name, SKILLS if evaluation.dataset == "nli" else {"sst2": 0.2}, seed=number)
        rewrite(folder, lambda found, of=evaluation: as_asked(found, of, commands))
    write(commands, "tuned, without nli", more=0.5, seed=7)
    write(commands, "tuned, without sentiment", skills={"sst2": 1.0}, seed=9)
    groups = [
        Group("untuned", dict.fromkeys(("nli", "sentiment"), arms[0])),
        Group("tuned", {"nli": arms[1], "sentiment": arms[2]}),
    ]
    means = Means(Results(commands), groups)
    assert means.names == ["nli", "sentiment", MEAN] and means.count(MEAN) == 3
    for group in groups:
        each = [means.score(group, cluster).mean for cluster in ("nli", "sentiment")]
        assert means.score(group, MEAN).mean == pytest.approx(np.mean(each))
    gain = means.gain(groups[1], groups[:1], MEAN)
    assert gain.value == pytest.approx(means.score(groups[1], MEAN).mean - means.score(groups[0], MEAN).mean)
    assert gain.of_seeds == pytest.approx([gain.value])


# ------------------------------------------------------------------------------------------------------- corrections


def a_gain(value, stderr, p, of_seeds=None, groups=100):
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=2000)
    replicates = value + stderr * (drawn - drawn.mean()) / drawn.std(ddof=1)
    interval = Interval(value, replicates)
    difference = Difference("accuracy", 100, groups, (0.5, 0.5 + value), interval, None, p, np.zeros(1))
    return Gain("rte", "untuned", difference, of_seeds or (value,))


def test_corrected_intervals_and_p_against_a_naive_computation():
    p_values = [0.004, 0.03, 0.0005, 0.2, None]
    gains = [a_gain(0.1 * (number + 1), 0.02 * (number + 1), p) for number, p in enumerate(p_values)]
    found = corrected(gains)
    z = stats.norm.ppf(1 - 0.05 / 2 / 4)  # four tests
    for number, gain in enumerate(found[:4]):
        value, error = 0.1 * (number + 1), 0.02 * (number + 1)
        assert gain.interval == pytest.approx((value - z * error, value + z * error))
    assert [gain.corrected for gain in found[:4]] == pytest.approx([3 * 0.004, 2 * 0.03, 4 * 0.0005, 0.2])
    assert found[4].corrected is None and found[4].interval is None and found[4].verdict == TOO_FEW
    assert [gain.verdict for gain in found[:4]] == ["gain", "", "gain", ""]


def test_an_interval_over_templates_is_the_wider_one_where_there_are_several():
    gain = a_gain(0.1, 0.02, 0.001)
    wide = Interval(0.1, a_gain(0.1, 0.09, 0.001).difference.interval.replicates)
    gain = dataclasses.replace(gain, difference=dataclasses.replace(gain.difference, over_templates=wide))
    (found,) = corrected([gain])
    assert found.interval == pytest.approx((0.1 - 1.96 * 0.09, 0.1 + 1.96 * 0.09), rel=1e-3)
    assert found.verdict == ""


@pytest.mark.parametrize(
    ("value", "of_seeds", "verdict"),
    [
        (0.1, (0.1, 0.1), "gain"),
        (0.1, (0.21, -0.01), ""),
        (-0.1, (-0.1, -0.1), "loss"),
        (-0.1, (-0.3, 0.1), ""),
        (0.1, (0.2, 0.0), ""),
    ],
)
def test_a_gain_is_one_where_all_seeds_agree(value, of_seeds, verdict):
    (found,) = corrected([a_gain(value, 0.01, 0.001, of_seeds)])
    assert found.verdict == verdict


def test_what_is_not_tested_is_not_counted():
    """The page spoke of all 3 comparisons together, and none had enough examples."""
    gains = corrected([a_gain(0.1, 0.01, p) for p in (0.001, None, 0.5)])
    assert results.tests(gains) == 2 and "for all 2 tested comparisons" in tables.rule({"a": dict(enumerate(gains))})
    few = corrected([a_gain(0.1, 0.01, None) for _ in range(3)])
    assert results.tests(few) == 0 and tables.rule({"a": dict(enumerate(few))}) == tables.NOT_TESTED


@pytest.mark.parametrize("known", [True, False])
def test_how_many_exemplars_fit_is_told(commands, known):
    """Two of five beside RTE, and four beside CB: the mean of the datasets, as of the scores."""
    arms = [dataclasses.replace(arm, style="5_shots") for arm in commands.arms]
    commands = Commands(commands.settings, arms)
    for arm in commands.arms:
        for folder in write(commands, arm.name):
            rewrite(folder, lambda found: with_exemplars(found) if known else None)
    groups = [Group(arm.name, {"nli": arm}) for arm in commands.arms]
    means = Means(Results(commands), groups)
    assert [means.exemplars(group, "nli") for group in groups] == ([3.0, 3.0] if known else [None, None])


def with_exemplars(found):
    for name, figures in found["datasets"].items():
        of = figures["examples"] * len(figures["templates"])
        figures["shots"] = {"wanted": 5, "mean": {"rte": 2.0, "cb": 4.0}[name], "without": 0, "of": of}


def test_few_examples_are_not_tested(commands):
    write(commands, "untuned", count=20)
    write(commands, "tuned", more=9.0, count=20)
    whole, each = Results(commands).gains("tuned", ["untuned"], "nli")
    assert all(gain.verdict == TOO_FEW for gain in results.corrected([whole, *each]))

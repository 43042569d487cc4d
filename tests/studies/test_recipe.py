"""The study recipe: chosen on dev data of what is tuned on, and nothing else."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from flan_jax import catalog, study
from flan_jax.errors import FlanError
from flan_jax.evaluation import during_training, evaluator
from flan_jax.studies import judging, outcomes, recipes
from flan_jax.studies import plan as plans
from flan_jax.studies.kinds import recipe
from flan_jax.studies.plan import Tuning

POINTS = ({"LEARNING_RATE": 1e-3}, {"LEARNING_RATE": 1e-2, "JOINTS": "newline"})
ASKED = {"POINTS": POINTS, "JUDGED_BY": ("sst2", "trec")}


@pytest.mark.slow
def test_a_recipe_is_chosen_and_taken(run_study, settings_of):
    found, folder = run_study("recipe", **ASKED)
    scores = {name: one["score"] for name, one in found["points"].items()}
    assert set(scores) == {"learning rate 0.001", "learning rate 0.01, joints newline"}
    assert found["best"] == max(scores, key=scores.get) and all(one["dev_losses"] for one in found["points"].values())
    assert {name for one in found["points"].values() for name in one["scores"]} == {"sentiment", "miscellaneous"}
    assert (folder / "scores.png").stat().st_size > 5000 and (folder / "differences.svg").exists()
    assert not list((folder.parent / "evals").glob("flan-seed_0*")), "no test example is scored"
    assert "No test example was evaluated." in (folder / "study.md").read_text()
    chosen = json.loads((folder / "recipe.json").read_text())
    assert chosen["held_out"] == ["nli"] and "nli" not in chosen["seen"]["clusters"]
    # The others take it: it counts more than the budget's, and less than TRAIN.
    path = str(folder / "recipe.json")
    taken = settings_of("held_out_clusters", RECIPE=path, TRAIN=None)
    assert taken.train | chosen["macros"] == taken.train and taken.train["TRAIN_STEPS"] == 2
    assert settings_of("held_out_clusters", RECIPE=path, TRAIN={"LEARNING_RATE": 7e-3}).train["LEARNING_RATE"] == 7e-3
    for cluster, why in (("sentiment", "counts with sentiment"), ("coreference", None), ("commonsense", "commonsense")):
        if why is None:  # of the few datasets here none is of it, nor shares text with it
            settings_of("held_out_clusters", RECIPE=path, CLUSTERS=(cluster,))
            continue
        with pytest.raises(FlanError, match=f"chosen on clusters that the paper's rule .*{why}"):
            settings_of("held_out_clusters", RECIPE=path, CLUSTERS=("nli", cluster))


@pytest.mark.parametrize(
    ("macros", "said"),
    [
        ({"POINTS": ({"MODEL_DIR": "m"},)}, "sets MODEL_DIR, which the study sets itself"),
        ({"POINTS": ({"MIXTURE_OR_TASK_NAME": "flan"},)}, "which the study sets itself"),
        ({"POINTS": ({"EVAL_PERIOD": 1},)}, "sets EVAL_PERIOD, which the study sets itself"),
        ({"POINTS": ({"DATASETS": ("cb",)},)}, "sets DATASETS, which the study sets itself"),
        ({"POINTS": ({"STYLE": "gpt3"},)}, "sets STYLE, which the study sets itself"),
        ({"POINTS": ({"LEARNING_RAT": 1},)}, "did you mean 'LEARNING_RATE'"),
        ({"POINTS": ({"LEARNING_RATE": -1},)}, "LEARNING_RATE"),
        ({"POINTS": ("instructions",)}, "a dictionary of macros"),
        ({"POINTS": ({"SEEDS": (0, 0)},)}, "SEEDS"),
        ({"POINTS": ({"SEEDS": "x"},)}, "SEEDS"),
        ({"POINTS": ({"LEARNING_RATE": 1e-3}, {"LEARNING_RATE": 1e-3, "SEEDS": (1,)})}, "twice"),
        ({"POINTS": ({"WEIGHTS": {"cb": 1}},)}, "would be scored as held out"),  # it holds out NLI no more
        ({"POINTS": ({"WEIGHTS": {"common_gen": 1}},)}, "common_gen, which shares text with it"),
        ({"JUDGED_BY": ("cb",)}, "JUDGED_BY has cb, which is held out"),
        ({"JUDGED_BY": ("glue_mrpc",)}, "JUDGED_BY has glue_mrpc, which is held out"),  # with NLI, by the paper's rule
        ({"JUDGED_BY": ("common_gen",)}, "JUDGED_BY has common_gen, which is held out"),  # shares text with SNLI
        ({"JUDGED_BY": ("wsc273",)}, "JUDGED_BY has wsc273"),  # has no training data
        ({"CLUSTERS": ("sentiment", "miscellaneous"), "JUDGED_BY": ("sst2",)}, "JUDGED_BY has sst2"),
        ({"TRAIN": {"TRAIN_STEPS": 2, "WEIGHTS": {"sst2": 0}}}, "JUDGED_BY has sst2"),  # which is not tuned on then
    ],
)
def test_what_a_recipe_must_not_be_chosen_by(settings_of, macros, said):
    with pytest.raises(FlanError, match=said):
        recipe.plan(settings_of("recipe", **ASKED | macros))


def test_points_are_the_same_by_their_values(settings_of):
    """Two learning rates were printed alike, and refused as one."""
    rates = (1e-4, 1.0000000001e-4, 0.1, 0.1 + 1e-16, 1)
    found = recipe.points(
        settings_of(
            "recipe", POINTS=tuple({"LEARNING_RATE": rate} for rate in rates), MAX_POINTS=None, JUDGED_BY=("sst2",)
        )
    )
    assert [point["LEARNING_RATE"] for point in found.values()] == list(rates)
    assert next(iter(found)) == "learning rate 0.0001" and list(found)[-1] == "learning rate 1"
    twice = ({"LEARNING_RATE": 1e-4}, {"LEARNING_RATE": 0.0001, "SEEDS": (3,)})
    with pytest.raises(FlanError, match="'learning rate 0.0001' twice"):
        recipe.points(settings_of("recipe", POINTS=twice, JUDGED_BY=("sst2",)))


def test_points_have_seeds_of_their_own(settings_of):
    asked = settings_of(
        "recipe", POINTS=({}, {"SEEDS": (3, 4)}, {"LEARNING_RATE": 2.0}), JUDGED_BY=("sst2",), MAX_POINTS=None
    )
    with pytest.raises(FlanError, match="'as it is' twice"):
        recipe.points(asked)
    found = recipe.tunings(
        settings_of("recipe", POINTS=({}, {"SEEDS": (3, 4), "LOSS_AVERAGING": "per_example"}), JUDGED_BY=("sst2",))
    )
    assert {name: [one.seed for one in each] for name, each in found.items()} == {
        "as it is": [0],
        "loss averaging per_example": [3, 4],
    }


def made(settings_of, tmp_path, **macros):
    """(dev.json of sst2 as a training writes it, what is called to read it, the training's folder)."""
    commands = recipe.plan(settings_of("recipe", **ASKED | macros, STUDY_DIR=str(tmp_path)))
    name, (tuning,) = next(iter(recipe.tunings(commands.settings).items()))
    model = commands.model_dir(tuning)
    folder = model / during_training.FOLDER / "step_2"
    folder.mkdir(parents=True)
    lines = [{"step": step, "tokens_per_second": 10.0, "seconds": 2.0} for step in (1, 2)]
    lines[-1] |= {"dev_loss": {"seen/sst2": 1.0}, "dev_loss_cluster": {"seen/sentiment": 1.0}}
    (model / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = evaluator.Settings(None, 2)
    template = {"value": 0.5, "sum": 0.5, "dev": None, "input": "{a}", "stderr": None, "metrics": {}}
    forward = catalog.dataset("sst2").forward_templates
    one = {"cluster": "sentiment", "status": "seen", "label": "zero-shot, seen", "examples": 2, "mean": 0.5, "std": 0.0}
    one |= {
        "best_dev": None,
        "random": 0.5,
        "majority": 0.5,
        "stderr": None,
        "templates": [{"template": number, **template} for number in forward],
        "metric": "accuracy",
        "protocol": asked.protocol_of(catalog.dataset("sst2")).digest,
        "data": {"dev": {"records": 2, "digest": "d"}},
    }
    loss = {"clusters": {"sentiment": {"loss": 1.0}}, "datasets": {"sst2": {"loss": 1.0, "status": "seen"}}}
    loss["loss_averaging"] = "per_token"
    found = {"dev_loss": loss, "skipped": [], "invalid": [], "settings": {**dataclasses.asdict(asked), "ways": []}}
    found |= {"checkpoint": f"{model.name} step 2", "split": "dev", "clusters": {}, "datasets": {"sst2": one}}
    found |= {"engines": evaluator.ENGINES, "joint": "eos", "model": {"dtype": "float32"}}
    found["tuning"] = {"status": "tuned", "datasets": ["trec"], "clusters": ["miscellaneous"]}
    return (
        found,
        lambda: (folder / "dev.json").write_text(json.dumps(found)) and judging.judged(commands, name, [tuning]),
        model,
    )


@pytest.fixture
def figures(settings_of, tmp_path):
    """(dev.json without one of the datasets that are judged by, what is called to read it)."""
    found, read, _ = made(settings_of, tmp_path)
    found["skipped"] = [{"dataset": "trec", "reason": "none"}]
    return found, read


@pytest.fixture
def whole(settings_of, tmp_path, monkeypatch):
    """(dev.json as it is to be, what is called to read it, the training's folder)."""
    found, read, model = made(settings_of, tmp_path, JUDGED_BY=("sst2",))
    # The files of its model and of its data are not there: what they would say.
    program = SimpleNamespace(computation={"dtype": "float32"})
    monkeypatch.setattr(outcomes.Run, "load", lambda folder: SimpleNamespace(program=program))
    manifest = SimpleNamespace(separator="eos", model={"dtype": "float32"}, tuning=found["tuning"])
    monkeypatch.setattr(outcomes.Manifest, "load", lambda folder: manifest)
    monkeypatch.setattr(outcomes.choosing, "steps", lambda folder: [2])
    monkeypatch.setattr(judging.adapters, "weights", lambda *arguments: None)
    monkeypatch.setattr(outcomes.records, "is_prepared", lambda *arguments: True)
    monkeypatch.setattr(outcomes, "_dev_data", lambda *arguments: {"records": 2, "digest": "d"})
    return found, read, model


@pytest.mark.parametrize("status", ["held out", "unknown", "mixed"])
def test_what_is_not_seen_chooses_nothing(figures, status):
    found, read = figures
    found["datasets"]["sst2"] |= {"status": status, "label": f"zero-shot, {status}"}
    with pytest.raises(FlanError, match=f"sst2 is {status} for its model.*nothing is chosen"):
        read()
    found["datasets"]["sst2"] |= {"status": "seen", "label": "zero-shot, seen"}
    found["dev_loss"]["datasets"] = {"cb": {"status": status, "loss": 1.0}}
    with pytest.raises(FlanError, match=f"cb is {status} for its model"):
        read()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.pop("dev_loss"), "has no dev_loss as a training writes it"),
        (lambda f: f.update(dev_loss=[]), "has no dev_loss as a training writes it"),
        (lambda f: f["dev_loss"].pop("clusters"), "has no dev_loss as a training writes it"),
        (lambda f: f["dev_loss"]["clusters"]["sentiment"].update(loss="1"), "has no dev_loss of sentiment as a"),
        (lambda f: f["dev_loss"]["clusters"]["sentiment"].update(loss=-3.0), "a dev_loss of sentiment of -3.0"),
        (lambda f: f["dev_loss"]["datasets"]["sst2"].pop("status"), "sst2 that does not say whether it was seen"),
        (lambda f: f.update(skipped=[]), "is of sst2, and sst2, trec is judged by"),
        (lambda f: None, r"trec has no result in .*step_2 .none.: remove .*, and run the study again"),
    ],
)
def test_figures_that_are_not_whole_choose_nothing(figures, change, said):
    """With one judged dataset less, a recipe was chosen by the rest without a word."""
    found, read = figures
    change(found)
    with pytest.raises(FlanError, match=said):
        read()


def test_figures_as_a_training_writes_them_are_taken(whole):
    found, read, _ = whole
    assert (read().tokens, read().seconds, read().losses) == (40, 4.0, {"sentiment": 1.0})
    for key in ("engines", "joint", "model"):  # which earlier versions do not say
        del found[key]
    del found["datasets"]["sst2"]["data"]
    assert read().score(("sst2",)) == 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.update(engines={"scorer": 0}), "was made by {'scorer': 0}"),
        (lambda f: f["settings"].update(computation={"dtype": "bfloat16"}), "in bfloat16, and its training in float32"),
        (lambda f: f["settings"].update(max_dev_examples=1), "with max_dev_examples 1, and 2 is wanted"),
        (lambda f: f["settings"].update(max_input_tokens=7), "with max_input_tokens 7, and None is wanted"),
        (lambda f: f["settings"].update(style="gpt3"), "in the style gpt3, and instructions is wanted"),
        (lambda f: f["settings"].update(seed=4), "with seed 4, and 0 is wanted"),
        (lambda f: f["datasets"]["sst2"].update(protocol="x"), "asked sst2 by another protocol"),
        (lambda f: f["datasets"]["sst2"]["templates"].pop(), "has not the templates of sst2"),
        (lambda f: f.update(joint="newline"), "with the joint newline, and eos is wanted"),
        (lambda f: f["datasets"]["sst2"]["data"]["dev"].update(digest="x"), "is of other dev records of sst2"),
        (lambda f: f.update(model={"num_layers": 99}), "is of another MODEL than"),
        (lambda f: f.update(checkpoint="other step 2"), "is of other step 2, and flan-seed_0-"),
        (lambda f: f["dev_loss"].update(loss_averaging="per_example"), "averaged per_example, and per_token is wanted"),
        (lambda f: f["dev_loss"]["datasets"].update(cb={"loss": 1.0, "status": "seen"}), "has a loss of cb"),
    ],
)
def test_figures_of_something_else_choose_nothing(whole, change, said):
    """Each was taken: nothing but weights and labels was looked at."""
    found, read, model = whole
    change(found)
    with pytest.raises(FlanError, match=f"{said}.*: remove {model}, and run the study again, which tunes it anew"):
        read()


def test_recipes_of_two_dtypes_that_nobody_named_are_not_compared(whole):
    _, read, _ = whole
    one = read()
    assert one.dtype == "float32" and judging.shared([one, dataclasses.replace(one, name="other")]) == ("sst2",)
    with pytest.raises(FlanError, match="in float32 and other in bfloat16: give TRAIN COMPUTATION"):
        judging.shared([one, dataclasses.replace(one, name="other", dtype="bfloat16")])
    assert judging.shared([one, dataclasses.replace(one, dtype="")]) == ("sst2",)  # the recipe names its dtype


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines.pop(), "it has no step 2 of 2"),
        (lambda lines: lines.pop(0), "it has no step 1 of 2"),
        (lambda lines: lines[0].update(seconds=-1.0), "its step 1 has seconds -1.0"),
        (lambda lines: lines[1].update(tokens_per_second=0), "its step 2 has tokens_per_second 0"),
        (lambda lines: lines[1].update(seconds="1"), "its step 2 has seconds '1'"),
        (lambda lines: lines[1].update(seconds=10**400), "its step 2 has seconds 1000+[.]{3}0+.: mend"),
        (lambda lines: lines[0].update(loss=None), "its step 1 has the loss None"),
        (lambda lines: lines[0].update(skipped="yes"), "its step 1 has skipped 'yes'"),
    ],
)
def test_amounts_are_of_all_steps(whole, change, said):
    """Half the tokens were printed where the last step was missing, and -17 seconds."""
    _, read, model = whole
    path = model / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(FlanError, match=f"metrics.jsonl cannot be read .{said}"):
        read()


def test_what_steps_skipped_was_not_tuned_on(whole):
    _, read, model = whole
    path = model / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0] |= {"skipped": 1, "loss": None}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (read().tokens, read().seconds) == (20, 4.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"dev_loss": {"seen/sst2": 2.0}},
            "has a dev_loss of sst2 of 1.0, and metrics.jsonl has 2.0",
        ),
        ({"dev_loss": None}, "metrics.jsonl has None at step 2"),
        ({"dev_loss_cluster": {"seen/sentiment": "1"}}, "of sentiment of 1.0, and metrics.jsonl has '1' at step 2"),
    ],
)
def test_losses_are_those_of_the_log(whole, change, said):
    """A loss that was edited was printed, and the log of another recipe gave its tokens and seconds."""
    _, read, model = whole
    path = model / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in [lines[0], lines[1] | change]))
    with pytest.raises(FlanError, match=f"{said}.*: remove {model}, and run the study again, which tunes it anew"):
        read()


@pytest.mark.parametrize(
    "text", ["", "{}", '{"tokens_per_second": 1}', '{"a": 1}\n{"b"', '{}\n{"tokens_per_second": 1}']
)
def test_a_damaged_log_of_a_training_is_named(settings_of, tmp_path, text):
    commands = recipe.plan(settings_of("recipe", **ASKED, STUDY_DIR=str(tmp_path)))
    (tuning,) = next(iter(recipe.tunings(commands.settings).values()))
    path = commands.model_dir(tuning) / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(FlanError, match="metrics.jsonl cannot be read .*: mend the line, or remove"):
        judging.amounts(commands, tuning)


def test_figures_of_test_examples_choose_nothing(figures):
    found, read = figures
    del found["split"]
    with pytest.raises(FlanError, match="has figures of test examples, not of dev: remove [^:]*, and run") as refused:
        read()
    assert "evaluate again" not in str(refused.value) and ".:" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"macros": 1, "seen": {"clusters": [], "datasets": []}}', '{"macros": {}}']
)
def test_a_damaged_recipe(tmp_path, text):
    path = tmp_path / "recipe.json"
    with pytest.raises(FlanError, match="cannot read the recipe"):
        recipes.read(str(path), ())
    path.write_text(text)
    with pytest.raises(FlanError, match="is not what python -m flan_jax.study writes"):
        recipes.read(str(path), ())


@pytest.mark.parametrize("change", [{"macros": {"LEARNING_RATE": 2.0}}, {"judged": {}}, {"score": 0.9}, {"digest": 7}])
def test_a_recipe_that_was_changed_is_refused(tmp_path, change):
    told = {"score": 0.5, "weights": ["w"], "records": {"sst2": "d"}}
    seen = [{"datasets": ["sst2"], "clusters": ["sentiment"]}]
    macros = {"LEARNING_RATE": 1.0, "FROZEN": ("a",)}
    content = recipes.content(macros, seen, score=0.5, judged={"learning rate 1": told})
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(content))
    assert recipes.read(str(path), ("nli",)) == {"LEARNING_RATE": 1.0, "FROZEN": ["a"]}
    path.write_text(json.dumps(content | change))
    with pytest.raises(FlanError, match="recipe.json was changed since it was chosen: choose it again"):
        recipes.read(str(path), ("nli",))
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())  # as some editors save it
    assert recipes.read(str(path), ("nli",))
    del content["digest"]  # as earlier versions wrote it, or who wants to change the rest
    path.write_text(json.dumps(content | {key: value for key, value in change.items() if key != "digest"}))
    with pytest.raises(FlanError, match="recipe.json has no digest, .* run its study again, .* or leave RECIPE out"):
        recipes.read(str(path), ("nli",))


def test_what_a_recipe_is_chosen_by_stands_in_it(whole):
    _, read, _ = whole
    assert read().told(("sst2",)) == {"score": 0.5, "weights": [None], "records": {"sst2": "d"}}


def test_only_a_recipe_is_judged(settings_of):
    with pytest.raises(FlanError, match="study few_shot chooses nothing by JUDGED_BY.*: leave it out"):
        study.run(settings_of("few_shot", JUDGED_BY=("sst2",)), ["again"], dry_run=True)


def test_a_recipe_that_shares_text_is_refused(tmp_path):
    content = recipes.content({"LEARNING_RATE": 1.0}, [{"datasets": ["common_gen"], "clusters": ["structure_to_text"]}])
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(content))
    assert recipes.read(str(path), ("translation",)) == {"LEARNING_RATE": 1.0}
    with pytest.raises(FlanError, match="chosen on common_gen, which shares text with snli of nli"):
        recipes.read(str(path), ("nli",))


def test_macros_that_make_a_mixture_are_in_it():
    """TRAIN may weigh and style; what that makes is what is tuned on, prepared, and checked."""
    tuning = Tuning("tiny", plans.held_out_mixture("nli"), 0, {"STYLES": ["5_shots"], "WEIGHTS": {"sst2": 2.0}})
    found = plans.resolved(
        tuning, {"TRAIN_STEPS": 1, "WEIGHTS": {"sst2": 0}, "STYLES": ["instructions", "no_template"]}
    )
    assert {style.name for style in found.parts.styles} == {"5_shots"} and found.macros["TRAIN_STEPS"] == 1
    assert next(part.weight for part in found.parts.parts if part.dataset == "sst2") == 2.0
    assert plans.resolved(found, {"STYLES": ["no_template"], "WEIGHTS": {"sst2": 0}}) == found  # done once
    bad = plans.resolved(plans.Tuning("tiny", plans.without(("nli",)), 0), {"WEIGHTS": {"rte": 1}})
    with pytest.raises(FlanError, match="would be scored as held out"):
        plans.check([plans.Arm("a", "tiny", ("rte",), tunings=(bad,))])


def test_mixtures_without_several_clusters():
    found = Tuning("tiny", plans.without(("nli", "commonsense")), 0)
    assert not found.clusters & {"nli", "paraphrase", "commonsense", "reading_comprehension_with_commonsense"}
    assert "sentiment" in found.clusters and "common_gen" not in {record.name for record in found.parts.datasets}

"""What a study has to run: shared models, names that hold what they are of, and no mix of seen and held out."""

import dataclasses
from pathlib import Path

import pytest

from flan_jax import catalog, parts, protocol, styles
from flan_jax.checkpoint.manifest import DECLARED, TUNED, UNKNOWN, UNTUNED, Manifest
from flan_jax.configuration import model_config
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.evaluation import labels
from flan_jax.studies import commands, kinds, plan
from flan_jax.studies.commands import EVAL, PREPARE, TRAIN, Commands
from flan_jax.studies.kinds import (
    datasets_and_templates,
    few_shot,
    held_out_clusters,
    number_of_clusters,
    role_of_instructions,
    scale,
)
from flan_jax.studies.plan import Arm, Tuning, held_out_mixture, without_kin
from flan_jax.studies.settings import Settings

SAMPLES = Path(__file__).parents[2] / "tasks" / "samples"
PAPERS = ("nli", "closed_book_qa", "commonsense")


def made(**changes):
    """Settings of a study of nothing in particular."""
    given = {
        "name": "any",
        "folder": Path("/studies"),
        "data": "samples",
        "models": ("tiny",),
        "clusters": ("nli",),
        "datasets": (),
        "seeds": (0, 1),
        "points": None,
        "train": {"TRAIN_STEPS": 2},
        "evaluate": {},
        "baselines": ("instructions", "gpt3"),
    }
    return Settings(**(given | changes))


def arm(tuning, datasets=("nli",), **more):
    return Arm("tuned", "tiny", datasets, tunings=(tuning,), **more)


WITHOUT_NLI = Tuning("tiny", held_out_mixture("nli"), 0)


# ------------------------------------------------------------------------------------------------------------- names


def test_studies_share_what_they_both_need():
    """The models without NLI, tuned with instructions, are the same in four studies, and so is the untuned model."""
    shared = [kinds.study(name).plan(made()) for name in ("held_out_clusters", "few_shot", "role_of_instructions")]
    folders = {planned.model_dir(WITHOUT_NLI) for planned in shared}
    assert len(folders) == 1
    for planned in shared:
        assert str(folders.copy().pop()) in {step.output for step in planned.steps}
    evaluated = [{step.output for step in planned.steps if step.job == EVAL} for planned in shared]
    assert len(set.intersection(*evaluated)) == 4  # the untuned model, asked in two ways, and both seeds


@pytest.mark.parametrize(
    ("other", "settings"),
    [
        (dataclasses.replace(WITHOUT_NLI, seed=1), {}),
        (dataclasses.replace(WITHOUT_NLI, model="gemma3-270m"), {}),
        (dataclasses.replace(WITHOUT_NLI, mixture=held_out_mixture("nli", "_no_template")), {}),
        (dataclasses.replace(WITHOUT_NLI, mixture={"mixture": "flan_without_nli", "weights": {"squad_v1": 0}}), {}),
        (dataclasses.replace(WITHOUT_NLI, macros={"LEARNING_RATE": 1e-4}), {}),
        (dataclasses.replace(WITHOUT_NLI, start=dataclasses.replace(WITHOUT_NLI, seed=3)), {}),
        (WITHOUT_NLI, {"train": {"TRAIN_STEPS": 3}}),
        (WITHOUT_NLI, {"train": {"TRAIN_STEPS": 2, "BATCH_SIZE": 4}}),
    ],
)
def test_another_recipe_has_another_folder(other, settings):
    first = Commands(made(), [], [WITHOUT_NLI]).model_dir(WITHOUT_NLI)
    assert Commands(made(**settings), [], [other]).model_dir(other) != first


def test_another_evaluation_has_another_folder():
    changes = [{}, {"style": "5_shots"}, {"evaluate": {"MAX_EXAMPLES": 3}}, {"datasets": ("rte",)}]
    found = [Commands(made(), [arm(WITHOUT_NLI, **more)]) for more in changes]
    found.append(Commands(made(evaluate={"MAX_EXAMPLES": 4}), [arm(WITHOUT_NLI)]))
    outputs = {step.output for planned in found for step in planned.steps if step.job == EVAL}
    assert len(outputs) == len(found)


@pytest.fixture
def reword(monkeypatch):
    """(dataset) changes a word of its first template."""
    made_of = protocol.of

    def change(name):
        def of(record, style=styles.PAPER):
            asked = made_of(record, style)
            first = dataclasses.replace(asked.templates[0], input=f"Now: {asked.templates[0].input}")
            changed = dataclasses.replace(asked, templates=(first, *asked.templates[1:]))
            return changed if record.name == name else asked

        monkeypatch.setattr(protocol, "of", of)
        commands.text_digest.cache_clear()

    yield change
    commands.text_digest.cache_clear()


def test_what_was_made_with_an_earlier_wording_is_not_done(reword):
    """Templates may be reworded under a study's folder: models get other folders, and evaluations are made anew."""

    def steps(*tunings, job):
        planned = Commands(made(), [Arm("any", "tiny", ("rte",), tunings=tunings)])
        return {step.name: step.output for step in planned.steps if step.job == job}

    def all_steps():
        untuned = steps(job=EVAL)
        return untuned, steps(WITHOUT_NLI, job=TRAIN), steps(WITHOUT_NLI, job=EVAL), steps(WITHOUT_NLI, job=PREPARE)

    untuned, trained, evaluated, prepared = all_steps()
    reword("sst2")
    of_tuning = all_steps()
    assert of_tuning[0] == untuned  # it is not asked with that wording
    assert not {*trained, *trained.values()} & {*of_tuning[1], *of_tuning[1].values()}
    assert not {*evaluated, *evaluated.values()} & {*of_tuning[2], *of_tuning[2].values()}
    assert of_tuning[3].keys() != prepared.keys() and list(of_tuning[3].values()) == list(prepared.values())
    reword("rte")
    of_test = all_steps()
    assert of_test[1] == trained
    # The same folders, so that predictions with the other templates are used again.
    assert not of_test[0].keys() & untuned.keys() and list(of_test[0].values()) == list(untuned.values())
    assert not of_test[2].keys() & evaluated.keys() and list(of_test[2].values()) == list(evaluated.values())


def test_a_folder_that_was_moved_has_the_same_steps():
    """Names do not hold where the study lies, so that what is done stays done."""
    names = [[s.name for s in number_of_clusters.plan(made(folder=Path(f))).steps] for f in ("/here", "/else/where")]
    assert names[0] == names[1]


@pytest.mark.parametrize("name", sorted(kinds.studies()))
def test_nothing_comes_before_what_it_needs(name):
    study = kinds.study(name)
    planned = study.plan(made(max_points=3))
    done = set()
    for step in planned.steps:
        assert set(step.after) <= done
        assert step.name not in done and len(step.name) <= 40
        done.add(step.name)
    assert len({step.output for step in planned.steps}) == len(planned.steps)


def test_a_study_without_steps_to_train_is_refused():
    with pytest.raises(FlanError, match="TRAIN_STEPS"):
        Commands(made(train={}), [arm(WITHOUT_NLI)])


def test_an_unknown_model_is_refused():
    with pytest.raises(FlanError, match="gemma3"):
        Commands(made(models=("gemma3-27m",)), [Arm("untuned", "gemma3-27m", ("nli",))])


# ------------------------------------------------------------------------------------------------- seen and held out


@pytest.mark.parametrize("cluster", [cluster.name for cluster in catalog.clusters()])
def test_held_out_mixtures_have_no_kin(cluster):
    """No dataset that shares text with the cluster's is left, nor one of a cluster that the rule counts with it."""
    members = parts.of(held_out_mixture(cluster)).datasets
    kin = {other for record in catalog.datasets(cluster) for other in catalog.kin_of(record.name)}
    assert not {record.name for record in members} & kin
    assert not {record.cluster for record in members} & catalog.held_out_together(cluster)
    plan.check([arm(Tuning("tiny", held_out_mixture(cluster), 0), (cluster,))])


@pytest.mark.parametrize(
    ("tuning", "datasets", "said"),
    [
        (Tuning("tiny", "flan", 0), ("nli",), "would be scored as held out, and mixture flan has clusters"),
        (Tuning("tiny", "flan_without_nli", 0), ("sentiment",), "has clusters"),
        (Tuning("tiny", held_out_mixture("sentiment"), 0), ("sentiment", "nli"), "has clusters"),
        # paraphrase goes with NLI, and reading comprehension with commonsense with both of its halves
        (Tuning("tiny", {"parts": [{"of": "glue_mrpc"}]}, 0), ("rte",), "has clusters"),
        (Tuning("tiny", "record", 0), ("squad_v1",), "has clusters"),
        (Tuning("tiny", "flan_without_nli", 0), ("nli",), "shares text with it: give it a weight of 0"),
        (Tuning("tiny", "squad_v1", 0), ("qnli",), "squad_v1, which shares text"),
        (Tuning("tiny", "wiki_lingua_english_en", 0), ("hellaswag",), "wiki_lingua_english_en, which shares text"),
        (Tuning("tiny", "sst2", 0, start=Tuning("tiny", "rte", 0)), ("nli",), "has clusters"),
        (Tuning("tiny", "sst2", 0, start=Tuning("tiny", "squad_v2", 0)), ("qnli",), "squad_v2, which shares text"),
    ],
)
def test_seen_is_not_scored_as_held_out(tuning, datasets, said):
    with pytest.raises(FlanError, match=said):
        Commands(made(), [arm(tuning, datasets)])
    Commands(made(), [arm(tuning, datasets, status=labels.SEEN)])  # a study that says so may


@pytest.mark.parametrize(
    ("study", "clusters"),
    [
        (number_of_clusters, ("nli", "sentiment")),
        (number_of_clusters, ("summarization",)),
        (datasets_and_templates, ("nli", "translation")),
    ],
)
def test_clusters_that_a_studys_mixtures_tune_on_are_refused(study, clusters):
    with pytest.raises(FlanError, match="leave it out of one of the two"):
        study.plan(made(clusters=clusters))


@pytest.mark.parametrize(
    ("status", "datasets", "clusters"),
    [
        (UNTUNED, [], []),
        (TUNED, ["sst2"], ["sentiment"]),
        (TUNED, ["rte"], ["nli"]),
        (DECLARED, [], ["paraphrase"]),
        (UNKNOWN, [], []),
    ],
)
def test_a_model_that_was_tuned_is_refused_before_anything_runs(tmp_path, status, datasets, clusters):
    """Its scores would stand as those of the untuned model."""
    tuning = {"status": status, "datasets": datasets, "clusters": clusters, "text": []}
    manifest = Manifest.create(model_config("tiny"), ByteTokenizer(), UNTUNED)
    dataclasses.replace(manifest, tuning=tuning).save(tmp_path)
    asked = [Arm("untuned", str(tmp_path), ("nli",))]
    if status == UNTUNED:
        Commands(made(models=(str(tmp_path),)), asked)
        return
    with pytest.raises(FlanError, match=f"untuned: .* is {status} by its manifest.json"):
        Commands(made(models=(str(tmp_path),)), asked)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"evaluate": {"PARAMETERS": "ema"}}, "EVAL has PARAMETERS='ema', and TRAIN no EMA_DECAY"),
        ({"evaluate": {"GENERATE": False}, "clusters": ("structure_to_text",)}, "has no options to rank"),
        ({"data": str(SAMPLES / "rte"), "clusters": ("nli",)}, "has nothing of nli: add it, or leave it out"),
    ],
)
def test_an_evaluation_without_a_result_is_refused_before_the_trainings(given, said):
    with pytest.raises(FlanError, match=said):
        held_out_clusters.plan(made(**given))


def test_the_mean_over_steps_is_of_tuned_models():
    """Each evaluation of an untuned model failed, since it has none."""
    commands = held_out_clusters.plan(
        made(train={"TRAIN_STEPS": 2, "EMA_DECAY": 0.5}, evaluate={"PARAMETERS": "ema"}, clusters=("nli",))
    )
    asked = {step.name: "--gin.PARAMETERS='ema'" in step.argv for step in commands.steps if step.job == EVAL}
    assert set(asked.values()) == {True, False}
    assert all(has is ("untuned" not in name) for name, has in asked.items())


def test_the_untuned_model_is_asked_at_the_step_that_tuning_starts_from():
    commands = held_out_clusters.plan(made(train={"TRAIN_STEPS": 2, "INITIAL_STEP": 7}, clusters=("nli",)))
    asked = {step.name: "--gin.STEP=7" in step.argv for step in commands.steps if step.job == EVAL}
    assert set(asked.values()) == {True, False}
    assert all(has is ("untuned" in name) for name, has in asked.items())


def test_several_seeds_of_an_evaluation_are_refused():
    """Each step would write subfolders and end well, without the results that are wanted."""
    with pytest.raises(FlanError, match="EVAL has SEEDS .0, 1.: an evaluation of a study has one seed"):
        Commands(made(evaluate={"SEEDS": (0, 1)}), [Arm("untuned", "tiny", ("nli",))])


def test_a_model_of_which_nobody_knows_is_refused():
    with pytest.raises(FlanError, match="nobody knows what smollm2-135m-instruct was tuned on"):
        Commands(made(), [Arm("untuned", "smollm2-135m-instruct", ("nli",))])


# ------------------------------------------------------------------------------------------------------------ points


@pytest.mark.parametrize(
    ("most", "kept"), [(None, (0, 1, 4, 16)), (1, (0,)), (2, (0, 16)), (3, (0, 4, 16)), (9, (0, 1, 4, 16))]
)
def test_points_that_are_kept(most, kept):
    assert tuple(point.shots for point in few_shot.points(made(max_points=most))) == kept


@pytest.mark.parametrize(
    ("study", "points"),
    [
        (number_of_clusters, (0,)),
        (number_of_clusters, (8,)),
        (number_of_clusters, ("all",)),
        (number_of_clusters, (True,)),
        (few_shot, (17,)),
        (few_shot, (-1,)),
        (few_shot, (1.5,)),
        (role_of_instructions, ("instructions",)),
        (role_of_instructions, (("instructions", "instruktions"),)),
        (role_of_instructions, (("instructions", "5_shots"), ("instructions", "instructions"))),
        (role_of_instructions, (("instructions", "10_templates"), ("instructions", "instructions"))),
        (datasets_and_templates, (3,)),
        (datasets_and_templates, ((0, 4),)),
        (datasets_and_templates, ((1, 11),)),
        (datasets_and_templates, ((1, 4, 10),)),
        (datasets_and_templates, ((True, 4),)),
    ],
)
def test_points_of_another_kind_are_refused(study, points):
    with pytest.raises(FlanError) as refused:
        study.plan(made(points=points))
    assert "\n" not in str(refused.value)


def test_datasets_are_counted_without_kin():
    """The first dataset of each of the seven clusters, though two have kin of what is evaluated as their first."""
    settings = made(clusters=PAPERS)
    for count in (1, 2, 4):
        made_of = parts.of(datasets_and_templates.mixture(settings, count, 4))
        assert len({record.cluster for record in made_of.datasets}) == 7
        assert {style.name for style in made_of.styles} == {"4_templates"}
    first = {record.name for record in parts.of(datasets_and_templates.mixture(settings, 1, 10)).datasets}
    assert {"drop", "dart"} <= first and not first & {"bool_q", "common_gen"}


def test_datasets_that_the_data_lack_are_not_counted(tmp_path):
    for name in ("squad", "openbookqa", "sst2"):
        (tmp_path / name).mkdir()
    found = parts.of(datasets_and_templates.mixture(made(data=str(tmp_path), clusters=PAPERS), 1, 1)).datasets
    assert {record.name for record in found} == {"openbookqa", "sst2"}  # SQuAD is kin of QNLI
    with pytest.raises(FlanError, match="no dataset of the clusters that are tuned on"):
        datasets_and_templates.mixture(made(data=str(tmp_path / "sst2")), 1, 1)


def test_kin_is_left_out_of_the_number_of_clusters():
    for group in number_of_clusters.tuned(made(clusters=PAPERS)):
        (tuned,) = group.each
        assert tuned.tunings[0].mixture == without_kin(f"flan_first_{tuned.x}_clusters", PAPERS)
        assert not {"squad_v1", "bool_q", "common_gen"} & {r.name for r in tuned.tunings[0].parts.datasets}


def test_only_some_datasets_and_templates_are_evaluated():
    """DATASETS and the first style of BASELINES with instructions hold for what every study asks."""
    settings = made(clusters=("nli", "commonsense"), datasets=("rte", "copa"), baselines=("gpt3", "2_templates"))
    for study in (number_of_clusters, role_of_instructions, few_shot, datasets_and_templates, scale):
        arms = study.plan(settings).arms
        assert {name for one in arms for name in one.datasets} == {"rte", "copa"}
        asked = {dataclasses.replace(styles.parse(one.style), shots=0).name for one in arms}
        assert asked == {"gpt3", "2_templates"} | ({"dataset_name"} if study is role_of_instructions else set())
        assert {len(one.datasets) for one in arms if "without" in one.name} <= {1}


def test_sizes_have_short_names_where_these_differ():
    def names(*models):
        return [size.name for size in scale.sizes(made(models=models))]

    assert names("tiny", "/models/second") == ["tiny", "second"]
    assert names("/models/one/last", "/models/two/last") == ["/models/one/last", "/models/two/last"]

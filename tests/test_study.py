"""The command; tests/studies runs each study to its end."""

import json
import os
import shutil
from pathlib import Path

import pytest

from flan_jax import convert, study
from flan_jax.errors import FlanError
from flan_jax.studies import commands
from flan_jax.studies import settings as studied

TINY = ["--gin_file=studies/held_out_clusters.gin", "--budget=tiny", "--gin.DATA='samples'"]


def test_studies_are_listed(capsys):
    study.main(["--list"])
    listed = capsys.readouterr().out
    assert {"held_out_clusters", "number_of_clusters", "scale", "role_of_instructions", "few_shot", "recipe"} <= {
        line.partition(":")[0] for line in listed.splitlines()
    }


def test_a_plan_writes_nothing(tmp_path, capsys):
    study.main([*TINY, f"--gin.STUDY_DIR='{tmp_path / 'studies'}'", "--dry_run", "--json"])
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    jobs = [step["job"] for step in plan["steps"]]
    assert jobs == ["convert", "prepare", "train", "train", "eval", "eval", "eval", "eval"]
    assert not any(step["done"] for step in plan["steps"])
    assert not list(tmp_path.iterdir())


def test_units_for_a_launcher(tmp_path, capsys):
    units = tmp_path / "units.json"
    study.main([*TINY, f"--gin.STUDY_DIR='{tmp_path / 'studies'}'", f"--units={units}"])
    found = json.loads(units.read_text())["units"]
    assert len(found) == 8 and all(set(unit["after"]) <= {u["name"] for u in found} for unit in found)
    assert max(len(unit["name"]) for unit in found) <= 40


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the study"),
        (["--gin_file=studies/nothing.gin"], "no gin file"),
        ([*TINY, "--gin.STUDY='held_out_cluster'"], "held_out_clusters"),
        ([*TINY, "--gin.POINTS=(1, 2)"], "POINTS"),
        ([*TINY, "--gin.TUNING_SEEDS=(1, 1)"], "TUNING_SEEDS"),
        ([*TINY, "--gin.CLUSTERS=('nil',)"], "nli"),
        ([*TINY, "--gin.DATASETS=('sst2',)"], "sst2"),
        ([*TINY, "--gin.MODELS=('gemma',)"], "gemma"),
        ([*TINY, "--gin.TRAIN={'TRAIN_STEPS': 'many'}"], "TRAIN_STEPS"),
        ([*TINY, "--gin.TRAIN={'MODEL_DIR': 'here'}"], "MODEL_DIR"),
        ([*TINY, "--gin.TRAIN={'TRAIN_STEP': 3}"], "TRAIN_STEPS"),
        ([*TINY, "--gin.EVAL={'STYLE': 'gpt3'}"], "STYLE"),
        ([*TINY, "--gin.BASELINES=('instructions', '1_shots')"], "BASELINES has '1_shots', and a study's scores"),
        ([*TINY, "--gin.BASELINES=('5_shared_shots',)"], "BASELINES has '5_shared_shots', and a study's scores"),
        ([*TINY, "--gin.BASELINES=('lettered_options_5_shots', '5_shots_lettered_options')"], "BASELINES has"),
        (
            [
                *TINY,
                "--gin.STUDY='options'",
                "--gin.POINTS=('without_options_5_templates', '5_templates_without_options')",
            ],
            "POINTS has the style",
        ),
        *(
            ([*TINY, f"--gin.TRAIN={{'TRAIN_STEPS': 2, {macros}}}"], said)
            for macros, said in [
                ("'OPTIMIZER': 'adamV'", "OPTIMIZER: unknown optimizer 'adamV': did you mean 'adamw'?"),
                ("'OPTIMIZER': 'lion(b1=3)'", "lion.b1 is 3: it has to be"),
                ("'OPTIMIZER': 'optax:adamv'", "optax has no adamv"),
                ("'SCHEDULE': 'cos'", "flan_jax: SCHEDULE: unknown schedule 'cos': did you mean 'cosine'"),
                ("'OPTIMIZER': 'optax:adamw', 'SCHEDULE': 'cos'", "flan_jax: SCHEDULE: unknown schedule 'cos'"),
                ("'OPTIMIZER': 'sgd(schedule=3)'", "flan_jax: OPTIMIZER: "),
                ("'SCHEDULE': 'cosine', 'WARMUP_STEPS': 2", "SCHEDULE: schedule 'cosine': a warm-up of 2 steps"),
                ("'WARMUP_STEPS': 5", "WARMUP_STEPS 5 is more than TRAIN_STEPS 2"),
                ("'BATCH_SIZE': 8, 'MICROBATCHES': 3", "BATCH_SIZE 8 is no multiple of MICROBATCHES 3"),
                ("'BATCH_SIZE': 3, 'MESH': {'data': 2}", "BATCH_SIZE 3 in 1 part (MICROBATCHES) cannot be split"),
                ("'MESH': {'data': -1, 'fsdp': -1}", "only one axis can take what is left"),
                ("'LORA': {'rank': 2}, 'FROZEN': 'mlp'", "LORA trains adapters, and nothing else"),
                ("'HOOKS': 'no_such_module:Hook'", "HOOKS: 'no_such_module:Hook': it is not on Python's path"),
                ("'HOOKS': 'fractions:Fraction(x=1)'", "HOOKS: 'fractions:Fraction(x=1)': it does not take these"),
                ("'WEIGHTS': {'nil': 0}", "key 'nil': unknown dataset or cluster 'nil': did you mean 'nli'"),
                ("'WEIGHTS': {3: 0}", "key 3 has to be the name of a dataset, a cluster or a part"),
                ("'WEIGHTS': {'nli': -1}", "'nli' has to be 0, or a number from"),
                ("'STYLES': {'5_shotz': 1}", "key '5_shotz': unknown style"),
            ]
        ),
        ([*TINY, "--gin.EVAL={'MESH': {'data': -1, 'fsdp': -1}}"], "only one axis can take what is left"),
        (
            [*TINY, "--gin.STUDY='recipe'", "--gin.POINTS=({'SCHEDULE': 'cos'},)"],
            "flan_jax: SCHEDULE: unknown schedule 'cos'",
        ),
        ([*TINY, "--gin.DATASETS=('nli', 'rte')"], "DATASETS has 'rte' and 'nli', and the second has all"),
        ([*TINY, "--gin.DATASETS=('rte', 'nli')"], "DATASETS has 'rte' and 'nli', and the second has all"),
        (
            [*TINY, "--gin.CLUSTERS=('translation',)", "--gin.DATASETS=('wmt14_enfr', 'wmt14_enfr/fr-en')"],
            "DATASETS has 'wmt14_enfr/fr-en' and 'wmt14_enfr', and the second has all",
        ),
        *(
            ([*TINY, "--gin.STUDY='role_of_instructions'", f"--gin.POINTS=(({style!r}, 'instructions'),)"], said)
            for style, said in [("", "unknown style ''"), ("5_shots_", "unknown style '5_shots_'")]
        ),
        ([*TINY, "--gin.STUDY='options'", "--gin.POINTS=('',)"], "unknown style ''"),
        ([*TINY, "--gin.DATA='no/such'"], "/no/such': there is no such folder"),
        ([*TINY, "--gin.STUDY='options'", "--gin.POINTS=(1,)"], "unknown style 1"),
        ([*TINY, "--gin.STUDY='options'", "--gin.POINTS=(b'gpt3',)"], "unknown style b'gpt3'"),
        ([*TINY, "--gin.STUDY='role_of_instructions'", "--gin.POINTS=((1, 2),)"], "unknown style 1"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, capsys, arguments, said):
    given = [*arguments, f"--gin.STUDY_DIR='{tmp_path / 'studies'}'"] if len(arguments) > 1 else arguments
    with pytest.raises(SystemExit) as stopped:
        study.main([*given, "--dry_run"])
    _, err = capsys.readouterr()
    assert stopped.value.code == 2 and err.count("\n") == 1 and said in err, err
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("other", ["{0}/", "{0}/.", "{0}/../M", "{0}_link"])
def test_one_folder_is_no_two_models(tmp_path, capsys, other):
    (tmp_path / "M").mkdir()
    (tmp_path / "M_link").symlink_to(tmp_path / "M")
    models = (str(tmp_path / "M"), other.format(tmp_path / "M"))
    with pytest.raises(SystemExit):
        study.main([*TINY, f"--gin.STUDY_DIR='{tmp_path / 'studies'}'", f"--gin.MODELS={models}", "--dry_run"])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"MODELS has {models[0]!r} and {models[1]!r}, which are one folder" in said


def test_a_packaged_model_and_its_folder_are_one_model(tmp_path, capsys):
    """ "Of 2 sizes ...", and both were one."""
    place = tmp_path / "studies" / "models" / "tiny"
    with pytest.raises(SystemExit):
        study.main(
            [*TINY, f"--gin.STUDY_DIR='{tmp_path / 'studies'}'", f"--gin.MODELS=('tiny', '{place}')", "--dry_run"]
        )
    assert f"MODELS has 'tiny' and '{place}', which are one folder" in capsys.readouterr().err


def test_a_copy_of_a_model_is_no_size_of_its_own(tmp_path, settings_of_models):
    """ "Of 2 sizes 2 gain for sure", and both were one."""
    one, other = (str(tmp_path / name) for name in ("one", "other"))
    convert.convert("tiny", one, tuning="untuned")
    shutil.copytree(one, other)
    with pytest.raises(FlanError, match="MODELS has '.*one' and '.*other', which have the same weights: leave one out"):
        settings_of_models(one, other)
    assert settings_of_models("tiny", one).models == ("tiny", one)  # that of the study is not there yet
    (saved,) = Path(other).glob("checkpoints/*/digests")
    shutil.rmtree(saved)  # an earlier version saved none
    assert settings_of_models(one, other).models == (one, other)


def test_a_model_has_one_name_by_whatever_path_it_is_given(tmp_path, settings_of_models, monkeypatch):
    """`.`, a link or a path with `..` had everything tuned again."""
    home = Path(os.path.realpath(tmp_path))
    (home / "here" / "model").mkdir(parents=True)
    (home / "link").symlink_to(home / "here" / "model")
    whole = str(home / "here" / "model")
    for folder, given in [("here/model", "."), ("here/model", "./"), ("here", "model"), ("here", "./model/")]:
        monkeypatch.chdir(home / folder)
        assert settings_of_models(given).models == (whole,)
    for given in (whole, f"{whole}/../model", f"{home}/link", "../here/model"):
        assert settings_of_models(given).models == (whole,)
    (home / "tiny").mkdir()
    monkeypatch.chdir(home)
    assert settings_of_models("tiny").models == ("tiny",) and settings_of_models("./tiny").models == (f"{home}/tiny",)
    assert settings_of_models("gemma3-27m").models == ("gemma3-27m",)  # which the plan says that there is not
    begun = home / "studies" / "prepared" / studied.model_key(home / "link")  # by an earlier version
    begun.mkdir(parents=True)
    assert settings_of_models(f"{home}/link").models == (f"{home}/link",)
    assert studied.model_key(Path(whole)) == f"model-{commands.digest(whole)}"  # as it was


@pytest.fixture
def settings_of_models(tmp_path):
    """(models) -> the settings of a study of theirs."""

    def made(*models):
        folder = os.path.realpath(tmp_path / "studies")
        bindings = [f"STUDY_DIR = '{folder}'", "DATA = 'samples'", f"MODELS = {models!r}"]
        return study.settings_of(["studies/scale.gin", "studies/budgets/tiny.gin"], bindings)

    return made


def test_a_folder_that_cannot_be_made_is_refused_at_the_plan(tmp_path, capsys, read_only_disk):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "studies", read_only_disk / "studies"):
        with pytest.raises(SystemExit):
            study.main([*TINY, f"--gin.STUDY_DIR='{folder}'", "--dry_run"])
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"cannot write {folder}" in said and said.rstrip().endswith("."), said
    assert {path.name for path in tmp_path.iterdir()} == {"file", "read_only"}


def test_a_folder_in_which_checkpoints_would_be_lost_is_refused_at_the_plan(tmp_path, capsys):
    with pytest.raises(SystemExit):
        study.main([*TINY, f"--gin.STUDY_DIR='{tmp_path / 'studies [new]'}'", "--dry_run"])
    assert "cannot hold checkpoints, since [ in a path is a pattern to Orbax" in capsys.readouterr().err


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_the_tiny_budget_fits_machines_of_several_devices(tmp_path, devices):
    settings = study.settings_of(
        ["studies/held_out_clusters.gin", "studies/budgets/tiny.gin"],
        [f"STUDY_DIR = {str(tmp_path)!r}", "DATA = 'samples'"],
    )
    assert settings.train["BATCH_SIZE"] % devices == 0 and "MESH" not in settings.train  # which takes all of them


@pytest.mark.parametrize("file", ["quickstart.gin", "budgets/small.gin"])
def test_the_few_rows_of_small_studies_fit_any_number_of_devices(tmp_path, file):
    settings = study.settings_of(
        [*dict.fromkeys(["studies/held_out_clusters.gin", f"studies/{file}"])],
        [f"STUDY_DIR = {str(tmp_path)!r}", "DATA = 'samples'"],
    )
    mesh = settings.train["MESH"]
    assert mesh["data"] * mesh["fsdp"] == 1 and mesh["tensor"] == -1 and settings.train["BATCH_SIZE"] < 8


def test_another_kind_of_data_is_refused(tmp_path, capsys):
    (tmp_path / "data.json").write_text('{"data": "tfds"}')
    with pytest.raises(SystemExit):
        study.main([*TINY, f"--gin.STUDY_DIR='{tmp_path}'", "--dry_run"])
    assert "made from DATA tfds, not samples" in capsys.readouterr().err


@pytest.mark.parametrize(
    "seen",
    [
        {"clusters": ["sentiment"], "datasets": [1]},
        {"clusters": ["sentiment"], "datasets": [None]},
        {"clusters": "nli", "datasets": ["sst2"]},
        {"clusters": [], "datasets": []},
        {"clusters": ["nope"], "datasets": ["sst2"]},
        {"clusters": ["sentiment"], "datasets": ["nope"]},
        {"clusters": ["sentiment"], "datasets": ["rte"]},  # of what is held out
    ],
)
def test_a_recipe_that_was_edited_is_refused(tmp_path, capsys, seen):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"macros": {}, "seen": seen}))
    with pytest.raises(SystemExit):
        study.main([*TINY, f"--gin.STUDY_DIR='{tmp_path / 'studies'}'", f"--gin.RECIPE='{recipe}'", "--dry_run"])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"RECIPE {recipe}" in said, said

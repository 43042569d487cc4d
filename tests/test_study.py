"""The command; tests/studies runs each study to its end."""

import json

import pytest

from flan_jax import study

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
        ([*TINY, "--gin.BASELINES=('lettered_options_5_shots', '5_shots_lettered_options')"], "BASELINES has"),
        (
            [
                *TINY,
                "--gin.STUDY='options'",
                "--gin.POINTS=('without_options_5_templates', '5_templates_without_options')",
            ],
            "POINTS has the style",
        ),
        ([*TINY, "--gin.DATA='no/such'"], "DATA is 'no/such': there is no such folder"),
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

"""Each of the paper's first studies from its plan to its page, by a random model on two examples a dataset."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import pytest

from flan_jax import configuration, models
from flan_jax.checkpoint import saving
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.studies import outcomes
from flan_jax.studies.kinds import few_shot

pytestmark = pytest.mark.slow
PNG = b"\x89PNG"
SAMPLES = Path(__file__).parents[2] / "tasks" / "samples"


def check_folder(found, folder, *figures):
    """The page, the table and the figures are there, and say what study.json says."""
    assert json.loads((folder / "study.json").read_text()) == found
    page, text = (folder / "study.html").read_text(), (folder / "study.md").read_text()
    assert "Evaluated with MAX_EXAMPLES=2" in text
    for sentence in found["said"]:
        assert sentence in text
    for name in figures:
        assert (folder / f"{name}.png").read_bytes().startswith(PNG)
        assert f"{name}.png" in text and page.count("data:image/svg") >= len(figures)


def test_held_out_clusters(run_study):
    found, folder = run_study("held_out_clusters", TUNING_SEEDS=(0, 1))
    check_folder(found, folder, "clusters", "gains")
    assert "copying |" not in (folder / "study.md").read_text()
    (cluster,) = found["clusters"].values()
    assert cluster["datasets"] == ["cb"] and len(cluster["tuned_of_seeds"]) == 2
    assert cluster["paper"]["FLAN 137B"] == 56.2


def test_copying_stands_beside_generated_answers(run_study, tmp_path):
    """A random model has less than the given words repeated, and the page says so; options have guessing."""
    for name in ("common_gen", "cb", "sst2"):
        shutil.copytree(SAMPLES / name, tmp_path / "data" / name)
    found, folder = run_study(
        "held_out_clusters",
        CLUSTERS=("structure_to_text", "nli"),
        STUDY_DIR=str(tmp_path / "studies"),
        DATA=str(tmp_path / "data"),
    )
    check_folder(found, folder, "clusters", "gains")
    words, labels = found["clusters"]["structure_to_text"], found["clusters"]["nli"]
    assert words["guessing"] is None and 0.2 < words["copying"] < 1
    assert labels["copying"] is None and labels["guessing"] == pytest.approx(1 / 3)
    (said,) = (line for line in found["said"] if line.startswith("Repeating the given text"))
    assert f"common_gen ({100 * words['copying']:.1f})" in said
    text = (folder / "study.md").read_text()
    assert "| guessing | copying |" in text


def test_number_of_clusters(run_study):
    """Its mean is that of the clusters' means, and its first point is the untuned model."""
    found, folder = run_study("number_of_clusters", CLUSTERS=("nli", "commonsense"), POINTS=(6, 3))
    check_folder(found, folder, "number_of_clusters")
    groups = found["groups"]
    assert list(groups) == ["untuned", "untuned, GPT-3's manner", "3 clusters", "6 clusters"]
    assert [groups[name].get("x") for name in groups] == [None, None, 3, 6]
    six = groups["6 clusters"]
    assert six["mean"]["mean"] == pytest.approx((six["nli"]["mean"] + six["commonsense"]["mean"]) / 2)
    text = (folder / "study.md").read_text()
    assert "| 3 clusters |" in text and "| 1 dataset of 1 cluster | 59.3 |" in text
    assert "| 2 datasets of 2 clusters | 61.9 |" in text
    assert all(gain["verdict"] == "n < 50" for pair in found["gains"].values() for gain in pair.values())


@pytest.fixture
def smaller(tmp_path):
    """A checkpoint folder of a smaller random model than "tiny"."""
    shape = {"num_layers": 2, "embed_dim": 16, "head_dim": 8, "num_heads": 2, "num_kv_heads": 1, "mlp_dim": 32}
    config = dataclasses.replace(configuration.model_config("tiny"), **shape)
    with saving.Saver(tmp_path / "smaller") as saver:
        saver.save(0, jax.jit(models.build(config).init)(jax.random.key(0)))
    Manifest.create(config, ByteTokenizer(), UNTUNED).save(tmp_path / "smaller")
    ByteTokenizer().save(tmp_path / "smaller" / "vocabulary")
    return tmp_path / "smaller"


def test_scale(run_study, smaller):
    """Sizes are those of the models' manifests, and stand in order."""
    found, folder = run_study("scale", MODELS=("tiny", str(smaller)))
    check_folder(found, folder, "scale")
    assert found["parameters"]["tiny"] == 623_872
    assert found["parameters"][str(smaller)] == 384 * 16 + 16 + 2 * (2 * 16 + 16 * (16 + 8 + 8) + 16 * 16 + 3 * 16 * 32)
    places = [group["x"] for group in found["groups"].values()]
    assert places == sorted(places) and len(set(places)) == 2
    assert list(found["gains"]) == ["smaller (10.8k) tuned, beside untuned", "tiny (624k) tuned, beside untuned"]


def test_role_of_instructions(run_study):
    found, folder = run_study("role_of_instructions", MAX_POINTS=3)
    check_folder(found, folder, "role_of_instructions")
    assert found["paper"]["tuned with dataset names, asked with instructions"] == 46.6
    assert len(found["gains"]) == 3 and all(set(of_pair) == {"nli"} for of_pair in found["gains"].values())


def test_few_shot(run_study, settings_of):
    """All shots are of the same models, which saw none in tuning."""
    found, folder = run_study("few_shot", POINTS=(0, 2))
    check_folder(found, folder, "few_shot", "templates")
    assert found["paper"] == {"FLAN 137B, zero-shot": {"nli": 54.7}, "FLAN 137B, few-shot": {"nli": 59.3}}
    fitting = {name: of["nli"] for name, of in found["exemplars"].items()}
    assert all(mean == 0 if "0 exemplars" in name else 0 < mean <= 2 for name, mean in fitting.items())
    assert "exemplars that fit, mean |" in (folder / "study.md").read_text()
    asked = settings_of("few_shot", POINTS=(0, 2))
    folders = {path.name for path in (asked.folder / "evals").iterdir()}
    assert sum("2_shots" in name for name in folders) == 3  # untuned in two ways, and tuned
    results = next((asked.folder / "evals").glob("flan_without_nli*2_shots*/results.json"))
    figures = json.loads(results.read_text())["datasets"]["cb"]
    assert figures["label"] == "few-shot (2), held out"
    commands = few_shot.plan(asked)
    step = next(one for one in commands.steps if one.output == str(results.parent))
    assert figures["data"]["exemplars"]["records"] > 2 and outcomes.problem(commands, step) == ""
    kept = results.read_text()
    results.write_text(kept.replace(figures["data"]["exemplars"]["digest"], "0" * 64))
    assert "is of other exemplars records of cb" in outcomes.problem(commands, step)
    results.write_text(kept)


def test_datasets_and_templates(run_study):
    """The more templates are beside the fewer, and all say what the models were in fact tuned on."""
    found, folder = run_study("datasets_and_templates", POINTS=((1, 1), (1, 10)))
    check_folder(found, folder, "datasets_and_templates")
    assert (folder / "study.md").read_text().count("| 2 datasets of 2 clusters |") == 2
    assert list(found["gains"]) == [
        "1 dataset, 10 templates, beside the better untuned",
        "1 dataset, 10 templates, beside 1 dataset, 1 template",
    ]

"""Jobs on tiny checkpoints: several of them, all steps, one a cluster, and a training run that is followed."""

import dataclasses
import json
import threading
import time

import filelock
import jax
import numpy as np
import pytest

from flan_jax import catalog, configuration, models, partitioning, reporting
from flan_jax import eval as eval_binary
from flan_jax.checkpoint import saving
from flan_jax.checkpoint.manifest import DECLARED, Manifest
from flan_jax.data import examples as example_files
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator, jobs, labels

CONFIG = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=1, embed_dim=32, head_dim=8, mlp_dim=32, remat="none"
)
BYTES = ByteTokenizer()
TEST, DEV = 3, 1
SETTINGS = evaluator.Settings(max_input_tokens=1024, max_new_tokens=4)


def _checkpoint(folder, steps, clusters=(), last_step=None):
    network = models.build(CONFIG)
    with saving.Saver(folder, keep=5) as saver:
        for step in steps:
            saver.save(step, jax.jit(network.init)(jax.random.key(step)))
    manifest = Manifest.create(CONFIG, BYTES, DECLARED, clusters)
    if last_step is not None:
        record = {"steps": last_step}
        manifest = manifest.inherit(datasets=[], clusters=list(clusters), separator="eos", record=record)
    manifest.save(folder)
    BYTES.save(folder / "vocabulary")
    return str(folder)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    words = [word for _, word in catalog.dataset("rte").labels]
    common = {"premise": "grass is green", "hypothesis": "it is", "options": words, "answer": words[0]}
    fields = {
        "rte": common,
        "sst2": {"sentence": "a fine film", "options": ["negative", "positive"], "answer": "positive"},
        "natural_questions": {"question": "who wrote it", "answer": "Ann", "references": ["Ann", "Ann Lee"]},
    }
    for dataset, values in fields.items():
        found = {s: [(f"{s}-{n}", values) for n in range(count)] for s, count in (("test", TEST), ("dev", DEV))}
        example_files.write_folder(folder / "examples" / dataset, found)
    return folder


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    return _checkpoint(tmp_path_factory.mktemp("models") / "both", [2, 5], ["sentiment"])


def _plan(paths, step=None, datasets=("rte",), styles=("instructions",), output="out"):
    return jobs.plan(paths, step, datasets, output, "tuned", SETTINGS, styles)


def test_a_single_run_has_the_output_folder(two_steps):
    (run,) = _plan(two_steps)
    assert (run.name, str(run.output_dir)) == ("tuned", "out")
    assert [part.name for part in run.parts] == ["both step 5"]


def test_runs_of_steps_and_styles_have_folders_of_their_own(two_steps):
    runs = _plan(two_steps, "all", styles=("instructions", "gpt3"))
    assert [str(run.output_dir) for run in runs] == [
        "out/step_2_instructions",
        "out/step_2_gpt3",
        "out/step_5_instructions",
        "out/step_5_gpt3",
    ]
    assert [run.settings.style for run in runs] == ["instructions", "gpt3"] * 2
    assert runs[1].name == "tuned step 2 gpt3"


def test_seeds_make_runs_where_something_is_drawn(two_steps, tmp_path):
    def plan(styles, seeds):
        return jobs.plan(two_steps, None, ("rte",), tmp_path, "tuned", SETTINGS, styles, seeds)

    runs = plan(("instructions", "2_shots", "shuffled_options"), (0, 7))
    assert [(run.name, run.settings.seed, run.group) for run in runs] == [
        ("tuned instructions", 0, ""),
        ("tuned 2_shots seed 0", 0, "tuned 2_shots"),
        ("tuned 2_shots seed 7", 7, "tuned 2_shots"),
        ("tuned shuffled_options seed 0", 0, "tuned shuffled_options"),
        ("tuned shuffled_options seed 7", 7, "tuned shuffled_options"),
    ]
    assert len({run.output_dir for run in runs}) == len(runs)
    assert [(run.name, run.settings.seed) for run in plan(("2_shots",), (3,))] == [("tuned", 3)]
    with pytest.raises(FlanError, match="a seed stands twice in 1, 1"):
        plan(("2_shots",), (1, 1))
    generated = ("natural_questions",)  # no options to shuffle
    runs = jobs.plan(two_steps, None, generated, tmp_path, "tuned", SETTINGS, ("shuffled_options",), (0, 7))
    assert [(run.name, run.group) for run in runs] == [("tuned", "")]


def test_seeds_draw_other_exemplars_and_are_one_column(two_steps, prepared, tmp_path):
    words = [word for _, word in catalog.dataset("rte").labels]
    fields = [{"premise": f"p{n}", "hypothesis": f"h{n}", "options": words, "answer": words[0]} for n in range(20)]
    rows = {
        split: [(r["id"], r["fields"]) for r in example_files.read(prepared, "rte", split)] for split in ("test", "dev")
    }
    rows["exemplars"] = [(f"train-{n}", f) for n, f in enumerate(fields)]
    example_files.write_folder(tmp_path / "prepared" / "examples" / "rte", rows)
    eval_binary.evaluate(
        checkpoint_path=two_steps,
        output_dir=str(tmp_path),
        prepared_dir=str(tmp_path / "prepared"),
        datasets=("rte",),
        style="2_shots",
        seeds=(0, 1),
        max_input_tokens=1024,
        mesh_shape={"data": 8},
    )
    prompts = []
    for seed in (0, 1):
        lines = (tmp_path / f"seed_{seed}" / "predictions" / "rte" / "test_t0.jsonl").read_text().splitlines()[1:]
        prompts.append([json.loads(line)["prompt"] for line in lines])
    assert prompts[0] != prompts[1]
    report = json.loads((tmp_path / "report.json").read_text())
    (run,) = report["runs"]
    assert (run["name"], run["members"]) == ("tuned", ["tuned seed 0", "tuned seed 1"])
    each = [
        json.loads((tmp_path / f"seed_{s}" / "results.json").read_text())["datasets"]["rte"]["mean"] for s in (0, 1)
    ]
    figures = run["datasets"]["rte"]
    np.testing.assert_allclose((figures["mean"], figures["std"]), (np.mean(each), np.std(each, ddof=1)))


def test_several_checkpoints(two_steps, tmp_path):
    other = _checkpoint(tmp_path / "other", [1])
    runs = _plan([two_steps, other])
    assert [(run.name, run.parts[0].step) for run in runs] == [("tuned both", 5), ("tuned other", 1)]
    with pytest.raises(FlanError, match="two checkpoints have the same folder name"):
        _plan([two_steps, two_steps])


def test_what_is_missing_ends_in_one_line(two_steps, tmp_path):
    with pytest.raises(FlanError, match="no step 3 in .*there are 2, 5, 'all' and 'follow'"):
        _plan(two_steps, 3)
    with pytest.raises(FlanError, match=r"manifest\.json is missing"):
        _plan(str(tmp_path))
    with pytest.raises(FlanError, match="no checkpoint is given for the cluster of sst2"):
        _plan({"nli": two_steps}, datasets=("rte", "sst2"))
    with pytest.raises(FlanError, match="did you mean 'nli'"):
        _plan({"nlii": two_steps})


def test_a_run_is_computed_as_its_settings_say(two_steps, prepared, tmp_path):
    mesh = partitioning.make_mesh(devices=jax.devices()[:1])

    def loglikelihoods(name, **computation):
        settings = dataclasses.replace(SETTINGS, max_examples=3, max_dev_examples=0, computation=computation)
        (run,) = jobs.plan(two_steps, None, ("rte",), tmp_path / name, "tuned", settings, ("instructions",))
        assert jobs.evaluate(run, prepared, mesh)["settings"]["computation"] == computation
        lines = (tmp_path / name / "predictions" / "rte" / "test_t0.jsonl").read_text().splitlines()[1:]
        return np.concatenate([json.loads(line)["loglikelihood"] for line in lines])

    settings = dataclasses.replace(SETTINGS, max_examples=3, max_dev_examples=0, computation={"dtype": "auto"})
    (run,) = jobs.plan(two_steps, None, ("rte",), tmp_path / "auto", "tuned", settings, ("instructions",))
    assert jobs.evaluate(run, prepared, mesh)["settings"]["computation"] == {"dtype": "float32"}  # as it was computed
    exact, coarse = loglikelihoods("float32"), loglikelihoods("bfloat16", dtype="bfloat16")
    assert 0 < np.abs(exact - coarse).max() < 0.05 * np.abs(exact).max()
    with pytest.raises(FlanError, match="'cudnn' runs on GPU, and the devices here are CPU"):
        loglikelihoods("cudnn", dtype="bfloat16", attention="cudnn")
    with pytest.raises(FlanError, match="num_layers is no way to compute a model"):
        loglikelihoods("layers", num_layers=1)


def test_each_cluster_by_a_checkpoint_that_did_not_see_it(prepared, tmp_path):
    without_nli = _checkpoint(tmp_path / "without_nli", [1], ["sentiment", "closed_book_qa"])
    without_sentiment = _checkpoint(tmp_path / "without_sentiment", [1], ["nli", "closed_book_qa"])
    (run,) = jobs.plan(
        {"nli": without_nli, "sentiment": without_sentiment},
        None,
        ("rte", "sst2"),
        tmp_path / "out",
        "held out",
        SETTINGS,
        ("instructions",),
    )
    mesh = partitioning.make_mesh(devices=jax.devices()[:1])
    results = jobs.evaluate(run, prepared, mesh)
    assert {name: figures["status"] for name, figures in results["datasets"].items()} == {
        "rte": labels.HELD_OUT,
        "sst2": labels.HELD_OUT,
    }
    assert results["checkpoints"] == {"rte": "without_nli step 1", "sst2": "without_sentiment step 1"}
    assert set(results["weights"]) == {"rte", "sst2"} and all(results["weights"].values())
    # Each says what it was tuned on, in the report too.
    tunings = {name: tuned["clusters"] for name, tuned in results["tunings"].items()}
    assert tunings == {
        "without_nli step 1": ["closed_book_qa", "sentiment"],
        "without_sentiment step 1": ["closed_book_qa", "nli"],
    }
    said = reporting.Run("held out", results, tmp_path / "out")
    text = reporting.markdown([said], reporting.gather([said]))
    assert "without_nli step 1: declared; its tuning mixtures held closed_book_qa, sentiment" in text
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results

    swapped = dataclasses.replace(
        run, parts=tuple(dataclasses.replace(p, datasets=run.parts[0].datasets) for p in run.parts)
    )
    with pytest.raises(FlanError, match="dataset rte is seen for without_sentiment step 1"):
        jobs.evaluate(swapped, prepared, mesh)


def test_generated_answers_stand_beside_ranked_ones(two_steps, prepared, tmp_path):
    eval_binary.evaluate(
        checkpoint_path=two_steps,
        output_dir=str(tmp_path),
        prepared_dir=str(prepared),
        datasets=("rte", "natural_questions"),
        max_input_tokens=1024,
        max_new_tokens=4,
        ways=("pmi",),
        mesh_shape={"data": 8},
    )
    results = json.loads((tmp_path / "results.json").read_text())
    ranked, generated = results["datasets"]["rte"], results["datasets"]["natural_questions"]
    assert (ranked["metric"], generated["metric"]) == ("accuracy", "em")
    assert 0 <= ranked["mean_pmi"] <= 1
    lines = (tmp_path / "predictions" / "natural_questions" / "test_t0.jsonl").read_text().splitlines()
    for line in map(json.loads, lines[1:]):
        assert line["references"] == ["Ann", "Ann Lee"] and line["finish"] in ("eos", "stop", "length")
        assert line["score"] in (0.0, 1.0) and line["prediction"] == line["prediction"].strip()
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "natural_questions" in page and "rte" in page


def test_another_job_is_waited_for(two_steps, prepared, tmp_path, capsys):
    (run,) = jobs.plan(two_steps, None, ("rte",), tmp_path, "tuned", SETTINGS, ("instructions",))
    mesh = partitioning.make_mesh(devices=jax.devices()[:1])
    lock = filelock.FileLock(tmp_path / ".lock")
    lock.acquire()
    finished = []
    thread = threading.Thread(target=lambda: finished.append(jobs.evaluate(run, prepared, mesh, allow_seen=True)))
    thread.start()
    time.sleep(0.5)
    assert not finished and not (tmp_path / "predictions").exists()
    lock.release()
    thread.join(120)
    assert finished and "another job is at work" in capsys.readouterr().out


def test_a_training_run_is_followed_to_its_last_step(tmp_path):
    folder = tmp_path / "run"
    seen = []

    def train():
        for step in (1, 2, 3):
            _checkpoint(folder, [step], last_step=3)
            time.sleep(0.3)

    thread = threading.Thread(target=train)
    thread.start()
    done = jobs.follow(str(folder), seen.append, poll_seconds=0.05, patience_seconds=60)
    thread.join()
    assert done == seen and done[-1] == 3 and done == sorted(set(done))


def test_a_dead_training_run_is_given_up(tmp_path):
    folder = _checkpoint(tmp_path / "run", [1], last_step=9)
    with pytest.raises(FlanError, match=r"no new checkpoint in .* for 0 seconds \(evaluated: 1\)"):
        jobs.follow(folder, lambda step: None, poll_seconds=0.01, patience_seconds=0.1)

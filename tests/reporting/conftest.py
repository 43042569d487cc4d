"""Evaluations on disk whose figures follow from their predictions."""

import json

import numpy as np
import pytest

from flan_jax import catalog, reporting, styles
from flan_jax.evaluation import labels
from flan_jax.evaluation.clusters import cluster_means
from flan_jax.evaluation.figures import summarize

HOSTILE = '</pre><script>document.title="hacked"</script><img src=x onerror=alert(1)> & \ud800 | "quoted"'


def predictions(rng, record, number, count, skill, prompt="Is it so?"):
    options = list(record.label_words) or ["a", "b", "c"]
    lines = []
    for i in range(count):
        answer = i % len(options)
        scores = rng.normal(size=len(options)) - 5
        scores[answer] += skill
        lines.append(
            {
                "id": f"test-{i}",
                "hash": f"{i:016x}",
                "dataset": record.name,
                "split": "test",
                "template": number,
                "prompt": f"{prompt} {i}",
                "cut_tokens": 0,
                "options": options,
                "answer": answer,
                "loglikelihood": scores.tolist(),
                "tokens": [1] * len(options),
                "bytes": [len(o) for o in options],
                "characters": [len(o) for o in options],
                "rest": ".",
                "question_id": f"q{i // 2}",
                "rating": f"{answer}.2",
            }
        )
    return lines


def write_predictions(folder, name, number, lines):
    place = folder / "predictions" / name
    place.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(line) for line in ({"key": "k"}, *lines))
    (place / f"test_t{number}.jsonl").write_text(text + "\n")


def write_run(
    folder,
    name,
    skills,
    *,
    style="instructions",
    status=labels.HELD_OUT,
    count=40,
    prompt="Is it so?",
    seed=None,
    templates=None,
    words=True,
):
    """Writes an evaluation and loads it.

    Args:
      folder: where to.
      name: of the run.
      skills: how much likelier the right answer is, by dataset.
      style, status: as in the results.
      count: examples a dataset.
      prompt: what all prompts begin with.
      seed: of the scores; by default the length of the name.
      templates: the numbers of those that are evaluated; by default all.
      words: whether the results say the templates' texts.
    """
    rng = np.random.default_rng(len(name) if seed is None else seed)
    output = folder / name
    datasets = {}
    for dataset, skill in skills.items():
        record = catalog.dataset(dataset)
        numbers = record.forward_templates if templates is None else templates
        test = {n: predictions(rng, record, n, count, skill, prompt) for n in numbers}
        for number, lines in test.items():
            write_predictions(output, dataset, number, lines)
        figures = summarize(record, test, {n: lines[:7] for n, lines in test.items()})
        for t in figures["templates"] if words else ():
            t["input"] = f"Wording {t['template']} of {dataset}: {{premise}}"
        label = labels.label(styles.parse(style), status)
        more = {"cluster": record.cluster, "paper_dataset": record.paper_dataset, "status": status, "label": label}
        datasets[dataset] = more | figures
    results = {
        "checkpoint": "gemma step 0",
        "tuning": {"status": "tuned", "datasets": ["sst2"], "clusters": ["sentiment"]},
        "settings": {"style": style},
        "separator": "eos",
        "datasets": datasets,
        "clusters": cluster_means(datasets),
        "skipped": [{"dataset": "squad_v1", "reason": "a generation <dataset>"}],
    }
    (output / "results.json").write_text(json.dumps(results))
    return reporting.load_run(name, output)


def add_generation_figures(run, name, metric, scores_TxE=None):
    """Adds a generation dataset by the contract of `figures.summarize`."""
    record = catalog.dataset(name)
    listed = []
    for t, number in enumerate(record.forward_templates[:2]):
        lines = [
            {
                "id": str(i),
                "hash": f"{i:016x}",
                "template": number,
                "prompt": f"Say {i}",
                "prediction": HOSTILE,
                "references": ["yes"],
            }
            | ({} if scores_TxE is None else {"score": float(scores_TxE[t][i])})
            for i in range(5)
        ]
        write_predictions(run.output_dir, name, number, lines)
        value = 0.25 if scores_TxE is None else float(np.mean(scores_TxE[t]))
        listed.append({"template": number, "value": value, "dev": None, "cut_prompts": 0})
    run.results["datasets"][name] = {
        "cluster": record.cluster,
        "paper_dataset": record.paper_dataset,
        "status": labels.HELD_OUT,
        "metric": metric,
        "examples": 5,
        "mean": float(np.mean([t["value"] for t in listed])),
        "std": 0.0,
        "best_dev": None,
        "best_dev_template": None,
        "random": None,
        "majority": None,
        "templates": listed,
    }
    run.results["clusters"].update(cluster_means(run.results["datasets"]))


@pytest.fixture
def add_generation():
    """`add_generation_figures`."""
    return add_generation_figures


@pytest.fixture
def make_run(tmp_path):
    """`write_run` in a folder of the test."""
    return lambda *arguments, **more: write_run(tmp_path, *arguments, **more)


@pytest.fixture
def rewrite():
    """Changes the lines of a predictions file: rewrite(path, function of (number, line))."""

    def change(path, function):
        header, *lines = path.read_text().strip().split("\n")
        changed = [json.dumps(function(i, json.loads(line))) for i, line in enumerate(lines)]
        path.write_text("\n".join([header, *changed]) + "\n")

    return change


@pytest.fixture
def pair(make_run):
    return [
        make_run("untuned", {"snli": 0.2, "rte": 0.3}),
        make_run("tuned", {"snli": 1.0, "rte": 1.5, "qnli": 2.0}),
    ]

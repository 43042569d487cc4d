"""Evaluations on disk whose figures follow from their predictions."""

import json

import numpy as np
import pytest
from written_evaluations import write_predictions, write_run

from flan_jax import catalog
from flan_jax.evaluation import labels
from flan_jax.evaluation.clusters import cluster_means

HOSTILE = '</pre><script>document.title="hacked"</script><img src=x onerror=alert(1)> & \ud800 | "quoted"'


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

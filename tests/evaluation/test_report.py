import json
import re

import pytest

from flan_jax import catalog
from flan_jax.errors import FlanError
from flan_jax.evaluation import protocol, report


def _figures(name, mean, status=protocol.HELD_OUT):
    record = catalog.dataset(name)
    listed = [
        {"template": n, "sum": mean + 0.01 * i, "per_token": mean, "per_byte": mean, "dev": mean, "cut_prompts": 0}
        for i, n in enumerate(record.forward_templates)
    ]
    return {
        "cluster": record.cluster,
        "paper_dataset": record.paper_dataset,
        "status": status,
        "examples": 200,
        "mean": mean,
        "std": 0.021,
        "best_dev": mean + 0.02,
        "best_dev_template": record.forward_templates[1],
        "random": 1 / 3,
        "majority": 0.4,
        "templates": listed,
    }


def _run(name, means, status=protocol.HELD_OUT):
    datasets = {n: _figures(n, mean, status) for n, mean in means.items()}
    return report.Run(
        name,
        {
            "checkpoint": "gemma step 0",
            "tuning": {"status": "tuned", "datasets": ["sst2"], "clusters": ["sentiment"]},
            "separator": "eos",
            "datasets": datasets,
            "clusters": protocol.cluster_means(datasets),
            "skipped": [{"dataset": "squad_v1", "reason": "a generation <dataset>"}],
        },
    )


@pytest.fixture
def runs():
    return [_run("untuned", {"snli": 0.35, "rte": 0.5}), _run("tuned", {"snli": 0.46, "rte": 0.55, "qnli": 0.6})]


def test_table_has_datasets_and_cluster_mean(runs):
    head, *rows = report.table(runs)
    assert all(len(row) == len(head) for row in rows)
    by_name = {row[0]: row for row in rows}
    assert by_name["snli"][4] == "35.0 ± 2.1"
    assert by_name["snli"][7] == "46.0 ± 2.1"
    assert by_name["qnli"][4] == "–"
    assert by_name["**nli mean**"][7] == "53.7"


def test_markdown_names_status_and_skipped(runs):
    text = report.markdown(runs)
    assert "zero-shot, held out" in text
    assert "squad_v1" in text


def test_seen_is_shown_as_seen():
    text = report.markdown([_run("tuned", {"snli": 0.5}, protocol.SEEN)])
    assert "| seen |" in text
    assert "held out |" not in text


def test_page_is_self_contained_and_escaped(runs, tmp_path):
    folder = tmp_path / "predictions" / "snli"
    folder.mkdir(parents=True)
    row = {
        "id": "7",
        "prompt": "Is <b> bold?",
        "options": ["yes", "no"],
        "answer": 0,
        "loglikelihood": [-3.0, -1.0],
        "template": 0,
    }
    (folder / "test_t0.jsonl").write_text(json.dumps({"key": "k"}) + "\n" + json.dumps(row) + "\n")
    paths = report.write(runs, tmp_path)
    page = paths["html"].read_text()
    assert "data:image/svg+xml;base64," in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "Is &lt;b&gt; bold?" in page
    assert "a generation &lt;dataset&gt;" in page
    assert json.loads(paths["json"].read_text())[1]["name"] == "tuned"


def test_missing_baseline_is_one_line(tmp_path):
    with pytest.raises(FlanError, match=r"no readable results.json"):
        report.load_run("untuned", tmp_path)

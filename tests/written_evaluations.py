"""Evaluations on disk whose figures follow from their predictions."""

import json

import numpy as np

from flan_jax import catalog, reporting, styles
from flan_jax.evaluation import labels
from flan_jax.evaluation.clusters import cluster_means
from flan_jax.evaluation.figures import summarize


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
    tuned_on = "sst2" if "sst2" not in skills else "trec"  # so that all is held out
    results = {
        "checkpoint": "gemma step 0",
        "tuning": {"status": "tuned", "datasets": [tuned_on], "clusters": [catalog.dataset(tuned_on).cluster]},
        "settings": {"style": style},
        "separator": "eos",
        "datasets": datasets,
        "clusters": cluster_means(datasets),
        "skipped": [{"dataset": "squad_v1", "reason": "a generation <dataset>"}],
    }
    (output / "results.json").write_text(json.dumps(results))
    return reporting.load_run(name, output)

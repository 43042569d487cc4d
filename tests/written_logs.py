"""Logs of lm-evaluation-harness on disk, as it writes them, of small tasks with two options."""

import hashlib
import json

import numpy as np

OURS = {"status": "declared untuned", "datasets": [], "clusters": [], "text": []}


def write_log(
    folder,
    tasks=("rte",),
    *,
    seed=1,
    count=60,
    args="pretrained=x",
    shots=0,
    version=1.0,
    before="",
    noise=0.0,
    change=lambda line: line,
    config=None,
    of_tasks=None,
    metric="acc",
):
    """Writes a log of a model that guesses.

    Args:
      folder: where to.
      tasks: their names; two logs have the same documents of one task.
      seed: of the scores.
      count: documents a task.
      args: the model's arguments.
      shots: how many exemplars the results say.
      version: of the tasks.
      before: what stands before each document.
      noise: how much the scores are off, as by rounding.
      change: of a line, before the results are counted.
      config: more of the results' own `config`.
      of_tasks: more of the configuration of each task.
      metric: its name.
    """
    folder.mkdir(parents=True)
    rng, off = np.random.default_rng(seed), np.random.default_rng(99)
    results = {}
    for task in tasks:
        lines = []
        for i in range(count):
            scores = rng.normal(size=2) - 3 + noise * off.normal(size=2)
            doc = {"sentence": f"the old red fox number {i} was seen in the garden of {task}", "label": i % 2}
            context = f"{before}{doc['sentence']}, was it?"
            line = {
                "doc_id": i,
                "doc": doc,
                "target": str(i % 2),
                "arguments": {
                    f"gen_args_{j}": {"arg_0": context, "arg_1": f" {w}"} for j, w in enumerate(("yes", "no"))
                },
                "filtered_resps": [[str(score), "False"] for score in scores],
                "filter": "none",
                "metrics": [metric],
                "doc_hash": hashlib.sha256(json.dumps(doc).encode()).hexdigest(),
                metric: float(np.argmax(scores) == i % 2),
            }
            lines.append(change(line))
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"samples_{task}_2026-01-01T00-00-00.jsonl").write_text(text)
        results[task] = {f"{metric},none": float(np.mean([line[metric] for line in lines]))}
    about = {"doc_to_text": "{{sentence}}, was it?", "num_fewshot": shots, **(of_tasks or {})}
    whole = {
        "results": results,
        "configs": {task: {"task": task, **about} for task in tasks},
        "versions": dict.fromkeys(tasks, version),
        "n-shot": dict.fromkeys(tasks, shots),
        "config": {"model": "hf", "model_args": args, **(config or {})},
        "model_name": "x",
        "lm_eval_version": "0.4.9",
    }
    (folder / "results_2026-01-01T00-00-00.json").write_text(json.dumps(whole))
    return folder


def of_ours(checkpoint, digest, **more):
    """What our engine says in a log: (model_args, config). Earlier versions did not say `step` and `weights`."""
    about = {"checkpoint": checkpoint, "checkpoint_digest": digest, "joint": "eos", "tuning": OURS, **more}
    return f"checkpoint={checkpoint}", {"model": "flan_jax", "flan_jax": about}

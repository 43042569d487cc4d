"""Reads logs of lm-evaluation-harness as runs of a report, so that anybody's results take the same tests.

The harness writes `results_<date>.json` with --output_path, and `samples_<task>_<date>.jsonl` beside it with
--log_samples. A task of one of our datasets gets that dataset's name. Only our own engine says in its logs what a model
was tuned on; scores of other models are labelled unknown. What is computed here is checked against the harness's own.
"""

from __future__ import annotations

import collections
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from flan_jax import catalog, content
from flan_jax.data.examples import TEST
from flan_jax.errors import FlanError
from flan_jax.evaluation import labels
from flan_jax.files import AnyPath, is_remote, user_path
from flan_jax.json_lines import as_unicode, object_with_keys_once, read_json_lines
from flan_jax.reporting import log_samples, sound
from flan_jax.reporting.log_samples import is_share
from flan_jax.reporting.runs import Run

PROGRAM = "lm-evaluation-harness"
CLUSTER = PROGRAM  # the cluster of tasks that are none of our datasets
_MEANS = ("acc", "acc_norm", "exact_match", "em")  # metrics that are nothing but means over samples


def is_log(folder: str | AnyPath) -> bool:
    """Whether a folder is a log of the harness and not one of our evaluations."""
    folder = user_path(folder)
    return not (folder / "results.json").exists() and bool(_results_files(folder))


def _results_files(folder: AnyPath) -> list[AnyPath]:
    """The files of results in a folder, or in the folder of the one model inside it; the newest last."""
    return sorted([*folder.glob("results_*.json"), *folder.glob("*/results_*.json")], key=lambda path: path.name)


def load(name: str, folder: str | AnyPath) -> Run:
    """Reads the log of a model. If a task was run several times, the newest log counts.

    Raises:
      FlanError: several models in one folder, or one model with several arguments; no samples; or a log that is broken
        or contradicts its results.
    """
    files = _results_files(user_path(folder))
    if len(folders := _distinct(path.parent for path in files)) > 1:
        some = ", ".join(f"{name}={one}" for one in folders)
        raise FlanError(f"{folder} holds logs of {len(folders)} models: name one folder each ({some}).")
    found: dict[str, Any] = {}  # figures and predictions of each task, or why it has none
    newest: dict[str, Any] = {}
    versions: dict[str, None] = {}
    found_in: dict[str, dict[str, AnyPath]] = {}  # what says of which model it is, as far as a log says it
    for path in files:
        try:
            whole = newest = _results(path)
            versions[str(whole.get("lm_eval_version") or "of an unknown version")] = None
            for key, value in _model_of(whole).items():
                found_in.setdefault(key, {})[value] = path
            if several := next((models for models in found_in.values() if len(models) > 1), None):
                some = " and ".join(f"{one.name} of {model}" for model, one in several.items())
                raise FlanError(f"{folder} holds logs of different runs, {some}: give each --output_path to one.")
            for task, results in whole["results"].items():
                samples = path.parent / f"samples_{task}_{path.stem.removeprefix('results_')}.jsonl"
                if samples.exists():
                    found[task] = _task(task, results, whole, samples)
                elif task in whole["configs"]:
                    found[task] = "no samples in the harness's newest log of it: run it with --log_samples"
        except FlanError:
            raise
        except _UNREADABLE as error:
            raise FlanError(
                f"{path}, or its samples, are not as lm-evaluation-harness writes them ({type(error).__name__}: "
                f"{str(error)[:100]}): run it again."
            ) from error
    names = _names_of(found)
    datasets = {names[task]: one[0] for task, one in found.items() if not isinstance(one, str)}
    lines = {names[task]: {0: one[1]} for task, one in found.items() if not isinstance(one, str)}
    skipped = {names[task]: one for task, one in found.items() if isinstance(one, str)}
    if not datasets:
        why = next(iter(skipped.values()), "no samples in the harness's log: run it with --log_samples")
        raise FlanError(f"{folder} holds nothing that can be compared: {why}.")
    results = {
        "checkpoint": str(newest.get("model_name") or newest["config"].get("model", "a model")),
        "harness": PROGRAM,
        "harness_version": " and ".join(versions),
        "tuning": {"status": "nobody says what it was tuned on", "datasets": [], "clusters": []},
        **(_ours(newest) or {}),
        "identity": _identity(newest),
        "datasets": datasets,
        "clusters": {},
        "skipped": [{"dataset": task, "reason": why} for task, why in skipped.items()],
        "invalid": [],
    }
    return Run(name, results, files[-1].parent, lines=lines)


# What Python says of values of another kind, size or depth than the harness writes.
_UNREADABLE = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


def _distinct(folders: Iterable[AnyPath]) -> list[AnyPath]:
    """Folders without those that are links to others of them."""
    return list({(one if is_remote(one) else one.resolve()): one for one in folders}.values())


def _names_of(tasks: Iterable[str]) -> dict[str, str]:
    """What each task is called here: one of them may have the name of a dataset of ours."""
    names: dict[str, str] = {}
    for task in sorted(tasks, key=lambda task: dataset_of(task) != task):  # those that bear the very name first
        names[task] = task if dataset_of(task) in names.values() else dataset_of(task)
    return names


def _model_of(whole: Mapping[str, Any]) -> dict[str, str]:
    """Which model it was: with its arguments, and of ours its step and weights, which earlier logs do not say."""
    config = whole["config"]
    ours = config.get("flan_jax")
    ours = ours if isinstance(ours, dict) else {}
    about = [config.get("model"), config.get("model_args"), config.get("model_sha"), whole.get("model_name")]
    about += [ours.get("checkpoint_digest")]
    found = {"model": " ".join(str(one) for one in about if one)}
    return found | {key: f"{key} {ours[key]}" for key in ("step", "weights") if ours.get(key) is not None}


def _identity(whole: Mapping[str, Any]) -> str:
    """What says that two logs are of one model; empty if a log says too little.

    Of ours it is the digest of its weights, wherever they lie, and all other arguments that make it another model.
    """
    config = whole["config"]
    if not (given := config.get("model_args")):
        return ""
    if not _ours(whole):
        return _model_of(whole)["model"]
    about = config["flan_jax"]
    if not about.get("weights"):  # steps of one run have one manifest
        return ""
    args = given if isinstance(given, dict) else dict(one.partition("=")[::2] for one in str(given).split(","))
    of_model = [str(about.get("checkpoint_digest")), str(about["weights"])]
    return " ".join([*of_model, *sorted(f"{k}={v}" for k, v in args.items() if k not in _NO_MODEL)])


def _dtype(whole: Mapping[str, Any]) -> str | None:
    """What the harness's own engine computes in, such as "bfloat16"; None of others, which do not say it."""
    said = whole["config"].get("model_dtype")
    return said.removeprefix("torch.") if isinstance(said, str) and said.startswith("torch.") else None


# Arguments of our engine that say where its model lies and how it is computed.
_NO_MODEL = ("checkpoint", "step", "batch_size", "max_batch_size", "device")


def _ours(whole: Mapping[str, Any]) -> dict[str, Any] | None:
    """What our own engine says of its model in a log, see `lm_eval.model`; None of another's, or if it cannot be so."""
    about = whole["config"].get("flan_jax")
    tuning = about.get("tuning") if isinstance(about, dict) and whole["config"].get("model") == "flan_jax" else None
    if not isinstance(tuning, dict) or sound.problem_of_tuning(tuning, any_cluster=True):
        return None
    step = f" step {about['step']}" if about.get("step") is not None else ""  # earlier logs do not say it
    return {
        "checkpoint": as_unicode(f"{about.get('checkpoint')}{step}"),
        "model_digest": as_unicode(str(about.get("checkpoint_digest"))),
        "joint": as_unicode(str(about.get("joint"))),
        "tuning": tuning,
    }


def dataset_of(task: str) -> str:
    """Our dataset whose name has the same letters as a task ("bool_q" for "boolq"), or else the task's own name."""

    def letters(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    return next((d.name for d in catalog.datasets() if letters(d.name) == letters(task)), task)


def _results(path: AnyPath) -> dict[str, Any]:
    try:
        whole = as_unicode(
            json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=object_with_keys_once)
        )  # its standard errors may be NaN
    except (OSError, ValueError) as error:
        raise FlanError(f"{path} is no results of lm-evaluation-harness ({error}).") from error
    if not isinstance(whole, dict) or not isinstance(whole.get("results"), dict):
        raise FlanError(f"{path} is no results of lm-evaluation-harness: it has no tasks.")
    for key in ("configs", "versions", "n-shot", "config"):  # some versions write null for these
        whole[key] = whole.get(key) or {}
        if not isinstance(whole[key], dict):
            raise FlanError(f"{path} is no results of lm-evaluation-harness: its {key} are no names with values.")
    for task, found in whole["results"].items():
        if not isinstance(found, dict):
            raise FlanError(f"{path} is no results of lm-evaluation-harness: {task} has no figures.")
    return whole


def _task(
    task: str, results: Mapping[str, Any], whole: Mapping[str, Any], path: AnyPath
) -> tuple[dict[str, Any], list[dict[str, Any]]] | str:
    """(figures, predictions) of a task, or why there are none."""
    samples = []
    for line in read_json_lines(path, strict=False):
        if problem := line.problem or log_samples.problem_of(line.value):
            raise FlanError(f"{path}, line {line.number}, is no sample: {problem}.")
        samples.append(log_samples.as_today(line.value, results))
    if not samples:
        return "its log holds no sample"
    used = samples[0].get("filter", "none")  # if there are several filters, the first
    samples = [s for s in samples if s.get("filter", "none") == used]
    counts = collections.Counter(str(s["doc_id"]) for s in samples)
    if (document := counts.most_common(1)[0])[1] > 1:
        raise FlanError(
            f"{path} has document {document[0]} {document[1]} times: several logs in one, or several filters of an "
            "earlier harness; run the harness again, or keep one line a document."
        )
    counted = (whole.get("n-samples") or {}).get(task)  # which early harnesses do not write
    wanted = counted.get("effective") if isinstance(counted, dict) else counted
    if counted is not None and log_samples.count_of(wanted) != len(samples):
        said = json.dumps(wanted, default=str)[:40]
        raise FlanError(f"{path} has {len(samples)} of the {said} samples of {task}: copy it anew, or run it again.")
    shown = {key.split(",")[0]: value for key, value in results.items() if key.endswith(f",{used}")}
    for key in _MEANS:
        values = [sample.get(key) for sample in samples]
        if key not in shown or key not in samples[0]["metrics"]:
            continue
        if bad := [s for s, v in zip(samples, values, strict=True) if not (is_share(v) or isinstance(v, bool))]:
            said = json.dumps(bad[0].get(key))[:40]
            raise FlanError(f"{path}: document {bad[0]['doc_id']} has {key} {said}, which is no share: run it again.")
        _check(task, key, float(np.mean(values)), shown[key], path)
    found = [log_samples.ranked(sample, path) for sample in samples] if "acc" in samples[0]["metrics"] else []
    if found and all(found):
        key, metric, values = "acc", "accuracy", [float(np.argmax(f["loglikelihood"]) == f["answer"]) for f in found]
    else:
        key = next((m for m in samples[0]["metrics"] if log_samples.is_mean(m, samples, shown)), "")
        if not key:
            return "none of its metrics is a mean over examples"
        metric, values = key, [float(sample[key]) for sample in samples]
        found = [log_samples.scored(sample, value) for sample, value in zip(samples, values, strict=True)]
    config = whole["configs"].get(task)
    config = config if isinstance(config, dict) else {}
    shots = _shots(task, whole, path)
    if shots:
        found = [
            line | {"shown": log_samples.shown(sample, config, whole)}
            for line, sample in zip(found, samples, strict=True)
        ]
    mean = float(np.mean(values))
    _check(task, key, mean, shown.get(key), path)
    dataset = dataset_of(task)
    cluster = next((d.cluster for d in catalog.datasets() if d.name == dataset), CLUSTER)
    task_version = _version(whole["versions"].get(task))
    version = f"{PROGRAM}, task version {task_version or 'not recorded'}"
    error = shown.get(f"{key}_stderr")
    asked = config.get("doc_to_text")
    ours = _ours(whole)
    status = sound.status_of(dataset, cluster, ours["tuning"]) if ours and cluster != CLUSTER else labels.UNKNOWN
    figures = {
        "cluster": cluster,
        "paper_dataset": dataset,
        "status": status,
        "label": f"{_label(shots)}, {status}",
        "metric": metric,
        "filter": used,
        "lower_is_better": _is_lower_better(whole, task, key),
        "options_read": metric == "accuracy" or not any(log_samples.has_options(sample) for sample in samples),
        "headline_metric": {"name": metric, "key": metric, "version": f"{version}, filter {used}"},
        "task_version": task_version,
        "dtype": _dtype(whole),
        "examples": len(samples),
        "data": {TEST: {"records": len(samples), "digest": content.digest(sorted(s["doc_hash"] for s in samples))}},
        "mean": mean,
        "std": 0.0,
        "best_dev": None,
        "best_dev_template": None,
        "random": float(np.mean([1 / len(f["options"]) for f in found])) if "options" in found[0] else None,
        "majority": None,
        "copied": None,
        "stderr": error if isinstance(error, float) and math.isfinite(error) else None,
        "metrics": {m: 100 * v for m, v in shown.items() if is_share(v) and not m.endswith("_stderr") and m != key},
        "metric_versions": dict.fromkeys(shown, version),
        "templates": [
            {"template": 0, "value": mean, "dev": None} | ({"input": asked} if isinstance(asked, str) else {})
        ],
    }
    return figures, found


def _version(said: Any) -> str | None:
    """A task's version: a whole number is the same with and without ".0"."""
    count = log_samples.count_of(said)
    return f"{count}.0" if count is not None else None if said is None else str(said)


def _is_lower_better(whole: Mapping[str, Any], task: str, metric: str) -> bool:
    """Whether the harness says so of a metric, as of an error rate."""
    of_task = (whole.get("higher_is_better") or {}).get(task)
    return isinstance(of_task, dict) and of_task.get(metric) is False


def _check(task: str, metric: str, mean: float, shown: Any, path: AnyPath) -> None:
    """Refuses samples whose mean is not the figure of the results."""
    if not sound.is_number(shown) or not abs(mean - shown) <= log_samples.TOLERANCE:
        raise FlanError(f"{path} gives {metric} {mean:.4f} for {task}, and its results {shown}: they do not belong.")


def _shots(task: str, whole: Mapping[str, Any], path: AnyPath) -> int | None:
    """The number of exemplars of a task, wherever the harness's version writes it; None if it does not.

    The command line's own number counts only where nothing is said of the task, because a task may fix 0. If the
    harness adds no exemplars, the prompt may have those that the task's author wrote into it: its metadata say so.

    Raises:
      FlanError: what is said is no number, or two numbers differ.
    """
    of_task = whole["configs"].get(task)
    of_task = of_task if isinstance(of_task, dict) else {}
    said = {"n-shot": whole["n-shot"].get(task), "configs": of_task.get("num_fewshot")}
    if all(value is None for value in said.values()):
        said = {"config": whole["config"].get("num_fewshot")}
    counts = set()
    for where, value in said.items():
        if value is not None and (count := log_samples.count_of(value)) is None:
            shown = json.dumps(value, default=str)[:40]
            raise FlanError(f"the results beside {path} say {where} {shown} of {task}, no number: run it again.")
        counts |= {count} if value is not None else set()
    metadata = of_task.get("metadata")
    written = metadata.get("num_fewshot") if isinstance(metadata, dict) else None
    in_prompt = log_samples.count_of(written)
    added = counts - {0}
    if len(counts) > 1 and counts != {0, in_prompt}:
        listed = " and ".join(f"{where} {value}" for where, value in said.items())
        raise FlanError(f"the results beside {path} say two numbers of exemplars of {task}, {listed}: run it again.")
    if added or in_prompt:
        return added.pop() if added else in_prompt
    return 0 if counts and (written is None or in_prompt == 0) else None


def _label(shots: int | None) -> str:
    return "exemplars unknown" if shots is None else f"few-shot ({shots})" if shots else "zero-shot"

"""Reads logs of lm-evaluation-harness as runs of a report, so that anybody's results take the same tests.

The harness writes `results_<date>.json` with --output_path, and `samples_<task>_<date>.jsonl` beside it with
--log_samples. A task of one of our datasets gets that dataset's name. Only our own engine says in its logs what a model
was tuned on; scores of other models are labelled unknown. What is computed here is checked against the harness's own.
"""

from __future__ import annotations

import collections
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import catalog, content
from flan_jax.data.examples import TEST
from flan_jax.errors import FlanError
from flan_jax.evaluation import labels
from flan_jax.files import AnyPath, is_remote, user_path
from flan_jax.json_lines import as_unicode, read_json_lines
from flan_jax.reporting import sound
from flan_jax.reporting.runs import Run

CLUSTER = "lm-evaluation-harness"  # the cluster of tasks that are none of our datasets
TOLERANCE = 1e-6  # between a mean of the samples and the harness's own figure
_MEANS = ("acc", "acc_norm", "exact_match", "em")  # metrics that are nothing but means over samples

Sample = Mapping[str, Any]


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
    found_in: dict[str, AnyPath] = {}  # the model and its arguments: of ours, the harness has no other name
    for path in files:
        try:
            whole = newest = _results(path)
            found_in[_model_of(whole)] = path
            if len(found_in) > 1:
                some = " and ".join(f"{one.name} of {model}" for model, one in found_in.items())
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
    version = newest.get("lm_eval_version", "of an unknown version")
    results = {
        "checkpoint": str(newest.get("model_name") or newest["config"].get("model", "a model")),
        "harness": f"lm-evaluation-harness {version}",
        "tuning": {"status": "nobody says what it was tuned on", "datasets": [], "clusters": []},
        **(_ours(newest) or {}),
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


def _model_of(whole: Mapping[str, Any]) -> str:
    """Which model it was, with its arguments."""
    config = whole["config"]
    ours = config.get("flan_jax")
    about = [config.get("model"), config.get("model_args"), config.get("model_sha"), whole.get("model_name")]
    about += [ours.get("checkpoint_digest") if isinstance(ours, dict) else None]
    return " ".join(str(one) for one in about if one)


def _ours(whole: Mapping[str, Any]) -> dict[str, Any] | None:
    """What our own engine says of its model in a log, see `lm_eval.model`; None of another's, or if it cannot be so."""
    about = whole["config"].get("flan_jax")
    tuning = about.get("tuning") if isinstance(about, dict) and whole["config"].get("model") == "flan_jax" else None
    if not isinstance(tuning, dict) or sound.problem_of_tuning(tuning, any_cluster=True):
        return None
    return {
        "checkpoint": as_unicode(str(about.get("checkpoint"))),
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
        whole = as_unicode(json.loads(path.read_text(encoding="utf-8-sig")))  # its standard errors may be NaN
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
        if problem := line.problem or _problem(line.value):
            raise FlanError(f"{path}, line {line.number}, is no sample: {problem}.")
        samples.append(_as_today(line.value, results))
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
    counted = (whole.get("n-samples") or {}).get(task)
    wanted = counted.get("effective") if isinstance(counted, dict) else None
    if isinstance(wanted, int) and wanted != len(samples):
        raise FlanError(f"{path} has {len(samples)} of the {wanted} samples of {task}: copy it anew, or run it again.")
    shown = {key.split(",")[0]: value for key, value in results.items() if key.endswith(f",{used}")}
    for key in _MEANS:
        values = [sample.get(key) for sample in samples]
        if key not in shown or key not in samples[0]["metrics"]:
            continue
        if bad := [s for s, v in zip(samples, values, strict=True) if not (_is_share(v) or isinstance(v, bool))]:
            said = json.dumps(bad[0].get(key))[:40]
            raise FlanError(f"{path}: document {bad[0]['doc_id']} has {key} {said}, which is no share: run it again.")
        _check(task, key, float(np.mean(values)), shown[key], path)
    found = [_ranked(sample, path) for sample in samples] if "acc" in samples[0]["metrics"] else []
    if found and all(found):
        key, metric, values = "acc", "accuracy", [float(np.argmax(f["loglikelihood"]) == f["answer"]) for f in found]
    else:
        key = next((m for m in samples[0]["metrics"] if _is_mean(m, samples, shown)), "")
        if not key:
            return "none of its metrics is a mean over examples"
        metric, values = key, [float(sample[key]) for sample in samples]
        found = [_scored(sample, value) for sample, value in zip(samples, values, strict=True)]
    mean = float(np.mean(values))
    _check(task, key, mean, shown.get(key), path)
    dataset = dataset_of(task)
    cluster = next((d.cluster for d in catalog.datasets() if d.name == dataset), CLUSTER)
    version = (
        f"lm-evaluation-harness {whole.get('lm_eval_version', '')}, task version {whole.get('versions', {}).get(task)}"
    )
    error = shown.get(f"{key}_stderr")
    config = whole["configs"].get(task)
    asked = config.get("doc_to_text") if isinstance(config, dict) else None
    ours = _ours(whole)
    status = sound.status_of(dataset, cluster, ours["tuning"]) if ours and cluster != CLUSTER else labels.UNKNOWN
    figures = {
        "cluster": cluster,
        "paper_dataset": dataset,
        "status": status,
        "label": f"{_shots(task, whole)}, {status}",
        "metric": metric,
        "filter": used,
        "lower_is_better": _is_lower_better(whole, task, key),
        "options_read": metric == "accuracy" or not any(_has_options(sample) for sample in samples),
        "headline_metric": {"name": metric, "key": metric, "version": f"{version}, filter {used}"},
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
        "metrics": {m: 100 * v for m, v in shown.items() if _is_share(v) and not m.endswith("_stderr") and m != key},
        "metric_versions": dict.fromkeys(shown, version),
        "templates": [
            {"template": 0, "value": mean, "dev": None} | ({"input": asked} if isinstance(asked, str) else {})
        ],
    }
    return figures, found


def _is_lower_better(whole: Mapping[str, Any], task: str, metric: str) -> bool:
    """Whether the harness says so of a metric, as of an error rate."""
    of_task = (whole.get("higher_is_better") or {}).get(task)
    return isinstance(of_task, dict) and of_task.get(metric) is False


def _check(task: str, metric: str, mean: float, shown: Any, path: AnyPath) -> None:
    """Refuses samples whose mean is not the figure of the results."""
    if not sound.is_number(shown) or not abs(mean - shown) <= TOLERANCE:
        raise FlanError(f"{path} gives {metric} {mean:.4f} for {task}, and its results {shown}: they do not belong.")


def _shots(task: str, whole: Mapping[str, Any]) -> str:
    """The number of exemplars of a task, wherever the harness's version writes it."""
    of_task = whole["configs"].get(task)
    said = (
        whole["n-shot"].get(task),
        of_task.get("num_fewshot") if isinstance(of_task, dict) else None,
        whole["config"].get("num_fewshot"),
    )
    number = next((n for n in said if isinstance(n, int) and not isinstance(n, bool) and n >= 0), None)
    return "exemplars unknown" if number is None else f"few-shot ({number})" if number else "zero-shot"


def _problem(sample: Any) -> str:
    """What is wrong with a line of samples; empty if nothing is."""
    if not isinstance(sample, dict) or not isinstance(sample.get("doc_hash"), str) or "doc_id" not in sample:
        return "it has no doc_hash"
    if not isinstance(sample.get("metrics", []), list):
        return "its metrics are no list of names"
    if not isinstance(sample.get("doc", {}), dict):
        return "its doc is no object"
    if not isinstance(sample.get("filtered_resps", []), list):
        return "its filtered_resps are no list"
    arguments = sample.get("arguments", {})
    values = arguments.values() if isinstance(arguments, dict) else arguments if isinstance(arguments, list) else [None]
    return "" if all(isinstance(one, dict | list) for one in values) else "its arguments are neither names nor lists"


def _as_today(sample: dict[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """A sample in the form that harnesses since 0.4.8 write.

    Earlier ones list its arguments and do not name its metrics.
    """
    sample.setdefault("metrics", [name for key in results if (name := key.partition(",")[0]) in sample])
    arguments = sample.get("arguments", {})
    listed = arguments if isinstance(arguments, list) else list(arguments.values())
    sample["arguments"] = {
        f"gen_args_{i}": one if isinstance(one, dict) else {f"arg_{j}": part for j, part in enumerate(one)}
        for i, one in enumerate(listed)
    }
    return sample


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_mean(metric: str, samples: Sequence[Sample], shown: Mapping[str, Any]) -> bool:
    """Whether a metric has a share for each example, whose mean the harness reports."""
    values = [sample.get(metric) for sample in samples]
    if not all(_is_share(v) or isinstance(v, bool) for v in values) or not _is_share(shown.get(metric)):
        return False
    return abs(float(np.mean(values)) - shown[metric]) <= TOLERANCE


def _ranked(sample: Sample, path: AnyPath) -> dict[str, Any] | None:
    """A prediction with ranked options; None if the sample's accuracy is not that of the likeliest option."""
    arguments = list(sample.get("arguments", {}).values())
    scores = _scores(sample.get("filtered_resps", ()))
    if not all(map(math.isfinite, scores)):
        raise FlanError(f"{path}: the scores of document {sample['doc_id']} are not finite: no option is the highest.")
    if len(arguments) < len(scores):
        return None
    half = len(scores) // 2
    if half and len(scores) == 2 * half and _are_without_context(arguments[half : len(scores)]):
        scores, arguments = scores[:half], arguments[:half]  # what acc_mutual_info subtracts is no option
    if len(scores) < 2 or not re.fullmatch(r"[0-9]{1,6}", str(sample.get("target", ""))):
        return None
    answer = int(sample["target"])
    if answer >= len(scores) or float(np.argmax(scores) == answer) != sample.get("acc"):
        return None
    contexts, options = ([_text(a.get(key, "")) for a in arguments] for key in ("arg_0", "arg_1"))
    if len(set(options)) == 1:  # the contexts differ, as in Winogrande
        contexts, options = options, contexts
    return _line(sample, contexts[0]) | {
        "options": [option.strip() for option in options[: len(scores)]],
        "answer": answer,
        "loglikelihood": scores,
    }


def _scores(responses: Sequence[Any]) -> list[float]:
    """The log-likelihoods in pairs with whether a text is the greedy answer; none if these are no such pairs."""
    pairs = [one for one in responses if isinstance(one, list) and one and _is_number(one[0])]
    return [float(pair[0]) for pair in pairs] if len(pairs) == len(responses) else []


def _has_options(sample: Sample) -> bool:
    """Whether several texts were scored for one document."""
    return len(_scores(sample.get("filtered_resps", ()))) > 1


def _are_without_context(arguments: Sequence[Mapping[str, Any]]) -> bool:
    return all(argument.get("arg_0") == "" for argument in arguments)


def _text(value: Any) -> str:
    """An argument as text; a chat's messages are a list."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def _scored(sample: Sample, value: float) -> dict[str, Any]:
    arguments = list(sample.get("arguments", {}).values()) or [{}]
    said = sample.get("filtered_resps") or [""]
    text = said[0] if isinstance(said[0], str) else json.dumps(said[0], ensure_ascii=False)
    if len(scores := _scores(said)) > 1:  # of options that cannot be read
        text = f"option {int(np.argmax(scores)) + 1}"
    references = {"prediction": text, "references": [str(sample.get("target", ""))]}
    return _line(sample, _text(arguments[0].get("arg_0", ""))) | references | {"score": value}


def _line(sample: Sample, prompt: str) -> dict[str, Any]:
    asked = [[_text(one.get(key, "")) for key in ("arg_0", "arg_1")] for one in sample.get("arguments", {}).values()]
    return {
        "id": str(sample["doc_id"]),
        "hash": str(sample["doc_hash"]),
        "template": 0,
        "prompt": prompt,
        "asked": hashlib.sha256(json.dumps(asked).encode(errors="surrogatepass")).hexdigest(),
        "doc": sample.get("doc", {}),
    }

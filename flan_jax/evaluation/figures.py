"""Figures of a dataset from its predictions (paper, section 2.2): every forward template, mean and spread, best on dev.

A prediction is a line of a predictions file. Where options are ranked it has `options`, `answer` (a number),
`loglikelihood`, `tokens` and `bytes` (lists over options), and `unconditional` where it was asked for; where text is
generated, `prediction`, `references` and, where the metric has one, the example's own `score`.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import catalog, metrics
from flan_jax.errors import FlanError

Prediction = Mapping[str, Any]

SCORES = ("sum", "per_token", "per_byte")  # how options are ranked; the paper's and the default is the sum
PMI = "pmi"  # the sum less the option's log-likelihood without the prompt (Holtzman et al. 2021)


def ranked(prediction: Prediction, score: str) -> int:
    """The option of the highest score, ties to the first.

    Args:
      prediction: of ranked options.
      score: "sum", "per_token", "per_byte" or "pmi".

    Raises:
      FlanError: a score is NaN or infinite: no option is the highest.
    """
    values = np.asarray(prediction["loglikelihood"], np.float64)
    if score == "per_token":
        values = values / np.maximum(prediction["tokens"], 1)
    elif score == "per_byte":
        values = values / np.maximum(prediction["bytes"], 1)
    elif score == PMI:
        values = values - np.asarray(prediction["unconditional"], np.float64)
    if not np.isfinite(values).all():
        where = ", ".join(
            f"{name} {prediction[name]!r}" for name in ("dataset", "template", "id") if name in prediction
        )
        raise FlanError(f"a prediction has scores that are not finite ({where or score}): evaluate again.")
    return int(np.argmax(values))


def accuracy(predictions: Sequence[Prediction], score: str = "sum") -> float:
    """Share of predictions whose highest option is the answer, 0 to 1."""
    return float(np.mean([ranked(p, score) == p["answer"] for p in predictions]))


def headline(record: catalog.Dataset) -> metrics.Metric:
    """The metric whose headline value stands in the table."""
    return metrics.metric(record.metrics[0])


def example_score(record: catalog.Dataset, references: Sequence[str], prediction: str) -> float | None:
    """One generated text's headline value, 0 to 1; None for BLEU, which a single text has not."""
    found = headline(record).example
    return None if found is None else found(list(references), prediction)


def all_metrics(record: catalog.Dataset, predictions: Sequence[Prediction]) -> dict[str, float]:
    """Every metric of the dataset over the predictions of one template, as `metrics` gives them (mostly percent)."""
    found: dict[str, float] = {}
    for name, targets, said in _compared(record, predictions):
        found |= metrics.metric(name)(targets, said)
    return found


def undefined_metrics(record: catalog.Dataset, predictions: Sequence[Prediction]) -> list[str]:
    """Which of `all_metrics` are 0 because they are undefined (`metrics.undefined`)."""
    compared = _compared(record, predictions)
    return [value for name, targets, said in compared for value in metrics.metric(name).undefined(targets, said)]


def _compared(record: catalog.Dataset, predictions: Sequence[Prediction]) -> Iterator[tuple[str, Any, list[str]]]:
    """(name, targets, predictions) of each metric."""
    if record.kind == catalog.CLASSIFICATION:
        words = [p.get("words", p["options"]) for p in predictions]
        said = [w[ranked(p, "sum")] for w, p in zip(words, predictions, strict=True)]
        wanted: list[Any] = [w[p["answer"]] for w, p in zip(words, predictions, strict=True)]
    else:
        said, wanted = [p["prediction"] for p in predictions], [p["references"] for p in predictions]
    for name in record.metrics:
        targets = wanted
        if name == "multirc":
            pairs = zip(wanted, predictions, strict=True)
            targets = [{"question_id": p["question_id"], "references": [answer]} for answer, p in pairs]
        elif record.kind == catalog.CLASSIFICATION:
            targets = [p.get("references", answer) for answer, p in zip(wanted, predictions, strict=True)]
        yield name, targets, said


def summarize(
    record: catalog.Dataset, test: Mapping[int, Sequence[Prediction]], dev: Mapping[int, Sequence[Prediction]]
) -> dict[str, Any]:
    """The figures of one dataset.

    Every dataset has a headline `metric`, of which the report shows `mean`, `std`, `best_dev`, `best_dev_template`,
    `random`, `majority` (None where there is none) and, for each template, `value`; all from 0 to 1. Where options are
    ranked it is "accuracy", and a template's value is its `sum`. A prediction line of another metric carries its
    example's own `score`, 0 to 1, where the metric has one (BLEU has not); without it the report leaves the dataset out
    of differences and clean subsets. Such a line has `prompt`, `prediction` and `references`.

    Args:
      record: the dataset.
      test: predictions on test by template number.
      dev: predictions on dev by template number; empty where there is no dev set.

    Returns:
      `metric`; `mean` and `std` (sample standard deviation) over templates; `best_dev`, the test figure of the template
      that is best on dev (ties to the first); `stderr` of one template's figure at the mean (None for BLEU); `random`
      and `majority` baselines; `metrics`, means over templates of all of the dataset's metrics; `templates`, a list of
      figures by template,
      which names as `undefined` the metrics that are 0 because an answer or a target never varies.

    Raises:
      FlanError: there are no predictions on test, or one of their scores is not finite.
    """
    if not test or not all(test.values()):
        raise FlanError(f"dataset {record.name} has no test predictions, of which figures could be made.")
    is_ranked = record.kind == catalog.CLASSIFICATION
    rows = next(iter(test.values()))
    templates = [_template(record, number, lines, dev.get(number)) for number, lines in test.items()]
    values = np.array([t["value"] for t in templates])
    best = max(templates, key=lambda t: t["dev"]) if dev else None
    return {
        "metric": "accuracy" if is_ranked else headline(record).headline,
        "examples": len(rows),
        "dev_examples": len(next(iter(dev.values()))) if dev else 0,
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "best_dev": best["value"] if best else None,
        "best_dev_template": best["template"] if best else None,
        "metrics": {name: float(np.mean([t["metrics"][name] for t in templates])) for name in templates[0]["metrics"]},
        **(_ranked_figures(record, rows, templates, values) if is_ranked else _generated_figures(test)),
        "templates": templates,
    }


def _template(
    record: catalog.Dataset, number: int, test: Sequence[Prediction], dev: Sequence[Prediction] | None
) -> dict[str, Any]:
    found = all_metrics(record, test)
    figures: dict[str, Any] = {"template": number}
    if record.kind == catalog.CLASSIFICATION:
        figures |= {score: accuracy(test, score) for score in _scores(test)}
        figures["value"] = figures["sum"]
        figures["dev"] = accuracy(dev) if dev else None
    else:
        figures["value"] = headline(record).share(found)
        figures["dev"] = headline(record).share(all_metrics(record, dev)) if dev else None
        figures["unfinished"] = sum(p["finish"] == "length" for p in test)
    if undefined := undefined_metrics(record, test):
        figures["undefined"] = undefined
    return figures | {"metrics": found, "cut_prompts": sum(p["cut_tokens"] > 0 for p in test)}


def _scores(predictions: Sequence[Prediction]) -> tuple[str, ...]:
    return (*SCORES, PMI) if "unconditional" in predictions[0] else SCORES


def _ranked_figures(
    record: catalog.Dataset, rows: Sequence[Prediction], templates: Sequence[Mapping[str, Any]], values: np.ndarray
) -> dict[str, Any]:
    counts = collections.Counter(p["options"][p["answer"]] if record.labels else p["answer"] for p in rows)
    mean = float(values.mean())
    others = [score for score in _scores(rows) if score != "sum"]
    return {
        **{f"mean_{score}": float(np.mean([t[score] for t in templates])) for score in others},
        "stderr": float(np.sqrt(mean * (1 - mean) / len(rows))),
        "random": float(np.mean([1 / len(p["options"]) for p in rows])),
        "majority": counts.most_common(1)[0][1] / len(rows),
    }


def _generated_figures(test: Mapping[int, Sequence[Prediction]]) -> dict[str, Any]:
    scores = [[p["score"] for p in lines if "score" in p] for lines in test.values()]
    spreads = [np.std(s, ddof=1) / np.sqrt(len(s)) for s in scores if len(s) > 1]
    return {"stderr": float(np.mean(spreads)) if spreads else None, "random": None, "majority": None}


def cluster_means(datasets: Mapping[str, Mapping[str, Any]], invalid: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Means over the datasets of each cluster; variants of one dataset count once, by their mean.

    Args:
      datasets: their figures.
      invalid: datasets without figures, because the model's numbers for them were not finite. A cluster's entry names
        its own as `left_out`.
    """
    left_out = collections.defaultdict(list)
    for name in invalid:
        left_out[catalog.dataset(name).cluster].append(name)
    grouped: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for figures in datasets.values():
        grouped.setdefault(figures["cluster"], {}).setdefault(figures["paper_dataset"], []).append(figures)

    def mean(variants: Iterable[list[Mapping[str, Any]]], name: str) -> float | None:
        values = [[f[name] for f in group if f[name] is not None] for group in variants]
        return float(np.mean([np.mean(v) for v in values])) if all(values) else None

    return {
        cluster: {name: mean(groups.values(), name) for name in ("mean", "best_dev", "random", "majority")}
        | {"status": _joint_status([f["status"] for group in groups.values() for f in group])}
        | ({"left_out": left_out[cluster]} if cluster in left_out else {})
        for cluster, groups in grouped.items()
    }


def _joint_status(labels: Sequence[str]) -> str:
    return labels[0] if len(set(labels)) == 1 else "mixed"

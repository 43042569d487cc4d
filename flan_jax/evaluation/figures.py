"""Figures of a dataset from its predictions (paper, section 2.2): every forward template, mean and spread, best on dev.

A prediction is a line of a predictions file. Where options are ranked it has `options`, `answer` (a number),
`loglikelihood` and what the ways to score need beside it (lists over options; `flan_jax.ways`); where text is
generated, `prediction`, `references` and, where the metric has one, the example's own `score`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import catalog, metrics, ways
from flan_jax.data.examples import DEV, TEST
from flan_jax.errors import FlanError

Prediction = Mapping[str, Any]

FILES = {TEST: "results.json", DEV: "dev.json"}  # that figures are written to, by what they are of

_OF_OPTIONS = ("accuracy", "answer_shares")  # metrics of every dataset with options, beside its own
# Draws of random answers, for the baseline of a metric that has no value of single examples: more of a small set, whose
# draws differ more.
_FEWEST_DRAWS, _MOST_DRAWS, _DRAWN_ANSWERS = 20, 500, 20_000


def ranked(prediction: Prediction, score: str) -> int:
    """The option of the highest score, ties to the first.

    Args:
      prediction: of ranked options.
      score: the name of a way to score (`flan_jax.ways`), for example "sum" or "per_character".

    Raises:
      FlanError: a score is NaN or infinite, so that no option is the highest; there is no such way; or the prediction
        lacks what it needs.
    """
    values = ways.way(score).values(prediction)
    if not all(map(math.isfinite, values)):
        where = ", ".join(
            f"{name} {prediction[name]!r}" for name in ("dataset", "template", "id") if name in prediction
        )
        raise FlanError(f"a prediction has scores that are not finite ({where or score}): evaluate again.")
    return values.index(max(values))


def right_options(prediction: Prediction) -> list[int]:
    """The options that are right: the answer first, then those of the same text and those that are references.

    Args:
      prediction: of ranked options. References are in the dataset's own words, which are `words` where the prompt has
        others.
    """
    answer = prediction["answer"]
    words = prediction.get("words", prediction["options"])
    wanted = {words[answer].strip(), *(reference.strip() for reference in prediction.get("references", ()))}
    return [answer, *(i for i, word in enumerate(words) if i != answer and word.strip() in wanted)]


def is_right(prediction: Prediction, score: str = "sum") -> bool:
    """Whether the highest option is a right one."""
    return ranked(prediction, score) in right_options(prediction)


def headline(record: catalog.Dataset) -> metrics.Metric:
    """The metric whose headline value stands in the table."""
    return metrics.metric(record.metrics[0])


def all_of(record: catalog.Dataset) -> list[metrics.Metric]:
    """The metrics of a dataset, headline first. Where options are ranked, accuracy and answer shares are among them."""
    more = _OF_OPTIONS if record.kind == catalog.CLASSIFICATION else ()
    return [metrics.metric(name) for name in dict.fromkeys((*record.metrics, *more))]


def example_score(record: catalog.Dataset, references: Sequence[str], prediction: str) -> float | None:
    """One generated text's headline value, 0 to 1; None for BLEU, which a single text has not."""
    found = headline(record).example
    return None if found is None else found(list(references), prediction)


def example_statistics(record: catalog.Dataset, references: Sequence[str], prediction: str) -> list[float] | None:
    """What one generated text adds to the sums that the headline value follows from; None where it has a score."""
    metric = headline(record)
    return None if metric.statistics is None else metric.statistics([list(references)], [prediction])[0].tolist()


def headline_statistics(record: catalog.Dataset, predictions: Sequence[Prediction]) -> np.ndarray:
    """What each prediction adds to the sums that the headline value follows from (`Metric.of_sums`): [E, K].

    Of one run's predictions with all templates at once: which answers there are is told by all of them.

    Raises:
      FlanError: predictions of an earlier version, which lack a field that the metric needs.
    """
    if all("statistics" in p for p in predictions):
        return np.array([p["statistics"] for p in predictions], np.float64)
    metric = headline(record)
    return metric.statistics(*_compared(record, metric, predictions, _chosen(record, predictions)))


def all_metrics(record: catalog.Dataset, predictions: Sequence[Prediction]) -> dict[str, float]:
    """Every metric of the dataset over the predictions of one template, as `metrics` gives them (mostly percent)."""
    return _values(record, predictions, _chosen(record, predictions))[0]


def _values(
    record: catalog.Dataset, predictions: Sequence[Prediction], chosen: Sequence[int]
) -> tuple[dict[str, float], list[str]]:
    """(every metric's values by key, the keys of those that are 0 because they are undefined)."""
    found: dict[str, float] = {}
    undefined: list[str] = []
    for metric in all_of(record):
        targets, said = _compared(record, metric, predictions, chosen)
        found |= metric(targets, said)
        undefined += metric.undefined(targets, said)
    return found, undefined


def headline_share(record: catalog.Dataset, predictions: Sequence[Prediction], score: str = "sum") -> float:
    """The headline value over the predictions of one template, 0 to 1.

    Args:
      record: the dataset.
      predictions: of one template.
      score: how options are ranked.
    """
    return _share(record, predictions, _chosen(record, predictions, score))


def _share(record: catalog.Dataset, predictions: Sequence[Prediction], chosen: Any) -> float:
    metric = headline(record)
    return metric.share(metric(*_compared(record, metric, predictions, chosen)))


def _chosen(record: catalog.Dataset, predictions: Sequence[Prediction], score: str = "sum") -> list[int]:
    """The options that are chosen; empty where text is generated."""
    return [ranked(p, score) for p in predictions] if record.kind == catalog.CLASSIFICATION else []


def _compared(
    record: catalog.Dataset, metric: metrics.Metric, predictions: Sequence[Prediction], chosen: Sequence[int]
) -> tuple[list[Any], list[str]]:
    """(targets, predictions) as the metric takes them."""
    if record.kind != catalog.CLASSIFICATION:
        return [metric.target(p, p["references"]) for p in predictions], [p["prediction"] for p in predictions]
    targets, said = [], []
    for p, choice in zip(predictions, chosen, strict=True):
        words = p.get("words", p["options"])
        if metric.by_place and not record.labels:
            words = [str(place) for place in range(len(words))]
        targets.append(metric.target(p, [words[i] for i in right_options(p)]))
        said.append(words[choice])
    return targets, said


def summarize(
    record: catalog.Dataset, test: Mapping[int, Sequence[Prediction]], dev: Mapping[int, Sequence[Prediction]]
) -> dict[str, Any]:
    """The figures of one dataset.

    Every dataset has a headline `metric`, of which the report shows `mean`, `std`, `best_dev`, `best_dev_template`,
    `random`, `majority` (None where there is none) and, for each template, `value`; all from 0 to 1. Where options are
    ranked, a template has the headline value under each way to score, by its name, and `value` is its `sum`;
    `mean_<way>` are the means of the others. Which way is best on dev is `best_dev_way`: the mean over templates
    counts, ties go to the first, and test has no say. A prediction line of generated text has `prompt`, `prediction`
    and `references`, and its example's own `score`, 0 to 1, where the metric has one; for BLEU it has `statistics`,
    which the corpus adds up. Lines that share a `passage` are not independent.

    Args:
      record: the dataset.
      test: predictions on test by template number.
      dev: predictions on dev by template number; empty where there is no dev set.

    Returns:
      `metric`, the headline's key; `headline_metric`, its name, key and version; `mean` and `std` (sample standard
      deviation) over templates; `best_dev`, the test figure of the template that is best on dev (ties to the first);
      `stderr` of one template's figure, of which examples that share a passage count together, a mean over templates
      (None where a single example has no value); `random`, the
      figure of answers drawn at random, and `majority`, that of the constant answer that does best; `metrics`, means
      over templates of all metrics, and `metric_versions`, both by key; `templates`, a list of figures by template,
      which names as `undefined` the metrics that are 0 because they are not defined, as where an answer or a target
      never varies.

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
    errors = [t["stderr"] for t in templates if t["stderr"] is not None]
    first = headline(record)
    return {
        "metric": first.headline,
        "headline_metric": {"name": first.name, "key": first.headline, "version": first.version},
        "examples": len(rows),
        "dev_examples": len(next(iter(dev.values()))) if dev else 0,
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "best_dev": best["value"] if best else None,
        "best_dev_template": best["template"] if best else None,
        "metrics": {name: float(np.mean([t["metrics"][name] for t in templates])) for name in templates[0]["metrics"]},
        "metric_versions": {key: version for metric in all_of(record) for key, version in metric.versions.items()},
        "stderr": float(np.mean(errors)) if errors else None,
        **(_ranked_figures(record, rows, templates) if is_ranked else {"random": None, "majority": None}),
        "templates": templates,
    }


def _template(
    record: catalog.Dataset, number: int, test: Sequence[Prediction], dev: Sequence[Prediction] | None
) -> dict[str, Any]:
    chosen = _chosen(record, test)
    found, undefined = _values(record, test, chosen)
    figures: dict[str, Any] = {"template": number, "value": headline(record).share(found)}
    figures["dev"] = headline_share(record, dev) if dev else None
    if record.kind == catalog.CLASSIFICATION:
        figures["sum"] = figures["value"]
        others = [way.name for way in ways.kept(test[0]) if way is not ways.SUM]
        figures |= {name: headline_share(record, test, name) for name in others}
        figures["dev_ways"] = {name: headline_share(record, dev, name) for name in ("sum", *others)} if dev else None
        scores = _example_values(record, test, chosen)
    else:
        figures["unfinished"] = sum(p["finish"] == "length" for p in test)
        scores = [p["score"] for p in test if "score" in p]
    figures["stderr"] = _stderr(scores, [p.get("passage", str(i)) for i, p in enumerate(test)]) if scores else None
    if undefined:
        figures["undefined"] = undefined
    return figures | {"metrics": found, "cut_prompts": sum(p["cut_tokens"] > 0 for p in test)}


def _stderr(values: Sequence[float], passages: Sequence[str]) -> float | None:
    """Of a mean, where values of one passage count together (Liang and Zeger 1986); None for a single passage."""
    groups_E = np.unique(passages, return_inverse=True)[1]
    groups = int(groups_E.max()) + 1
    if groups < 2:
        return None
    sums_G = np.bincount(groups_E, np.asarray(values, np.float64) - np.mean(values))
    return float(np.sqrt(groups / (groups - 1) * np.sum(sums_G**2)) / len(values))


def _ranked_figures(
    record: catalog.Dataset, rows: Sequence[Prediction], templates: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    names = [way.name for way in ways.kept(rows[0])]
    on_dev = [t["dev_ways"] for t in templates if t["dev_ways"]]
    dev = {name: float(np.mean([values[name] for values in on_dev])) for name in names} if on_dev else {}
    return {
        **{f"mean_{name}": float(np.mean([t[name] for t in templates])) for name in names if name != "sum"},
        "dev_ways": dev or None,
        "best_dev_way": max(dev, key=lambda name: dev[name]) if dev else None,
        "random": _random(record, rows),
        "majority": _best_constant(record, rows),
    }


def _example_values(record: catalog.Dataset, rows: Sequence[Prediction], chosen: Sequence[int]) -> list[float]:
    """The headline value of each prediction; empty where a single example has none."""
    metric = headline(record)
    if metric.example is None:
        return []
    targets, said = _compared(record, metric, rows, chosen)
    return [metric.example(t, p) for t, p in zip(targets, said, strict=True)]


def _random(record: catalog.Dataset, rows: Sequence[Prediction]) -> float:
    """The expected figure of options that are drawn at random; without a value of single examples, a mean of draws."""
    counts_E = [len(p["options"]) for p in rows]
    if headline(record).example is None:
        rng = np.random.default_rng(0)
        draws = min(max(_DRAWN_ANSWERS // len(rows), _FEWEST_DRAWS), _MOST_DRAWS)
        return float(np.mean([_share(record, rows, rng.integers(counts_E)) for _ in range(draws)]))
    total = 0.0
    for place in range(max(counts_E)):
        there = [p for p in rows if len(p["options"]) > place]
        values = _example_values(record, there, [place] * len(there))
        total += sum(value / len(p["options"]) for value, p in zip(values, there, strict=True))
    return total / len(rows)


def _best_constant(record: catalog.Dataset, rows: Sequence[Prediction]) -> float:
    """The highest figure of one answer to all: one label; or one place, the last of an example with fewer options."""
    if record.labels:
        words_ExN = [p.get("words", p["options"]) for p in rows]
        labels = dict.fromkeys(word for words in words_ExN for word in words)
        places = [[words.index(word) if word in words else 0 for words in words_ExN] for word in labels]
    else:
        right = sorted({place for p in rows for place in right_options(p)})
        places = [[min(place, len(p["options"]) - 1) for p in rows] for place in right]
    return max(_share(record, rows, chosen) for chosen in places)

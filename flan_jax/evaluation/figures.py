"""Figures of a dataset from its predictions: every forward template, mean and spread, best on dev (paper, section 2.2).

A prediction is a line of a predictions file. If options are ranked, it has `options`, `answer` (a number),
`loglikelihood`, and what the ways to score need besides (lists over options; `flan_jax.ways`). If text is generated, it
has `prediction`, `references` and, for most metrics, the example's own `score`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import catalog, metrics, ways
from flan_jax.data.examples import DEV, TEST
from flan_jax.errors import FlanError
from flan_jax.evaluation.copying import is_copy

Prediction = Mapping[str, Any]

FILES = {TEST: "results.json", DEV: "dev.json"}  # where figures are written

_OF_OPTIONS = ("accuracy", "answer_shares")  # metrics of every dataset with options, besides its own
# Draws of random answers, for the baseline of a metric without values of single examples. A small set gets more draws,
# because they differ more.
_FEWEST_DRAWS, _MOST_DRAWS, _DRAWN_ANSWERS = 20, 500, 20_000


def ranked(prediction: Prediction, score: str) -> int:
    """The option with the highest score; the first one if several are equal.

    Args:
      prediction: a prediction with ranked options.
      score: the name of a way to score (`flan_jax.ways`), for example "sum" or "per_character".

    Raises:
      FlanError: a score is NaN or infinite, the way is unknown, or the prediction lacks what the way needs.
    """
    values = ways.way(score).values(prediction)
    if not all(map(math.isfinite, values)):
        where = ", ".join(
            f"{name} {prediction[name]!r}" for name in ("dataset", "template", "id") if name in prediction
        )
        raise FlanError(f"a prediction has scores that are not finite ({where or score}): evaluate again.")
    return values.index(max(values))


def right_options(prediction: Prediction) -> list[int]:
    """The numbers of the right options: the answer, then options with the same text, then options that are references.

    Args:
      prediction: a prediction with ranked options. References are in the dataset's own words; `words` has them if the
        prompt shows others.
    """
    answer = prediction["answer"]
    words = prediction.get("words", prediction["options"])
    wanted = {words[answer].strip(), *(reference.strip() for reference in prediction.get("references", ()))}
    return [answer, *(i for i, word in enumerate(words) if i != answer and word.strip() in wanted)]


def is_right(prediction: Prediction, score: str = "sum") -> bool:
    """Whether the option with the highest score is right."""
    return ranked(prediction, score) in right_options(prediction)


def headline(record: catalog.Dataset) -> metrics.Metric:
    """The metric that tables show."""
    return metrics.metric(record.metrics[0])


def all_of(record: catalog.Dataset) -> list[metrics.Metric]:
    """The metrics of a dataset, the headline metric first.

    With ranked options, accuracy and answer shares are among them.
    """
    more = _OF_OPTIONS if record.kind == catalog.CLASSIFICATION else ()
    return [metrics.metric(name) for name in dict.fromkeys((*record.metrics, *more))]


def example_score(record: catalog.Dataset, references: Sequence[str], prediction: str) -> float | None:
    """The headline value of one generated text, 0 to 1; None for BLEU, which has no value for a single text."""
    found = headline(record).example
    return None if found is None else found(list(references), prediction)


def example_statistics(record: catalog.Dataset, references: Sequence[str], prediction: str) -> list[float] | None:
    """What one generated text adds to the sums behind the headline value; None if the text has a score of its own."""
    metric = headline(record)
    return None if metric.statistics is None else metric.statistics([list(references)], [prediction])[0].tolist()


def headline_statistics(record: catalog.Dataset, predictions: Sequence[Prediction]) -> np.ndarray:
    """What each prediction adds to the sums behind the headline value (`Metric.of_sums`): [E, K].

    Pass the predictions of a run with all its templates at once, since they show together which answers there are.

    Raises:
      FlanError: predictions of an earlier version that lack a field that the metric needs.
    """
    if all("statistics" in p for p in predictions):
        return np.array([p["statistics"] for p in predictions], np.float64)
    metric = headline(record)
    return metric.statistics(*_compared(record, metric, predictions, _chosen(record, predictions)))


def all_metrics(record: catalog.Dataset, predictions: Sequence[Prediction]) -> dict[str, float]:
    """Every metric of the dataset over the predictions of one template, in the metrics' own units (mostly percent)."""
    return _values(record, predictions, _chosen(record, predictions))[0]


def _values(
    record: catalog.Dataset, predictions: Sequence[Prediction], chosen: Sequence[int]
) -> tuple[dict[str, float], list[str]]:
    """(the values of all metrics by key, the keys of values that are 0 because they are undefined)."""
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
      predictions: the predictions of one template.
      score: the way to score options.
    """
    return _share(record, predictions, _chosen(record, predictions, score))


def _share(record: catalog.Dataset, predictions: Sequence[Prediction], chosen: Any) -> float:
    metric = headline(record)
    return metric.share(metric(*_compared(record, metric, predictions, chosen)))


def _chosen(record: catalog.Dataset, predictions: Sequence[Prediction], score: str = "sum") -> list[int]:
    """The numbers of the chosen options; empty if text is generated."""
    return [ranked(p, score) for p in predictions] if record.kind == catalog.CLASSIFICATION else []


def _compared(
    record: catalog.Dataset, metric: metrics.Metric, predictions: Sequence[Prediction], chosen: Sequence[int]
) -> tuple[list[Any], list[str]]:
    """(targets, predictions) in the form that the metric takes."""
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
    record: catalog.Dataset,
    test: Mapping[int, Sequence[Prediction]],
    dev: Mapping[int, Sequence[Prediction]],
    given: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Computes the figures of one dataset.

    The headline `metric` has `mean`, `std`, `best_dev`, `best_dev_template`, `random`, `majority` (None if there is
    none), and a `value` for each template, all from 0 to 1. If options are ranked, a template also has the headline
    value under each way to score, by the way's name; `value` is the one of `sum`, and `mean_<way>` are the means of the
    others. `best_dev_way` is the way with the highest mean over templates on dev; the first one if several are equal.
    Test plays no part in that choice.

    A prediction of generated text has `prompt`, `prediction` and `references`, and its own `score` from 0 to 1 if the
    metric has one. For BLEU it has `statistics`, which are added up over the corpus. Lines that share a `passage` are
    not independent.

    Args:
      record: the dataset.
      test: predictions on test, by template number.
      dev: predictions on dev, by template number; empty if there is no dev set.
      given: what the records of the predictions on test give (`copying.given`), by their ids; None if text is not
        generated, or if that is not known.

    Returns:
      - `metric`: the headline's key; `headline_metric`: its name, key and version.
      - `mean` and `std`: mean and sample standard deviation over templates.
      - `best_dev`: the test figure of the template that is best on dev; the first one if several are equal.
      - `stderr`: the standard error of one template's figure, averaged over templates. Examples that share a passage
        count together. None if a single example has no value.
      - `random`: the figure of random answers; `majority`: that of the best constant answer.
      - `copied`: the figure of what was given, repeated as the answer. None without `given`.
      - `metrics`: means over templates of all metrics; `metric_versions`; both by key.
      - `templates`: the figures of each template. `copies` counts the answers that only repeat the given words, and
        `unfinished` those that ended at the most tokens. `undefined` lists metrics that are 0 because they are
        undefined, for example because no answer or no target ever varies.

    Raises:
      FlanError: there are no predictions on test, or a score is not finite.
    """
    if not test or not all(test.values()):
        raise FlanError(f"dataset {record.name} has no test predictions, of which figures could be made.")
    is_ranked = record.kind == catalog.CLASSIFICATION
    rows = next(iter(test.values()))
    templates = [_template(record, n, lines, dev.get(n), given) for n, lines in test.items()]
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
        "copied": None if given is None else _share(record, [{**p, "prediction": given[p["id"]]} for p in rows], ()),
        "templates": templates,
    }


def _template(
    record: catalog.Dataset,
    number: int,
    test: Sequence[Prediction],
    dev: Sequence[Prediction] | None,
    given: Mapping[str, str] | None,
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
        if given is not None:
            figures["copies"] = sum(is_copy(p["prediction"], given[p["id"]], p["references"]) for p in test)
        scores = [p["score"] for p in test if "score" in p]
    figures["stderr"] = _stderr(scores, [p.get("passage", str(i)) for i, p in enumerate(test)]) if scores else None
    if undefined:
        figures["undefined"] = undefined
    return figures | {"metrics": found, "cut_prompts": sum(p["cut_tokens"] > 0 for p in test)}


def _stderr(values: Sequence[float], passages: Sequence[str]) -> float | None:
    """The standard error of a mean; values of one passage count together (Liang and Zeger 1986).

    None for a single passage.
    """
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
        **baselines(record, rows),
    }


def baselines(record: catalog.Dataset, predictions: Sequence[Prediction]) -> dict[str, float]:
    """What needs no model where options are ranked: {"random", "majority"}, 0 to 1.

    Args:
      record: the dataset.
      predictions: the predictions of one template.
    """
    return {"random": _random(record, predictions), "majority": _best_constant(record, predictions)}


def answer_shares(record: catalog.Dataset, predictions: Sequence[Prediction]) -> dict[str, float]:
    """Macro F1 and the share of the most frequent answer where options are ranked, in percent.

    Args:
      record: the dataset.
      predictions: the predictions of one template.
    """
    metric = metrics.metric("answer_shares")
    return metric(*_compared(record, metric, predictions, _chosen(record, predictions)))


def _example_values(record: catalog.Dataset, rows: Sequence[Prediction], chosen: Sequence[int]) -> list[float]:
    """The headline value of each prediction; empty if single examples have none."""
    metric = headline(record)
    if metric.example is None:
        return []
    targets, said = _compared(record, metric, rows, chosen)
    return [metric.example(t, p) for t, p in zip(targets, said, strict=True)]


def _random(record: catalog.Dataset, rows: Sequence[Prediction]) -> float:
    """The expected figure of random options; the mean of several draws if single examples have no value."""
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
    """The highest figure of a constant answer.

    That is one label, or one place among the options (the last one, for an example with fewer options).
    """
    if record.labels:
        words_ExN = [p.get("words", p["options"]) for p in rows]
        labels = dict.fromkeys(word for words in words_ExN for word in words)
        places = [[words.index(word) if word in words else 0 for words in words_ExN] for word in labels]
    else:
        right = sorted({place for p in rows for place in right_options(p)})
        places = [[min(place, len(p["options"]) - 1) for p in rows] for place in right]
    return max(_share(record, rows, chosen) for chosen in places)

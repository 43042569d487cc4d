"""What a report takes from the predictions: values by example, calibration, worst examples, comparisons."""

from __future__ import annotations

import dataclasses
import heapq
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax import content
from flan_jax.errors import FlanError
from flan_jax.evaluation.figures import ranked
from flan_jax.json_lines import from_json
from flan_jax.reporting.runs import Run, by_cluster, dataset_names, first_figures, metric, predictions
from flan_jax.reporting.statistics import Calibration, Interval, option_probabilities, paired_difference

WORST = 20  # examples shown a dataset


@dataclasses.dataclass(frozen=True)
class Values:
    """The predictions of a run on a dataset, in numbers.

    Attributes:
      metric: "accuracy" where options are ranked, otherwise the headline metric.
      ids: of E examples, by their content (`runs.predictions`).
      values_ExT: 0 to 1, for each example and template.
      calibration: of the options' probabilities; None for a generation dataset.
    """

    metric: str
    ids: tuple[str, ...]
    values_ExT: np.ndarray
    calibration: Calibration | None

    def of(self, ids: Iterable[str]) -> np.ndarray:
        """The rows of some examples."""
        place = {identity: i for i, identity in enumerate(self.ids)}
        return self.values_ExT[[place[identity] for identity in ids]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A run beside the first one.

    Attributes:
      first, other: their names.
      datasets: differences on the examples that both have.
      examples: how many those are.
      means: of both runs on them.
      clusters: differences of the clusters' means; variants of a dataset count once.
    """

    first: str
    other: str
    datasets: dict[str, Interval]
    examples: dict[str, int]
    means: dict[str, tuple[float, float]]
    clusters: dict[str, Interval]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Everything that a report shows beyond results.json.

    Attributes:
      values: by run and dataset, where the predictions are at hand.
      comparisons: each later run beside the first.
      worst: predictions of the last run by dataset, worst first.
      beside: the other runs' predictions for the same example and template, by (run, dataset, record, template).
      clean: by run and dataset: {"examples", "clean", "all_mean", "mean", "std"}; empty without contamination results.
    """

    values: dict[str, dict[str, Values]]
    comparisons: list[Comparison]
    worst: dict[str, list[dict[str, Any]]]
    beside: dict[tuple[str, str, str, int], dict[str, Any]]
    clean: dict[str, dict[str, dict[str, Any]]]

    def calibration(self, run: str) -> Calibration | None:
        """Of all of a run's ranked options together."""
        parts = [v.calibration for v in self.values[run].values() if v.calibration]
        return sum(parts[1:], parts[0]) if parts else None


def gather(runs: Sequence[Run], contamination: str | Path | None = None, *, seed: int = 0) -> Evidence:
    """Reads the predictions, one dataset of one run at a time.

    Args:
      runs: the first is compared with, the last is the one of interest.
      contamination: what `flan_jax.contamination` wrote.
      seed: of the bootstrap.

    Raises:
      FlanError: contamination results that are broken or of other examples.
    """
    values: dict[str, dict[str, Values]] = {run.name: {} for run in runs}
    worst: dict[str, list[dict[str, Any]]] = {}
    beside: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    for name in dataset_names(runs):
        for run in reversed(runs):
            rows = predictions(run, name)
            if not rows:
                continue
            if (found := values_of(rows, metric(run.figures(name)))) is not None:
                values[run.name][name] = found
            if run is runs[-1]:
                worst[name] = worst_examples(rows)
                continue
            wanted = {(p["record"], p["template"]) for p in worst.get(name, ())}
            for number, lines in rows.items():
                shown = [p for p in lines if (p["record"], number) in wanted]
                beside.update({(run.name, name, p["record"], number): p for p in shown})
    comparisons = [_compare(runs, runs[0].name, run.name, values, seed) for run in runs[1:]]
    clean = _clean_subsets(values, Path(contamination)) if contamination else {}
    return Evidence(values, comparisons, worst, beside, clean)


def values_of(rows: Mapping[int, Sequence[Mapping[str, Any]]], headline: str) -> Values | None:
    """The numbers of one dataset's predictions, by template.

    Returns:
      None where the headline metric has no value for a single example, like BLEU of a corpus.
    """
    first = next(iter(rows.values()))
    ids = tuple(p["record"] for p in first)
    place = {identity: i for i, identity in enumerate(ids)}
    has_options = "loglikelihood" in first[0]
    if not has_options and "score" not in first[0]:
        return None
    values_ExT = np.zeros((len(ids), len(rows)))
    confidences, right = [], []
    for t, lines in enumerate(rows.values()):
        for p in lines:
            if has_options:
                choice = ranked(p, "sum")
                values_ExT[place[p["record"]], t] = choice == p["answer"]
                confidences.append(option_probabilities(np.asarray(p["loglikelihood"], np.float64))[choice])
                right.append(choice == p["answer"])
            else:
                values_ExT[place[p["record"]], t] = p["score"]
    calibration = Calibration.of(np.array(confidences), np.array(right)) if has_options else None
    return Values("accuracy" if has_options else headline, ids, values_ExT, calibration)


def margin(prediction: Mapping[str, Any]) -> float:
    """How far the answer lies above the best other option, or the score of a generated text."""
    if "loglikelihood" not in prediction:
        return prediction.get("score", 0.0)
    scores, answer = prediction["loglikelihood"], prediction["answer"]
    return scores[answer] - max((s for i, s in enumerate(scores) if i != answer), default=-np.inf)


def worst_examples(rows: Mapping[int, Sequence[dict[str, Any]]], count: int = WORST) -> list[dict[str, Any]]:
    """The examples with the lowest margins, each with the template that is worst on it, lowest first."""
    lowest: dict[str, tuple[float, int, str]] = {}
    kept: dict[str, dict[str, Any]] = {}
    for number, lines in rows.items():
        for p in lines:
            record = p["record"]
            rank = (margin(p), number, record)
            if record not in lowest or rank < lowest[record]:
                lowest[record], kept[record] = rank, p
    return [kept[identity] for _, _, identity in heapq.nsmallest(count, lowest.values())]


def _compare(
    runs: Sequence[Run], first: str, other: str, values: Mapping[str, Mapping[str, Values]], seed: int
) -> Comparison:
    found = Comparison(first, other, {}, {}, {}, {})
    for name in dataset_names(runs):
        a, b = values[first].get(name), values[other].get(name)
        if a is None or b is None or a.metric != b.metric:
            continue
        there = set(b.ids)
        ids = [identity for identity in a.ids if identity in there]
        if not ids:
            continue
        a_ExT, b_ExT = a.of(ids), b.of(ids)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        found.datasets[name] = paired_difference(a_ExT, b_ExT, rng)
        found.examples[name] = len(ids)
        found.means[name] = (float(a_ExT.mean()), float(b_ExT.mean()))
    for cluster, names in by_cluster(runs).items():
        if not names or not all(name in found.datasets for name in names):
            continue  # a mean of some of its datasets would pass for the cluster's
        variants: dict[str, list[Interval]] = {}
        for name in names:
            variants.setdefault(first_figures(runs, name)["paper_dataset"], []).append(found.datasets[name])
        found.clusters[cluster] = Interval(
            float(np.mean([np.mean([i.difference for i in group]) for group in variants.values()])),
            np.mean([np.mean([i.replicates for i in group], axis=0) for group in variants.values()], axis=0),
        )
    return found


def _clean_subsets(values: Mapping[str, Mapping[str, Values]], path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    try:
        checked = from_json(path.read_text(encoding="utf-8"))["datasets"]
        split = {
            name: tuple({record["hash"] for record in s["test"][part]} for part in ("clean", "dirty"))
            for name, s in checked.items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FlanError(
            f"no contamination results of this version in {path}: write them with python -m flan_jax.contamination."
        ) from error
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for run, datasets in values.items():
        for name, value in datasets.items():
            if name not in split:
                continue
            clean, dirty = split[name]
            if missing := sum(content.unnumbered(one) not in clean | dirty for one in value.ids):
                raise FlanError(
                    f"{missing} examples of {name} in run {run!r} are not in {path}: "
                    "run python -m flan_jax.contamination on the examples that were evaluated."
                )
            ids = [one for one in value.ids if content.unnumbered(one) in clean]
            means_T = value.of(ids).mean(0) if ids else None
            found.setdefault(run, {})[name] = {
                "examples": len(value.ids),
                "clean": len(ids),
                "all_mean": float(value.values_ExT.mean()),
                "mean": float(means_T.mean()) if ids else None,
                "std": float(means_T.std(ddof=1)) if ids and len(means_T) > 1 else 0.0,
            }
    return found

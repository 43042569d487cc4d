"""What a report takes from the predictions: values by example, intervals, worst examples, comparisons."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, user_path
from flan_jax.json_lines import from_json
from flan_jax.reporting import pairing, statistics
from flan_jax.reporting.comparisons import Comparison, compare
from flan_jax.reporting.runs import Run, UnusableError, dataset_names, predictions
from flan_jax.reporting.statistics import Calibration, Interval
from flan_jax.reporting.values import Values, values_of

WORST = 20  # how many examples of each dataset are shown
NOT_AT_HAND = "no predictions at hand"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Everything that a report shows besides results.json.

    Attributes:
      values: values by run and dataset, if the predictions are available.
      unusable: why a dataset of a run has no values, by run and dataset.
      intervals: intervals of the mean of each run and dataset: (over examples, over examples and templates or None).
      comparisons: each later run compared with the first one.
      worst: predictions of the last run by dataset, worst first.
      beside: the other runs' predictions for the same record and template, by (run, dataset, record, template).
      clean: {"examples", "clean", "all_mean", "mean", "std"} by run and dataset; empty without contamination results.
    """

    values: dict[str, dict[str, Values]]
    unusable: dict[str, dict[str, str]]
    intervals: dict[str, dict[str, tuple[Interval, Interval | None]]]
    comparisons: list[Comparison]
    worst: dict[str, list[dict[str, Any]]]
    beside: dict[tuple[str, str, str, int], dict[str, Any]]
    clean: dict[str, dict[str, dict[str, Any]]]

    def calibration(self, run: str) -> Calibration | None:
        """The calibration of all ranked options of a run together."""
        parts = [v.calibration for v in self.values[run].values() if v.calibration]
        return sum(parts[1:], parts[0]) if parts else None


def gather(runs: Sequence[Run], contamination: str | AnyPath | None = None, *, seed: int = 0) -> Evidence:
    """Reads the predictions, one dataset of one run at a time.

    Args:
      runs: the runs; the others are compared with the first one, and the last one is the one of interest.
      contamination: the file that `flan_jax.contamination` wrote.
      seed: the seed of resamples and permutations.

    Raises:
      FlanError: contamination results that are broken or belong to other examples.
    """
    found: dict[str, dict[str, Values]] = {run.name: {} for run in runs}
    unusable: dict[str, dict[str, str]] = {run.name: {} for run in runs}
    worst: dict[str, list[dict[str, Any]]] = {}
    beside: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    for name in dataset_names(runs):
        for run in reversed(runs):
            if run.figures(name) is None:
                continue
            rows: dict[int, list[dict[str, Any]]] = {}
            try:
                if run.members:
                    found[run.name][name] = pairing.as_one([_read(one, name)[0] for one in run.members])
                    rows = predictions(run.members[-1], name)
                else:
                    found[run.name][name], rows = _read(run, name)
            except UnusableError as error:
                unusable[run.name][name] = str(error)
                with contextlib.suppress(UnusableError):
                    rows = rows or predictions(run.members[-1] if run.members else run, name)
            if run is runs[-1]:
                if rows:
                    worst[name] = worst_examples(rows)
                continue
            wanted = {(record_of(p), p["template"]) for p in worst.get(name, ())}
            for number, lines in rows.items():
                shown = [p for p in lines if (record_of(p), number) in wanted]
                beside.update({(run.name, name, record_of(p), number): p for p in shown})
    intervals = {
        run: {
            name: _intervals(value, np.random.default_rng([seed, zlib.crc32(name.encode())]))
            for name, value in v.items()
        }
        for run, v in found.items()
    }
    clean = _clean_subsets(found, user_path(contamination)) if contamination else {}
    return Evidence(found, unusable, intervals, compare(runs, found, seed), worst, beside, clean)


def _read(run: Run, name: str) -> tuple[Values, dict[int, list[dict[str, Any]]]]:
    rows = predictions(run, name)
    if not rows:
        raise UnusableError(NOT_AT_HAND)
    return values_of(rows, run.figures(name), run.style.name), rows


def _intervals(value: Values, rng: np.random.Generator) -> tuple[Interval, Interval | None]:
    sample = value.sample()
    single = sample.size == 1
    over_examples = Interval(sample.value, statistics.bootstrap(sample, rng), single)
    if sample.templates == 1:
        return over_examples, None
    return over_examples, Interval(sample.value, statistics.bootstrap(sample, rng, over_templates=True), single)


def record_of(prediction: Mapping[str, Any]) -> str:
    """Identifies the record of a prediction: by its digest, or by its id in predictions of earlier versions."""
    return str(prediction.get("hash", prediction["id"]))


def margin(prediction: Mapping[str, Any]) -> float:
    """How far the answer's score is above the best other option; for a generated text, its own score."""
    if "loglikelihood" not in prediction:
        return prediction.get("score", 0.0)
    scores, answer = prediction["loglikelihood"], prediction["answer"]
    return scores[answer] - max((s for i, s in enumerate(scores) if i != answer), default=-np.inf)


def worst_examples(rows: Mapping[int, Sequence[dict[str, Any]]], count: int = WORST) -> list[dict[str, Any]]:
    """The examples with the lowest margins, lowest first.

    Each has the prediction of the template that is worst on it.
    """
    lowest: dict[str, tuple[float, int, str]] = {}
    kept: dict[str, dict[str, Any]] = {}
    for number, lines in rows.items():
        for p in lines:
            record = record_of(p)
            rank = (margin(p), number, str(p["id"]))
            if record not in lowest or rank < lowest[record]:
                lowest[record], kept[record] = rank, p
    return [kept[record] for _, record in heapq.nsmallest(count, ((rank, record) for record, rank in lowest.items()))]


def _clean_subsets(found: Mapping[str, Mapping[str, Values]], path: AnyPath) -> dict[str, dict[str, dict[str, Any]]]:
    try:
        checked = from_json(path.read_text(encoding="utf-8"), keys_once=True)["datasets"]
        split = {
            name: tuple({record["hash"] for record in s["test"][part]} for part in ("clean", "dirty"))
            for name, s in checked.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FlanError(
            f"no contamination results of this version in {path}: write them with python -m flan_jax.contamination."
        ) from error
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for run, datasets in found.items():
        for name, value in datasets.items():
            if name not in split:
                continue
            if value.hashes is None:
                raise FlanError(
                    f"the predictions of {name} in run {run!r} are of an earlier version, and do not say what their "
                    "records are: evaluate again, or leave the contamination results out."
                )
            clean, dirty = split[name]
            if missing := sum(one not in clean | dirty for one in value.hashes):
                raise FlanError(
                    f"{missing} examples of {name} in run {run!r} are not in {path}: "
                    "run python -m flan_jax.contamination on the examples that were evaluated."
                )
            kept = np.array([i for i, one in enumerate(value.hashes) if one not in dirty], np.int64)
            means_T = value.sample(kept).values_T if len(kept) else None
            out.setdefault(run, {})[name] = {
                "examples": len(value.ids),
                "clean": len(kept),
                "all_mean": value.sample().value,
                "mean": float(means_T.mean()) if len(kept) else None,
                "std": float(means_T.std(ddof=1)) if len(kept) and len(means_T) > 1 else 0.0,
            }
    if found and not out:
        named = ", ".join(list(split)[:5]) or "no dataset"
        raise FlanError(f"{path} has {named}, and nothing that these runs have: give the file of their datasets.")
    return out

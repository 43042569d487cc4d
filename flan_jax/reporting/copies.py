"""Whether two runs are one model that was asked the same: copies have no spread over runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from flan_jax.content import numbered
from flan_jax.reporting.runs import Run, UnusableError, predictions

ROUNDING = 1e-5  # by so much, relatively, one model's log-likelihoods may differ from one computation to the next
FEWEST_TEXTS = 20  # models of their own may give the same few answers, and not so many different ones

Line = Mapping[str, Any]


def are_one(a: Run, b: Run) -> bool:
    """Whether two runs are one model that was asked the same.

    They are if they say that their weights are the same, or if a log says that of its model and arguments. Where
    nothing is said, predictions count, over all examples that both were asked alike: the same log-likelihoods up to
    rounding; or, without any, the same generated texts, if there are many different ones. The same figures show
    nothing: models of their own may have them.
    """
    if a.is_log != b.is_log:
        return False
    weights = [run.results.get("weights") for run in (a, b)]
    if not a.is_log and all(weights):
        seeds = [(run.results.get("settings") or {}).get("seed") for run in (a, b)]
        return weights[0] == weights[1] and (not a.style.draws or seeds[0] == seeds[1])
    said = [run.results.get("identity") for run in (a, b)]
    if a.is_log and said[0] and said[0] == said[1]:
        return next(_asked_alike(a, b), None) is not None
    return _answer_alike(a, b)


def _answer_alike(a: Run, b: Run) -> bool:
    scored, texts, alike = False, set(), True
    for one, other in _asked_alike(a, b):
        ours, theirs = _scores(one), _scores(other)
        if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=ROUNDING, atol=ROUNDING):
            return False
        scored = scored or bool(ours)
        if not ours:
            texts.add(one.get("prediction"))
            alike = alike and one.get("prediction") == other.get("prediction")
    return scored or (alike and len(texts) >= FEWEST_TEXTS)


def _asked_alike(a: Run, b: Run) -> Iterator[tuple[Line, Line]]:
    """The predictions on records that both have, where all of them were asked in the same words, exemplars included."""
    for dataset in a.datasets:
        ours, theirs = (_lines(run, dataset) if dataset in run.datasets else {} for run in (a, b))
        for template in ours.keys() & theirs.keys():
            there = _by_record(theirs[template])
            pairs = [(one, there[key]) for key, one in _by_record(ours[template]).items() if key in there]
            if all(_words(one) == _words(other) for one, other in pairs):
                yield from pairs


def _lines(run: Run, dataset: str) -> Mapping[int, list[dict[str, Any]]]:
    try:
        return predictions(run, dataset)
    except UnusableError:
        return {}


def _by_record(lines: list[dict[str, Any]]) -> dict[str, Line]:
    return dict(zip(numbered([str(line.get("hash", line.get("id"))) for line in lines]), lines, strict=True))


def _words(line: Line) -> Any:
    return line["asked"] if "asked" in line else [line.get("prompt"), line.get("options")]


def _scores(line: Line) -> list[float]:
    return list(line.get("loglikelihood", line.get("scores", ())))

"""Metrics by name, as SeqIO wants them: (targets, predictions) -> {name: value}.

A target is a text or a list of references, of which the best counts; for MultiRC, a text with its question's id.
Every value is a finite number: what cannot be computed is refused in one line. See `undefined` for what counts as 0.
"""

from __future__ import annotations

import collections
import functools
import math
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import sacrebleu
from nltk import edit_distance as nltk_edit_distance
from rouge_score import rouge_scorer
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from flan_jax.errors import FlanError, unknown_name

Targets = Sequence["str | Sequence[str]"]

_LARGEST = 1e9  # of numbers that are correlated: squares of larger ones could be infinite
_CORRELATIONS = {"pearson_spearman": ("pearson", "spearman"), "matthews": ("matthews",)}


Metric = Callable[[Any, Sequence[str]], dict[str, float]]


def _finite(function: Metric) -> Metric:
    """A metric that refuses what has no value, and never gives one that is not finite."""

    @functools.wraps(function)
    def metric(targets: Any, predictions: Sequence[str]) -> dict[str, float]:
        if len(targets) != len(predictions) or not len(targets):
            raise FlanError(
                f"metric {function.__name__} of {len(targets)} targets and {len(predictions)} predictions: there must "
                "be as many of the one as of the other, and at least one."
            )
        for i, target in enumerate(targets):
            if not isinstance(target, str) and not len(target):
                raise FlanError(f"metric {function.__name__}: example {i} has no reference to compare with.")
        found = function(targets, predictions)
        if bad := [name for name, value in found.items() if not math.isfinite(value)]:
            raise FlanError(f"metric {bad[0]} of {len(targets)} examples is {found[bad[0]]}, which is no result.")
        return found

    return metric


def _references(target: str | Sequence[str]) -> list[str]:
    return [target] if isinstance(target, str) else list(target)


@_finite
def accuracy(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """Percentage of predictions that are a reference, white space at the ends apart."""
    right = [p.strip() in {r.strip() for r in _references(t)} for t, p in zip(targets, predictions, strict=True)]
    return {"accuracy": 100.0 * float(np.mean(right))}


@_finite
def binary_f1(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """F1 of the answer "yes" against any other, in percent; 0 where there is neither a "yes" to find nor one given."""
    wanted = ["yes" in {r.strip() for r in _references(t)} for t in targets]
    given = [p.strip() == "yes" for p in predictions]
    return {"f1": 100.0 * float(f1_score(wanted, given, zero_division=0))}


@_finite
def pearson_spearman(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """Pearson's and Spearman's correlation of targets and predictions as numbers, in percent.

    A prediction that is no number counts as -1, below every score. Where either side is constant, a correlation is
    undefined and given as 0.

    Raises:
      FlanError: a target is no number.
    """
    wanted = [_target_number(_references(t)[0], i) for i, t in enumerate(targets)]
    given = [_number(p) for p in predictions]
    if len(set(wanted)) < 2 or len(set(given)) < 2:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": 100.0 * float(stats.pearsonr(wanted, given).statistic),
        "spearman": 100.0 * float(stats.spearmanr(wanted, given).statistic),
    }


@_finite
def matthews(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """Matthews' correlation of the answers, in percent; 0 where either side is constant."""
    wanted, given = [_references(t)[0].strip() for t in targets], [p.strip() for p in predictions]
    if undefined("matthews", targets, predictions):
        return {"matthews": 0.0}
    return {"matthews": 100.0 * float(matthews_corrcoef(wanted, given))}


@_finite
def mean_multiclass_f1(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """F1 of each answer that stands among the targets, averaged, in percent (SuperGLUE's for CB)."""
    wanted, given = [_references(t)[0].strip() for t in targets], [p.strip() for p in predictions]
    labels = sorted(set(wanted))
    return {"mean_f1": 100.0 * float(f1_score(wanted, given, labels=labels, average="macro", zero_division=0))}


@_finite
def multirc(targets: Sequence[Mapping[str, str]], predictions: Sequence[str]) -> dict[str, float]:
    """MultiRC's F1 over all candidate answers and exact match over questions, in percent (Khashabi et al. 2018).

    Args:
      targets: {"question_id", "answer"} of each candidate; a question's candidates share its id.
      predictions: an answer to each candidate.
    """
    right: dict[str, bool] = {}
    for target, prediction in zip(targets, predictions, strict=True):
        same = target["answer"].strip() == prediction.strip()
        right[target["question_id"]] = right.get(target["question_id"], True) and same
    f1 = binary_f1([t["answer"] for t in targets], predictions)["f1"]
    return {"f1a": f1, "em": 100.0 * float(np.mean(list(right.values())))}


@_finite
def edit_distance(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """Levenshtein's distance in words to the nearest reference: its mean, and the percentage of exact texts."""
    pairs = [([r.split() for r in _references(t)], p.split()) for t, p in zip(targets, predictions, strict=True)]
    distances = [min(nltk_edit_distance(r, given) for r in references) for references, given in pairs]
    return {
        "edit_distance": float(np.mean(distances)),
        "exact": 100.0 * float(np.mean([d == 0 for d in distances])),
    }


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return -1.0
    return min(max(value, -_LARGEST), _LARGEST) if math.isfinite(value) else -1.0


def _target_number(text: str, example: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST:
        raise FlanError(f"a correlation needs numbers, and the target of example {example} is {text!r}.")
    return value


def undefined(name: str, targets: Any, predictions: Sequence[str]) -> tuple[str, ...]:
    """The values of a metric that are 0 because they are undefined here: correlations where one side is constant.

    Args:
      name: of the metric.
      targets: as the metric takes them.
      predictions: likewise.
    """
    if name not in _CORRELATIONS:
        return ()
    read = _number if name == "pearson_spearman" else str.strip
    wanted, given = {read(_references(t)[0]) for t in targets}, {read(p) for p in predictions}
    return _CORRELATIONS[name] if len(wanted) < 2 or len(given) < 2 else ()


def normalize_answer(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces (Rajpurkar et al. 2016)."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def token_f1(reference: str, prediction: str) -> float:
    """Harmonic mean of precision and recall of words after `normalize_answer`, 0 to 1."""
    wanted, given = normalize_answer(reference).split(), normalize_answer(prediction).split()
    if not wanted or not given:
        return float(wanted == given)
    common = sum((collections.Counter(wanted) & collections.Counter(given)).values())
    return 2 * common / (len(wanted) + len(given))


@_finite
def squad(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """Exact match and F1 in SQuAD's manner, in percent."""
    exact, f1 = [], []
    for target, prediction in zip(targets, predictions, strict=True):
        references = _references(target)
        exact.append(max(normalize_answer(r) == normalize_answer(prediction) for r in references))
        f1.append(max(token_f1(r, prediction) for r in references))
    return {"em": 100.0 * float(np.mean(exact)), "f1": 100.0 * float(np.mean(f1))}


@_finite
def rouge(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, -2 and -L F-measures (rouge-score, with stemming), in percent."""
    names = ("rouge1", "rouge2", "rougeLsum")
    scorer = rouge_scorer.RougeScorer(names, use_stemmer=True)
    found: dict[str, list[float]] = {name: [] for name in names}
    for target, prediction in zip(targets, predictions, strict=True):
        scores = scorer.score_multi(_references(target), prediction)
        for name in names:
            found[name].append(scores[name].fmeasure)
    return {name: 100.0 * float(np.mean(values)) for name, values in found.items()}


@_finite
def bleu(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """Corpus BLEU (sacrebleu's default tokenization)."""
    references = [_references(target) for target in targets]
    most = max(len(r) for r in references)
    columns = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    return {"bleu": float(sacrebleu.corpus_bleu(list(predictions), columns).score)}


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "binary_f1": binary_f1,
    "edit_distance": edit_distance,
    "matthews": matthews,
    "mean_multiclass_f1": mean_multiclass_f1,
    "multirc": multirc,
    "pearson_spearman": pearson_spearman,
    "squad": squad,
    "trivia_qa": squad,  # the same normalisation, over all aliases
    "rouge": rouge,
    "bleu": bleu,
}


def metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
      FlanError: there is none.
    """
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]

"""Where two runs are one model that was asked the same: copies have no spread over runs.

It is decided for each dataset: a seed may draw exemplars for one and none for another, and of runs with a checkpoint
for each cluster, two may share one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.content import numbered
from flan_jax.reporting import asked
from flan_jax.reporting.runs import Run, UnusableError, predictions

ROUNDING = 1e-5  # by so much, relatively, one model's log-likelihoods may differ from one computation to the next
FEWEST_TEXTS = 20  # models of their own may give the same few wrong answers, and not so many different ones
FEWEST_RECORDS = 20  # two seeds may draw the same for a few by chance
# Where logs only name their model, its log-likelihoods may differ by so much, relatively and on average, as those of
# another dtype do; and so many of its texts.
FAR, MOST_OTHER_TEXTS = 0.05, 0.5

Line = Mapping[str, Any]
Pairs = list[tuple[Line, Line]]


def same_on(a: Run, b: Run) -> list[str]:
    """The datasets on which two runs are one model that was asked the same.

    They are if they say that their weights are the same, or if a log says that of its model and arguments, and its
    predictions do not contradict it. Weights that are said to differ and give the same log-likelihoods to the last
    digit are the same, and so are those of templates with one key. Where nothing is said, predictions count, over all
    examples that both were asked alike: the same log-likelihoods up to rounding; or the same generated texts, if many
    different ones are wrong, since models that are right agree. Without predictions, results of one checkpoint count,
    by its digest or the time they were made. The same figures show nothing: models of their own may have them. What is
    shown on one dataset holds for the others of the same checkpoints, unless they contradict it.
    """
    if a.is_log != b.is_log:
        return []
    parts: dict[tuple[str, str], dict[str, bool | frozenset[str]]] = {}
    for name in (name for name in a.datasets if name in b.datasets):
        parts.setdefault((_part(a, name), _part(b, name)), {})[name] = _compared(a, b, name)
    found = []
    for part in parts.values():
        wrong = frozenset[str]().union(*(one for one in part.values() if not isinstance(one, bool)))
        shown = True in part.values() or len(wrong) >= FEWEST_TEXTS
        found += [name for name, one in part.items() if one is True or (shown and one is not False)]
    return found


def _part(run: Run, dataset: str) -> str:
    """Which of a run's checkpoints a dataset was evaluated with; empty if there is one for all."""
    return str((run.results.get("checkpoints") or {}).get(dataset, ""))


def _compared(a: Run, b: Run, dataset: str) -> bool | frozenset[str]:
    """Whether two runs are one on a dataset; if nothing shows it or contradicts it, their common wrong texts."""
    weights = [_weights(run, dataset) for run in (a, b)]
    if not a.is_log and _have_one_key(a, b, dataset):
        return True
    if not a.is_log and all(weights):
        if not weights[0] & weights[1]:
            same_otherwise = {**a.results, "weights": None} == {**b.results, "weights": None}
            return (same_otherwise and _lacks_lines(a, b, dataset)) or _score_alike(_asked_alike(a, b, dataset)[0])
        if len(weights[0] | weights[1]) == 1:
            return _drew_alike(a, b, dataset)
    pairs, otherwise = _asked_alike(a, b, dataset)
    if otherwise and not pairs:
        return False
    if a.is_log and (said := a.results.get("identity")) and said == b.results.get("identity"):
        by_content = all(run.results.get("model_digest") for run in (a, b))  # a name may be of other weights meanwhile
        return bool(pairs) and (by_content or not _are_far(pairs))
    if not a.is_log and weights[0] and weights[0] == weights[1] and not pairs:
        return _drew_alike(a, b, dataset)
    if not a.is_log and _lacks_lines(a, b, dataset) and _are_of_one_job(a, b, dataset):
        return _drew_alike(a, b, dataset)
    return _answer_alike(pairs)


def _lacks_lines(a: Run, b: Run, dataset: str) -> bool:
    """Whether one of the two has no predictions at hand, so that none can contradict."""
    return not (_lines(a, dataset) and _lines(b, dataset))


def _have_one_key(a: Run, b: Run, dataset: str) -> bool:
    """Whether a template has one key in both: it digests weights, prompts, records and settings."""
    ours, theirs = ({t["template"]: t.get("key") for t in run.datasets[dataset]["templates"]} for run in (a, b))
    return any(key and key == theirs.get(template) for template, key in ours.items())


def _are_of_one_job(a: Run, b: Run, dataset: str) -> bool:
    """Whether results without predictions are of one checkpoint, or were made at once, or are one to the last letter.

    The same figures alone show nothing: models of their own may have them. Nor does one checkpoint where its weights
    are known to be others, such as their running mean; templates with other keys may be of those.
    """
    if a.results == b.results:
        return True
    if _part(a, dataset) != _part(b, dataset) or a.results["checkpoint"] != b.results["checkpoint"]:
        return False
    ours, theirs = ({t["template"]: t.get("key") for t in run.datasets[dataset]["templates"]} for run in (a, b))
    if any(key and theirs.get(template) not in (None, key) for template, key in ours.items()):
        return False
    return any(a.results.get(key) and a.results[key] == b.results.get(key) for key in ("model_digest", "made"))


def _score_alike(pairs: Pairs) -> bool:
    """Whether all log-likelihoods are the same to the last digit, as those of other weights never are."""
    each = [(_scores(one), _scores(other)) for one, other in pairs]
    return any(len(set(ours)) > 1 for ours, _ in each) and all(ours == theirs for ours, theirs in each)


def _weights(run: Run, dataset: str) -> frozenset[str]:
    """The digests of the weights that a dataset may have been evaluated with; empty if results do not say it.

    Results of earlier versions with a checkpoint for each cluster list all, and do not say which is of what.
    """
    said = run.results.get("weights") or ()
    if isinstance(said, Mapping):
        said = said.get(dataset) or ()
    return frozenset([said] if isinstance(said, str) else said)


def _drew_alike(a: Run, b: Run, dataset: str) -> bool:
    """Whether one model was asked the same: by the same seeds, or by others that drew nothing for the dataset."""
    if asked.drawn(a, dataset) == asked.drawn(b, dataset):
        return True
    pairs, otherwise = _asked_alike(a, b, dataset)
    records = {str(one.get("hash", one.get("id"))) for one, _ in pairs if "prompt" in one}
    return not otherwise and len(records) >= FEWEST_RECORDS


def _asked_alike(a: Run, b: Run, dataset: str) -> tuple[Pairs, bool]:
    """The predictions on records that both have, with the templates by which all were asked in the same words.

    Exemplars are among the words.

    Returns:
      (the predictions, whether other templates asked in other words).
    """
    ours, theirs = (_lines(run, dataset) for run in (a, b))
    found: Pairs = []
    otherwise = False
    for template in ours.keys() & theirs.keys():
        there = _by_record(theirs[template])
        pairs = [(one, there[key]) for key, one in _by_record(ours[template]).items() if key in there]
        if all(_words(one) == _words(other) for one, other in pairs):
            found += pairs
        else:
            otherwise = True
    return found, otherwise


def _answer_alike(pairs: Pairs) -> bool | frozenset[str]:
    scored, wrong = False, set()
    for one, other in pairs:
        ours, theirs = _scores(one), _scores(other)
        if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=ROUNDING, atol=ROUNDING):
            return False
        if not ours and one.get("prediction") != other.get("prediction"):
            return False
        scored = scored or bool(ours)
        if not ours and _is_wrong(one):
            wrong.add(str(one.get("prediction")))
    return scored or frozenset(wrong)


def _is_wrong(line: Line) -> bool:
    """Whether a generated text is not what any perfect model says."""
    if str(line.get("prediction", "")).strip() in [str(one).strip() for one in line.get("references") or ()]:
        return False
    return bool(line.get("score", 0.0) < 1)


def _are_far(pairs: Pairs) -> bool:
    """Whether answers are too different for one model, however it was computed."""
    ours, theirs = (np.array([v for pair in pairs for v in _scores(pair[side])], np.float64) for side in (0, 1))
    if len(ours) != len(theirs):
        return True
    if len(ours):
        return bool(np.abs(ours - theirs).mean() > FAR * np.abs(ours).mean() + ROUNDING)
    return float(np.mean([one.get("prediction") != other.get("prediction") for one, other in pairs])) > MOST_OTHER_TEXTS


def _lines(run: Run, dataset: str) -> Mapping[int, list[dict[str, Any]]]:
    try:
        return predictions(run, dataset)
    except UnusableError:
        return {}


def _by_record(lines: Sequence[dict[str, Any]]) -> dict[str, Line]:
    return dict(zip(numbered([str(line.get("hash", line.get("id"))) for line in lines]), lines, strict=True))


def _words(line: Line) -> Any:
    """All that was asked. The order of options counts where the prompt shows it."""
    return line["asked"] if "asked" in line else [line.get("prompt"), sorted(line.get("options") or ())]


def _scores(line: Line) -> list[float]:
    """Of options in the order of their texts, because a seed may have drawn another."""
    scores = list(line.get("loglikelihood", line.get("scores", ())))
    options = line.get("options") or ()
    if "asked" in line or len(options) != len(scores):
        return scores
    return [score for _, score in sorted(zip(options, scores, strict=True))]

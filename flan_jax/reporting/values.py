"""The predictions of a run on a dataset as numbers: a value for each example and template, and what was answered."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import catalog
from flan_jax.content import numbered
from flan_jax.errors import FlanError
from flan_jax.evaluation.clusters import headline_metric
from flan_jax.evaluation.figures import (
    answer_shares,
    baselines,
    headline,
    headline_statistics,
    ranked,
    right_options,
)
from flan_jax.metrics import metric
from flan_jax.reporting import gold, matching
from flan_jax.reporting.gold import Gold
from flan_jax.reporting.runs import SAME, UnusableError, template_value, wording
from flan_jax.reporting.samples import Sample, of_mean
from flan_jax.reporting.statistics import Calibration, option_probabilities

Line = Mapping[str, Any]

NOTHING = "(nothing)"  # how an empty answer is shown


@dataclasses.dataclass(frozen=True)
class Answers:
    """What was answered with one template.

    Attributes:
      share: how often the most frequent answer was given, 0 to 1.
      most: that answer: a label or a text, or "option 2" if each example has its own options.
      macro_f1: macro F1 over the labels; None if there is no fixed set of labels.
    """

    share: float
    most: str
    macro_f1: float | None


@dataclasses.dataclass(frozen=True)
class Values:
    """The predictions of a run on a dataset, as numbers.

    Attributes:
      metric: "accuracy" if options are ranked, otherwise the headline metric.
      style: the name of the style of the prompts.
      ids: ids of the E examples, for people.
      hashes: digests of their records, by which runs are paired; None for predictions of earlier versions.
      templates: numbers of the T templates.
      wordings: their texts as they were evaluated.
      values_ExT: values 0 to 1; None if single examples have no value.
      answers: what was answered, by template.
      calibration: calibration of the options' probabilities; None for a generation dataset.
      prompts: the prompts of the examples with the first template.
      documents: the records in another program's log, whose digests differ from ours; None for our predictions.
      asked: digests of all that the other program asked of each, contexts and continuations; empty for ours.
      shown: the same without exemplars, where a log has some.
      golds: the right answers.
      passages: what each example shares with others, such as its conversation; all different if nothing is shared.
      statistics: for each run of a group, or for the single run, what the examples add to the sums behind the metric,
        [E, T, K]; empty if examples have values.
      value_of: maps sums [..., K] to values [...], 0 to 1.
    """

    metric: str
    style: str
    ids: tuple[str, ...]
    hashes: tuple[str, ...] | None
    templates: tuple[int, ...]
    wordings: tuple[str, ...]
    values_ExT: np.ndarray | None
    answers: tuple[Answers, ...]
    calibration: Calibration | None
    prompts: tuple[str, ...] = ()
    documents: tuple[Mapping[str, Any], ...] | None = None
    asked: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    golds: tuple[Gold, ...] = ()
    passages: tuple[str, ...] = ()
    statistics: tuple[np.ndarray, ...] = ()
    value_of: Callable[[np.ndarray], np.ndarray] = of_mean

    def groups(self, places: np.ndarray | None = None) -> np.ndarray:
        """The number of each example's passage, from 0; with `places`, only of the examples at these places."""
        passages = np.array(self.passages or self.ids)
        return np.unique(passages if places is None else passages[places], return_inverse=True)[1]

    def sample(self, places: np.ndarray | None = None, groups_E: np.ndarray | None = None) -> Sample:
        """The examples in a form that intervals and tests can resample.

        Args:
          places: the examples to take; None takes all.
          groups_E: their groups, see `groups`; by default those of their own passages.
        """
        groups_E = self.groups(places) if groups_E is None else groups_E
        chosen = slice(None) if places is None else places
        if self.values_ExT is not None:
            return Sample.of_values(self.values_ExT[chosen], groups_E)
        return Sample.of_statistics([part[chosen] for part in self.statistics], self.value_of, groups_E)

    @property
    def share(self) -> float:
        """The share of the most frequent answer, averaged over the templates."""
        return float(np.mean([a.share for a in self.answers]))

    @property
    def most(self) -> str:
        """The most frequent answer of all templates; empty if they differ."""
        found = {a.most for a in self.answers}
        return found.pop() if len(found) == 1 else ""

    @property
    def constant(self) -> int:
        """The number of templates with which every example got the same answer."""
        return sum(a.share == 1 for a in self.answers) if len(self.ids) > 1 else 0

    @property
    def macro_f1(self) -> float | None:
        """Macro F1, averaged over the templates."""
        found = [a.macro_f1 for a in self.answers if a.macro_f1 is not None]
        return float(np.mean(found)) if len(found) == len(self.answers) else None


def values_of(rows: Mapping[int, Sequence[Line]], figures: Mapping[str, Any], style: str) -> Values:
    """The predictions of one dataset as numbers.

    Examples that only some templates have (because they were too long with another one) are left out.

    Args:
      rows: predictions by template.
      figures: the dataset's figures from the same run.
      style: the name of the style.

    Raises:
      UnusableError: the headline metric has neither values of single examples nor sums, or the figures were made from
        other predictions.
    """
    first = next(iter(rows.values()))
    has_options = "loglikelihood" in first[0]
    summed = _summed(rows, figures)
    if not has_options and summed is None and any("score" not in p for lines in rows.values() for p in lines):
        raise UnusableError("its metric has no value for a single example")
    measured = "accuracy" if has_options and summed is None else headline_metric(figures)
    keyed, keys = matched(rows)
    hashed = _are_hashed(rows)
    listed = {t["template"]: t for t in figures["templates"]}
    same_options = has_options and len({frozenset(_words(p)) for lines in rows.values() for p in lines}) == 1
    values_TxE, statistics_TxE, answers, confidences, right = [], [], [], [], []
    for number, lines in rows.items():
        choices = [ranked(p, "sum") for p in lines] if has_options else []
        if has_options:
            found = [float(choice in right_options(p)) for p, choice in zip(lines, choices, strict=True)]
            odds = (option_probabilities(np.asarray(p["loglikelihood"], np.float64)) for p in lines)
            confidences += [p[choice] for p, choice in zip(odds, choices, strict=True)]
            right += found
        elif summed is None:
            found = [float(p["score"]) for p in lines]
        if summed is None:
            _check(number, float(np.mean(found)), listed[number], measured == headline_metric(figures))
            by_key = dict(zip(keyed[number], found, strict=True))
            values_TxE.append([by_key[key] for key in keys])
        else:
            _check(number, float(summed.value_of(summed.of[number].sum(0))), listed[number], True)
            by_key = dict(zip(keyed[number], summed.of[number], strict=True))
            statistics_TxE.append([by_key[key] for key in keys])
        if has_options:
            _check_answers(number, lines, listed[number], figures)
        answers.append(_answers(lines, choices, same_options))
    lines = [next(iter(keyed.values()))[key] for key in keys]
    documents = tuple(p["doc"] for p in lines) if all("doc" in p for p in lines) else None
    passages = [str(p.get("passage", catalog.record_id(str(p["id"])))) for p in lines]
    if documents is not None:
        passages = list(matching.passages(documents))
    first_of: dict[str, str] = {}  # a record that is there twice is one
    return Values(
        metric=measured,
        style=style,
        ids=tuple(str(p["id"]) for p in lines),
        hashes=tuple(str(p["hash"]) for p in lines) if hashed else None,
        templates=tuple(rows),
        wordings=tuple(wording(listed[number]) for number in rows),
        values_ExT=np.array(values_TxE, np.float64).T if summed is None else None,
        answers=tuple(answers),
        calibration=Calibration.of(np.array(confidences), np.array(right)) if has_options else None,
        prompts=tuple(p.get("prompt", "") for p in lines),
        documents=documents,
        asked=tuple(str(p["asked"]) for p in lines) if all("asked" in p for p in lines) else (),
        shown=tuple(str(p.get("shown", p["asked"])) for p in lines) if all("asked" in p for p in lines) else (),
        golds=tuple(map(gold.of_line, lines)),
        passages=tuple(
            first_of.setdefault(str(p["hash"]), passage) if hashed else passage
            for p, passage in zip(lines, passages, strict=True)
        ),
        statistics=() if summed is None else (np.array(statistics_TxE).swapaxes(0, 1),),
        value_of=of_mean if summed is None else summed.value_of,
    )


def matched(rows: Mapping[int, Sequence[Line]]) -> tuple[dict[int, dict[Any, Line]], list[Any]]:
    """The predictions of each template by record, and the records that all templates have, in order.

    Raises:
      UnusableError: the templates have different records.
    """
    name = "hash" if _are_hashed(rows) else "id"
    keyed = {
        number: dict(zip(numbered([str(p[name]) for p in lines]), lines, strict=True)) for number, lines in rows.items()
    }
    keys = [key for key in next(iter(keyed.values())) if all(key in lines for lines in keyed.values())]
    if len(keys) < max(map(len, keyed.values())):
        raise UnusableError(f"its templates have {len(keys)} of {max(map(len, keyed.values()))} examples in common")
    return keyed, keys


def _are_hashed(rows: Mapping[int, Sequence[Line]]) -> bool:
    return all("hash" in p for lines in rows.values() for p in lines)


def said(line: Line) -> str:
    """What was answered: the likeliest option in the dataset's own words, or the generated text."""
    if "loglikelihood" not in line:
        return str(line.get("prediction", "")).strip()
    return str(_words(line)[ranked(line, "sum")])


@dataclasses.dataclass(frozen=True)
class _Summed:
    """A headline metric without values of single examples, and what the predictions add to its sums, by template."""

    value_of: Callable[[np.ndarray], np.ndarray]
    of: dict[int, np.ndarray]


def _summed(rows: Mapping[int, Sequence[Line]], figures: Mapping[str, Any]) -> _Summed | None:
    """The sums behind the headline metric; None if the metric has none or the predictions lack what it needs."""
    every = [p for lines in rows.values() for p in lines]
    name = str(every[0].get("dataset", ""))
    if not catalog.exists(name):
        return None
    metric = headline(catalog.dataset(name))
    if metric.statistics is None or metric.of_sums is None or metric.headline != headline_metric(figures):
        return None
    try:
        found = headline_statistics(catalog.dataset(name), every)
    except (FlanError, KeyError):  # predictions of an earlier version
        return None
    ends = np.cumsum([len(lines) for lines in rows.values()])[:-1]
    return _Summed(metric.of_sums, dict(zip(rows, np.split(found, ends), strict=True)))


def _words(p: Line) -> Sequence[str]:
    """The options in the dataset's own words."""
    return p.get("words", p["options"])


def _check(number: int, value: float, figures: Mapping[str, Any], is_headline: bool) -> None:
    """Refuses predictions whose figure differs from the one in the results."""
    there = template_value(figures) if is_headline else None
    if not is_headline and "accuracy" in figures.get("metrics", {}):
        there = figures["metrics"]["accuracy"] / 100
    if there is not None and abs(value - there) > 1e-6:
        raise _apart(number, "", value, there)


def _check_answers(number: int, lines: Sequence[Line], template: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Refuses predictions of options whose shares of answers, or guesses, differ from those in the results.

    Results of versions that kept no shares are of other rules, and logs of another program have none.
    """
    there = template.get("metrics") or {}
    name = str(lines[0].get("dataset", ""))
    if "top_answer" not in there or not catalog.exists(name):
        return
    record = catalog.dataset(name)
    for key, value in answer_shares(record, lines).items():
        if there.get(key) is not None and abs(value - there[key]) > 100 * SAME:
            raise _apart(number, f" for {key}", value / 100, there[key] / 100)
    if headline_metric(figures) != "accuracy" or headline(record).headline != "accuracy":
        return
    for key, value in baselines(record, lines).items():
        if figures.get(key) is not None and abs(value - figures[key]) > SAME:
            raise _apart(number, f" for {key}", value, figures[key])


def _apart(number: int, of: str, value: float, there: float) -> UnusableError:
    return UnusableError(
        f"its predictions with template {number} give {100 * value:.2f}{of} and its results say {100 * there:.2f}, so "
        "they are of different jobs or versions"
    )


def _answers(lines: Sequence[Line], choices: Sequence[int], same_options: bool) -> Answers:
    if not choices:
        said = [str(p.get("prediction", "")).strip() or NOTHING for p in lines]
    elif same_options:
        said = [str(_words(p)[choice]) for p, choice in zip(lines, choices, strict=True)]
    else:
        said = [f"option {choice + 1}" for choice in choices]
    most, count = collections.Counter(said).most_common(1)[0]
    if not same_options:
        return Answers(count / len(lines), most, None)
    right = [[str(_words(p)[i]) for i in right_options(p)] for p in lines]
    return Answers(count / len(lines), most, metric("answer_shares")(right, said)["macro_f1"] / 100)

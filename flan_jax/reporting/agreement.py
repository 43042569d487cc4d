"""Checks that the figures of a dataset agree with each other: all that follows from others in results.json.

`sound` has checked their kinds before.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from flan_jax import catalog
from flan_jax.evaluation.figures import all_of
from flan_jax.reporting.sound import ROUNDING, is_number


def problem_of(dataset: str, figures: Mapping[str, Any], split: str) -> str:
    """Where figures contradict each other, for a sentence about the dataset; empty if they do not.

    What earlier versions did not write contradicts nothing.

    Args:
      dataset: its name.
      figures: its figures, without a problem by `sound.problem_of_figures`.
      split: whose examples they are of, "test" or "dev".
    """
    return (
        _problem_of_means(figures)
        or _problem_of_templates(figures)
        or _problem_of_best(figures)
        or _problem_of_ways(figures)
        or _problem_of_stderr(figures)
        or _problem_of_counts(figures, split)
        or _problem_of_baselines(dataset, figures)
        or _problem_of_ranges(dataset, figures)
        or _problem_of_certainty(dataset, figures)
    )


def _value(template: Mapping[str, Any]) -> float:
    return template["value"] if "value" in template else template["sum"]


def _problem_of_means(figures: Mapping[str, Any]) -> str:
    listed = figures["templates"]
    values = [_value(t) for t in listed]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    if abs(figures["std"] - spread) > ROUNDING:
        return f"has a standard deviation of {figures['std']:.4f}, and templates with {spread:.4f}"
    if abs(figures["mean"] - statistics.fmean(values)) > ROUNDING:
        return f"has a mean of {figures['mean']:.4f}, and templates whose mean is {statistics.fmean(values):.4f}"
    has_metrics = any(t.get("metrics") for t in listed)  # those of earlier versions have none
    for name, value in figures.get("metrics", {}).items() if has_metrics else ():
        each = [(t.get("metrics") or {}).get(name) for t in listed]
        numbers = [one for one in each if one is not None and is_number(one)]
        if len(numbers) < len(each):
            return f"has {name} {value:.4f}, and templates without it"
        if abs(value - statistics.fmean(numbers)) > 100 * ROUNDING:
            return f"has {name} {value:.4f}, and templates whose mean is {statistics.fmean(numbers):.4f}"
    return ""


def _problem_of_templates(figures: Mapping[str, Any]) -> str:
    """Whether a template has two headline figures."""
    is_accuracy = figures.get("metric", "accuracy") == "accuracy"
    for t in figures["templates"]:
        percent = (t.get("metrics") or {}).get("accuracy") if is_accuracy else None
        others: dict[str, Any] = {"sum": t.get("sum")}
        others["accuracy"] = percent / 100 if percent is not None and is_number(percent) else None
        for name, other in others.items():
            if other is not None and abs(other - _value(t)) > ROUNDING:
                return f"has {_value(t):.4f} for template {t['template']}, whose {name} is {other:.4f}"
    return ""


def _problem_of_best(figures: Mapping[str, Any]) -> str:
    """Whether the template that is best on dev is not, or has another figure."""
    of = {t["template"]: (_value(t), t.get("dev")) for t in figures["templates"]}
    best, chosen = figures.get("best_dev"), figures.get("best_dev_template")
    if chosen is None:
        return "" if best is None else f"has {best:.4f} for the template that is best on dev, and does not name it"
    if isinstance(chosen, bool) or chosen not in list(of):
        return f"has template {str(chosen)[:40]!r} as the best on dev, which it has not"
    if best is None:
        return f"has template {chosen} as the best on dev, and no figure of it"
    test, dev = of[chosen]
    if abs(best - test) > ROUNDING:
        return f"has {best:.4f} for the template that is best on dev, whose figure is {test:.4f}"
    for number, (_, other) in of.items():
        if other is not None and (dev is None or dev < other - ROUNDING):
            said = "no figure there" if dev is None else f"{dev:.4f} there"
            return f"has template {chosen} as the best on dev, with {said}, and template {number} has {other:.4f}"
    return ""


def _problem_of_ways(figures: Mapping[str, Any]) -> str:
    """Whether means of the ways to score are not those of the templates, or the best of them on dev is not."""
    templates = figures["templates"]
    for key in (key for key in figures if key.startswith("mean_") and figures[key] is not None):
        way = key.removeprefix("mean_")
        each: list[Any] = [t.get(way) for t in templates]
        if not all(map(is_number, each)):
            return f"has {key} {figures[key]:.4f}, and templates without it"
        if abs(figures[key] - statistics.fmean(each)) > ROUNDING:
            return f"has {key} {figures[key]:.4f}, and templates whose mean is {statistics.fmean(each):.4f}"
    ways_on_dev, best = figures.get("dev_ways") or {}, figures.get("best_dev_way")
    of_templates = [t.get("dev_ways") or {} for t in templates]
    for way, value in ways_on_dev.items():
        each = [of.get(way) if isinstance(of, Mapping) else None for of in of_templates]
        if all(map(is_number, each)) and abs(value - statistics.fmean(each)) > ROUNDING:
            return f"has {value:.4f} for {way} on dev, and templates whose mean is {statistics.fmean(each):.4f}"
    if best is None:
        return ""
    if best not in list(ways_on_dev) or (best != "sum" and figures.get(f"mean_{best}") is None):
        return f"has {str(best)[:40]!r} as the way to score that is best on dev, which it has not"
    if ways_on_dev[best] < max(ways_on_dev.values()) - ROUNDING:
        return f"has {best} as the way to score that is best on dev, which is not the highest there"
    return ""


def _problem_of_stderr(figures: Mapping[str, Any]) -> str:
    """Whether the standard error is not the mean of those of the templates."""
    each: list[Any] = [t.get("stderr") for t in figures["templates"]]
    if figures.get("stderr") is None or not any(map(is_number, each)):
        return ""
    mean = statistics.fmean(one for one in each if is_number(one))
    return (
        ""
        if abs(figures["stderr"] - mean) <= ROUNDING
        else (f"has a standard error of {figures['stderr']:.4f}, and templates whose mean is {mean:.4f}")
    )


def _problem_of_counts(figures: Mapping[str, Any], split: str) -> str:
    """Whether figures are of other numbers of examples or prompts than they say elsewhere."""
    of_split = (figures.get("data") or {}).get(split) if isinstance(figures.get("data"), Mapping) else None
    records = of_split.get("records") if isinstance(of_split, Mapping) else None
    asked, left = figures["examples"], figures.get("skipped_examples")  # which earlier versions do not count
    if is_number(records) and left is not None and records != asked + left:
        return f"has {asked} examples and {left} that were left out, of {records} records"
    prompts = (figures.get("shots") or {}).get("of")
    if prompts is not None and prompts != asked * len(figures["templates"]):
        return f"has shots of {prompts} prompts, and {asked} examples with {len(figures['templates'])} templates"
    return ""


def _problem_of_baselines(dataset: str, figures: Mapping[str, Any]) -> str:
    """Whether guessing has an accuracy that the labels of a dataset do not allow.

    Where each example has options of its own, nothing is known here.
    """
    count = len(catalog.dataset(dataset).labels) if catalog.exists(dataset) else 0
    random, majority = figures.get("random"), figures.get("majority")
    if count < 2 or random is None or figures.get("metric", "accuracy") != "accuracy":
        return ""
    if not 1 / count - ROUNDING <= random <= 1 / 2 + ROUNDING:
        return f"has {random:.4f} for random answers, and {count} labels"
    if majority is not None and majority < 1 / count - ROUNDING:
        return f"has {majority:.4f} for the best of {count} labels, of which one has {1 / count:.4f} or more"
    return ""


def _problem_of_ranges(dataset: str, figures: Mapping[str, Any]) -> str:
    """Whether a value is one that its metric cannot have."""
    if not catalog.exists(dataset):
        return ""
    ranges = {key: one.range(key) for one in all_of(catalog.dataset(dataset)) for key in one.keys}
    for figures_of, where in [(figures, ""), *((t, f" with template {t['template']}") for t in figures["templates"])]:
        for key, value in (figures_of.get("metrics") or {}).items():
            low, high = ranges.get(key, (-math.inf, math.inf))
            if is_number(value) and not low - 100 * ROUNDING <= value <= high + 100 * ROUNDING:
                return f"has {key} {value:.4f}{where}, which is from {low:g} to {high:g}"
    return ""


def _problem_of_certainty(dataset: str, figures: Mapping[str, Any]) -> str:
    """Whether a standard error is higher than that of any values from 0 to 1 with the same mean and number.

    They are most apart if each is 0 or 1, and examples of one passage if there are two passages.
    """
    count = figures["examples"]
    together = not catalog.exists(dataset) or bool(catalog.dataset(dataset).passage)

    def highest(share: float) -> float:
        spread = max(0.0, share * (1 - share))
        return 2 * spread if together else math.sqrt(spread / (count - 1))

    listed = figures["templates"]
    each = [(t.get("stderr"), _value(t), f" with template {t['template']}") for t in listed]
    for error, share, where in [*each, (figures.get("stderr"), None, "")]:
        if not is_number(error):
            continue
        if count < 2:
            return f"has a standard error of {error:.4f}{where}, and one example"
        most = statistics.fmean(highest(_value(t)) for t in listed) if share is None else highest(share)
        if error > most + ROUNDING:
            return f"has a standard error of {error:.4f}{where}, and with {count} examples it is at most {most:.4f}"
    return ""

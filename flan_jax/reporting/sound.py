"""Checks results.json and lines of predictions before a report computes with them.

Files are copied, cut, edited and written by other versions. Anything wrong is named, and nothing is guessed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from flan_jax import catalog, styles
from flan_jax.checkpoint.manifest import DECLARED, TUNED, UNKNOWN, UNTUNED
from flan_jax.errors import FlanError
from flan_jax.evaluation import labels

_NUMBERS = ("examples", "mean", "std")  # a dataset without these has no figures
_NUMBERS_OR_NONE = ("best_dev", "random", "majority", "copied", "stderr")
_MAPPINGS = ("metrics", "metric_versions", "headline_metric", "cost", "overlap", "dev_ways")
_OF_SHOTS = ("wanted", "mean", "without", "of")
_PER_OPTION = ("loglikelihood", "tokens", "bytes", "characters", "unconditional", "channel", "words")
_ROUNDING = 1e-6


def problem_of_results(results: Mapping[str, Any]) -> str:
    """What is wrong with results besides the figures of their datasets; empty if nothing is."""
    for key in ("settings", "tuning", "tunings", "provenance"):
        if not isinstance(results.get(key) or {}, Mapping):
            return f"has {key} that are no names with values"
    try:
        styles.parse((results.get("settings") or {}).get("style", styles.INSTRUCTIONS))
    except (FlanError, TypeError, AttributeError) as error:
        return f"has a style that is none ({str(error).partition(':')[0]})"
    for key in ("skipped", "invalid"):
        listed = results.get(key, ())
        if not isinstance(listed, list | tuple) or any(
            not isinstance(one, Mapping) or not all(isinstance(one.get(name), str) for name in ("dataset", "reason"))
            for one in listed
        ):
            return f"has {key} datasets without a name or a reason"
    for tuning in (results.get("tuning") or {}, *(results.get("tunings") or {}).values()):
        for key in ("datasets", "clusters"):
            listed = tuning.get(key, [])
            if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
                return f"has a tuning whose {key} are no names"
    return ""


def problem_of_tuning(tuning: Mapping[str, Any]) -> str:
    """What is wrong with what a manifest says of a tuning; empty if nothing is.

    No label follows from a status that there is not, from unknown clusters, or from an account that contradicts itself.
    """
    status = tuning.get("status")
    if status not in (UNTUNED, DECLARED, TUNED, UNKNOWN):
        return f"has the status {str(status)[:40]!r}, which is none"
    text = tuning.get("text", [])
    if not isinstance(text, list) or not all(isinstance(one, Mapping) for one in text):
        return "has text without the names of its datasets"
    names: dict[str, list[str]] = {}
    for key in ("datasets", "clusters", "text"):
        listed = [one.get("dataset") for one in text] if key == "text" else tuning.get(key)
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            return f"has {key} that are no names"
        names[key] = listed
    known = {cluster.name for cluster in (*catalog.clusters(), catalog.UNKNOWN_CLUSTER)}
    clusters, datasets = set(names["clusters"]), {*names["datasets"], *names["text"]}
    of_datasets = {catalog.dataset(name).cluster for name in datasets if catalog.exists(name)}
    if strange := sorted(clusters - known - of_datasets):
        return f"has the cluster {strange[0]!r}, which is none"
    if not of_datasets <= clusters or (status == UNTUNED and (datasets or clusters)):
        return "contradicts itself"
    return ""


def problem_of_figures(figures: Any) -> str:
    """What is wrong with the figures of a dataset; empty if nothing is."""
    if not isinstance(figures, Mapping):
        return "has no figures"
    for key in _NUMBERS:
        if not is_number(figures.get(key)):
            return f"has no number {key!r}"
    for key in _NUMBERS_OR_NONE:
        if figures.get(key) is not None and (not is_number(figures[key]) or not -1 <= figures[key] <= 1):
            return f"has no share {key!r}"
    if figures["examples"] < 1 or figures["examples"] != int(figures["examples"]):
        return f"has {figures['examples']} examples"
    if not -1 - _ROUNDING <= figures["mean"] <= 1 + _ROUNDING:
        return f"has a mean of {figures['mean']}, which is no share"
    if figures["std"] < 0:
        return f"has a standard deviation of {figures['std']}"
    for key in _MAPPINGS:
        if not isinstance(figures.get(key) or {}, Mapping):
            return f"has {key!r} that are no names with values"
    if wrong := [name for name, v in (figures.get("metrics") or {}).items() if v is not None and not is_number(v)]:
        return f"has no number {wrong[0]!r} among its metrics"
    if (shots := figures.get("shots")) is not None and not (
        isinstance(shots, Mapping) and all(is_number(shots.get(key)) for key in _OF_SHOTS)
    ):
        return "has shots that are no numbers"
    if figures.get("label") and not (told := labels.status_of(str(figures["label"]))):
        return f"has the label {figures['label']!r}, which is none"
    if figures.get("label") and figures.get("status") in labels.STATUSES and told != figures["status"]:
        return f"has the label {figures['label']!r}, and is {figures['status']}"
    for key in ("with", "kin"):
        if not isinstance((figures.get("overlap") or {}).get(key) or {}, Mapping):
            return f"has {key!r} in its overlap that are no names with values"
    for key, value in (figures.get("cost") or {}).items():
        if key != "device" and not is_number(value):
            return f"has no number {key!r} in its cost"
    return _problem_of_templates(figures) or ("" if isinstance(figures.get("cluster"), str) else "has no cluster")


def problem_of_label(dataset: str, figures: Mapping[str, Any], tuning: Mapping[str, Any]) -> str:
    """Whether figures are called held out where the model was tuned on their cluster; empty if not.

    Args:
      dataset: its name.
      figures: its figures, which have no other problem.
      tuning: `tuning` of the results.
    """
    if not catalog.exists(dataset) or "clusters" not in tuning or problem_of_tuning(tuning):
        return ""
    said = labels.status_of(str(figures.get("label") or "")) or figures.get("status")
    if said == labels.HELD_OUT and labels.status(catalog.dataset(dataset), tuning) == labels.SEEN:
        return f"is called held out, and the model was tuned on {', '.join(tuning['clusters'])}"
    return ""


def _problem_of_templates(figures: Mapping[str, Any]) -> str:
    listed = figures.get("templates")
    if not isinstance(listed, list) or not listed:
        return "has no templates"
    for t in listed:
        if not isinstance(t, Mapping) or "template" not in t or not {"value", "sum"} & set(t):
            return "has a template without a figure"
        if isinstance(t["template"], bool) or not isinstance(t["template"], int):
            return f"has a template with the number {str(t['template'])[:40]!r}"
        if not isinstance(t.get("metrics") or {}, Mapping):
            return f"has metrics of template {t['template']} that are no names with values"
        if any(t.get(key) is not None and not is_number(t[key]) for key in ("value", "sum", "dev")):
            return f"has no number for template {t['template']}"
    if len({t["template"] for t in listed}) < len(listed):
        return "has a template twice"
    values = [t["value"] if "value" in t else t["sum"] for t in listed]
    if None in values:
        return ""
    if abs(figures["mean"] - statistics.fmean(values)) > _ROUNDING:
        return f"has a mean of {figures['mean']:.4f}, and templates whose mean is {statistics.fmean(values):.4f}"
    best = {t["template"]: v for t, v in zip(listed, values, strict=True)}.get(figures.get("best_dev_template"))
    if best is not None and figures.get("best_dev") is not None and abs(figures["best_dev"] - best) > _ROUNDING:
        return f"has {figures['best_dev']:.4f} for the template that is best on dev, whose figure is {best:.4f}"
    return ""


def problem_of_prediction(line: Any) -> str:
    """What is wrong with a line of predictions; empty if nothing is."""
    if not isinstance(line, Mapping) or "id" not in line:
        return "has no id"
    if "hash" in line and not (isinstance(line["hash"], str) and line["hash"]):
        return "has a hash that is no text"
    if "score" in line and line["score"] is not None and not is_number(line["score"]):
        return "has a score that is no number"
    if "loglikelihood" not in line:
        return ""
    options, answer = line.get("options"), line.get("answer")
    if not isinstance(options, list) or not options or not all(isinstance(option, str) for option in options):
        return "has no options"
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(options):
        return f"has the answer {answer!r}, and {len(options)} options"
    for key in _PER_OPTION:
        if key in line and (not isinstance(line[key], list) or len(line[key]) != len(options)):
            return f"has no {key!r} for each of its {len(options)} options"
    if not all(is_number(value) for value in line["loglikelihood"]):
        return "has scores that are not finite"
    return ""


def is_number(value: Any) -> bool:
    """Whether the value is a finite number. True and False are not."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False

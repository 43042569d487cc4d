"""Checks results.json and lines of predictions before a report computes with them.

Files are copied, cut, edited and written by other versions. Anything wrong is named, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax import catalog, styles, ways
from flan_jax.checkpoint.manifest import DECLARED, TUNED, UNKNOWN, UNTUNED
from flan_jax.errors import FlanError
from flan_jax.evaluation import labels
from flan_jax.evaluation.clusters import BASELINES
from flan_jax.reporting import kinds
from flan_jax.reporting.kinds import is_number as is_number

_NUMBERS = ("examples", "mean", "std")  # a dataset without these has no figures
_NUMBERS_OR_NONE = ("best_dev", *BASELINES, "stderr")
_MAPPINGS = ("headline_metric", "cost", "overlap", "dev_ways")
_ALWAYS_MAPPINGS = ("metrics", "metric_versions")
COUNTS = ("cut_prompts", "unfinished", "copies")  # counts of a template's prompts
_WAYS = tuple(way.name for way in ways.ALL)
_OF_SHOTS = ("wanted", "mean", "without", "of")
_PER_OPTION = ("loglikelihood", "tokens", "bytes", "characters", "unconditional", "channel", "words")
ROUNDING = 1e-6


def problem_of_results(results: Mapping[str, Any]) -> str:
    """What is wrong with results besides the figures of their datasets; empty if nothing is."""
    for key in ("settings", "tuning", "tunings", "provenance"):
        if not isinstance(results.get(key, {}), Mapping):
            return f"has {key} that are no names with values"
    try:
        styles.parse((results.get("settings") or {}).get("style", styles.INSTRUCTIONS))
    except (FlanError, TypeError, AttributeError) as error:
        return f"has a style that is none ({str(error).partition(':')[0]})"
    if not isinstance(results["checkpoint"], str):
        return "has a checkpoint that is no name"
    of_clusters = results.get("checkpoints", {}), results.get("tunings") or {}
    if not all(isinstance(one, Mapping) for one in of_clusters) or not all(
        isinstance(value, kind) for one, kind in zip(of_clusters, (str, Mapping), strict=True) for value in one.values()
    ):
        return "has checkpoints or tunings that are no names with values"
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
    return kinds.problem_of(results, kinds.RESULTS)


def problem_of_tuning(tuning: Mapping[str, Any], any_cluster: bool = False) -> str:
    """What is wrong with what a manifest says of a tuning; empty if nothing is.

    No label follows from a status that there is not, from unknown clusters, or from an account that contradicts itself.

    Args:
      tuning: `tuning` of a manifest or of results.
      any_cluster: whether clusters may be a user's own, which are not known here.
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
    clusters, datasets = set(names["clusters"]), {*names["datasets"], *names["text"]}
    of_datasets = {catalog.dataset(name).cluster for name in datasets if catalog.exists(name)}
    if not any_cluster and (strange := sorted(clusters - _clusters() - of_datasets)):
        return f"has the cluster {strange[0]!r}, which is none"
    if not of_datasets <= clusters or (status == UNTUNED and (datasets or clusters)):
        return "contradicts itself"
    if status == TUNED and not clusters:
        return "says that it was tuned, and not on what"
    return ""


def _clusters() -> set[str]:
    """The clusters that are known here."""
    return {cluster.name for cluster in (*catalog.clusters(), catalog.UNKNOWN_CLUSTER)}


def problem_of_figures(figures: Any) -> str:
    """What is wrong with the figures of a dataset; empty if nothing is."""
    if not isinstance(figures, Mapping):
        return "has no figures"
    for key in _NUMBERS:
        if not is_number(figures.get(key)):
            return f"has no number {key!r}"
    for key in _NUMBERS_OR_NONE:
        lowest = 0 if key in ("copied", "stderr") or figures.get("metric", "accuracy") == "accuracy" else -1
        if figures.get(key) is not None and (not is_number(figures[key]) or not lowest <= figures[key] <= 1):
            return f"has no share {key!r}"
    if figures.get("copied") is not None and figures.get("random") is not None:
        return "has no share 'copied', as it has options"
    if figures["examples"] < 1 or not isinstance(figures["examples"], int):
        return f"has {figures['examples']} examples"
    if not -1 - ROUNDING <= figures["mean"] <= 1 + ROUNDING:
        return f"has a mean of {figures['mean']}, which is no share"
    if figures["std"] < 0:
        return f"has a standard deviation of {figures['std']}"
    for key in (*_MAPPINGS, *_ALWAYS_MAPPINGS):
        value = figures.get(key, {})
        if not isinstance(value if key in _ALWAYS_MAPPINGS else value or {}, Mapping):
            return f"has {key!r} that are no names with values"
    if not isinstance(figures.get("status") or "", str):
        return "has a status that is no word"
    if not isinstance(figures.get("skipped_examples", 0), int) or figures.get("skipped_examples", 0) < 0:
        return "has no count of skipped examples"
    if not all(isinstance(one, str) for one in figures.get("metric_versions", {}).values()):
        return "has versions of metrics that are no names"
    if wrong := [name for name, v in figures.get("metrics", {}).items() if not is_number(v)]:
        return f"has no number {wrong[0]!r} among its metrics"
    if (shots := figures.get("shots")) is not None and not (
        isinstance(shots, Mapping)
        and all(is_number(shots.get(key)) for key in _OF_SHOTS)
        and shots["mean"] >= 0
        and 0 <= shots["without"] <= shots["of"] != 0
    ):
        return "has shots that are no numbers"
    if figures.get("label") and not (told := labels.status_of(str(figures["label"]))):
        return f"has the label {figures['label']!r}, which is none"
    if figures.get("label") and figures.get("status") in labels.STATUSES and told != figures["status"]:
        return f"has the label {figures['label']!r}, and is {figures['status']}"
    for key, value in figures.items():
        if key.startswith("mean_") and value is not None and not is_number(value):
            return f"has no number {key!r}"
    if any(not is_number(value) for value in (figures.get("dev_ways") or {}).values()):
        return "has ways to score on dev that are no numbers"
    overlap = figures.get("overlap") or {}
    seen, of = overlap.get("seen"), overlap.get("of")
    if seen is not None and not is_number(of):
        return f"has {str(seen)[:40]!r} records seen in its overlap, and not of how many"
    if seen is not None and not (is_number(seen) and 0 <= seen <= of):
        return f"has {str(seen)[:40]!r} records seen in its overlap"
    for key in ("with", "kin"):
        if not isinstance(overlap.get(key, {}), Mapping):
            return f"has {key!r} in its overlap that are no names with values"
    if any(not is_number(value) or value < 0 for value in overlap.get("with", {}).values()):
        return "has counts in its overlap that are no numbers"
    if not isinstance(overlap.get("reason", ""), str):
        return "has a reason in its overlap that is no text"
    for key, value in (figures.get("cost") or {}).items():
        if key != "device" and not (is_number(value) and value >= 0):
            return f"has no number {key!r} in its cost"
    if not isinstance(figures.get("cluster"), str):
        return "has no cluster"
    return _problem_of_templates(figures) or kinds.problem_of(figures, kinds.FIGURES)


def problem_of_label(dataset: str, figures: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Whether the label of figures is one that style and tuning do not give; empty if it is right.

    A score is called held out only where the recorded tuning says so, whatever else is wrong with that record.

    Args:
      dataset: its name.
      figures: its figures, which have no other problem.
      results: of which they are part, without a problem either.
    """
    label = str(figures.get("label") or "")
    asked = labels.shots(styles.parse((results.get("settings") or {}).get("style", styles.INSTRUCTIONS)))
    if label and label.rpartition(", ")[0] != asked:
        return f"has the label {label!r}, and its prompts are {asked}"
    told = labels.status_of(label) or labels.status_of(str(figures.get("status"))) or figures.get("status")
    if told != labels.HELD_OUT:
        return ""
    tuning = results.get("tuning") or {}
    if "checkpoints" in results:  # one for each cluster
        if tuning.get("datasets") or tuning.get("clusters"):
            return "is called held out, and two records say what was tuned on"
        tuning = (results.get("tunings") or {}).get(results["checkpoints"].get(dataset)) or {}
    elif results.get("tunings"):
        return "is called held out, and several records say what was tuned on"
    if problem := problem_of_tuning(tuning, any_cluster=True):
        return f"is called held out, and its record of what was tuned on {problem}"
    found = status_of(dataset, figures["cluster"], tuning)
    if found == labels.HELD_OUT:
        return ""
    return f"is called held out, and is {found} by its record of what was tuned on"


def status_of(dataset: str, cluster: str, tuning: Mapping[str, Any]) -> str:
    """Whether a dataset was seen, by a record that has no problem: "held out", "seen" or "unknown".

    A cluster that is not known here is a user's own, and shares nothing with the others.

    Args:
      dataset: its name.
      cluster: the name of its cluster.
      tuning: `tuning` of a manifest, of results or of a log.
    """
    known = _clusters()
    trained = {**tuning, "clusters": [name for name in tuning["clusters"] if name in known]}
    if catalog.exists(dataset):
        return labels.status(catalog.dataset(dataset), trained)
    text = [one["dataset"] for one in tuning.get("text", [])]
    together = catalog.held_out_together(cluster) if cluster in known else {cluster}
    if dataset in (*tuning["datasets"], *text) or set(together) & set(tuning["clusters"]) - {
        catalog.UNKNOWN_CLUSTER.name
    }:
        return labels.SEEN
    unknown = tuning["status"] == UNKNOWN or catalog.UNKNOWN_CLUSTER.name in (cluster, *tuning["clusters"])
    return labels.UNKNOWN if unknown else labels.HELD_OUT


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
        for key in (*_WAYS, "dev", "value"):
            if t.get(key) is not None and not (is_number(t[key]) and -1 <= t[key] <= 1):
                return f"has no share {key!r} for template {t['template']}"
        for key in COUNTS:
            if key in t and not (
                isinstance(t[key], int) and not isinstance(t[key], bool) and 0 <= t[key] <= figures["examples"]
            ):
                return f"has no count of {key!r} for template {t['template']}"
        if not all(isinstance(t.get(key, ""), str) for key in ("input", "target")):
            return f"has no text for template {t['template']}"
        undefined = t.get("undefined", [])
        if not isinstance(undefined, list) or not all(isinstance(name, str) for name in undefined):
            return f"has undefined metrics of template {t['template']} that are no names"
    if len({t["template"] for t in listed}) < len(listed):
        return "has a template twice"
    if None in [t["value"] if "value" in t else t["sum"] for t in listed]:
        return "has a template without a figure"
    for way in _WAYS:
        if 0 < sum(t.get(way) is not None for t in listed) < len(listed):
            return f"has {way!r} for some of its templates, and not for others"
    return ""


def problem_of_prediction(line: Any) -> str:
    """What is wrong with a line of predictions; empty if nothing is."""
    if not isinstance(line, Mapping) or "id" not in line:
        return "has no id"
    if "hash" in line and not (isinstance(line["hash"], str) and line["hash"]):
        return "has a hash that is no text"
    if "score" in line and not (is_number(line["score"]) and -ROUNDING <= line["score"] <= 1 + ROUNDING):
        return "has a score that is no share"
    for key in ("prompt", "prediction"):
        if not isinstance(line.get(key, ""), str):
            return f"has a {key} that is no text"
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

"""Groups of runs: the same evaluation of several models, such as the seeds of a tuning, shown as one run."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.checkpoint.manifest import DECLARED, UNTUNED
from flan_jax.content import numbered
from flan_jax.errors import FlanError
from flan_jax.evaluation import clusters, labels
from flan_jax.reporting import asked, gold
from flan_jax.reporting.copies import same_on
from flan_jax.reporting.runs import Run, baseline, dataset_names, predictions, template_value, wording
from flan_jax.reporting.sound import COUNTS

# Of a dataset's figures, what all runs of a group share.
_SHARED = ("cluster", "paper_dataset", "metric", "headline_metric", "filter", "lower_is_better", "options_read")


def grouped(runs: Sequence[Run], groups: Mapping[str, Sequence[str]]) -> list[Run]:
    """The runs, with those of a group as one, in the place of its first run.

    Args:
      runs: single runs.
      groups: names of runs, or patterns of names such as "tuned seed *", by the group's name.

    Raises:
      FlanError: a name that no run has, a run in two groups, or a group whose runs cannot be averaged.
    """
    names = [run.name for run in runs]
    taken: dict[str, str] = {}
    members: dict[str, list[Run]] = {}
    for name, patterns in groups.items():
        for pattern in patterns:
            found = [n for n in names if n == pattern] or fnmatch.filter(names, pattern)
            if not found:
                raise FlanError(f"group {name}: there is no run {pattern!r}, but {', '.join(names)}.")
            for one in found:
                if taken.setdefault(one, name) != name:
                    raise FlanError(f"run {one} is in the groups {taken[one]} and {name}: leave it out of one.")
        members[name] = [run for run in runs if taken.get(run.name) == name]
        if len(members[name]) < 2:
            raise FlanError(f"group {name} has one run: a spread over runs needs two or more.")
        folders = [run.output_dir.resolve() for run in members[name] if run.output_dir is not None]
        if twice := next((folder for folder in folders if folders.count(folder) > 1), None):
            raise FlanError(
                f"group {name} has {twice} twice: a spread over runs needs runs of their own. Name it once."
            )
    out: list[Run] = []
    for run in runs:
        name = taken.get(run.name)
        if name is None:
            out.append(run)
        elif run is members[name][0]:
            out.append(as_one(name, members[name]))
    return out


def as_one(name: str, members: Sequence[Run]) -> Run:
    """Several runs as one: means over the runs. Standard deviations are over the runs, not over templates.

    A dataset that some runs lack, that they were not asked or scored alike, or on which two are the same model that was
    asked the same, is left out and listed as skipped.

    Raises:
      FlanError: the runs have different styles, are of different programs, are of models that were tuned and that were
        not, or nothing is left because two are the same model that was asked the same.
    """
    _refuse_unlike(name, members)
    first = members[0]
    copied = _copied(members)
    left_out: list[tuple[Run, Run]] = []  # two runs that are one
    datasets, skipped = {}, []
    for dataset in dataset_names(members):
        each = [run.figures(dataset) for run in members]
        if not all(each):
            lacking = ", ".join(run.name for run, f in zip(members, each, strict=True) if not f)
            skipped.append({"dataset": dataset, "reason": f"not in {lacking}"})
        elif why := _apart(members, each, dataset):
            skipped.append({"dataset": dataset, "reason": f"its runs {why}"})
        elif dataset in copied:
            left_out.append(copied[dataset])
            both = " and ".join(run.name for run in copied[dataset])
            skipped.append({"dataset": dataset, "reason": f"its runs {both} are the same model there, asked the same"})
        else:
            datasets[dataset] = _averaged(each)
    if left_out and not datasets:
        one, other = left_out[0]
        raise FlanError(
            f"group {name} has {one.name} and {other.name}, which are the same model, asked the same "
            f"({one.output_dir} and {other.output_dir}): a spread over runs needs runs of their own, so leave one of "
            "them out."
        )
    distinct = {run.results["checkpoint"] for run in members}
    programs = dict.fromkeys(str(run.results["harness"]) for run in members if run.is_log)
    results = {
        **{key: first.results[key] for key in ("settings", "joint", "separator") if key in first.results},
        **({"harness": " or ".join(programs)} if programs else {}),
        "checkpoint": distinct.pop() if len(distinct) == 1 else f"{len(members)} checkpoints",
        "tuning": first.results.get("tuning", {}),
        **_ways_of_tuning(members),
        "runs": [run.name for run in members],
        **({"split": first.results["split"]} if "split" in first.results else {}),
        "datasets": datasets,
        "skipped": skipped,
        "invalid": [one for run in members for one in run.results.get("invalid", ())],
        "clusters": clusters.cluster_means(datasets),
    }
    return Run(name, results, members=tuple(members))


def have_spread(members: Sequence[Run]) -> bool:
    """Whether runs that differ only in their seed can be one: not if a seed draws nothing for any dataset."""
    try:
        as_one("", members)
    except FlanError:
        return False
    return True


def _copied(members: Sequence[Run]) -> dict[str, tuple[Run, Run]]:
    """Two runs that are one on a dataset, by the dataset."""
    found: dict[str, tuple[Run, Run]] = {}
    for number, run in enumerate(members):
        for other in members[:number]:
            for dataset in same_on(other, run):
                found.setdefault(dataset, (other, run))
    return found


def _refuse_unlike(name: str, members: Sequence[Run]) -> None:
    """Refuses runs of which no dataset could be averaged."""
    for what, said in {
        "of {}: group those of one program": [_program(run) for run in members],
        "of the styles {}: group those of one style": [run.style.name for run in members],
        "of models whose tuning is {}: a mean of both says nothing of either": [_tuned(run) for run in members],
    }.items():
        if len(distinct := dict.fromkeys(said)) > 1:
            raise FlanError(f"group {name} has runs {what.format(' and '.join(distinct))}.")


def _program(run: Run) -> str:
    """Which program evaluated, of whatever version."""
    return str(run.results["harness"]).partition(" ")[0] if run.is_log else "FLAN-JAX"


def _tuned(run: Run) -> str:
    """Whether a run's models are "tuned" or "untuned", whoever says it; else their status."""
    several = [one for one in (run.results.get("tunings") or {}).values() if one]
    found = set()
    for tuning in several or [run.results.get("tuning") or {}]:
        status = str(tuning.get("status") or "not recorded")
        on_something = bool(tuning.get("clusters") or tuning.get("datasets"))
        found.add("tuned" if status == DECLARED and on_something else "untuned" if status == UNTUNED else status)
    return found.pop() if len(found) == 1 else str((run.results.get("tuning") or {}).get("status") or "not recorded")


def _apart(members: Sequence[Run], each: Sequence[Mapping[str, Any]], dataset: str) -> str:
    """Why the figures of a dataset cannot be averaged over runs; empty if they can."""
    said: dict[str, list[str]] = {
        "are measured by {}": [clusters.measured(f) for f in each],
        "have answers filtered by {}": [str(f.get("filter") or "nothing") for f in each],
        "have {} examples": [str(f["examples"]) for f in each],
        "are {}": [str(f["label"]) for f in each],
    }
    for why, values in said.items():
        if len(distinct := dict.fromkeys(values)) > 1:
            return why.format(" and ".join(distinct))
    if len({asked.records_of(f) for f in each} - {""}) > 1:
        return "have other records"
    if len({str(sorted((t["template"], wording(t)) for t in f["templates"])) for f in each}) > 1:
        return "were asked with other templates"
    if why := _logs_apart(members, dataset):
        return why
    unlike = [one for one in asked.differences(members, dataset) if one.key not in asked.SAID]
    return f"were {unlike[0].said}" if unlike else ""


def _logs_apart(members: Sequence[Run], dataset: str) -> str:
    """Why another program's logs of a dataset cannot be averaged; empty if they can.

    Of logs with exemplars the document and what stands around it are compared: the exemplars may be others.
    """
    first, *others = [_by_document(run, dataset) for run in members if run.is_log] or [{}]
    for other in others:
        if first.keys() != other.keys() or any(_shown(first[key]) != _shown(other[key]) for key in first):
            return "were asked in other words"
        if why := gold.apart((gold.of_line(first[key]), gold.of_line(other[key])) for key in first):
            return f"have {why}"
    return ""


def _by_document(run: Run, dataset: str) -> dict[str, Mapping[str, Any]]:
    lines = [line for of in predictions(run, dataset).values() for line in of]
    return dict(zip(numbered([str(line["hash"]) for line in lines]), lines, strict=True))


def _shown(line: Mapping[str, Any]) -> str:
    return str(line.get("shown", line.get("asked")))


def _ways_of_tuning(members: Sequence[Run]) -> dict[str, Any]:
    """What the runs of a group do not share of their tuning and joint."""
    found: dict[str, Any] = {}
    tunings: dict[str, Mapping[str, Any]] = {}
    for run in members:
        of_run = run.results.get("tunings") or {"": run.results.get("tuning") or {}}  # of each checkpoint, or of one
        tunings |= {": ".join(filter(None, (run.name, name))): tuning for name, tuning in of_run.items()}
    if len({str([one.get(key) for key in ("status", "clusters", "datasets")]) for one in tunings.values()}) > 1:
        found["tunings"] = tunings
    joints = dict.fromkeys(str(run.results.get("joint") or run.results.get("separator") or "") for run in members)
    if len(joints) > 1:
        found["joint"] = " or ".join(joint or "what is not known" for joint in joints)
    return found


def _averaged(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of one dataset in several runs as one: means, and `std` over the runs."""

    def average(values: Sequence[float | None]) -> float | None:
        return None if any(v is None for v in values) else float(np.mean(values))

    if not asked.same_dev(each):  # means over other examples each are of nothing
        each = [_without_dev(figures) for figures in each]
    of_ways = _ways_averaged(each)
    by_number = [{t["template"]: t for t in figures["templates"]} for figures in each]
    templates = []
    for number in sorted(by_number[0]):  # all have the same ones, see `_apart`
        found = [listed[number] for listed in by_number]
        ways_of = ("sum", *(key.removeprefix("mean_") for key in of_ways if key.startswith("mean_")))
        templates.append(
            {**{k: found[0][k] for k in ("input", "target") if k in found[0]}, "template": number}
            | {"value": average([template_value(t) for t in found]), "dev": average([t.get("dev") for t in found])}
            | {way: average([t[way] for t in found]) for way in ways_of if all(way in t for t in found)}
            | {key: sum(t[key] for t in found) for key in COUNTS if all(key in t for t in found)}
            | (
                {"undefined": undefined}
                if (undefined := sorted({m for t in found for m in t.get("undefined", ())}))
                else {}
            )
        )
    means = [figures["mean"] for figures in each]
    shared = [m for m in each[0].get("metrics", {}) if all(m in figures.get("metrics", {}) for figures in each)]
    versions = [figures.get("metric_versions", {}) for figures in each]
    return {
        **{k: each[0][k] for k in _SHARED if k in each[0]},
        "label": labels.joint(figures["label"] for figures in each),
        "examples": each[0]["examples"],
        "mean": float(np.mean(means)),
        "std": float(np.std(means, ddof=1)),
        "runs": means,
        "best_dev": average([figures.get("best_dev") for figures in each]),
        "best_dev_template": None,
        **{name: baseline(each, name) for name in clusters.BASELINES},  # of the same examples
        "stderr": None,
        **of_ways,
        **({"shots": _shots_added(shots)} if all(shots := [figures.get("shots") for figures in each]) else {}),
        "skipped_examples": max(figures.get("skipped_examples", 0) for figures in each),
        "overlap": _overlaps_joined([figures.get("overlap") for figures in each]),
        "metrics": {m: float(np.mean([figures["metrics"][m] for figures in each])) for m in shared},
        "metric_versions": {m: v for m, v in versions[0].items() if all(of.get(m) == v for of in versions)},
        "templates": templates,
    }


def _without_dev(figures: Mapping[str, Any]) -> dict[str, Any]:
    templates = [{**t, "dev": None} for t in figures["templates"]]
    return {**figures, "best_dev": None, "dev_ways": None, "templates": templates}


def _ways_averaged(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of the ways to score that all runs have, and the way whose mean is best on dev."""
    there = [{name for name, value in figures.items() if value is not None} for figures in each]
    names = [name for name in each[0] if name.startswith("mean_") and all(name in of for of in there)]
    found: dict[str, Any] = {name: float(np.mean([figures[name] for figures in each])) for name in names}
    on_dev = [figures.get("dev_ways") for figures in each]
    if names and all(on_dev):
        shared = [way for way in on_dev[0] if all(way in of for of in on_dev)]
        dev = {way: float(np.mean([of[way] for of in on_dev])) for way in shared}
        found |= {"dev_ways": dev, "best_dev_way": max(dev, key=lambda way: dev[way])}
    return found


def _overlaps_joined(each: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """What the runs have seen of a dataset: the most that one of them has seen, and whether all were compared."""
    found = [overlap for overlap in each if overlap]
    if not found:
        return None
    most = max(found, key=lambda overlap: overlap.get("seen") or 0)
    reasons = dict.fromkeys(reason for overlap in found if (reason := overlap.get("reason")))
    if len(found) < len(each):
        reasons["not checked: not all of the runs say"] = None
    checked = not reasons and all(overlap.get("checked") for overlap in found)
    kin = {name: how for overlap in found for name, how in (overlap.get("kin") or {}).items()}
    return {**most, "checked": checked, "reason": "; ".join(reasons), "kin": kin}


def _shots_added(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The exemplars of all runs' prompts together."""
    prompts = sum(shots["of"] for shots in each)
    mean = sum(shots["mean"] * shots["of"] for shots in each) / prompts
    return {"wanted": each[0]["wanted"], "mean": mean, "without": sum(s["without"] for s in each), "of": prompts}

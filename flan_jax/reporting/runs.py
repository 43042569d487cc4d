"""Finished evaluations: their results, their predictions if available, and groups of runs."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax import catalog, styles
from flan_jax.data.examples import TEST
from flan_jax.errors import FlanError
from flan_jax.evaluation import clusters, labels
from flan_jax.evaluation.figures import FILES
from flan_jax.files import AnyPath, user_path
from flan_jax.json_lines import NotFiniteNumber, as_unicode, from_json, read_lines
from flan_jax.reporting import sound

NOT_RECORDED = "not recorded"

# Of a dataset's figures, what all runs of a group share.
_SHARED = ("cluster", "paper_dataset", "metric", "headline_metric", "filter", "lower_is_better", "options_read")
_COUNTS = ("cut_prompts", "unfinished", "copies")  # counts of a template's prompts


class UnusableError(Exception):
    """Predictions cannot give values of single examples; the text says why."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One evaluation under its name in the report, or several as one.

    Attributes:
      name: for example "untuned".
      results: what `evaluator.evaluate` returned.
      output_dir: its EVAL_OUTPUT_DIR with the predictions; None if there are only results.
      lines: the predictions by dataset and template, if they are not in a folder of ours.
      members: the runs of a group; empty for a single run.
    """

    name: str
    results: Mapping[str, Any]
    output_dir: AnyPath | None = None
    lines: Mapping[str, Mapping[int, list[dict[str, Any]]]] | None = None
    members: tuple[Run, ...] = ()

    @property
    def style(self) -> styles.TextStyle:
        """The style of its prompts."""
        return styles.parse(self.results.get("settings", {}).get("style", styles.INSTRUCTIONS))

    @property
    def title(self) -> str:
        """The name with the kind of its prompts: "tuned · few-shot (5)", "untuned · zero-shot · gpt3"."""
        if "harness" in self.results:
            return f"{self.name} · {self.results['harness']}"
        rest = dataclasses.replace(self.style, shots=0, shared=False).name
        parts = [self.name, labels.shots(self.style), *([rest] if rest != styles.INSTRUCTIONS else [])]
        return " · ".join([*parts, *([f"{len(self.members)} runs"] if self.members else [])])

    @functools.cached_property
    def datasets(self) -> dict[str, dict[str, Any]]:
        """The figures of each dataset, with label and status in today's words."""
        found = {}
        for name, figures in self.results["datasets"].items():
            label = labels.of_figures(figures, self.style)
            found[name] = {**figures, "label": label, "status": labels.status_of(label)}
        return found

    def figures(self, dataset: str) -> Mapping[str, Any] | None:
        """The dataset's figures, or None."""
        return self.datasets.get(dataset)


def is_evaluation(folder: AnyPath) -> bool:
    """Whether a folder holds the results of an evaluation of ours."""
    return any((folder / name).exists() for name in FILES.values())


def load_run(name: str, output_dir: str | AnyPath, split: str = TEST) -> Run:
    """Reads the results.json of an evaluation, or its dev.json. Earlier versions can be read too.

    Args:
      name: the run's name in the report.
      output_dir: the evaluation's folder.
      split: "test" for results.json, "dev" for dev.json.

    Raises:
      FlanError: there is no such file, it is broken, or it lacks what a report needs.
    """
    folder = user_path(output_dir)
    path = folder / FILES[split]
    if folder.is_file():
        raise FlanError(f"{output_dir} is a file: give the folder that it is in.")
    try:
        results = as_unicode(from_json(path.read_text(encoding="utf-8-sig")))
    except NotFiniteNumber as error:
        raise FlanError(f"{path} is no result ({error}): run python -m flan_jax.eval again.") from error
    except OSError as error:
        raise FlanError(f"no readable {path.name} in {output_dir}: run python -m flan_jax.eval first.") from error
    except (ValueError, RecursionError) as error:
        raise FlanError(f"{path} is damaged, and no whole JSON: run python -m flan_jax.eval again.") from error
    if not isinstance(results, dict) or not {"checkpoint", "datasets", "clusters"} <= set(results):
        raise FlanError(f"{path} holds no results of an evaluation: run python -m flan_jax.eval again.")
    if results.get("split", TEST) != split:
        raise FlanError(f"{path} has figures of {results.get('split', TEST)} examples, not of {split}: evaluate again.")
    if not isinstance(results["datasets"], dict):
        raise FlanError(f"{path} holds no datasets by name: run python -m flan_jax.eval again.")
    if problem := sound.problem_of_results(results):
        raise FlanError(f"{path} {problem}; it was edited or is of another version: run python -m flan_jax.eval again.")
    for dataset, figures in results["datasets"].items():
        of = catalog.dataset(dataset).cluster if catalog.exists(dataset) else None
        problem = sound.problem_of_figures(figures)
        if not problem and of not in (None, figures["cluster"]):
            problem = f"has the cluster {figures['cluster']!r}, and is of {of!r}"
        problem = problem or sound.problem_of_label(dataset, figures, results)
        if problem:
            raise FlanError(
                f"{path}: dataset {dataset} {problem}; it was edited or is of another version: run python -m "
                "flan_jax.eval again."
            )
    return Run(name, results, folder)


# ------------------------------------------------------------------------------------------------------- of several


def dataset_names(runs: Sequence[Run]) -> list[str]:
    """The datasets that any run has, in the catalog's order."""
    order = {d.name: i for i, d in enumerate(catalog.evaluated())}
    names = dict.fromkeys(name for run in runs for name in run.datasets)
    return sorted(names, key=lambda name: order.get(name, len(order)))


def by_cluster(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The datasets of each cluster. Those that are in no mean stand at the end."""
    found: dict[str, list[str]] = {}
    for name in sorted(dataset_names(runs), key=clusters.is_extra):
        found.setdefault(first_figures(runs, name)["cluster"], []).append(name)
    return found


def common(runs: Sequence[Run]) -> dict[str, clusters.Common]:
    """For each cluster, the datasets that its mean is over: those that all runs have."""
    return clusters.common([run.datasets for run in runs])


def first_figures(runs: Sequence[Run], dataset: str) -> Mapping[str, Any]:
    """The figures of the first run that has the dataset, for what is the same in all runs."""
    return next(figures for run in runs if (figures := run.figures(dataset)))


def baseline(each: Iterable[Mapping[str, Any] | None], name: str) -> float | None:
    """What needs no model, of the first run that says it: "random", "majority" or "copied", 0 to 1; None if none does.

    Args:
      each: the figures of a dataset, or the means of a cluster, in each run. What is measured otherwise than in the
        first run is passed over.
      name: of the baseline.
    """
    there = [figures for figures in each if figures]
    alike = [figures for figures in there if clusters.measured(figures) == clusters.measured(there[0])]
    return next((figures[name] for figures in alike if figures.get(name) is not None), None)


def metric(figures: Mapping[str, Any]) -> str:
    """The name of a dataset's headline metric."""
    return clusters.headline_metric(figures)


def template_value(figures: Mapping[str, Any]) -> float:
    """A template's headline figure, 0 to 1."""
    return figures["value"] if "value" in figures else figures["sum"]


def wording(figures: Mapping[str, Any]) -> str:
    """The text of a template as it was evaluated: its input, and its target if that is more than the answer."""
    if "input" not in figures:
        return NOT_RECORDED
    target = figures.get("target", "")
    return figures["input"] + (f"\n→ {target}" if target and target != "{answer}" else "")


def predictions(run: Run, dataset: str) -> dict[int, list[dict[str, Any]]]:
    """The predictions behind a dataset's figures, by template: on test, or on dev if the figures are of dev.

    Returns:
      An empty dictionary if there are none, as for a run that has only results.

    Raises:
      UnusableError: predictions are missing or cut off.
      FlanError: a line is broken, or holds a number that is NaN or infinite.
    """
    if run.lines is not None:
        return dict(run.lines.get(dataset, {}))
    figures = run.figures(dataset)
    if run.output_dir is None or figures is None:
        return {}
    found: dict[int, Any] = {}
    split = run.results.get("split", TEST)
    for template in figures["templates"]:
        path = run.output_dir / "predictions" / dataset / f"{split}_t{template['template']}.jsonl"
        try:
            header, *rows = read_lines(path)
        except NotFiniteNumber as error:
            raise FlanError(f"{path} holds no predictions ({error}): run python -m flan_jax.eval again.") from error
        except FileNotFoundError:
            if not found and not any(path.parent.glob(f"{split}_t*.jsonl")):
                return {}
            raise UnusableError(f"{path.name} is missing") from None
        except (OSError, ValueError) as error:
            raise UnusableError(f"{path.name} cannot be read: it was cut off or changed") from error
        if template.get("key", header.get("key")) != header.get("key"):  # results of earlier versions have no key
            raise UnusableError(f"{path.name} is of another job or template than the results")
        if len(rows) != figures["examples"]:
            raise UnusableError(f"{path.name} has {len(rows)} of {figures['examples']} predictions")
        for number, row in enumerate(rows, 2):
            if problem := sound.problem_of_prediction(row):
                raise FlanError(f"{path} line {number} {problem}: run python -m flan_jax.eval again.")
        found[template["template"]] = as_unicode(rows)
    return found


# ----------------------------------------------------------------------------------------------------------- groups


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
            raise FlanError(f"group {name} has {twice} twice: a spread over runs needs runs of their own.")
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

    A dataset that some runs lack, or that has other metrics or another number of examples, is left out and listed as
    skipped.

    Raises:
      FlanError: the runs have different styles, or are of different programs.
    """
    if len(programs := dict.fromkeys(str(run.results.get("harness", "FLAN-JAX")) for run in members)) > 1:
        raise FlanError(f"group {name} has runs of {' and '.join(programs)}: group those of one program.")
    if len(asked := dict.fromkeys(run.style.name for run in members)) > 1:
        raise FlanError(f"group {name} has runs of the styles {', '.join(asked)}: group those of one style.")
    first = members[0]
    datasets, skipped = {}, []
    for dataset in dataset_names(members):
        each = [run.figures(dataset) for run in members]
        if not all(each):
            lacking = ", ".join(run.name for run, f in zip(members, each, strict=True) if not f)
            skipped.append({"dataset": dataset, "reason": f"not in {lacking}"})
        elif len({clusters.measured(f) for f in each}) > 1:
            skipped.append({"dataset": dataset, "reason": "its runs are measured by different metrics"})
        elif len(counts := dict.fromkeys(str(f["examples"]) for f in each)) > 1:
            skipped.append({"dataset": dataset, "reason": f"its runs have {' and '.join(counts)} examples"})
        elif len({_records_of(f) for f in each} - {""}) > 1:
            skipped.append({"dataset": dataset, "reason": "its runs have other records"})
        else:
            datasets[dataset] = _averaged(each)
    distinct = {run.results["checkpoint"] for run in members}
    results = {
        **{key: first.results[key] for key in ("settings", "joint", "separator", "harness") if key in first.results},
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


def _records_of(figures: Mapping[str, Any]) -> str:
    """A digest of the test records; empty if results do not say it."""
    data = figures.get("data")
    of_test = data.get(TEST) if isinstance(data, Mapping) else None
    return str(of_test.get("digest", "")) if isinstance(of_test, Mapping) else ""


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

    of_ways = _ways_averaged(each)
    by_number = [{t["template"]: t for t in figures["templates"]} for figures in each]
    templates = []
    for number in sorted({n for listed in by_number for n in listed}):
        found = [listed[number] for listed in by_number if number in listed]
        if len(found) < len(each) or len({wording(t) for t in found}) > 1:
            continue
        ways_of = ("sum", *(key.removeprefix("mean_") for key in of_ways if key.startswith("mean_")))
        templates.append(
            {**{k: found[0][k] for k in ("input", "target") if k in found[0]}, "template": number}
            | {"value": average([template_value(t) for t in found]), "dev": average([t.get("dev") for t in found])}
            | {way: average([t[way] for t in found]) for way in ways_of if all(way in t for t in found)}
            | {key: sum(t[key] for t in found) for key in _COUNTS if all(key in t for t in found)}
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


def _ways_averaged(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of the ways to score that all runs have, and the way whose mean is best on dev."""
    names = [name for name in each[0] if name.startswith("mean_") and all(name in figures for figures in each)]
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

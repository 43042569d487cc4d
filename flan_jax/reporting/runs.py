"""Finished evaluations: their results, and their predictions if available. `groups` shows several as one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax import catalog, styles
from flan_jax.data.examples import TEST
from flan_jax.errors import FlanError
from flan_jax.evaluation import clusters, labels
from flan_jax.evaluation.figures import FILES
from flan_jax.files import AnyPath, user_path
from flan_jax.json_lines import NotFiniteNumber, RepeatedKeyError, as_unicode, from_json, read_lines
from flan_jax.reporting import agreement, sound

NOT_RECORDED = "not recorded"
SAME = 5e-4  # baselines that differ by less are shown alike


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
    def is_log(self) -> bool:
        """Whether it is the log of another program, which asks and counts in its own way."""
        return "harness" in self.results

    @property
    def title(self) -> str:
        """The name with the kind of its prompts: "tuned · few-shot (5)", "untuned · zero-shot · gpt3"."""
        if self.is_log:
            versions = dict.fromkeys(str(one.results.get("harness_version", "")) for one in self.members or (self,))
            return f"{self.name} · {self.results['harness']} {' and '.join(versions)}".rstrip()
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
        results = as_unicode(from_json(path.read_text(encoding="utf-8-sig"), keys_once=True))
    except (NotFiniteNumber, RepeatedKeyError) as error:
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
        problem = problem or agreement.problem_of(dataset, figures, split)
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
    """What needs no model: "random", "majority" or "copied", 0 to 1; None if no run says it, or if two runs differ.

    Args:
      each: the figures of a dataset, or the means of a cluster, in each run. What is measured otherwise than in the
        first run is passed over.
      name: of the baseline.
    """
    found = baselines(each, name)
    return found[0] if found and max(found) - min(found) < SAME else None


def baselines(each: Iterable[Mapping[str, Any] | None], name: str) -> list[float]:
    """What each run says of a baseline, of those that say it. See `baseline`."""
    there = [figures for figures in each if figures]
    alike = [figures for figures in there if clusters.measured(figures) == clusters.measured(there[0])]
    return [figures[name] for figures in alike if figures.get(name) is not None]


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
    for template in sorted(figures["templates"], key=lambda t: t["template"]):
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
        if "key" in template and "digest" not in header:  # then nobody can say whether the lines were changed
            raise UnusableError(f"{path.name} lacks the digest of its lines")
        if len(rows) != figures["examples"]:
            raise UnusableError(f"{path.name} has {len(rows)} of {figures['examples']} predictions")
        for number, row in enumerate(rows, 2):
            if problem := sound.problem_of_prediction(row):
                raise FlanError(f"{path} line {number} {problem}: run python -m flan_jax.eval again.")
            said = {"dataset": dataset, "split": split, "template": template["template"]}
            if wrong := [key for key, value in said.items() if row.get(key, value) != value]:
                raise UnusableError(f"{path.name} line {number} is of {wrong[0]} {str(row[wrong[0]])[:40]}")
        found[template["template"]] = as_unicode(rows)
    return found

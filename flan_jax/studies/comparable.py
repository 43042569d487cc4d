"""Whether evaluations belong into one study: of the same records, asked and computed alike; and what has no score."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flan_jax import catalog
from flan_jax.data import examples as example_files
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator
from flan_jax.files import AnyPath
from flan_jax.models.config import COMPUTATION
from flan_jax.reporting import asked
from flan_jax.reporting import runs as finished
from flan_jax.reporting.runs import Run
from flan_jax.studies import outcomes
from flan_jax.studies.commands import Commands
from flan_jax.studies.keys import digest
from flan_jax.studies.plan import Arm
from flan_jax.studies.settings import Settings

_NAMED = 12  # datasets that a line names


def check_examples(arms: Sequence[Arm], runs: Mapping[str, Sequence[Run]], settings: Settings) -> None:
    """Makes sure that all arms have the same datasets, as far as they are asked for them, and the same records.

    Args:
      arms: of the study.
      runs: of each seed, by the arm's name.
      settings: of the study.

    Raises:
      FlanError: a dataset has a score in one arm and none in another, or in none though it is named; or it was scored
        on other examples.
    """
    every = [(name, run) for name, each in runs.items() for run in each]
    counts: dict[str, dict[int, str]] = {}
    records: dict[str, dict[str, str]] = {}
    scored: dict[str, str] = {}
    for arm, run in every:
        for dataset, figures in run.datasets.items():
            scored.setdefault(dataset, arm)
            counts.setdefault(dataset, {})[figures["examples"]] = run.name
            if digest := asked.records_of(figures):  # results of the first versions do not say it
                records.setdefault(dataset, {})[digest] = run.name
    reasons: dict[str, str] = {}
    for _, run in every:
        for one in run.results["skipped"]:
            reasons.setdefault(name := one["dataset"], one["reason"])
            if name in scored:
                remedy = "leave it out of DATASETS" if settings.datasets else "give DATASETS, all but this one"
                raise FlanError(
                    f"{name} has a score in {scored[name]} and none in {run.name} ({_end(one['reason'])}): {remedy}."
                )
    for named in _named(arms, settings):
        own = [record.name for record in evaluator.select([named])]
        if own and all(name in reasons for name in own):
            places = {"DATASETS": settings.datasets, "POINTS": settings.points or ()}
            place = next((f"leave it out of {macro}" for macro, names in places.items() if named in names), "")
            remedy = place or "name the others, without it"
            raise FlanError(f"{named} has no score ({_end(reasons[own[0]])}): {remedy}, or mend DATA.")
    for dataset, found in counts.items():
        if len(found) > 1:
            said = " and ".join(f"{count} in {arm}" for count, arm in found.items())
            raise FlanError(f"{dataset} was scored on {said} test examples: a study compares the same ones.")
        if len(records.get(dataset, {})) > 1:
            raise FlanError(
                f"{dataset} was scored on other records in {' than in '.join(records[dataset].values())}: a study "
                "compares the same ones. Give another STUDY_DIR."
            )


def _named(arms: Sequence[Arm], settings: Settings) -> list[str]:
    """The datasets that have to have a score: those that the user names, and those that an arm is about alone."""
    whole = {cluster.name for cluster in catalog.clusters()}
    by_user = {*settings.datasets, *(one for one in settings.points or () if isinstance(one, str))}
    found = [name for arm in arms for name in arm.datasets if name in by_user or len(arm.datasets) == 1]
    return [name for name in dict.fromkeys(found) if name not in whole]


def check_resolved(evaluations: Mapping[str, Sequence[Run]]) -> None:
    """Makes sure that what an evaluation chooses by itself is the same in all of an arm, and one dtype is in all arms.

    What results of earlier versions do not say is passed over.

    Args:
      evaluations: of all seeds, by the arm's name; each with its folder.

    Raises:
      FlanError: they differ; the line names the folders.
    """
    for arm, each in evaluations.items():
        for what, of in _RESOLVED.items():
            _one_value(arm, what, [(str(value), run) for run in each if (value := of(run.results)) is not None])
        for dataset in dict.fromkeys(name for run in each for name in run.datasets):
            own = [(run.datasets[dataset], run) for run in each if dataset in run.datasets]
            for split in (*example_files.EVALUATED, example_files.EXEMPLARS):
                found = [(digest, run) for figures, run in own if (digest := asked.records_of(figures, split))]
                _one_value(arm, f"{split} records of {dataset}", found)
            _one_value(arm, f"wording of {dataset}", [(text, run) for f, run in own if (text := _wording(f))])
    dtypes = {_chosen_dtype(run.results): (arm, run) for arm, each in evaluations.items() for run in each}
    if len(dtypes) > 1:  # "auto" takes another on another machine
        said = " and ".join(
            f"{arm} in {dtype or 'the dtype of its model'} ({run.output_dir})" for dtype, (arm, run) in dtypes.items()
        )
        raise FlanError(
            f"{said}: a study compares scores of one dtype. Give EVAL COMPUTATION={{'dtype': 'float32'}}, and run "
            "it again."
        )


def _one_value(arm: str, what: str, found: Iterable[tuple[str, Run]]) -> None:
    """Raises a FlanError where evaluations of an arm have several values."""
    folders: dict[str, list[AnyPath]] = {}
    for value, run in found:
        folders.setdefault(value, []).append(run.output_dir)
    if len(folders) < 2:
        return
    fewest = min(folders.values(), key=len)
    places = fewest if len(fewest) < max(map(len, folders.values())) else [one for f in folders.values() for one in f]
    values = " and ".join(f"{value} ({of[0]})" for value, of in folders.items())
    raise FlanError(
        f"{arm}: its {what} should be one, and there are {values}: remove results.json in "
        f"{', '.join(map(str, places))}, and run the study again."
    )


def _joint(results: Mapping[str, Any]) -> Any:
    """The joint; None where a chat template wrote all of it, which has its own."""
    own = [name for name in results["datasets"] if not catalog.exists(name) or not catalog.dataset(name).written]
    return results.get("joint") if own else None


def _model(results: Mapping[str, Any]) -> str | None:
    if not isinstance(model := results.get("model"), dict):
        return None
    return json.dumps({key: value for key, value in model.items() if key not in COMPUTATION}, sort_keys=True)


def _tuned_on(results: Mapping[str, Any]) -> str | None:
    tuning = results.get("tuning") or {}
    return None if "datasets" not in tuning else ", ".join(sorted(tuning["datasets"])) or "nothing"


def _wording(figures: Mapping[str, Any]) -> str:
    """A digest of the templates that were asked; empty where their text is not there."""
    templates = sorted(figures["templates"], key=lambda one: one["template"])
    texts = [[one["template"], one.get("input"), one.get("target")] for one in templates]
    return "" if any(None in text for text in texts) else digest(texts)


def _chosen_dtype(results: Mapping[str, Any]) -> str | None:
    return ((results.get("settings") or {}).get("computation") or {}).get("dtype")


# What an evaluation finds out where it runs, by what a message calls it.
_RESOLVED: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "joint": _joint,
    "dtype": outcomes.dtype_of,
    "engines": lambda results: results.get("engines"),
    "MODEL": _model,
    "list of datasets that it was tuned on": _tuned_on,
}


# ------------------------------------------------------------------------------------------------------ without a score


def unscored(commands: Commands) -> tuple[str, ...]:
    """Sentences on the datasets that were to be scored and have no score in any arm, with the reasons.

    Args:
      commands: of a study whose evaluations are all there.
    """
    by_reason: dict[str, dict[str, None]] = {}
    scored: set[str] = set()
    folders = dict.fromkeys(
        commands.output_of(one) for arm in commands.arms for one in arm.evaluations(commands.settings)
    )
    for folder in folders:
        results = finished.load_run("", folder).results
        scored |= results["datasets"].keys()
        for one in [*results.get("skipped", ()), *results.get("invalid", ())]:
            reason = _NOT_THERE if one.get("prepared") is False else _end(one["reason"])
            by_reason.setdefault(reason, {})[one["dataset"]] = None
    said: list[str] = []
    for reason, found in by_reason.items():
        if names := [name for name in found if name not in scored]:
            scored |= {*names}  # each once, with the first of its reasons
            more = "" if len(names) <= _NAMED else f" and {len(names) - _NAMED} more"
            said.append(f"Without a score: {', '.join(names[:_NAMED])}{more} ({reason}).")
    return tuple(said)


_NOT_THERE = "DATA has no test examples of it"


def _end(reason: str) -> str:
    return reason.rstrip(".")

"""Models judged by dev data of what they are tuned on, as they are tuned: what a recipe is chosen by."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax import catalog, configuration
from flan_jax.checkpoint import adapters, choosing
from flan_jax.data.examples import DEV
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator, labels
from flan_jax.evaluation.during_training import FOLDER, LOSS, LOSS_OF_CLUSTERS
from flan_jax.files import AnyPath
from flan_jax.gin_files import TRAINING
from flan_jax.json_lines import read_lines
from flan_jax.models.config import AUTO
from flan_jax.reporting import asked, comparisons, groups
from flan_jax.reporting import runs as finished
from flan_jax.reporting.evidence import gather
from flan_jax.reporting.runs import Run
from flan_jax.reporting.sound import is_number
from flan_jax.studies import outcomes
from flan_jax.studies.commands import Commands
from flan_jax.studies.plan import Tuning
from flan_jax.studies.results import Gain
from flan_jax.values import shown

# Macros that the study sets to have its models judged.
MACROS = ("EVAL_PERIOD", "DATASETS", "MAX_DEV_EXAMPLES", "STYLE", "KEEP_BEST", "INITIAL_STEP")


def watch(steps: int, datasets: Sequence[str], examples: int) -> dict[str, Any]:
    """Macros of a training that evaluates its dev examples once, after its last step."""
    return {"EVAL_PERIOD": steps, "DATASETS": tuple(datasets), "MAX_DEV_EXAMPLES": examples}


@dataclasses.dataclass(frozen=True)
class Judged:
    """The models of one recipe, one for each seed.

    Attributes:
      name: of the recipe.
      runs: their dev figures.
      losses: of the dev targets by cluster, nats a token, the mean over the seeds.
      averaging: LOSS_AVERAGING of those losses.
      tokens: that one of them was tuned on.
      seconds: of the steps of one of them, the mean over the seeds.
      dtype: that was chosen for them where they ran; empty where the recipe names it, or results do not say it.
    """

    name: str
    runs: tuple[Run, ...]
    losses: Mapping[str, float]
    averaging: str
    tokens: int
    seconds: float
    dtype: str = ""

    def scores(self, datasets: Sequence[str]) -> dict[str, float]:
        """By cluster, the mean over its datasets and over the seeds, 0 to 1."""
        found: dict[str, list[float]] = {}
        for dataset in datasets:
            means = [run.datasets[dataset]["mean"] for run in self.runs]
            found.setdefault(self.runs[0].datasets[dataset]["cluster"], []).append(statistics.fmean(means))
        return {cluster: statistics.fmean(values) for cluster, values in found.items()}

    def told(self, datasets: Sequence[str]) -> dict[str, Any]:
        """What a recipe.json says of it: its score, of which weights, and of which dev records."""
        first = self.runs[0].datasets
        return {
            "score": self.score(datasets),
            "weights": [run.results.get("weights") for run in self.runs],
            "records": {dataset: asked.records_of(first[dataset], DEV) for dataset in datasets},
        }

    def score(self, datasets: Sequence[str]) -> float:
        """The mean over clusters."""
        return statistics.fmean(self.scores(datasets).values())


def judged(commands: Commands, name: str, tunings: Sequence[Tuning]) -> Judged:
    """Reads what a recipe's models have on dev examples.

    Raises:
      FlanError: figures are missing, or not of dev examples, or of what a model has not seen, or not what its training
        was to write: by those nothing is chosen.
    """
    runs = tuple(_run(commands, name, tuning) for tuning in tunings)
    losses = [run.results["dev_loss"] for run in runs]
    each = [{cluster: one["loss"] for cluster, one in loss["clusters"].items()} for loss in losses]
    if other := next((loss for loss in each if loss.keys() != each[0].keys()), None):
        places = ", ".join(str(run.output_dir) for run in runs)
        raise FlanError(
            f"{name}: its models have dev losses of {_listed(each[0])} and of {_listed(other)} in {places}: remove "
            "them, and run the study again."
        )
    steps = [amounts(commands, tuning) for tuning in tunings]
    return Judged(
        name,
        runs,
        {cluster: statistics.fmean(one[cluster] for one in each) for cluster in each[0]},
        losses[0]["loss_averaging"],
        steps[0][0],
        statistics.fmean(seconds for _, seconds in steps),
        _chosen_dtype(commands, name, tunings, runs),
    )


def _chosen_dtype(commands: Commands, name: str, tunings: Sequence[Tuning], runs: Sequence[Run]) -> str:
    """See `Judged.dtype`.

    Raises:
      FlanError: the seeds are of two.
    """
    computation = commands.resolved(tunings[0]).macros.get("COMPUTATION") or {}
    named = isinstance(computation, Mapping) and computation.get("dtype") not in (None, AUTO)
    found = {dtype: run for run in runs if (dtype := outcomes.dtype_of(run.results)) is not None}
    if len(found) > 1:
        said = " and ".join(f"{dtype} in {run.output_dir}" for dtype, run in found.items())
        raise FlanError(f"{name}: its figures are of {said}: give TRAIN COMPUTATION a dtype, and another STUDY_DIR.")
    return "" if named or not found else next(iter(found))


def _run(commands: Commands, name: str, tuning: Tuning) -> Run:
    model, step = commands.model_dir(tuning), commands.resolved(tuning).macros["TRAIN_STEPS"]
    folder = model / FOLDER / f"step_{step}"
    again = f"remove {model}, and run the study again, which tunes it anew"
    try:
        run = finished.load_run(f"{name} seed {tuning.seed}", folder, DEV)
    except FlanError as error:
        why = str(error).partition(": run python")[0].partition(": evaluate again")[0].rstrip(".")
        raise FlanError(f"{name}: {why}: {again}.") from error
    weights = adapters.weights(model, step) if step in choosing.steps(model) else None
    if weights is not None and run.results.get("weights") != weights:
        raise FlanError(f"{name}: {folder} is of other weights than those in {model}: {again}.")
    if problem := _problem_of_loss(run.results.get("dev_loss")):
        raise FlanError(f"{name}: {folder} {problem}: {again}.")
    of_loss = run.results["dev_loss"]["datasets"]
    found = {dataset: figures["status"] for dataset, figures in [*of_loss.items(), *run.datasets.items()]}
    for dataset, status in found.items():
        if status != labels.SEEN:
            raise FlanError(
                f"{name}: {dataset} is {status or 'of no known status'} for its model, and a recipe is chosen by what "
                "is seen alone: nothing is chosen."
            )
    wanted = {record.name for record in evaluator.select(commands.resolved(tuning).macros["DATASETS"])}
    without = {one["dataset"] for one in run.results.get("skipped", ())}
    if run.datasets.keys() | without != wanted:
        raise FlanError(
            f"{name}: {folder} is of {_listed(run.datasets)}, and {_listed(sorted(wanted))} is judged by: {again}."
        )
    if invalid := [*run.results.get("invalid", ()), *run.results.get("skipped", ())]:
        why = str(invalid[0]["reason"]).rstrip(".")
        raise FlanError(f"{name}: {invalid[0]['dataset']} has no result in {folder} ({why}): {again}.")
    if strange := sorted(of_loss.keys() - wanted):
        raise FlanError(f"{name}: {folder} has a loss of {strange[0]}, which nothing is judged by: {again}.")
    if problem := _unlike_log(commands, tuning, run.results["dev_loss"]):
        raise FlanError(f"{name}: {folder} {problem}: {again}.")
    if problem := outcomes.problem_during_training(commands, tuning, run.results):
        raise FlanError(f"{name}: {folder} {problem}: {again}.")
    averaging = (configuration.set_in(TRAINING) | dict(commands.resolved(tuning).macros))["LOSS_AVERAGING"]
    if (told := run.results["dev_loss"]["loss_averaging"]) != averaging:
        raise FlanError(f"{name}: {folder} has losses averaged {told}, and {averaging} is wanted: {again}.")
    return run


def _unlike_log(commands: Commands, tuning: Tuning, found: Mapping[str, Any]) -> str:
    """Why losses are not those that the log of their training has at its last step; empty if they are."""
    amounts(commands, tuning)  # a step that is missing has no losses
    lines = _log(commands, tuning)
    step = int(commands.resolved(tuning).macros["TRAIN_STEPS"])
    for key, part in ((LOSS, "datasets"), (LOSS_OF_CLUSTERS, "clusters")):
        told: dict[str, Any] = {}
        for line in lines:
            if line.get("step") == step and isinstance(line.get(key), Mapping):
                told |= line[key]  # by status and name
        for name, one in found[part].items():
            own = next((value for full, value in told.items() if str(full).endswith(f"/{name}")), None)
            if not is_number(own) or not math.isclose(own, one["loss"], rel_tol=1e-9):
                return (
                    f"has a {key} of {name} of {shown(one['loss'])}, and metrics.jsonl has {shown(own)} at step {step}"
                )
    return ""


def _log(commands: Commands, tuning: Tuning) -> list[dict[str, Any]]:
    """The lines of a training's metrics.jsonl.

    Raises:
      FlanError: that file is missing or damaged.
    """
    path = commands.model_dir(tuning) / "metrics.jsonl"
    try:
        lines = read_lines(path)
        if not all(isinstance(line, dict) for line in lines):
            raise ValueError("a line is no object")
        return lines
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: AnyPath, error: Exception) -> FlanError:
    return FlanError(
        f"{path} cannot be read ({str(error).partition(chr(10))[0]}): mend the line, or remove {path.parent} and run "
        "the study again, which tunes it anew."
    )


def amounts(commands: Commands, tuning: Tuning) -> tuple[int, float]:
    """(tokens, seconds) of all steps of a training, from its metrics.jsonl. What a step skipped was not tuned on.

    Raises:
      FlanError: that file is missing or damaged, or lacks a step.
    """
    path, steps = commands.model_dir(tuning) / "metrics.jsonl", int(commands.resolved(tuning).macros["TRAIN_STEPS"])
    try:
        lines = {line["step"]: line for line in _log(commands, tuning) if "tokens_per_second" in line}
        if missing := [step for step in range(1, steps + 1) if step not in lines]:
            raise ValueError(f"it has no step {missing[0]} of {steps}")
        for step in lines:
            for key in ("tokens_per_second", "seconds"):
                if not is_number(value := lines[step][key]) or value <= 0:
                    raise ValueError(f"its step {step} has {key} {shown(value)}")
            if (skipped := lines[step].get("skipped", 0)) not in (0, 1):
                raise ValueError(f"its step {step} has skipped {shown(skipped)}")
            if not skipped and not is_number(loss := lines[step].get("loss", 0.0)):
                raise ValueError(f"its step {step} has the loss {shown(loss)}")
        own = [lines[step] for step in range(1, steps + 1)]
        tuned_on = [one for one in own if not one.get("skipped")]
        tokens = sum(one["tokens_per_second"] * one["seconds"] for one in tuned_on)
        return round(tokens), sum(one["seconds"] for one in own)
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error


def _problem_of_loss(found: Any) -> str:
    """Why this is not what a training writes of the loss on dev examples; empty if it is."""
    whole = isinstance(found, Mapping) and isinstance(found.get("loss_averaging"), str)
    parts = [found.get("clusters"), found.get("datasets")] if whole else []
    if not whole or not all(isinstance(part, Mapping) for part in parts):
        return "has no dev_loss as a training writes it"
    for name, one in (pair for part in parts for pair in part.items()):
        if not isinstance(one, Mapping) or not is_number(one.get("loss")):
            return f"has no dev_loss of {name} as a training writes it"
        if one["loss"] < 0:
            return f"has a dev_loss of {name} of {shown(one['loss'])}, which no loss is"
    if without := next((name for name, one in found["datasets"].items() if not isinstance(one.get("status"), str)), ""):
        return f"has a dev_loss of {without} that does not say whether it was seen"
    return ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def shared(found: Sequence[Judged]) -> tuple[str, ...]:
    """The datasets that all of them have.

    Raises:
      FlanError: they were computed in dtypes that no recipe names: "auto" takes another on another machine.
    """
    chosen = {one.dtype: one for one in found if one.dtype}
    if len(chosen) > 1:
        said = " and ".join(f"{one.name} in {dtype}" for dtype, one in chosen.items())
        raise FlanError(f"{said}: give TRAIN COMPUTATION={{'dtype': 'float32'}}, and another STUDY_DIR.")
    names = finished.dataset_names([run for one in found for run in one.runs])
    return tuple(name for name in names if all(name in run.datasets for one in found for run in one.runs))


def less(one: Judged, other: Judged, datasets: Sequence[str]) -> Gain:
    """How much better one is than another on the same dev examples, as the mean over clusters."""
    pair = [_as_one(each) for each in (other, one)]
    comparison = gather(pair).comparisons[0]
    if missing := [dataset for dataset in datasets if dataset not in comparison.datasets]:
        reason = comparison.apart.get(missing[0], "their predictions are not at hand")
        raise FlanError(f"{one.name} and {other.name} cannot be compared on {missing[0]}: {reason}.")
    clusters: dict[str, list[comparisons.Difference]] = {}
    for dataset in datasets:
        cluster = catalog.named(dataset)[0].cluster
        clusters.setdefault(cluster, []).append(comparison.datasets[dataset])
    each = [found[0] if len(found) == 1 else comparisons.of_cluster(found) for found in clusters.values()]
    for dataset in datasets:
        own = {run.datasets[dataset]["examples"] for found in (one, other) for run in found.runs}
        if own != {shared := comparison.datasets[dataset].examples}:
            raise FlanError(
                f"{one.name} and {other.name} share {shared} of {max(own)} dev records of {dataset}: a recipe is "
                "chosen by the same ones. Give another STUDY_DIR."
            )
    whole = each[0] if len(each) == 1 else comparisons.of_cluster(each)
    base = other.score(datasets)
    of_seeds = tuple(dataclasses.replace(one, runs=(run,)).score(datasets) - base for run in one.runs)
    return Gain(f"{one.name} less {other.name}", other.name, whole, of_seeds)


def _as_one(found: Judged) -> Run:
    return found.runs[0] if len(found.runs) == 1 else groups.as_one(found.name, found.runs)

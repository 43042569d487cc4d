"""Models judged by dev data of what they are tuned on, as they are tuned: what a recipe is chosen by."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import catalog
from flan_jax.data.examples import DEV
from flan_jax.errors import FlanError
from flan_jax.evaluation import labels
from flan_jax.evaluation.during_training import FOLDER
from flan_jax.json_lines import read_lines
from flan_jax.reporting import comparisons, groups
from flan_jax.reporting import runs as finished
from flan_jax.reporting.evidence import gather
from flan_jax.reporting.runs import Run
from flan_jax.studies import outcomes
from flan_jax.studies.commands import Commands
from flan_jax.studies.plan import Tuning
from flan_jax.studies.results import Gain

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
    """

    name: str
    runs: tuple[Run, ...]
    losses: Mapping[str, float]
    averaging: str
    tokens: int
    seconds: float

    def scores(self, datasets: Sequence[str]) -> dict[str, float]:
        """By cluster, the mean over its datasets and over the seeds, 0 to 1."""
        found: dict[str, list[float]] = {}
        for dataset in datasets:
            means = [run.datasets[dataset]["mean"] for run in self.runs]
            found.setdefault(self.runs[0].datasets[dataset]["cluster"], []).append(statistics.fmean(means))
        return {cluster: statistics.fmean(values) for cluster, values in found.items()}

    def score(self, datasets: Sequence[str]) -> float:
        """The mean over clusters."""
        return statistics.fmean(self.scores(datasets).values())


def judged(commands: Commands, name: str, tunings: Sequence[Tuning]) -> Judged:
    """Reads what a recipe's models have on dev examples.

    Raises:
      FlanError: figures are missing, or not of dev examples, or of what a model has not seen: by those nothing is
        chosen.
    """
    runs = tuple(_run(commands, name, tuning) for tuning in tunings)
    losses = [run.results["dev_loss"] for run in runs]
    each = [{cluster: one["loss"] for cluster, one in loss["clusters"].items()} for loss in losses]
    steps = [_steps(commands, tuning) for tuning in tunings]
    return Judged(
        name,
        runs,
        {cluster: statistics.fmean(one[cluster] for one in each) for cluster in each[0]},
        losses[0]["loss_averaging"],
        steps[0][0],
        statistics.fmean(seconds for _, seconds in steps),
    )


def _run(commands: Commands, name: str, tuning: Tuning) -> Run:
    model, step = commands.model_dir(tuning), commands.resolved(tuning).macros["TRAIN_STEPS"]
    folder = model / FOLDER / f"step_{step}"
    again = f"remove {model}, and run the study again, which tunes it anew"
    try:
        run = finished.load_run(f"{name} seed {tuning.seed}", folder, DEV)
    except FlanError as error:
        raise FlanError(f"{name}: {str(error).partition(': run python')[0]}: {again}.") from error
    weights = outcomes.weights(model, step)
    if weights is not None and run.results.get("weights") != weights:
        raise FlanError(f"{name}: {folder} is of other weights than those in {model}: {again}.")
    of_loss = run.results.get("dev_loss", {}).get("datasets", {})
    found = {dataset: figures["status"] for dataset, figures in [*of_loss.items(), *run.datasets.items()]}
    for dataset, status in found.items():
        if status != labels.SEEN:
            raise FlanError(
                f"{name}: {dataset} is {status or 'of no known status'} for its model, and a recipe is chosen by what "
                "is seen alone: nothing is chosen."
            )
    if invalid := [*run.results.get("invalid", ()), *run.results.get("skipped", ())]:
        raise FlanError(f"{name}: {invalid[0]['dataset']} has no result: {invalid[0]['reason']}")
    return run


def _steps(commands: Commands, tuning: Tuning) -> tuple[int, float]:
    """(tokens, seconds) of all steps of a training."""
    path = commands.model_dir(tuning) / "metrics.jsonl"
    lines = {line["step"]: line for line in read_lines(path) if "tokens_per_second" in line}
    tokens = sum(line["tokens_per_second"] * line["seconds"] for line in lines.values())
    return round(tokens), sum(line["seconds"] for line in lines.values())


def shared(found: Sequence[Judged]) -> tuple[str, ...]:
    """The datasets that all of them have."""
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
    whole = each[0] if len(each) == 1 else comparisons.of_cluster(each)
    base = other.score(datasets)
    of_seeds = tuple(dataclasses.replace(one, runs=(run,)).score(datasets) - base for run in one.runs)
    return Gain(f"{one.name} less {other.name}", other.name, whole, of_seeds)


def _as_one(found: Judged) -> Run:
    return found.runs[0] if len(found.runs) == 1 else groups.as_one(found.name, found.runs)

"""Whether folders hold what a study's steps write: results of these very weights, wordings and limits.

That a file is there says little. Folders are copied over each other, models are replaced in their place, a model that
was lost is tuned again. So an evaluation counts as done only if its results say that they are the ones that are wanted.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from flan_jax import configuration, styles
from flan_jax.checkpoint import adapters, choosing
from flan_jax.checkpoint.manifest import TUNED, UNTUNED
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator
from flan_jax.evaluation.figures import FILES
from flan_jax.files import AnyPath
from flan_jax.gin_files import EVALUATION
from flan_jax.reporting import runs as finished
from flan_jax.studies.commands import Commands, Step
from flan_jax.studies.plan import Evaluation
from flan_jax.training.run import Run
from flan_jax.values import WEIGHTS

_RESULTS = FILES["test"]
_ASKED = ("max_examples", "max_dev_examples", "max_input_tokens", "max_new_tokens", "joint", "ways", "seed")


def problem(commands: Commands, step: Step) -> str:
    """Why the results in the folder of a step are not the ones that are wanted; empty if they are.

    Args:
      commands: of the study.
      step: one of its steps. Of another job than an evaluation nothing is known here.
    """
    evaluation = commands.evaluation_of(step)
    return "" if evaluation is None else problem_of_evaluation(commands, evaluation)


def problem_of_evaluation(commands: Commands, evaluation: Evaluation) -> str:
    """Why the results in an evaluation's folder are not the ones that are wanted; empty if they are."""
    folder = commands.output_of(evaluation)
    if not (folder / _RESULTS).exists():
        return f"has no {_RESULTS}"
    try:
        results = finished.load_run(evaluation.dataset, folder).results
    except FlanError as error:
        return f"has results that cannot be used ({str(error).partition('; it was')[0].partition(': run python')[0]})"
    return (
        _problem_of_settings(evaluation, results)
        or _problem_of_datasets(evaluation, results)
        or _problem_of_weights(commands, evaluation, results)
    )


def _problem_of_settings(evaluation: Evaluation, results: Mapping[str, Any]) -> str:
    settings, wanted = results.get("settings", {}), _settings(evaluation)
    for name in _ASKED:
        own = getattr(wanted, name)
        own = list(own) if isinstance(own, tuple) else own
        if settings.get(name) != own:
            return f"was asked with {name} {settings.get(name)}, and {own} is wanted"
    style = styles.parse(settings.get("style", styles.INSTRUCTIONS))
    if style != styles.parse(evaluation.style):
        return f"was asked in the style {style.name}, and {evaluation.style} is wanted"
    return ""


def _problem_of_datasets(evaluation: Evaluation, results: Mapping[str, Any]) -> str:
    wanted = {record.name: record for record in evaluator.select([evaluation.dataset])}
    without = [*results.get("skipped", ()), *results.get("invalid", ())]
    there = {*results["datasets"], *(one["dataset"] for one in without)}
    if there != set(wanted):
        return f"is of {', '.join(sorted(there)) or 'no dataset'}, and {', '.join(sorted(wanted))} is wanted"
    settings = _settings(evaluation)
    for name, figures in results["datasets"].items():
        protocol = settings.protocol_of(wanted[name])
        if figures.get("protocol") != protocol.digest:
            return f"asked {name} by another protocol"
        if sorted(t["template"] for t in figures["templates"]) != sorted(protocol.forward):
            return f"has not the templates of {name} that were to be asked"
    return ""


def _problem_of_weights(commands: Commands, evaluation: Evaluation, results: Mapping[str, Any]) -> str:
    tuning, macros = evaluation.tuning, _macros(_key(evaluation))
    folder = commands.checkpoint(evaluation.model) if tuning is None else commands.model_dir(tuning)
    if not results["checkpoint"].startswith(f"{folder.name} step "):
        return f"is of {results['checkpoint']}, and {folder.name} is wanted"
    status, wanted = results.get("tuning", {}).get("status"), UNTUNED if tuning is None else TUNED
    if status != wanted:
        return f"is of a model that is {status} by its record, and {wanted} is wanted"
    saved = choosing.steps(folder) if (folder / "checkpoints").exists() else []
    step = saved[-1] if saved and macros["STEP"] is None else macros["STEP"]
    digest = weights(folder, step, macros["PARAMETERS"]) if step in saved else None
    if digest is not None and results.get("weights") != digest:
        return f"is of other weights than those in {folder}"
    return ""


def weights(folder: AnyPath, step: int, which: str = WEIGHTS[0]) -> str | None:
    """The digest of a step's weights; None if they are not there any more, or of an earlier version."""
    try:
        return adapters.weights(folder, step, which)
    except FlanError:
        return None


def check_starts(commands: Commands) -> None:
    """Makes sure that models were tuned from the ones that lie where they began.

    Raises:
      FlanError: another model lies there now. What was tuned would be compared with what it does not come from.
    """
    for tuning in commands.tunings:
        folder = commands.model_dir(tuning)
        start = commands.checkpoint(tuning.model) if tuning.start is None else commands.model_dir(tuning.start)
        if not all((one / "checkpoints").exists() for one in (folder, start)) or (run := Run.load(folder)) is None:
            continue
        step, begun = run.start.get("step"), run.start.get("weights")  # runs of earlier versions do not say it
        if begun is not None and step in choosing.steps(start) and weights(start, step) not in (None, begun):
            raise FlanError(
                f"{folder} was tuned from other weights than {start} has now: put that model back, or give another "
                "STUDY_DIR."
            )


def _settings(evaluation: Evaluation) -> evaluator.Settings:
    """What an evaluation is to be asked with; its computation is chosen where it runs."""
    macros = _macros(_key(evaluation))
    given = {name: macros[name.upper()] for name in _ASKED if name not in ("ways", "seed")}
    ways = macros["WAYS"] or ()
    given |= {"ways": (ways,) if isinstance(ways, str) else tuple(ways), "seed": macros["SEEDS"][0]}
    return evaluator.Settings(**given, style=evaluation.style)


def _key(evaluation: Evaluation) -> str:
    return json.dumps(dict(evaluation.macros), sort_keys=True, default=str)


@functools.cache  # a plan asks for each of its evaluations
def _macros(key: str) -> dict[str, Any]:
    return configuration.set_in(EVALUATION) | json.loads(key)

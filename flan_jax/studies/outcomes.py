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
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator
from flan_jax.evaluation.figures import FILES
from flan_jax.files import AnyPath
from flan_jax.gin_files import EVALUATION
from flan_jax.json_lines import from_json
from flan_jax.studies.commands import Commands, Step
from flan_jax.studies.plan import Evaluation
from flan_jax.training.run import Run

_RESULTS = FILES["test"]
_ASKED = ("max_examples", "max_dev_examples", "max_input_tokens", "max_new_tokens", "joint", "ways")


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
    path = commands.output_of(evaluation) / _RESULTS
    try:
        results = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"has no readable {_RESULTS}"
    if not isinstance(results, Mapping) or not isinstance(results.get("datasets"), Mapping):
        return f"has no results in {_RESULTS}"
    return (
        _problem_of_settings(evaluation, results)
        or _problem_of_datasets(evaluation, results)
        or _problem_of_weights(commands, evaluation, results)
    )


def _problem_of_settings(evaluation: Evaluation, results: Mapping[str, Any]) -> str:
    settings, wanted = results.get("settings"), _settings(evaluation)
    if not isinstance(settings, Mapping):
        return "does not say how it was asked"
    for name in _ASKED:
        own = getattr(wanted, name)
        own = list(own) if isinstance(own, tuple) else own
        if settings.get(name) != own:
            return f"was asked with {name} {settings.get(name)}, and {own} is wanted"
    try:
        style = styles.parse(settings.get("style"))
    except (FlanError, TypeError, AttributeError):
        return "does not say its style"
    if style != styles.parse(evaluation.style):
        return f"was asked in the style {style.name}, and {evaluation.style} is wanted"
    return ""


def _problem_of_datasets(evaluation: Evaluation, results: Mapping[str, Any]) -> str:
    wanted = {record.name: record for record in evaluator.select([evaluation.dataset])}
    without = [*(results.get("skipped") or ()), *(results.get("invalid") or ())]
    if not all(isinstance(one, Mapping) for one in (*without, *results["datasets"].values())):
        return "has datasets without names"
    there = {*results["datasets"], *(str(one.get("dataset")) for one in without)}
    if there != set(wanted):
        return f"is of {', '.join(sorted(there)) or 'no dataset'}, and {', '.join(sorted(wanted))} is wanted"
    settings = _settings(evaluation)
    for name, figures in results["datasets"].items():
        protocol = settings.protocol_of(wanted[name])
        if figures.get("protocol") != protocol.digest:
            return f"asked {name} by another protocol"
        if _templates(figures) != list(protocol.forward):
            return f"has not the templates of {name} that were to be asked"
    return ""


def _templates(figures: Mapping[str, Any]) -> list[Any]:
    listed = figures.get("templates")
    return [t.get("template") for t in listed if isinstance(t, Mapping)] if isinstance(listed, list) else []


def _problem_of_weights(commands: Commands, evaluation: Evaluation, results: Mapping[str, Any]) -> str:
    tuning, macros = evaluation.tuning, _macros(_key(evaluation))
    folder = commands.checkpoint(evaluation.model) if tuning is None else commands.model_dir(tuning)
    saved = choosing.steps(folder) if (folder / "checkpoints").exists() else []
    step = saved[-1] if saved and macros["STEP"] is None else macros["STEP"]
    if step not in saved:  # the model is not there any more
        return ""
    weights = adapters.weights(folder, step, macros["PARAMETERS"])
    if weights is not None and results.get("weights") != weights:
        return f"is of other weights than those in {folder}"
    return ""


def check_starts(commands: Commands) -> None:
    """Makes sure that models were tuned from the ones that lie where they began.

    Raises:
      FlanError: another model lies there now. What was tuned would be compared with what it does not come from.
    """
    for tuning in commands.tunings:
        folder = commands.model_dir(tuning)
        start = commands.checkpoint(tuning.model) if tuning.start is None else commands.model_dir(tuning.start)
        if not (folder / "checkpoints").exists() or not (start / "manifest.json").exists():
            continue
        run = Run.load(folder)
        if run is not None and (other := _other_start(run.start, start)):
            raise FlanError(
                f"{folder} was tuned from another model than {start} is now ({other}): put that model back, or give "
                "another STUDY_DIR."
            )


def _other_start(begun: Mapping[str, Any], start: AnyPath) -> str:
    if begun.get("manifest") not in (None, Manifest.load(start).digest()):
        return "its manifest differs"
    step, weights = begun.get("step"), begun.get("weights")  # runs of earlier versions do not say their weights
    if weights is None or step not in choosing.steps(start):
        return ""
    return "" if adapters.weights(start, step) in (None, weights) else "its weights differ"


def _settings(evaluation: Evaluation) -> evaluator.Settings:
    """What an evaluation is to be asked with; its computation is chosen where it runs."""
    macros = _macros(_key(evaluation))
    given = {name: macros[name.upper()] for name in _ASKED if name != "ways"}
    ways = macros["WAYS"] or ()
    return evaluator.Settings(**given, ways=(ways,) if isinstance(ways, str) else tuple(ways), style=evaluation.style)


def _key(evaluation: Evaluation) -> str:
    return json.dumps(dict(evaluation.macros), sort_keys=True, default=str)


@functools.cache  # a plan asks for each of its evaluations
def _macros(key: str) -> dict[str, Any]:
    return configuration.set_in(EVALUATION) | json.loads(key)

"""Whether folders hold what a study's steps write: results of these very weights, wordings and limits.

That a file is there says little. Folders are copied over each other, models are replaced in their place, a model that
was lost is tuned again. So an evaluation counts as done only if its results say that they are the ones that are wanted.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from flan_jax import catalog, configuration, protocol, styles
from flan_jax.checkpoint import adapters, choosing
from flan_jax.checkpoint.manifest import TUNED, UNTUNED, Manifest
from flan_jax.data import examples as example_files
from flan_jax.data.line_tokens import LineTokenizer
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator, labels, prompt_store, provenance
from flan_jax.evaluation.figures import FILES
from flan_jax.files import AnyPath
from flan_jax.gin_files import EVALUATION, TRAINING
from flan_jax.models import automatic
from flan_jax.models.config import AUTO
from flan_jax.protocol import AUTO as AUTO_JOINT
from flan_jax.reporting import asked
from flan_jax.reporting import runs as finished
from flan_jax.studies import records, trained
from flan_jax.studies.commands import PREPARE, Commands, Step
from flan_jax.studies.plan import Evaluation, Tuning
from flan_jax.training.run import Run
from flan_jax.values import WEIGHTS, shown

_RESULTS = FILES["test"]
_LONGEST = 80  # of a name that is shown without quotes
_ASKED = ("max_examples", "max_dev_examples", "max_input_tokens", "max_new_tokens", "joint", "ways", "seed")


def problem(commands: Commands, step: Step) -> str:
    """Why the results in the folder of a step are not the ones that are wanted; empty if they are.

    Args:
      commands: of the study.
      step: one of its steps. Of a preparation, what is lost, damaged or not its own; of other jobs nothing.
    """
    evaluation = commands.evaluation_of(step)
    if evaluation is None:
        if step.job != PREPARE:
            return ""
        told = (
            f"is not as it was prepared ({folder} {why})" for folder, why in records.spoiled(commands, step).items()
        )
        return trained.without_tokens(commands, step.model) or next(told, "")
    if found := problem_of_evaluation(commands, evaluation):
        return found
    results = finished.load_run(evaluation.dataset, commands.output_of(evaluation)).results
    if "engines" not in results and not records.is_kept(commands.settings.folder, step):  # of an earlier version
        return f"does not say by which engines it was made, and {evaluator.ENGINES} are wanted"
    return ""


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
        or _problem_of_data(commands, evaluation, results)
        or _problem_of_model(commands, evaluation, results)
        or _problem_of_dtype(commands, evaluation, results)
    )


def _told(value: Any) -> str:
    """What a file says, for a line."""
    return value if isinstance(value, str) and value.isidentifier() and len(value) < _LONGEST else shown(value)


def _problem_of_settings(evaluation: Evaluation, results: Mapping[str, Any]) -> str:
    settings, wanted = results.get("settings", {}), _settings(evaluation)
    for name in _ASKED:
        own = getattr(wanted, name)
        own = list(own) if isinstance(own, tuple) else own
        if settings.get(name) != own:
            return f"was asked with {name} {_told(settings.get(name))}, and {own} is wanted"
    if (engines := results.get("engines", evaluator.ENGINES)) != evaluator.ENGINES:  # earlier versions do not say it
        return f"was made by {_told(engines)}, and {evaluator.ENGINES} are wanted"
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


def _problem_of_data(commands: Commands, evaluation: Evaluation, results: Mapping[str, Any]) -> str:
    """Whether the records are those that are prepared. While they are not prepared yet, nothing is known."""
    if not records.is_prepared(commands, evaluation.model):
        return ""
    place, macros = commands.prepared(evaluation.model), _macros(_key(evaluation))
    for one in results.get("skipped", ()):
        if one.get("prepared") is False and example_files.has(place, one["dataset"], example_files.TEST):
            return f"is without {one['dataset']}, which is prepared now"
    limits = {example_files.TEST: macros["MAX_EXAMPLES"], example_files.DEV: macros["MAX_DEV_EXAMPLES"]}
    for name, figures in results["datasets"].items():
        for split in (example_files.TEST, example_files.DEV, example_files.EXEMPLARS):
            if not (used := asked.records_of(figures, split)):
                continue  # earlier versions do not say it
            there = _data(place, name, split, limits.get(split), str(example_files.identity(place, name, split)))
            if there is not None and there["digest"] != used:
                return f"is of other {split} records of {name} than {place} has now"
    return ""


@functools.lru_cache(maxsize=1024)  # several evaluations are of the same records
def _data(prepared_dir: AnyPath, name: str, split: str, limit: int | None, identity: str) -> dict[str, Any] | None:
    """What `data` of results says of the records that are prepared; None where they cannot be read.

    Args:
      prepared_dir: PREPARED_DIR.
      name: of the dataset or variant.
      split: "dev", "test" or "exemplars".
      limit: how many records are read, the first ones.
      identity: of the whole split, which changes when it is prepared again.
    """
    if split == example_files.EXEMPLARS:
        return example_files.identity(prepared_dir, name, split)
    try:
        rows = example_files.read(prepared_dir, name, split, limit)
    except FlanError:
        return None
    return provenance.of_data({split: rows}).get(split)


def _problem_of_model(commands: Commands, evaluation: Evaluation, results: Mapping[str, Any]) -> str:
    tuning, macros = evaluation.tuning, _macros(_key(evaluation))
    folder = commands.checkpoint(evaluation.model) if tuning is None else commands.model_dir(tuning)
    if not results["checkpoint"].startswith(f"{folder.name} step "):
        return f"is of {results['checkpoint']}, and {folder.name} is wanted"
    status, wanted = results.get("tuning", {}).get("status"), UNTUNED if tuning is None else TUNED
    if status != wanted:
        return f"is of a model that is {status} by its record, and {wanted} is wanted"
    step, which = commands.step_of(evaluation), macros["PARAMETERS"]
    if not (saved := choosing.steps(folder)):  # the model is not there any more
        told = trained.weights_at_start(commands, evaluation) if which == WEIGHTS[0] else {}
        if other := next((place for place, weights in told.items() if results.get("weights") != weights), None):
            return f"is of other weights than those that {other} was tuned from"
        return ""
    step = saved[-1] if step is None else step
    told_step = f"{folder.name} step {step}" + ("" if which == WEIGHTS[0] else f" {which}")
    if results["checkpoint"] != told_step:
        return f"is of {results['checkpoint']}, and {told_step} is wanted"
    digest = adapters.weights(folder, step, which) if step in saved else None  # earlier versions saved no digests
    if digest is not None and results.get("weights") != digest:
        return f"is of other weights than those in {folder}"
    manifest = Manifest.load(folder)
    if results.get("model", manifest.model) != manifest.model:  # earlier versions do not say it
        return f"is of another MODEL than {folder} has by its manifest.json"
    # Not by model_digest, which has dates: a model that is converted again is the same.
    if any(results["tuning"].get(key) != manifest.tuning[key] for key in ("datasets", "clusters")):
        return f"is of a model that was tuned on something else than {folder} by its manifest.json"
    return ""


def _problem_of_dtype(commands: Commands, evaluation: Evaluation, results: Mapping[str, Any]) -> str:
    """Whether results were computed in the dtype that is asked for; with "auto" any is, and a study has one of them."""
    computation = results.get("settings", {}).get("computation", {})
    tuning = evaluation.tuning
    folder = commands.checkpoint(evaluation.model) if tuning is None else commands.model_dir(tuning)
    model = results.get("model")
    if model is None and (folder / "manifest.json").exists():  # earlier versions do not say it
        model = Manifest.load(folder).model
    own = str(model["dtype"]) if isinstance(model, Mapping) and "dtype" in model else None
    wanted = automatic.asked_dtype(own, _macros(_key(evaluation))["COMPUTATION"])
    found = automatic.asked_dtype(own, computation)
    if None in (wanted, found) or wanted in (AUTO, found):
        return ""
    return f"was computed in {found}, and {wanted} is wanted"


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


# ------------------------------------------------------------------------------------- evaluations during a training


def problem_during_training(commands: Commands, tuning: Tuning, results: Mapping[str, Any]) -> str:
    """Why the dev figures of a training's last step are not the ones that its macros ask for; empty if they are.

    Args:
      commands: of the study.
      tuning: one of its trainings, with EVAL_PERIOD and DATASETS.
      results: what dev.json holds, which is sound by itself.
    """
    macros = configuration.set_in(TRAINING) | dict(commands.resolved(tuning).macros)
    given = {"MAX_EXAMPLES": None, "MAX_INPUT_TOKENS": None, "JOINT": AUTO_JOINT, "WAYS": None, "SEEDS": (0,)}
    given |= {name: macros[name] for name in ("MAX_DEV_EXAMPLES", "MAX_NEW_TOKENS")} | {"PARAMETERS": WEIGHTS[0]}
    style = macros["STYLE"] if isinstance(macros["STYLE"], str) else macros["STYLE"][0]
    for name in macros["DATASETS"]:
        evaluation = Evaluation(tuning.model, tuning, name, style, given, labels.SEEN)
        own = {record.name for record in evaluator.select([name])}
        part = dict(results) | {
            "datasets": {dataset: one for dataset, one in results["datasets"].items() if dataset in own},
            **{key: [one for one in results.get(key, ()) if one["dataset"] in own] for key in ("skipped", "invalid")},
        }
        found = (
            _problem_of_settings(evaluation, part)
            or _problem_of_datasets(evaluation, part)
            or _problem_of_model(commands, evaluation, part)
            or _problem_of_dev_data(commands, evaluation, part)
        )
        if found:
            return found
    return _problem_of_run(commands, tuning, results)


def _problem_of_dev_data(commands: Commands, evaluation: Evaluation, results: Mapping[str, Any]) -> str:
    """Whether the dev records are those that are prepared. While they are not prepared yet, nothing is known."""
    if not records.is_prepared(commands, evaluation.model):
        return ""
    place, macros = commands.prepared(evaluation.model), _macros(_key(evaluation))
    asked, folder = (evaluation.style, macros["MAX_DEV_EXAMPLES"]), commands.checkpoint(evaluation.model)
    for name, figures in results["datasets"].items():
        was = (figures.get("data") or {}).get(example_files.DEV)  # earlier versions do not say it
        splits = (example_files.DEV, example_files.TEST)
        identity = " ".join(str(example_files.identity(place, name, split)) for split in splits)
        there = None if was is None else _dev_data(place, name, *asked, folder, identity)
        if there is not None and there["digest"] != was["digest"]:
            return f"is of other dev records of {name} than {place} has now"
    return ""


@functools.lru_cache(maxsize=1024)  # all recipes are of the same records
def _dev_data(
    prepared_dir: AnyPath, name: str, style: str, limit: int, model: AnyPath, identity: str
) -> dict[str, Any] | None:
    """What `data` of an evaluation during training says of the records that are prepared; None if they cannot be read.

    Args:
      prepared_dir: PREPARED_DIR.
      name: of the dataset or variant.
      style: in which it is asked.
      limit: how many dev records are read, the first ones that are no test records.
      model: what was tuned, for its vocabulary.
      identity: of both splits, which changes when they are prepared again.
    """
    try:
        tokenizer = LineTokenizer(Manifest.load(model).load_vocabulary(model))
        (record,) = [one for one in evaluator.select([name]) if one.name == name]
        asked = evaluator.Settings(style=style).protocol_of(record)
        found = prompt_store.read_dev(prepared_dir, asked, tokenizer, limit, 0)
    except (FlanError, ValueError):
        return None
    return provenance.of_data(dict(found.splits)).get(example_files.DEV)


def _problem_of_run(commands: Commands, tuning: Tuning, results: Mapping[str, Any]) -> str:
    """Whether joint and dtype are those of the training. Where its files are not there any more, nothing is known."""
    folder = commands.model_dir(tuning)
    if (run := Run.load(folder)) is None or not choosing.steps(folder):
        return ""
    manifest = Manifest.load(folder)
    dtype, wanted = dtype_of(results), run.program.computation["dtype"]
    if dtype not in (None, wanted):
        return f"was computed in {dtype}, and its training in {wanted}"
    style = styles.parse(results["settings"].get("style", styles.INSTRUCTIONS))
    each = [protocol.of(catalog.dataset(name), style) for name in results["datasets"] if catalog.exists(name)]
    own = [one for one in each if not one.record.written]  # as results say it, which have one for all
    joints = {one.joint(manifest.separator, bool(manifest.model.get("num_encoder_layers"))) for one in own}
    if joints and (joint := results.get("joint")) is not None and joint not in joints:
        return f"was asked with the joint {_told(joint)}, and {' or '.join(sorted(joints))} is wanted"
    return ""


def dtype_of(results: Mapping[str, Any]) -> str | None:
    """The dtype that results were computed in; None where they do not say it, which earlier versions did not."""
    chosen = (results.get("settings") or {}).get("computation") or {}
    return chosen.get("dtype") or (results.get("model") or {}).get("dtype")

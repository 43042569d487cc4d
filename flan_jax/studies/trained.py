"""Whether folders hold the trainings that a plan asks for, by the comparison that a start of the training makes.

A folder's name says what belongs into it. What lies there may have been copied from elsewhere, trained on, or tuned on
data that have changed since. Its run.json tells.
"""

from __future__ import annotations

import dataclasses

from flan_jax import configuration
from flan_jax.checkpoint import choosing, saved_digests, stored
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import mixture_stream, stream, token_store
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath
from flan_jax.gin_files import TRAINING
from flan_jax.models import DecoderConfig, automatic
from flan_jax.models.config import AUTO, COMPUTATION
from flan_jax.studies import passed_on, records
from flan_jax.studies.commands import Commands
from flan_jax.studies.keys import digest
from flan_jax.studies.plan import Evaluation, Tuning
from flan_jax.training import comparing, continuing, resolving, starting
from flan_jax.training.run import FILE, Program, Run

_REMEDY = "remove that folder to have its model tuned anew, or give another STUDY_DIR"


def check(commands: Commands) -> None:
    """Makes sure that the trainings of a study's folder are the ones that its plan asks for.

    What differs is refused and not tuned again, since that costs hours. Data are compared where they are prepared.

    Raises:
      FlanError: a training of other settings, of another start, of other data or of more steps; a manifest or a step of
        another training; or trainings of one model that do not go together.
    """
    opened: dict[str, mixture_stream.Prepared] = {}  # seeds have one mixture
    found: list[tuple[Tuning, Run]] = []
    for tuning in commands.tunings:
        folder = commands.model_dir(tuning)
        steps, wanted = choosing.steps(folder), int(tuning.macros["TRAIN_STEPS"])
        if problem := _problem_of_step(folder, wanted, steps):
            raise FlanError(f"step {wanted} of {folder} is damaged: {problem}; put its own back, or {_REMEDY}.")
        if not steps:
            continue
        if (run := _run(folder)) is None:
            raise FlanError(f"{folder} has no {FILE}, which says how it was trained: {_REMEDY}.")
        if steps[-1] > wanted:
            raise FlanError(
                f"{folder} was trained on to step {steps[-1]}, and TRAIN_STEPS is {wanted}: remove the steps above "
                f"{wanted} from its checkpoints, or give another STUDY_DIR."
            )
        own = _manifest(folder)
        if differences := comparing.differences(run, _wanted(commands, tuning, run, own, opened)):
            raise FlanError(
                f"{folder} holds another run than this study asks for: {continuing.listed(differences)}; {_REMEDY}."
            )
        if differences := continuing.unlike_manifest(own, run, folder):
            raise FlanError(
                f"{folder} has the manifest.json of another model: {continuing.listed(differences)}; put its own back, "
                f"or {_REMEDY}."
            )
        _check_step(folder, steps[-1], run)
        found.append((tuning, run))
    _check_together(commands, found)


def _problem_of_step(folder: AnyPath, step: int, steps: list[int]) -> str:
    """What is wrong with the last step of a training, as far as its metadata tell; empty if nothing is, or none is."""
    place = saved_digests.step_folder(folder, step)
    if step not in steps:
        return "it is no folder" if place.is_file() else ""
    if not any((place / item).is_dir() for item in stored.ITEMS):
        return "it is empty"
    return stored.unreadable(folder, step) or ""


def weights_at_start(commands: Commands, evaluation: Evaluation) -> dict[AnyPath, str]:
    """The weights of an evaluated model by the trainings that started from it: a digest by folder of a tuned model.

    Args:
      commands: of the study.
      evaluation: of the model. A training that took another step of it says nothing.
    """
    model, step = evaluation.tuning and commands.resolved(evaluation.tuning), commands.step_of(evaluation)
    found: dict[AnyPath, str] = {}
    for tuning in commands.tunings:
        folder, taken = commands.model_dir(tuning), tuning.macros.get("INITIAL_STEP")
        if tuning.model != evaluation.model or tuning.start != model or not choosing.steps(folder):
            continue
        if taken != step and not (taken is None and model is not None):
            continue
        if (run := _run(folder)) is not None and run.start.get("weights"):  # earlier versions do not say it
            found[folder] = run.start["weights"]
    return found


def without_tokens(commands: Commands, model: str) -> str:
    """Why what is prepared for a model has to be prepared again: tokens of a training that is there are gone.

    Empty if nothing is missing, or if DATA does not have it any more.
    """
    for tuning in commands.tunings:
        folder = commands.model_dir(tuning)
        if tuning.model != model or not choosing.steps(folder) or (run := _run(folder)) is None:
            continue
        if lost := _lost(commands, tuning, run, run.vocabulary["fingerprint"]):
            return f"has no tokens of {lost[0]}, which {folder} was tuned on"
    return ""


def _run(folder: AnyPath) -> Run | None:
    """The run in a folder, of a model that can be and of a vocabulary that is known; None if there is none.

    Raises:
      FlanError: it is broken.
    """
    remedy = f"restore it, or {_REMEDY}"
    if (run := Run.load(folder, remedy)) is None:
        return None
    try:
        _ = run.program.config, run.vocabulary["fingerprint"]
    except (KeyError, TypeError, ValueError) as error:  # a FlanError does not name the file
        raise FlanError(f"{folder / FILE} is broken ({str(error).rstrip('.')}); {remedy}.") from error
    return run


def _check_step(folder: AnyPath, step: int, run: Run) -> None:
    """Refuses a step that another training than that of its folder has saved, or that was put together from two."""
    try:
        saved_by = saved_digests.saved_by(folder, step)
    except FlanError as error:
        what = stored.without_remedy(error, folder)
        raise FlanError(f"step {step} of {folder} is damaged: {what}; put its own back, or {_REMEDY}.") from error
    if comparing.is_of_another(saved_by, run):
        raise FlanError(
            f"step {step} of {folder} was saved by another training ({saved_by}) than its {FILE} tells of: put its own "
            f"back, or {_REMEDY}."
        )


def _manifest(folder: AnyPath) -> Manifest:
    if not (folder / "manifest.json").exists():
        raise FlanError(f"{folder} has no manifest.json, which says what it was tuned on: {_REMEDY}.")
    return Manifest.load(folder)


def _start_of(commands: Commands, tuning: Tuning) -> AnyPath:
    return commands.checkpoint(tuning.model) if tuning.start is None else commands.model_dir(tuning.start)


def _lost(commands: Commands, tuning: Tuning, run: Run, fingerprint: str) -> list[str]:
    """The datasets that a training had, that DATA still has, and whose tokens are not in PREPARED_DIR."""
    had, place = {comparing.part_of(one) for one in run.datasets}, commands.prepared(tuning.model)
    there = {record.name for record in tuning.parts.datasets if commands.settings.has(record)}
    return [
        part.dataset
        for part in tuning.parts.parts
        if part.name in had
        and part.dataset in there
        and not (token_store.folder_of(place, fingerprint, part.text_style) / part.dataset / "info.json").exists()
    ]


def _check_together(commands: Commands, found: list[tuple[Tuning, Run]]) -> None:
    """Refuses trainings that started from different weights of one model, or took different dtypes by "auto"."""
    weights: dict[str, tuple[AnyPath, str]] = {}
    dtypes: dict[str, tuple[AnyPath, str]] = {}
    for tuning, run in found:
        folder, start = commands.model_dir(tuning), _start_of(commands, tuning)
        if own := run.start.get("weights"):  # earlier versions do not say it
            other, of_other = weights.setdefault(f"{start} {tuning.macros.get('INITIAL_STEP')}", (folder, own))
            if own != of_other:
                raise FlanError(
                    f"{other} and {folder} were tuned from different weights of {start} ({of_other[:12]} and "
                    f"{own[:12]}): remove one of them to have it tuned anew, or give another STUDY_DIR."
                )
        if automatic.asked(tuning.macros.get("COMPUTATION")).get("dtype") == AUTO:
            own = run.program.config.dtype
            other, of_other = dtypes.setdefault(tuning.model, (folder, own))
            if own != of_other:
                raise FlanError(
                    f"{other} was tuned in {of_other} and {folder} in {own}, as COMPUTATION 'auto' chose where each "
                    "ran: remove one of them to have it tuned anew on a machine like the other's, or give TRAIN a "
                    f"COMPUTATION with 'dtype': {own!r}."
                )


def _wanted(
    commands: Commands, tuning: Tuning, run: Run, own: Manifest, opened: dict[str, mixture_stream.Prepared]
) -> Run:
    """The run that a plan asks for.

    Only what may differ between two starts of a run is taken from the run that is there, and what cannot be known here:
    the model where it is gone, the data where they are not prepared.

    Args:
      commands: of the study.
      tuning: what is asked for.
      run: that is there.
      own: the manifest beside it, which has the dtype of the model that was tuned.
      opened: mixtures that were opened before, which this adds to.
    """
    macros = configuration.set_in(TRAINING) | dict(tuning.macros)
    start_of = _start_of(commands, tuning)
    taken = starting.Start(macros["INITIAL_STEP"], macros["INITIAL_OPTIMIZER_STATE"], macros["INITIAL_MAP"])
    model, vocabulary, start = run.program.model, run.vocabulary, run.start
    if choosing.steps(start_of):
        own = Manifest.load(start_of)
        model, vocabulary = own.model, dict(own.vocabulary)
        start = starting.of_checkpoint(str(start_of), taken, own)
    program = Program.of(
        # Only the shape: a kernel of the run that is there may not fit the dtype that is wanted.
        DecoderConfig.from_dict({name: value for name, value in model.items() if name not in COMPUTATION}),
        macros["BATCH_SIZE"],
        macros["TASK_FEATURE_LENGTHS"],
        macros["MICROBATCHES"],
        passed_on.optimizer(macros),
        passed_on.objective(macros),
    )
    dtype = automatic.asked_dtype(DecoderConfig.from_dict(own.model).dtype, macros["COMPUTATION"])
    computation = run.program.computation | ({} if dtype == AUTO else {"dtype": dtype})
    run = dataclasses.replace(
        run,
        mixture=tuning.parts.name,
        recipe=dict(tuning.parts.recipe),
        order=stream.ORDER,
        vocabulary=vocabulary,
        start=start,
        seed=tuning.seed,
        program=dataclasses.replace(program, computation=computation),
        train_steps=int(macros["TRAIN_STEPS"]),
    )
    fingerprint = vocabulary["fingerprint"]
    if not records.is_prepared(commands, tuning.model) or _lost(commands, tuning, run, fingerprint):
        return run  # nothing is known of the data until they are prepared again
    place, key = commands.prepared(tuning.model), digest([tuning.model, tuning.parts.value])
    if key not in opened:
        opened[key] = mixture_stream.composed(tuning.parts, place, fingerprint)
    prepared = opened[key]
    return dataclasses.replace(run, datasets=resolving.entries(prepared), absent=prepared.composition.absent)

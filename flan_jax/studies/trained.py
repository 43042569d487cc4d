"""Whether folders hold the trainings that a plan asks for, by the comparison that a start of the training makes.

A folder's name says what belongs into it. What lies there may have been copied from elsewhere, trained on, or tuned on
data that have changed since. Its run.json tells.
"""

from __future__ import annotations

import dataclasses

from flan_jax import configuration
from flan_jax.checkpoint import choosing
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import mixture_stream
from flan_jax.errors import FlanError
from flan_jax.gin_files import TRAINING
from flan_jax.models import DecoderConfig
from flan_jax.studies import passed_on, records
from flan_jax.studies.commands import Commands, digest
from flan_jax.studies.plan import Tuning
from flan_jax.training import comparing, continuing, resolving, starting
from flan_jax.training.run import Program, Run


def check(commands: Commands) -> None:
    """Makes sure that the trainings of a study's folder are the ones that its plan asks for.

    What differs is refused and not tuned again, since that costs hours. Data are compared where they are prepared.

    Raises:
      FlanError: a training of other settings, of another start, of other data or of more steps.
    """
    opened: dict[str, mixture_stream.Prepared] = {}  # seeds have one mixture
    for tuning in commands.tunings:
        folder = commands.model_dir(tuning)
        steps = choosing.steps(folder)
        if not steps:
            continue
        remedy = "remove it to have it tuned anew, or give another STUDY_DIR"
        if (run := Run.load(folder)) is None:
            raise FlanError(f"{folder} has no run.json, which says how it was trained: {remedy}.")
        if steps[-1] > (wanted := int(tuning.macros["TRAIN_STEPS"])):
            raise FlanError(
                f"{folder} was trained on to step {steps[-1]}, and TRAIN_STEPS is {wanted}: remove the steps above "
                f"{wanted} from its checkpoints, or give another STUDY_DIR."
            )
        if found := comparing.differences(run, _wanted(commands, tuning, run, opened)):
            raise FlanError(
                f"{folder} holds another run than this study asks for: {continuing.listed(found)}; {remedy}."
            )


def _wanted(commands: Commands, tuning: Tuning, run: Run, opened: dict[str, mixture_stream.Prepared]) -> Run:
    """The run that a plan asks for. What cannot be known here, such as the devices, is as in the run that is there."""
    macros = configuration.set_in(TRAINING) | dict(tuning.macros)
    start_of = commands.checkpoint(tuning.model) if tuning.start is None else commands.model_dir(tuning.start)
    taken = starting.Start(macros["INITIAL_STEP"], macros["INITIAL_OPTIMIZER_STATE"], macros["INITIAL_MAP"])
    model, vocabulary, start = run.program.model | run.program.computation, run.vocabulary, run.start
    if choosing.steps(start_of):
        manifest = Manifest.load(start_of)
        model, vocabulary = manifest.model | run.program.computation, dict(manifest.vocabulary)
        start = starting.of_checkpoint(str(start_of), taken, manifest)
    computation = macros["COMPUTATION"] if isinstance(macros["COMPUTATION"], dict) else {}
    program = Program.of(
        DecoderConfig.from_dict(model).computed(**computation),
        macros["BATCH_SIZE"],
        macros["TASK_FEATURE_LENGTHS"],
        macros["MICROBATCHES"],
        passed_on.optimizer(macros),
        passed_on.objective(macros),
    )
    run = dataclasses.replace(
        run,
        mixture=tuning.parts.name,
        recipe=dict(tuning.parts.recipe),
        vocabulary=vocabulary,
        start=start,
        seed=tuning.seed,
        program=program,
        train_steps=int(macros["TRAIN_STEPS"]),
    )
    if not records.is_prepared(commands, tuning.model):
        return run
    place, key = commands.prepared(tuning.model), digest([tuning.model, tuning.parts.value])
    if key not in opened:
        opened[key] = mixture_stream.composed(tuning.parts, place, vocabulary["fingerprint"])
    prepared = opened[key]
    return dataclasses.replace(run, datasets=resolving.entries(prepared), absent=prepared.composition.absent)

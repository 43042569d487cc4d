"""One table of every gin macro and every argument behind one: what it may be and what it is for.

`flan_jax.macro_checks` checks values by this table, and docs/configuration.md is generated from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from flan_jax import catalog, parts, styles, ways
from flan_jax.lazy import lazy_imports
from flan_jax.macro_kinds import Axis, Best, Hooks, Macros, OneMixture, PathMap, Patterns, Points, Steps, WandbRun
from flan_jax.models.config import AUTO, AUTOMATIC, CHOICES, COMPUTATION, DecoderConfig
from flan_jax.parts import kinds
from flan_jax.protocol import JOINTS
from flan_jax.values import (
    LOSS_AVERAGES,
    MESH_AXES,
    OUR_DATA,
    OUR_VOCABULARIES,
    SEEDS,
    TOKENS,
    WEIGHTS,
    ByName,
    Either,
    Keyed,
    Kind,
    Made,
    Named,
    Nothing,
    Number,
    OneOf,
    Several,
    Switch,
    Text,
    Where,
    Whole,
    or_none,
)

with lazy_imports():  # the command line needs this table without JAX
    import optax

STEPS = ("all", "follow")  # words that STEP takes besides numbers
_MOST_AT_ONCE = 2**20  # rows of a batch, or slots of a row; a larger number is a typing error
_DATASET = Named(catalog.named, "the name of a dataset or a cluster")
_CLUSTER = Named(catalog.cluster, "the name of a cluster")
_STYLE = Named(styles.parse, "a style, such as 'instructions', 'gpt3' or '5_shots'")
_COMPUTED = {"attention_block": Whole(1, _MOST_AT_ONCE), "head_chunk": Whole(1, _MOST_AT_ONCE), "unroll": Switch()}
_SIZE = Whole(1, _MOST_AT_ONCE)


def _computed(name: str) -> Kind:
    """The kind of a field of `COMPUTATION`."""
    kind = _COMPUTED.get(name)
    if name not in AUTOMATIC:
        return kind or OneOf(CHOICES[name])
    return Either((kind, OneOf((AUTO,)))) if kind else OneOf((*CHOICES[name], AUTO))


_HOOKS = Hooks()
_OPTIMIZER = Made(lambda: (optax.GradientTransformation, Callable), "an optimizer, as @adafactor() makes it")
_OPTIMIZERS = ("adafactor", "adamw", "lion", "sgd", "factory")  # functions that share some arguments
_SHARE = Number(least=0, most=1)
_MOST_KEPT = 0.999999  # of EMA_DECAY; above it, float32 rounds to 1, and the mean would never change
_DECAY = Number(least=0, most=_MOST_KEPT)
_DTYPE = OneOf(CHOICES["dtype"])


def each(argument: str, functions: tuple[str, ...] = _OPTIMIZERS) -> tuple[str, ...]:
    """An argument of several functions, by default of all optimizers, as "function.argument"."""
    return tuple(f"{function}.{argument}" for function in functions)


_MIXTURE = Either((OneMixture(), Made(lambda: (parts.Mixture,), "one that @mixture() makes")))


@dataclasses.dataclass(frozen=True)
class Setting:
    """A row of the table.

    Attributes:
      macro: the macro's name in gin; empty for an argument without a macro.
      kind: what values it takes.
      meaning: what it is for, in one line.
      arguments: the arguments that the macro is bound to, as "function.argument".
    """

    macro: str
    kind: Kind
    meaning: str
    arguments: tuple[str, ...]


SETTINGS = (
    Setting("MODEL_DIR", Where(), "where a run keeps its checkpoints, metrics and manifest", ("train.model_dir",)),
    Setting(
        "PREPARED_DIR",
        Where(),
        "the folder that prepare wrote",
        ("train.prepared_dir", "evaluate.prepared_dir", "evaluating.prepared_dir"),
    ),
    Setting("MIXTURE_OR_TASK_NAME", _MIXTURE, "what is tuned on", ("train.mixture", "mixture.mixture")),
    Setting(
        "TASKS",
        or_none(Several(Text()), "the catalog alone"),
        "the user's own modules with more datasets",
        ("tasks.modules", "study.tasks"),
    ),
    Setting(
        "STYLES",
        kinds.STYLES,
        "styles of the mixture with their weights, which divide every dataset's draws",
        ("mixture.styles",),
    ),
    Setting(
        "WEIGHTS",
        kinds.WEIGHTS,
        "factors on the rates of clusters, datasets and parts; 0 leaves one out",
        ("mixture.weights",),
    ),
    Setting(
        "RATES",
        kinds.RATES,
        "most examples of a dataset that count for its rate, and the temperature of rates",
        ("mixture.rates",),
    ),
    Setting(
        "LOSS_WEIGHTS",
        kinds.LOSS_WEIGHTS,
        "factors on the loss of clusters, datasets and parts",
        ("mixture.loss_weights",),
    ),
    Setting(
        "JOINTS",
        kinds.JOINTS,
        "what stands between input and target in tuning, for all or by name",
        ("mixture.joints",),
    ),
    Setting(
        "INITIAL_CHECKPOINT_PATH",
        or_none(Where(), "start from random parameters"),
        "the checkpoint folder to start from",
        ("train.initial_checkpoint_path",),
    ),
    Setting(
        "INITIAL_STEP", or_none(Whole(0), "the last"), "the step of that checkpoint folder", ("train.initial_step",)
    ),
    Setting(
        "INITIAL_OPTIMIZER_STATE",
        Switch(),
        "whether to take the optimizer's state from there too",
        ("train.initial_optimizer_state",),
    ),
    Setting(
        "INITIAL_MAP",
        or_none(PathMap(), "the model there"),
        "where MODEL's parameters are in that checkpoint",
        ("train.initial_map",),
    ),
    Setting(
        "TASK_FEATURE_LENGTHS",
        or_none(Keyed({"inputs": TOKENS, "targets": TOKENS}), "the paper's"),
        "tokens of an input and of a target",
        ("train.feature_lengths",),
    ),
    Setting("TRAIN_STEPS", Whole(1), "steps in all, those of earlier starts included", ("train.train_steps",)),
    Setting("BATCH_SIZE", _SIZE, "rows of a step", ("train.batch_size",)),
    Setting("MICROBATCHES", _SIZE, "number of parts in which the rows of a step are computed", ("train.microbatches",)),
    Setting(
        "LOSS_AVERAGING",
        OneOf(LOSS_AVERAGES),
        "weight of a target: 1, or 1 / number of its example's targets",
        ("train.loss_averaging",),
    ),
    Setting("LOSS_ON_INPUTS", Switch(), "whether a decoder's inputs have a loss too", ("train.loss_on_inputs",)),
    Setting("Z_LOSS", Number(least=0, most=1), "coefficient of log(Z)^2 in the loss; T5X has 1e-4", ("train.z_loss",)),
    Setting(
        "LABEL_SMOOTHING",
        Number(least=0, below=1),
        "probability that a target gives to all other ids",
        ("train.label_smoothing",),
    ),
    Setting("DROPOUT_RATE", Number(least=0, below=1), "rate of dropout in training", ("train.dropout_rate",)),
    Setting("OPTIMIZER", Either((Text(), _OPTIMIZER)), "the optimizer, by name", ("optimizer.name",)),
    Setting("LEARNING_RATE", Number(above=0, most=1000), "the highest learning rate", each("learning_rate")),
    Setting("WARMUP_STEPS", Whole(0), "steps until the learning rate is reached", each("warmup_steps")),
    Setting("SCHEDULE", Text(), "schedule of the learning rate after the warm-up", each("schedule")),
    Setting("", or_none(Whole(1), "unknown"), "steps of the whole run, for the schedule", each("steps")),
    Setting(
        "WEIGHT_DECAY",
        Number(least=0, most=1000),
        "decoupled weight decay, multiplied by the learning rate",
        each("weight_decay"),
    ),
    Setting("NO_DECAY", Patterns(), "patterns of parameters that do not decay", each("no_decay")),
    Setting(
        "CLIP_NORM",
        or_none(Number(above=0, most=10**9), "no limit"),
        "largest global norm of a gradient",
        ("train.clip_norm",),
    ),
    Setting("FROZEN", Patterns(), "patterns of parameters that are not trained", ("train.frozen",)),
    Setting(
        "EMA_DECAY",
        or_none(Number(above=0, most=_MOST_KEPT), "no mean"),
        "decay of the mean of parameters over steps",
        ("train.ema_decay",),
    ),
    Setting(
        "LORA",
        or_none(Keyed({"rank": Whole(1, _MOST_AT_ONCE), "alpha": Number(above=0, most=10**6), "targets": Patterns()})),
        "adapters that are trained in place of the parameters",
        ("train.lora",),
    ),
    Setting(
        "PROMPT_LENGTH",
        or_none(Whole(1, 2**16), "no soft prompt"),
        "slots of a soft prompt that is trained in place of the parameters",
        ("train.prompt_length",),
    ),
    Setting(
        "RANDOM_SEED", Whole(0, SEEDS), "seed of the first parameters and the order of rows", ("train.random_seed",)
    ),
    Setting("CHECKPOINT_PERIOD", Whole(1), "steps between checkpoints", ("train.checkpoint_period",)),
    Setting("KEEP_CHECKPOINTS", Whole(1), "how many of the last checkpoints stay", ("train.keep_checkpoints",)),
    Setting(
        "KEEP_EVERY",
        or_none(Whole(1), "none for good"),
        "checkpoints at multiples of so many steps stay for good",
        ("train.keep_every",),
    ),
    Setting(
        "KEEP_BEST",
        or_none(Best(), "none for a figure"),
        "how many checkpoints with the best figure stay",
        ("train.keep_best",),
    ),
    Setting(
        "ON_NAN",
        Either((OneOf(("stop",)), Whole(1))),
        "if a step is not finite: stop, or how many batches of the run may be skipped",
        ("train.on_nan",),
    ),
    Setting(
        "GRACE_SECONDS",
        Number(least=0, most=86400),
        "most seconds from SIGTERM to the end of the program, which saves meanwhile",
        ("train.grace_seconds",),
    ),
    Setting(
        "NO_STEP_SECONDS",
        or_none(Number(least=1, most=10**7), "wait forever"),
        "a run that waits longer for a step is ended, and the stacks of its threads are written",
        ("train.no_step_seconds",),
    ),
    Setting("HOOKS", _HOOKS, "what else happens at a step", ("train.hooks",)),
    Setting(
        "PROFILE",
        or_none(Steps(), "none"),
        "first and last step of a profile in MODEL_DIR/profile",
        ("train.profile",),
    ),
    Setting(
        "LOSS_SPIKE",
        or_none(Number(above=0, most=10**6), "none"),
        "a step so many deviations above the median loss is written to MODEL_DIR/spikes.jsonl",
        ("train.loss_spike",),
    ),
    Setting(
        "WANDB",
        or_none(WandbRun(), "not there"),
        "project of Weights & Biases that gets the run's figures too",
        ("train.wandb",),
    ),
    Setting(
        "ON_DAMAGE",
        OneOf(("stop", "previous")),
        "if the newest checkpoint is damaged: stop, or go on from the one before",
        ("train.on_damage",),
    ),
    Setting(
        "EVAL_PERIOD",
        or_none(Whole(1), "no evaluation"),
        "steps between evaluations during training",
        ("evaluating.period",),
    ),
    Setting("LOG_PERIOD", Whole(1), "steps between printed lines", ("train.log_period",)),
    Setting(
        "MESH",
        or_none(Keyed(dict.fromkeys(MESH_AXES, Axis())), "all on data"),
        "how many devices each axis has",
        ("train.mesh_shape", "evaluate.mesh_shape"),
    ),
    Setting(
        "TOPOLOGY",
        or_none(Text(), "what --topology says"),
        "the TPU slice that MESH is for, which precompile plans for",
        ("precompile.topology",),
    ),
    Setting(
        "COMPUTATION",
        or_none(Either((OneOf((AUTO,)), Keyed({name: _computed(name) for name in COMPUTATION}))), "its own way"),
        "how the model is computed, if not in its own way; 'auto' chooses for the devices",
        ("train.computation", "evaluate.computation", "evaluating.computation"),
    ),
    Setting("MODEL", Text(), "a file of gin/models, if there is no checkpoint to start from", ("model_config.name",)),
    Setting(
        "VOCABULARY",
        or_none(Where(OUR_VOCABULARIES)),
        "'bytes', or a vocabulary's file or folder",
        ("train.vocabulary",),
    ),
    Setting(
        "",
        or_none(Made(lambda: (DecoderConfig,), "a DecoderConfig, as @model_config() makes it")),
        "the model's shape",
        ("train.model",),
    ),
    Setting("", or_none(_OPTIMIZER), "the optimizer", ("train.optimizer",)),
    Setting("", Switch(), "whether to scale updates by the size of their parameter", ("adafactor.parameter_scale",)),
    Setting("", Switch(), "whether to keep mean squares of rows and columns only", ("adafactor.factored",)),
    Setting("", _SHARE, "exponent of the decay of mean squares", ("adafactor.decay_rate",)),
    Setting("", Whole(0), "steps that the decay of mean squares does not count", ("adafactor.step_offset",)),
    Setting(
        "",
        or_none(Number(above=0, most=10**9), "no limit"),
        "largest root mean square of an update",
        ("adafactor.clipping_threshold",),
    ),
    Setting(
        "",
        or_none(_DECAY, "none"),
        "decay of the mean of updates",
        each("momentum", ("adafactor", "sgd")),
    ),
    Setting("", _DTYPE, "dtype of the momentum", each("momentum_dtype", ("adafactor", "adamw", "lion"))),
    Setting(
        "",
        or_none(_SHARE, "none"),
        "T5X's weight decay, not multiplied by the learning rate",
        ("adafactor.weight_decay_rate",),
    ),
    Setting("", Whole(1), "matrices with a smaller dimension are not factored", ("adafactor.min_dim_size_to_factor",)),
    Setting("", Number(above=0, most=1000), "least size of a parameter in its scale", ("adafactor.least_scale",)),
    Setting("", _DECAY, "decay of the mean of gradients", each("b1", ("adamw", "lion"))),
    Setting("", _DECAY, "decay of the second mean", each("b2", ("adamw", "lion"))),
    Setting("", Number(above=0, most=1), "added to the root of the mean square", ("adamw.eps",)),
    Setting("", Switch(), "whether to use Nesterov's momentum", each("nesterov", ("adamw", "sgd"))),
    Setting("", Text(), "'module:function' that makes an optimizer", ("factory.name",)),
    Setting(
        "CHECKPOINT_PATH",
        Either((ByName(_CLUSTER, Where()), Several(Where()))),
        "the checkpoint that is evaluated",
        ("evaluate.checkpoint_path",),
    ),
    Setting(
        "STEP",
        Either((Whole(0), OneOf(STEPS), Nothing("the last"))),
        "the checkpoint's step",
        ("evaluate.step",),
    ),
    Setting("PARAMETERS", OneOf(WEIGHTS), "the last parameters, or their mean over steps", ("evaluate.parameters",)),
    Setting("EVAL_OUTPUT_DIR", Where(), "where predictions, results and report go", ("evaluate.output_dir",)),
    Setting(
        "DATASETS",
        or_none(Several(_DATASET), "all that are held out"),
        "the datasets to evaluate on",
        ("evaluate.datasets", "evaluating.datasets", "study.datasets"),
    ),
    Setting(
        "RUN_NAME",
        or_none(Text(), "by the manifest: untuned, tuned or model"),
        "the run's name in the report",
        ("evaluate.run_name",),
    ),
    Setting("BASELINE_DIR", or_none(Where(), "show none"), "an earlier evaluation to show", ("evaluate.baseline_dir",)),
    Setting("BASELINE_NAME", Text(), "the name of that evaluation", ("evaluate.baseline_name",)),
    Setting(
        "MAX_EXAMPLES",
        or_none(Whole(1), "all"),
        "test examples of each dataset",
        ("evaluate.max_examples",),
    ),
    Setting(
        "MAX_DEV_EXAMPLES",
        Whole(0),
        "dev examples of each dataset",
        ("evaluate.max_dev_examples", "evaluating.max_dev_examples"),
    ),
    Setting(
        "MAX_NEW_TOKENS",
        or_none(_SIZE, "the dataset's own"),
        "longest generated answer, in tokens",
        ("evaluate.max_new_tokens", "evaluating.max_new_tokens"),
    ),
    Setting("STYLE", Several(_STYLE), "how records become prompts", ("evaluate.style", "evaluating.style")),
    Setting(
        "SEEDS", Several(Whole(0, SEEDS)), "seeds of exemplars and shuffled options; each is a run", ("evaluate.seeds",)
    ),
    Setting(
        "WAYS",
        or_none(Several(OneOf(tuple(way.name for way in ways.ALL))), "those that cost nothing more"),
        "further ways to score options",
        ("evaluate.ways",),
    ),
    Setting(
        "GENERATE",
        Switch(),
        "whether to evaluate datasets without options too, by generated text",
        ("evaluate.generate", "evaluating.generate"),
    ),
    Setting(
        "CONTAMINATION",
        or_none(Where(), "no scores on clean examples"),
        "the file that contamination wrote",
        ("evaluate.contamination",),
    ),
    Setting(
        "MAX_INPUT_TOKENS",
        or_none(TOKENS, "the protocol's, 1,024"),
        "longest prompt with its exemplars, in tokens",
        ("evaluate.max_input_tokens",),
    ),
    Setting("JOINT", OneOf(JOINTS), "what stands between prompt and answer", ("evaluate.joint",)),
    Setting("", Switch(), "whether to score datasets that are not held out too", ("evaluate.allow_seen",)),
    Setting("STUDY", Text(), "name of the study", ("study.name",)),
    Setting("STUDY_DIR", Where(), "folder for all that studies of the same data make", ("study.study_dir",)),
    Setting("DATA", Where(OUR_DATA), "the data to prepare: samples, tfds, or a folder", ("study.data",)),
    Setting("MODELS", Several(Text()), "packaged models by name, or checkpoint folders", ("study.models",)),
    Setting("CLUSTERS", Several(_CLUSTER), "clusters that the study holds out and evaluates", ("study.clusters",)),
    Setting("BASELINES", Several(_STYLE), "styles of the prompts for the untuned model", ("study.baselines",)),
    Setting("TUNING_SEEDS", Several(Whole(0, SEEDS)), "seeds of tuning; each gives a tuned model", ("study.seeds",)),
    Setting("POINTS", or_none(Points(), "the study's own"), "what the study varies", ("study.points",)),
    Setting("MAX_POINTS", or_none(Whole(1), "all of them"), "how many of its points it keeps", ("study.max_points",)),
    Setting(
        "TRAIN",
        or_none(Macros(), "the budget's"),
        "macros of a run file for every tuned model, in place of the budget's",
        ("study.train",),
    ),
    Setting(
        "BUDGET_TRAIN",
        Macros(),
        "macros of a run file for every tuned model, from a file of studies/budgets",
        ("study.budget",),
    ),
    Setting(
        "RECIPE",
        or_none(Where(), "the budget's macros alone"),
        "the recipe.json of a recipe study; its macros override the budget's, and TRAIN overrides them",
        ("study.recipe",),
    ),
    Setting(
        "JUDGED_BY",
        or_none(Several(_DATASET), "the study's own"),
        "datasets and clusters whose dev data choose a recipe",
        ("study.judged_by",),
    ),
    Setting("EVAL", Macros(), "macros of eval.gin for every evaluation", ("study.evaluate",)),
)
BY_MACRO = {setting.macro: setting for setting in SETTINGS if setting.macro}
BY_ARGUMENT = {argument: setting for setting in SETTINGS for argument in setting.arguments}
FUNCTIONS = tuple(dict.fromkeys(argument.partition(".")[0] for argument in BY_ARGUMENT))

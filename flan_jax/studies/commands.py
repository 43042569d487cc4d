"""The steps of a study: the commands that make its models and evaluations, each with a folder of its own.

A folder's name ends in a digest of all that makes its content what it is, so that another recipe never meets the
results of the last one, and studies that need the same model share it. The wording of templates is part of that: what
was tuned or asked in an earlier wording is not done.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax import catalog, gin_files, protocol, styles
from flan_jax.checkpoint import choosing
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data import vocabularies
from flan_jax.data.mixture_stream import LENGTHS
from flan_jax.data.stream import ROWS_PER_BATCH
from flan_jax.decoding import generator
from flan_jax.errors import FlanError
from flan_jax.evaluation import labels
from flan_jax.files import AnyPath, user_path
from flan_jax.formats import names
from flan_jax.models.config import DecoderConfig
from flan_jax.scoring import scorer
from flan_jax.studies import passed_on, stamps
from flan_jax.studies.keys import digest, model_key
from flan_jax.studies.plan import Arm, Evaluation, Tuning, check, resolved
from flan_jax.studies.settings import READY, Settings, known_model
from flan_jax.values import WEIGHTS

CONVERT, PREPARE, TRAIN, EVAL = JOBS = ("convert", "prepare", "train", "eval")
NO_TUNING = "untuned"  # in names of folders and runs
_LONGEST = 40  # of a step's name: launchers take no longer ones


@dataclasses.dataclass(frozen=True)
class Step:
    """A command of a plan.

    Attributes:
      name: of lower-case letters, digits and hyphens, with a digest.
      job: "convert", "prepare", "train" or "eval".
      argv: the arguments of Python.
      output: the folder that it writes.
      done: the file in it that is there when it is done; relative.
      after: names of steps that have to be done before.
      slots: slots of rows that a training computes; 0 for the others.
      head_slots: those of them that may hold targets.
      model: whose speed its time depends on.
      wordings: of a preparation, a digest of how each dataset becomes text, by "dataset style".
      reads: of a preparation, what it reads as it is now; see `stamps.of`.
    """

    name: str
    job: str
    argv: tuple[str, ...]
    output: str
    done: str
    after: tuple[str, ...] = ()
    slots: int = 0
    head_slots: int = 0
    model: str = ""
    wordings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reads: stamps.Stamp = dataclasses.field(default_factory=dict)


class Commands:
    """The steps of a study's arms, in an order in which nothing comes before what it needs."""

    def __init__(self, settings: Settings, arms: Sequence[Arm], more: Sequence[Tuning] = ()) -> None:
        """Plans.

        Args:
          settings: of the study.
          arms: what is compared.
          more: models that are tuned and not evaluated by themselves.

        Raises:
          FlanError: a model that there is not, or an arm that mixes seen and held out.
        """
        self.settings = settings
        self.arms = arms = tuple(dataclasses.replace(a, tunings=tuple(map(self.resolved, a.tunings))) for a in arms)
        more = tuple(map(self.resolved, more))
        check(arms)
        for model in dict.fromkeys([*(arm.model for arm in arms), *(one.model for one in more)]):
            known_model(model)
        for arm in arms:
            self._check_model(arm)
        self._steps: dict[str, Step] = {}
        self._evaluation_of: dict[str, Evaluation] = {}
        every = [*more, *(tuning for arm in arms for tuning in arm.tunings)]
        self._tunings = [one for tuning in every for one in tuning.stages]
        self._evaluations = [(arm, one) for arm in arms for one in arm.evaluations(settings)]
        for macros in _differing(tuning.macros for tuning in self._tunings):
            passed_on.check_training(macros)
        for macros in _differing(one.macros for _, one in self._evaluations):
            passed_on.check_evaluation(macros)
        for _, evaluation in self._evaluations:
            self._check_evaluation(evaluation)
        for tuning in self._tunings:
            self._check_tuning(tuning)
        for model in dict.fromkeys([*(one.model for one in self._tunings), *(arm.model for arm in arms)]):
            self._prepare(model)
        for tuning in self._tunings:
            self._train(tuning)
        for _, evaluation in self._evaluations:
            self._evaluate(evaluation)

    def _check_model(self, arm: Arm) -> None:
        """Refuses a model that was tuned before the study began: its scores would stand as those of an untuned one."""
        if arm.model == names.SMOLLM:
            raise FlanError(f"{arm.name}: nobody knows what {arm.model} was tuned on: leave it out of MODELS.")
        place = self.checkpoint(arm.model)
        anew = f"remove {place} to have it made anew" if arm.model in READY else "restore it, or give another of MODELS"
        if arm.model in READY and not (place / "manifest.json").exists():
            if choosing.steps(place):
                raise FlanError(f"{place} has checkpoints and no manifest.json: put its own back, or {anew}.")
            return
        manifest = Manifest.load(place)
        try:
            DecoderConfig.from_dict(manifest.model)
            vocabularies.check(place / "vocabulary")
        except FlanError as error:
            raise FlanError(f"{place} is damaged ({str(error).rstrip('.')}): {anew}.") from error
        if (status := manifest.tuning["status"]) != UNTUNED:
            raise FlanError(
                f"{arm.name}: {place} is {status} by its manifest.json, and its scores would stand here as those of an "
                "untuned model: give one that was never tuned."
            )

    def _check_tuning(self, tuning: Tuning) -> None:
        """Refuses a training that would have nothing to tune on, which would be known only when it begins."""
        if not any(self.settings.has(record) for record in tuning.parts.datasets):
            raise FlanError(
                f"DATA {self.settings.data} has nothing of mixture {tuning.parts.title}: add some of its datasets, or "
                "leave out what is tuned on it."
            )

    def _check_evaluation(self, evaluation: Evaluation) -> None:
        """Refuses an evaluation that would have no result, which would be known only after the trainings."""
        macros, name = evaluation.macros, evaluation.dataset
        there = [record for record in catalog.named(name) if self.settings.has(record)]
        if not there:
            raise FlanError(
                f"DATA {self.settings.data} has nothing of {name}: add it, or leave it out of CLUSTERS and DATASETS."
            )
        if not macros.get("GENERATE", True) and not any(protocol.of(record, styles.PAPER).ranked for record in there):
            raise FlanError(f"EVAL has GENERATE=False, and {name} has no options to rank: leave one of the two out.")
        if macros.get("PARAMETERS") == WEIGHTS[1] and evaluation.tuning.macros.get("EMA_DECAY") is None:
            raise FlanError(f"EVAL has PARAMETERS={WEIGHTS[1]!r}, and TRAIN no EMA_DECAY: set it, or leave that out.")

    @property
    def steps(self) -> list[Step]:
        """In order."""
        return list(self._steps.values())

    @property
    def tunings(self) -> list[Tuning]:
        """All that is tuned, with the study's TRAIN in it; what others start from first."""
        return list(self._tunings)

    def evaluation_of(self, step: Step) -> Evaluation | None:
        """The evaluation that a step runs; None of another job."""
        return self._evaluation_of.get(step.name)

    def step_of(self, evaluation: Evaluation) -> int | None:
        """The step of the model that is evaluated: the last of its tuning, or the one that tuning starts from.

        None is the last that a model has.
        """
        if evaluation.tuning is not None:
            return int(self.resolved(evaluation.tuning).macros["TRAIN_STEPS"])
        return self.settings.train.get("INITIAL_STEP")

    def output_of(self, evaluation: Evaluation) -> AnyPath:
        """The folder of an evaluation's results."""
        return self.settings.folder / "evals" / self._evaluation_name(evaluation)

    def model_dir(self, tuning: Tuning) -> AnyPath:
        """The folder of a tuned model."""
        return self.settings.folder / "tuned" / self._tuning_name(self.resolved(tuning))

    def checkpoint(self, model: str) -> AnyPath:
        """The folder of a model that is not tuned here."""
        return self.settings.folder / "models" / model if model in READY else user_path(model, "MODELS")

    def resolved(self, tuning: Tuning) -> Tuning:
        """A tuning with the study's TRAIN in it."""
        return resolved(tuning, self.settings.train)

    def prepared(self, model: str) -> AnyPath:
        """The folder of a model's tokens and examples, PREPARED_DIR."""
        return self.settings.folder / "prepared" / self._model_key(model)

    # ------------------------------------------------------------------------------------------------------- names

    def _model_key(self, model: str) -> str:
        return model if model in READY else model_key(user_path(model, "MODELS"))

    def _tuning_key(self, tuning: Tuning) -> dict[str, Any]:
        return {
            "model": self._model_key(tuning.model),
            "mixture": tuning.parts.value,
            "seed": tuning.seed,
            "macros": dict(tuning.macros),
            "start": self._tuning_key(tuning.start) if tuning.start else None,
            "text": [text_digest(r, one) for r in tuning.parts.datasets for one in tuning.parts.styles_of(r.name)],
        }

    def _tuning_name(self, tuning: Tuning) -> str:
        return _name([tuning.parts.name, f"seed_{tuning.seed}"], self._tuning_key(tuning))

    def _evaluation_name(self, evaluation: Evaluation) -> str:
        tuning = self.resolved(evaluation.tuning) if evaluation.tuning else None
        tuned = self._tuning_key(tuning) if tuning else self._model_key(evaluation.model)
        head = tuning.parts.name if tuning else NO_TUNING
        seed = [f"seed_{evaluation.tuning.seed}"] if evaluation.tuning else []
        key = [tuned, evaluation.dataset, evaluation.style, dict(evaluation.macros)]
        return _name([head, *seed, evaluation.dataset.replace("/", "_"), evaluation.style], key)

    # ------------------------------------------------------------------------------------------------------- steps

    def _add(
        self,
        words: Sequence[str],
        job: str,
        argv: Sequence[str],
        output: AnyPath,
        done: str,
        text: Sequence[Any] = (),
        **more: Any,
    ) -> str:
        """Adds a step and returns its name. `text` tells how its records become text, which arguments do not say."""
        tasks = [f"--tasks={one}" for one in self.settings.tasks if job != CONVERT]  # which reads no data
        argv = ("-m", f"flan_jax.{job}", *argv, *tasks)
        head, _, end = _name(words, [*map(self._told, argv), *text]).rpartition("-")
        plain = unicodedata.normalize("NFKD", head.lower())  # "ö" as "o" and two dots
        plain = re.sub("[^a-z0-9-]", "-", "".join(sign for sign in plain if not unicodedata.combining(sign)))
        name = f"{plain[: _LONGEST - len(end) - 1].strip('-')}-{end}"
        self._steps.setdefault(name, Step(name, job, argv, str(output), done, **more))
        return name

    def _told(self, argument: str) -> str:
        """An argument without the place of this study, which may be moved."""
        return argument.replace(str(self.settings.folder), "")

    def _convert(self, model: str) -> tuple[str, ...]:
        if model not in READY:
            return ()
        to = self.checkpoint(model)
        argv = (f"--from={model}", f"--to={to}")
        argv += () if model == names.SMOLLM else ("--tuning=untuned",)  # of an instruct model nobody can say so
        argv += ("--tuning=unknown",) if model == names.SMOLLM else ()
        return (self._add([CONVERT, self._model_key(model)], CONVERT, argv, to, "manifest.json", model=model),)

    def _prepare(self, model: str) -> None:
        tunings = [one for one in self._tunings if one.model == model]
        wanted = [record.name for one in tunings for record in one.parts.datasets]
        asked = [evaluation for _, evaluation in self._evaluations if evaluation.model == model]
        wanted += [catalog.whole(record.name) for one in asked for record in catalog.named(one.dataset)]
        order = {record.name: number for number, record in enumerate(catalog.datasets())}
        chosen = sorted(set(wanted), key=lambda name: order[name])
        shown = [style.name for one in tunings for style in one.parts.styles] or [styles.INSTRUCTIONS]
        to = self.prepared(model)
        argv = (
            f"--data={self.settings.data}",
            f"--datasets={','.join(chosen)}",
            f"--style={','.join(dict.fromkeys(shown))}",
            f"--vocabulary={self.checkpoint(model)}/vocabulary",
            f"--to={to}",
        )
        text = {
            f"{name} {one}": text_digest(catalog.dataset(name), styles.parse(one))
            for name in chosen
            for one in dict.fromkeys(shown)
        }
        words, after = [PREPARE, self._model_key(model)], self._convert(model)
        reads = stamps.of(self.settings.data, chosen)
        asked_of = list(text.values())
        self._add(words, PREPARE, argv, to, "", asked_of, after=after, model=model, wordings=text, reads=reads)

    def _after(self, model: str) -> tuple[str, ...]:
        return tuple(s.name for s in self.steps if s.job == PREPARE and s.output == str(self.prepared(model)))

    def _train(self, tuning: Tuning) -> str:
        start = self.checkpoint(tuning.model) if tuning.start is None else self.model_dir(tuning.start)
        after = self._after(tuning.model) + (() if tuning.start is None else (self._train(tuning.start),))
        bound = {
            "MODEL_DIR": str(self.model_dir(tuning)),
            "PREPARED_DIR": str(self.prepared(tuning.model)),
            "INITIAL_CHECKPOINT_PATH": str(start),
            "MIXTURE_OR_TASK_NAME": tuning.mixture if isinstance(tuning.mixture, str) else dict(tuning.mixture),
            "RANDOM_SEED": tuning.seed,
        }
        macros = dict(tuning.macros)
        steps = macros.get("TRAIN_STEPS")
        if steps is None:
            raise FlanError("a study needs TRAIN with TRAIN_STEPS: say how long its models are tuned.")
        lengths = macros.get("TASK_FEATURE_LENGTHS") or {}
        rows = steps * macros.get("BATCH_SIZE", ROWS_PER_BATCH)
        slots = {side: rows * lengths.get(side, usual) for side, usual in LENGTHS.items()}
        return self._add(
            [TRAIN, tuning.parts.name, f"seed-{tuning.seed}"],
            TRAIN,
            (f"--gin_file={gin_files.TRAINING}", *_bindings(macros | bound)),
            self.model_dir(tuning),
            f"checkpoints/{steps}",
            after=after,
            slots=sum(slots.values()),
            head_slots=slots["targets"],
            model=tuning.model,
        )

    def _evaluate(self, evaluation: Evaluation) -> None:
        tuning, output = evaluation.tuning, self.output_of(evaluation)
        checkpoint = self.checkpoint(evaluation.model) if tuning is None else self.model_dir(tuning)
        trained = () if tuning is None else (self._train(tuning),)
        bound = {
            "CHECKPOINT_PATH": str(checkpoint),
            "EVAL_OUTPUT_DIR": str(output),
            "PREPARED_DIR": str(self.prepared(evaluation.model)),
            "DATASETS": (evaluation.dataset,),
            "STYLE": evaluation.style,
            "RUN_NAME": NO_TUNING if tuning is None else f"{tuning.parts.name} seed {tuning.seed}",
        }
        if tuning is None and (step := self.step_of(evaluation)) is not None:
            bound["STEP"] = step
        argv = [f"--gin_file={gin_files.EVALUATION}", *_bindings({**evaluation.macros} | bound)]
        argv += ["--allow_seen"] if evaluation.status != labels.HELD_OUT else []
        words = [EVAL, output.name.rpartition("-")[0]]
        after = self._after(evaluation.model) + trained
        style = styles.parse(evaluation.style)
        text = [protocol.of(record, style).digest for record in catalog.named(evaluation.dataset)]
        text += [
            str(generator.VERSION),
            str(scorer.VERSION),
        ]  # predictions of an earlier one are made anew, and so are results
        name = self._add(words, EVAL, argv, output, "results.json", text, after=after, model=evaluation.model)
        self._evaluation_of[name] = evaluation


@functools.cache  # a plan asks hundreds of times
def text_digest(record: catalog.Dataset, style: styles.TextStyle) -> str:
    """A digest of how a dataset's records become text in a style."""
    return protocol.of(record, style).text_digest


def _differing(each: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({digest(macros): macros for macros in each}.values())


def _bindings(macros: Mapping[str, Any]) -> list[str]:
    return [f"--gin.{name}={value!r}" for name, value in macros.items()]


def _name(words: Sequence[str], key: Any) -> str:
    """Of a folder or a step: words that people know, and a digest."""
    return "-".join([*(re.sub(r"[^\w.+]+", "_", word) for word in words), digest(key)])

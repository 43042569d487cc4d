"""The hook that evaluates a run on dev examples during training, with the parameters as they are on the devices.

It never reads test examples. A run that people watch, stop or choose by these figures would be chosen by test.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from flan_jax import catalog, distributed, macro_checks, models, partitioning
from flan_jax.checkpoint import keeping
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import examples as example_files
from flan_jax.data.line_tokens import LineTokenizer
from flan_jax.decoding.generator import Generator
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator, jobs, labels, prompt_store, same_examples
from flan_jax.evaluation.clusters import is_extra
from flan_jax.evaluation.dev_loss import DevLoss, DevRows, Found, layout_of, together
from flan_jax.files import make_folder
from flan_jax.models import automatic, prompt
from flan_jax.scoring.scorer import Scorer
from flan_jax.training.hooks.context import Context

FOLDER = "eval"  # in MODEL_DIR: the EVAL_OUTPUT_DIR of these evaluations
LOSS, LOSS_OF_CLUSTERS = keeping.DEV_LOSSES  # figures in metrics.jsonl, by dataset and by cluster
SCORE, SCORE_OF_CLUSTERS = keeping.DEV_SCORES
FIGURES = (LOSS, LOSS_OF_CLUSTERS, SCORE, SCORE_OF_CLUSTERS)
MAX_DEV_EXAMPLES = 100
_NAMED = 6  # datasets that a message names

_NOT_TO_CHOOSE_BY = {
    labels.HELD_OUT: "is of what this run holds out",
    labels.UNKNOWN: "is of what the model may or may not have seen",
    labels.MIXED: "is of some datasets that this run has not seen",
}


@macro_checks.checked
def evaluating(
    *,
    period: int | None,
    prepared_dir: str,
    datasets: Sequence[str] | None = None,
    max_dev_examples: int = MAX_DEV_EXAMPLES,
    style: str | Sequence[str] = "instructions",
    generate: bool = True,
    max_new_tokens: int | None = None,
    computation: Mapping[str, Any] | str | None = None,
) -> Evaluating | None:
    """Makes the hook for `training.loop.train(evaluation=...)`; None without a period.

    Args:
      period: EVAL_PERIOD, the number of steps between evaluations; None for no evaluation.
      prepared_dir: the folder that `flan_jax.prepare` wrote.
      datasets: names of clusters and datasets; None for all prepared ones that the run holds out.
      max_dev_examples: how many dev examples of each dataset and of each variant are used, the first ones.
      style: how records become prompts. Several styles have figures of their own.
      generate: whether to score datasets without options too, by the text that the model generates.
      max_new_tokens: longest generated answer, in tokens; None takes the limit of the dataset's metric.
      computation: as in training.

    Raises:
      FlanError: bad input.
    """
    if period is None:
        return None
    if max_dev_examples == 0:
        raise FlanError(
            f"EVAL_PERIOD is {period}, and MAX_DEV_EXAMPLES 0: during training dev examples alone are evaluated; give "
            "MAX_DEV_EXAMPLES of at least 1, or EVAL_PERIOD=None."
        )
    settings = evaluator.Settings(
        None, max_dev_examples, max_new_tokens=max_new_tokens, computation=automatic.asked(computation)
    )
    return Evaluating(period, prepared_dir, datasets, settings, tuple(style), generate)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """The dev records of some datasets in a style.

    Attributes:
      run: the folder and settings for this style.
      records: the records, by dataset.
      scored: the datasets that are ranked or generated.
      loss: computes the loss of their dev targets.
    """

    run: jobs.Run
    records: Mapping[catalog.Dataset, prompt_store.Records]
    scored: tuple[catalog.Dataset, ...]
    loss: DevLoss


class Evaluating:
    """Measures loss and headline scores of the current parameters on dev examples.

    The figures go to metrics.jsonl and MODEL_DIR/eval/step_N.

    Names of figures begin with "dev_loss" or "dev_score" for datasets, and "dev_loss_cluster" or "dev_score_cluster"
    for clusters. Then comes for example "held out/rte", "seen/sst2" or "unknown/mine"; with several styles, the style
    comes before the dataset. Only "seen" figures may choose a checkpoint.

    All processes of a pod take part. If the run is told to end, the evaluation stops after the current unit, so that
    the step can be saved.
    """

    def __init__(
        self,
        period: int,
        prepared_dir: str,
        datasets: Sequence[str] | None,
        settings: evaluator.Settings,
        styles: Sequence[str],
        generate: bool,
    ) -> None:
        """See `evaluating`."""
        self._period, self._prepared_dir, self._datasets = period, prepared_dir, datasets
        self._settings, self._styles, self._generate = settings, tuple(dict.fromkeys(styles)), generate

    # ---------------------------------------------------------------------------------------------- before the steps

    def start(self, context: Context) -> None:
        """Reads the dev examples and checks that nothing is missing.

        Raises:
          FlanError: the first evaluation would come after the last step, nothing is held out, or data are missing.
        """
        steps = context.run.train_steps
        if self._period > steps:
            raise FlanError(
                f"EVAL_PERIOD {self._period} is more than TRAIN_STEPS {steps}: nothing would be evaluated; give "
                f"EVAL_PERIOD of at most {steps}, or None."
            )
        distributed.decided(lambda: None)  # after this, the manifest is written
        folder = context.folder
        if context.primary:
            make_folder(folder / FOLDER)
        self._manifest = Manifest.load(folder)
        self._tokenizer = self._manifest.load_vocabulary(folder)
        chosen = self._there(jobs.chosen_of(folder, self._datasets), context)
        config, mesh = models.DecoderConfig.from_dict(self._manifest.model), context.mesh
        device = automatic.Device.of(mesh.devices.flat[0])
        computation, _ = automatic.chosen(config, self._settings.computation, device)
        self._settings = dataclasses.replace(self._settings, computation=computation)
        network = models.build(config.computed(**computation))
        if isinstance(context.network, prompt.Prompted):
            network = prompt.prompted(network, context.network.length)
        shapes = network.abstract_params()
        shardings = partitioning.parameter_shardings(mesh, network.logical_axes(), shapes)
        laid_out = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
        self._scorer = Scorer(network, laid_out, mesh=mesh)
        self._generator = Generator(network, laid_out, self._tokenizer.stop_ids, mesh=mesh) if self._generate else None
        runs = jobs.columns([("", ())], folder / FOLDER, "tuned", self._settings, self._styles)
        self._asked = [self._of_style(context, run, chosen[run.settings.style]) for run in runs]
        self._announce(context)

    def _there(
        self, chosen: Sequence[catalog.Dataset], context: Context
    ) -> dict[str, dict[catalog.Dataset, prompt_store.Records]]:
        """The dev records of the datasets that can be evaluated, by style.

        Raises:
          FlanError: a dataset that was named cannot be evaluated, or none can.
        """
        tokenizer, missing = LineTokenizer(self._tokenizer), {}
        found: dict[str, dict[catalog.Dataset, prompt_store.Records]] = {style: {} for style in self._styles}
        limits = self._settings.max_dev_examples, self._settings.seed
        for record in chosen:
            try:
                own = {}
                for style in self._styles:
                    asked = dataclasses.replace(self._settings, style=style).protocol_of(record)
                    own[style] = prompt_store.read_dev(self._prepared_dir, asked, tokenizer, *limits)
                for style, records in own.items():
                    found[style][record] = records
            except FlanError as error:
                missing[record.name] = str(error)
        if missing and (self._datasets is not None or len(missing) == len(chosen)):
            name, reason = next(iter(missing.items()))
            more = f"; {len(missing) - 1} more of {len(chosen)} cannot be evaluated either" if len(missing) > 1 else ""
            raise FlanError(f"EVAL_PERIOD: {name} cannot be evaluated: {reason.rstrip('.')}{more}.")
        if missing and context.primary:
            print(f"held out, and not evaluated, as no dev examples are prepared: {_listed([*missing])}", flush=True)
        of_test = {record.name: x.of_test for record, x in next(iter(found.values())).items() if x.of_test}
        if of_test and context.primary:
            named = _listed([f"{name} {count}" for name, count in of_test.items()])
            print(f"dev examples that are test examples too, left out: {named}", flush=True)
        return found

    def _of_style(
        self, context: Context, run: jobs.Run, records: Mapping[catalog.Dataset, prompt_store.Records]
    ) -> _Asked:
        layout = layout_of(context, list(records), self._manifest.separator)
        rows = DevRows.of(records, LineTokenizer(self._tokenizer), layout)
        scored = tuple(one for one in records if self._generate or run.settings.protocol_of(one).ranked)
        for record in records:
            name, count = record.name, rows.counts[record.name]
            left = count["too_long"] + count["unusable"]
            gives = count["prompts"] or (record in scored and count["too_long"])
            if not gives and self._datasets is not None:
                raise FlanError(
                    f"EVAL_PERIOD: {name} cannot be evaluated: of {left} dev prompts {count['too_long']} do not fit "
                    f"TASK_FEATURE_LENGTHS, and {count['unusable']} cannot be asked; prepare it again, give longer "
                    "rows, or leave it out of DATASETS."
                )
            if left and context.primary:
                print(
                    f"dev loss of {name}: {left} of {left + count['prompts']} prompts are left out, as they do not fit "
                    f"TASK_FEATURE_LENGTHS or cannot be asked",
                    flush=True,
                )
        return _Asked(run, records, scored, DevLoss(context, rows))

    def _announce(self, context: Context) -> None:
        """Tells the user which figures there will be, and which of them may not choose a step."""
        later: dict[str, dict[str, float]] = {name: {} for name in FIGURES}
        status: dict[str, str] = {}
        digests: dict[str, str] = {}
        for asked in self._asked:
            with_loss = [one for one in asked.records if asked.loss.rows.counts[one.name]["prompts"]]
            averaged = [one for one in asked.scored if not is_extra(one.name)]
            for outer, records, key in (
                (LOSS, with_loss, lambda one: one.name),
                (SCORE, asked.scored, lambda one: one.name),
                (LOSS_OF_CLUSTERS, with_loss, lambda one: one.cluster),
                (SCORE_OF_CLUSTERS, averaged, lambda one: one.cluster),
            ):
                for name in dict.fromkeys(key(one) for one in records):
                    own = [one for one in records if key(one) == name]
                    found = self._status(own)
                    full = self._named(found, asked, name)
                    later[outer][full], status[f"{outer}/{full}"] = 0.0, found
                    digests[f"{outer}/{full}"] = same_examples.digest(asked.records[one] for one in own)
        context.later.update(later)
        folder = context.folder / FOLDER
        others = same_examples.changed(folder, digests, context.first_step)
        self._kept = lambda: same_examples.keep(folder, digests, others, context.first_step)
        for name, step in others.items():
            context.no_choice[name] = (
                f"{name!r} was of other dev examples, or in another style, up to step {step}: its steps cannot be "
                "compared. Choose by another figure, or give DATASETS, MAX_DEV_EXAMPLES and STYLE as they were."
            )
        if others and context.primary:
            print(f"of other dev examples than up to step {max(others.values())}: {_listed([*others])}", flush=True)
        seen = [name for name, found in status.items() if found == labels.SEEN]
        instead = f"for example by {seen[0]!r}" if seen else "with one of the mixture's among DATASETS"
        for name, found in status.items():
            if found in _NOT_TO_CHOOSE_BY:
                context.no_choice[name] = (
                    f"{name!r} {_NOT_TO_CHOOSE_BY[found]}: a step that is chosen by it is no zero-shot result there. "
                    f"Choose by what the run is tuned on, {instead}."
                )

    def _status(self, records: Any) -> str:
        found = {labels.status(record, self._manifest.tuning) for record in records}
        return found.pop() if len(found) == 1 else labels.MIXED

    def _named(self, status: str, asked: _Asked, name: str) -> str:
        of_style = f"{asked.run.settings.style}/" if len(self._styles) > 1 else ""
        return f"{status}/{of_style}{name}"

    # ------------------------------------------------------------------------------------------------------ at a step

    def pauses(self, context: Context, step: int) -> bool:
        """Whether there is an evaluation after this step."""
        return step % self._period == 0

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Evaluates, if it is time.

        Raises:
          FlanError: the name of a figure is taken, or a file cannot be read or written.
        """
        if taken := set(FIGURES) & set(values):
            raise FlanError(
                f"a hook of HOOKS writes the figure {min(taken)!r}, which is what EVAL_PERIOD writes: let it take "
                "another name."
            )
        if not self.pauses(context, step):
            return
        began = time.perf_counter()
        found: dict[str, dict[str, float]] = {name: {} for name in FIGURES}
        for asked in self._asked:
            try:
                for name, figures in self._evaluated(context, step, asked).items():
                    found[name] |= figures
            except evaluator.BrokenOffError as error:
                if context.primary:
                    line = f"{str(error).rstrip('.')}, as the run is told to end; the step has no figures of it."
                    print(line, flush=True)
                return
        context.alive(f"in what happens after the evaluation of step {step}: saving, reading rows")
        for name, figures in found.items():
            if figures:
                context.write(name, figures)
        if context.primary:
            self._kept()
            self._kept = lambda: None
            shown = "; ".join(
                f"{what}: " + ", ".join(f"{name} {value:.4g}" for name, value in found[which].items())
                for what, which in (("dev loss", LOSS), ("dev score", SCORE))
                if found[which]
            )
            seconds = time.perf_counter() - began
            print(
                f"step {step} evaluated: {shown or 'no result'}; {seconds:.1f} s, {context.folder / FOLDER}", flush=True
            )

    def _evaluated(self, context: Context, step: int, asked: _Asked) -> dict[str, dict[str, float]]:
        """The figures of a style. They are also written to the style's folder."""
        run, name = jobs.of_step(asked.run, step), f"{context.folder.name} step {step}"

        def alive(done: int, total: int) -> None:
            if self._ending(context):
                raise evaluator.BrokenOffError(f"the evaluation of {name} was broken off in its loss.")
            context.alive(f"evaluating the loss on dev examples, {done} of {total} batches")

        with jobs.alone(run.output_dir):
            losses = asked.loss(context.state().params, alive)
            results = self._scores(context, run, name, asked) if asked.scored else {"checkpoint": name, "split": "dev"}
            results["dev_loss"] = self._losses(context, asked, losses)
            evaluator.write_results(results, run.output_dir)
        if context.primary:
            for one in results.get("skipped", ()):
                print(f"step {step}: {one['dataset']} has no score: {one['reason']}", flush=True)
        by_label = lambda figures, value: {  # noqa: E731
            self._named(one["status"], asked, name): float(one[value])
            for name, one in figures.items()
            if isinstance(one.get(value), int | float) and math.isfinite(one[value])
        }
        return {
            LOSS: by_label(results["dev_loss"]["datasets"], "loss"),
            LOSS_OF_CLUSTERS: by_label(results["dev_loss"]["clusters"], "loss"),
            SCORE: by_label(results.get("datasets", {}), "mean"),
            SCORE_OF_CLUSTERS: by_label(results.get("clusters", {}), "mean"),
        }

    def _scores(self, context: Context, run: jobs.Run, name: str, asked: _Asked) -> dict[str, Any]:
        """The results of a style.

        Its engines with their parameters are freed at the end, because the next step needs the memory.
        """
        params = context.merged_params()
        try:
            return evaluator.evaluate(
                self._scorer.with_params(params),
                self._tokenizer,
                self._manifest,
                name,
                asked.scored,
                self._prepared_dir,
                run.output_dir,
                run.settings,
                generator=self._generator.with_params(params) if self._generator else None,
                read=lambda protocol: asked.records[protocol.record],
                split=example_files.DEV,
                ending=lambda: self._ending(context),
                progress=lambda unit, done, total: context.alive(f"evaluating {unit}, {done} of {total} units"),
            )
        except evaluator.NoResultError as error:
            return error.results

    def _losses(self, context: Context, asked: _Asked, found: Mapping[str, Found]) -> dict[str, Any]:
        """The loss as dev.json holds it: by dataset and cluster, with what each is a mean of."""
        objective, counts = context.run.program.objective, asked.loss.rows.counts
        there = {record: found[record.name] for record in asked.records if counts[record.name]["prompts"]}
        clusters: dict[str, list[catalog.Dataset]] = {}
        for record in there:
            clusters.setdefault(record.cluster, []).append(record)
        return {
            "unit": "nats a target token",
            "loss_averaging": objective.loss_averaging,
            "loss_on_inputs": objective.loss_on_inputs,
            "datasets": {
                record.name: {
                    "cluster": record.cluster,
                    "status": self._status([record]),
                    "loss": one.mean,
                    **counts[record.name],
                    "of_test": asked.records[record].of_test,
                }
                for record, one in there.items()
            },
            "clusters": {
                name: {
                    "status": self._status(records),
                    "loss": together([there[one] for one in records]).mean,
                    "datasets": [one.name for one in records],
                }
                for name, records in clusters.items()
            },
        }

    def _ending(self, context: Context) -> bool:
        return not distributed.everywhere(not context.ending())


def _listed(names: Sequence[str]) -> str:
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*names[:_NAMED], *more])

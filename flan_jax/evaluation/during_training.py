"""The hook that evaluates a run while it is tuned: every so many steps, the parameters as they are on the devices."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from flan_jax import catalog, distributed, macros, models, partitioning
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data.line_tokens import LineTokenizer
from flan_jax.decoding.generator import Generator
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator, jobs, prompt_store
from flan_jax.evaluation.clusters import is_extra
from flan_jax.files import make_folder
from flan_jax.models import automatic, prompt
from flan_jax.scoring.scorer import Scorer
from flan_jax.training.hooks.context import Context

FOLDER = "eval"  # in MODEL_DIR: the EVAL_OUTPUT_DIR of these evaluations
FIGURES, CLUSTER_FIGURES = "eval", "eval_cluster"  # in metrics.jsonl, by dataset and by cluster
MAX_EXAMPLES = 100
_NAMED = 6  # datasets in a message


@macros.checked
def evaluating(
    *,
    period: int | None,
    prepared_dir: str,
    datasets: Sequence[str] | None = None,
    max_examples: int | None = MAX_EXAMPLES,
    max_dev_examples: int = 0,
    style: str | Sequence[str] = "instructions",
    generate: bool = True,
    computation: Mapping[str, Any] | str | None = None,
) -> Evaluating | None:
    """The hook for `training.loop.train(evaluation=...)`, with the arguments of `flan_jax.eval` that apply.

    Args:
      period: EVAL_PERIOD, steps between evaluations; None for no evaluation, and then there is no hook.
      prepared_dir: what `flan_jax.prepare` wrote.
      datasets: names of clusters and datasets; None for all prepared ones that the run holds out.
      max_examples: test examples a dataset; None for all.
      max_dev_examples: dev examples a dataset; 0 leaves the best-dev template out.
      style: how records become prompts; several give results each.
      generate: evaluate the datasets without options too.
      computation: as of the training.

    Raises:
      FlanError: bad input.
    """
    if period is None:
        return None
    settings = evaluator.Settings(max_examples, max_dev_examples, computation=automatic.asked(computation))
    return Evaluating(period, prepared_dir, datasets, settings, tuple(style), generate)


class Evaluating:
    """Scores the live parameters and writes MODEL_DIR/eval/step_N, as `flan_jax.eval` does with STEP="follow".

    Headline figures go to metrics.jsonl, as "eval" by dataset and "eval_cluster" by cluster, of several styles with the
    style before the name. What was seen is scored too, and labelled so. All processes of a pod take part. A run that is
    told to end breaks off after the unit at work, so that its step can be saved.
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
        """Args: see `evaluating`."""
        self._period, self._prepared_dir, self._datasets = period, prepared_dir, datasets
        self._settings, self._styles, self._generate = settings, tuple(styles), generate

    def start(self, context: Context) -> None:
        """Looks whether all is there.

        Raises:
          FlanError: the first evaluation would come after the last step, nothing is held out, or data are missing.
        """
        steps = context.run.train_steps
        if self._period > steps:
            raise FlanError(
                f"EVAL_PERIOD {self._period} is more than TRAIN_STEPS {steps}: nothing would be evaluated; give "
                f"EVAL_PERIOD of at most {steps}, or None."
            )
        distributed.decided(lambda: None)  # the manifest is written by now
        folder = context.folder
        if context.primary:
            make_folder(folder / FOLDER)
        self._manifest = Manifest.load(folder)
        self._tokenizer = self._manifest.load_vocabulary(folder)
        self._records = self._there(jobs.chosen_of(folder, self._datasets), context)
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
        context.later[FIGURES] = {self._named(s, r.name): 0.0 for s in self._styles for r in self._records}
        clusters = dict.fromkeys(r.cluster for r in self._records if not is_extra(r.name))
        context.later[CLUSTER_FIGURES] = {self._named(s, c): 0.0 for s in self._styles for c in clusters}

    def _there(self, chosen: Sequence[catalog.Dataset], context: Context) -> tuple[catalog.Dataset, ...]:
        """The datasets that can be evaluated.

        Raises:
          FlanError: one that was named cannot be, or none can.
        """
        tokenizer, found = LineTokenizer(self._tokenizer), []
        missing: dict[str, str] = {}
        limits = self._settings.max_examples, self._settings.max_dev_examples, self._settings.seed
        for record in chosen:
            try:
                for run in jobs.columns([("", ())], context.folder, "", self._settings, self._styles):
                    asked = run.settings.protocol_of(record)
                    if not asked.ranked and not self._generate:
                        raise FlanError("it has no options, and GENERATE is False.")
                    if not prompt_store.read_records(self._prepared_dir, asked, tokenizer, *limits).splits[0][1]:
                        raise FlanError(f"no test example of it in {self._prepared_dir} can be used.")
                found.append(record)
            except FlanError as error:
                missing[record.name] = str(error)
        if missing and (self._datasets is not None or not found):
            name, reason = next(iter(missing.items()))
            more = f"; {len(missing) - 1} more of {len(chosen)} cannot be evaluated either" if len(missing) > 1 else ""
            raise FlanError(f"EVAL_PERIOD: {name} cannot be evaluated: {reason.rstrip('.')}{more}.")
        if missing and context.primary:
            names = [*missing][:_NAMED] + ([f"{len(missing) - _NAMED} more"] if len(missing) > _NAMED else [])
            print(f"held out, and not evaluated, as they are not prepared: {', '.join(names)}", flush=True)
        return tuple(found)

    def _named(self, style: str, name: str) -> str:
        return f"{style}/{name}" if len(self._styles) > 1 else name

    def pauses(self, context: Context, step: int) -> bool:
        """Whether this step is evaluated."""
        return step % self._period == 0

    def after_step(self, context: Context, step: int, values: Mapping[str, Any]) -> None:
        """Evaluates, where it is time.

        Raises:
          FlanError: the name of a figure is taken, or a file cannot be read or written.
        """
        if taken := {FIGURES, CLUSTER_FIGURES} & set(values):
            raise FlanError(
                f"a hook of HOOKS writes the figure {min(taken)!r}, which is what EVAL_PERIOD writes: let it take "
                "another name."
            )
        if not self.pauses(context, step):
            return
        began = time.perf_counter()
        part = jobs.Part(str(context.folder), step, self._records)
        output = context.folder / FOLDER
        found: dict[str, float] = {}
        of_clusters: dict[str, float] = {}
        for run in jobs.columns([("", (part,))], output, "tuned", self._settings, self._styles):
            try:
                results = self._evaluated(context, jobs.of_step(run, step), part)
            except evaluator.BrokenOffError as error:
                if context.primary:
                    line = f"{str(error).rstrip('.')}, as the run is told to end; flan_jax.eval can do it later."
                    print(line, flush=True)
                return
            except evaluator.NoResultError as error:
                results = error.results
            found |= {self._named(run.settings.style, name): x for name, x in _means(results["datasets"]).items()}
            clusters = _means(results["clusters"])
            of_clusters |= {self._named(run.settings.style, name): x for name, x in clusters.items()}
            if context.primary:
                for one in results["skipped"]:
                    print(f"step {step}: {one['dataset']} has no result: {one['reason']}", flush=True)
        for name, figures in ((FIGURES, found), (CLUSTER_FIGURES, of_clusters)):
            if figures:
                context.write(name, figures)
        if context.primary:
            shown = ", ".join(f"{name} {value:.1f}" for name, value in found.items()) or "no result"
            print(f"step {step} evaluated: {shown}; {time.perf_counter() - began:.1f} s, {output}", flush=True)

    def _evaluated(self, context: Context, run: jobs.Run, part: jobs.Part) -> dict[str, Any]:
        """Results of one style. The engines with the parameters end with it: the next step takes their memory."""
        params = context.merged_params()
        with jobs.alone(run.output_dir):
            return evaluator.evaluate(
                self._scorer.with_params(params),
                self._tokenizer,
                self._manifest,
                part.name,
                part.datasets,
                self._prepared_dir,
                run.output_dir,
                run.settings,
                generator=self._generator.with_params(params) if self._generator else None,
                ending=lambda: not distributed.everywhere(not context.ending()),
                progress=lambda unit, done, total: context.alive(f"evaluating {unit}, {done} of {total} units"),
            )


def _means(figures: Mapping[str, Any]) -> dict[str, float]:
    """The headline means by name, those that are numbers."""
    means = {name: one.get("mean") for name, one in figures.items()}
    return {name: float(x) for name, x in means.items() if isinstance(x, int | float) and math.isfinite(x)}

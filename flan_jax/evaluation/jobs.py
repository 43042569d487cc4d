"""Evaluation jobs: one or several checkpoints, all steps of a run, a run in progress, or a checkpoint for each cluster.

A job is a list of runs. Each run is a column of the report. A run has parts, because each cluster may have a checkpoint
of its own (paper, section 2.2: to evaluate c clusters, c models are tuned).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from flan_jax import catalog, distributed, files, models
from flan_jax import styles as text_styles
from flan_jax.checkpoint import adapters, arrays, choosing
from flan_jax.checkpoint.manifest import Manifest, refuse_export
from flan_jax.decoding.generator import Generator
from flan_jax.errors import FlanError
from flan_jax.evaluation import evaluator
from flan_jax.evaluation.clusters import cluster_means
from flan_jax.files import AnyPath, is_remote, user_path
from flan_jax.models import automatic
from flan_jax.scoring.scorer import Scorer
from flan_jax.values import WEIGHTS

ALL, FOLLOW = "all", "follow"
_LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Part:
    """Datasets that are evaluated with one checkpoint.

    Attributes:
      checkpoint: a checkpoint folder.
      step: the step of the checkpoint.
      datasets: what to evaluate.
    """

    checkpoint: str
    step: int
    datasets: tuple[catalog.Dataset, ...]

    @property
    def name(self) -> str:
        """The folder and the step."""
        return f"{user_path(self.checkpoint).name} step {self.step}"


@dataclasses.dataclass(frozen=True)
class Run:
    """A column of the report.

    Attributes:
      name: the heading.
      output_dir: where its predictions and results go.
      settings: what results depend on.
      parts: one part, or one for each cluster.
      group: the name of the group of runs that differ only in their seed; empty for a run without a group.
      which: which weights of the checkpoints, one of `values.WEIGHTS`.
    """

    name: str
    output_dir: AnyPath
    settings: evaluator.Settings
    parts: tuple[Part, ...]
    group: str = ""
    which: str = WEIGHTS[0]


def plan(
    checkpoint_path: str | Sequence[str] | Mapping[str, str],
    step: int | str | None,
    datasets: Sequence[str] | None,
    output_dir: str | AnyPath,
    run_name: str,
    settings: evaluator.Settings,
    styles: Sequence[str],
    seeds: Sequence[int] = (0,),
) -> list[Run]:
    """Lists the runs of a job.

    Args:
      checkpoint_path: a checkpoint folder, several, or one for each cluster.
      step: the step of the checkpoints; None takes the last, "all" takes every saved step.
      datasets: names of clusters and datasets. If each cluster has a checkpoint, only datasets in those clusters count.
        None takes all that a checkpoint holds out, or all of those clusters.
      output_dir: EVAL_OUTPUT_DIR. If there are several runs, each has a folder in it.
      run_name: the heading of a single run; the headings of several begin with it.
      settings: what results depend on.
      styles: how records become prompts; each style is a run.
      seeds: seeds of exemplars and shuffled options. If a style has either, each seed is a run, and these are one
        group.

    Raises:
      FlanError: a seed is given twice, a name is unknown, a checkpoint is missing, or a dataset has no checkpoint.
    """
    groups: list[tuple[str, tuple[Part, ...]]] = []
    if isinstance(checkpoint_path, Mapping):
        chosen = evaluator.select(list(checkpoint_path) if datasets is None else datasets)
        groups.append(("", _a_part_each(checkpoint_path, step, chosen)))
    else:
        paths = [checkpoint_path] if isinstance(checkpoint_path, str) else list(checkpoint_path)
        for path in paths:
            taken = _steps(path, step)
            for number in taken:
                heading = [user_path(path).name] * (len(paths) > 1) + [f"step {number}"] * (len(taken) > 1)
                groups.append((" ".join(heading), (Part(path, number, chosen_of(path, datasets)),)))
    runs = columns(groups, output_dir, run_name, settings, styles, seeds)
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise FlanError("two checkpoints have the same folder name: evaluate them in jobs of their own.")
    return runs


def chosen_of(checkpoint: str | AnyPath, datasets: Sequence[str] | None) -> tuple[catalog.Dataset, ...]:
    """The datasets to evaluate with a checkpoint: those named, or with None all that it holds out.

    Raises:
      FlanError: an unknown name, no checkpoint, or a checkpoint that holds nothing out.
    """
    if datasets is not None:
        return tuple(evaluator.select(datasets))
    if found := evaluator.held_out(Manifest.load(checkpoint)):
        return tuple(found)
    raise FlanError(f"nothing is held out of {checkpoint}, which was tuned on all clusters: name the DATASETS.")


def columns(
    groups: Sequence[tuple[str, tuple[Part, ...]]],
    output_dir: str | AnyPath,
    run_name: str,
    settings: evaluator.Settings,
    styles: Sequence[str],
    seeds: Sequence[int] = (0,),
) -> list[Run]:
    """Lists the runs of checkpoints, one for each checkpoint, style and seed.

    Args:
      groups: (heading, parts) of each checkpoint; the heading is empty if there is only one.
      output_dir: see `plan`.
      run_name: see `plan`.
      settings: see `plan`.
      styles: see `plan`.
      seeds: see `plan`.

    Raises:
      FlanError: a seed is given twice.
    """
    if len(set(seeds)) < len(seeds):
        raise FlanError(f"a seed stands twice in {', '.join(map(str, seeds))}: give each once.")
    runs = []
    for heading, parts in groups:
        for style in styles:
            group = [heading] * bool(heading) + [style] * (len(styles) > 1)
            drawn = seeds if _draws(text_styles.parse(style), parts) else seeds[:1]
            for seed in drawn:
                own = " ".join([*group, *([f"seed {seed}"] if len(drawn) > 1 else [])])
                folder = user_path(output_dir) / own.replace(" ", "_") if own else user_path(output_dir)
                name = f"{run_name} {own}" if own else run_name
                together = " ".join([run_name, *group]) if len(drawn) > 1 else ""
                runs.append(Run(name, folder, dataclasses.replace(settings, style=style, seed=seed), parts, together))
    return runs


def _draws(style: text_styles.TextStyle, parts: Sequence[Part]) -> bool:
    """Whether a seed decides part of a prompt: of generated text, there are no options to shuffle."""
    has_options = any(record.kind == catalog.CLASSIFICATION for part in parts for record in part.datasets)
    return bool(style.shots) or (style.draws and has_options)


def of_step(run: Run, step: int) -> Run:
    """The run for one step of a training run. All steps share a report."""
    group = f"{run.group} step {step}" if run.group else ""
    return dataclasses.replace(
        run, name=f"{run.name} step {step}", output_dir=run.output_dir / f"step_{step}", group=group
    )


def _a_part_each(
    paths: Mapping[str, str], step: int | str | None, chosen: Sequence[catalog.Dataset]
) -> tuple[Part, ...]:
    if step is not None:
        raise FlanError("a checkpoint for each cluster is evaluated at its last step: leave STEP out.")
    for cluster in paths:
        catalog.cluster(cluster)
    if orphans := [record.name for record in chosen if record.cluster not in paths]:
        raise FlanError(f"no checkpoint is given for the cluster of {', '.join(orphans)}: add one, or leave them out.")
    parts = []
    for cluster, path in paths.items():
        if members := tuple(record for record in chosen if record.cluster == cluster):
            parts.append(Part(path, _steps(path, None)[0], members))
    return tuple(parts)


def _steps(path: str, step: int | str | None) -> list[int]:
    Manifest.load(path)  # reports a folder without any checkpoint
    refuse_export(path)
    saved = choosing.steps(path)
    if not saved:
        raise FlanError(f"no checkpoint in {path}: checkpoints/ holds no step yet.")
    if step == ALL:
        return saved
    if step is not None and step not in saved:
        raise FlanError(f"no step {step!r} in {path}: there are {', '.join(map(str, saved))}, 'all' and 'follow'.")
    return [saved[-1] if step is None else int(step)]


def evaluate(
    run: Run,
    prepared_dir: str | AnyPath,
    mesh: jax.sharding.Mesh,
    *,
    allow_seen: bool = False,
    generate: bool = True,
    ending: Callable[[], bool] = lambda: False,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Any]:
    """Evaluates a run, part by part, and writes predictions and results.json.

    If another job works on the same folder, this one waits for it, and then does not repeat its work.

    Args:
      run: what to evaluate.
      prepared_dir: where `flan_jax.prepare` wrote dev and test examples.
      mesh: where rows and parameters are laid out.
      allow_seen: whether to score datasets that are not held out too; they are labelled as seen.
      generate: whether to evaluate the datasets without options too.
      ending: whether this process was told to end; see `evaluator.evaluate`.
      progress: called with (unit, done, total).

    Returns:
      The results, as in results.json.

    Raises:
      FlanError: bad input.
      NoResultError: see `evaluator.evaluate`; if there are several parts, only if it holds for all.
      BrokenOffError: a process of the pod was told to end; what is done stays.
    """
    found, errors = [], []
    with alone(run.output_dir):
        for part in run.parts:
            model = models.DecoderConfig.from_dict(Manifest.load(part.checkpoint).model)
            device = automatic.Device.of(mesh.devices.flat[0])
            computation, chosen = automatic.chosen(model, run.settings.computation, device)
            if chosen and distributed.is_primary():
                print(chosen, flush=True)
            network, params, tokenizer, manifest = arrays.load_model(
                part.checkpoint, step=part.step, mesh=mesh, computation=computation, which=run.which
            )
            try:
                results = evaluator.evaluate(
                    Scorer(network, params, mesh=mesh),
                    tokenizer,
                    manifest,
                    part.name + ("" if run.which == WEIGHTS[0] else f" {run.which}"),
                    part.datasets,
                    prepared_dir,
                    run.output_dir,
                    dataclasses.replace(run.settings, computation=computation),
                    weights=adapters.weights(part.checkpoint, part.step, run.which),
                    generator=Generator(network, params, tokenizer.stop_ids, mesh=mesh) if generate else None,
                    allow_seen=allow_seen,
                    vocabulary=f"{str(part.checkpoint).rstrip('/')}/vocabulary",
                    ending=lambda: not distributed.everywhere(not ending()),
                    progress=progress,
                )
            except evaluator.NoResultError as error:  # other clusters have their own checkpoints
                results = error.results
                errors.append(error)
            found.append(results)
        if len(errors) == len(found):
            raise errors[0]
        if len(found) == 1:
            return found[0]
        results = _joined(found)
        evaluator.write_results(results, run.output_dir)
        return results


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Joins the results of one checkpoint for each cluster into those of one run."""
    datasets = {name: figures for part in parts for name, figures in part["datasets"].items()}
    invalid = [one for part in parts for one in part["invalid"]]
    joints = {part["joint"] for part in parts}
    return {
        "checkpoint": f"{len(parts)} checkpoints, one for each cluster",
        "checkpoints": {name: part["checkpoint"] for part in parts for name in part["datasets"]},
        "model_digest": [part["model_digest"] for part in parts],
        "model": parts[0]["model"],
        "engines": parts[0]["engines"],
        "tuning": {"status": "each cluster by a checkpoint of its own", "datasets": [], "clusters": []},
        "tunings": {part["checkpoint"]: part["tuning"] for part in parts},
        "settings": parts[0]["settings"],
        "joint": joints.pop() if len(joints) == 1 else "what each was tuned with",
        "weights": {name: part["weights"] for part in parts for name in part["datasets"]},
        "made": parts[-1]["made"],
        "provenance": parts[-1]["provenance"],
        "datasets": datasets,
        "skipped": [skipped for part in parts for skipped in part["skipped"]],
        "invalid": invalid,
        "clusters": cluster_means(datasets, [one["dataset"] for one in invalid]),
    }


@contextlib.contextmanager
def alone(output_dir: AnyPath) -> Iterator[None]:
    """Keeps other jobs out of a folder.

    A job that died no longer counts. If the job produced nothing, the folder is removed.
    """
    if not distributed.is_primary():
        yield
        return
    made = not output_dir.exists()

    def waiting(holder: files.Held) -> None:
        print(f"another job is at work in {output_dir} ({holder}): waiting for it", flush=True)

    try:
        with files.alone(output_dir / _LOCK, waiting):
            yield
    finally:
        left = not is_remote(output_dir) and made and output_dir.is_dir()
        if left and {path.name for path in output_dir.iterdir()} <= {_LOCK}:
            files.remove_folder(output_dir)


def follow(
    model_dir: str,
    evaluate_step: Callable[[int], None],
    *,
    poll_seconds: float = 30.0,
    patience_seconds: float = 3600.0,
) -> list[int]:
    """Calls `evaluate_step` with each step that a training run saves, until the run has reached its last step.

    It always takes the newest step next. Steps that were deleted before their turn are skipped.

    Args:
      model_dir: MODEL_DIR of the run, which may not have begun.
      evaluate_step: evaluates a saved step.
      poll_seconds: seconds between two looks.
      patience_seconds: after so many seconds without a new step, the run counts as dead.

    Returns:
      The steps that were evaluated.

    Raises:
      FlanError: no new step came in time.
    """
    done: list[int] = []
    last_news = time.monotonic()
    while True:
        new = [step for step in choosing.steps(model_dir) if step not in done]
        if new:
            evaluate_step(new[-1])
            done.append(new[-1])
            last_news = time.monotonic()
        if done and done[-1] >= _last_step(model_dir):
            return done
        if time.monotonic() - last_news > patience_seconds:
            raise FlanError(
                f"no new checkpoint in {model_dir} for {patience_seconds:.0f} seconds "
                f"(evaluated: {', '.join(map(str, done)) or 'none'}): is the run alive? Start the job again to go on."
            )
        if not new:
            time.sleep(poll_seconds)


def _last_step(model_dir: str) -> int:
    """The step at which a training run will end; 0 for a converted checkpoint."""
    history = Manifest.load(model_dir).history
    return int(history[-1].get("steps", 0)) if history else 0

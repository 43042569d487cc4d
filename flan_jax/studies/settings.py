"""What a study is run with, resolved and checked in one place; gin's macros of gin/studies/study.gin set it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import gin

from flan_jax import catalog, macro_checks, macros, styles, values
from flan_jax.errors import FlanError, near_names, unknown_name
from flan_jax.files import AnyPath, is_url, same_place, user_path
from flan_jax.formats import names
from flan_jax.json_lines import from_json
from flan_jax.lazy import lazy_imports
from flan_jax.studies import recipes, stamps
from flan_jax.studies.keys import model_key
from flan_jax.values import OUR_DATA, Kind, Several

with lazy_imports():
    from flan_jax.checkpoint import adapters, choosing

# Macros that the study sets itself, of the runs that it tunes and of the evaluations.
OWN_TRAIN = ("MODEL_DIR", "PREPARED_DIR", "INITIAL_CHECKPOINT_PATH", "MIXTURE_OR_TASK_NAME", "RANDOM_SEED", "TASKS")
OWN_TRAIN += ("MODEL", "VOCABULARY", "DATASETS")
_OWN_EVAL = ("CHECKPOINT_PATH", "EVAL_OUTPUT_DIR", "PREPARED_DIR", "DATASETS", "STYLE", "RUN_NAME", "BASELINE_DIR")
_OWN_EVAL += ("BASELINE_NAME", "STEP", "TASKS", "CONTAMINATION")
TINY = "tiny"  # a random model, for tests of the way
READY = (*names.PACKAGED, TINY)  # models that the study itself converts
DATA_FILE, HAD = "data.json", "had"  # in a study's folder: what all of it was made from, and folders that were there


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a study is run with.

    Attributes:
      name: which study.
      folder: where all studies of these data keep what they make.
      data: as `flan_jax.prepare` takes it.
      models: packaged models by name, or checkpoint folders; the first is used where a study has one.
      clusters: what is held out and evaluated.
      datasets: what is evaluated of these clusters; empty for all of it.
      seeds: a tuned model each; the mean and its spread are over them.
      points: what the study varies; None takes the study's own.
      max_points: so many of them are kept, evenly spread, the first and the last among them; None keeps all.
      train: macros of `flan_jax.train` for every tuned model.
      evaluate: macros of `flan_jax.eval` for every evaluation.
      baselines: styles in which the untuned model is asked.
      tasks: modules of the user's own with more datasets.
      judged_by: datasets and clusters whose dev data a recipe is chosen by; None takes the study's own.
    """

    name: str
    folder: AnyPath
    data: str
    models: tuple[str, ...]
    clusters: tuple[str, ...]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    points: tuple[Any, ...] | None
    train: Mapping[str, Any]
    evaluate: Mapping[str, Any]
    baselines: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    judged_by: tuple[str, ...] | None = None
    max_points: int | None = None

    @property
    def model(self) -> str:
        """The model of a study that has one."""
        return self.models[0]

    @property
    def style(self) -> str:
        """How tuned models are asked: in the first of the baselines' styles that has instructions."""
        asked = [style for style in self.baselines if styles.parse(style).words == styles.INSTRUCTIONS]
        return asked[0] if asked else styles.INSTRUCTIONS

    def evaluated(self, cluster: str) -> tuple[str, ...]:
        """What is evaluated of a cluster: the cluster itself, or those of DATASETS that are in it."""
        if not self.datasets:
            return (cluster,)
        return tuple(name for name in self.datasets if catalog.named(name)[0].cluster == cluster)

    @functools.cached_property  # a plan asks hundreds of times
    def is_data_gone(self) -> bool:
        """Whether DATA is a folder of this machine that is not there. What was prepared of it stays."""
        named = self.data in OUR_DATA or is_url(self.data)
        return not named and not user_path(self.data, "DATA").is_dir()

    def has(self, record: catalog.Dataset) -> bool:
        """Whether DATA has a folder of a dataset.

        Of TFDS's own data and of the samples all of them count; where DATA is not there, those that it had.
        """
        if self.data in OUR_DATA:
            return True
        if self.is_data_gone:
            return self._had is None or any(folder in self._had for folder in stamps.folders(record))
        return any((user_path(self.data, "DATA") / folder).is_dir() for folder in stamps.folders(record))

    @functools.cached_property
    def _had(self) -> list[str] | None:
        """The folders that DATA had when a study here last saw it; None where an earlier version did not keep them."""
        found = _kept_data(self.folder).get(HAD)
        return found if isinstance(found, list) else None

    def varied(self, usual: Sequence[Any], kind: Kind | None = None) -> tuple[Any, ...]:
        """The points of the study, by default those, as many as MAX_POINTS lets it have.

        Args:
          usual: the study's own.
          kind: what each has to be; None where the study looks itself.

        Raises:
          FlanError: a point of another kind.
        """
        every = tuple(usual) if self.points is None else self.points
        if kind is not None:
            every = tuple(values.checked("POINTS", Several(kind), every, "what the study varies"))
        most = len(every) if self.max_points is None else min(self.max_points, len(every))
        return tuple(every[round(number * (len(every) - 1) / max(1, most - 1))] for number in range(most))


@gin.configurable(module="flan_jax.studies")
@macro_checks.checked
def study(
    *,
    name: str,
    study_dir: str,
    data: str,
    models: Sequence[str],
    clusters: Sequence[str],
    seeds: Sequence[int],
    datasets: Sequence[str] | None = None,
    points: Sequence[Any] | None = None,
    max_points: int | None = None,
    train: Mapping[str, Any] | None = None,
    evaluate: Mapping[str, Any] | None = None,
    baselines: Sequence[str] = (styles.INSTRUCTIONS, styles.GPT3),
    tasks: Sequence[str] | None = None,
    budget: Mapping[str, Any] | None = None,
    recipe: str | None = None,
    judged_by: Sequence[str] | None = None,
) -> Settings:
    """The settings of a study.

    Args:
      name: of the study, as `kinds.names` lists them.
      study_dir: where everything is written; several studies of the same data may share it.
      data: "samples", "tfds", or a folder, as of `flan_jax.prepare`.
      models: packaged models by name, "tiny", or checkpoint folders.
      clusters: what is held out and evaluated.
      seeds: of the tuned models, one each.
      datasets: what is evaluated of these clusters; None for all of them.
      points: what the study varies; None takes its own.
      max_points: so many of them are kept, evenly spread; None keeps all.
      train: macros of `flan_jax.train` for every tuned model, by name, in place of the budget's.
      evaluate: macros of `flan_jax.eval` for every evaluation, by name.
      baselines: styles in which the untuned model is asked.
      tasks: modules of your own with more datasets.
      budget: those of a file of studies/budgets.
      recipe: the recipe.json of a study `recipe`: its macros count more than the budget's, and less than `train`.
      judged_by: datasets and clusters whose dev data a recipe is chosen by.

    Raises:
      FlanError: a value of another kind, a name that is there twice, a macro that the study sets itself, or a recipe
        that was chosen on what is held out.
    """
    asked = [styles.parse(style).name for style in baselines]  # one style may be written in two ways
    for what, listed in (("MODELS", models), ("CLUSTERS", clusters), ("TUNING_SEEDS", seeds), ("BASELINES", asked)):
        if twice := next((one for one in listed if list(listed).count(one) > 1), None):
            raise FlanError(f"{what} has {twice!r} twice: leave one out.")
    if shots := next((style for style in asked if styles.parse(style).shots), None):
        raise FlanError(
            f"BASELINES has {shots!r}, and a study's scores are zero-shot: leave the exemplars out; the study few_shot "
            "varies their number by POINTS."
        )
    _refuse_one_model(models, study_dir)
    _refuse_within(datasets or ())
    of_clusters = {
        cluster: [n for n in datasets or () if catalog.named(n)[0].cluster == cluster] for cluster in clusters
    }
    if datasets is not None:
        if stray := [name for name in datasets if not any(name in found for found in of_clusters.values())]:
            raise FlanError(f"DATASETS has {stray[0]!r}, which is in none of CLUSTERS {', '.join(clusters)}.")
        if empty := [cluster for cluster, found in of_clusters.items() if not found]:
            raise FlanError(
                f"CLUSTERS has {empty[0]!r}, of which DATASETS has nothing: leave it out, or DATASETS=None."
            )
    held_out = tuple(catalog.cluster(cluster).name for cluster in clusters)
    chosen = (
        {} if recipe is None else macro_values(f"recipe {recipe}", recipes.read(recipe, held_out), "train", OWN_TRAIN)
    )
    macros_of_budget = macro_values("BUDGET_TRAIN", budget or {}, "train", OWN_TRAIN)
    own = macros_of_budget if train is None else macro_values("TRAIN", train, "train", OWN_TRAIN)
    place = user_path(study_dir, "STUDY_DIR").absolute()
    return Settings(
        name=name,
        folder=place,
        data=data if data in OUR_DATA or is_url(data) else _data(data, place),
        models=tuple(_place(model, place) for model in models),
        clusters=held_out,
        datasets=tuple(datasets or ()),
        seeds=tuple(seeds),
        points=None if points is None else tuple(points),
        max_points=max_points,
        train=own | chosen if train is None else chosen | own,
        evaluate=macro_values("EVAL", evaluate or {}, "evaluate", _OWN_EVAL),
        baselines=tuple(styles.parse(style).name for style in baselines),
        tasks=tuple(tasks or ()),
        judged_by=None if judged_by is None else tuple(judged_by),
    )


def macro_values(of: str, given: Mapping[str, Any], function: str, own: Sequence[str] = ()) -> dict[str, Any]:
    """Checked values of macros that are passed on to another program.

    Args:
      of: what the user calls the dictionary.
      given: values by macro.
      function: "train" or "evaluate": whose macros they have to be.
      own: macros that the study sets itself.

    Raises:
      FlanError: a macro that there is not, that the study sets itself, or a value of another kind.

    >>> macro_values("TRAIN", {"LEARNING_RATE": 1e-4}, "train")
    {'LEARNING_RATE': 0.0001}
    >>> macro_values("TRAIN", {"LEARNING_RAT": 1e-4}, "train")
    Traceback (most recent call last):
    ...
    flan_jax.errors.FlanError: TRAIN has no macro 'LEARNING_RAT': ...
    """
    known = {m for m, s in macros.BY_MACRO.items() if any(_is_of(argument, function) for argument in s.arguments)}
    found = {}
    for name, value in given.items():
        if name in own:
            raise FlanError(f"{of} sets {name}, which the study sets itself: leave it out.")
        if name not in known:
            raise FlanError(
                f"{of} has no macro {values.shown(name)}: {near_names(str(name), sorted(known - set(own)))}"
            )
        setting = macros.BY_MACRO[name]
        found[name] = values.checked(f"{of}[{name!r}]", setting.kind, value, setting.meaning)
    return found


def _is_of(argument: str, function: str) -> bool:
    head = argument.partition(".")[0]
    if function == "train":
        return head not in ("evaluate", "study", "tasks", "precompile")
    return head == function


def known_model(name: str) -> None:
    """Raises a FlanError where a model is neither packaged nor a checkpoint folder."""
    if name not in READY and not (user_path(name, "MODELS") / "manifest.json").exists():
        raise unknown_name("model", name, READY, "(or a checkpoint folder, as python -m flan_jax.convert writes it)")


def _place(model: str, study_dir: AnyPath) -> str:
    """A model as a study names it, by whatever path or link it is given.

    A folder is named in full. A study that an earlier version began by the name of a link goes on by it.
    """
    if model in READY or is_url(model):
        return model
    given = user_path(model, "MODELS").absolute()
    if not given.is_dir():  # `known_model` says it
        return model
    if given.name not in ("", "..") and (study_dir / "prepared" / model_key(given)).exists():
        return str(given)
    return os.path.realpath(given)


def _data(data: str, study_dir: AnyPath) -> str:
    """A folder of data as a study names it, by whatever path or link it is given.

    A study that an earlier version began by the name of a link goes on by it.
    """
    given = user_path(data, "DATA").absolute()
    kept = _kept_data(study_dir).get("data")
    if isinstance(kept, str) and os.path.isabs(kept) and same_place(user_path(kept, DATA_FILE), given):
        return kept
    return os.path.realpath(given)


def _kept_data(study_dir: AnyPath) -> dict[str, Any]:
    """What a study's folder says of its data; empty where it says nothing, which `records.check_data` reports."""
    try:
        found = from_json((study_dir / DATA_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_one_model(models: Sequence[str], study_dir: str) -> None:
    """Raises a FlanError where two models are one: a folder by other names, or a copy of it."""
    own = user_path(study_dir) / "models"  # where the study itself puts the packaged ones
    folders = [(model, own / model if model in READY else user_path(model, "MODELS")) for model in models]
    for (first, folder), (second, other) in itertools.combinations(folders, 2):
        if same_place(folder, other):
            raise FlanError(f"MODELS has {first!r} and {second!r}, which are one folder: leave one out.")
    weights = {model: _weights(folder) for model, folder in folders}
    for first, second in itertools.combinations(models, 2):
        if weights[first] is not None and weights[first] == weights[second]:
            raise FlanError(f"MODELS has {first!r} and {second!r}, which have the same weights: leave one out.")


def _weights(folder: AnyPath) -> str | None:
    """A digest of the weights in a checkpoint folder; None where none are there yet, or an earlier version saved it."""
    try:
        return adapters.weights(folder, steps[-1]) if (steps := choosing.steps(folder)) else None
    except (FlanError, OSError):  # the first step that reads it says it
        return None


def _refuse_within(datasets: Sequence[str]) -> None:
    """Raises a FlanError where a dataset is evaluated by its own name and by that of its cluster, or of a whole."""
    each = {name: {one.name for record in catalog.named(name) for one in catalog.variants(record)} for name in datasets}
    for first, second in itertools.permutations(datasets, 2):
        if each[first] <= each[second]:
            raise FlanError(
                f"DATASETS has {first!r} and {second!r}, and the second has all of the first: leave one out."
            )

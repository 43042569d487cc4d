"""Datasets as SeqIO tasks and mixtures.

    import seqio
    from flan_jax.data import tasks
    tasks.register(data="tfds")
    seqio.get_mixture_or_task("flan_without_nli").get_dataset(...)

`flan_<dataset>` shows every example through one template, which a hash chooses anew for each epoch.
`flan_<dataset>_t<k>` shows every example through template k. A variant that evaluation scores separately, such as
`wmt14_enfr/fr-en`, has tasks too; characters that SeqIO does not allow become `_`: `flan_wmt14_enfr_fr_en`. A task with
`_score_eval` at its end has an example for each option of a record, for a model to score. All of these also exist in a
style (`flan_rte_5_shots_t3_score_eval`; see `flan_jax.styles`), and so do the mixtures of `catalog.mixture`. A name
with a style, or with a number of datasets, is made when SeqIO asks for it.

Importing this module gives SeqIO the names, with the defaults of `Settings`, unless `register` was called. Neither
opens a source; that happens when a dataset is asked for. T5X finds the names by `MIXTURE_OR_TASK_MODULE =
"flan_jax.mixtures"`, which also takes settings from gin.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import seqio

from flan_jax import catalog, files, metrics, protocol, styles, values
from flan_jax.data import seqio_examples, seqio_registry, seqio_scoring, seqio_vocabulary, sources, vocabularies
from flan_jax.data.catalog_tasks import CatalogTask, OpenMixture
from flan_jax.data.records import choose_template, exemplar_pool, num_renderings, records, text_records
from flan_jax.data.seqio_scoring import RANKED
from flan_jax.data.seqio_source import CatalogSource
from flan_jax.errors import FlanError, unknown_name

__all__ = ["Settings", "choose_template", "exemplar_pool", "num_renderings", "records", "register", "text_records"]

_PREFIX = "flan_"
_TEMPLATE = re.compile(r"_t(\d+)$")
_ENVIRONMENT = "FLAN_JAX_SEQIO_"  # followed by VOCABULARY, DATA or SEED


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that all tasks share.

    Attributes:
      vocabulary: of inputs and targets: a `seqio.Vocabulary`, a tokenizer of `flan_jax.data.vocabularies`, or a path.
      data: "samples", "tfds" or a folder, see `sources.open_source`.
      seed: the seed of templates, exemplars and shuffled options.
    """

    vocabulary: Any = "bytes"
    data: str | files.AnyPath = sources.SAMPLES
    seed: int = 0

    @classmethod
    def of_environment(cls) -> Settings:
        """The defaults, or the values of FLAN_JAX_SEQIO_VOCABULARY, FLAN_JAX_SEQIO_DATA and FLAN_JAX_SEQIO_SEED.

        Raises:
          FlanError: the seed is not a number.
        """
        found = {field.name: os.environ.get(_ENVIRONMENT + field.name.upper()) for field in dataclasses.fields(cls)}
        given: dict[str, Any] = {name: value for name, value in found.items() if value}
        if "seed" in given:
            if not given["seed"].isdecimal():
                raise FlanError(f"{_ENVIRONMENT}SEED is {given['seed']!r}; give a whole number, 0 or more.")
            given["seed"] = int(given["seed"])
        return cls(**given)

    def checked(self) -> Settings:
        """The same settings after checking data and seed, with `~` replaced by the home folder.

        A vocabulary is checked when it is read.

        Raises:
          FlanError: a folder that does not exist, or an impossible seed.
        """
        seed = values.checked("seed", values.Whole(0, values.SEEDS), self.seed)
        if self.data in values.OUR_DATA:
            return dataclasses.replace(self, seed=seed)
        folder = files.user_path(self.data, "data")
        if not folder.is_dir():
            raise FlanError(f"no folder {folder}: data is samples, tfds, or a folder of data.")
        return dataclasses.replace(self, data=folder, seed=seed)


@dataclasses.dataclass(frozen=True)
class _TaskName:
    """The parts of a task's name."""

    record: catalog.Dataset
    style: styles.TextStyle
    number: int | None
    is_ranked: bool

    @classmethod
    def parse(cls, name: str) -> _TaskName | None:
        """The parts of a name; None if there is no such task."""
        rest = name.removesuffix(RANKED)
        number = _TEMPLATE.search(rest)
        try:
            base, style = styles.split_name(_TEMPLATE.sub("", rest))
        except FlanError:
            return None
        if base not in _bases():
            return None
        found = cls(_bases()[base], style, int(number[1]) if number else None, rest != name)
        asked = protocol.of(found.record, style)
        allowed = asked.forward if found.is_ranked else asked.numbers
        exists = (number is None or found.number in allowed) and (asked.ranked or not found.is_ranked)
        return found if exists and str(found) == name else None

    def __str__(self) -> str:
        number = "" if self.number is None else f"_t{self.number}"
        return f"{_base(self.record)}{self.style.suffix}{number}{RANKED if self.is_ranked else ''}"


def _base(record: catalog.Dataset) -> str:
    """The name of a dataset's or variant's task in the paper's style."""
    return _PREFIX + re.sub(r"\W", "_", record.name)


@functools.cache
def _bases() -> dict[str, catalog.Dataset]:
    """Datasets, and the variants of those that have some, by the names of their tasks."""
    found: dict[str, catalog.Dataset] = {}
    for record in catalog.datasets():
        found |= {_base(one): one for one in (record, *catalog.variants(record))}
    return found


def _mixture(name: str) -> tuple[catalog.Dataset, ...]:
    """The datasets of a mixture, with or without a style at the end of its name; () if there is none."""
    try:
        base, style = styles.split_name(name)
        members = catalog.mixture(base)
    except FlanError:
        return ()
    is_task = len(members) == 1 and members[0].name in (base, base.removeprefix(_PREFIX))
    return () if is_task or base + style.suffix != name else members


def _rate(task: CatalogTask) -> float:
    return float(task.rate)


class _Maker:
    """Makes the tasks and mixtures for some settings."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._given = settings
        self._sources: dict[str, CatalogSource] = {}

    @functools.cached_property
    def _settings(self) -> Settings:
        return self._given().checked()

    @functools.cached_property
    def _features(self) -> dict[str, seqio.Feature]:
        vocabulary = seqio_vocabulary.of(self._settings.vocabulary)[0]
        return {name: seqio.Feature(vocabulary, add_eos=True) for name in ("inputs", "targets")}

    def task(self, name: str) -> seqio.Task:
        """The task with that name."""
        asked = _TaskName.parse(name)
        record, style = asked.record, asked.style
        source = self._sources.setdefault(record.name, CatalogSource(record, self._settings.data))
        examples = functools.partial(
            seqio_examples.to_examples,
            record=record,
            source=source,
            style=style,
            number=asked.number,
            seed=self._settings.seed,
            ranked=asked.is_ranked,
        )
        is_forward = asked.number is None or protocol.of(record, style).templates[asked.number].is_forward
        scored = record.metrics if is_forward else ()  # none of our metrics measures what an inverted template asks for
        after = seqio_scoring.postprocess_option if asked.is_ranked else seqio_scoring.postprocess
        return CatalogTask(
            name,
            source=source,
            preprocessors=[seqio.CacheDatasetPlaceholder(), examples],
            output_features=self._features,
            postprocess_fn=functools.partial(after, record=record),
            metric_fns=[(seqio_scoring.ranked if asked.is_ranked else metrics.metric)(m) for m in scored],
        )

    def mixture(self, name: str) -> seqio.Mixture:
        """The mixture with that name."""
        style = styles.split_name(name)[1]
        members = [str(_TaskName(record, style, None, False)) for record in _mixture(name)]
        return OpenMixture(name, [(member, _rate) for member in members])


@functools.cache
def _listed() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(tasks, mixtures) that SeqIO lists: those in the paper's style."""
    found = []
    for record in _bases().values():
        asked = protocol.of(record)
        of_record = [(None, False), *((number, False) for number in asked.numbers)]
        of_record += [(None, True), *((number, True) for number in asked.forward)] if asked.ranked else []
        found += [str(_TaskName(record, styles.PAPER, number, is_ranked)) for number, is_ranked in of_record]
    return tuple(found), tuple(name for name in catalog.mixture_names() if _mixture(name))


def _unknown(name: str) -> FlanError | None:
    """The error for a name that nobody has registered, if it begins like ours."""
    if not name.lower().startswith(_PREFIX.rstrip("_")):
        return None
    if _exists(name):
        return FlanError(
            f"task or mixture {name!r} is no longer in SeqIO's registry, which was reset or had it removed; "
            "flan_jax.data.tasks.register() puts all of them back."
        )
    rest = name.removesuffix(RANKED)
    number = _TEMPLATE.search(rest)
    base, style = styles.split_name(_TEMPLATE.sub("", rest))  # raises for styles that exclude each other
    ending = style.suffix + (number[0] if number else "") + name[len(rest) :]
    known = [known + ending for known in (*_bases(), *_listed()[1]) if _exists(known + ending)]
    if base + ending not in known:  # there is no such template, or no style was recognized
        known += [listed for listed in (*_listed()[0], *_listed()[1]) if number or not _TEMPLATE.search(listed)]
    return unknown_name("task or mixture", name, set(known))


def _exists(name: str) -> bool:
    return _TaskName.parse(name) is not None or bool(_mixture(name))


_is_given = False  # whether `register` was called


def offer(settings: Callable[[], Settings], names: Sequence[str] = ()) -> None:
    """Gives SeqIO the names, unless `register` was called. For modules that do so when they are imported.

    Args:
      settings: called when the first task or mixture is asked for.
      names: see `register`.

    Raises:
      FlanError: an unknown name, with near matches.
    """
    if not _is_given:
        _offer(settings, names)


def _offer(settings: Callable[[], Settings], names: Sequence[str] = ()) -> None:
    for name in names:
        if not _exists(name):
            raise _unknown(name) or unknown_name("task or mixture", name, _listed()[1])
    maker = _Maker(settings)
    more = [name for name in names if name not in _listed()[0] + _listed()[1]]
    mixtures = [name for name in more if _mixture(name)]
    tasks = [name for name in more if name not in mixtures]
    of_tasks, of_mixtures = map(seqio_registry.lazy, (seqio.TaskRegistry, seqio.MixtureRegistry))
    for name, mixture in of_mixtures.of_others.items():
        if old := sorted((of_tasks.made | of_mixtures.made) & set(mixture.rate_per_task_name)):
            logging.warning("mixture %s keeps %s as registered before; make it again.", name, ", ".join(old))
    of_tasks.offer([*_listed()[0], *tasks], lambda name: _TaskName.parse(name) is not None, maker.task)
    of_mixtures.offer([*_listed()[1], *mixtures], lambda name: bool(_mixture(name)), maker.mixture)
    seqio_registry.explain(_unknown)


def register(
    vocabulary: seqio.Vocabulary | vocabularies.Tokenizer | str | files.AnyPath | None = None,
    data: str | files.AnyPath = sources.SAMPLES,
    seed: int = 0,
    names: Sequence[str] = (),
) -> None:
    """Registers every dataset, template and mixture with SeqIO, in place of what an earlier call registered.

    Args:
      vocabulary: of inputs and targets, see `Settings`; None takes bytes.
      data: "samples", "tfds" or a folder, see `sources.open_source`.
      seed: the seed of templates, exemplars and shuffled options.
      names: further names for SeqIO to list, with a style or a number of datasets; `seqio_cache_tasks` only finds
        listed names. Code that asks for "flan_rte_5_shots" or "flan_first_7_clusters_2_datasets" finds it anyway.

    Raises:
      FlanError: a vocabulary that cannot be used, a folder that does not exist, or an unknown name, with near matches.
    """
    global _is_given
    vocabulary = seqio_vocabulary.of("bytes" if vocabulary is None else vocabulary)[0]
    settings = Settings(vocabulary, data, seed).checked()
    _offer(lambda: settings, names)
    _is_given = True


offer(Settings.of_environment)

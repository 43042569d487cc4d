"""What a study compares: models that it tunes, arms of them, and their evaluations. `commands` has the steps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax import catalog, parts, styles
from flan_jax.errors import FlanError
from flan_jax.evaluation import labels
from flan_jax.parts import kinds
from flan_jax.studies.settings import Settings

_WITHOUT = "flan_without_"


@dataclasses.dataclass(frozen=True)
class Tuning:
    """A model that a study tunes.

    Attributes:
      model: of MODELS, which it starts from.
      mixture: MIXTURE_OR_TASK_NAME: a name, or what a file of a mixture holds.
      seed: of the order of its rows.
      macros: of `flan_jax.train`, over the study's TRAIN.
      start: a model that is tuned further in place of `model` itself.
    """

    model: str
    mixture: str | Mapping[str, Any]
    seed: int
    macros: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    start: Tuning | None = None

    @functools.cached_property  # a plan asks hundreds of times
    def parts(self) -> parts.Mixture:
        """The mixture's parts."""
        return parts.of(self.mixture)

    @property
    def stages(self) -> tuple[Tuning, ...]:
        """The model that it starts from, where that is tuned too, and itself."""
        return (*(self.start.stages if self.start else ()), self)

    @property
    def clusters(self) -> frozenset[str]:
        """What it was tuned on, what it starts from included."""
        own = frozenset(record.cluster for record in self.parts.datasets)
        return own | (self.start.clusters if self.start else frozenset())


@dataclasses.dataclass(frozen=True)
class Arm:
    """One of the things that a study compares: a model, or one for each seed, asked in one style.

    Attributes:
      name: in tables and figures.
      model: of MODELS.
      datasets: names of clusters and datasets that it is evaluated on.
      style: how records become prompts.
      tunings: one for each seed; none for the model as it is.
      status: what its scores have to be: "held out", or "seen" where a study is about that.
      x: its place on the axis of what is varied.
      evaluate: macros of `flan_jax.eval`, over the study's EVAL.
    """

    name: str
    model: str
    datasets: tuple[str, ...]
    style: str = styles.INSTRUCTIONS
    tunings: tuple[Tuning, ...] = ()
    status: str = labels.HELD_OUT
    x: float | None = None
    evaluate: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def evaluations(self, settings: Settings) -> list[Evaluation]:
        """Its evaluations: of each tuned model or of the model itself, a cluster or dataset each."""
        macros = {**settings.evaluate, **self.evaluate}
        if not self.tunings:
            macros.pop("PARAMETERS", None)  # a mean over steps is of tuned models alone
        return [
            Evaluation(self.model, tuning, dataset, self.style, macros, self.status)
            for tuning in self.tunings or (None,)
            for dataset in self.datasets
        ]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation of one model on one cluster or dataset, in one style. See `Arm` for the attributes."""

    model: str
    tuning: Tuning | None
    dataset: str
    style: str
    macros: Mapping[str, Any]
    status: str


def resolved(tuning: Tuning, train: Mapping[str, Any]) -> Tuning:
    """A tuning with all of its macros, the study's TRAIN among them; those that make its mixture are in the mixture.

    Raises:
      FlanError: they make no mixture.
    """
    found = {**train, **tuning.macros}
    own = {key: found[key.upper()] for key in kinds.BY_KEY if found.get(key.upper()) is not None}
    found |= {key.upper(): None for key in own}  # said once, also where this is done again
    mixture = parts.of(tuning.mixture, **own).value if own else tuning.mixture
    start = None if tuning.start is None else resolved(tuning.start, train)
    return dataclasses.replace(tuning, mixture=mixture, macros=found, start=start)


def without(evaluated: Iterable[str], mixture: str = "flan") -> dict[str, Any]:
    """A mixture less what the paper's rule holds out with any of several, and what shares text with one of them.

    Args:
      evaluated: names of datasets and clusters.
      mixture: its name.
    """
    records = [record for name in evaluated for record in catalog.named(name)]
    kin = {other for record in records for other in catalog.kin_of(record.name)}
    out = [
        member.name
        for member in parts.of(mixture).datasets
        if {member.name, member.paper_dataset} & kin
        or not all(catalog.is_held_out(record, (member.cluster,)) for record in records)
    ]
    return {"mixture": mixture, "weights": dict.fromkeys(sorted(out), 0)}


def without_kin(mixture: str, evaluated: Iterable[str]) -> str | dict[str, Any]:
    """A mixture less the datasets that share text with what is evaluated, as the catalog declares it.

    Args:
      mixture: its name.
      evaluated: names of datasets and clusters.
    """
    records = [record for name in evaluated for record in catalog.named(name)]
    kin = {other for record in records for other in catalog.kin_of(record.name)}
    members = parts.of(mixture).datasets
    out = sorted({r.name for r in members if {r.name, r.paper_dataset} & kin})
    return {"mixture": mixture, "weights": dict.fromkeys(out, 0)} if out else mixture


def held_out_mixture(cluster: str, ending: str = "") -> str | dict[str, Any]:
    """FLAN without a cluster, what the paper holds out with it, and what shares text with it (paper, section 2.2).

    Args:
      cluster: its name.
      ending: of the mixture's name, such as "_no_template".

    >>> held_out_mixture("paraphrase")
    'flan_without_paraphrase'
    >>> held_out_mixture("reading_comprehension")["weights"]["qnli"]  # its passages are SQuAD's
    0
    """
    return without_kin(f"{_WITHOUT}{cluster}{ending}", (cluster,))


def check(arms: Sequence[Arm]) -> None:
    """Makes sure that no arm scores what its model was tuned on, unless the study says so.

    Raises:
      FlanError: an arm that would mix seen and held out; the line names the arm, the dataset and the mixture.
    """
    for arm in arms:
        if arm.status != labels.HELD_OUT:
            continue
        for tuning in arm.tunings:
            for record in (record for name in arm.datasets for record in catalog.named(name)):
                if not catalog.is_held_out(record, tuning.clusters):
                    raise FlanError(
                        f"{arm.name}: {record.name} would be scored as held out, and mixture {tuning.parts.title} has "
                        "clusters that the paper's rule counts with it: leave it out of one of the two."
                    )
                if shared := sorted(kin_in(record, tuning)):
                    raise FlanError(
                        f"{arm.name}: {record.name} would be scored as held out, and mixture {tuning.parts.title} has "
                        f"{shared[0]}, which shares text with it: give it a weight of 0."
                    )


def kin_in(record: catalog.Dataset, tuning: Tuning) -> set[str]:
    """The datasets of a tuned model's mixtures that share text with a dataset."""
    kin = set(catalog.kin_of(record.name))
    own = {member.name for member in tuning.parts.datasets if {member.name, member.paper_dataset} & kin}
    return own | (kin_in(record, tuning.start) if tuning.start else set())

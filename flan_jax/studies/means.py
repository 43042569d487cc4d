"""Scores over several clusters, of which each may have an arm of its own: one whose models were tuned without it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import styles
from flan_jax.errors import FlanError
from flan_jax.studies import figures
from flan_jax.studies.plan import Arm, Tuning, held_out_mixture
from flan_jax.studies.results import Gain, Results, Score, corrected, mean_gain, mean_score
from flan_jax.studies.settings import Settings

MEAN = "mean"  # of all clusters, beside their names


@dataclasses.dataclass(frozen=True)
class Group:
    """What a study compares: an arm for each cluster, which differ in what their models held out.

    Attributes:
      name: in tables and legends.
      arms: by cluster; one arm may be that of several.
      x: its place on the axis of what is varied.
    """

    name: str
    arms: Mapping[str, Arm]
    x: float | None = None

    @property
    def each(self) -> list[Arm]:
        """Its arms, each once."""
        return list({arm.name: arm for arm in self.arms.values()}.values())


def of_one(
    settings: Settings, name: str, model: str, style: str, tunings: Sequence[Tuning] = (), x: float | None = None
) -> Group:
    """One arm for all clusters: the model as it is, or models that hold all of them out, a seed each."""
    every = tuple(dataset for cluster in settings.clusters for dataset in settings.evaluated(cluster))
    arm = Arm(name, model, every, style, tuple(tunings), x=x)
    return Group(name, dict.fromkeys(settings.clusters, arm), x)


def untuned_name(style: str) -> str:
    """What the untuned model is called, asked in a style.

    >>> [untuned_name("instructions"), untuned_name("gpt3"), untuned_name("5_shots")]
    ['untuned', "untuned, GPT-3's manner", 'untuned, 5_shots']
    """
    return {styles.INSTRUCTIONS: "untuned", styles.GPT3: "untuned, GPT-3's manner"}.get(style, f"untuned, {style}")


def untuned(settings: Settings, model: str | None = None, before: str = "") -> list[Group]:
    """A model as it is, asked in each style of BASELINES.

    Args:
      settings: of the study.
      model: of MODELS; None takes the first.
      before: what their names begin with.
    """
    model = model or settings.model
    return [of_one(settings, f"{before}{untuned_name(style)}", model, style) for style in settings.baselines]


def held_out(
    settings: Settings,
    name: str,
    *,
    model: str | None = None,
    ending: str = "",
    style: str | None = None,
    x: float | None = None,
) -> Group:
    """For each cluster the models that were tuned without it, a seed each.

    Args:
      settings: of the study.
      name: of the group; an arm is called so, and "without" its cluster.
      model: of MODELS; None takes the first.
      ending: of the mixtures' names, such as "_no_template".
      style: in which they are asked; None takes the study's.
      x: its place on the axis of what is varied.
    """
    model = model or settings.model
    arms = {}
    for cluster in settings.clusters:
        tunings = tuple(Tuning(model, held_out_mixture(cluster, ending), seed) for seed in settings.seeds)
        asked = (settings.evaluated(cluster), style or settings.style)
        arms[cluster] = Arm(f"{name}, without {cluster}", model, *asked, tunings)
    return Group(name, arms, x)


def arms_of(groups: Sequence[Group]) -> list[Arm]:
    """The arms of groups, each once."""
    return list({arm.name: arm for group in groups for arm in group.each}.values())


class Means:
    """The scores of groups, over the datasets that all of them have.

    Attributes:
      datasets: of each cluster that has any; a cluster of which the groups share nothing is in no mean.
      missing: the clusters that have none.
    """

    def __init__(self, results: Results, groups: Sequence[Group]) -> None:
        """Finds what the groups share.

        Raises:
          FlanError: they share no dataset at all.
        """
        self._results, self.groups = results, tuple(groups)
        clusters = [cluster for cluster in groups[0].arms if all(cluster in group.arms for group in groups)]
        shared = {c: results.shared(c, [group.arms[c].name for group in groups]) for c in clusters}
        self.datasets = {cluster: names for cluster, names in shared.items() if names}
        self.missing = [cluster for cluster in clusters if not shared[cluster]]
        if not self.datasets:
            raise FlanError(
                f"the data have no dataset of {', '.join(clusters)} that was scored for all that the study compares: "
                "give other CLUSTERS, or DATA with test examples of these."
            )

    @property
    def names(self) -> list[str]:
        """The clusters, and "mean" where there are several."""
        return [*self.datasets, *([MEAN] if len(self.datasets) > 1 else [])]

    @property
    def whole(self) -> str:
        """What stands for all: "mean", or the only cluster."""
        return self.names[-1]

    @property
    def mean_first(self) -> list[str]:
        """The same, with the mean before its clusters, as figures have them."""
        return [*self.names[len(self.datasets) :], *self.datasets]

    def count(self, name: str) -> int:
        """How many datasets a cluster's mean is over, or all clusters' together."""
        return sum(map(len, self.datasets.values())) if name == MEAN else len(self.datasets[name])

    def score(self, group: Group, name: str) -> Score:
        """Of a cluster, or of "mean": the mean of the clusters' means."""
        if name != MEAN:
            return self._results.mean(group.arms[name].name, self.datasets[name], name)
        return mean_score(MEAN, [self.score(group, cluster) for cluster in self.datasets])

    def over_templates(self, group: Group, name: str) -> float | None:
        """The standard deviation over templates, mean of a cluster's datasets, or of the clusters."""
        if name == MEAN:
            found = [self.over_templates(group, cluster) for cluster in self.datasets]
        else:
            arm = group.arms[name].name
            found = [self._results.score(arm, dataset).over_templates for dataset in self.datasets[name]]
        known = [one for one in found if one is not None]
        return statistics.fmean(known) if known else None

    def exemplars(self, group: Group, name: str) -> float | None:
        """How many exemplars its prompts have, the mean over a cluster's datasets and the seeds, or over the clusters.

        Fewer fit beside a long text. None where results do not say it.
        """
        if name == MEAN:
            found = [self.exemplars(group, cluster) for cluster in self.datasets]
        else:
            arm = group.arms[name].name
            found = [self._results.exemplars(arm, dataset) for dataset in self.datasets[name]]
        return None if None in found else statistics.fmean(one for one in found if one is not None)

    def gain(self, group: Group, others: Sequence[Group], name: str) -> Gain:
        """A group beside the better of others: for "mean", the mean of the clusters' gains. Not corrected."""
        if name == MEAN:
            return mean_gain([self.gain(group, others, cluster) for cluster in self.datasets], MEAN)
        beside = {other.arms[name].name: other.name for other in others}
        found = self._results.gain(group.arms[name].name, [*beside], name, self.datasets[name])
        return dataclasses.replace(found, beside=beside[found.beside])

    def compared(self, pairs: Mapping[str, tuple[Group, Sequence[Group]]]) -> dict[str, dict[str, Gain]]:
        """Groups beside others, corrected for all clusters and pairs together.

        Args:
          pairs: (group, others) by what the comparison is called.

        Returns:
          The gains by comparison, and by cluster and "mean".
        """
        places = [(title, name) for title in pairs for name in self.names]
        found = corrected([self.gain(*pairs[title], name) for title, name in places])
        out: dict[str, dict[str, Gain]] = {title: {} for title in pairs}
        for (title, name), gain in zip(places, found, strict=True):
            out[title][name] = gain
        return out

    def line(self, title: str, groups: Sequence[Group], name: str) -> figures.Series:
        """A line over what is varied, with the standard deviation over seeds as its bars, in percent."""
        scores = [self.score(group, name) for group in groups]
        return figures.Series(
            title,
            [100 * score.mean for score in scores],
            [None if score.std is None else 100 * score.std for score in scores],
            [group.x for group in groups],
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; shares from 0 to 1."""
        return {
            group.name: {
                name: {"mean": score.mean, "of_seeds": list(score.runs), "over_templates": spread}
                for name in self.names
                for score, spread in [(self.score(group, name), self.over_templates(group, name))]
            }
            | ({} if group.x is None else {"x": group.x})
            for group in self.groups
        }


def gains_dict(found: Mapping[str, Mapping[str, Gain]]) -> dict[str, Any]:
    """Gains for JSON, by comparison and name."""
    return {title: {name: gain.to_dict() for name, gain in gains.items()} for title, gains in found.items()}

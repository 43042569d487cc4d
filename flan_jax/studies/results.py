"""The scores of a study: of every arm, with what it is beside another arm, and nothing that mixes kinds of scores."""

from __future__ import annotations

import collections
import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax.errors import FlanError
from flan_jax.evaluation import clusters
from flan_jax.files import AnyPath
from flan_jax.reporting import comparisons, groups
from flan_jax.reporting import runs as finished
from flan_jax.reporting.comparisons import Difference
from flan_jax.reporting.evidence import Evidence, gather
from flan_jax.reporting.runs import Run, UnusableError
from flan_jax.reporting.statistics import LEVEL, holm
from flan_jax.studies import comparable, outcomes
from flan_jax.studies.commands import Commands
from flan_jax.studies.plan import Arm
from flan_jax.values import shown


@dataclasses.dataclass(frozen=True)
class Score:
    """What an arm has on a dataset, or a cluster's mean.

    Attributes:
      name: of the dataset or cluster.
      mean: over templates and seeds, 0 to 1.
      runs: of each seed; one value for a model that is not tuned.
      std: over seeds; None of a single run.
      over_templates: standard deviation over templates, mean of the seeds; None of a cluster or a single template.
      examples: test examples; of a cluster, of its smallest dataset.
      metric: its name; empty for a cluster.
      random: what guessing gives; None where nothing can be guessed.
      copied: what repeating the given text as the answer gives; None where text is not generated.
    """

    name: str
    mean: float
    runs: tuple[float, ...]
    std: float | None
    over_templates: float | None
    examples: int
    metric: str
    random: float | None
    copied: float | None


@dataclasses.dataclass(frozen=True)
class Gain:
    """An arm beside the better of some others.

    Attributes:
      name: of the dataset or cluster.
      beside: the arm that it is compared with, the better of them on these very examples.
      difference: see `reporting.comparisons.Difference`; means over the seeds.
      of_seeds: the difference of each seed by itself.
      corrected: p after Holm's correction over all gains of the study; None where there is no test.
      interval: of the difference, at a level of 95 % for all gains of the study together, over examples and templates.
    """

    name: str
    beside: str
    difference: Difference
    of_seeds: tuple[float, ...]
    corrected: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def value(self) -> float:
        """The difference, -1 to 1."""
        return self.difference.interval.value

    @property
    def verdict(self) -> str:
        """ "gain" or "loss": where the interval is without 0, the corrected p below 5 %, and all seeds agree."""
        if self.interval is None or self.corrected is None:
            return comparisons.TOO_FEW
        low, high = self.interval
        alike = all(one > 0 for one in self.of_seeds) or all(one < 0 for one in self.of_seeds)
        if low <= 0 <= high or self.corrected >= LEVEL or not alike:
            return ""
        return "gain" if self.value > 0 else "loss"

    def to_dict(self) -> dict[str, Any]:
        """For JSON; shares from -1 to 1."""
        return {
            "name": self.name,
            "beside": self.beside,
            "difference": self.value,
            "of_seeds": list(self.of_seeds),
            "examples": self.difference.examples,
            "p": self.difference.p,
            "p_holm": self.corrected,
            "interval": None if self.interval is None else list(self.interval),
            "verdict": self.verdict,
        }


def mean_score(name: str, scores: Sequence[Score]) -> Score:
    """The mean of several scores: of a cluster's datasets, or of clusters.

    Args:
      name: of the mean.
      scores: of the same seeds.

    Returns:
      Means and standard deviation over seeds, the fewest examples, and what guessing and copying give where that is
      known of all.
    """
    runs = tuple(statistics.fmean(values) for values in zip(*(one.runs for one in scores), strict=True))
    return Score(
        name,
        statistics.fmean(runs),
        runs,
        statistics.stdev(runs) if len(runs) > 1 else None,
        None,
        min(one.examples for one in scores),
        "",
        _mean_if_known([one.random for one in scores]),
        _mean_if_known([one.copied for one in scores]),
    )


def _mean_if_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


class Results:
    """The finished evaluations of a study's arms."""

    def __init__(self, commands: Commands) -> None:
        """Reads them.

        Raises:
          FlanError: one is missing or broken; or a score is not of the kind that its arm is to have: held out or seen,
            zero-shot or few-shot, of as many examples as the others.
        """
        self.arms: dict[str, Arm] = {arm.name: arm for arm in commands.arms}
        if len(self.arms) < len(commands.arms):
            raise FlanError("a study has two arms of one name.")
        self._runs: dict[str, list[Run]] = {}
        self._folders: dict[tuple[str, str], list[AnyPath]] = collections.defaultdict(list)
        self._evaluations: dict[str, list[Run]] = collections.defaultdict(list)
        for arm in commands.arms:
            found = [self._load(commands, arm, number) for number in range(max(1, len(arm.tunings)))]
            self._runs[arm.name] = found
        comparable.check_examples(commands.arms, self._runs, commands.settings)
        comparable.check_resolved(self._evaluations)
        self._pairs: dict[tuple[str, str], Evidence] = {}

    def _load(self, commands: Commands, arm: Arm, number: int) -> Run:
        """One seed's evaluations of an arm, all its datasets together.

        Raises:
          FlanError: a folder that does not hold what its step writes.
        """
        tuning = arm.tunings[number] if arm.tunings else None
        each = [one for one in arm.evaluations(commands.settings) if one.tuning is tuning]
        name = arm.name if len(arm.tunings) < 2 else f"{arm.name} seed {tuning.seed}"
        for one in each:
            if problem := outcomes.problem_of_evaluation(commands, one):
                raise FlanError(f"{arm.name}: {commands.output_of(one)} {problem}: run the study again.")
        loaded = [finished.load_run(name, commands.output_of(one)) for one in each]
        for run in loaded:
            self._check(arm, run)
        if len(distinct := dict.fromkeys(str(run.results.get("weights")) for run in loaded)) > 1:
            folders = ", ".join(str(run.output_dir) for run in loaded)
            raise FlanError(
                f"{name}: its weights are {' and '.join(distinct)}, and should be one: remove {folders}, and run the "
                "study again."
            )
        self._evaluations[arm.name] += loaded
        for run in loaded:
            for dataset in run.results["datasets"]:
                self._folders[arm.name, dataset].append(run.output_dir)
        datasets = {dataset: figures for run in loaded for dataset, figures in run.results["datasets"].items()}
        whole = {**loaded[0].results, "datasets": datasets, "clusters": {}}
        whole["invalid"] = [one for run in loaded for one in run.results.get("invalid", ())]
        whole["skipped"] = [one for run in loaded for one in run.results.get("skipped", ())]
        lines = {d: self._lines(run, d) for run in loaded for d in run.results["datasets"]}
        return Run(name, whole, None, lines)

    @staticmethod
    def _lines(run: Run, dataset: str) -> dict[int, list[dict[str, Any]]]:
        """The predictions of a dataset.

        Raises:
          FlanError: they are gone or damaged, which the evaluation mends when its results are gone too.
        """
        try:
            lines = finished.predictions(run, dataset)
            why = "are not there"
        except UnusableError as error:
            lines, why = {}, f"cannot be used ({error})"
        if not lines:
            raise FlanError(
                f"the predictions of {dataset} in {run.output_dir} {why}: remove results.json there, and run the study "
                "again."
            )
        return lines

    def _check(self, arm: Arm, run: Run) -> None:
        for dataset, figures in run.datasets.items():
            if figures["status"] != arm.status:
                raise FlanError(
                    f"{arm.name}: {dataset} is {figures['status'] or 'of no known status'} for its model, and this "
                    f"study has scores that are {arm.status}: nothing is reported."
                )
        computation = run.results["settings"].get("computation")
        if not isinstance(computation or {}, Mapping):
            raise FlanError(
                f"{arm.name}: {run.output_dir} has a computation of {shown(computation)}, which is no dictionary "
                "of its fields: remove results.json there, and run the study again."
            )
        if invalid := run.results.get("invalid"):
            why = str(invalid[0]["reason"]).rstrip(".")
            raise FlanError(
                f"{arm.name}: {invalid[0]['dataset']} has no result in {run.output_dir} ({why}): remove results.json "
                "there, and run the study again."
            )

    def _places(self, arms: Sequence[str], dataset: str) -> str:
        return ", ".join(dict.fromkeys(str(one) for arm in arms for one in self._folders[arm, dataset]))

    # ------------------------------------------------------------------------------------------------------ figures

    @property
    def datasets(self) -> dict[str, list[str]]:
        """The datasets that any arm has, by cluster, in the catalog's order."""
        return finished.by_cluster([run for runs in self._runs.values() for run in runs])

    def runs(self, arm: str) -> Sequence[Run]:
        """The run of each seed."""
        return self._runs[arm]

    def has(self, arm: str, dataset: str) -> bool:
        """Whether an arm has a dataset."""
        return all(dataset in run.datasets for run in self._runs[arm])

    def score(self, arm: str, dataset: str) -> Score:
        """Of a dataset."""
        each = [run.datasets[dataset] for run in self._runs[arm]]
        means = tuple(figures["mean"] for figures in each)
        spreads = [figures["std"] for figures in each if len(figures["templates"]) > 1]
        return Score(
            dataset,
            statistics.fmean(means),
            means,
            statistics.stdev(means) if len(means) > 1 else None,
            statistics.fmean(spreads) if spreads else None,
            each[0]["examples"],
            clusters.headline_metric(each[0]),
            each[0].get("random"),
            each[0].get("copied"),
        )

    def exemplars(self, arm: str, dataset: str) -> float | None:
        """How many exemplars the prompts of a dataset have, the mean over prompts and seeds; None if not known."""
        runs = self._runs[arm]
        if not runs[0].style.shots:
            return 0.0
        found = [run.datasets[dataset].get("shots") for run in runs]
        return None if None in found else statistics.fmean(one["mean"] for one in found)

    def shared(self, cluster: str, arms: Sequence[str]) -> tuple[str, ...]:
        """The datasets of a cluster's mean: the paper's, that all these arms have."""
        over = finished.common([run for arm in arms for run in self._runs[arm]])
        if cluster in over and (other := over[cluster].other_metric):
            raise FlanError(
                f"{other[0]} is measured by different metrics, or versions of one: remove results.json in "
                f"{self._places(arms, other[0])}, and run the study again."
            )
        found = over[cluster].datasets if cluster in over else ()
        return tuple(dataset for dataset in found if all(self.has(arm, dataset) for arm in arms))

    def mean(self, arm: str, datasets: Sequence[str], name: str) -> Score:
        """Of several datasets, as of a cluster."""
        return mean_score(name, [self.score(arm, dataset) for dataset in datasets])

    def best(self, arms: Sequence[str], datasets: Sequence[str]) -> str:
        """The arm with the highest mean over datasets."""
        return max(arms, key=lambda arm: self.mean(arm, datasets, "").mean)

    # ------------------------------------------------------------------------------------------------------- gains

    def gains(self, arm: str, others: Sequence[str], cluster: str) -> tuple[Gain | None, list[Gain]]:
        """An arm beside the better of others, for a cluster's mean and for each of its datasets.

        The better one is chosen for the mean and for each dataset by itself, on the test examples, which can only make
        a gain smaller.

        Returns:
          (of the cluster's mean, of each dataset); the first is None where the arms share no dataset. Not corrected.
        """
        shared = self.shared(cluster, [arm, *others])
        if not shared:
            return None, []
        each = [self.gain(arm, others, name, (name,)) for name in shared]
        return self.gain(arm, others, cluster, shared), each

    def gain(self, arm: str, others: Sequence[str], name: str, datasets: Sequence[str]) -> Gain:
        """An arm beside the better of others on the mean of some datasets, which all have. Not corrected."""
        beside = self.best(others, datasets)
        difference = self._difference(beside, self.together(arm), datasets, name)
        base = self.mean(beside, datasets, name).mean
        of_seeds = tuple(value - base for value in self.mean(arm, datasets, name).runs)
        return Gain(name, beside, difference, of_seeds)

    def together(self, arm: str) -> Run:
        """The runs of an arm's seeds as one."""
        runs = self._runs[arm]
        return runs[0] if len(runs) == 1 else groups.as_one(arm, runs)

    def _difference(self, beside: str, run: Run, datasets: Sequence[str], name: str) -> Difference:
        key = (beside, run.name)
        if key not in self._pairs:
            first = self.together(beside)
            other = run if run.name != first.name else dataclasses.replace(run, name=f"{run.name} (other)")
            self._pairs[key] = gather([first, other])
        comparison = self._pairs[key].comparisons[0]
        for dataset in datasets:
            if dataset in comparison.apart:
                raise FlanError(
                    f"{beside} and {run.name} cannot be compared on {dataset}: {comparison.apart[dataset]}."
                )
        for dataset in datasets:
            if dataset not in comparison.datasets:
                unusable = self._pairs[key].unusable.items()
                of_run = {name: of[dataset] for name, of in unusable if dataset in of}
                of_seeds = ((arm, self.together(arm).results["skipped"]) for arm in (beside, run.name))
                of_run |= {arm: o["reason"] for arm, out in of_seeds for o in out if o["dataset"] == dataset}
                name, why = next(iter(of_run.items()), (f"{beside} or {run.name}", "no predictions are at hand"))
                names = (name,) if name in self._runs else (beside, run.name)
                raise FlanError(
                    f"{dataset} has no values of single examples in {name} ({why}): remove "
                    f"{self._places(names, dataset)}, and run the study again."
                )
        found = [comparison.datasets[dataset] for dataset in datasets]
        for dataset, difference in zip(datasets, found, strict=True):
            if difference.examples != (of := run.datasets[dataset]["examples"]):
                raise FlanError(
                    f"{beside} and {run.name} share {difference.examples} of {of} records of {dataset}: a study "
                    "compares the same ones. Give another STUDY_DIR."
                )
        return found[0] if len(found) == 1 else comparisons.of_cluster(found)


def mean_gain(gains: Sequence[Gain], name: str) -> Gain:
    """The mean of the gains of clusters, each beside its own better arm. Not corrected."""
    beside = " and ".join(dict.fromkeys(gain.beside for gain in gains))
    of_seeds = tuple(statistics.fmean(each) for each in zip(*(gain.of_seeds for gain in gains), strict=True))
    return Gain(name, beside, comparisons.of_cluster([gain.difference for gain in gains]), of_seeds)


def tests(gains: Iterable[Gain]) -> int:
    """How many of corrected gains have a test; the others are of too few examples."""
    return sum(gain.corrected is not None for gain in gains)


def corrected(gains: Sequence[Gain]) -> list[Gain]:
    """Gains with Holm's p over all of them, and intervals that hold for all together (Bonferroni).

    An interval is the difference less and more z times its bootstrap standard error, over examples and templates where
    there are several templates; z is that of a level of 5 % over the number of gains.
    """
    tested = {number: gain.difference.p for number, gain in enumerate(gains) if gain.difference.p is not None}
    p_values = holm(tested)
    z = statistics.NormalDist().inv_cdf(1 - LEVEL / 2 / max(1, len(tested)))
    out = []
    for number, gain in enumerate(gains):
        wide = gain.difference.over_templates or gain.difference.interval
        error = wide.stderr
        if number not in tested or error is None:
            out.append(gain)
            continue
        interval = (gain.value - z * error, gain.value + z * error)
        out.append(dataclasses.replace(gain, corrected=p_values[number], interval=interval))
    return out

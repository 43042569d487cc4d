"""Does tuning make a model depend less on how it is asked? Not in the paper, which shows it of few-shot prompts.

From the evaluations of `held_out_clusters`, with the same models: nothing is run twice. The untuned model is asked
with instructions alone, since GPT-3's manner has one wording.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np

from flan_jax.reporting.runs import template_value
from flan_jax.reporting.statistics import LEVEL, holm, p_value, permuted_means
from flan_jax.reporting.tables import NONE, Table, cluster_title, percent, signed
from flan_jax.studies import figures
from flan_jax.studies.commands import Commands
from flan_jax.studies.document import Shown
from flan_jax.studies.kinds import Study
from flan_jax.studies.kinds.held_out_clusters import TUNED, arms, tuned_name
from flan_jax.studies.means import untuned_name
from flan_jax.studies.results import Results
from flan_jax.studies.settings import Settings
from flan_jax.wording import counted

ALL = "all clusters"
_FEWEST = 6  # datasets of a test: of fewer, no swap of signs is rarer than 5 %


@dataclasses.dataclass(frozen=True)
class Spread:
    """A dataset's scores by template, of one arm; 0 to 1, means over the seeds.

    Attributes:
      values: of each template.
      std: over the templates, the mean over the seeds.
    """

    values: tuple[float, ...]
    std: float

    @property
    def mean(self) -> float:
        """Over the templates."""
        return statistics.fmean(self.values)

    @property
    def range(self) -> float:
        """From the worst template to the best."""
        return max(self.values) - min(self.values)


@dataclasses.dataclass(frozen=True)
class Change:
    """What tuning does to the spread over templates of some datasets.

    Attributes:
      stds: untuned and tuned, means over the datasets.
      datasets: how many.
      p: of a test that swaps the two at random in each dataset; None of too few.
      corrected: p after Holm's correction over all tests of the study.
    """

    stds: tuple[float, float]
    datasets: int
    p: float | None
    corrected: float | None = None

    @property
    def value(self) -> float:
        """Tuned less untuned."""
        return self.stds[1] - self.stds[0]

    @property
    def verdict(self) -> str:
        """ "narrower" or "wider" where the corrected p is below 5 %."""
        if self.corrected is None:
            return f"fewer than {_FEWEST} datasets"
        return "" if self.corrected >= LEVEL else "narrower" if self.value < 0 else "wider"


def plan(settings: Settings) -> Commands:
    """The commands of `held_out_clusters`, less those of GPT-3's manner."""
    return Commands(settings, arms(dataclasses.replace(settings, baselines=(settings.style,))))


def untuned(settings: Settings) -> str:
    """The arm of the untuned model."""
    return untuned_name(settings.style)


def spread(results: Results, arm: str, dataset: str) -> Spread:
    """Of a dataset with several templates."""
    each = [
        {one["template"]: template_value(one) for one in run.datasets[dataset]["templates"]}
        for run in results.runs(arm)
    ]
    values = tuple(statistics.fmean(one[number] for one in each) for number in each[0])
    return Spread(values, results.score(arm, dataset).over_templates or 0.0)


def change(pairs: Sequence[tuple[Spread, Spread]]) -> Change:
    """Of datasets, each (untuned, tuned)."""
    differences = np.array([after.std - before.std for before, after in pairs])
    p = None
    if len(pairs) >= _FEWEST:
        p = p_value(float(differences.mean()), permuted_means(differences, np.random.default_rng(len(pairs))))
    stds = tuple(statistics.fmean(pair[i].std for pair in pairs) for i in (0, 1))
    return Change(stds, len(pairs), p)


def show(commands: Commands) -> Shown:
    """The spread over templates of each dataset, untuned beside tuned, and the change in each cluster."""
    results, settings = Results(commands), commands.settings
    found = {
        cluster: {
            name: tuple(spread(results, arm, name) for arm in (untuned(settings), tuned_name(cluster)))
            for name in results.shared(cluster, [untuned(settings), tuned_name(cluster)])
        }
        for cluster in settings.clusters
    }
    found = {cluster: pairs for cluster, pairs in found.items() if pairs}
    changes = {cluster: change(list(pairs.values())) for cluster, pairs in found.items()}
    if len(found) > 1:
        changes[ALL] = change([pair for pairs in found.values() for pair in pairs.values()])
    p_values = holm({name: one.p for name, one in changes.items() if one.p is not None})
    changes = {name: dataclasses.replace(one, corrected=p_values.get(name)) for name, one in changes.items()}
    return Shown(
        said=_said(changes, len(p_values)),
        tables={
            "Spread over templates": _table(found),
            "Change of the spread": _changes(changes),
        },
        figures=tuple(_figure(settings, cluster, pairs) for cluster, pairs in found.items()),
        data={
            "clusters": {name: dataclasses.asdict(one) | {"verdict": one.verdict} for name, one in changes.items()},
            "datasets": {
                name: {"untuned": dataclasses.asdict(pair[0]), TUNED: dataclasses.asdict(pair[1])}
                for pairs in found.values()
                for name, pair in pairs.items()
            },
        },
    )


def _title(name: str) -> str:
    return name if name == ALL else cluster_title(name)


def _said(changes: dict[str, Change], tests: int) -> tuple[str, ...]:
    lines = []
    for word in ("narrower", "wider"):
        if names := [f"{_title(c)} ({signed(one.value)})" for c, one in changes.items() if one.verdict == word]:
            lines.append(f"Tuning makes the spread over templates {word} in: {', '.join(names)}.")
    lines = lines or ["Tuning changes the spread over templates nowhere for sure."]
    lines.append(
        "The spread is the standard deviation over a dataset's forward templates, in points. A model that gives the "
        "same answer whatever it is asked has none either, so read it beside the means."
    )
    if tests:
        lines.append(
            "Tested by swapping untuned and tuned at random in each dataset; Holm's correction is over "
            f"{counted(tests, 'tests')}."
        )
    return tuple(lines)


def _table(found: dict[str, dict[str, tuple[Spread, Spread]]]) -> Table:
    head = ("dataset", "templates", "untuned, mean", "std", "worst to best")
    head += (f"{TUNED}, mean", f"{TUNED}, std", f"{TUNED}, worst to best", "change of std")
    rows = []
    for pairs in found.values():
        for name, (before, after) in pairs.items():
            cells = [
                text
                for one in (before, after)
                for text in (
                    percent(one.mean),
                    percent(one.std),
                    f"{percent(min(one.values))} to {percent(max(one.values))}",
                )
            ]
            rows.append((name, str(len(before.values)), *cells, signed(after.std - before.std)))
    return Table((("", len(head)),), head, rows, frozenset())


def _changes(changes: dict[str, Change]) -> Table:
    head = ("cluster", "datasets", "untuned, std", "tuned, std", "change", "p (Holm)", "verdict")
    rows = [
        (
            _title(name),
            str(one.datasets),
            *(percent(value) for value in one.stds),
            signed(one.value),
            NONE if one.corrected is None else f"{one.corrected:.3f}",
            one.verdict,
        )
        for name, one in changes.items()
    ]
    means = frozenset(number for number, name in enumerate(changes) if name == ALL)
    return Table((("", len(head)),), head, rows, means)


def _figure(settings: Settings, cluster: str, pairs: dict[str, tuple[Spread, Spread]]) -> figures.Figure:
    series = [
        (name, [[100 * value for value in pair[i].values] for pair in pairs.values()])
        for i, name in enumerate((untuned(settings), tuned_name(cluster)))
    ]
    return figures.Figure(
        f"templates_{cluster}",
        cluster_title(cluster),
        "A point is a template's score, the mean over the seeds; the bar is the median.",
        f"scores of each template on the datasets of {cluster_title(cluster)}, untuned and tuned",
        lambda: figures.boxes(list(pairs), series, "score, %"),
    )


STUDY = Study(
    name="template_robustness",
    question="Does tuning make a model depend less on how it is asked?",
    source="not in the paper",
    points="",
    plan=plan,
    show=show,
)

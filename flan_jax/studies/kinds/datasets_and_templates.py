"""Do more datasets a cluster help, or more templates a dataset? Paper, appendix B.1 and Figure 11.

NLI, closed-book QA and commonsense are held out, as in the study of the number of clusters. Of each other cluster the
first 1, 2 or 4 datasets are tuned on, in 1, 4 or 10 of their templates. What shares text with what is evaluated, and
what DATA lacks, is out before datasets are counted, so that no cluster loses its only one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from flan_jax import catalog, parts, styles
from flan_jax.errors import FlanError
from flan_jax.reporting.tables import cluster_title
from flan_jax.studies import figures, paper, tables
from flan_jax.studies.commands import Commands
from flan_jax.studies.document import Shown
from flan_jax.studies.kinds import Study
from flan_jax.studies.means import Group, Means, arms_of, gains_dict, of_one, untuned
from flan_jax.studies.plan import Tuning, without_kin
from flan_jax.studies.results import Results
from flan_jax.studies.settings import Settings
from flan_jax.templates import TEMPLATES_PER_DATASET
from flan_jax.wording import counted

_POINTS = tuple((datasets, templates) for datasets in (1, 2, 4) for templates in (1, 4, TEMPLATES_PER_DATASET))
_ALL = f"flan_first_{max(paper.NUMBER_OF_CLUSTERS)}_clusters"
_PAPERS = "in the paper more datasets add about 10 points, and more templates next to none"


def mixture(settings: Settings, datasets: int, templates: int) -> dict[str, Any]:
    """The first so many datasets of each tuned cluster that are at hand and share no text with what is evaluated.

    Raises:
      FlanError: there are none.
    """
    style = styles.TextStyle(num_templates=templates)
    able = tuple(one for one in parts.of(without_kin(_ALL, settings.clusters)).datasets if settings.has(one))
    if not able:
        raise FlanError(f"{settings.data} has no dataset of the clusters that are tuned on: give other DATA.")
    chosen = {record.name for record in catalog.first_datasets(datasets, able)}
    others = sorted(record.name for record in catalog.mixture(_ALL) if record.name not in chosen)
    return {"mixture": f"{_ALL}{style.suffix}", "weights": dict.fromkeys(others, 0)}


def tuned(settings: Settings) -> dict[tuple[int, int], Group]:
    """The models of each point, by (datasets, templates).

    Raises:
      FlanError: a point that is no pair of them.
    """
    found = {}
    for point in settings.varied(_POINTS):
        is_pair = isinstance(point, Sequence) and len(point) == 2 and all(type(one) is int for one in point)
        if not is_pair or point[0] < 1 or not 1 <= point[1] <= TEMPLATES_PER_DATASET:
            raise FlanError(
                f"POINTS has {point!r}: each is a pair, (datasets a cluster, templates a dataset), such as (2, 4), "
                f"with up to {TEMPLATES_PER_DATASET} templates."
            )
        made = mixture(settings, *point)
        name = f"{counted(point[0], 'datasets')}, {counted(point[1], 'templates')}"
        tunings = tuple(Tuning(settings.model, made, seed) for seed in settings.seeds)
        found[tuple(point)] = of_one(settings, name, settings.model, settings.style, tunings, point[1])
    return dict(sorted(found.items()))


def plan(settings: Settings) -> Commands:
    """The commands."""
    return Commands(settings, arms_of([*untuned(settings), *tuned(settings).values()]))


def show(commands: Commands) -> Shown:
    """Figure 11, and the most beside the fewest, of datasets and of templates."""
    plain, found = untuned(commands.settings), tuned(commands.settings)
    groups = [*plain, *found.values()]
    means = Means(Results(commands), groups)
    gains = means.compared(_pairs(plain, found))
    return Shown(
        said=(
            *(tables.sentence(title, of_pair) for title, of_pair in gains.items()),
            f"{_PAPERS[0].upper()}{_PAPERS[1:]}.",
            *tables.missing(means),
            tables.rule(gains),
        ),
        tables={
            "Held out, by datasets a cluster and templates a dataset": tables.of_means(
                means, groups, {tables.TUNED_ON: tables.tuned_on(commands, found.values())}
            ),
            "Tests": tables.of_gains(gains),
        },
        figures=(_figure(means, found),),
        data={"groups": means.to_dict(), "gains": gains_dict(gains)},
    )


def _pairs(plain: list[Group], found: dict[tuple[int, int], Group]) -> dict[str, tuple[Group, Sequence[Group]]]:
    """The last point beside the untuned model, the one with fewest datasets, and the one with fewest templates."""
    (datasets, templates), last = list(found.items())[-1]
    pairs = {f"{last.name}, beside the better untuned": (last, plain)}
    fewer = (
        next((group for (d, t), group in found.items() if t == templates and d < datasets), None),
        next((group for (d, t), group in found.items() if d == datasets and t < templates), None),
    )
    return pairs | {f"{last.name}, beside {group.name}": (last, [group]) for group in fewer if group is not None}


def _figure(means: Means, found: dict[tuple[int, int], Group]) -> figures.Figure:
    every = sorted({templates for _, templates in found})
    place = {templates: number for number, templates in enumerate(every)}
    panels = []
    for name in means.mean_first:
        series = []
        for datasets in dict.fromkeys(datasets for datasets, _ in found):
            groups = [dataclasses.replace(g, x=place[t]) for (d, t), g in found.items() if d == datasets]
            series.append(means.line(counted(datasets, "datasets"), groups, name))
        panels.append((tables.title(name), series))
    held_out = ", ".join(map(cluster_title, means.datasets))
    return figures.Figure(
        "datasets_and_templates",
        "By datasets and templates",
        f"Held out: {held_out}. A line for each number of datasets a cluster. Bars are standard deviations over seeds, "
        f"where there are several. The paper prints no numbers; {_PAPERS}.",
        "lines over the number of templates, one for each number of datasets",
        lambda: figures.lines(
            panels, "templates a dataset", "mean over datasets, %", [(place[t], str(t)) for t in every]
        ),
    )


STUDY = Study(
    name="datasets_and_templates",
    question="Do more datasets a cluster help on clusters that were never seen, or more templates a dataset?",
    source="paper, appendix B.1, Figure 11",
    points="pairs, datasets a cluster and templates a dataset: {1, 2, 4} x {1, 4, 10}",
    plan=plan,
    show=show,
)

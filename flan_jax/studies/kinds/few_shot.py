"""Do exemplars help a tuned model more than an untuned one? Paper, section 4.4 and Figure 9.

For each cluster models are tuned without it, on prompts without exemplars. They and the untuned model are asked with
up to 0, 1, 4 and 16 exemplars, as many as fit.

Each example has exemplars of its own. With the same ones for all, a score would hang on one draw of them: intervals
over examples would not know of it, and it would count as a difference of templates.
"""

from __future__ import annotations

import dataclasses

from flan_jax import styles
from flan_jax.reporting.tables import NONE, cluster_title, percent
from flan_jax.studies import figures, means, paper, tables
from flan_jax.studies.commands import Commands
from flan_jax.studies.document import Shown
from flan_jax.studies.kinds import Study
from flan_jax.studies.means import Group, Means, arms_of, gains_dict
from flan_jax.studies.results import Results
from flan_jax.studies.settings import Settings
from flan_jax.values import Whole
from flan_jax.wording import counted

_POINTS = (0, 1, 4, styles.MAX_SHOTS)
_TUNED = "tuned"
_ENDS = ("FLAN 137B, zero-shot", "FLAN 137B, few-shot")


@dataclasses.dataclass(frozen=True)
class Point:
    """A number of exemplars.

    Attributes:
      shots: how many.
      plain: the untuned model, in each way of asking it.
      tuned: the models that were tuned without each cluster.
    """

    shots: int
    plain: tuple[Group, ...]
    tuned: Group

    @property
    def groups(self) -> list[Group]:
        """All of it."""
        return [*self.plain, self.tuned]


def with_shots(style: str, shots: int) -> str:
    """A style with so many exemplars, each example with its own."""
    return dataclasses.replace(styles.parse(style), shots=shots).name


def points(settings: Settings) -> list[Point]:
    """The points, by the number of exemplars."""
    found = []
    for shots in sorted(settings.varied(_POINTS, Whole(0, styles.MAX_SHOTS))):
        told = counted(shots, "exemplars")
        asked = [with_shots(style, shots) for style in settings.baselines]
        plain = tuple(
            means.of_one(settings, f"{means.untuned_name(usual)}, {told}", settings.model, style, x=shots)
            for usual, style in zip(settings.baselines, asked, strict=True)
        )
        tuned = means.held_out(settings, f"{_TUNED}, {told}", style=with_shots(settings.style, shots), x=shots)
        found.append(Point(shots, plain, tuned))
    return found


def plan(settings: Settings) -> Commands:
    """The commands."""
    return Commands(settings, arms_of([group for point in points(settings) for group in point.groups]))


def show(commands: Commands) -> Shown:
    """Figure 9, the spread over templates, and what exemplars and tuning give."""
    found = points(commands.settings)
    groups = [group for point in found for group in point.groups]
    scores = Means(Results(commands), groups)
    first, last = found[0], found[-1]
    pairs = {f"Tuned, {counted(p.shots, 'exemplars')}, beside the better untuned": (p.tuned, p.plain) for p in found}
    if first != last:
        pairs[f"Tuned, {counted(last.shots, 'exemplars')}, beside {first.shots}"] = (last.tuned, [first.tuned])
    gains = scores.compared(pairs)
    theirs = {
        end: {name: paper.FEW_SHOT[name][i] for name in scores.datasets if name in paper.FEW_SHOT}
        for i, end in enumerate(_ENDS)
    }
    return Shown(
        said=(
            *(tables.sentence(title, of_pair) for title, of_pair in gains.items()),
            _spread(scores, first, last),
            *tables.missing(scores),
            tables.rule(gains),
        ),
        tables={
            "Held out, by the number of exemplars": tables.of_means(
                scores, groups, {"exemplars that fit, mean": _fitting(scores, groups)}, theirs
            ),
            "Tests": tables.of_gains(gains),
        },
        figures=(_figure(commands.settings, scores, found), _spreads(commands.settings, scores, found)),
        data={
            "groups": scores.to_dict(),
            "exemplars": {g.name: {name: scores.exemplars(g, name) for name in scores.names} for g in groups},
            "gains": gains_dict(gains),
            "paper": theirs,
        },
    )


def _fitting(scores: Means, groups: list[Group]) -> dict[str, str]:
    """How many exemplars the prompts of each group have: fewer fit beside a long text than were asked for."""
    found = {group.name: scores.exemplars(group, scores.whole) for group in groups}
    return {name: NONE if mean is None else f"{mean:.1f}" for name, mean in found.items()}


def _spread(scores: Means, first: Point, last: Point) -> str:
    spreads = [scores.over_templates(point.tuned, scores.whole) for point in (first, last)]
    if None in spreads:
        return "With one template a dataset, nothing can be said of the spread over templates."
    return (
        f"The standard deviation over templates of the tuned model is {percent(spreads[0])} points with {first.shots} "
        f"and {percent(spreads[1])} with {last.shots} exemplars; the paper's shrinks."
    )


def _titles(settings: Settings) -> list[str]:
    return [*map(means.untuned_name, settings.baselines), _TUNED]


def _ticks(found: list[Point]) -> list[tuple[float, str]]:
    return [(place, str(point.shots)) for place, point in enumerate(found)]


def _placed(found: list[Point], way: int) -> list[Group]:
    """A way of asking at each point, evenly spaced: 0, 1 and 4 would lie on each other beside 16."""
    return [dataclasses.replace(point.groups[way], x=place) for place, point in enumerate(found)]


def _figure(settings: Settings, scores: Means, found: list[Point]) -> figures.Figure:
    panels = []
    for name in scores.mean_first:
        series = [scores.line(title, _placed(found, way), name) for way, title in enumerate(_titles(settings))]
        if name in paper.FEW_SHOT and (found[0].shots, found[-1].shots) == (0, styles.MAX_SHOTS):
            ends = [0, len(found) - 1]
            series.append(figures.Series("FLAN 137B (paper)", paper.FEW_SHOT[name], x=ends, reference=True))
        panels.append((tables.title(name), series))
    held_out = ", ".join(map(cluster_title, scores.datasets))
    return figures.Figure(
        "few_shot",
        "By the number of exemplars",
        f"Held out: {held_out}, each of models that were tuned without it. Prompts have up to so many exemplars, as "
        "many as fit. Bars are standard deviations over seeds, where there are several. The paper's few-shot prompts "
        "have up to 16.",
        "lines over the number of exemplars, untuned, tuned, and the paper's",
        lambda: figures.lines(panels, "exemplars", "mean over datasets, %", _ticks(found)),
    )


def _spreads(settings: Settings, scores: Means, found: list[Point]) -> figures.Figure:
    panels = []
    for name in scores.mean_first:
        series = []
        for way, title in enumerate(_titles(settings)):
            groups = _placed(found, way)
            spreads = [scores.over_templates(group, name) for group in groups]
            percents = [None if one is None else 100 * one for one in spreads]
            series.append(figures.Series(title, percents, x=[group.x for group in groups]))
        panels.append((tables.title(name), series))
    return figures.Figure(
        "templates",
        "Spread over templates",
        "The standard deviation over a dataset's templates, mean over datasets and seeds. GPT-3's manner has one "
        "template, and no spread.",
        "lines of the spread over templates, by the number of exemplars",
        lambda: figures.lines(panels, "exemplars", "standard deviation, points", _ticks(found)),
    )


STUDY = Study(
    name="few_shot",
    question="Do exemplars help a model that was tuned without them, on clusters that were never seen?",
    source="paper, section 4.4, Figure 9",
    points="numbers of exemplars, 0 to 16 (0, 1, 4, 16)",
    plan=plan,
    show=show,
)

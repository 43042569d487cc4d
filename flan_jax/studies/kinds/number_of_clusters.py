"""Does tuning on more clusters help those that were never seen? Paper, section 4.1 and Figure 6.

NLI, closed-book QA and commonsense are held out. The others join the mixture, the largest first. What shares text with
what is evaluated stays out at every point.
"""

from __future__ import annotations

import dataclasses

from flan_jax.reporting.tables import cluster_title
from flan_jax.studies import figures, paper, tables
from flan_jax.studies.commands import Commands
from flan_jax.studies.document import Shown
from flan_jax.studies.kinds import Study
from flan_jax.studies.means import Group, Means, arms_of, gains_dict, of_one, untuned
from flan_jax.studies.plan import Tuning, without_kin
from flan_jax.studies.results import Results
from flan_jax.studies.settings import Settings
from flan_jax.values import Whole
from flan_jax.wording import counted

_POINTS = tuple(paper.NUMBER_OF_CLUSTERS)


def tuned(settings: Settings) -> list[Group]:
    """The models that were tuned on the first clusters, for each number of them."""
    found = []
    for count in sorted(settings.varied(_POINTS, Whole(min(_POINTS), max(_POINTS)))):
        mixture = without_kin(f"flan_first_{count}_clusters", settings.clusters)
        tunings = tuple(Tuning(settings.model, mixture, seed) for seed in settings.seeds)
        name = counted(count, "clusters")
        found.append(of_one(settings, name, settings.model, settings.style, tunings, count))
    return found


def plan(settings: Settings) -> Commands:
    """The commands."""
    return Commands(settings, arms_of([*untuned(settings), *tuned(settings)]))


def show(commands: Commands) -> Shown:
    """Figure 6, and what the last point has beside the first and beside the untuned model."""
    plain, varied = untuned(commands.settings), tuned(commands.settings)
    groups = [*plain, *varied]
    means = Means(Results(commands), groups)
    first, last = varied[0], varied[-1]
    pairs = {f"Tuned on {last.name}, beside the better untuned": (last, plain)}
    if first != last:
        pairs[f"Tuned on {last.name}, beside {first.name}"] = (last, [first])
    found = means.compared(pairs)
    columns = {
        tables.TUNED_ON: tables.tuned_on(commands, varied),
        "FLAN 137B, mean of its three": {g.name: f"{paper.NUMBER_OF_CLUSTERS[int(g.x or 0)]:.1f}" for g in varied},
    }
    best = max(varied, key=lambda group: means.score(group, means.whole).mean)
    return Shown(
        said=(
            *(tables.sentence(title, gains) for title, gains in found.items()),
            f"Highest ({tables.title(means.whole)}): {best.name}. The paper's mean rises from 49.9 to 63.5 with 7.",
            *tables.missing(means),
            tables.rule(found),
        ),
        tables={
            "Held out, by the number of clusters that are tuned on": tables.of_means(means, groups, columns),
            "Tests": tables.of_gains(found),
        },
        figures=(_figure(means, plain, varied),),
        data={"groups": means.to_dict(), "gains": gains_dict(found), "paper": paper.NUMBER_OF_CLUSTERS},
    )


def _figure(means: Means, plain: list[Group], varied: list[Group]) -> figures.Figure:
    points = [dataclasses.replace(plain[0], x=0), *varied]
    ours = [means.line(tables.title(name), points, name) for name in means.mean_first]
    ends = [points[0].x, points[-1].x]
    for other in plain[1:]:
        value = 100 * means.score(other, means.whole).mean
        ours.append(figures.Series(f"{other.name}, {tables.title(means.whole)}", [value] * 2, x=ends))
    theirs = paper.NUMBER_OF_CLUSTERS
    of_paper = [
        figures.Series("FLAN 137B, mean of its three clusters", [*theirs.values()], x=[*theirs], reference=True)
    ]
    held_out = ", ".join(map(cluster_title, means.datasets))
    return figures.Figure(
        "number_of_clusters",
        "By the number of clusters",
        f"Held out: {held_out}. Left: 0 is {plain[0].name}; bars are standard deviations over "
        "seeds, where there are several. Right: the paper's 137B model, by the same numbers of clusters.",
        "lines of held-out clusters over the number of clusters that are tuned on, ours and the paper's",
        lambda: figures.lines(
            [("ours", ours), ("FLAN 137B (paper)", of_paper)],
            "clusters that are tuned on",
            "mean over datasets, %",
            [(number, str(number)) for number in range(int(max(_POINTS)) + 1)],
        ),
    )


STUDY = Study(
    name="number_of_clusters",
    question="Does tuning on more clusters help clusters that were never seen?",
    source="paper, section 4.1, Figure 6",
    points="numbers of clusters, 1 to 7",
    plan=plan,
    show=show,
)

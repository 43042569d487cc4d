"""Is it the instructions, or tuning on many tasks whatever they look like? Paper, section 4.3 and Figure 8.

For each cluster models are tuned without it: with instructions, on bare inputs and outputs, and with the dataset's name
in front. They are asked with instructions, and those of names also with names.
"""

from __future__ import annotations

from collections.abc import Sequence

from flan_jax import styles
from flan_jax.errors import FlanError
from flan_jax.reporting.tables import cluster_title
from flan_jax.studies import figures, means, paper, tables
from flan_jax.studies.commands import Commands
from flan_jax.studies.document import Shown
from flan_jax.studies.kinds import Study
from flan_jax.studies.means import Group, Means, arms_of, gains_dict
from flan_jax.studies.results import Results
from flan_jax.studies.settings import Settings

_POINTS = tuple(paper.ROLE_OF_INSTRUCTIONS)
_WORDS = {styles.NO_TEMPLATE: "no template", styles.DATASET_NAME: "dataset names", styles.GPT3: "GPT-3's manner"}


def ways(settings: Settings) -> dict[tuple[str, str], Group]:
    """The models of each point, by (style of tuning, style of asking).

    Raises:
      FlanError: a point that is no pair of styles, or that is asked with exemplars.
    """
    found = {}
    for point in settings.varied(_POINTS):
        if isinstance(point, str) or not isinstance(point, Sequence) or len(point) != 2:
            raise FlanError(
                f"POINTS has {point!r}: each is a pair, (style of tuning, style of asking), such as "
                "('no_template', 'instructions')."
            )
        tuning, asking = (styles.parse(one) for one in point)
        if asking.shots:
            raise FlanError(
                f"POINTS has {point!r}, asked with exemplars, and all that this study compares is zero-shot: leave the "
                "exemplars out of how it is asked; the study few_shot varies their number."
            )
        if (tuning.name, asking.name) in found:
            raise FlanError(f"POINTS has {point!r} twice: leave one out.")
        name = f"tuned with {_words(tuning.name)}, asked with {_words(asking.name)}"
        asked = settings.style if asking == styles.PAPER else asking.name
        found[tuning.name, asking.name] = means.held_out(settings, name, ending=tuning.suffix, style=asked)
    return found


def _words(style: str) -> str:
    return _WORDS.get(style, style)


def plan(settings: Settings) -> Commands:
    """The commands."""
    return Commands(settings, arms_of([*means.untuned(settings), *ways(settings).values()]))


def show(commands: Commands) -> Shown:
    """Figure 8, and the first way beside the others and beside the untuned model."""
    plain, found = means.untuned(commands.settings), ways(commands.settings)
    first, *others = found.values()
    groups = [*plain, *found.values()]
    scores = Means(Results(commands), groups)
    pairs = {f"{_capital(first.name)}, beside the better untuned": (first, plain)}
    pairs |= {f"{_capital(first.name)}, beside {other.name}": (first, [other]) for other in others}
    gains = scores.compared(pairs)
    theirs = {group.name: value for way, group in found.items() if (value := paper.ROLE_OF_INSTRUCTIONS.get(way))}
    best = max(found.values(), key=lambda group: scores.score(group, scores.whole).mean)
    return Shown(
        said=(
            *(tables.sentence(title, of_pair) for title, of_pair in gains.items()),
            f"Highest ({tables.title(scores.whole)}): {best.name}. In the paper: instructions in both.",
            *tables.missing(scores),
            tables.rule(gains),
        ),
        tables={
            "Held out, by what tuning and asking look like": tables.of_means(
                scores, groups, {"FLAN 137B, mean of its four": {name: f"{of:.1f}" for name, of in theirs.items()}}
            ),
            "Tests": tables.of_gains(gains),
        },
        figures=(_figure(scores, groups, theirs),),
        data={"groups": scores.to_dict(), "gains": gains_dict(gains), "paper": theirs},
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _figure(scores: Means, groups: list[Group], theirs: dict[str, float]) -> figures.Figure:
    lanes = [group.name.replace(", ", "\n") for group in groups]
    series = []
    for name in scores.mean_first:
        found = [scores.score(group, name) for group in groups]
        errors = [None if score.std is None else 100 * score.std for score in found]
        series.append(figures.Series(tables.title(name), [100 * score.mean for score in found], errors))
    if theirs:
        values = [theirs.get(group.name) for group in groups]
        series.append(figures.Series("FLAN 137B, mean of its four clusters", values, reference=True))
    held_out = ", ".join(map(cluster_title, scores.datasets))
    return figures.Figure(
        "role_of_instructions",
        "With and without instructions",
        f"Held out: {held_out}, each of models that were tuned without it. The line on a bar is the standard deviation "
        "over seeds, where there are several. The paper's four clusters are NLI, reading comprehension, closed-book QA "
        "and translation.",
        "bars for each way of tuning and asking, ours and the paper's",
        lambda: figures.bars(lanes, series, "mean over datasets, %"),
    )


STUDY = Study(
    name="role_of_instructions",
    question="Is it the instructions that help on clusters that were never seen, or tuning on many tasks alone?",
    source="paper, section 4.3, Figure 8",
    points="pairs of styles, of tuning and of asking: instructions, no_template, dataset_name",
    plan=plan,
    show=show,
)

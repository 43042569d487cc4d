"""Which recipe? Learning rate, batch, loss averaging, joint and styles, chosen by what is tuned on. Not in the paper.

Each point is a model, tuned without CLUSTERS and judged on dev examples of clusters that it is tuned on. Nothing of
what CLUSTERS hold out is looked at, and no test example, so that the recipe may be used where they are evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax import catalog, values
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.errors import FlanError, near_names
from flan_jax.reporting.statistics import MIN_PAIRS
from flan_jax.reporting.tables import Table, cluster_title, percent
from flan_jax.studies import figures, judging, recipes
from flan_jax.studies import plan as plans
from flan_jax.studies.commands import Commands
from flan_jax.studies.document import Shown
from flan_jax.studies.judging import Judged
from flan_jax.studies.kinds import Study
from flan_jax.studies.plan import Arm, Tuning
from flan_jax.studies.results import Gain, corrected
from flan_jax.studies.settings import OWN_TRAIN, Settings, macro_values
from flan_jax.studies.tables import gain_cells

POINTS = (
    {"LEARNING_RATE": 1e-5},
    {"LEARNING_RATE": 1e-4},
    {"LEARNING_RATE": 5e-4},
    {"LEARNING_RATE": 1e-4, "LOSS_AVERAGING": "per_token"},
    {"LEARNING_RATE": 1e-4, "JOINTS": "newline"},
    {"LEARNING_RATE": 1e-4, "STYLES": {"instructions": 1, "without_options": 1}},
)
# One or two of a cluster, quick to score; those of clusters that are not held out are taken.
JUDGED_BY = ("rte", "cb", "copa", "sst2", "glue_mrpc", "arc_easy", "natural_questions", "bool_q", "squad_v1")
JUDGED_BY += ("cosmos_qa", "winogrande", "trec", "wmt16_translate_deen", "ag_news_subset", "samsum", "common_gen")
SEEDS = "SEEDS"  # of a point: its own, in place of the first of TUNING_SEEDS


def name_of(point: Mapping[str, Any]) -> str:
    """What a point is called."""
    words = (f"{key.lower().replace('_', ' ')} {_value(value)}" for key, value in point.items() if key != SEEDS)
    return ", ".join(words) or "as it is"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return " + ".join(f"{key} {_value(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return " + ".join(map(_value, value))
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        return short
    return str(value)  # all digits, so that two values have two names


def points(settings: Settings) -> dict[str, dict[str, Any]]:
    """The macros of each point, by its name.

    Raises:
      FlanError: a point is no dictionary of macros, or sets what the study sets.
    """
    found = {}
    for number, point in enumerate(settings.varied(POINTS)):
        if not isinstance(point, Mapping):
            raise FlanError(f"POINTS[{number}] is {point!r}: a point of a recipe is a dictionary of macros to values.")
        own = {key: value for key, value in point.items() if key != SEEDS}
        macros = macro_values(f"POINTS[{number}]", own, "train", (*OWN_TRAIN, *judging.MACROS))
        if (name := name_of(macros)) in found:
            raise FlanError(f"POINTS has {name!r} twice: leave one out.")
        found[name] = {**macros, SEEDS: _seeds(number, point.get(SEEDS, settings.seeds[:1]))}
    return found


def _seeds(number: int, given: Any) -> tuple[int, ...]:
    kind = values.Several(values.Whole(0, values.SEEDS))
    return tuple(values.checked(f"POINTS[{number}][{SEEDS!r}]", kind, given, "a tuned model each"))


def judged_by(settings: Settings) -> tuple[str, ...]:
    """The datasets whose dev data the points are judged by.

    Raises:
      FlanError: one that is held out, or that the models are not tuned on.
    """
    mixture = plans.resolved(Tuning(settings.model, plans.without(settings.clusters), 0), settings.train)
    tuned_on = {record.name for record in mixture.parts.datasets}
    if settings.judged_by is None:
        found = tuple(name for name in JUDGED_BY if name in tuned_on and settings.has(catalog.dataset(name)))
        if not found:
            raise FlanError(
                "of what a recipe is usually judged by, CLUSTERS hold out all that DATA has: name others by JUDGED_BY."
            )
        return found
    names = [catalog.whole(record.name) for name in settings.judged_by for record in catalog.named(name)]
    for name in names:
        if name not in tuned_on:
            raise FlanError(
                f"JUDGED_BY has {name}, which is held out with CLUSTERS, shares text with them, or is not tuned on: a "
                f"recipe is chosen by what its models are tuned on; {near_names(name, sorted(tuned_on))}"
            )
    return tuple(dict.fromkeys(names))


def tunings(settings: Settings) -> dict[str, tuple[Tuning, ...]]:
    """The models of each point, one for each seed."""
    mixture, judged = plans.without(settings.clusters), judged_by(settings)
    fewest = min(MIN_PAIRS, settings.evaluate.get("MAX_EXAMPLES") or MIN_PAIRS)
    examples = settings.train.get("MAX_DEV_EXAMPLES", fewest)
    found = {}
    for name, point in points(settings).items():
        macros = {key: value for key, value in point.items() if key != SEEDS}
        steps = {**settings.train, **macros}.get("TRAIN_STEPS")
        macros |= judging.watch(steps, judged, examples)
        found[name] = tuple(Tuning(settings.model, mixture, seed, macros) for seed in point[SEEDS])
    return found


def plan(settings: Settings) -> Commands:
    """The commands: trainings alone, which evaluate dev examples after their last step."""
    found = tunings(settings)
    commands = Commands(settings, (), [one for each in found.values() for one in each])
    for name, each in found.items():  # whatever a point's WEIGHTS did to its mixture
        plans.check([Arm(name, settings.model, settings.clusters, tunings=tuple(map(commands.resolved, each)))])
    return commands


def show(commands: Commands) -> Shown:
    """Each point's dev scores and losses, the best of them, and what it is better than."""
    settings, of_points = commands.settings, tunings(commands.settings)
    found = [judging.judged(commands, name, each) for name, each in of_points.items()]
    datasets = judging.shared(found)
    ranked = sorted(found, key=lambda one: one.score(datasets), reverse=True)
    best = ranked[0]
    gains = dict(
        zip(
            [one.name for one in ranked[1:]],
            corrected([judging.less(best, one, datasets) for one in ranked[1:]]),
            strict=True,
        )
    )
    macros = {key: value for key, value in points(settings)[best.name].items() if key != SEEDS}
    tuned = [Manifest.load(commands.model_dir(one)).tuning for each in of_points.values() for one in each]
    chosen = recipes.content(
        macros,
        tuned,
        model=settings.model,
        data=settings.data,
        held_out=list(settings.clusters),
        judged_by=list(datasets),
        tuned_with=dict(settings.train),
        score=best.score(datasets),
        judged={one.name: one.told(datasets) for one in ranked},
    )
    return Shown(
        said=_said(settings, best, gains, datasets),
        tables={"Recipes, on dev examples of clusters that are tuned on": _table(ranked, gains, datasets)},
        figures=_figures(ranked, gains, datasets),
        data={
            "best": best.name,
            "recipe": chosen,
            "points": {
                one.name: {
                    "score": one.score(datasets),
                    "scores": one.scores(datasets),
                    "dev_losses": dict(one.losses),
                    "tokens": one.tokens,
                    "seconds": one.seconds,
                    "best_less_it": gains[one.name].to_dict() if one.name in gains else None,
                }
                for one in ranked
            },
        },
        files={recipes.FILE: chosen},
    )


def _said(settings: Settings, best: Judged, gains: Mapping[str, Gain], datasets: tuple[str, ...]) -> tuple[str, ...]:
    lines = [f"The best of {len(gains) + 1}: {best.name}, {percent(best.score(datasets))} on dev examples."]
    surely = [name for name, gain in gains.items() if gain.verdict == "gain"]
    level = [name for name, gain in gains.items() if gain.value == 0]
    maybe = [name for name in gains if name not in (*surely, *level)]
    if surely:
        lines.append(f"It is better by more than the noise than {'; '.join(surely)}.")
    if level:
        lines.append(f"Level with it: {'; '.join(level)}.")
    if maybe:
        lines.append(f"Not for sure better than {'; '.join(maybe)}.")
    held_out = ", ".join(map(cluster_title, settings.clusters))
    lines.append(
        f"Scores are means over clusters, of dev examples of {len(datasets)} datasets that the models are tuned on. "
        f"Held out from tuning and choosing: {held_out}. No test example was scored."
    )
    lines.append(
        "Noise is that of examples and templates, not of seeds, and the best is chosen on the same examples: the "
        "differences are a little too large. Losses of other averaging, joints or styles cannot be compared."
    )
    return tuple(lines)


def _table(ranked: list[Judged], gains: Mapping[str, Gain], datasets: tuple[str, ...]) -> Table:
    clusters = list(ranked[0].scores(datasets))
    head = ("recipe", "seeds", "dev score, mean", *(f"score, {cluster_title(c)}" for c in clusters), "dev loss, mean")
    head += (*(f"loss, {cluster_title(c)}" for c in clusters), "tokens", "seconds")
    head += ("best less it", "interval", "verdict")
    rows = []
    for one in ranked:
        scores = one.scores(datasets)
        losses = [one.losses.get(c) for c in clusters]
        known = [loss for loss in losses if loss is not None]
        cells = [one.name, str(len(one.runs)), percent(one.score(datasets)), *(percent(scores[c]) for c in clusters)]
        cells += [f"{sum(known) / len(known):.3f}" if known else "–"]
        cells += ["–" if loss is None else f"{loss:.3f}" for loss in losses]
        cells += [f"{one.tokens:,}", f"{one.seconds:,.0f}"]
        rows.append((*cells, *(gain_cells(gains[one.name]) if one.name in gains else ("", "", "best"))))
    return Table((("", len(head)),), head, rows, frozenset({0}))


def _figures(ranked: list[Judged], gains: Mapping[str, Gain], datasets: tuple[str, ...]) -> tuple[figures.Figure, ...]:
    lanes = [_lane(one.name) for one in ranked]
    scores = figures.Series("mean over clusters", [100 * one.score(datasets) for one in ranked])
    each = [
        figures.Series(cluster_title(c), [100 * one.scores(datasets)[c] for one in ranked])
        for c in ranked[0].scores(datasets)
    ]
    found = [
        figures.Figure(
            "scores",
            "Scores",
            "Dev scores of clusters that are tuned on, best recipe first.",
            "dev scores of each recipe",
            lambda: figures.bars(lanes, [scores, *(each if len(each) > 1 else ())], "dev score, %"),
        )
    ]
    if gains:
        half = [None if g.interval is None else 50 * (g.interval[1] - g.interval[0]) for g in gains.values()]
        series = figures.Series("best less it", [100 * g.value for g in gains.values()], half)
        found.append(
            figures.Figure(
                "differences",
                "What the best is better than",
                f"{ranked[0].name} less each other recipe, points; intervals of 95 % for all of them together.",
                "the difference between the best recipe and each other one, with its interval",
                lambda: figures.differences([_lane(name) for name in gains], [series], "points"),
            )
        )
    return tuple(found)


def _lane(name: str) -> str:
    return name.replace(", ", "\n")


STUDY = Study(
    name="recipe",
    question="Which recipe is best on dev data of clusters that are tuned on?",
    source="not in the paper",
    points="dictionaries of macros of a run file; SEEDS in one gives it seeds of its own",
    plan=plan,
    show=show,
    takes_judged_by=True,
)

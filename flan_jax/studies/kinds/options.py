"""What do the options in a prompt do: with the block and without, in another order, with letters? Not in the paper.

The models of `held_out_clusters`, which were tuned with instructions, and the untuned one are asked in each style.
"""

from __future__ import annotations

from collections.abc import Mapping

from flan_jax import catalog, styles
from flan_jax.errors import FlanError
from flan_jax.reporting.tables import Table, cluster_title, percent
from flan_jax.studies import figures
from flan_jax.studies.commands import Commands
from flan_jax.studies.document import Shown
from flan_jax.studies.kinds import Study
from flan_jax.studies.kinds.held_out_clusters import TUNED
from flan_jax.studies.plan import Arm, Tuning, held_out_mixture
from flan_jax.studies.results import Gain, Results, corrected, tests
from flan_jax.studies.settings import Settings
from flan_jax.studies.tables import NOT_TESTED, gain_cells, together
from flan_jax.wording import counted

STYLES = (styles.INSTRUCTIONS, "without_options", "shuffled_options", "lettered_options")
UNTUNED = "untuned"
_CALLED = {
    styles.INSTRUCTIONS: "options shown",
    "without_options": "options not shown",
    "shuffled_options": "in another order",
    "lettered_options": "lettered",
}


def called(style: str) -> str:
    """What a style is called in tables and figures."""
    return _CALLED.get(style, style)


def asked(settings: Settings) -> tuple[str, ...]:
    """The styles that are compared; the first is what the others stand beside.

    Raises:
      FlanError: a style that shows no options of instructions' and does not leave them out either.
    """
    found = tuple(styles.parse(style) for style in settings.varied(STYLES))
    for style in found:
        if style.words != styles.INSTRUCTIONS or style.shots:
            raise FlanError(f"POINTS has {style.name}: the study compares instructions, such as {', '.join(STYLES)}.")
        if found.count(style) > 1:
            raise FlanError(f"POINTS has the style {style.name} twice: leave one out.")
    return tuple(style.name for style in found)


def with_options(settings: Settings, cluster: str) -> tuple[str, ...]:
    """What of a cluster has options, for an evaluation: the cluster where all of it has, or those that DATA has.

    Raises:
      FlanError: there is none.
    """
    named = settings.evaluated(cluster)
    records = [record for name in named for record in catalog.named(name)]
    found = [record.name for record in records if record.kind == catalog.CLASSIFICATION]
    if len(found) == len(records):
        return named
    if there := tuple(name for name in found if name in named or settings.has(catalog.dataset(name))):
        return there
    raise FlanError(f"CLUSTERS has {cluster}, of which DATA has no dataset with options: leave it out.")


def untuned_name(style: str) -> str:
    """The arm of the untuned model in a style."""
    return f"{UNTUNED}, {called(style)}"


def tuned_name(cluster: str, style: str) -> str:
    """The arm of the models tuned without a cluster, in a style."""
    return f"{TUNED} without {cluster}, {called(style)}"


def plan(settings: Settings) -> Commands:
    """The commands."""
    arms = []
    for style in asked(settings):
        datasets = tuple(name for cluster in settings.clusters for name in with_options(settings, cluster))
        arms.append(Arm(untuned_name(style), settings.model, datasets, style))
        for cluster in settings.clusters:
            tunings = tuple(Tuning(settings.model, held_out_mixture(cluster), seed) for seed in settings.seeds)
            arms.append(
                Arm(tuned_name(cluster, style), settings.model, with_options(settings, cluster), style, tunings)
            )
    return Commands(settings, arms)


def show(commands: Commands) -> Shown:
    """Each cluster's mean in each style, tuned and untuned, and what tuning and each style change."""
    results, settings = Results(commands), commands.settings
    every = asked(settings)
    shared: dict[str, tuple[str, ...]] = {}
    gains: dict[tuple[str, str, str], Gain] = {}  # by cluster, style, and what is compared
    for cluster in settings.clusters:
        names = {style: (untuned_name(style), tuned_name(cluster, style)) for style in every}
        if not (over := results.shared(cluster, [arm for pair in names.values() for arm in pair])):
            continue
        shared[cluster] = over
        for style, (untuned, tuned) in names.items():
            gains[cluster, style, TUNED] = results.gain(tuned, [untuned], cluster, over)
            if style != every[0]:
                gains[cluster, style, "style, untuned"] = results.gain(untuned, [names[every[0]][0]], cluster, over)
                gains[cluster, style, "style, tuned"] = results.gain(tuned, [names[every[0]][1]], cluster, over)
    tested = dict(zip(gains, corrected(list(gains.values())), strict=True))
    return Shown(
        said=_said(tested, every),
        tables={"Ways to show options": _table(results, shared, every, tested)},
        figures=tuple(_figure(results, cluster, over, every) for cluster, over in shared.items()),
        data={
            "gains": [{"cluster": c, "style": s, "of": of, **gain.to_dict()} for (c, s, of), gain in tested.items()],
            "means": {
                cluster: {
                    style: {
                        UNTUNED: results.mean(untuned_name(style), over, cluster).mean,
                        TUNED: results.mean(tuned_name(cluster, style), over, cluster).mean,
                    }
                    for style in every
                }
                for cluster, over in shared.items()
            },
            "datasets": {cluster: list(over) for cluster, over in shared.items()},
        },
    )


def _said(tested: Mapping[tuple[str, str, str], Gain], every: tuple[str, ...]) -> tuple[str, ...]:
    lines = []
    for verdict, word in (("gain", "gains"), ("loss", "loses")):
        for of, who in (
            (TUNED, "Tuning"),
            ("style, untuned", "The untuned model"),
            ("style, tuned", "The tuned model"),
        ):
            found = [
                f"{cluster_title(c)}, {called(s)}"
                for (c, s, what), g in tested.items()
                if what == of and g.verdict == verdict
            ]
            beside = "" if of == TUNED else f" beside {called(every[0])}"
            if found:
                lines.append(f"{who} {word}{beside} in: {'; '.join(found)}.")
    lines = lines or ["Neither tuning nor a way to show options makes a difference for sure."]
    count = tests(tested.values())
    where = f"A difference counts where {together(count)} is without 0, Holm's p is below 5 %, and all seeds agree."
    lines.append(f"The models were tuned with options shown. {where if count else NOT_TESTED}")
    return tuple(lines)


def _table(
    results: Results,
    shared: Mapping[str, tuple[str, ...]],
    every: tuple[str, ...],
    tested: Mapping[tuple[str, str, str], Gain],
) -> Table:
    head = ("cluster", "options", "guessing", UNTUNED, TUNED, "tuning changes", "interval", "verdict")
    head += tuple(
        f"{who} beside {called(every[0])}{more}" for who in (UNTUNED, TUNED) for more in ("", ": interval", ": verdict")
    )
    rows = []
    for cluster, over in shared.items():
        for style in every:
            untuned = results.mean(untuned_name(style), over, cluster)
            tuned = results.mean(tuned_name(cluster, style), over, cluster)
            cells = [f"{cluster_title(cluster)}, mean of {len(over)}", called(style), percent(untuned.random)]
            cells += [percent(untuned.mean), percent(tuned.mean)]
            for of in (TUNED, "style, untuned", "style, tuned"):
                gain = tested.get((cluster, style, of))
                cells += gain_cells(gain) if gain else ("", "", "")
            rows.append(tuple(cells))
    return Table((("", len(head)),), head, rows, frozenset())


def _figure(results: Results, cluster: str, over: tuple[str, ...], every: tuple[str, ...]) -> figures.Figure:
    untuned = [results.mean(untuned_name(style), over, cluster) for style in every]
    tuned = [results.mean(tuned_name(cluster, style), over, cluster) for style in every]
    series = [
        figures.Series(UNTUNED, [100 * one.mean for one in untuned]),
        figures.Series(f"{TUNED} without the cluster", [100 * one.mean for one in tuned]),
    ]
    guess = [one.random for one in untuned]
    return figures.Figure(
        f"options_{cluster}",
        cluster_title(cluster),
        f"Means over {counted(len(over), 'datasets')} with options of {cluster_title(cluster)}, zero-shot.",
        f"accuracy on {cluster_title(cluster)} by how options are shown, untuned and tuned",
        lambda: figures.bars([called(style) for style in every], series, "mean over datasets, %", {"guessing": guess}),
    )


STUDY = Study(
    name="options",
    question="What do the options in a prompt do, shown, left out, in another order or lettered?",
    source="not in the paper",
    points=f"styles: {', '.join(STYLES)}",
    plan=plan,
    show=show,
)

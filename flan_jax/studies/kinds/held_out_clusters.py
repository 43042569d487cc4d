"""Does tuning on other clusters help on one that was never seen? Paper, section 3: Table 1 and Figure 5.

For each cluster a model is tuned on the others, by the paper's rule and without what shares text with what is
evaluated; a model a seed. It stands beside the untuned model, asked with instructions and in GPT-3's manner.
"""

from __future__ import annotations

from collections.abc import Sequence

from flan_jax.evaluation import clusters
from flan_jax.reporting.tables import NONE, Table, cluster_title, percent, signed
from flan_jax.studies import figures, paper
from flan_jax.studies.commands import Commands
from flan_jax.studies.document import Shown
from flan_jax.studies.kinds import Study
from flan_jax.studies.means import untuned_name
from flan_jax.studies.plan import Arm, Tuning, held_out_mixture
from flan_jax.studies.results import Gain, Results, Score, corrected, tests
from flan_jax.studies.settings import Settings
from flan_jax.studies.tables import NOT_TESTED, gain_cells, together

TUNED = "tuned"


def tuned_name(cluster: str) -> str:
    """What the models tuned without a cluster are called."""
    return f"{TUNED} without {cluster}"


def arms(settings: Settings) -> list[Arm]:
    """The untuned model in each style, and for each cluster the models that were tuned without it."""
    every = tuple(name for cluster in settings.clusters for name in settings.evaluated(cluster))
    found = [Arm(untuned_name(style), settings.model, every, style) for style in settings.baselines]
    for cluster in settings.clusters:
        tunings = tuple(Tuning(settings.model, held_out_mixture(cluster), seed) for seed in settings.seeds)
        found.append(Arm(tuned_name(cluster), settings.model, settings.evaluated(cluster), settings.style, tunings))
    return found


def plan(settings: Settings) -> Commands:
    """The commands."""
    return Commands(settings, arms(settings))


def show(commands: Commands) -> Shown:
    """Table 1 and Figure 5, with intervals, corrected tests, and what tuning harms."""
    results, settings = Results(commands), commands.settings
    baselines = [untuned_name(style) for style in settings.baselines]
    whole: dict[str, Gain] = {}
    each: dict[str, Gain] = {}
    for cluster in settings.clusters:
        found, of_datasets = results.gains(tuned_name(cluster), baselines, cluster)
        if found is not None:
            whole[cluster] = found
            each |= {gain.name: gain for gain in of_datasets}
    several = {c: gain for c, gain in whole.items() if len(_shared(results, c, baselines)) > 1}
    tested = corrected([*several.values(), *each.values()])
    by_name = {gain.name: gain for gain in tested}
    means = {c: by_name[c] if c in several else by_name[_shared(results, c, baselines)[0]] for c in whole}
    return Shown(
        said=_said(
            means,
            by_name,
            tests(tested),
            {c: _count(_shared(results, c, baselines), c) for c in means},
            len(settings.seeds),
            _below_copying(results, baselines, list(means)),
        ),
        tables={"Held out clusters, zero-shot": _table(results, baselines, means, by_name)},
        figures=_figures(results, baselines, means),
        data={
            "clusters": {
                c: {"gain": gain.to_dict(), **_means(results, baselines, c)} | {"paper": paper.ZERO_SHOT.get(c)}
                for c, gain in means.items()
            },
            "datasets": {name: gain.to_dict() for name, gain in by_name.items() if name in each},
            "tests": tests(tested),
        },
    )


def _shared(results: Results, cluster: str, baselines: list[str]) -> tuple[str, ...]:
    return results.shared(cluster, [tuned_name(cluster), *baselines])


def _count(shared: Sequence[str], cluster: str) -> str:
    return f"{len(shared)} of {len(clusters.members(cluster))} datasets"


def _means(results: Results, baselines: list[str], cluster: str) -> dict[str, object]:
    shared = _shared(results, cluster, baselines)
    tuned = results.mean(tuned_name(cluster), shared, cluster)
    untuned = {name: results.mean(name, shared, cluster).mean for name in baselines}
    without = {"guessing": tuned.random, "copying": tuned.copied}
    of_model = {"tuned": tuned.mean, "tuned_of_seeds": list(tuned.runs), "untuned": untuned}
    return {**of_model, **without, "datasets": list(shared)}


def _below_copying(results: Results, baselines: list[str], names: Sequence[str]) -> list[str]:
    """Datasets on which the tuned models have less than the given text repeated: "common_gen (45.6)"."""
    scores = [results.score(tuned_name(c), name) for c in names for name in _shared(results, c, baselines)]
    return [f"{s.name} ({percent(s.copied)})" for s in scores if s.copied is not None and s.mean < s.copied]


def _said(
    means: dict[str, Gain],
    by_name: dict[str, Gain],
    count: int,
    counts: dict[str, str],
    seeds: int,
    below_copying: Sequence[str],
) -> tuple[str, ...]:
    """The plain reading.

    Args:
      means: of each cluster.
      by_name: of datasets and clusters.
      count: how many comparisons are tested.
      counts: of how many datasets each cluster's mean is, as "1 of 4 datasets".
      seeds: tuned models of each cluster.
      below_copying: see `_below_copying`.
    """
    lines = []
    for verdict, word in (("gain", "gain"), ("loss", "lose")):
        found = [
            f"{cluster_title(c)} ({signed(g.value)} points, {counts[c]})"
            for c, g in means.items()
            if g.verdict == verdict
        ]
        lines.append(f"Clusters that {word}: {', '.join(found)}." if found else f"No cluster {word}s for sure.")
    harmed = [name for name, gain in by_name.items() if gain.verdict == "loss" and name not in means]
    lines.append(
        f"Datasets on which tuning hurts: {', '.join(harmed)}." if harmed else "Tuning hurts no dataset for sure."
    )
    counts_where = f"It counts where {together(count)} is above 0, Holm's p is below 5 %, and every seed gains."
    lines.append(
        "A gain is the mean over seeds less the better of the untuned model's two ways of being asked. "
        f"{counts_where if count else NOT_TESTED}"
    )
    if below_copying:
        lines.append(
            f"Repeating the given text as the answer has more than the tuned models on {', '.join(below_copying)}: "
            "there the metric rewards shared words, and a gain may be of copying."
        )
    if seeds == 1:
        lines.append(
            "One seed: another order of the rows may give another difference, which the interval does not hold."
        )
    return tuple(lines)


def _cell(score: Score) -> str:
    spread = "" if score.std is None else f" ± {percent(score.std)}"
    return f"{percent(score.mean)}{spread}"


def _table(results: Results, baselines: list[str], means: dict[str, Gain], by_name: dict[str, Gain]) -> Table:
    head = ("dataset", "metric", "n", "guessing", "copying", *baselines, "tuned, mean ± std of seeds", "gain")
    head += ("interval", "verdict", "beside", *("GPT-3 175B", "FLAN 137B"))
    rows, bold = [], set()
    for cluster, found in means.items():
        shared = _shared(results, cluster, baselines)
        for name in shared:
            score = results.score(tuned_name(cluster), name)
            untuned = [percent(results.score(one, name).mean) for one in baselines]
            gain = by_name[name]
            own = (percent(score.random), percent(score.copied))
            cells = (name, score.metric, str(score.examples), *own, *untuned, _cell(score))
            rows.append((*cells, *gain_cells(gain), gain.beside, "", ""))
        bold.add(len(rows))
        score = results.mean(tuned_name(cluster), shared, cluster)
        untuned = [percent(results.mean(one, shared, cluster).mean) for one in baselines]
        theirs = paper.ZERO_SHOT.get(cluster, {})
        printed = [f"{theirs[name]:.1f}" if name in theirs else "" for name in ("GPT-3 175B", "FLAN 137B")]
        title = f"{cluster_title(cluster)}, mean of {_count(shared, cluster)}"
        cells = (title, "", "", percent(score.random), percent(score.copied), *untuned, _cell(score))
        rows.append((*cells, *gain_cells(found), found.beside, *printed))
    kept = [
        i for i, name in enumerate(head) if name not in ("guessing", "copying") or any(row[i] != NONE for row in rows)
    ]
    shown = [tuple(row[i] for i in kept) for row in rows]
    return Table((("", len(kept)),), tuple(head[i] for i in kept), shown, frozenset(bold))


def _figures(results: Results, baselines: list[str], means: dict[str, Gain]) -> tuple[figures.Figure, ...]:
    names = list(means)
    shared = {c: _shared(results, c, baselines) for c in names}
    lanes = [f"{cluster_title(c)}\n{_count(shared[c], c)}" for c in names]
    series = [figures.Series(one, [100 * results.mean(one, shared[c], c).mean for c in names]) for one in baselines]
    tuned = [results.mean(tuned_name(c), shared[c], c) for c in names]
    half = [None if g.interval is None else 50 * (g.interval[1] - g.interval[0]) for g in means.values()]
    series.append(figures.Series("tuned without the cluster", [100 * s.mean for s in tuned], half))
    for name in ("GPT-3 175B", "FLAN 137B"):
        printed = [paper.ZERO_SHOT.get(c, {}).get(name) for c in names]
        if any(value is not None for value in printed):
            series.append(figures.Series(f"{name} (paper)", printed, reference=True))
    without = {"guessing": [s.random for s in tuned], "copying": [s.copied for s in tuned]}
    gains = figures.Series("tuned less the better untuned", [100 * g.value for g in means.values()], half)
    return (
        figures.Figure(
            "clusters",
            "Clusters",
            "Zero-shot means over each cluster's datasets. The line on a bar of the tuned models is the corrected 95 % "
            "interval of their difference from the better untuned bar. Guessing is for options; copying repeats the "
            "given text as the answer.",
            "bars of each cluster: untuned twice, tuned, and the paper's",
            lambda: figures.bars(lanes, series, "mean over datasets, %", without),
        ),
        figures.Figure(
            "gains",
            "Gains",
            "Tuned less the better of the untuned model's ways of being asked, points; intervals of 95 % for all "
            "comparisons of this study together.",
            "the difference that tuning makes to each cluster, with its interval",
            lambda: figures.differences(lanes, [gains], "points"),
        ),
    )


STUDY = Study(
    name="held_out_clusters",
    question="Does tuning on other clusters help on a cluster that was never seen?",
    source="paper, section 3, Table 1 and Figure 5",
    points="",
    plan=plan,
    show=show,
)

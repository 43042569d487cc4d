"""What studies have in common of their tables and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flan_jax.checkpoint.manifest import Manifest
from flan_jax.reporting.comparisons import TOO_FEW
from flan_jax.reporting.tables import Table, cluster_title, percent, signed
from flan_jax.studies.commands import Commands
from flan_jax.studies.means import MEAN, Group, Means
from flan_jax.studies.results import Gain, Score, tests
from flan_jax.wording import counted

TUNED_ON = "tuned on"
NOT_TESTED = "Nothing has enough test examples for a test, so nothing here is a finding."


def title(name: str) -> str:
    """A cluster's title, or that of the mean over clusters."""
    return "mean of clusters" if name == MEAN else cluster_title(name)


def cell(score: Score) -> str:
    """A mean, with the standard deviation over seeds where there are several."""
    return percent(score.mean) + ("" if score.std is None else f" ± {percent(score.std)}")


def of_means(
    means: Means,
    groups: Sequence[Group],
    columns: Mapping[str, Mapping[str, str]] | None = None,
    references: Mapping[str, Mapping[str, float]] | None = None,
) -> Table:
    """A row a group, a column a cluster and one for their mean.

    Args:
      means: of these groups.
      groups: rows.
      columns: further ones by title: what stands there for a group, by its name.
      references: further rows by title: what the paper has for a cluster or "mean", in percent.
    """
    columns, references = columns or {}, references or {}
    head = ("", *map(title, means.names), *columns)
    rows = []
    for group in groups:
        more = [of.get(group.name, "") for of in columns.values()]
        rows.append((group.name, *(cell(means.score(group, name)) for name in means.names), *more))
    empty = [""] * len(columns)
    for name, of in references.items():
        rows.append((name, *(f"{of[one]:.1f}" if one in of else "" for one in means.names), *empty))
    scores = [means.score(groups[0], name) for name in means.names]
    rows.append(("guessing", *(percent(score.random) for score in scores), *empty))
    if any(score.copied is not None for score in scores):
        rows.append(("copying", *(percent(score.copied) for score in scores), *empty))
    rows.append(("datasets", *(str(means.count(name)) for name in means.names), *empty))
    return Table((("", len(head)),), head, rows)


def tuned_on(commands: Commands, groups: Iterable[Group]) -> dict[str, str]:
    """What the models of groups were in fact tuned on, by their manifests: a mixture names what data may lack."""
    said = {}
    for group in groups:
        found = set()
        for tuning in (tuning for arm in group.each for tuning in arm.tunings):
            tuned = Manifest.load(commands.model_dir(tuning)).tuning
            found.add(f"{counted(len(tuned['datasets']), 'datasets')} of {counted(len(tuned['clusters']), 'clusters')}")
        said[group.name] = " or ".join(sorted(found))
    return said


def p_cell(gain: Gain) -> str:
    """Holm's p: "p = 0.012", "p < 0.001", or nothing where there is no test."""
    if gain.corrected is None:
        return ""
    return "p < 0.001" if gain.corrected < 0.001 else f"p = {gain.corrected:.3f}"


def gain_cells(gain: Gain) -> tuple[str, str, str]:
    """A gain, its corrected interval, and the verdict with Holm's p, for a table."""
    interval = "–" if gain.interval is None else f"{signed(gain.interval[0])} to {signed(gain.interval[1])}"
    return signed(gain.value), interval, f"{gain.verdict} {p_cell(gain)}".strip()


def of_gains(found: Mapping[str, Mapping[str, Gain]]) -> Table:
    """A row a comparison and cluster, with its corrected interval and p."""
    head = ("comparison", "cluster", "beside", "examples", "difference", "interval", "p (Holm)", "verdict")
    rows: list[tuple[str, ...]] = []
    bold: set[int] = set()
    for comparison, gains in found.items():
        for name, gain in gains.items():
            if name == MEAN:
                bold.add(len(rows))
            interval = "–" if gain.interval is None else " to ".join(map(signed, gain.interval))
            p = p_cell(gain).removeprefix("p = ").removeprefix("p ")
            count = str(gain.difference.examples)
            rows.append((comparison, title(name), gain.beside, count, signed(gain.value), interval, p, gain.verdict))
    return Table((("", len(head)),), head, rows, frozenset(bold))


def sentence(comparison: str, gains: Mapping[str, Gain]) -> str:
    """What a comparison has found, in plain words."""
    said = []
    for name, gain in gains.items():
        change = f"{signed(gain.value)} points"
        if gain.verdict in ("gain", "loss"):
            low, high = gain.interval
            word = "gains" if gain.verdict == "gain" else "loses"
            said.append(f"{title(name)} {word} for sure ({change}, {signed(low)} to {signed(high)})")
        elif gain.verdict == TOO_FEW:
            said.append(f"{title(name)} {change} on too few examples to test")
        else:
            said.append(f"{title(name)} {change}, which may be chance")
    return f"{comparison}: {'; '.join(said)}."


def rule(found: Mapping[str, Mapping[str, Gain]]) -> str:
    """What "for sure" means."""
    if not (count := tests(gain for gains in found.values() for gain in gains.values())):
        return NOT_TESTED
    return (
        f"For sure is what {together(count)} has on one side of 0, with Holm's p below 5 %, and with every seed on "
        "that side."
    )


def together(count: int) -> str:
    """The intervals of so many tests.

    >>> together(3), together(1)
    ('an interval of 95 % for all 3 tested comparisons together', 'an interval of 95 %')
    """
    return "an interval of 95 %" + (f" for all {count} tested comparisons together" if count > 1 else "")


def missing(means: Means) -> tuple[str, ...]:
    """A sentence on clusters that are in no mean, if there are any."""
    names = ", ".join(map(cluster_title, means.missing))
    return (f"Without any dataset that all have, and in no mean: {names}.",) if names else ()

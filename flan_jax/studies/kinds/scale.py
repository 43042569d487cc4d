"""From which size on does tuning help on clusters that were never seen? Paper, section 4.2 and Figure 7.

MODELS are the sizes. For each of them and each cluster a model is tuned without that cluster.
"""

from __future__ import annotations

import dataclasses

from flan_jax.checkpoint.manifest import Manifest
from flan_jax.files import AnyPath, user_path
from flan_jax.formats.source import leaves
from flan_jax.models import DecoderConfig
from flan_jax.reporting.tables import cluster_title
from flan_jax.studies import figures, means, tables
from flan_jax.studies.commands import Commands
from flan_jax.studies.document import Shown
from flan_jax.studies.kinds import Study
from flan_jax.studies.means import Group, Means, arms_of, gains_dict
from flan_jax.studies.results import Gain, Results
from flan_jax.studies.settings import Settings

_PAPERS = "the paper's 68B and 137B gain, and its 422M, 2B and 8B lose (Figure 7, which prints no numbers)"


@dataclasses.dataclass(frozen=True)
class Size:
    """A model of the study.

    Attributes:
      model: of MODELS.
      name: the same, without the folders that it lies in.
      plain: the model as it is, in each way of asking it.
      tuned: the models that were made of it, each without a cluster.
    """

    model: str
    name: str
    plain: tuple[Group, ...]
    tuned: Group

    def at(self, parameters: int) -> Size:
        """The same with its place on the axis of sizes."""
        placed = tuple(dataclasses.replace(one, x=parameters) for one in self.plain)
        return Size(self.model, self.name, placed, dataclasses.replace(self.tuned, x=parameters))

    @property
    def groups(self) -> list[Group]:
        """All of it."""
        return [*self.plain, self.tuned]


def sizes(settings: Settings) -> list[Size]:
    """A size for each of MODELS, in their order."""
    short = {model: user_path(model).name for model in settings.models}
    names = short if len({*short.values()}) == len(short) else {model: model for model in settings.models}
    return [
        Size(
            model,
            name,
            tuple(means.untuned(settings, model, before=f"{name}, ")),
            means.held_out(settings, f"{name}, tuned", model=model),
        )
        for model, name in names.items()
    ]


def parameters(checkpoint: AnyPath) -> int:
    """How many parameters a checkpoint folder's model has, by its manifest."""
    return sum(leaf.size for leaf in leaves(DecoderConfig.from_dict(Manifest.load(checkpoint).model)))


def plan(settings: Settings) -> Commands:
    """The commands."""
    return Commands(settings, arms_of([group for size in sizes(settings) for group in size.groups]))


def show(commands: Commands) -> Shown:
    """Figure 7, and at each size the tuned models beside the better untuned."""
    counts = {model: parameters(commands.checkpoint(model)) for model in commands.settings.models}
    found = sorted((size.at(counts[size.model]) for size in sizes(commands.settings)), key=lambda size: size.tuned.x)
    groups = [group for size in found for group in size.groups]
    scores = Means(Results(commands), groups)
    pairs = {f"{size.name} ({_short(size.tuned.x)}) tuned, beside untuned": (size.tuned, size.plain) for size in found}
    gains = scores.compared(pairs)
    return Shown(
        said=(
            *(tables.sentence(title, of_size) for title, of_size in gains.items()),
            _trend(scores, gains),
            *tables.missing(scores),
            tables.rule(gains),
        ),
        tables={"Held out, by size": tables.of_means(scores, groups), "Tests": tables.of_gains(gains)},
        figures=(_figure(scores, found),),
        data={"parameters": counts, "groups": scores.to_dict(), "gains": gains_dict(gains)},
    )


def _trend(scores: Means, gains: dict[str, dict[str, Gain]]) -> str:
    whole = [of_size[scores.whole] for of_size in gains.values()]
    if len(whole) < 2:
        return f"One size shows no trend: give several models as MODELS; {_PAPERS}."
    counted = [sum(gain.verdict == verdict for gain in whole) for verdict in ("gain", "loss")]
    return f"Of {len(whole)} sizes {counted[0]} gain and {counted[1]} lose for sure; {_PAPERS}."


def _short(count: float) -> str:
    """270M, 137B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


def _figure(scores: Means, found: list[Size]) -> figures.Figure:
    names = [means.untuned_name(arm.style) for group in found[0].plain for arm in group.each]
    panels = []
    for name in scores.mean_first:
        plain = [scores.line(title, [size.plain[i] for size in found], name) for i, title in enumerate(names)]
        panels.append((tables.title(name), [*plain, scores.line("tuned", [size.tuned for size in found], name)]))
    ticks = {size.tuned.x: _short(size.tuned.x) for size in found}
    held_out = ", ".join(map(cluster_title, scores.datasets))
    return figures.Figure(
        "scale",
        "By size",
        f"Held out: {held_out}, each of models that were tuned without it. Bars are standard deviations over seeds, "
        f"where there are several. In the paper, tuning helps from 68B on.",
        "lines over the number of parameters, untuned and tuned",
        lambda: figures.lines(panels, "parameters", "mean over datasets, %", [*ticks.items()], logarithmic=True),
    )


STUDY = Study(
    name="scale",
    question="From which size on does tuning help on clusters that were never seen?",
    source="paper, section 4.2, Figure 7",
    points="",
    plan=plan,
    show=show,
)

"""Is a tuned model a better start for a soft prompt? Paper, section 4.5: Figure 10.

For each dataset a soft prompt of 10 slots is trained on it, with 32 of its training examples and with all, in front of
the untuned model and of one that was tuned without the dataset's cluster. Scores are of a dataset that the prompt was
trained on: "seen", by design.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import catalog
from flan_jax.errors import FlanError
from flan_jax.evaluation import labels
from flan_jax.reporting.tables import Table, percent
from flan_jax.studies import figures, paper
from flan_jax.studies import plan as plans
from flan_jax.studies.commands import Commands
from flan_jax.studies.document import Shown
from flan_jax.studies.kinds import Study
from flan_jax.studies.kinds.held_out_clusters import TUNED
from flan_jax.studies.plan import Arm, Tuning, held_out_mixture
from flan_jax.studies.results import Gain, Results, corrected, mean_gain, tests
from flan_jax.studies.settings import OWN_TRAIN, Settings, macro_values
from flan_jax.studies.tables import NOT_TESTED, gain_cells
from flan_jax.wording import counted

SUPER_GLUE = ("bool_q", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")
UNTUNED = "untuned"
AMOUNTS = {"32": 32, "all": None}  # training examples, by the paper's words
LENGTH = "PROMPT_LENGTH"
# Of the prompts' training: Lester et al. 2021 have a constant 0.3 with Adafactor. What makes TRAIN's mixture is not
# for a mixture of one dataset, and a prompt is all that is trained.
MACROS: Mapping[str, Any] = {LENGTH: 10, "OPTIMIZER": "adafactor", "LEARNING_RATE": 0.3, "SCHEDULE": "constant"}
_NOT_OURS: Mapping[str, Any] = {
    "WEIGHTS": None, "RATES": None, "STYLES": None, "LOSS_WEIGHTS": None, "JOINTS": None, "LORA": None, "FROZEN": (),
    "DROPOUT_RATE": 0.0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What POINTS ask for.

    Attributes:
      datasets: each has prompts of its own.
      macros: of the prompts' training.
    """

    datasets: tuple[str, ...]
    macros: Mapping[str, Any]


def asked(settings: Settings) -> _Asked:
    """The datasets, and how prompts are trained.

    Raises:
      FlanError: a dataset that is not in CLUSTERS or has no training data, several dictionaries of macros, or a macro
        that the study sets.
    """
    if LENGTH in settings.train:
        raise FlanError(f"TRAIN has {LENGTH}, which this study trains itself: leave it out, or put it in POINTS.")
    macros, given = dict(MACROS), settings.points or ()
    of_macros = [one for one in given if isinstance(one, Mapping)]
    if len(of_macros) > 1:
        raise FlanError(
            f"POINTS has {len(of_macros)} dictionaries, and all prompts are trained with the same macros: write them "
            "in one, or run the study once with each."
        )
    for point in of_macros:
        macros |= macro_values("POINTS", point, "train", (*OWN_TRAIN, *_NOT_OURS))
    named = tuple(one for one in given if not isinstance(one, Mapping)) or tuple(_usual(settings))
    names: list[str] = []
    for point in dataclasses.replace(settings, points=named).varied(()):
        record = catalog.dataset(str(point))
        if record.cluster not in settings.clusters:
            raise FlanError(
                f"POINTS has {record.name}, of {record.cluster}: CLUSTERS have to name that, or leave it out."
            )
        if not record.splits.train:
            raise FlanError(f"POINTS has {record.name}, which has no training data: leave it out.")
        names.append(record.name)
    return _Asked(tuple(names), macros)


def _usual(settings: Settings) -> list[str]:
    records = [catalog.dataset(name) for name in settings.datasets or SUPER_GLUE]
    found = [r.name for r in records if r.cluster in settings.clusters and settings.has(r)]
    if not found:
        raise FlanError("DATA has no dataset of SuperGLUE in CLUSTERS: name datasets of them by POINTS.")
    return found


def arm_name(start: str, amount: str, dataset: str) -> str:
    """The arm of prompts for a dataset."""
    return f"{start}, {amount} examples, {dataset}"


def arms(settings: Settings) -> list[Arm]:
    """For each dataset, amount and start, the prompts of each seed."""
    wanted, found = asked(settings), []
    for dataset in wanted.datasets:
        cluster = catalog.dataset(dataset).cluster
        for amount, examples in AMOUNTS.items():
            mixture = {"mixture": dataset, "rates": {"examples": examples}} if examples else dataset
            for start in (UNTUNED, TUNED):
                tunings = tuple(
                    Tuning(
                        settings.model,
                        mixture,
                        seed,
                        {**_NOT_OURS, **wanted.macros},
                        _start(settings, cluster, seed, start),
                    )
                    for seed in settings.seeds
                )
                name = arm_name(start, amount, dataset)
                found.append(Arm(name, settings.model, (dataset,), tunings=tunings, status=labels.SEEN))
    return found


def _start(settings: Settings, cluster: str, seed: int, start: str) -> Tuning | None:
    return None if start == UNTUNED else Tuning(settings.model, held_out_mixture(cluster), seed)


def plan(settings: Settings) -> Commands:
    """The commands.

    Raises:
      FlanError: a prompt's model would have been tuned on its dataset's cluster.
    """
    commands = Commands(settings, arms(settings))
    for arm in commands.arms:
        starts = tuple(one.start for one in arm.tunings if one.start is not None)
        plans.check([Arm(f"the start of {arm.name}", arm.model, arm.datasets, tunings=starts)])
    return commands


def show(commands: Commands) -> Shown:
    """Figure 10: the mean over datasets with few examples and with all, from both starts."""
    results, wanted = Results(commands), asked(commands.settings)
    names = {d: [one.name for one in catalog.variants(catalog.dataset(d))] for d in wanted.datasets}
    each: dict[tuple[str, str], Gain] = {}
    for amount in AMOUNTS:
        for dataset, members in names.items():
            pair = [arm_name(start, amount, dataset) for start in (TUNED, UNTUNED)]
            each[amount, dataset] = results.gain(pair[0], pair[1:], dataset, members)
    several = len(names) > 1
    whole = (
        {amount: mean_gain([each[amount, d] for d in names], f"mean, {_with(amount)}") for amount in AMOUNTS}
        if several
        else {}
    )
    tested = corrected([*each.values(), *whole.values()])
    each = dict(zip(each, tested, strict=False))
    whole = dict(zip(whole, tested[len(each) :], strict=True)) or {a: each[a, wanted.datasets[0]] for a in AMOUNTS}
    scores = {
        (start, amount): [results.mean(arm_name(start, amount, d), members, d).mean for d, members in names.items()]
        for start in (UNTUNED, TUNED)
        for amount in AMOUNTS
    }
    means = {key: statistics.fmean(values) for key, values in scores.items()}
    return Shown(
        said=_said(whole, means, wanted, tests(tested)),
        tables={"Soft prompts": _table(list(names), scores, means, each, whole)},
        figures=_figures(means, whole),
        data={
            "means": {amount: {start: means[start, amount] for start in (UNTUNED, TUNED)} for amount in AMOUNTS},
            "gains": {amount: gain.to_dict() for amount, gain in whole.items()},
            "datasets": [{"dataset": d, "examples": a, **gain.to_dict()} for (a, d), gain in each.items()],
            "paper": paper.PROMPT_TUNING,
            "prompts": dict(wanted.macros),
        },
    )


def _with(amount: str) -> str:
    return f"{amount} training examples"


def _said(
    whole: Mapping[str, Gain], means: Mapping[tuple[str, str], float], wanted: _Asked, count: int
) -> tuple[str, ...]:
    lines = []
    for amount, gain in whole.items():
        found = {"gain": "better", "loss": "worse"}.get(gain.verdict, "no different for sure")
        pair = f"{percent(means[TUNED, amount])} beside {percent(means[UNTUNED, amount])}"
        lines.append(f"With {_with(amount)}, a prompt in front of the tuned model is {found}: {pair}.")
    lines.append(
        f"Every prompt was trained on the dataset that it is scored on, so all scores are of seen data; the tuned "
        f"models themselves never saw the dataset's cluster. Means over {', '.join(wanted.datasets)}; "
        f"{counted(count, 'tests')}."
    )
    if not count:
        lines.append(NOT_TESTED)
    return tuple(lines)


def _table(
    names: Sequence[str],
    scores: Mapping[tuple[str, str], Sequence[float]],
    means: Mapping[tuple[str, str], float],
    each: Mapping[tuple[str, str], Gain],
    whole: Mapping[str, Gain],
) -> Table:
    head = ("dataset", "training examples", f"{UNTUNED} + prompt", f"{TUNED} + prompt", "gain", "interval", "verdict")
    head += ("LaMDA-PT 137B", "FLAN 137B")
    rows, bold = [], set()
    for amount in AMOUNTS:
        for number, name in enumerate(names):
            pair = [percent(scores[start, amount][number]) for start in (UNTUNED, TUNED)]
            rows.append((name, amount, *pair, *gain_cells(each[amount, name]), "", ""))
        bold.add(len(rows))
        pair = [percent(means[start, amount]) for start in (UNTUNED, TUNED)]
        printed = [f"{value:.1f}" for value in paper.PROMPT_TUNING[amount]]
        rows.append((f"mean of {len(names)}", amount, *pair, *gain_cells(whole[amount]), *printed))
    return Table((("", len(head)),), head, rows, frozenset(bold))


def _figures(means: Mapping[tuple[str, str], float], whole: Mapping[str, Gain]) -> tuple[figures.Figure, ...]:
    half = [None if g.interval is None else 50 * (g.interval[1] - g.interval[0]) for g in whole.values()]
    series = [
        figures.Series(UNTUNED, [100 * means[UNTUNED, amount] for amount in AMOUNTS]),
        figures.Series(f"{TUNED} without the dataset's cluster", [100 * means[TUNED, a] for a in AMOUNTS], half),
    ]
    for place, name in enumerate(("LaMDA-PT 137B", "FLAN 137B")):
        printed = [paper.PROMPT_TUNING[amount][place] for amount in AMOUNTS]
        series.append(figures.Series(f"{name} (paper)", printed, reference=True))
    return (
        figures.Figure(
            "prompts",
            "Soft prompts",
            "Means over the datasets, of prompts that were trained on them. The line on a bar of the tuned model is "
            "the corrected 95 % interval of its difference from the untuned one.",
            "scores of soft prompts with 32 training examples and with all, from the untuned and the tuned model",
            lambda: figures.bars([_with(amount) for amount in AMOUNTS], series, "mean over datasets, %"),
        ),
    )


STUDY = Study(
    name="prompt_tuning",
    question="Is a tuned model a better start for a soft prompt?",
    source="paper, section 4.5, Figure 10",
    points="datasets of CLUSTERS, usually those of SuperGLUE; a dictionary has macros of the prompts' training",
    plan=plan,
    show=show,
)

"""Are gains those of text that was seen? Paper, appendix C: scores on clean examples beside those on all.

The paper looks for 13-grams of the evaluated examples in what the model was pretrained on. That text is not at hand
for packaged models; here it is what the model was tuned on, looked for as records, whole texts and 13-grams. The models
and evaluations are those of `held_out_clusters`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from flan_jax import catalog
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import examples as example_files
from flan_jax.errors import FlanError
from flan_jax.overlap import evaluated
from flan_jax.reporting.evidence import gather
from flan_jax.reporting.statistics import LEVEL, PERMUTATIONS, holm, p_value
from flan_jax.reporting.tables import NONE, Table, percent, signed
from flan_jax.reporting.values import Values
from flan_jax.studies import figures
from flan_jax.studies.commands import Commands
from flan_jax.studies.document import Shown
from flan_jax.studies.kinds import Study
from flan_jax.studies.kinds.held_out_clusters import TUNED, tuned_name
from flan_jax.studies.kinds.template_robustness import plan, untuned
from flan_jax.studies.results import Results

_FEWEST = 10  # clean and dirty examples of a test, each


@dataclasses.dataclass(frozen=True)
class Split:
    """A dataset's scores on its clean examples, on those of which the model was tuned on text, and on all; 0 to 1.

    Attributes:
      examples: how many were evaluated.
      dirty: of how many some text was seen.
      reason: why it is not known of all of the text; empty where it is.
      untuned: of all, clean and dirty examples; None where there are none.
      tuned: the same.
      p: of a test that draws the dirty ones at random, of the tuned model; None of too few.
      corrected: p after Holm's correction over the datasets of the study.
    """

    examples: int
    dirty: int
    reason: str
    untuned: tuple[float | None, ...]
    tuned: tuple[float | None, ...]
    p: float | None
    corrected: float | None = None

    @property
    def share(self) -> float:
        """Of clean examples."""
        return 1 - self.dirty / self.examples

    @property
    def change(self) -> float | None:
        """The tuned model's score on clean examples less that on all."""
        return None if self.tuned[1] is None else self.tuned[1] - self.tuned[0]

    @property
    def verdict(self) -> str:
        """ "easier" or "harder" for the examples of which text was seen, or why there is no test."""
        if self.reason:
            return self.reason
        if self.corrected is None:
            return "" if not self.dirty else f"fewer than {_FEWEST} of a kind"
        if self.corrected >= LEVEL:
            return ""
        return "easier" if self.tuned[2] > self.tuned[1] else "harder"


def show(commands: Commands) -> Shown:
    """The table of appendix C: clean examples beside all."""
    results, settings = Results(commands), commands.settings
    found: dict[str, Split] = {}
    for cluster in settings.clusters:
        names = results.shared(cluster, [untuned(settings), tuned_name(cluster)])
        found |= splits(commands, results, cluster, names) if names else {}
    p_values = holm({name: one.p for name, one in found.items() if one.p is not None})
    found = {name: dataclasses.replace(one, corrected=p_values.get(name)) for name, one in found.items()}
    return Shown(
        said=_said(found, len(p_values)),
        tables={"Clean examples beside all": _table(found)},
        figures=_figures(found),
        data={
            "datasets": {
                name: dataclasses.asdict(one) | {"change": one.change, "verdict": one.verdict}
                for name, one in found.items()
            }
        },
    )


def splits(commands: Commands, results: Results, cluster: str, names: Sequence[str]) -> dict[str, Split]:
    """The datasets of a cluster, by what the models tuned without it were tuned on."""
    arm = next(arm for arm in commands.arms if arm.name == tuned_name(cluster))
    folder, prepared = commands.model_dir(arm.tunings[0]), commands.prepared(arm.model)
    manifest = Manifest.load(folder)
    rows = {
        record: list(example_files.read(prepared, record.name, example_files.TEST))
        for record in catalog.evaluated(cluster)
        if record.name in names
    }
    overlap = evaluated.search(manifest.tuning, manifest.load_vocabulary(folder), prepared, rows)
    values = [gather([results.together(one)]).values[one] for one in (untuned(commands.settings), arm.name)]
    found = {}
    for record, lines in rows.items():
        whole = overlap.whole(record.name)
        seen = set() if whole is None else {line["hash"] for line, flag in zip(lines, whole.seen, strict=True) if flag}
        found[record.name] = split(
            record.name, values[0].get(record.name), values[1].get(record.name), seen, overlap.reasons
        )
    return found


def split(name: str, before: Values | None, after: Values | None, seen: set[str], reasons: Sequence[str] = ()) -> Split:
    """A dataset's scores by whether the text of an example was seen.

    Args:
      name: of the dataset.
      before: the untuned model's predictions in numbers.
      after: the tuned one's.
      seen: content hashes.
      reasons: why not all of the text was compared.

    Raises:
      FlanError: predictions are not at hand, or do not say of which records they are.
    """
    both = [one for one in (before, after) if one is not None and one.hashes is not None]
    if len(both) < 2:
        raise FlanError(f"{name} has no predictions at hand that say what their records are: run the study again.")
    flags = [np.array([one in seen for one in values.hashes]) for values in both]
    means = [[_mean(v, flag | True), _mean(v, ~flag), _mean(v, flag)] for v, flag in zip(both, flags, strict=True)]
    values_E = None if after.values_ExT is None else after.values_ExT.mean(1)
    p = None if values_E is None or reasons else _p_value(values_E, flags[1], after.groups())
    reason = f"not checked: {'; '.join(reasons)}" if reasons else ""
    return Split(len(flags[1]), int(flags[1].sum()), reason, tuple(means[0]), tuple(means[1]), p)


def _mean(values: Values, flags: np.ndarray) -> float | None:
    return float(values.sample(np.flatnonzero(flags)).values_T.mean()) if flags.any() else None


def _p_value(values_E: np.ndarray, flags_E: np.ndarray, groups_E: np.ndarray) -> float | None:
    """Of the difference between dirty and clean examples; those that share a passage are drawn together."""
    count = int(groups_E.max()) + 1
    sizes = np.bincount(groups_E, minlength=count)
    sums_G = np.bincount(groups_E, values_E, count)
    dirty_G = np.bincount(groups_E, flags_E, count)
    if min(int(flags_E.sum()), int((~flags_E).sum())) < _FEWEST or ((dirty_G > 0) & (dirty_G < sizes)).any():
        return None  # too few; or a passage with both kinds, whose examples cannot be drawn together
    rng = np.random.default_rng(count)
    drawn_PxG = rng.permuted(np.tile(dirty_G > 0, (PERMUTATIONS, 1)), axis=1)

    def difference(chosen: np.ndarray) -> np.ndarray:
        weights = chosen.astype(np.float64)
        inside, total = weights @ sizes, sizes.sum()
        return weights @ sums_G / inside - (1 - weights) @ sums_G / (total - inside)

    return p_value(float(difference((dirty_G > 0)[None])[0]), difference(drawn_PxG))


def _said(found: dict[str, Split], tests: int) -> tuple[str, ...]:
    lines = []
    dirty = {name: one for name, one in found.items() if one.dirty}
    lines.append(
        f"Of {len(dirty)} of {len(found)} datasets some examples share text with what the model was tuned on"
        + (
            f": {', '.join(f'{name} ({one.dirty} of {one.examples})' for name, one in dirty.items())}."
            if dirty
            else "."
        )
    )
    for word in ("easier", "harder"):
        names = [name for name, one in dirty.items() if one.verdict == word]
        if names:
            lines.append(f"Examples of which text was seen are {word} for the tuned model in {', '.join(names)}.")
    if dirty and tests and not any(one.verdict in ("easier", "harder") for one in dirty.values()):
        lines.append(f"In none of the {tests} that have enough of both kinds is the difference for sure.")
    if unknown := [name for name, one in found.items() if one.reason]:
        lines.append(f"Not checked as a whole: {', '.join(unknown)}.")
    lines.append(
        "An example counts as seen where it stands in the tuning text as a record, by a whole text, or by a 13-gram. "
        "What the model was pretrained on is not at hand. Scores of the untuned model on the same examples say "
        "whether the clean ones are harder in themselves."
    )
    return tuple(lines)


def _table(found: dict[str, Split]) -> Table:
    head = ("dataset", "examples", "clean", "clean, %")
    head += tuple(f"{who}, {part}" for who in (TUNED, "untuned") for part in ("all", "clean", "seen"))
    head += ("clean less all", "p (Holm)", "seen ones are")
    rows = [
        (
            name,
            str(one.examples),
            str(one.examples - one.dirty),
            percent(one.share),
            *(percent(value) for value in (*one.tuned, *one.untuned)),
            NONE if one.change is None else signed(one.change),
            NONE if one.corrected is None else f"{one.corrected:.3f}",
            one.verdict,
        )
        for name, one in found.items()
    ]
    return Table((("", len(head)),), head, rows, frozenset())


def _figures(found: dict[str, Split]) -> tuple[figures.Figure, ...]:
    found = {name: one for name, one in found.items() if one.dirty} or found  # of the others all is clean
    lanes = [f"{name}\n{one.dirty} of {one.examples} seen" for name, one in found.items()]
    series = [
        figures.Series(
            f"{TUNED}, {part}", [None if v is None else 100 * v for v in (o.tuned[i] for o in found.values())]
        )
        for i, part in enumerate(("all examples", "clean ones", "those of which text was seen"))
    ]
    series = [one for one in series if any(value is not None for value in one.values)]
    return (
        figures.Figure(
            "clean",
            "Clean examples",
            "Scores of the models that were tuned without the cluster, on all examples, on those of which no text was "
            "tuned on, and on the others; of datasets that have some.",
            "scores on clean examples beside all",
            lambda: figures.bars(lanes, series, "score, %"),
        ),
    )


STUDY = Study(
    name="contamination",
    question="Are scores on held-out clusters those of text that was seen in tuning?",
    source="paper, appendix C, of the tuning text in place of the pretraining corpus",
    points="",
    plan=plan,
    show=show,
)

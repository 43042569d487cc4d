"""Chooses which figures of runs are shown, in which order, and with how many points."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from flan_jax.reporting.curves.reading import Course

OF_CLUSTERS, OF_DATASETS, OF_PARTS = "cluster_loss/", "dataset_loss/", "part_loss/"
_OF_DEV = ("dev_loss/", "dev_loss_cluster/"), ("dev_score/", "dev_score_cluster/")  # by dataset and by cluster
_OF_TEST = ("eval/", "eval_cluster/")  # of earlier versions
_EVALUATED = (*_OF_DEV[0], *_OF_DEV[1], *_OF_TEST)
_OF_FEW = "Of how many examples they are is in MODEL_DIR/eval/step_N/dev.json: with few of them, small steps are noise."
_LAST_SHARE = 0.1  # the mean over this last share of the steps shows where a noisy figure has arrived
_OWN = ("target_tokens", "skipped", "skipped_not_finite")  # these say nothing as a curve


@dataclasses.dataclass(frozen=True)
class Group:
    """Figures that are shown together.

    Attributes:
      name: the name of the section on the page.
      title: its heading.
      figures: full names of figures that at least one run has.
      sparse: whether only some steps have them; each value is then a point.
      span: the values that they can have, all of which a chart shows; None if there is no limit.
      note: what a reader has to know about them.
    """

    name: str
    title: str
    figures: tuple[str, ...]
    sparse: bool = False
    span: tuple[float, float] | None = None
    note: str = ""

    def short(self, figure: str) -> str:
        """The name of a figure below the heading, such as "rte, held out" for a dev figure."""
        prefixes = (OF_CLUSTERS, *_EVALUATED)
        prefix = next((one for one in prefixes if figure.startswith(one)), "") if self.name != "others" else ""
        name = figure.removeprefix(prefix)
        if prefix in (*_OF_DEV[0], *_OF_DEV[1]):
            label, _, of = name.partition("/")
            name = f"{of}, {label}"
        return f"{name} (cluster)" if prefix.endswith("_cluster/") else name


_FIXED = (
    ("loss", "Loss", ("loss", "accuracy", "gradient_norm", "parameter_norm")),
    ("rate", "Learning rate", ("learning_rate",)),
    (
        "speed",
        "Speed and memory",
        ("tokens_per_second", "seconds", "input_wait", "slots_filled", "mfu", "flops_per_second", "memory_peak_bytes"),
    ),
)


def groups(courses: Sequence[Course]) -> list[Group]:
    """The groups of figures that the runs have, except those by dataset and by part."""
    known = dict.fromkeys(name for course in courses for name in course.figures)
    loss, *fixed = (Group(name, title, tuple(x for x in names if x in known)) for name, title, names in _FIXED)
    shown = {name for group in (loss, *fixed) for name in group.figures}
    clusters = tuple(sorted(name for name in known if name.startswith(OF_CLUSTERS)))
    dev_losses, dev_scores, of_test = (_of(known, prefixes) for prefixes in (*_OF_DEV, _OF_TEST))
    shown |= {*clusters, *dev_losses, *dev_scores, *of_test, *_OWN}
    dev_losses, dev_scores = (_without_twins(courses, names) for names in (dev_losses, dev_scores))
    others = tuple(sorted(x for x in known if x not in shown and not x.startswith((OF_DATASETS, OF_PARTS))))
    found = [
        loss,
        Group("clusters", "Loss by cluster", clusters),
        Group("dev_loss", "Loss on dev examples", dev_losses, sparse=True, note=f"Nats a target token. {_OF_FEW}"),
        Group("dev_score", "Score on dev examples", dev_scores, sparse=True, span=(0.0, 1.0), note=_OF_FEW),
        Group("evaluation", "Evaluation", of_test, sparse=True),
        *fixed,
        Group("others", "Other figures", others),
    ]
    return [group for group in found if group.figures]


def _of(known: Iterable[str], prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """The names with these prefixes; datasets before clusters, held out before seen."""
    return tuple(name for prefix in prefixes for name in sorted(one for one in known if one.startswith(prefix)))


def _without_twins(courses: Sequence[Course], names: Sequence[str]) -> tuple[str, ...]:
    """The names without clusters that have the same values and label as one of the datasets in all runs."""

    def same(one: str, other: str) -> bool:
        if one.partition("/")[2].partition("/")[0] != other.partition("/")[2].partition("/")[0]:
            return False
        pairs = ((course.points(one), course.points(other)) for course in courses)
        return all(np.array_equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))

    datasets = [name for name in names if "_cluster/" not in name]
    return tuple(name for name in names if name in datasets or not any(same(name, one) for one in datasets))


def thinned(steps: np.ndarray, values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Divides the steps into equal parts and returns (step, mean, lowest, highest) of each part that has values.

    If there are few values, the points themselves are returned.

    Args:
      steps: the steps, ascending.
      values: finite values, one for each step.
      most: the number of parts.
    """
    if len(steps) <= most:
        return steps.astype(np.float64), values, values, values
    part = (steps - steps[0]) * most // (steps[-1] - steps[0] + 1)
    starts = np.flatnonzero(np.diff(part, prepend=-1))
    counts = np.diff(starts, append=len(steps))
    mean = lambda x: np.add.reduceat(x.astype(np.float64), starts) / counts  # noqa: E731
    return mean(steps), mean(values), np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def summary(course: Course, name: str) -> dict[str, float] | None:
    """The first, last, lowest and highest value of a figure, and the mean over the last tenth of the steps.

    None if there is no value.
    """
    steps, values = course.points(name)
    if not len(steps):
        return None
    last = values[steps > course.steps[-1] - _LAST_SHARE * (course.steps[-1] - course.steps[0])]
    return {
        "first": float(values[0]),
        "last": float(values[-1]),
        "mean_of_last_tenth": float(np.mean(last if len(last) else values[-1:])),
        "lowest": float(values.min()),
        "highest": float(values.max()),
        "steps": len(values),
    }


def short_number(value: float | None) -> str:
    """A figure in a few characters: 2.345, 0.00003, 12,345, 1.2e+12."""
    if value is None:
        return ""
    size = abs(value)
    if value == int(value) and size < 1e7:
        return f"{int(value):,}"
    if 1000 <= size < 1e7:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def to_dict(course: Course) -> dict[str, object]:
    """A run as values that JSON can hold."""
    return {
        "name": course.name,
        "folder": course.folder,
        "mixture": course.mixture or None,
        "first_step": int(course.steps[0]),
        "last_step": int(course.steps[-1]),
        "steps": len(course.steps),
        "train_steps": course.train_steps,
        "figures": {name: found for name in course.figures if (found := summary(course, name)) is not None},
        "skipped": [int(step) for step in course.skipped],
        "spikes": [one.step for one in course.spikes],
        "restarts": [dataclasses.asdict(one) | {"changed": list(one.changed)} for one in course.restarts],
        "notes": list(course.notes),
    }

"""In what runs were asked otherwise, and whether it matters: the one place that groups and notes go by.

Templates and wordings are compared where templates are, in `pairing` and `groups`; the words of another program's log,
document by document, in `pairing` and `copies`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import catalog, protocol
from flan_jax.data.examples import DEV, EXEMPLARS, TEST
from flan_jax.errors import FlanError
from flan_jax.reporting.runs import Run

PROTOCOL, COMPUTATION, VERSION = "protocol", "computation", "version"
SHOTS, ORDER, POOL = "shots", "order", "pool"
ENGINE, PROGRAM, JOINT = "engine", "program", "joint"
# How what differs is said of datasets, and what a difference between the runs is of besides the model.
_WORDS = {
    "max_input_tokens": ("asked with max_input_tokens {}", "limit"),
    "max_new_tokens": ("asked with max_new_tokens {}", "limit"),
    JOINT: ("asked with input and target joined by {}", "joint"),
    PROTOCOL: ("asked by the protocols {}", "protocol"),
    POOL: ("asked with exemplars from other records", "exemplars"),
    SHOTS: ("asked with exemplars of the seeds {}", "exemplars"),
    ORDER: ("asked with options in the order of the seeds {}", "the order of the options"),
    COMPUTATION: ("computed in {}", "computation"),
    ENGINE: ("computed by {}", "engine"),
    VERSION: ("asked by the task versions {}", "the task's version"),
    PROGRAM: ("asked by {}", "the program's version"),
}
SEEDS = (SHOTS, ORDER)  # what a group may be over, besides models
# What does not keep runs from being averaged; all but seeds is said.
SAID = (*SEEDS, COMPUTATION, ENGINE, VERSION, PROGRAM)
_OF_TODAY = "today's"
_OWN, _FULL = "the model's own dtype", "float32"  # which are the same, unless a manifest says otherwise


@dataclasses.dataclass(frozen=True)
class Unlike:
    """Something in which runs were not asked alike on a dataset.

    Attributes:
      key: what it is.
      values: what it is in each run that says it.
    """

    key: str
    values: tuple[str, ...]

    @property
    def listed(self) -> str:
        """The different values: "512 and 1024", or with those of a group "1 or 2, and 3"."""
        return (", and " if any(" or " in one for one in self.values) else " and ").join(dict.fromkeys(self.values))

    @property
    def said(self) -> str:
        """For a sentence about datasets: "asked with max_input_tokens 512 and 1024"."""
        return _WORDS[self.key][0].format(self.listed)

    @property
    def of(self) -> str:
        """What a difference between the runs is of, besides the model: "limit"."""
        return _WORDS[self.key][1]


def differences(runs: Sequence[Run], dataset: str) -> list[Unlike]:
    """In what runs, or groups of runs, were not asked alike on a dataset that all have.

    What a run does not say is not compared: a log says nothing of our limits, earlier results nothing of a protocol.
    A seed matters where it draws exemplars or the order of options; a protocol where style and limits do not explain
    that it is another.
    """
    told = [_told_by_all(run, dataset) for run in runs]
    found = []
    for key in _WORDS:
        values = [one[key] for one in told if key in one]
        if len(set(values)) > 1:
            found.append(Unlike(key, tuple(" or ".join(sorted(each)) for each in values)))
    explained = {one.key for one in found} & {*_LIMITS} or len({run.style for run in runs}) > 1
    same_dtype = {name for one in told for name in one.get(COMPUTATION, ())} <= {_OWN, _FULL}
    dropped = {PROTOCOL: explained, COMPUTATION: same_dtype}
    return [one for one in found if not dropped.get(one.key)]


_LIMITS = ("max_input_tokens", "max_new_tokens")


def _told_by_all(run: Run, dataset: str) -> dict[str, frozenset[str]]:
    """What the runs of a group say, or a single run: all values of each."""
    each = [_told(one, dataset) for one in run.members or (run,)]
    keys = dict.fromkeys(key for one in each for key in one)
    return {key: frozenset(one[key] for one in each if key in one) for key in keys}


def _told(run: Run, dataset: str) -> dict[str, str]:
    """What a run says of how it asked a dataset, as far as it matters to the figures."""
    figures, settings = run.figures(dataset) or {}, run.results.get("settings") or {}
    found: dict[str, Any] = dict(limits(run, dataset))
    if run.is_log:
        found[VERSION], found[COMPUTATION] = figures.get("task_version"), figures.get("dtype")
        found[PROGRAM] = f"{run.results['harness']} {run.results.get('harness_version', '')}".rstrip()
    elif isinstance(computation := settings.get("computation"), Mapping):
        model = run.results.get("model")  # which earlier results do not say
        found[COMPUTATION] = computation.get("dtype") or (model.get("dtype") if isinstance(model, Mapping) else _OWN)
    found[JOINT] = run.results.get("joint") or run.results.get("separator")
    engines = run.results.get("engines")  # which earlier results do not say
    engine = "scorer" if _is_ranked(figures, dataset) else "generator"
    if not run.is_log and isinstance(engines, Mapping) and engines.get(engine) is not None:
        found[ENGINE] = f"{engine} {engines[engine]}"
    if digest := figures.get("protocol"):
        found[PROTOCOL] = _OF_TODAY if digest == _todays(run, dataset) else digest
    if run.style.shots and (figures.get("shots") or {}).get("mean") != 0:
        found[SHOTS], found[POOL] = settings.get("seed"), records_of(figures, EXEMPLARS) or None
    if run.style.shuffled_options and _is_ranked(figures, dataset):
        found[ORDER] = settings.get("seed")
    return {key: str(value) for key, value in found.items() if value is not None}


def _is_ranked(figures: Mapping[str, Any], dataset: str) -> bool:
    """Whether options are ranked, which results without a baseline do not say."""
    if catalog.exists(dataset):
        return catalog.dataset(dataset).kind == catalog.CLASSIFICATION
    return figures.get("random") is not None


def drawn(run: Run, dataset: str) -> dict[str, str]:
    """The seeds that draw something of how a run asked a dataset, by what they draw; empty if they draw nothing."""
    return {key: seed for key, seed in _told(run, dataset).items() if key in SEEDS}


def _protocol(run: Run, dataset: str) -> protocol.Protocol | None:
    """The protocol with a run's limits; None for what is not in the catalog, or if these are no limits."""
    settings = run.results.get("settings") or {}
    most_in, most_new = (settings.get(name) for name in _LIMITS)
    try:
        return protocol.of(catalog.dataset(dataset), run.style).limited(most_in, max_new_tokens=most_new)
    except FlanError:
        return None


def _todays(run: Run, dataset: str) -> str | None:
    """The digest that a protocol with a run's limits has today."""
    own = _protocol(run, dataset)
    return None if own is None else own.digest


def limits(run: Run, dataset: str) -> dict[str, str]:
    """How long a prompt and an answer of a dataset might be in a run, in tokens; of options, no answer is written.

    Nothing for another program's log, which does not say it.
    """
    if run.is_log:
        return {}
    if (asked := _protocol(run, dataset)) is None:
        settings = run.results.get("settings") or {}
        return {name: str(settings.get(name)) for name in _LIMITS}
    found = {"max_input_tokens": str(asked.max_input_tokens)}
    return found if asked.ranked else found | {"max_new_tokens": str(asked.max_new_tokens)}


def records_of(figures: Mapping[str, Any], split: str = TEST) -> str:
    """A digest of the records of a dataset's figures in a split; empty if results do not say it."""
    data = figures.get("data")
    of_split = data.get(split) if isinstance(data, Mapping) else None
    return str(of_split.get("digest", "")) if isinstance(of_split, Mapping) else ""


def same_dev(each: Sequence[Mapping[str, Any]]) -> bool:
    """Whether figures of a dataset have the same dev examples, as far as they say it."""
    records = {digest for figures in each if (digest := records_of(figures, DEV))}
    counts = {figures["dev_examples"] for figures in each if figures.get("dev_examples") is not None}
    return len(records) < 2 and len(counts) < 2

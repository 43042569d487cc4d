"""Pairs the examples of two runs, and makes the values of a group of runs one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from flan_jax import styles
from flan_jax.content import numbered
from flan_jax.reporting import gold, matching
from flan_jax.reporting.runs import NOT_RECORDED, UnusableError
from flan_jax.reporting.values import Values


def pair(first: Values, other: Values) -> tuple[np.ndarray, np.ndarray]:
    """The examples that two runs share, as places in the one and in the other.

    Examples are paired by the digest of their record; if a record occurs several times, one by one. Ids are never used,
    because other data may have the same ones. With another program's log, examples are paired by the texts of records
    and prompts.

    Raises:
      UnusableError: predictions of an earlier version, which do not say what their records are; no common example; or
        a log that calls other answers right.
    """
    a_P, b_P = _paired(first, other)
    golds = ((first.golds[a], other.golds[b]) for a, b in zip(a_P, b_P, strict=True))
    both_ours = first.documents is None and other.documents is None  # the digests of our records hold what is right
    if not both_ours and (why := gold.apart(golds)):
        raise UnusableError(f"they have {why}")
    return a_P, b_P


def _paired(first: Values, other: Values) -> tuple[np.ndarray, np.ndarray]:
    if (first.documents is None) != (other.documents is None):
        return _pair_by_text(first, other)
    if first.hashes is None or other.hashes is None:
        raise UnusableError("predictions of an earlier version do not say what their records are: evaluate again")
    places = {key: i for i, key in enumerate(numbered(other.hashes))}
    found = [(i, places[key]) for i, key in enumerate(numbered(first.hashes)) if key in places]
    if not found:
        raise UnusableError("no record is in both")
    a, b = zip(*found, strict=True)
    return np.array(a, np.int64), np.array(b, np.int64)


def _pair_by_text(first: Values, other: Values) -> tuple[np.ndarray, np.ndarray]:
    ours, theirs = (first, other) if first.documents is None else (other, first)
    if styles.parse(ours.style).shots:
        raise UnusableError(
            "exemplars in our prompts may be records of the other's log: compare it with a zero-shot run"
        )
    if not (found := matching.by_text(ours.prompts, theirs.documents or (), theirs.prompts)):
        raise UnusableError("no record of the one's log has its texts in the other's prompts")
    a, b = (np.array(side, np.int64) for side in zip(*found, strict=True))
    return (a, b) if ours is first else (b, a)


def same_templates(first: Values, other: Values) -> bool:
    """Whether column t is the same template in both, so that templates can be paired too."""
    if first.templates != other.templates or first.wordings != other.wordings:
        return False
    return first.style == other.style or NOT_RECORDED not in first.wordings


def asked_alike(first: Values, other: Values) -> bool:
    """Whether both runs asked the records that they share in the same words, however many exemplars came before.

    Another program's log has no templates of ours, so there all that was asked is compared, letter by letter, but for
    exemplars.

    Raises:
      UnusableError: see `pair`.
    """
    if first.documents is None and other.documents is None:
        return same_templates(first, other)
    if len(first.templates) != len(other.templates):
        return False
    a_texts, b_texts = (one.shown if first.shown and other.shown else one.prompts for one in (first, other))
    return all(a_texts[a] == b_texts[b] for a, b in zip(*pair(first, other), strict=True))


def has_other_exemplars(first: Values, other: Values) -> bool:
    """Whether two logs that were asked alike had other exemplars before some record that they share.

    Raises:
      UnusableError: see `pair`.
    """
    if not (first.asked and other.asked):
        return False
    return any(first.asked[a] != other.asked[b] for a, b in zip(*pair(first, other), strict=True))


def groups_of_both(first: Values, other: Values, a_P: np.ndarray, b_P: np.ndarray) -> np.ndarray:
    """The number of each pair's passage, from 0: pairs are together if they share one in either run."""
    edges = []
    for groups_P in (first.groups(a_P), other.groups(b_P)):
        last: dict[int, int] = {}
        for place, group in enumerate(groups_P.tolist()):
            edges += [(last[group], place)] if group in last else []
            last[group] = place
    return np.unique(np.array(matching.joined(len(a_P), edges)), return_inverse=True)[1]


def as_one(several: Sequence[Values]) -> Values:
    """The values of a group of runs: their mean on each example.

    Raises:
      UnusableError: the runs have other examples or templates, or are measured by different metrics.
    """
    if len({v.metric for v in several}) > 1:
        raise UnusableError("its runs are measured by different metrics")
    return functools.reduce(_added, enumerate(several[1:], 1), several[0])


def _of_both(a_texts: Sequence[str], b_texts: Sequence[str], a_P: np.ndarray, b_P: np.ndarray) -> tuple[str, ...]:
    """What the runs of a group asked of each example; where they differ, what no other run has."""
    if not (a_texts and b_texts):
        return ()
    pairs = [(a_texts[a], b_texts[b]) for a, b in zip(a_P, b_P, strict=True)]
    return tuple(a if a == b else f"{a} or {b}" for a, b in pairs)


def _added(so_far: Values, numbered_other: tuple[int, Values]) -> Values:
    count, other = numbered_other  # number of runs in the mean so far
    a_P, b_P = pair(so_far, other)
    if not len(a_P) == len(so_far.ids) == len(other.ids):
        raise UnusableError(f"its runs share {len(a_P)} of {max(len(so_far.ids), len(other.ids))} records")
    if not same_templates(so_far, other):
        raise UnusableError("its runs were asked with other templates")
    calibrations = [v.calibration for v in (so_far, other) if v.calibration]
    passages = [f"p{group}" for group in groups_of_both(so_far, other, a_P, b_P).tolist()]
    kept = dataclasses.replace(
        so_far,
        ids=tuple(so_far.ids[i] for i in a_P),
        hashes=None if so_far.hashes is None else tuple(so_far.hashes[i] for i in a_P),
        passages=tuple(passages),
        answers=so_far.answers + other.answers,
        prompts=tuple(so_far.prompts[i] for i in a_P),
        documents=None if so_far.documents is None else tuple(so_far.documents[i] for i in a_P),
        asked=_of_both(so_far.asked, other.asked, a_P, b_P),
        shown=_of_both(so_far.shown, other.shown, a_P, b_P),
        golds=tuple(so_far.golds[i] for i in a_P),
        calibration=sum(calibrations[1:], calibrations[0]) if calibrations else None,
    )
    if so_far.values_ExT is None or other.values_ExT is None:
        parts = (*(part[a_P] for part in so_far.statistics), *(part[b_P] for part in other.statistics))
        return dataclasses.replace(kept, statistics=parts)
    values_ExT = (count * so_far.values_ExT[a_P] + other.values_ExT[b_P]) / (count + 1)
    return dataclasses.replace(kept, values_ExT=values_ExT)

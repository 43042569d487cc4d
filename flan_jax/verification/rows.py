"""Packed rows: a segment's tokens must be as the protocol says, and its logits those of the example alone."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import numpy as np

from flan_jax.training import loss
from flan_jax.verification import tolerances
from flan_jax.verification.findings import Place, Tally
from flan_jax.verification.plain import START, log_likelihoods
from flan_jax.verification.subject import Drawn, Subject

SAYS = "packed rows give the logits and the loss of each example alone"

_LEAK = "an example that sees the one before it (more --examples, longer rows or another model may show it)"
_MORE_ROWS = 8  # further rows to read if the fault would not show in the rows that were asked for

Row = dict[str, np.ndarray]


def check(subject: Subject, tally: Tally) -> None:
    """Compares the rows that hold the first examples of the stream; see `SAYS`."""

    @jax.jit
    def packed(params: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden_1xTxD = loss.target_hidden(subject.model, params, batch)
        of_targets = (batch["targets"], batch["weights"])
        found = loss.token_cross_entropy(subject.model, params, hidden_1xTxD, *of_targets)
        return subject.model.logits(params, hidden_1xTxD[0]), found.loss_BxT[0]

    numbers = {name: number for number, name in enumerate(subject.stream.parts)}
    left = subject.request.examples
    tally.control(_LEAK)
    for place in ((step, row) for step in itertools.count() for row in range(subject.stream.rows_per_batch)):
        step, row = place
        batch = subject.stream.batch(step, slice(row, row + 1))
        drawn = subject.learned(step, row)
        arrays = {name: array[0] for name, array in batch.items()}
        predicting = [
            _stands_as_it_should(tally, arrays, segment, one, numbers[one.segment.part], subject)
            for segment, one in enumerate(drawn, 1)
        ]
        _nothing_else(tally, arrays, len(drawn), sum(len(one.answer) for one in drawn), {"step": step, "row": row})
        logits_TxV, loss_T = (np.asarray(x) for x in packed(subject.params, batch))
        # Spread over the row, because a leak from one segment to the next shows in the later ones.
        for i in np.unique(np.linspace(len(drawn) - 1, 0, min(max(left, 1), len(drawn))).astype(int)):
            if predicting[i] is not None:
                before = drawn[i - 1] if i and tally.could_miss(_LEAK) else None
                _compare(tally, subject, drawn[i], before, logits_TxV[predicting[i]], loss_T[predicting[i]])
            left -= 1
        tally.count(rows=1)
        if left <= 0 and not (tally.could_miss(_LEAK) and -left < _MORE_ROWS):
            return


def _stands_as_it_should(
    tally: Tally, row: Row, segment: int, one: Drawn, part: int, subject: Subject
) -> np.ndarray | None:
    """Compares a segment's arrays with its example. Returns its target slots, or None if something is wrong."""
    has_encoder = subject.plain.has_encoder
    same = _as_expected(tally, row, segment, one, "encoder_" if has_encoder else "")
    slots = np.flatnonzero(row["segments"] == segment)
    if has_encoder:
        said = Drawn(one.segment, [START], one.answer[:-1], one.place)
        same &= _as_expected(tally, row, segment, said, "")
        mine = slots
    else:
        first = int(slots[0]) + len(one.prompt) - 1 if len(slots) else 0
        inside = np.isin(row["target_positions"], slots) & (row["weights"] > 0)
        mine = np.flatnonzero(inside)
        if not tally.same(len(mine), len(one.answer), {**one.place, "slots that carry": "loss"}):
            return None
        expected = list(range(first, first + len(one.answer)))
        same &= _equal(tally, row["target_positions"][mine], expected, "target_positions", one.place)
    same &= _equal(tally, row["targets"][mine], one.answer, "targets", one.place)
    weights = [subject.weight(one)] * len(one.answer)
    same &= _equal(tally, row["weights"][mine], weights, "weights", one.place)
    same &= _equal(tally, row["dataset_ids"][mine], [part] * len(one.answer), "dataset_ids", one.place)
    return mine if same else None


def _as_expected(tally: Tally, row: Row, segment: int, one: Drawn, prefix: str) -> bool:
    """Whether one side's slots of a segment are next to each other, with its tokens, at positions from 0."""
    slots = np.flatnonzero(row[f"{prefix}segments"] == segment)
    ids = one.prompt if prefix else [*one.prompt, *one.answer]
    tally.count(tokens_in_place=len(slots))
    start = int(slots[0]) if len(slots) else 0
    together = _equal(tally, slots, list(range(start, start + len(ids))), f"{prefix}segments", one.place)
    tokens = _equal(tally, row[f"{prefix}tokens"][slots], ids, f"{prefix}tokens", one.place)
    positions = _equal(tally, row[f"{prefix}positions"][slots], list(range(len(ids))), f"{prefix}positions", one.place)
    return together and tokens and positions


def _equal(tally: Tally, found: np.ndarray, expected: list, array: str, place: Place) -> bool:
    """Whether a part of an array is as expected; names the first slot where it is not."""
    if len(found) != len(expected):
        return tally.same(len(found), len(expected), {**place, "slots of": array})
    differ = np.flatnonzero(found != np.array(expected, found.dtype))
    if not len(differ):
        return True
    at = int(differ[0])
    return tally.same(found[at].item(), expected[at], {**place, "array": array, "slot of the segment": at})


def _nothing_else(tally: Tally, row: Row, segments: int, targets: int, place: Place) -> None:
    """Whether the row holds no other segment, and no more weight than its examples have target tokens."""
    for name in (name for name in row if name.endswith("segments")):
        tally.same(int(row[name].max()), segments, {**place, "segments in": name})
    tally.same(int(np.count_nonzero(row["weights"])), targets, {**place, "slots with": "weights"})


def _compare(
    tally: Tally, subject: Subject, one: Drawn, before: Drawn | None, logits_NxV: np.ndarray, loss_N: np.ndarray
) -> None:
    """Compares an example's targets with those of the example alone, and these with what a leak would change."""
    alone_NxV = subject.plain.logits(one.prompt, one.answer)
    scale = float(np.abs(alone_NxV).max())
    differences_N = np.abs(logits_NxV - alone_NxV).max(axis=-1)
    at = int(differences_N.argmax())  # a NaN counts as the largest
    tally.see(differences_N[at], tolerances.logits(scale), {**one.place, "target token": at})
    differences_N = np.abs(loss_N + log_likelihoods(alone_NxV, one.answer))
    at = int(differences_N.argmax())
    tally.see(differences_N[at], tolerances.log_likelihood(scale), {**one.place, "loss of target token": at})
    tally.count(examples=1, target_tokens=len(one.answer))
    if before is not None:
        leaked_NxV = subject.plain.logits([*before.prompt, *one.prompt], one.answer)
        tally.control(_LEAK, float(np.abs(leaked_NxV - alone_NxV).max()), tolerances.logits(scale))

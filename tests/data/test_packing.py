import itertools

import numpy as np
import pytest

from flan_jax.data import packing

ROW, TARGET = 1280, 256

# Input and target lengths in tokens, as (median, spread of the logarithm); one entry a kind of task.
CLASSIFICATION = ((70, 0.6), (4, 0.3))
READING = ((280, 0.6), (6, 0.7))
TRANSLATION = ((60, 0.6), (35, 0.6))
SUMMARIZATION = ((450, 0.7), (30, 0.6))
GENERATION = ((25, 0.5), (70, 0.8))  # inverted templates: short in, long out

FLAN_LIKE = {
    "flan": {CLASSIFICATION: 0.4, READING: 0.15, TRANSLATION: 0.15, SUMMARIZATION: 0.2, GENERATION: 0.1},
    "without the long ones": {CLASSIFICATION: 0.7, TRANSLATION: 0.3},
    "classification": {CLASSIFICATION: 1.0},
}
ONE_SIDED = {
    "translation": {TRANSLATION: 1.0},
    "long inputs": {READING: 0.5, SUMMARIZATION: 0.5},
    "short and long inputs": {CLASSIFICATION: 0.5, SUMMARIZATION: 0.5},
    "both capacities tight": {CLASSIFICATION: 0.7, TRANSLATION: 0.2, GENERATION: 0.1},
    "short and long targets": {CLASSIFICATION: 0.7, GENERATION: 0.3},
}
FLAN = FLAN_LIKE["flan"]


def drawn(mix, count, rng):
    """Lengths and targets of examples: separator and final EOS are counted, and every example fits a row."""
    kinds = list(mix)
    lengths, targets = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for i, kind in enumerate(rng.choice(len(kinds), count, p=list(mix.values()))):
        (median, spread), (target_median, target_spread) = kinds[kind]
        targets[i] = np.clip(rng.lognormal(np.log(target_median), target_spread), 1, TARGET - 1) + 1
        lengths[i] = np.clip(rng.lognormal(np.log(median), spread), 3, ROW - TARGET) + 1 + targets[i]
    return lengths, targets


def cut_off(lengths, targets, num_rows, fill):
    inside = (np.cumsum(lengths) <= fill * num_rows * ROW) & (np.cumsum(targets) <= fill * num_rows * TARGET)
    assert not inside.all(), "too few examples are drawn to fill the rows"
    return lengths[inside], targets[inside]


def check(rows, lengths, targets, num_rows, row_length, target_length):
    """Capacities hold, every example is in one row at most, and none is left out that a row has room for."""
    assert len(rows) == num_rows
    placed = [example for row in rows for example in row]
    assert len(placed) == len(set(placed))
    assert set(placed) <= set(range(len(lengths)))
    room = []
    for row in rows:
        used, used_targets = 0, 0
        for example in row:
            used += lengths[example]
            used_targets += targets[example]
        assert used <= row_length and used_targets <= target_length
        room.append((row_length - used, target_length - used_targets))
    for example, (slots, target_slots) in itertools.product(set(range(len(lengths))) - set(placed), room):
        assert lengths[example] > slots or targets[example] > target_slots
    return placed


@pytest.mark.parametrize("seed", range(40))
def test_against_a_naive_checker(seed):
    rng = np.random.default_rng(seed)
    num_rows, row_length, target_length = (int(rng.integers(1, high)) for high in (20, 200, 60))
    count = int(rng.integers(0, 200))
    targets = rng.integers(1, target_length + 10, count)
    lengths = targets + rng.integers(1, row_length + 10, count)
    rows = packing.pack(lengths, targets, num_rows, row_length, target_length, rng)
    check(rows, lengths, targets, num_rows, row_length, target_length)


def test_everything_is_placed_where_there_is_room():
    rng = np.random.default_rng(0)
    lengths, targets = drawn(FLAN, 300, rng)
    rows = packing.pack(lengths, targets, 300, ROW, TARGET, rng)
    assert sorted(check(rows, lengths, targets, 300, ROW, TARGET)) == list(range(300))


def test_an_exact_fit():
    rows = packing.pack(np.array([6, 4, 7, 3]), np.array([2, 1, 1, 2]), 2, 10, 3, np.random.default_rng(0))
    assert sorted(map(sorted, rows)) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(("length", "target"), [(11, 1), (5, 4)])
def test_an_example_that_fits_no_row(length, target):
    rows = packing.pack(np.array([length, 5]), np.array([target, 1]), 3, 10, 3, np.random.default_rng(0))
    assert sorted(itertools.chain(*rows)) == [1]


@pytest.mark.parametrize("num_rows", [0, 1, 3])
def test_nothing_to_pack(num_rows):
    none = np.zeros(0, np.int64)
    assert packing.pack(none, none, num_rows, 10, 3, np.random.default_rng(0)) == [[]] * num_rows


def test_inputs_are_not_changed():
    rng = np.random.default_rng(0)
    lengths, targets = drawn(FLAN, 200, rng)
    before = lengths.copy(), targets.copy()
    packing.pack(lengths, targets, 20, ROW, TARGET, rng)
    np.testing.assert_array_equal(lengths, before[0])
    np.testing.assert_array_equal(targets, before[1])


def test_deterministic():
    lengths, targets = drawn(FLAN, 400, np.random.default_rng(0))
    first, again, other = (
        packing.pack(lengths, targets, 64, ROW, TARGET, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def fills(mix, seed):
    """Shares of slots and of target slots that are filled, with draws cut off at 0.995 as in the stream."""
    rng = np.random.default_rng(seed)
    lengths, targets = cut_off(*drawn(mix, 10_000, rng), 512, 0.995)
    rows = packing.pack(lengths, targets, 512, ROW, TARGET, rng)
    placed = check(rows, lengths, targets, 512, ROW, TARGET)
    assert len(placed) >= 0.97 * len(lengths)
    return lengths[placed].sum() / (512 * ROW), targets[placed].sum() / (512 * TARGET)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mix", FLAN_LIKE.values(), ids=list(FLAN_LIKE))
def test_fill_of_lengths_like_those_of_flan(mix, seed):
    assert max(fills(mix, seed)) >= 0.985


@pytest.mark.parametrize("mix", ONE_SIDED.values(), ids=list(ONE_SIDED))
def test_fill_of_one_sided_lengths(mix):
    """Whichever capacity is the tighter is nearly full, though few examples are there to fill the gaps."""
    assert max(fills(mix, 0)) >= 0.985


def test_rows_are_alike():
    """No row is left for the long or for the short examples, so that every batch has some of both."""
    rng = np.random.default_rng(0)
    lengths, targets = cut_off(*drawn(FLAN, 10_000, rng), 512, 0.995)
    rows = packing.pack(lengths, targets, 512, ROW, TARGET, rng)
    longest = np.array([lengths[row].max() for row in rows])
    means = longest.reshape(8, 64).mean(axis=1)
    np.testing.assert_allclose(means, longest.mean(), rtol=0.15)

import numpy as np
import pytest

from flan_jax.data import fitting
from flan_jax.data.fitting import Fitting, Order, shuffled
from flan_jax.data.layouts import DecoderLayout
from flan_jax.data.token_store import INDEX

LAYOUT = DecoderLayout(100, 20, None, 1)


def _index(records, renderings, seed=0, longest=150):
    rng = np.random.default_rng(seed)
    index = np.zeros(records * renderings, INDEX)
    index["input_length"], index["target_length"] = (
        rng.integers(1, longest, len(index)),
        rng.integers(1, 25, len(index)),
    )
    index["record"] = np.tile(np.arange(records), renderings)
    return index


def _fitting(index, chunk=1000):
    chunks = (index[i : i + chunk] for i in range(0, len(index), chunk))
    return Fitting(chunks, LAYOUT.sizes, 100, 20)


def _naive(index):
    """Example numbers that fit, one array a rendering."""
    lengths, targets = fitting.sizes_of(index, LAYOUT.sizes)
    fits = (lengths <= 100) & (targets <= 20)
    renderings = np.concatenate([[0], np.cumsum(np.diff(index["record"].astype(int)) <= 0)])
    parts = [np.flatnonzero(fits & (renderings == r)) for r in range(renderings[-1] + 1)]
    return [part for part in parts if len(part)]


@pytest.mark.parametrize("chunk", [1, 7, 512, 4096])
@pytest.mark.parametrize(("records", "renderings"), [(1, 1), (1, 5), (511, 1), (512, 2), (513, 3), (1500, 4)])
def test_the_fitting_are_those_of_a_plain_scan(records, renderings, chunk):
    index = _index(records, renderings, seed=records, longest=100 if records == 1 else 150)
    found, expected = _fitting(index, chunk), _naive(index)
    assert found.counts == [len(part) for part in expected]
    assert found.excluded == len(index) - sum(found.counts) and found.examples == len(index)
    lengths, targets = fitting.sizes_of(index, LAYOUT.sizes)
    assert (found.lengths, found.targets) == (lengths.sum(), targets.sum())
    rng = np.random.default_rng(1)
    for rendering, part in enumerate(expected):
        ranks = rng.permutation(len(part))
        np.testing.assert_array_equal(found.numbers(rendering, ranks), part[ranks])


def test_where_all_or_none_fit():
    index = _index(600, 2, longest=50)
    index["target_length"] = 3
    assert _fitting(index).counts == [600, 600] and _fitting(index).excluded == 0
    np.testing.assert_array_equal(_fitting(index).numbers(1, np.array([0, 599])), [600, 1199])
    index["input_length"][:600] = 500  # a rendering of which nothing fits is left out
    assert _fitting(index).counts == [600] and _fitting(index).excluded == 600
    np.testing.assert_array_equal(_fitting(index).numbers(0, np.array([0, 599])), [600, 1199])
    index["input_length"] = 500
    assert _fitting(index).counts == []
    assert _fitting(index[:0]).counts == [] and _fitting(index[:0]).examples == 0


@pytest.mark.parametrize("chunk", [7, 4096])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
def test_some_records_alone_are_drawn_from(share, chunk):
    index = _index(700, 3, seed=1)
    chosen = np.random.default_rng(2).random(700) < share
    chunks = (index[i : i + chunk] for i in range(0, len(index), chunk))
    found = Fitting(chunks, LAYOUT.sizes, 100, 20, chosen)
    expected = [part[chosen[index["record"][part]]] for part in _naive(index)]
    expected = [part for part in expected if len(part)]
    of_chosen = index[chosen[index["record"]]]
    assert found.counts == [len(part) for part in expected]
    assert found.examples == len(of_chosen) and found.excluded == len(of_chosen) - sum(found.counts)
    assert found.lengths == fitting.sizes_of(of_chosen, LAYOUT.sizes)[0].sum()
    for rendering, part in enumerate(expected):
        np.testing.assert_array_equal(found.numbers(rendering, np.arange(len(part))), part)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000, 1023, 1024, 1025, 70_000])
def test_an_order_holds_every_number_once(size):
    order = Order(np.random.default_rng(size), size)
    whole = order[0:size]
    np.testing.assert_array_equal(np.sort(whole), np.arange(size))
    for first in (0, size // 3, size - 1):
        np.testing.assert_array_equal(order[first : first + 5], whole[first : first + 5])
    assert len(order[size : size + 5]) == 0


def test_an_order_is_random():
    """Places, neighbours and the orders of two keys tell nothing of each other."""
    size = 100_000
    one, other = (Order(np.random.default_rng(seed), size)[0:size] for seed in (0, 1))
    places = np.arange(size)
    for x, y in ((places, one), (one[:-1], one[1:]), (one[:-7], one[7:]), (one, other)):
        assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(size)
    assert 0 < np.sum(one == places) < 10  # about one number stays where it is
    counts = np.histogram2d(places, one, bins=20)[0]
    assert np.square(counts - 250).sum() / 250 < 400 + 5 * np.sqrt(800)  # chi squared of 400 cells
    steps = np.diff(one) % size
    assert np.histogram(steps, bins=50)[0].std() < 5 * np.sqrt(size / 50)


def test_a_long_epoch_takes_no_memory():
    order = shuffled(np.random.default_rng(0), 2**40)
    found = order[2**39 : 2**39 + 1000]
    assert len(set(found.tolist())) == 1000 and found.min() >= 0 and found.max() < 2**40
    assert isinstance(shuffled(np.random.default_rng(0), fitting.SHORT), np.ndarray)

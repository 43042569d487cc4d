import dataclasses
import itertools

import numpy as np
import pytest

from flan_jax import catalog
from flan_jax.errors import FlanError
from flan_jax.splits import Splits, resolve_splits


def with_splits(**rules):
    return dataclasses.replace(catalog.dataset("rte"), splits=Splits(**rules))


def resolved(record, **sizes):
    return {name: s.tfds for name, s in resolve_splits(record, sizes).items()}


@pytest.mark.parametrize(
    ("dataset", "sizes", "expected"),
    [
        (  # 2,490 - 200
            "rte",
            {"train": 2490, "validation": 277, "test": 3000},
            {"train": "train[0:2290]", "validation": "train[2290:2490]", "test": "validation[0:277]"},
        ),
        (  # 392,702 - 200, then capped
            "mnli_matched",
            {"train": 392_702, "validation_matched": 9815, "validation_mismatched": 9832},
            {"train": "train[0:30000]", "validation": "train[392502:392702]", "test": "validation_matched[0:9815]"},
        ),
        (
            "snli",
            {"train": 550_152, "validation": 10_000, "test": 10_000},
            {"train": "train[0:30000]", "validation": "validation[0:200]", "test": "test[0:10000]"},
        ),
        (  # a smaller dev set
            "piqa",
            {"train": 16_113, "validation": 1838, "test": 3084},
            {"train": "train[0:16013]", "validation": "train[16013:16113]", "test": "validation[0:1838]"},
        ),
        (  # neither of the small splits is in the mixture
            "winogrande",
            {"train_xs": 160, "train_xl": 40_398, "validation": 1267, "test": 1767},
            {"train": "train_xl[0:30000]", "validation": "train_xl[40198:40398]", "test": "validation[0:1267]"},
        ),
    ],
)
def test_paper_splits(dataset, sizes, expected):
    assert resolved(catalog.dataset(dataset), **sizes) == expected


@pytest.mark.parametrize(
    ("size", "train", "dev"),
    [
        (30_100, "train[0:29900]", "train[29900:30100]"),  # dev goes before the cap
        (30_200, "train[0:30000]", "train[30000:30200]"),
        (40_000, "train[0:30000]", "train[39800:40000]"),
        (801, "train[0:601]", "train[601:801]"),
        (800, "train[0:600]", "train[600:800]"),
        (40, "train[0:30]", "train[30:40]"),  # a quarter of a small train set
    ],
)
def test_dev_from_the_end_of_train(size, train, dev):
    assert resolved(with_splits(), train=size, validation=5) == {
        "train": train,
        "validation": dev,
        "test": "validation[0:5]",
    }


def test_empty_slices_are_left_out():
    assert resolved(with_splits(), train=3, validation=5) == {"train": "train[0:3]", "test": "validation[0:5]"}
    assert resolved(with_splits(train_start=6), train=8) == {"train": "train[6:8]"}


def test_dev_from_validation_is_its_beginning():
    record = with_splits(dev="validation", test="test")
    assert resolved(record, train=500, validation=1000, test=9) == {
        "train": "train[0:500]",
        "validation": "validation[0:200]",
        "test": "test[0:9]",
    }
    assert resolved(record, train=500, validation=6, test=9)["validation"] == "validation[0:6]"


def test_test_cut_from_train():
    record = with_splits(test="train", test_size=2000)
    assert resolved(record, train=20_000) == {
        "train": "train[0:17800]",
        "validation": "train[17800:18000]",
        "test": "train[18000:20000]",
    }
    # A quarter of 100 is test, a quarter of the other 75 is dev.
    assert resolved(record, train=100) == {
        "train": "train[0:57]",
        "validation": "train[57:75]",
        "test": "train[75:100]",
    }


def test_train_start():
    record = with_splits(test="train", test_size=3000, train_start=30_200)
    assert resolved(record, train=1_000_000) == {
        "train": "train[30200:60200]",
        "validation": "train[996800:997000]",
        "test": "train[997000:1000000]",
    }
    assert resolved(record, train=31_000)["train"] == "train[0:27800]"  # 28,000 are left of test, fewer than the start
    # Too few rows for a start there: a quarter of 40 is test, a quarter of 30 is dev.
    assert resolved(record, train=40) == {
        "train": "train[0:23]",
        "validation": "train[23:30]",
        "test": "train[30:40]",
    }


@pytest.mark.parametrize(
    ("dataset", "sizes", "expected"),
    [
        # A folder of local JSONL may call its splits by the first word.
        (
            "winogrande",
            {"train": 100, "validation": 10},
            {"train": "train[0:75]", "validation": "train[75:100]", "test": "validation[0:10]"},
        ),
        (
            "mnli_matched",
            {"train": 100, "validation": 10},
            {"train": "train[0:75]", "validation": "train[75:100]", "test": "validation[0:10]"},
        ),
        # Without the test split validation is test, and dev comes from train.
        (
            "snli",
            {"train": 1000, "validation": 50},
            {"train": "train[0:800]", "validation": "train[800:1000]", "test": "validation[0:50]"},
        ),
        # An empty split is none.
        (
            "snli",
            {"train": 1000, "validation": 50, "test": 0},
            {"train": "train[0:800]", "validation": "train[800:1000]", "test": "validation[0:50]"},
        ),
        ("snli", {"train": 1000}, {"train": "train[0:800]", "validation": "train[800:1000]"}),
        ("snli", {"validation": 300, "test": 50}, {"validation": "validation[0:200]", "test": "test[0:50]"}),
        ("rte", {"validation": 50}, {"test": "validation[0:50]"}),
    ],
)
def test_stand_in_splits(dataset, sizes, expected):
    assert resolved(catalog.dataset(dataset), **sizes) == expected


@pytest.mark.parametrize("other", ["validation", "validation_matched"])
def test_exact_takes_no_other_test_split(other):
    record = catalog.dataset("mnli_mismatched")
    parts = {"train": "train[0:800]", "validation": "train[800:1000]"}
    assert resolved(record, **{"train": 1000, other: 10}) == parts
    assert resolved(record, **{"train": 1000, other: 10, "validation_mismatched": 7}) == {
        **parts,
        "test": "validation_mismatched[0:7]",
    }


@pytest.mark.parametrize("sizes", [{}, {"train": 0}, {"train_matched": 5}, {"other": 5}])
def test_missing_splits(sizes):
    with pytest.raises(FlanError, match=r"dataset rte: its source has the splits .* but 'train' or 'validation'"):
        resolve_splits(catalog.dataset("rte"), sizes)


def test_exact_without_train_and_test():
    record = catalog.dataset("mnli_mismatched")
    with pytest.raises(FlanError, match="'validation_mismatched' is needed"):
        resolve_splits(record, {"validation_matched": 5})


def test_slices_never_overlap():
    rng = np.random.default_rng(0)
    names = {"train", "validation", "test"}
    for record in catalog.datasets():
        names |= {r for r in (record.splits.train, record.splits.dev, record.splits.test) if r}
    for record in catalog.datasets():
        for _ in range(50):
            present = [n for n in sorted(names) if rng.random() < 0.6]
            sizes = {n: int(10 ** rng.uniform(0, 6)) for n in present}
            try:
                slices = resolve_splits(record, sizes)
            except FlanError:
                continue
            assert slices and list(slices) == [n for n in ("train", "validation", "test") if n in slices]
            for s in slices.values():
                assert 0 <= s.start < s.stop <= sizes[s.split]
            assert "train" not in slices or slices["train"].size <= 30_000
            ranges = sorted((s.split, s.start, s.stop) for s in slices.values())
            for (split, _, stop), (other, start, _) in itertools.pairwise(ranges):
                assert split != other or stop <= start

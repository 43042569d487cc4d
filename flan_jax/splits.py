"""Which records of a source are a dataset's train, dev and test sets: the rules and how they are resolved.

No TensorFlow.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Protocol

from flan_jax.errors import FlanError

TRAIN_CAP = 30_000  # most examples that a dataset gives to training (paper, section 2.1)
DEV_SIZE = 200  # examples of a dev set (paper, appendix); small datasets have fewer


@dataclasses.dataclass(frozen=True)
class Splits:
    """The rules from which TFDS splits a dataset's train, dev and test sets come (paper, appendix).

    `resolve_splits` resolves them against the real sizes.

    Attributes:
      train: the split of the training examples; None if there are none.
      dev: the split of the dev examples. If it is the split of `train`, dev is the last `dev_size` examples of it.
        Otherwise dev is the first `dev_size` examples of its split.
      test: the split of the test examples.
      dev_size: number of dev examples.
      test_size: number of test examples, cut from the end of the split of `train`. For sources with a single split.
      train_start: number of the first training example.
      exact: whether no other split may stand in for `test`. For variants that differ only in their test split.
    """

    train: str | None = "train"
    dev: str | None = "train"
    test: str = "validation"
    dev_size: int = DEV_SIZE
    test_size: int | None = None
    train_start: int = 0
    exact: bool = False


@dataclasses.dataclass(frozen=True)
class SplitSlice:
    """A half-open range of the records of one TFDS split."""

    split: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of records."""
        return self.stop - self.start

    @property
    def tfds(self) -> str:
        """The range as TFDS writes it, for example "train[0:2290]"."""
        return f"{self.split}[{self.start}:{self.stop}]"


class HasSplits(Protocol):
    """Anything that has a name and split rules.

    Attributes:
      name: its name.
      splits: the rules.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - above
    @property
    def splits(self) -> Splits: ...  # noqa: D102 - above


def resolve_splits(record: HasSplits, sizes: Mapping[str, int]) -> dict[str, SplitSlice]:
    """Resolves a dataset's split rules against the real sizes of its source.

    - If the source lacks a split, the first word of its name is tried (`train` for `train_xl`), as in a folder of local
      JSONL.
    - If the source lacks the test split, the dev split, or else `validation`, becomes test, and dev is cut from train.
      The paper does the same for datasets whose labelled test data are not public.
    - A dev set that is cut from a small train set shrinks to a quarter of it.
    - If the train set has no more than `train_start` records, as with a few local rows, it is taken from its beginning.

    Args:
      record: the dataset.
      sizes: number of records of each TFDS split, by name.

    Returns:
      The slices of `train`, `validation` (dev) and `test` that have records.

    Raises:
      FlanError: the source has neither train nor test data.

    Example:
      >>> from flan_jax import catalog
      >>> found = resolve_splits(catalog.dataset("rte"), {"train": 2490, "validation": 277})
      >>> {name: part.tfds for name, part in found.items()}
      {'train': 'train[0:2290]', 'validation': 'train[2290:2490]', 'test': 'validation[0:277]'}
    """
    rules = record.splits

    def find(name: str | None) -> str | None:
        for candidate in (name, re.split(r"_", name)[0] if name else None):
            if candidate and sizes.get(candidate):
                return candidate
        return None

    train, dev, test = find(rules.train), find(rules.dev), find(rules.test)
    if rules.exact and test != rules.test:
        test = None
    elif test is None and rules.test_size is None:
        dev_split = None if rules.dev == rules.train else dev
        stand_in = dev_split or find("validation")
        test, dev = None if stand_in == train else stand_in, train
    out: dict[str, SplitSlice] = {}
    if train is not None:
        stop = sizes[train]
        if rules.test_size is not None:
            size = min(rules.test_size, stop // 4)
            out["test"] = SplitSlice(train, stop - size, stop)
            stop -= size
            test = None
        start = rules.train_start if rules.train_start < stop else 0
        if dev is None or dev == train:
            size = min(rules.dev_size, (stop - start) // 4)
            out["validation"] = SplitSlice(train, stop - size, stop)
            stop -= size
        out["train"] = SplitSlice(train, start, min(stop, start + TRAIN_CAP))
    if dev is not None and dev != train:
        out["validation"] = SplitSlice(dev, 0, min(rules.dev_size, sizes[dev]))
    if test is not None:
        out["test"] = SplitSlice(test, 0, sizes[test])
    out = {name: out[name] for name in ("train", "validation", "test") if name in out and out[name].size}
    if not out:
        raise FlanError(
            f"dataset {record.name}: its source has the splits {sorted(sizes) or 'none'}, "
            f"but {rules.train!r} or {rules.test!r} is needed."
        )
    return out

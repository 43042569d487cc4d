"""Which splits of a source are a dataset's train, dev and test, as rules and as what they come to. No TensorFlow."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Protocol

from flan_jax.errors import FlanError

TRAIN_CAP = 30_000  # examples a dataset may give to training (paper, section 2.1)
DEV_SIZE = 200  # examples of a dev set (paper, appendix); small datasets have fewer


@dataclasses.dataclass(frozen=True)
class Splits:
    """Which TFDS splits a dataset's train, dev and test come from, as rules (paper, appendix).

    The rules are resolved against the real sizes by `resolve_splits`. Where `dev` names the split of `train`, the last
    `dev_size` training examples become dev; otherwise the first `dev_size` of that split. `test_size` cuts a test set
    from the end of the split of `train`, for sources with a single split. `exact` forbids any other split to stand in
    for `test`, for variants that differ by their test split alone.
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
    """A half-open range of one TFDS split."""

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
    """A dataset, as far as its splits go.

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

    A split that the source lacks may be there under the first word of its name (`train_xl` as `train`), as in a
    folder of local JSONL. A source without the test split is treated like the datasets whose labelled test data
    are not public: its dev split, or else `validation`, becomes test, and dev is cut from train. A dev cut from a
    small train set shrinks to a quarter of it. A train set that is no longer than `train_start`, like a few local rows,
    is taken from its beginning.

    Args:
      record: the dataset.
      sizes: number of records by TFDS split name.

    Returns:
      `train`, `validation` (dev) and `test`, those that have records.

    Raises:
      FlanError: neither train nor test data are there.

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

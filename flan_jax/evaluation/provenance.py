"""Where a result comes from: libraries, code, device, data and wordings; and what it cost."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import platform
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax

import flan_jax
from flan_jax import content
from flan_jax.revision import code_revision
from flan_jax.templates import Template

# The libraries that a result may depend on.
LIBRARIES: tuple[str, ...] = (
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "sacrebleu",
    "rouge-score",
    "nltk",
    "scipy",
    "scikit-learn",
)
LIBRARIES += ("tokenizers", "sentencepiece", "orbax-checkpoint", "tensorflow-datasets")
UNKNOWN = "unknown"


class Trees(Protocol):
    """The tokens of a prompt and its options; see `scoring.trees.Tree`."""

    prefix: Sequence[int]
    trunk: Sequence[int]
    branches: Sequence[Sequence[int]]


# ------------------------------------------------------------------------------------------------------------ a run


@functools.cache
def versions() -> dict[str, str]:
    """The versions of this package, of Python and of the installed libraries that matter."""
    found = {"flan-jax": flan_jax.__version__, "python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def device() -> dict[str, Any]:
    """The device that computes: {"platform", "kind", "count", "processes"}."""
    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
        "processes": jax.process_count(),
    }


def of_run(seed: int) -> dict[str, Any]:
    """Where an evaluation comes from: {"versions", "code", "device", "seed"}.

    Args:
      seed: the seed of exemplars and shuffled options.
    """
    return {"versions": versions(), "code": code_revision(), "device": device(), "seed": seed}


# -------------------------------------------------------------------------------------------------------- a dataset


def of_data(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The records that were evaluated: {split: {"records": how many, "digest": of their hashes}}."""
    return {
        split: {"records": len(found), "digest": content.digest(row["hash"] for row in found)}
        for split, found in rows.items()
        if found
    }


def with_templates(figures: dict[str, Any], templates: Sequence[Template], keys: Mapping[int, str]) -> dict[str, Any]:
    """Adds to each template's figures the text that was shown and the key of its test predictions.

    Args:
      figures: see `figures.summarize`.
      templates: the dataset's templates.
      keys: the keys of the test predictions' files, by template; each file's first line has its key.
    """
    listed = [
        one
        | {"input": templates[one["template"]].input, "target": templates[one["template"]].target}
        | {"key": keys[one["template"]]}
        for one in figures["templates"]
    ]
    return figures | {"templates": listed}


@dataclasses.dataclass
class _Cost:
    seconds: float = 0.0
    tokens: int = 0
    units: int = 0
    reused: int = 0


class Costs:
    """Wall time and tokens of each dataset, counted while an evaluation runs."""

    def __init__(self) -> None:
        self._of: dict[str, _Cost] = {}

    def _cost(self, name: str) -> _Cost:
        return self._of.setdefault(name, _Cost())

    @contextlib.contextmanager
    def over(self, names: Collection[str]) -> Iterator[None]:
        """A block of work on units. Its time is divided evenly among them.

        Args:
          names: for each unit, the name of its dataset.
        """
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            for name in names:
                self._cost(name).seconds += spent / len(names)

    def reused(self, name: str) -> None:
        """Counts a unit whose predictions were there already."""
        self._cost(name).reused += 1

    def trees(self, name: str, trees: Iterable[Trees]) -> None:
        """Counts the tokens of a unit's prompts and options; each prompt counts once."""
        cost = self._cost(name)
        cost.units += 1
        cost.tokens += sum(len(t.prefix) + len(t.trunk) + sum(map(len, t.branches)) for t in trees)

    def texts(self, name: str, tokens: int) -> None:
        """Counts the tokens of a unit's prompts and generated answers."""
        cost = self._cost(name)
        cost.units += 1
        cost.tokens += tokens

    def of(self, name: str) -> dict[str, Any]:
        """The cost of a dataset.

        Returns:
          {"seconds", "tokens", "units": how many were computed, "reused": how many came from an earlier job, "device"}.
        """
        cost, where = self._cost(name), device()
        return {
            "seconds": round(cost.seconds, 3),
            "tokens": cost.tokens,
            "units": cost.units,
            "reused": cost.reused,
            "device": f"{where['count']} x {where['kind']}",
        }

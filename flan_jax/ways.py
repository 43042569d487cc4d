"""Ways to score options: each turns the numbers of a prediction into a value for each option. No TensorFlow, no JAX.

    ways.way("per_character").values(prediction)

A prediction keeps the numbers that the ways need, so any of them can be computed later from the file alone. Most ways
need only the prompt and its options. Some need a further *reading* of the record: more texts that are scored. That
costs as much again or more, so these ways must be asked for by name (`WAYS`). To add a way, add a record here.

The headline, as in the paper, is always `sum`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax import templates
from flan_jax.errors import FlanError, near_names
from flan_jax.protocol import Protocol
from flan_jax.templates import Fields

VERSION = 1  # raised when a prediction comes to keep other numbers for the ways; it is part of every key

Prediction = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Asked:
    """Texts that are scored after the same prompt.

    Attributes:
      prompt: what stands before them.
      texts: the texts.
    """

    prompt: str
    texts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Record:
    """A record as a reading sees it.

    Attributes:
      protocol: how the record is asked.
      number: the number of the template.
      fields: the record's fields in the style, not cut.
      scored: the K options that are scored after the prompt.
      exemplars: the fields of the exemplars in front of the prompt, in their order.
      cut: cut(pattern, prompts) renders a pattern with its fields cut, so that it fits after each prompt.
    """

    protocol: Protocol
    number: int
    fields: Fields
    scored: tuple[str, ...]
    exemplars: tuple[Fields, ...]
    cut: Callable[[str, Sequence[str]], str]


@dataclasses.dataclass(frozen=True)
class Reading:
    """Further texts of a record that are scored.

    Attributes:
      key: the key of their K log-likelihoods in a prediction, one for each option.
      asked: gives the K texts, in the order of the options.
    """

    key: str
    asked: Callable[[Record], list[Asked]]


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to score options.

    Attributes:
      name: its name in settings, results and keys.
      title: its name in tables.
      needs: the keys of a prediction that it reads besides `loglikelihood`.
      value: computes an option's value from its log-likelihood and the values of `needs`.
      reading: what must be scored for it besides prompt and options.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    value: Callable[..., float]
    reading: Reading | None = None

    def values(self, prediction: Prediction) -> list[float]:
        """The value of each option; the option with the highest value is chosen.

        Raises:
          FlanError: the prediction does not keep what this way needs.
        """
        if lacking := [key for key in self.needs if key not in prediction]:
            remedy = f" with WAYS = ({self.name!r},)" if self.reading else ""
            raise FlanError(f"a prediction has no {lacking[0]!r}, which {self.name!r} needs: evaluate again{remedy}.")
        columns = [_numbers(prediction[key]) for key in ("loglikelihood", *self.needs)]
        return [self.value(*row) for row in zip(*columns, strict=True)]


def _numbers(column: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in column]  # JSON has null for NaN


def _over(total: float, length: float) -> float:
    return total / max(length, 1)


def _alone(record: Record) -> list[Asked]:
    """The options after the end of the prompt alone, without the record (Holtzman et al. 2021)."""
    return [Asked(templates.fill(record.protocol.premise(record.number), record.fields), record.scored)]


def _channel(record: Record) -> list[Asked]:
    """The record's bare input after each option (Min et al. 2022).

    In exemplars, too, the answer comes before the input.
    """
    asked = record.protocol
    joint, end = asked.exemplar_joint, asked.exemplar_end
    shown = "".join(f"{f['answer']}{joint}{templates.fill(asked.evidence, f)}{end}" for f in record.exemplars)
    prompts = [shown + option for option in record.fields[templates.OPTIONS]]
    text = record.cut(asked.evidence, prompts)
    return [Asked(prompt, (text,)) for prompt in prompts]


SUM = Way("sum", "sum", (), lambda total: total)
ALL = (
    SUM,
    Way("per_token", "per token", ("tokens",), _over),
    Way("per_byte", "per byte", ("bytes",), _over),
    Way("per_character", "per character", ("characters",), _over),
    Way("pmi", "PMI", ("unconditional",), lambda total, alone: total - alone, Reading("unconditional", _alone)),
    Way("channel", "channel", ("channel",), lambda total, channel: channel, Reading("channel", _channel)),
)
_BY_NAME = {way.name: way for way in ALL}


def way(name: str) -> Way:
    """The way with this name.

    Raises:
      FlanError: there is none; the message has near matches.

    Example:
      >>> way("per_byte").needs
      ('bytes',)
    """
    if name not in _BY_NAME:
        raise FlanError(f"no way to score {name!r}: {near_names(name, _BY_NAME)}")
    return _BY_NAME[name]


def kept(prediction: Prediction) -> tuple[Way, ...]:
    """The ways that can be computed from a prediction, `sum` first."""
    return tuple(way for way in ALL if all(key in prediction for key in way.needs))


def readings(names: Sequence[str]) -> tuple[Reading, ...]:
    """The readings that the named ways need, each once, in the order of the table.

    Raises:
      FlanError: an unknown name.

    Example:
      >>> [reading.key for reading in readings(["sum", "pmi", "channel"])]
      ['unconditional', 'channel']
    """
    wanted = {way(name).name for name in names}
    found = {one.reading.key: one.reading for one in ALL if one.name in wanted and one.reading}
    return tuple(found.values())

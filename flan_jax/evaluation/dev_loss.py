"""Loss on dev examples while a model is tuned: the right answers are targets of packed rows, as in training.

Every dev record appears with every forward template, as in ranking. Layout, lengths and weights of targets are those of
the run: with "per_example" each prompt counts the same, with "per_token" each target token. Dropout and label smoothing
are switched off. Examples that do not fit a row are left out, as in training, and counted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from flan_jax import catalog, partitioning, parts
from flan_jax.data import packing
from flan_jax.data.layouts import Batch, DecoderLayout, EncoderDecoderLayout, Example
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.evaluation import ranking
from flan_jax.evaluation.prompt_store import Records
from flan_jax.evaluation.units import Unit
from flan_jax.protocol import NEWLINE
from flan_jax.training.hooks.context import Context
from flan_jax.training.loss import target_loss

Layout = DecoderLayout | EncoderDecoderLayout


@dataclasses.dataclass(frozen=True)
class Found:
    """Sums over the dev targets of a dataset.

    Attributes:
      loss: the sum of weight x loss, in nats.
      weight: the sum of the weights.
    """

    loss: float
    weight: float

    @property
    def mean(self) -> float | None:
        """The mean loss in nats for each target token, by the run's weights.

        None if it is not finite or there are no targets.
        """
        found = self.loss / self.weight if self.weight else math.nan
        return found if math.isfinite(found) else None


@dataclasses.dataclass(frozen=True)
class DevRows:
    """The dev examples of some datasets in packed rows.

    Attributes:
      names: the names of the datasets, as `dataset_ids` numbers them.
      rows: the examples of each row.
      layout: the layout of the rows.
      counts: for each dataset, {"records", "prompts", "too_long", "unusable", "target_tokens"}; "prompts" are those in
        rows.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[Example, ...], ...]
    layout: Layout
    counts: Mapping[str, Mapping[str, int]]

    @classmethod
    def of(cls, records: Mapping[catalog.Dataset, Records], tokenizer: Tokenizer, layout: Layout) -> DevRows:
        """Renders, tokenizes and packs dev examples.

        Args:
          records: the dev records of each dataset.
          tokenizer: the model's vocabulary.
          layout: the layout of the rows; its separators go by the datasets' numbers.
        """
        examples: list[Example] = []
        counts = {}
        for number, (record, found) in enumerate(records.items()):
            counts[record.name], own = _tokenized(number, found, tokenizer, layout)
            examples += own
        rows = tuple(tuple(examples[i] for i in row) for row in _packed(examples, layout))
        return cls(tuple(record.name for record in records), rows, layout, counts)

    def batches(self, size: int, local: Sequence[int]) -> Iterator[Batch]:
        """Yields batches of `size` rows, but of each batch only the rows `local`.

        The last batch is filled up with empty rows.
        """
        for start in range(0, len(self.rows), size):
            rows = [*self.rows[start : start + size], *[()] * size][:size]
            yield self.layout.batch([rows[i] for i in local])


def layout_of(context: Context, records: Sequence[catalog.Dataset], joint: str | None) -> Layout:
    """The run's own layout for some datasets, with the token that the run puts before the answers of each.

    Args:
      context: the run.
      records: the datasets, in the order of their numbers.
      joint: the joint of most of the run's draws, for datasets that the run does not draw.
    """
    layout, names = context.stream.layout, context.stream.parts
    if isinstance(layout, EncoderDecoderLayout):
        return layout
    line_breaks = layout.separators.values() if joint == NEWLINE else ()
    usual, separators = next(iter(line_breaks), layout.eos_id), {}
    for number, record in enumerate(records):
        drawn = [i for i, part in enumerate(names) if parts.dataset_of(part) == catalog.whole(record.name)]
        found = {layout.separators.get(i, layout.eos_id) for i in drawn}
        separators[number] = found.pop() if len(found) == 1 else usual
    return dataclasses.replace(layout, separators=separators)


def _tokenized(
    number: int, found: Records, tokenizer: Tokenizer, layout: Layout
) -> tuple[dict[str, int], list[Example]]:
    asked = found.builder.protocol
    ((split, rows),) = found.splits
    counts = {"records": len(rows), "prompts": 0, "too_long": 0, "unusable": 0, "target_tokens": 0}
    examples = []
    for template in asked.forward:
        unit = Unit.create(found.builder, split, template, rows, Path(), (), "")
        for row in rows:
            try:
                prompt, example = unit.prompt(tokenizer, row)
            except ranking.CANNOT_ASK:
                counts["unusable"] += 1
                continue
            targets = np.array(tokenizer.encode([example.targets])[0], np.int32)[: asked.max_target_tokens - 1]
            inputs = np.array(prompt.tokens, np.int32)
            length, count = (int(x[0]) for x in layout.sizes(np.array([len(inputs)]), np.array([len(targets)])))
            if length > layout.row_length or count > layout.target_length:
                counts["too_long"] += 1
                continue
            counts["prompts"] += 1
            counts["target_tokens"] += count
            examples.append((number, inputs, targets))
    return counts, examples


def _packed(examples: Sequence[Example], layout: Layout) -> packing.Rows:
    """Packs examples into rows. Each of them must fit one."""
    of_each = [np.array([len(one[place]) for one in examples], np.int64) for place in (1, 2)]
    lengths, targets = layout.sizes(*of_each)
    left, rows, rng = np.arange(len(examples)), [], np.random.default_rng(0)
    while len(left):
        share = max(lengths[left].sum() / layout.row_length, targets[left].sum() / layout.target_length)
        capacity = layout.row_length, layout.target_length
        found = packing.pack(lengths[left], targets[left], math.ceil(share), *capacity, rng)
        rows += [[int(left[i]) for i in row] for row in found if row]
        left = np.delete(left, [i for row in found for i in row])
    return rows


class DevLoss:
    """Computes the loss of dev rows with a run's current parameters, on the run's devices."""

    def __init__(self, context: Context, rows: DevRows) -> None:
        """Prepares the computation.

        Args:
          context: the run.
          rows: the dev examples.
        """
        self.rows, program, mesh = rows, context.run.program, context.mesh
        self._mesh, self._size = mesh, program.rows // program.microbatches
        self._local = partitioning.local_rows(mesh, self._size)
        network, count = context.network, len(rows.names)

        def sums(params: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            with partitioning.layout(mesh):
                found = target_loss(network, params, batch, count)[1]
            return found["dataset_loss"], found["dataset_weight"]

        self._sums = jax.jit(sums, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, params: Any, alive: Callable[[int, int], None]) -> dict[str, Found]:
        """The loss of the dev targets, by dataset.

        Args:
          params: the run's parameters, as its network takes them.
          alive: called with (batches done, batches in all) before each batch.
        """
        total = np.zeros((2, len(self.rows.names)))
        number = -(-len(self.rows.rows) // self._size)
        for done, batch in enumerate(self.rows.batches(self._size, self._local)):
            alive(done, number)
            shapes = {k: jax.ShapeDtypeStruct((self._size, *x.shape[1:]), x.dtype) for k, x in batch.items()}
            shardings = partitioning.batch_shardings(self._mesh, shapes)
            given = partitioning.global_batch(batch, shardings, self._local, self._size)
            total += np.stack(jax.device_get(self._sums(params, given))).astype(np.float64)
        return {name: Found(*map(float, pair)) for name, pair in zip(self.rows.names, total.T, strict=True)}


def together(found: Sequence[Found]) -> Found:
    """The sums of several datasets together."""
    return Found(math.fsum(one.loss for one in found), math.fsum(one.weight for one in found))

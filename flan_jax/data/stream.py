"""The stream: from (mixture, seed, step) to a batch of packed rows. Its only state is the step.

It draws from the parts of a mixture (`flan_jax.parts`) and numbers them: a part is a dataset in a style.

The stream is cut into blocks of rows. A block's draws depend only on (seed, block). They end when their tokens fill the
block's slots, and are packed together. So `batch(step)` costs the same at any step, on any number of hosts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from flan_jax.data import drafts, packing
from flan_jax.data.fitting import Fitting, shuffled, sizes_of
from flan_jax.data.layouts import DecoderLayout, EncoderDecoderLayout, Members, refuse_on_inputs
from flan_jax.data.token_store import INDEX, DatasetTokens, TokenStore
from flan_jax.errors import FlanError
from flan_jax.parts import dataset_of
from flan_jax.protocol import MAX_INPUT_TOKENS, MAX_TARGET_TOKENS
from flan_jax.values import PER_TOKEN

FILL = 0.995  # a block's draws end when they fill this share of its slots or target slots
BLOCK_ROWS = 512
ORDER = 2  # version of the order of draws and rows; a run only continues with the same one
ROWS_PER_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Segment:
    """One example in a row: its place (in the encoder's row, if there is one), and what it is."""

    part: str
    dataset: str
    example: int
    record: int
    template: int
    start: int
    length: int


@dataclasses.dataclass(frozen=True)
class _Block:
    """Packed draws: the part, example, slots and index entry of each, and each row's members in order."""

    parts: np.ndarray
    examples: np.ndarray
    lengths: np.ndarray
    entries: np.ndarray
    rows: list[np.ndarray]
    dropped: int
    filled: int
    given_up: int  # draws fewer than its tokens would fill, see `packing.pack_first`


class Stream:
    """The ordered rows of a run.

    Attributes:
      parts: the names of the parts, as `dataset_ids` numbers them.
      row_length: L, the number of slots of a row.
      target_length: T, the number of target slots of a row.
      rows_per_batch: B, the number of rows of a step.
      excluded: the number of examples of each part that are longer than a row; they are never drawn.
    """

    def __init__(
        self,
        store: TokenStore | Mapping[str, DatasetTokens],
        rates: Mapping[str, float],
        *,
        seed: int,
        row_length: int = MAX_INPUT_TOKENS + MAX_TARGET_TOKENS,
        target_length: int = MAX_TARGET_TOKENS,
        rows_per_batch: int = ROWS_PER_BATCH,
        bos_id: int | None,
        eos_id: int,
        encoder_decoder: bool = False,
        loss_averaging: str = PER_TOKEN,
        loss_on_inputs: bool = False,
        block_rows: int = BLOCK_ROWS,
        loss_weights: Mapping[str, float] | None = None,
        separators: Mapping[str, int] | None = None,
        examples: int | None = None,
    ) -> None:
        """Opens the stream.

        Args:
          store: the tokens of each part, by its name.
          rates: the relative mixing rate of each part, by examples.
          seed: the seed of the order.
          row_length: slots of a row; of the encoder's row, if there is one.
          target_length: target slots of a row, with the final EOS of each example.
          rows_per_batch: rows of a step.
          bos_id: the first token of each segment, or None if the vocabulary has none.
          eos_id: stands between input and target, and at the end.
          encoder_decoder: whether rows have an encoder's and a decoder's side; see `flan_jax.data.layouts`.
          loss_averaging: the weights of targets, one of `values.LOSS_AVERAGES`.
          loss_on_inputs: whether a decoder's inputs have a loss, and take target slots, too.
          block_rows: rows of a block, rounded up to whole batches.
          loss_weights: multiply the weights of a part's target tokens; by default 1.
          separators: the token between input and target, for parts where it is not EOS.
          examples: how many records of each part are drawn from, the first by content hash; None takes all.

        Raises:
          FlanError: no rates, a part without any example that fits, a loss on an encoder's inputs, or `examples` with a
            token store that does not identify its records.
        """
        if not rates:
            raise FlanError("a stream needs at least one dataset.")
        self.parts = tuple(rates)
        self._loss_weights = np.array([(loss_weights or {}).get(name, 1.0) for name in self.parts], np.float32)
        self._separators = {number: separators[n] for number, n in enumerate(self.parts) if n in (separators or {})}
        self.row_length, self.target_length = row_length, target_length
        refuse_on_inputs(encoder_decoder, loss_on_inputs)
        common = (row_length, target_length, bos_id, eos_id, loss_averaging)
        self._layout: Any
        if encoder_decoder:
            self._layout = EncoderDecoderLayout(*common)
        else:
            self._layout = DecoderLayout(*common, loss_on_inputs)
        if self._separators:
            self._layout = dataclasses.replace(self._layout, separators=self._separators)
        self._seed = seed
        self.rows_per_batch = rows_per_batch
        self._block_rows = -(-block_rows // rows_per_batch) * rows_per_batch
        self._stores = [store[name] for name in self.parts]
        self._fitting: list[Fitting] = []
        self.excluded: dict[str, int] = {}
        for name, tokens in zip(self.parts, self._stores, strict=True):
            chosen = None if examples is None else tokens.first(examples)
            fitting = Fitting(tokens.entries(), self._layout.sizes, row_length, target_length, chosen)
            if not fitting.counts:
                raise FlanError(
                    f"dataset {name}: no example of {fitting.examples} fits a row of {row_length} slots "
                    f"with {target_length} target slots; raise TASK_FEATURE_LENGTHS or leave it out."
                )
            if fitting.excluded:
                self.excluded[name] = fitting.excluded
            self._fitting.append(fitting)
        weights = np.array([rates[name] for name in self.parts], np.float64)
        self._probabilities = weights / weights.sum()
        both = list(zip(self._probabilities, self._fitting, strict=True))
        mean_length = float(sum(p * (x.lengths / x.examples) for p, x in both))
        mean_target = float(sum(p * (x.targets / x.examples) for p, x in both))
        # The average number of draws that fill a block, by the tighter capacity.
        self._full = FILL * self._block_rows * min(row_length / mean_length, target_length / mean_target)
        self._block = functools.lru_cache(maxsize=3)(self._packed_block)
        self._order = functools.lru_cache(maxsize=4 * len(self.parts))(self._permutation)

    @property
    def text(self) -> list[dict[str, Any]]:
        """Identifies what is drawn from, by each part's token store.

        An entry is {"dataset", "digest", "records", "records_digest", "wording"}.

        "digest" covers everything that is stored. "records_digest" covers the records alone, whatever their style or
        vocabulary; it is None if the store does not identify its records. "wording" is the fingerprint of the templates
        (`drafts`), and is missing if the store does not have it.
        """
        return [
            {
                "dataset": store.name,
                "digest": store.digest,
                "records": store.num_records,
                "records_digest": store.info["records_digest"] if len(store.records.hashes) else None,
                **({drafts.KEY: store.info[drafts.KEY]} if drafts.KEY in store.info else {}),
            }
            for store in self._stores
        ]

    @property
    def layout(self) -> DecoderLayout | EncoderDecoderLayout:
        """Where the tokens of an example lie in a row."""
        return self._layout

    @property
    def slots_per_step(self) -> int:
        """The number of slots in a step's rows; on both sides, if there is an encoder."""
        return self.rows_per_batch * self._layout.slots

    @functools.cached_property
    def _draws(self) -> float:
        """Draws from the beginning of a block to that of the next: about those that are in its rows."""
        first = self._block(0)
        return float(len(first.parts)) if first.given_up else self._full

    @property
    def draws_per_step(self) -> float:
        """The expected number of examples in a step's rows."""
        return self._draws * self.rows_per_batch / self._block_rows

    # ------------------------------------------------------------------------------------------------- drawing

    def _permutation(self, part: int, epoch: int) -> Any:
        """The ranks of the examples of one epoch of a part, in the order in which they are drawn; to be sliced."""
        counts = self._fitting[part].counts
        rng = np.random.Generator(np.random.Philox(key=[self._seed, (part << 40) + epoch]))
        return shuffled(rng, counts[epoch % len(counts)])

    def _drawn(self, number: int, first: int, count: int) -> np.ndarray:
        """The example numbers of `count` draws of a part, from draw `first` on."""
        found, position, epoch = [], first, 0
        sizes = self._fitting[number].counts
        epoch = len(sizes) * (position // sum(sizes))
        position -= (epoch // len(sizes)) * sum(sizes)
        while count > 0:
            size = sizes[epoch % len(sizes)]
            if position >= size:
                position, epoch = position - size, epoch + 1
                continue
            part = self._order(number, epoch)[position : position + count]
            found.append(self._fitting[number].numbers(epoch % len(sizes), part))
            count -= len(part)
            position += len(part)
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def _packed_block(self, block: int) -> _Block:
        rng = np.random.Generator(np.random.Philox(key=[self._seed, (1 << 62) + block]))
        offsets = rng.random(len(self.parts))
        places, owners, numbers = [], [], []
        for part, (probability, offset) in enumerate(zip(self._probabilities, offsets, strict=True)):
            count = int(self._full * probability * 1.25) + 16  # more than will be needed
            first = int(block * self._draws * probability) if block else 0
            places.append((np.arange(count) + offset) / probability)
            owners.append(np.full(count, part))
            numbers.append(self._drawn(part, first, count))
        order = np.argsort(np.concatenate(places), kind="stable")
        parts, examples = np.concatenate(owners)[order], np.concatenate(numbers)[order]
        entries = np.zeros(len(order), INDEX)
        for part, store in enumerate(self._stores):
            mine = parts == part
            entries[mine] = store.index[examples[mine]]
            store.forget()  # each draw has read other pages
        lengths, targets = sizes_of(entries, self._layout.sizes)
        slots, target_slots = self._block_rows * self.row_length, self._block_rows * self.target_length
        inside = (np.cumsum(lengths) <= FILL * slots) & (np.cumsum(targets) <= FILL * target_slots)
        drawn = int(inside.sum())
        capacities = self._block_rows, self.row_length, self.target_length
        count, packed = packing.pack_first(lengths[:drawn], targets[:drawn], *capacities, rng)
        parts, examples, lengths, targets, entries = (x[:count] for x in (parts, examples, lengths, targets, entries))
        rows = [rng.permutation(np.array(row, np.int64)) for row in packed]
        kept = np.concatenate(rows)
        filled = self._layout.filled(lengths[kept], targets[kept])
        return _Block(parts, examples, lengths, entries, rows, len(parts) - len(kept), filled, given_up=drawn - count)

    # ----------------------------------------------------------------------------------------------------- rows

    def _place(self, step: int) -> tuple[int, int]:
        """(block, first row in it) of a step."""
        first = step * self.rows_per_batch
        return first // self._block_rows, first % self._block_rows

    def segments(self, step: int, row: int) -> list[Segment]:
        """The examples in row `row` of a step."""
        number, first = self._place(step)
        block = self._block(number)
        found, start = [], 0
        for member in block.rows[first + row]:
            part, example = int(block.parts[member]), int(block.examples[member])
            length = int(block.lengths[member])
            entry = block.entries[member]
            name = self.parts[part]
            about = dataset_of(name), example, int(entry["record"]), int(entry["template"])
            found.append(Segment(name, *about, start, length))
            start += length
        return found

    def tokens(self, segment: Segment) -> tuple[np.ndarray, np.ndarray]:
        """The inputs and targets of a segment, int32, without BOS and EOS."""
        return self._stores[self.parts.index(segment.part)].example(segment.example)

    def separator(self, part: str) -> int:
        """The token between a part's inputs and targets."""
        return self._separators.get(self.parts.index(part), self._layout.eos_id)

    def loss_weight(self, part: str) -> float:
        """The factor on the weights of a part's target tokens."""
        return float(self._loss_weights[self.parts.index(part)])

    def record_id(self, segment: Segment) -> str:
        """The id of a segment's record; its number if the token store does not identify its records."""
        ids = self._stores[self.parts.index(segment.part)].records.ids
        return ids[segment.record].decode(errors="replace") if segment.record < len(ids) else str(segment.record)

    def index(self, part: str) -> np.ndarray:
        """The index of a part's examples, see `token_store.INDEX`."""
        return self._stores[self.parts.index(part)].index

    def batch(self, step: int, rows: slice | np.ndarray = slice(None)) -> dict[str, np.ndarray]:
        """A step's rows, or some of them (by slice or by numbers), as the layout writes them.

        Only their tokens are read.

        Returns:
          Arrays by name, int32 but for the weights, which are float32. For a decoder: tokens, positions and segments
          [B, L]; target_positions, targets, dataset_ids and weights [B, T]. For an encoder-decoder: encoder_tokens,
          encoder_positions and encoder_segments [B, S]; tokens, positions, segments, targets, dataset_ids and weights
          [B, T].
        """
        number, first = self._place(step)
        block = self._block(number)
        chosen = [block.rows[first + row] for row in np.arange(self.rows_per_batch)[rows]]
        members = np.concatenate([*chosen, np.zeros(0, np.int64)])
        parts, entries = block.parts[members], block.entries[members]
        inputs, targets = (entries[name].astype(np.int64) for name in ("input_length", "target_length"))
        sizes = inputs + targets
        ends = np.cumsum(sizes)
        tokens = np.empty(sizes.sum(), np.int32)
        places = (x.tolist() for x in (parts, entries["offset"], sizes, ends))
        for part, offset, size, end in zip(*places, strict=True):
            tokens[end - size : end] = self._stores[part].tokens[offset : offset + size]
        for part in set(parts.tolist()):
            self._stores[part].forget()
        row = np.repeat(np.arange(len(chosen)), [len(x) for x in chosen])
        return self._layout.batch(Members(len(chosen), row, parts, inputs, targets, tokens), self._loss_weights)

    def report(self, blocks: int = 2) -> dict[str, Any]:
        """How full rows are, over the first blocks, and how often each part is drawn.

        Returns:
          `fill` (the share of slots that hold tokens), `dropped` (draws that no row had room for), `draws`, `excluded`,
          `rows`, and the share of draws by part.
        """
        packed = [self._block(i) for i in range(blocks)]
        draws = np.bincount(np.concatenate([b.parts for b in packed]), minlength=len(self.parts))
        return {
            "fill": sum(b.filled for b in packed) / (blocks * self._block_rows * self._layout.slots),
            "rows": blocks * self._block_rows,
            "draws": int(draws.sum()),
            "dropped": sum(b.dropped for b in packed),
            "excluded": dict(self.excluded),
            "share": {name: float(n / draws.sum()) for name, n in zip(self.parts, draws, strict=True)},
        }


@contextlib.contextmanager
def prefetch(
    stream: Stream, start: int, size: int = 2, rows: slice | np.ndarray = slice(None)
) -> Iterator[Iterator[dict[str, np.ndarray]]]:
    """Yields an iterator over the batches from step `start` on, or over some of their rows. A thread makes them ahead.

    An error in the thread is raised where the batch is taken. The thread ends with the context.
    """
    batches: queue.Queue[Any] = queue.Queue(size)
    stopped = threading.Event()

    def put(value: Any) -> bool:
        while not stopped.is_set():
            try:
                batches.put(value, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        step = start
        try:
            while put(stream.batch(step, rows)):
                step += 1
        except Exception as error:
            put(error)

    def take() -> Iterator[dict[str, np.ndarray]]:
        while True:
            value = batches.get()
            if isinstance(value, Exception):
                raise value
            yield value

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        stopped.set()
        thread.join()

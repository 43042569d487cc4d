"""Continuations of prompts: the prompt in one pass, then a token at a time with a cache of keys and values.

Prompts of similar length share a batch. Rows, length of the prompt and room for new tokens come in a few sizes, and
each combination is compiled once; the loop over tokens runs on the device. When most rows of a large batch have ended,
the others go on in a smaller one. What a row gets depends on its own prompt alone, whatever else is in the batch (up
to rounding). An encoder-decoder encodes the prompt; its decoder starts with id 0, as T5's does.
"""

from __future__ import annotations

import bisect
import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax import partitioning
from flan_jax.decoding import beam, requests, sampling
from flan_jax.decoding.beam import Beams
from flan_jax.decoding.sampling import Sampling
from flan_jax.decoding.steps import State, Steps
from flan_jax.errors import NotFiniteError
from flan_jax.models import Cache, Model

VERSION = 1  # raised when the same weights and prompts come to give other texts: no older prediction is used then
PROMPT_LENGTHS = (32, 64, 128, 256, 512, 1024, 2048)
NEW_TOKENS = (16, 64, 256, 1024)
ROWS = (1, 4, 16, 64)
_FEWEST_ROWS_MOVED = 16  # on a shard; a smaller batch takes hardly less time, as each step reads all weights
_STEPS_BETWEEN_CHECKS = 8  # tokens that a row may go on after the host's test would have ended it


@dataclasses.dataclass(frozen=True)
class Generation:
    """What a model said.

    Attributes:
      tokens: without the token that ended it.
      end: the token that ended it, or None at its limit.
      score: of a beam search, the sum of log-probabilities, the end's too, over the length to the length penalty.
      is_finite: whether all logits that it was chosen by were.
    """

    tokens: tuple[int, ...]
    end: int | None
    score: float | None = None
    is_finite: bool = True

    @property
    def ended(self) -> bool:
        """Whether it ended by itself."""
        return self.end is not None


class Generator:
    """Generates with one model.

    Args:
      model: the model.
      params: its parameters; or, for `with_params`, their shapes with shardings (`jax.ShapeDtypeStruct`).
      eos_ids: the tokens that end a text: one, or several.
      mesh: where rows and parameters are laid out; None takes one device.
      prompt_lengths: the sizes that prompts are filled up to.
      new_tokens: the sizes of the room for new tokens.
      rows: the numbers of rows of a batch, on each shard of the rows.
      tokens_per_batch: slots of a batch on a shard; a batch of the fewest rows may have more.
    """

    def __init__(
        self,
        model: Model,
        params: Any,
        eos_ids: int | Sequence[int],
        *,
        mesh: jax.sharding.Mesh | None = None,
        prompt_lengths: Sequence[int] = PROMPT_LENGTHS,
        new_tokens: Sequence[int] = NEW_TOKENS,
        rows: Sequence[int] = ROWS,
        tokens_per_batch: int = 16_384,
    ) -> None:
        self._model = model
        self._steps = Steps(model)
        self._eos_ids = tuple(np.atleast_1d(np.asarray(eos_ids, int)).tolist())
        self._mesh = partitioning.make_mesh(devices=jax.devices()[:1]) if mesh is None else mesh
        shardings = partitioning.parameter_shardings(self._mesh, model.logical_axes(), model.abstract_params())
        abstract = all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(params))
        self._params = params if abstract else jax.device_put(params, shardings)
        self._lengths, self._rooms = sorted(prompt_lengths), sorted(new_tokens)
        self._rows = [n * partitioning.rows_per_shard_of(self._mesh) for n in sorted(rows)]
        self._slots = tokens_per_batch * partitioning.rows_per_shard_of(self._mesh)
        self._compiled: dict[Any, Any] = {}

    def with_params(self, params: Any) -> Generator:
        """A generator with other parameters of the same model, laid out on the same mesh; both share what is compiled.

        Parameters that are laid out so already are not copied.
        """
        other = copy.copy(self)
        other._params = jax.device_put(params, jax.tree.map(lambda x: x.sharding, self._params))
        return other

    @property
    def has_encoder(self) -> bool:
        """Whether prompts go to an encoder."""
        return self._model.config.num_encoder_layers > 0

    @property
    def max_prompt(self) -> int:
        """Longest prompt, in tokens."""
        return self._lengths[-1]

    @property
    def compile_count(self) -> int:
        """Programs compiled so far; at most three for each size of a batch and way to choose tokens."""
        return len(self._compiled)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int | Sequence[int],
        *,
        choose: Sampling | Beams = Sampling(),  # noqa: B008 (frozen)
        is_complete: Callable[[tuple[int, ...]], bool] | None = None,
        more_ends: Sequence[int] = (),
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Generation]:
        """Continues every prompt until it ends, is complete or reaches its limit.

        Args:
          prompts: token ids of each, with BOS where the model wants it.
          max_new_tokens: a limit for all, or one for each.
          choose: how tokens are chosen.
          is_complete: whether these tokens are enough; asked every few steps, so more of them may be there in the end.
            A beam search does not ask.
          more_ends: tokens that end these texts, beside the model's own.
          progress: called with (prompts done, prompts in all).

        Returns:
          A continuation for each prompt.

        Raises:
          FlanError: as many limits as prompts are needed.
          PromptError: a prompt that is empty or too long, or has what is no token of the model; or such a limit.
          NotFiniteError: a prompt's logits are NaN or infinite, so that no token is the likeliest.
        """
        vocab_size = self._model.config.vocab_size
        prompts, limits = requests.checked(
            prompts, max_new_tokens, max_prompt=self.max_prompt, most_new=self._rooms[-1], vocab_size=vocab_size
        )
        seeds = sampling.row_seeds(prompts, choose.seed if isinstance(choose, Sampling) else 0)
        # As one row, so that no axis of the mesh divides it.
        ends_1xV = np.zeros((1, vocab_size), bool)
        ends_1xV[0, [i for i in (*self._eos_ids, *more_ends) if 0 <= i < ends_1xV.size]] = True
        found: list[Generation | None] = [None] * len(prompts)
        not_finite: list[int] = []
        waiting = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), limits[i]), reverse=True)
        while waiting:
            length = _next_size(self._lengths, len(prompts[waiting[0]]))
            rows = self._rows_for(length, [limits[i] for i in waiting])
            some, waiting = waiting[:rows], waiting[rows:]
            room = _next_size(self._rooms, max(limits[i] for i in some))
            arrays = self._arrays(rows, length, [prompts[i] for i in some], [limits[i] for i in some], seeds[some])
            if isinstance(choose, Beams):
                made = self._search(arrays, ends_1xV, room, choose)
            else:
                made = self._choose(arrays, ends_1xV, room, choose, is_complete)
            for i, generation in zip(some, made, strict=False):  # rows that fill up the batch come last
                found[i] = generation
                not_finite += [] if generation.is_finite else [i]
            progress(len(prompts) - len(waiting), len(prompts))
        if not_finite:  # said when all are done: batches do not go in the prompts' order
            raise NotFiniteError(
                f"the model gives prompt {min(not_finite)} logits that are not finite: "
                "look for NaN or infinite numbers in its weights, or compute in float32.",
                min(not_finite),
            )
        return found

    def _rows_for(self, length: int, limits: Sequence[int]) -> int:
        """Rows of the next batch: as many as are wanted and fit."""
        room = _next_size(self._rooms, max(limits[: self._rows[-1]]))
        fitting = [n for n in self._rows if n * (length + room) <= self._slots] or self._rows[:1]
        return fitting[min(bisect.bisect_left(fitting, len(limits)), len(fitting) - 1)]

    @staticmethod
    def _arrays(
        rows: int, length: int, prompts: Sequence[Sequence[int]], limits: Sequence[int], seeds: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        tokens, counts = np.zeros((rows, length), np.int32), np.zeros((3, rows), np.int32)
        for b, prompt in enumerate(prompts):
            tokens[b, : len(prompt)] = prompt
        counts[0, : len(prompts)], counts[1, : len(prompts)] = [len(prompt) for prompt in prompts], limits
        row_seeds = counts[2].astype(np.uint32)
        row_seeds[: len(prompts)] = seeds
        return tokens, counts[0], counts[1], row_seeds

    def _choose(
        self,
        arrays: tuple[np.ndarray, ...],
        ends_1xV: np.ndarray,
        room: int,
        choose: Sampling,
        is_complete: Callable[[tuple[int, ...]], bool] | None,
    ) -> list[Generation]:
        """Generates token by token."""

        def start(params: Any, *inputs: Any) -> State:
            return self._steps.started(params, room, choose.kind, *inputs)

        def advance(
            params: Any, state: State, until: jax.Array, fewest: jax.Array, ends_1xV: jax.Array, numbers: tuple
        ) -> State:
            return self._steps.advanced(params, choose.kind, state, until, fewest, ends_1xV, numbers)

        def move(params: Any, state: State, numbers_R: jax.Array) -> State:
            del params
            return state.rows(numbers_R)

        inputs = (*arrays, ends_1xV, choose.numbers)
        num_rows, length = arrays[0].shape
        state = self._program(("start", num_rows, length, room, choose.kind), start, *inputs)(self._params, *inputs)
        end = int(arrays[2].max())
        standing = np.arange(num_rows)  # which row of the batch each row of the state is
        found: list[Generation | None] = [None] * num_rows
        looked, kept = np.zeros(num_rows, int), np.full(num_rows, -1)  # tokens that were looked at; of a complete row
        while True:
            shown = (state.step, state.tokens_BxT, state.counts_B, state.is_done_B, state.is_finite_B)
            step, tokens, counts, done, finite = jax.device_get(shown)
            if is_complete is not None:
                # A row went on while nobody looked. What came after it was complete does not count, NaN included.
                for b, row, count, ok in zip(standing, tokens, counts, finite, strict=True):
                    if kept[b] < 0:
                        kept[b] = _complete_at(row[: count if ok else count - 1].tolist(), looked[b], is_complete)
                        looked[b] = count
                done = done | (kept[standing] >= 0)
                state = state._replace(is_done_B=jax.device_put(done, state.is_done_B.sharding))
            is_over = done.all() or step >= end
            fewer = self._fewer_rows(len(standing))
            if is_over or (~done).sum() <= fewer:
                for b, row, count, ok in zip(standing, tokens, counts, finite, strict=True):
                    length_of_row = count if kept[b] < 0 else kept[b]
                    is_finite = bool(ok) or kept[b] >= 0
                    found[b] = _generation(row[:length_of_row].tolist(), ends_1xV, is_finite=is_finite)
            if is_over:
                return found
            if (~done).sum() <= fewer:
                numbers = np.argsort(done, kind="stable")[:fewer].astype(np.int32)  # those that go on come first
                key: tuple[Any, ...] = ("move", len(standing), fewer, length, room)
                state, standing = (
                    self._program(key, move, state, numbers)(self._params, state, numbers),
                    standing[numbers],
                )
                fewer = self._fewer_rows(fewer)
            until = np.int32(end if is_complete is None else min(step + _STEPS_BETWEEN_CHECKS, end))
            more = (until, np.int32(fewer), ends_1xV, choose.numbers)
            key = ("advance", len(standing), length, room, choose.kind)
            state = self._program(key, advance, state, *more, donated=1)(self._params, state, *more)

    def _fewer_rows(self, rows: int) -> int:
        """Rows of the smaller batch in which the rest of a batch goes on; 0 where there is none."""
        fewest = _FEWEST_ROWS_MOVED * partitioning.rows_per_shard_of(self._mesh)
        return max((n for n in self._rows if fewest <= n < rows), default=0)

    def _search(
        self, arrays: tuple[np.ndarray, ...], ends_1xV: np.ndarray, room: int, choose: Beams
    ) -> list[Generation]:
        """Generates by beam search."""
        num_ends = int(ends_1xV.sum())

        def search(params: Any, tokens_BxP: Any, lengths_B: Any, limits_B: Any, ends_1xV: Any) -> tuple[jax.Array, ...]:
            logits_BxV, cache, starts_B = self._steps.prefilled(params, tokens_BxP, lengths_B, room)
            starts_R = jnp.repeat(starts_B, choose.num)

            def forward(cache: Cache, tokens_R: jax.Array, before: jax.Array) -> tuple[jax.Array, Cache]:
                return self._steps.stepped(params, cache, tokens_R, starts_R, before, room)

            return beam.search(
                logits_BxV, cache, limits_B, forward, beams=choose, room=room, ends_V=ends_1xV[0], num_ends=num_ends
            )

        inputs = (*arrays[:3], ends_1xV)
        program = self._program(("beams", *arrays[0].shape, room, choose, num_ends), search, *inputs)
        tokens, lengths, scores, finite = jax.device_get(program(self._params, *inputs))
        return [
            _generation(row[:length].tolist(), ends_1xV, float(score), bool(ok))
            for row, length, score, ok in zip(tokens, lengths, scores, finite, strict=True)
        ]

    def _program(self, key: Any, function: Callable[..., Any], *inputs: Any, donated: int | None = None) -> Any:
        if key not in self._compiled:
            # Compiled ahead of the call: such a program refuses other shapes instead of compiling again.
            in_shardings = (jax.tree.map(lambda x: x.sharding, self._params), *self._shardings(inputs))
            out_shardings = self._shardings(jax.eval_shape(function, self._params, *inputs))
            donate = () if donated is None else (donated,)
            jitted = jax.jit(function, in_shardings=in_shardings, out_shardings=out_shardings, donate_argnums=donate)
            self._compiled[key] = jitted.lower(self._params, *inputs).compile()
        return self._compiled[key]

    def _shardings(self, tree: Any) -> Any:
        """Rows as in any batch, and the key heads of caches like those of the parameters."""

        def sharding(x: Any) -> jax.sharding.NamedSharding:
            rows = ("batch", *[None] * (x.ndim - 1)) if x.ndim else ()
            axes = ("layers", "batch", "length", "kv_heads", "kv") if x.ndim == 5 else rows
            return jax.sharding.NamedSharding(self._mesh, partitioning.partition_spec(self._mesh, axes, x.shape))

        return jax.tree.map(sharding, tree)


def _generation(
    tokens: list[int], ends_1xV: np.ndarray, score: float | None = None, is_finite: bool = True
) -> Generation:
    ended = bool(tokens) and bool(ends_1xV[0, tokens[-1]])
    return Generation(tuple(tokens[:-1] if ended else tokens), tokens[-1] if ended else None, score, is_finite)


def _complete_at(tokens: Sequence[int], looked: int, is_complete: Callable[[tuple[int, ...]], bool]) -> int:
    """How many of the tokens were complete first, of those that nobody had looked at; -1 if all are not."""
    if not is_complete(tuple(tokens)):
        return -1
    return next(n for n in range(min(looked + 1, len(tokens)), len(tokens) + 1) if is_complete(tuple(tokens[:n])))


def _next_size(sizes: Sequence[int], wanted: int) -> int:
    return sizes[bisect.bisect_left(sizes, wanted)]

"""Log-likelihoods of answer options; every prompt is computed once.

A prompt and its options are one tree (see `trees`). Options attend to the prompt and to themselves, and their positions
continue from the prompt. Trees are packed into rows of a few lengths, so each shape is compiled once. The LM head runs
only at slots that predict a token of an option. Trees with the same prefix, such as exemplars, share its keys and
values, which are computed once. An encoder-decoder encodes every prompt once; see `encoder_packing`.

In a pod, every process packs the same rows, computes those of its own devices, and gets all scores.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax import partitioning
from flan_jax.errors import FlanError, NotFiniteError
from flan_jax.models import Cache, Model
from flan_jax.scoring import encoder_packing, tree_packing
from flan_jax.scoring.trees import Tree

VERSION = 1  # raised when the same weights and trees come to give other numbers; older predictions are then not used

# A prefix is padded to one of the first lengths, and a row to one of the second.
PREFIX_LENGTHS = (64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024, 1280, 1536, 2048)
ROW_LENGTHS = (256, 384, 512, 640, 768, 1024, 1280, 1536, 1792, 2048, 3072, 4096)
_CPU_BLOCK = 64  # queries in a block of the attention
# Most bytes and most predictions of a chunk of logits on one device. Larger chunks cost memory, and leave the last
# chunk of a batch emptier. Smaller ones would read the head's weights too often.
_CHUNK_ON_CPU = (64 * 2**20, 128)
_CHUNK = (512 * 2**20, 1024)
_SUM_WIDTH = 512
_IN_FLIGHT = 2  # batches in computation while the host prepares the next one
_TRIED_ALONE = 8  # if no prompt has finite scores, so many are tried alone; if all of these fail, the model is at fault


@dataclasses.dataclass(frozen=True)
class OptionScores:
    """Scores of the K options of one prompt, in their order.

    Attributes:
      loglikelihood: for each option, the sum of log-probabilities over its scored tokens (natural logarithm).
      tokens: the number of scored tokens of each option.
      num_bytes: the length of each option's text in UTF-8.
      is_greedy: whether each scored token of the option was the likeliest one.
    """

    loglikelihood: tuple[float, ...]
    tokens: tuple[int, ...]
    num_bytes: tuple[int, ...]
    is_greedy: tuple[bool, ...]

    @property
    def is_finite(self) -> bool:
        """Whether no log-likelihood is NaN or infinite."""
        return all(map(math.isfinite, self.loglikelihood))


@dataclasses.dataclass
class Work:
    """What a scorer has done so far.

    Attributes:
      batches: forward passes.
      slots: slots of their rows.
      tokens: slots that held a token.
      predictions: slots at which the LM head was needed.
      head_rows: slots at which it was computed.
      compile_seconds: seconds spent compiling programs.
      host_seconds: seconds spent packing trees and writing arrays.
    """

    batches: int = 0
    slots: int = 0
    tokens: int = 0
    predictions: int = 0
    head_rows: int = 0
    compile_seconds: float = 0.0
    host_seconds: float = 0.0

    @property
    def fill(self) -> float:
        """The share of slots that held a token."""
        return self.tokens / max(self.slots, 1)


class Scorer:
    """Scores trees with one model.

    Args:
      model: the model.
      params: its parameters; or, for `lower` and `with_params`, their shapes with shardings (`jax.ShapeDtypeStruct`).
      mesh: where rows and parameters are laid out; None takes one device.
      row_lengths: lengths of the rows in slots. The longest limits a prompt with its longest option.
      tokens_per_batch: slots of a forward pass on each shard of the rows; None chooses by platform.

    Attributes:
      work: what was computed, for reports.
    """

    def __init__(
        self,
        model: Model,
        params: Any,
        *,
        mesh: jax.sharding.Mesh | None = None,
        row_lengths: Sequence[int] = ROW_LENGTHS,
        tokens_per_batch: int | None = None,
    ) -> None:
        self._mesh = partitioning.make_mesh(devices=jax.devices()[:1]) if mesh is None else mesh
        on_cpu = self._mesh.devices.flat[0].platform == "cpu"
        c = model.config
        if on_cpu and self._mesh.size == 1 and c.attention == "xla" and c.positions == "rope":
            # A tree is short compared with its row. On several devices, the loop over rows would make each device
            # compute all.
            how = c.computed(attention="segments", attention_block=_CPU_BLOCK)
            model = dataclasses.replace(model, config=how)
        self._model = model
        shardings = partitioning.parameter_shardings(self._mesh, model.logical_axes(), model.abstract_params())
        abstract = all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(params))
        self._params = params if abstract else jax.device_put(params, shardings)
        self._shards = partitioning.rows_per_shard_of(self._mesh)
        self._lengths = tuple(sorted(set(row_lengths)))
        # Large enough for fast matrix products; more would only leave the last batch emptier.
        if tokens_per_batch is None:
            tokens_per_batch = 512 if on_cpu else 32_768
        self._rows = {n: max(tokens_per_batch // n, 1) * self._shards for n in self._lengths}
        num_bytes, most = _CHUNK_ON_CPU if on_cpu else _CHUNK
        self._chunk = int(np.clip(num_bytes // (4 * model.config.vocab_size), 1, most))
        self._compiled: dict[tuple[int, int], Any] = {}
        self.work = Work()

    @property
    def params(self) -> Any:
        """The model's parameters as they are laid out."""
        return self._params

    def with_params(self, params: Any) -> Scorer:
        """A scorer with other parameters of the same model, on the same mesh. Both share their compiled programs.

        Parameters that already lie there are not copied.
        """
        other = copy.copy(self)
        other._params = jax.device_put(params, jax.tree.map(lambda x: x.sharding, self._params))
        return other

    @property
    def has_encoder(self) -> bool:
        """Whether prompts go to an encoder."""
        return self._model.config.num_encoder_layers > 0

    @property
    def max_length(self) -> int:
        """Most tokens of a prompt with its longest option. A shared prefix has room of its own."""
        return self._lengths[-1]

    @property
    def compile_count(self) -> int:
        """The number of programs compiled so far: at most one for each row length, and for each length of a prefix."""
        return len(self._compiled)

    def score(
        self, trees: Iterable[Tree], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[OptionScores]:
        """Scores all options of all trees.

        Args:
          trees: N trees.
          progress: called with (options done, options in all) after each batch.

        Returns:
          N scores in the order of the trees. Up to rounding, they do not depend on what else is scored.

        Raises:
          FlanError: a tree is longer than the longest row, or a prefix is longer than the longest prefix length.
          NotFiniteError: a score is NaN or infinite; the error has the scores of the other trees.
        """
        found = self._where_finite(list(trees), progress)
        if None not in found:
            return found
        number = found.index(None)
        raise NotFiniteError(
            f"the model gives prompt {number} scores that are not finite: "
            "look for NaN or infinite numbers in its weights, or compute in float32.",
            number,
            found,
        )

    def _where_finite(
        self, trees: list[Tree], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[OptionScores | None]:
        """The scores, with None in place of those that are NaN or infinite.

        A number that is not finite spreads to the other trees of its row. So those trees are scored again, each in a
        row of its own. If no tree at all is finite, only a few are tried, and the others only if one of these gives
        finite scores.
        """
        found = self._scored(trees, progress)
        bad = [number for number, scores in enumerate(found) if not scores.is_finite]

        def score_alone(numbers: Iterable[int]) -> None:
            for number in numbers:
                (found[number],) = self._scored([trees[number]], lambda done, total: None)

        if len(bad) == len(found) > _TRIED_ALONE:
            some = bad[:: len(bad) // _TRIED_ALONE]
            score_alone(some)
            bad = sorted(set(bad) - set(some)) if any(found[number].is_finite for number in some) else []
        score_alone(bad)
        return [scores if scores.is_finite else None for scores in found]

    def _scored(self, trees: list[Tree], progress: Callable[[int, int], None]) -> list[OptionScores]:
        if has_encoder := self.has_encoder:
            trees = [encoder_packing.whole(tree) for tree in trees]
        for number, tree in enumerate(trees):
            if tree.longest > self.max_length:
                raise FlanError(
                    f"prompt {number} takes {tree.longest} tokens with its longest option, and the longest row has "
                    f"{self.max_length}; shorten the prompt or give the scorer longer rows."
                )
            if len(tree.prefix) > PREFIX_LENGTHS[-1]:
                raise FlanError(
                    f"prompt {number} has a shared prefix of {len(tree.prefix)} tokens; it can have up to "
                    f"{PREFIX_LENGTHS[-1]}: take fewer exemplars."
                )
        counts = [len(tree.branches) for tree in trees]
        first_option = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        total = int(first_option[-1])
        sums, misses, done = np.zeros(total), np.zeros(total, np.int64), 0
        in_flight: collections.deque[tuple[tree_packing.TreeBatch, jax.Array]] = collections.deque()

        def collect() -> None:
            nonlocal sums, misses, done
            batch, result = in_flight.popleft()
            logprobs, greedy = np.asarray(result).reshape(2, -1)[:, batch.index]
            sums += np.bincount(batch.option, logprobs.astype(np.float64), total)
            misses += np.bincount(batch.option, greedy == 0, total).astype(np.int64)
            done += len(np.unique(batch.option))
            progress(done, total)

        by_prefix: dict[tuple[int, ...], list[int]] = {}
        for number, tree in enumerate(trees):
            by_prefix.setdefault(tree.prefix, []).append(number)
        for prefix, numbers in by_prefix.items():
            began = time.perf_counter()
            if has_encoder:
                share = encoder_packing.decoder_share(trees, self.max_length)
                decoded = [encoder_packing.of_decoder(tree) for tree in trees]
                widths = [int(share * n) for n in self._lengths]
                pieces = [p for i in numbers for p in tree_packing.pieces_of(i, decoded[i], widths)]
                rows = encoder_packing.pack(pieces, trees, self._lengths, share)
            else:
                pieces = [p for i in numbers for p in tree_packing.pieces_of(i, trees[i], self._lengths)]
                rows = tree_packing.cheapest_packing(pieces, self._lengths, self._rows, self._cost_per_slot)
                share, decoded = 1.0, trees
            self.work.host_seconds += time.perf_counter() - began
            cache = None if has_encoder else self._prefilled(prefix)
            for length in self._lengths:
                of_length = [row for row in rows if row.length == length]
                for start in range(0, len(of_length), self._rows[length]):
                    some = of_length[start : start + self._rows[length]]
                    of_encoder = {}
                    if has_encoder:
                        of_encoder = encoder_packing.encoder_arrays(some, trees, self._rows[length], length)
                    width = int(share * length)
                    in_flight.append(self._start(width, some, decoded, first_option, cache, of_encoder))
                    if len(in_flight) > _IN_FLIGHT:
                        collect()
        while in_flight:
            collect()

        return [
            OptionScores(tuple(sums[a:b].tolist()), tree.tokens, tree.num_bytes, tuple((misses[a:b] == 0).tolist()))
            for tree, a, b in zip(trees, first_option[:-1], first_option[1:], strict=True)
        ]

    def _cost_per_slot(self, length: int) -> float:
        """The cost of a slot in a forward pass, relative to a row without attention."""
        c = self._model.config
        if c.attention == "segments":
            return 1.0  # a tree's attention costs the same in any row
        width = c.num_heads * c.head_dim
        matmuls = 2 * c.embed_dim * (2 * width + 2 * c.num_kv_heads * c.head_dim + 3 * c.mlp_dim)
        keys = (length + min(c.attention_block, length)) / 2  # keys that a query is compared with, masked or not
        # Scores and softmax move much memory for each FLOP, so they weigh three times.
        return 1 + 3 * 4 * keys * width / matmuls

    def _prefilled(self, prefix: tuple[int, ...]) -> Cache | None:
        """The keys and values of a prefix, one row, on every device; None if the prefix is empty."""
        if not prefix:
            return None
        length = next(n for n in PREFIX_LENGTHS if n >= len(prefix))
        tokens_1xP, segments_1xP = np.zeros((2, 1, length), np.int32)
        tokens_1xP[0, : len(prefix)], segments_1xP[0, : len(prefix)] = prefix, 1
        self.work.slots += length
        self.work.tokens += len(prefix)
        if (0, length) not in self._compiled:
            began = time.perf_counter()

            def prefill(params: Any, tokens_1xP: jax.Array, segments_1xP: jax.Array) -> Cache:
                positions_1xP = jnp.arange(length)[None]
                return self._model.extend(params, tokens_1xP, positions_1xP, segments_1xP)[1].for_all()

            whole = jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec())
            in_shardings = (jax.tree.map(lambda x: x.sharding, self._params), whole, whole)
            program = jax.jit(prefill, in_shardings=in_shardings, out_shardings=whole)
            self._compiled[0, length] = program.lower(self._params, tokens_1xP, segments_1xP).compile()
            self.work.compile_seconds += time.perf_counter() - began
        return self._compiled[0, length](self._params, tokens_1xP, segments_1xP)

    def _start(
        self,
        length: int,
        rows: list[tree_packing.Row],
        trees: list[Tree],
        first_option: np.ndarray,
        cache: Cache | None,
        of_encoder: dict[str, np.ndarray],
    ) -> tuple[tree_packing.TreeBatch, jax.Array]:
        """Starts a forward pass and returns before it is done."""
        began = time.perf_counter()
        shapes = tree_packing.shapes(self._rows[rows[0].length], length, self._shards, self._chunk)
        batch = tree_packing.assemble(rows, trees, first_option, shapes)
        batch.arrays.update(of_encoder)
        self.work.host_seconds += time.perf_counter() - began
        chunks = -(-batch.predictions // self._chunk)
        self.work.batches += 1
        for segments in (batch.arrays[name] for name in ("segments", "encoder_segments") if name in batch.arrays):
            self.work.slots += segments.size
            self.work.tokens += int(np.count_nonzero(segments))
        self.work.predictions += int((batch.arrays["targets"][..., 0] >= 0).sum())
        self.work.head_rows += chunks * self._chunk * self._shards
        program = self._program(length, batch.arrays, cache)
        shardings = partitioning.batch_shardings(self._mesh, batch.arrays)
        arrays = {
            name: jax.make_array_from_callback(x.shape, shardings[name], x.__getitem__)
            for name, x in batch.arrays.items()
        }
        return batch, program(self._params, arrays, cache, np.int32(chunks))

    def _program(self, length: int, arrays: dict[str, np.ndarray], cache: Cache | None) -> Any:
        before = arrays["encoder_tokens"].shape[1] if "encoder_tokens" in arrays else 0
        key = (length, before if cache is None else cache.keys.shape[2])
        if key not in self._compiled:
            # Compiled ahead: such a program refuses other shapes, and never compiles again by itself.
            began = time.perf_counter()
            self._compiled[key] = self._lowered(arrays, cache).compile()
            self.work.compile_seconds += time.perf_counter() - began
        return self._compiled[key]

    def lower(self, length: int) -> jax.stages.Lowered:
        """Lowers a decoder's forward pass over rows of one length, for compilation.

        Its arguments: (params, batch, None, chunks).
        """
        shapes = tree_packing.shapes(self._rows[length], length, self._shards, self._chunk)
        return self._lowered({name: jax.ShapeDtypeStruct(shape, np.int32) for name, shape in shapes.items()}, None)

    def _lowered(self, arrays: Mapping[str, Any], cache: Cache | None) -> jax.stages.Lowered:
        whole = jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec())
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), dict(arrays))
        in_shardings = (
            jax.tree.map(lambda x: x.sharding, self._params),
            partitioning.batch_shardings(self._mesh, shapes),
            whole,
            whole,
        )
        forward = jax.jit(self._forward, in_shardings=in_shardings, out_shardings=whole)
        return forward.lower(self._params, shapes, cache, np.int32(0))

    def _forward(self, params: Any, batch: dict[str, jax.Array], cache: Cache | None, chunks: jax.Array) -> jax.Array:
        """Log-probabilities, and 1 where they are the highest, as [2, S, P, FAN_OUT]; computes `chunks` chunks of P."""
        with partitioning.layout(self._mesh):
            hidden_BxLxD = self._hidden(params, batch, cache)
        predictors_SxP, targets_SxPxF = batch["predictors"], batch["targets"]
        hidden_SxRxD = hidden_BxLxD.reshape(self._shards, -1, hidden_BxLxD.shape[-1])

        def chunk(i: jax.Array, result: jax.Array) -> jax.Array:
            start = i * self._chunk
            slots_SxC = jax.lax.dynamic_slice_in_dim(predictors_SxP, start, self._chunk, 1)
            targets_SxCxF = jax.lax.dynamic_slice_in_dim(targets_SxPxF, start, self._chunk, 1)
            hidden_SxCxD = jnp.take_along_axis(hidden_SxRxD, slots_SxC[..., None], axis=1)
            scores = _log_probabilities(self._model.logits(params, hidden_SxCxD), targets_SxCxF)
            return jax.lax.dynamic_update_slice_in_dim(result, scores, start, 2)

        return jax.lax.fori_loop(0, chunks, chunk, jnp.zeros((2, *targets_SxPxF.shape)))

    def _hidden(self, params: Any, batch: dict[str, jax.Array], cache: Cache | None) -> jax.Array:
        names = ("tokens", "positions", "segments", "branches")
        inputs = [batch[name] for name in names]
        if "encoder_tokens" in batch:
            memory = self._model.encode(params, *(batch[f"encoder_{name}"] for name in names[:3]))
            return self._model.hidden(params, *inputs, memory=memory)
        if cache is None:
            return self._model.hidden(params, *inputs)
        return self._model.extend(params, *inputs, cache=cache)[0]


def _log_probabilities(logits_SxCxV: jax.Array, targets_SxCxF: jax.Array) -> jax.Array:
    """Log-probabilities of the targets, and 1 where no token is likelier, as [2, S, C, F]."""
    vocab = logits_SxCxV.shape[-1]
    width = next(w for w in range(min(_SUM_WIDTH, vocab), 0, -1) if vocab % w == 0)
    # Sums of short sums: one running float32 sum over a large vocabulary is off by up to 1e-3.
    logits_SxCxNxW = logits_SxCxV.reshape(*logits_SxCxV.shape[:-1], vocab // width, width)
    highest_SxC = logits_SxCxNxW.max(-2).max(-1)
    exps = jnp.exp(logits_SxCxNxW - highest_SxC[..., None, None])
    log_sum_SxC = jnp.log(exps.sum(-2).sum(-1))
    chosen_SxCxF = jnp.take_along_axis(logits_SxCxV, jnp.maximum(targets_SxCxF, 0), axis=-1)
    above_SxCxF = chosen_SxCxF - highest_SxC[..., None]
    return jnp.stack([above_SxCxF - log_sum_SxC[..., None], (above_SxCxF >= 0).astype(jnp.float32)])

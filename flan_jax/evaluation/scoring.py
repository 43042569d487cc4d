"""Log-likelihoods of answer options, every prompt computed once.

A prompt and its options are one tree (see `trees`): options attend to the prompt and to themselves, with positions that
continue from the prompt. Trees are packed into rows of a few lengths, and the LM head runs only at the slots that
predict an option's token, so that each shape is compiled once and nothing is computed twice.

In a pod every process packs the same rows, computes those of its own devices, and gets the scores of all.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax import partitioning
from flan_jax.errors import FlanError
from flan_jax.evaluation import tree_packing
from flan_jax.evaluation.trees import Tree
from flan_jax.models import Model

ROW_LENGTHS = (256, 512, 1024, 2048, 4096)
_LOGITS_BYTES = 64 * 2**20  # of a chunk of logits on one device; far more only costs memory
_MAX_CHUNK = 256  # predictions; the last chunk of a batch is half empty on average
_SUM_WIDTH = 512
_IN_FLIGHT = 2  # batches that are computed while the host prepares the next


@dataclasses.dataclass(frozen=True)
class OptionScores:
    """Scores of the K options of one prompt, in their order.

    Attributes:
      loglikelihood: sums of log-probabilities over the scored tokens, natural logarithm.
      tokens: how many tokens these are.
      num_bytes: length of each option's text in UTF-8.
      is_greedy: whether no other token was likelier, at each of them.
    """

    loglikelihood: tuple[float, ...]
    tokens: tuple[int, ...]
    num_bytes: tuple[int, ...]
    is_greedy: tuple[bool, ...]


@dataclasses.dataclass
class Work:
    """What a scorer did so far.

    Attributes:
      batches: forward passes.
      slots: slots of their rows.
      tokens: slots that held a token.
      predictions: places where the LM head was wanted.
      head_rows: places where it was computed.
    """

    batches: int = 0
    slots: int = 0
    tokens: int = 0
    predictions: int = 0
    head_rows: int = 0

    @property
    def fill(self) -> float:
        """Tokens a slot."""
        return self.tokens / max(self.slots, 1)


class Scorer:
    """Scores trees with one model.

    Args:
      model: the model.
      params: its parameters; or, for `lower` alone, their shapes with shardings (`jax.ShapeDtypeStruct`).
      mesh: where rows and parameters are laid out; None takes one device.
      row_lengths: lengths of the rows; the longest limits a prompt with its longest option.
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
        if model.config.num_encoder_layers:
            raise FlanError("the scorer has no trees for encoder-decoders yet: give the checkpoint of a decoder.")
        self._model = model
        self._mesh = partitioning.make_mesh(devices=jax.devices()[:1]) if mesh is None else mesh
        shardings = partitioning.parameter_shardings(self._mesh, model.logical_axes(), model.abstract_params())
        abstract = all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(params))
        self._params = params if abstract else jax.device_put(params, shardings)
        self._shards = partitioning.rows_per_shard_of(self._mesh)
        self._lengths = tuple(sorted(set(row_lengths)))
        if tokens_per_batch is None:
            tokens_per_batch = 1024 if self._mesh.devices.flat[0].platform == "cpu" else 32_768
        self._rows = {n: max(tokens_per_batch // n, 1) * self._shards for n in self._lengths}
        self._chunk = int(np.clip(_LOGITS_BYTES // (4 * model.config.vocab_size), 1, _MAX_CHUNK))
        self._compiled: dict[int, Any] = {}
        self.work = Work()

    @property
    def max_length(self) -> int:
        """Longest prompt with its longest option, in tokens."""
        return self._lengths[-1]

    @property
    def compile_count(self) -> int:
        """Programs compiled so far; at most one for each row length."""
        return len(self._compiled)

    def score(
        self, trees: Iterable[Tree], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[OptionScores]:
        """Scores all options of all trees.

        Args:
          trees: N trees.
          progress: called with (options done, options in all) after each batch.

        Returns:
          N scores in the order of the trees. They do not depend on what else is scored, up to rounding.

        Raises:
          FlanError: a tree is longer than the longest row.
        """
        trees = list(trees)
        for number, tree in enumerate(trees):
            if tree.longest > self.max_length:
                raise FlanError(
                    f"prompt {number} takes {tree.longest} tokens with its longest option, and the longest row has "
                    f"{self.max_length}; shorten the prompt or give the scorer longer rows."
                )
        counts = [len(tree.branches) for tree in trees]
        first_option = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        pieces = [p for i, tree in enumerate(trees) for p in tree_packing.pieces_of(i, tree, self.max_length)]
        rows = tree_packing.cheapest_packing(pieces, self._lengths, self._rows, self._cost_per_slot)

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

        for length in self._lengths:
            of_length = [row for row in rows if row.length == length]
            for start in range(0, len(of_length), self._rows[length]):
                some = of_length[start : start + self._rows[length]]
                in_flight.append(self._start(length, some, trees, first_option))
                if len(in_flight) > _IN_FLIGHT:
                    collect()
        while in_flight:
            collect()

        return [
            OptionScores(tuple(sums[a:b].tolist()), tree.tokens, tree.num_bytes, tuple((misses[a:b] == 0).tolist()))
            for tree, a, b in zip(trees, first_option[:-1], first_option[1:], strict=True)
        ]

    def _cost_per_slot(self, length: int) -> float:
        """Of a forward pass, relative to a row without attention."""
        c = self._model.config
        width = c.num_heads * c.head_dim
        matmuls = 2 * c.embed_dim * (2 * width + 2 * c.num_kv_heads * c.head_dim + 3 * c.mlp_dim)
        keys = (length + min(c.attention_block, length)) / 2  # that a query is compared with, masked or not
        # Scores and softmax move much memory for each FLOP: weighed three times.
        return 1 + 3 * 4 * keys * width / matmuls

    def _start(
        self, length: int, rows: list[tree_packing.Row], trees: list[Tree], first_option: np.ndarray
    ) -> tuple[tree_packing.TreeBatch, jax.Array]:
        """Starts a forward pass; the result arrives later."""
        shapes = tree_packing.shapes(self._rows[length], length, self._shards, self._chunk)
        batch = tree_packing.assemble(rows, trees, first_option, shapes)
        chunks = -(-batch.predictions // self._chunk)
        self.work.batches += 1
        self.work.slots += batch.arrays["tokens"].size
        self.work.tokens += int(np.count_nonzero(batch.arrays["segments"]))
        self.work.predictions += int((batch.arrays["targets"][..., 0] >= 0).sum())
        self.work.head_rows += chunks * self._chunk * self._shards
        program = self._program(length)
        shardings = partitioning.batch_shardings(self._mesh, batch.arrays)
        arrays = {
            name: jax.make_array_from_callback(x.shape, shardings[name], x.__getitem__)
            for name, x in batch.arrays.items()
        }
        return batch, program(self._params, arrays, np.int32(chunks))

    def _program(self, length: int) -> Any:
        if length not in self._compiled:
            # Compiled ahead of the call: such a program refuses other shapes instead of compiling again.
            self._compiled[length] = self.lower(length).compile()
        return self._compiled[length]

    def lower(self, length: int) -> jax.stages.Lowered:
        """The forward pass over rows of one of the row lengths, ready to be compiled: (params, batch, chunks)."""
        whole = jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec())
        shapes = tree_packing.shapes(self._rows[length], length, self._shards, self._chunk)
        batch = {name: jax.ShapeDtypeStruct(shape, np.int32) for name, shape in shapes.items()}
        in_shardings = (
            jax.tree.map(lambda x: x.sharding, self._params),
            partitioning.batch_shardings(self._mesh, batch),
            whole,
        )
        forward = jax.jit(self._forward, in_shardings=in_shardings, out_shardings=whole)
        return forward.lower(self._params, batch, np.int32(0))

    def _forward(self, params: Any, batch: dict[str, jax.Array], chunks: jax.Array) -> jax.Array:
        """Log-probabilities, and whether they are the highest, [2, S, P, FAN_OUT]; computes `chunks` chunks of P."""
        names = ("tokens", "positions", "segments", "branches")
        with partitioning.layout(self._mesh):
            hidden_BxLxD = self._model.hidden(params, *(batch[name] for name in names))
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


def _log_probabilities(logits_SxCxV: jax.Array, targets_SxCxF: jax.Array) -> jax.Array:
    """[2, S, C, F]: log-probabilities of the targets, and 1 where no token is likelier."""
    vocab = logits_SxCxV.shape[-1]
    width = next(w for w in range(min(_SUM_WIDTH, vocab), 0, -1) if vocab % w == 0)
    # Sums of short sums: a single running float32 sum over a large vocabulary is off by up to 1e-3.
    logits_SxCxNxW = logits_SxCxV.reshape(*logits_SxCxV.shape[:-1], vocab // width, width)
    highest_SxC = logits_SxCxNxW.max(-2).max(-1)
    exps = jnp.exp(logits_SxCxNxW - highest_SxC[..., None, None])
    log_sum_SxC = jnp.log(exps.sum(-2).sum(-1))
    chosen_SxCxF = jnp.take_along_axis(logits_SxCxV, jnp.maximum(targets_SxCxF, 0), axis=-1)
    above_SxCxF = chosen_SxCxF - highest_SxC[..., None]
    return jnp.stack([above_SxCxF - log_sum_SxC[..., None], (above_SxCxF >= 0).astype(jnp.float32)])

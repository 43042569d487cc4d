"""Packed rows for `train_step.py`, synthetic or prepared, and the floating point operations that they need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from flan_jax.errors import FlanError


def synthetic_rows(config: Any, num_rows: int, length: int, target_length: int, seed: int) -> dict[str, np.ndarray]:
    """Packed rows of random tokens in examples as long as FLAN's: 110 tokens on average, 11 of them targets.

    Args:
      config: of the model, which says where the tokens lie.
      num_rows: B.
      length: slots of a row; an encoder's, where the model has one.
      target_length: target slots of a row.
      seed: of lengths and tokens.
    """
    from flan_jax.data import layouts, packing
    from flan_jax.data.stream import FILL

    rng = np.random.default_rng(seed)
    layout = layouts.EncoderDecoderLayout if config.num_encoder_layers else layouts.DecoderLayout
    layout = layout(length, target_length, None, 1)
    block_rows = max(num_rows, 64)  # packed together, as a stream packs a block
    targets = np.clip(rng.lognormal(np.log(6), 1.1, block_rows * length), 1, min(target_length, length // 2) - 1)
    inputs = np.clip(rng.lognormal(np.log(70), 0.8, block_rows * length), 1, length - targets.astype(int) - 2)
    inputs, targets = inputs.astype(np.int64), targets.astype(np.int64)
    sizes = layout.sizes(inputs, targets)
    fits = [np.cumsum(x) <= FILL * block_rows * room for x, room in zip(sizes, (length, target_length), strict=True)]
    count = int(min(x.sum() for x in fits))
    packed = packing.pack(*(x[:count] for x in sizes), block_rows, length, target_length, rng)

    def tokens(size: int) -> np.ndarray:
        return rng.integers(2, config.vocab_size, size, np.int32)

    rows = [rng.permutation(np.array(row)) for row in packed[:num_rows]]
    return layout.batch([[(0, tokens(inputs[i]), tokens(targets[i])) for i in row] for row in rows])


def prepared_rows(
    config: Any, folder: str, vocabulary: str, num_rows: int, length: int, target_length: int
) -> dict[str, np.ndarray]:
    """The first batch of a stream over what `flan_jax.prepare` wrote, by numbers of records.

    Raises:
      FlanError: the vocabulary is larger than the model's.
    """
    from flan_jax.data import vocabularies
    from flan_jax.data.stream import Stream
    from flan_jax.data.token_store import TokenStore

    tokenizer = vocabularies.load(vocabulary)
    if tokenizer.vocab_size > config.vocab_size:
        raise FlanError(f"vocabulary {vocabulary!r} has {tokenizer.vocab_size} ids, the model {config.vocab_size}.")
    store = TokenStore.open(folder, tokenizer.fingerprint)
    stream = Stream(
        store,
        {name: float(store[name].num_records) for name in store.names},
        seed=0,
        row_length=length,
        target_length=target_length,
        rows_per_batch=num_rows,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        encoder_decoder=bool(config.num_encoder_layers),
    )
    return stream.batch(0) | {"dataset_ids": np.zeros((num_rows, target_length), np.int32)}  # one loss for all


def useful_flops(config: Any, batch: Mapping[str, np.ndarray]) -> float:
    """Floating point operations that a step on these rows needs: six a weight and token, and attention's.

    Three matrix products (one forward, two backward) of two operations. A slot looks at its segment, a decoder's up to
    itself; windows are not counted.
    """
    from flan_jax.models import costs

    def lengths(segments_BxL: np.ndarray) -> np.ndarray:
        counts = np.stack([np.bincount(row, minlength=segments_BxL.shape[1] + 1) for row in segments_BxL])[:, 1:]
        return counts.astype(np.float64)

    own = lengths(batch["segments"])
    work = costs.Work(own.sum(), float(batch["weights"].sum()), (own * (own + 1) / 2).sum())
    if config.num_encoder_layers:
        ahead = lengths(batch["encoder_segments"])
        width = min(own.shape[1], ahead.shape[1])
        cross = (own[:, :width] * ahead[:, :width]).sum()
        work = dataclasses.replace(
            work, encoder_slots=ahead.sum(), encoder_pairs=np.square(ahead).sum(), cross_pairs=cross
        )
    return float(costs.products(config, work).step_flops())

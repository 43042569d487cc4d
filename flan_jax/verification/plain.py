"""Runs the model plainly: one sequence in a row of its own, without packing, branches or a cache.

Rows have a few lengths, so that few programs are compiled. The rest of a decoder's row after its sequence is filled
with tokens of the same segment. Nothing may see later slots; if something does, this computation and the checked one
see different things. An encoder looks ahead, so the rest of its row is padding.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax import models
from flan_jax.errors import FlanError

START = 0  # T5's decoder starts with id 0
_SHORTEST_ROW = 64
_HEAD = 16  # places whose logits are computed together
_GROWTH_OF_GRADIENT = 4  # factor between two lengths of rows; a gradient takes long to compile


class Plain:
    """One sequence at a time, in float32.

    Args:
      config: the shape of the model.
      params: its parameters.
      z_loss: the coefficient of log(Z)^2 in what `gradient` differentiates.
      label_smoothing: the share of a target's probability that all other tokens have there.
    """

    def __init__(
        self, config: models.DecoderConfig, params: Any, z_loss: float = 0.0, label_smoothing: float = 0.0
    ) -> None:
        self.model = models.build(config.computed(dtype="float32", attention="xla", remat="none"))
        self._params = params
        self._knobs = (z_loss, label_smoothing)

    @property
    def has_encoder(self) -> bool:
        """Whether prompts go to an encoder."""
        return self.model.config.num_encoder_layers > 0

    def logits(self, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
        """The logits [n, V], float32, that predict each of the n tokens of an answer after a prompt.

        Args:
          prompt: the beginning of a decoder's sequence, or what the encoder reads.
          answer: the tokens that are predicted; the decoder reads all but the last.

        Raises:
          FlanError: a token for which the model has no embedding.
        """
        arrays, first = self._row(prompt, answer)
        hidden_LxD = _forward(self.model, self._params, arrays)
        found = []
        for start in range(first, first + len(answer), _HEAD):
            places = np.minimum(np.arange(start, start + _HEAD), len(hidden_LxD) - 1)
            found.append(np.asarray(_head(self.model, self._params, hidden_LxD, places)))
        return np.concatenate(found)[: len(answer)]

    def gradient(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        """The gradient of an answer's summed loss, as a tree like the parameters."""
        arrays, first = self._row(prompt, answer, _GROWTH_OF_GRADIENT)
        size = _room(len(answer), _HEAD, _GROWTH_OF_GRADIENT)
        places, targets, weights = np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(size, np.float32)
        places[: len(answer)] = np.arange(first, first + len(answer))
        targets[: len(answer)], weights[: len(answer)] = answer, 1
        return _gradient(self.model, self._params, arrays, places, targets, weights, *self._knobs)

    def _row(self, prompt: Sequence[int], answer: Sequence[int], growth: int = 2) -> tuple[dict[str, np.ndarray], int]:
        """A row's arrays, and the slot that predicts the first token of the answer."""
        size = self.model.config.vocab_size
        if (highest := max(*prompt, *answer)) >= size:
            raise FlanError(
                f"token {highest} has no embedding, of which the model has {size}: its vocabulary is another."
            )
        if not self.has_encoder:
            ids = [*prompt, *answer]
            return {"tokens": np.resize(np.array(ids, np.int32), _room(len(ids), _SHORTEST_ROW, growth))}, len(
                prompt
            ) - 1
        read, said = np.array(prompt, np.int32), np.array([START, *answer[:-1]], np.int32)
        encoder_tokens, encoder_segments = np.zeros((2, _room(len(read), _SHORTEST_ROW, growth)), np.int32)
        encoder_tokens[: len(read)], encoder_segments[: len(read)] = read, 1
        tokens = np.resize(said, _room(len(said), _SHORTEST_ROW, growth))
        return {"tokens": tokens, "encoder_tokens": encoder_tokens, "encoder_segments": encoder_segments}, 0


# Functions of the module, so that what is compiled for one checkpoint serves the next one of the same shape.


@functools.partial(jax.jit, static_argnums=0)
def _forward(model: models.Model, params: Any, arrays: dict[str, jax.Array]) -> jax.Array:
    """Hidden states [L, D] of one row."""

    def alone(tokens_L: jax.Array) -> tuple[jax.Array, ...]:
        return tokens_L[None], jnp.arange(len(tokens_L))[None], jnp.ones((1, len(tokens_L)), jnp.int32)

    if "encoder_tokens" not in arrays:
        return model.hidden(params, *alone(arrays["tokens"]))[0]
    tokens, positions, _ = alone(arrays["encoder_tokens"])
    memory = model.encode(params, tokens, positions, arrays["encoder_segments"][None])
    return model.hidden(params, *alone(arrays["tokens"]), memory=memory)[0]


@functools.partial(jax.jit, static_argnums=0)
def _head(model: models.Model, params: Any, hidden_LxD: jax.Array, places_A: jax.Array) -> jax.Array:
    """The logits [A, V] at some places."""
    return model.logits(params, hidden_LxD[places_A])


def _loss(
    model: models.Model,
    params: Any,
    arrays: dict,
    places_A: jax.Array,
    targets_A: jax.Array,
    weights_A: jax.Array,
    z_loss: float,
    label_smoothing: float,
) -> jax.Array:
    """The summed loss of the targets.

    It lacks the entropy of a smoothed target, which does not depend on the parameters.
    """
    logits_AxV = _head(model, params, _forward(model, params, arrays), places_A)
    logprobs_AxV = jax.nn.log_softmax(logits_AxV)
    of_target_A = jnp.take_along_axis(logprobs_AxV, targets_A[:, None], 1)[:, 0]
    loss_A = -of_target_A
    if label_smoothing:
        of_others_A = (logprobs_AxV.sum(axis=1) - of_target_A) / (logprobs_AxV.shape[1] - 1)
        loss_A = -(1 - label_smoothing) * of_target_A - label_smoothing * of_others_A
    if z_loss:
        loss_A += z_loss * jax.nn.logsumexp(logits_AxV, axis=1) ** 2
    return (loss_A * weights_A).sum()


_gradient = jax.jit(jax.grad(_loss, argnums=1), static_argnums=(0, 6, 7))


def log_likelihoods(logits_NxV: np.ndarray, answer: Sequence[int]) -> np.ndarray:
    """The log-probabilities [n] of the tokens of an answer, computed in float64."""
    highest_N = logits_NxV.max(axis=-1)
    total_N = np.exp(logits_NxV - highest_N[:, None]).sum(axis=-1, dtype=np.float64)
    return logits_NxV[np.arange(len(answer)), list(answer)] - highest_N - np.log(total_N)


def _room(size: int, least: int, growth: int) -> int:
    """The length of the row for so many tokens: the first of `least`, `least` x `growth`, ... that is enough."""
    while least < size:
        least *= growth
    return least

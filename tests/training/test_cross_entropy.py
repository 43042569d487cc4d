"""The head's one pass against the plain form: all logits at once, and JAX's own gradient of them."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import configuration, models, partitioning
from flan_jax.training import cross_entropy
from flan_jax.training.loss import Objective

TINY = configuration.model_config("tiny", {})
T5 = configuration.model_config("tiny_t5", {})
MODELS = {
    "tied": TINY,
    "of its own": dataclasses.replace(TINY, tied_embeddings=False),
    "capped": dataclasses.replace(TINY, logits_softcap=3.0),
    "encoder-decoder": T5,
    "scaled": dataclasses.replace(T5, tied_embeddings=True, scale_tied_logits=True),
}
ROWS, SLOTS = 3, 40


def _given(config, seed=0):
    """Random parameters, hidden states, targets and weights with holes."""
    rng = np.random.default_rng(seed)
    params = models.build(config).init(jax.random.key(seed))
    hidden = jnp.asarray(rng.normal(size=(ROWS, SLOTS, config.embed_dim)), config.dtype)
    weights = np.where(rng.random((ROWS, SLOTS)) < 0.4, rng.uniform(0.1, 2, (ROWS, SLOTS)), 0).astype(np.float32)
    return params, hidden, rng.integers(0, config.vocab_size, (ROWS, SLOTS), np.int32), weights


def _plain(model, objective, params, hidden, targets, weights):
    """The sum of weight x objective, from all logits at once."""
    logits = model.logits(params, hidden).astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    others, smoothing = logits.shape[-1] - 1, objective.label_smoothing
    wished = jnp.where(jnp.arange(logits.shape[-1]) == targets[..., None], 1 - smoothing, smoothing / others)
    entropy = -((1 - smoothing) * np.log(1 - smoothing) + smoothing * np.log(smoothing / others)) if smoothing else 0.0
    minimised = (wished * (log_z[..., None] - logits)).sum(-1) - entropy + objective.z_loss * log_z**2
    return (minimised * weights).sum()


@pytest.mark.parametrize("objective", [Objective(), Objective(z_loss=1e-2, label_smoothing=0.2)], ids=["plain", "all"])
@pytest.mark.parametrize("chunk", [16, 1000], ids=["chunks", "whole"])
@pytest.mark.parametrize("kind", MODELS)
def test_gradients_are_those_of_the_plain_form(kind, chunk, objective, monkeypatch):
    monkeypatch.setattr(cross_entropy, "SLOTS", chunk)
    model = models.build(dataclasses.replace(MODELS[kind], head_chunk=1))
    params, hidden, targets, weights = _given(model.config)
    knobs = objective.label_smoothing, objective.z_loss

    def ours(head, hidden):
        found = cross_entropy.token_cross_entropy(model, {**params, **head}, hidden, targets, weights, *knobs)
        return 3.0 * found.total, found

    def plain(head, hidden):
        return 3.0 * _plain(model, objective, {**params, **head}, hidden, targets, weights)

    head = {**params, **model.head(params)}
    (total, found), gradients = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(head, hidden)
    wanted, expected = jax.jit(jax.value_and_grad(plain, (0, 1)))(head, hidden)
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
    np.testing.assert_allclose((found.minimised_BxT * weights).sum(), found.total, rtol=1e-5)
    assert not np.any(np.asarray(found.loss_BxT)[weights == 0])
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max() + 1e-12)
    alone = jax.jit(lambda h: cross_entropy.token_cross_entropy(model, params, h, targets, weights, *knobs))(hidden)
    for one, other in zip(alone, found, strict=True):  # without a gradient, the same
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def _products(model, differentiated):
    """Products of matrices in the program of a gradient, by the numbers that each gives."""
    params, hidden, targets, weights = _given(model.config)

    def total(params, hidden):
        return cross_entropy.token_cross_entropy(model, params, hidden, targets, weights).total

    text = str(jax.make_jaxpr(jax.grad(total, differentiated))(params, hidden))
    return text.count("dot_general")


def test_logits_are_formed_once_and_a_frozen_head_has_no_gradient():
    model = models.build(TINY)
    assert _products(model, (0, 1)) == 3  # logits, and a gradient for each side
    assert _products(model, 1) == 2


@pytest.mark.parametrize("used", [0, 1, 16, 17, 120])
def test_targets_with_weight_come_first(used, monkeypatch):
    """Wherever they stand: with none, and where they fill a chunk to the last slot."""
    monkeypatch.setattr(cross_entropy, "SLOTS", 16)
    model = models.build(dataclasses.replace(TINY, head_chunk=1))
    params, hidden, targets, _ = _given(TINY)
    weights = np.zeros(ROWS * SLOTS, np.float32)
    weights[np.random.default_rng(used).permutation(ROWS * SLOTS)[:used]] = 0.5
    weights = weights.reshape(ROWS, SLOTS)

    def total(hidden):
        return cross_entropy.token_cross_entropy(model, params, hidden, targets, weights).total

    found, gradient = jax.jit(jax.value_and_grad(total))(hidden)
    wanted, expected = jax.value_and_grad(lambda h: _plain(model, Objective(), params, h, targets, weights))(hidden)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_chunks_of_rows_on_several_devices(monkeypatch):
    """Each device brings its own targets to the front; with uneven numbers of them, one waits for the other."""
    monkeypatch.setattr(cross_entropy, "SLOTS", 16)
    model = models.build(dataclasses.replace(TINY, head_chunk=1))
    params, hidden, targets, weights = _given(TINY)
    hidden, targets, weights = (np.concatenate([x, x[:1]]) for x in (hidden, targets, weights))
    weights[:2] = 0  # a device without any
    mesh = partitioning.make_mesh(2, 1, 2, jax.devices()[:4])

    def total(head, hidden, spread):
        with partitioning.layout(mesh) if spread else contextlib.nullcontext():
            found = cross_entropy.token_cross_entropy(model, {**params, **head}, hidden, targets, weights)
        return found.total, found[1:]

    by = [jax.jit(jax.value_and_grad(functools.partial(total, spread=x), (0, 1), has_aux=True)) for x in (True, False)]
    found, expected = (f(model.head(params), hidden) for f in by)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

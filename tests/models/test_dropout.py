"""Dropout against a plain forward pass with T5X's masks on attention's weights, written out row by row in numpy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import configuration, models
from flan_jax.models.dropout import Dropout, dropped

RATE = 0.3
LENGTH = MEMORY = 6
SMALL = {"vocab_size": 31, "num_layers": 2, "embed_dim": 16, "head_dim": 4, "mlp_dim": 24}
DECODER = configuration.model_config(
    "tiny", SMALL | {"num_heads": 4, "num_kv_heads": 2, "post_norms": True, "remat": "none"}
)
T5 = configuration.model_config("tiny_t5", SMALL | {"num_heads": 2, "num_kv_heads": 2, "num_encoder_layers": 2})
# The numbers that keys are made with are part of what a run is: with others, a run that goes on has other masks.
EMBEDDING, WEIGHTS, ATTENDED, CROSS_WEIGHTS, CROSS_ATTENDED, ACTIVATIONS, FED, FINAL, ENCODER, OF_DECODER, LAYERS = (
    range(11)
)


@functools.cache
def _mask(seed, row, numbers, shape):
    key = jax.random.split(jax.random.key(seed), 2)[row]
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return np.asarray(jax.random.bernoulli(key, 1 - RATE, shape), np.float64) / (1 - RATE)


def _norm(x, p):
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6) * p["scale"]


def _attention(x, memory, p, causal, scale, weights_SxG):
    q, k, v = (
        np.einsum("ld,dhk->lhk", y, p[n]["kernel"]) for y, n in ((x, "query"), (memory, "key"), (memory, "value"))
    )
    repeats = q.shape[1] // k.shape[1]
    k, v, drop_SxH = (np.repeat(y, repeats, axis=1) for y in (k, v, weights_SxG))
    scores = np.einsum("qhk,shk->hqs", q * scale, k)
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[1:])) > 0, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True) * drop_SxH.T[:, None, :]
    return np.einsum("qhk,hkd->qd", np.einsum("hqs,shk->qhk", weights, v), p["out"]["kernel"])


def _mlp(x, p, activation, drop):
    gate = np.asarray(activation(jnp.asarray(x @ p["wi_0"]["kernel"], jnp.float32)), np.float64)
    return gate * (x @ p["wi_1"]["kernel"]) * drop @ p["wo"]["kernel"]


def _stack(x, p, c, key, side, memory=None):
    """A row through the embedding's dropout, the layers and the final norm of one side."""
    width, inner, groups = c.embed_dim, c.mlp_dim, c.num_kv_heads
    scale = c.head_dim**-0.5 if c.attention_scale is None else c.attention_scale
    activation = jax.nn.silu if c.activation == "silu" else jax.nn.gelu
    own, ahead = ("self_", OF_DECODER) if side == "decoder" else ("", ENCODER)
    x = x * _mask(*key, (ahead, EMBEDDING), (1, width))
    for n in range(c.num_layers):
        of = jax.tree.map(lambda leaf, n=n: leaf[n], p["layers"])
        at = (ahead, LAYERS, n)
        y = _norm(x, of[f"pre_{own}attention_layer_norm"])
        weights = _mask(*key, (*at, WEIGHTS), (len(y), groups, 1))[..., 0]
        y = _attention(y, y, of[f"{own}attention"], side == "decoder", scale, weights)
        y = _norm(y, of["post_self_attention_layer_norm"]) if c.post_norms else y
        x = x + y * _mask(*key, (*at, ATTENDED), (1, width))
        if memory is not None:
            y = _norm(x, of["pre_cross_attention_layer_norm"])
            weights = _mask(*key, (*at, CROSS_WEIGHTS), (len(memory), groups, 1))[..., 0]
            y = _attention(y, memory, of["encoder_decoder_attention"], False, scale, weights)
            x = x + y * _mask(*key, (*at, CROSS_ATTENDED), (1, width))
        y = _mlp(_norm(x, of["pre_mlp_layer_norm"]), of["mlp"], activation, _mask(*key, (*at, ACTIVATIONS), (1, inner)))
        y = _norm(y, of["post_mlp_layer_norm"]) if c.post_norms else y
        x = x + y * _mask(*key, (*at, FED), (1, width))
    shape = (len(x), width) if side == "encoder" else (1, width)  # T5X shares no mask after the encoder's final norm
    return _norm(x, p[f"{side}_norm"]) * _mask(*key, (ahead, FINAL), shape)


def _plain(params, config, key, tokens, of_encoder=None):
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    shared = params if config.num_encoder_layers else params["decoder"]
    embedding = shared["token_embedder"]["embedding"]
    memory = None if of_encoder is None else _stack(embedding[of_encoder], params["encoder"], config, key, "encoder")
    return _stack(embedding[tokens], params["decoder"], config, key, "decoder", memory)


def _without_biases(path, x):
    return x * 0 if "rel_embedding" in str(path) else x


def _made(config):
    """A model without positions, which are not what is tested: biases of zero, and all slots at position 0."""
    model = models.build(dataclasses.replace(config, scale_embeddings=False))
    params = jax.jit(model.init)(jax.random.key(0))
    return model, jax.tree_util.tree_map_with_path(_without_biases, params)


def _row(rng, length):
    tokens = rng.integers(0, 31, (2, length))
    return tokens, np.zeros_like(tokens), np.ones_like(tokens)


def test_a_decoder():
    """Its attention is computed in a way that never has all weights: the masks are those of weights all the same."""
    config = dataclasses.replace(DECODER, attention="segments", attention_block=4)
    model, params = _made(config)
    row, keys = _row(np.random.default_rng(0), LENGTH), jax.random.split(jax.random.key(7), 2)
    found = jax.jit(lambda *row: model.hidden(params, *row, dropout=Dropout(keys, RATE)))(*row)
    for b in range(2):
        np.testing.assert_allclose(found[b], _plain(params, config, (7, b), row[0][b]), rtol=2e-4, atol=2e-5)


def test_an_encoder_decoder_and_its_gradient_where_layers_are_computed_twice():
    model, params = _made(T5)
    assert T5.remat == "full"
    rng = np.random.default_rng(1)
    row, of_encoder, keys = _row(rng, LENGTH), _row(rng, MEMORY), jax.random.split(jax.random.key(8), 2)

    weights = rng.normal(size=(2, LENGTH, T5.embed_dim))

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def differentiated(params):
        dropout = Dropout(keys, RATE)
        memory = model.encode(params, *of_encoder, dropout=dropout)
        hidden = model.hidden(params, *row, memory=memory, dropout=dropout)
        return (hidden * weights).sum(), hidden

    gradient, found = differentiated(params)
    for b in range(2):
        expected = _plain(params, T5, (8, b), row[0][b], of_encoder[0][b])
        np.testing.assert_allclose(found[b], expected, rtol=2e-4, atol=2e-5)
    # Along a direction, the gradient is the slope of the plain forward pass: layers have the same masks both times.
    direction = jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape)), params)
    direction = jax.tree_util.tree_map_with_path(_without_biases, direction)

    def plain(size):
        moved = jax.tree.map(lambda x, d: np.asarray(x, np.float64) + size * d, params, direction)
        rows = [_plain(moved, T5, (8, b), row[0][b], of_encoder[0][b]) for b in range(2)]
        return float((np.stack(rows) * weights).sum())

    slope = (plain(1e-4) - plain(-1e-4)) / 2e-4
    ours = sum(jax.tree.leaves(jax.tree.map(lambda g, d: float((g * d).sum()), gradient, direction)))
    assert ours == pytest.approx(slope, rel=2e-3)


def test_what_is_dropped():
    """A share of the numbers, the same along the length, others kept in the mean; in bfloat16 too."""
    x = jnp.ones((4, 3, 4096), jnp.bfloat16)
    found = dropped(x, Dropout(jax.random.split(jax.random.key(0), 4), 0.25), 0)
    assert found.dtype == jnp.bfloat16
    kept = np.asarray(found[:, 0] != 0)
    assert (np.asarray(found != 0) == kept[:, None]).all()
    assert set(np.unique(np.asarray(found, np.float32))) == {0.0, float(jnp.bfloat16(4 / 3))}
    assert abs(kept.mean() - 0.75) < 0.02
    assert len({row.tobytes() for row in kept}) == 4  # each row has its own
    assert dropped(x, None, 0) is x

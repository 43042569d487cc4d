"""Slots that come after a cache, against all slots at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import models

LLAMA = models.DecoderConfig(
    vocab_size=31,
    num_layers=2,
    embed_dim=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    mlp_dim=24,
    attention_block=5,
)
CONFIGS = {  # each of the ways to attend, several in a model
    "window and soft-caps": dataclasses.replace(
        LLAMA,
        window=4,
        global_every=2,
        qk_norm=True,
        local_rope_theta=100.0,
        post_norms=True,
        attention_softcap=1.0,
        logits_softcap=2.0,
    ),
    "window everywhere, norms after": dataclasses.replace(
        LLAMA,
        window=4,
        global_every=-1,
        local_rope_theta=None,
        qkv_bias=True,
        pre_norms=False,
        post_norms=True,
        qk_norm=True,
        qk_norm_across_heads=True,
    ),
    "relative bias": dataclasses.replace(LLAMA, positions="relative_bias", relative_buckets=8, relative_max_distance=9),
}
T5 = dataclasses.replace(CONFIGS["relative bias"], num_encoder_layers=1, attention_scale=1.0)


def _model(config):
    model = models.build(config)
    params = jax.jit(model.init)(jax.random.key(0))
    # Larger than at initialization, so that who attends to whom shows.
    return model, jax.tree.map(lambda x: x * 2 if x.ndim > 2 else x, params)


def _rows(rows, length):
    """Tokens, positions and segments of rows that are filled up to `length`."""
    tokens, segments = np.zeros((2, len(rows), length), np.int32)
    for b, ids in enumerate(rows):
        tokens[b, : len(ids)], segments[b, : len(ids)] = ids, 1
    return tokens, np.tile(np.arange(length, dtype=np.int32), (len(rows), 1)), segments


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_steps_after_a_prefill_are_the_whole(config):
    model, params = _model(config)
    rng = np.random.default_rng(0)
    lengths, steps, room = np.array([3, 9, 6]), 7, 9
    rows = [rng.integers(0, config.vocab_size, n + steps) for n in lengths]
    whole = np.asarray(jax.jit(model.hidden)(params, *_rows(rows, room + steps)))
    assert whole.std() > 0.3

    @jax.jit
    def start(params, *arrays):
        return model.extend(params, *arrays)[1].with_room(steps)

    @jax.jit
    def step(params, cache, tokens_Bx1, positions_Bx1, at):
        hidden, new = model.extend(params, tokens_Bx1, positions_Bx1, jnp.ones((3, 1), jnp.int32), cache=cache)
        return hidden[:, 0], cache.written(new, at)

    cache = start(params, *_rows([ids[:n] for ids, n in zip(rows, lengths, strict=True)], room))
    for i in range(steps):
        tokens = np.array([[row[n + i]] for row, n in zip(rows, lengths, strict=True)], np.int32)
        hidden, cache = step(params, cache, tokens, lengths[:, None] + i, room + i)
        np.testing.assert_allclose(hidden, whole[np.arange(3), lengths + i], atol=2e-5)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_prefix_is_shared_by_segments_and_rows(config):
    model, params = _model(config)
    rng = np.random.default_rng(1)
    prefix, *trunks = (rng.integers(0, config.vocab_size, n) for n in (6, 4, 2, 5))
    options = [[rng.integers(0, config.vocab_size, 2) for _ in range(2)] for _ in trunks]
    tokens, positions, segments, branches = np.zeros((4, 2, 17), np.int32)
    alone, places = [], []
    for number, (trunk, pair) in enumerate(zip(trunks, options, strict=True), 1):
        b, at = number // 2, 0 if number < 3 else 8
        for branch, ids in enumerate([trunk, *pair]):
            before = prefix if branch == 0 else np.concatenate([prefix, trunk])
            place = slice(at, at := at + len(ids))
            tokens[b, place], segments[b, place], branches[b, place] = ids, number, branch
            positions[b, place] = range(len(before), len(before) + len(ids))
            alone.append(np.concatenate([before, ids]))
            places.append((b, place, len(before)))
    whole = np.asarray(jax.jit(model.hidden)(params, *_rows(alone, 13)))

    @jax.jit
    def with_prefix(params, prefix, *arrays):
        _, cache = model.extend(params, *prefix)  # in a bucket of 8: two slots stay empty
        return model.extend(params, *arrays, cache=cache.for_all())[0]

    found = np.asarray(with_prefix(params, _rows([prefix], 8), tokens, positions, segments, branches))
    for row, (b, place, start) in zip(whole, places, strict=True):
        np.testing.assert_allclose(found[b, place], row[start : start + place.stop - place.start], atol=2e-5)


def test_a_decoder_keeps_its_memorys_keys():
    model, params = _model(T5)
    rng = np.random.default_rng(2)
    inputs, (outputs, places, ones) = [rng.integers(0, 31, n) for n in (7, 4)], _rows(rng.integers(0, 31, (2, 5)), 5)

    @jax.jit
    def whole(params):
        memory = model.encode(params, *_rows(inputs, 7))
        return model.hidden(params, outputs, places, ones, memory=memory)

    @jax.jit
    def start(params):
        memory = model.encode(params, *_rows(inputs, 7))
        hidden, cache = model.extend(params, outputs[:, :2], places[:, :2], ones[:, :2], memory=memory)
        return hidden, cache.with_room(3)

    @jax.jit
    def step(params, cache, rows, tokens_Bx1, at):
        cache = cache.rows(rows)
        hidden, own = model.extend(params, tokens_Bx1, jnp.full((2, 1), at), ones[:, :1], cache=cache)
        return hidden, cache.written(own, at)

    expected, (found, cache) = np.asarray(whole(params)), start(params)
    np.testing.assert_allclose(found, expected[:, :2], atol=2e-5)
    order = np.array([0, 1])
    for i, swap in ((2, [0, 1]), (3, [1, 0]), (4, [0, 1])):
        order = order[swap]
        found, cache = step(params, cache, np.array(swap), outputs[order, i : i + 1], i)
        np.testing.assert_allclose(found, expected[order, i : i + 1], atol=2e-5)


def test_reordering_leaves_the_prompt_where_it_is():
    cache = models.Cache.empty(LLAMA, 2, 3)
    filled = jnp.arange(cache.keys.size, dtype=jnp.float32).reshape(cache.keys.shape)
    cache = cache._replace(keys=filled, values=-filled)
    found = cache.reordered(jnp.array([1, 1]), 2)
    np.testing.assert_array_equal(found.keys[:, :, :2], filled[:, :, :2])
    np.testing.assert_array_equal(found.keys[:, :, 2], filled[:, [1, 1], 2])
    np.testing.assert_array_equal(found.values, -found.keys)

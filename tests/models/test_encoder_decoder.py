"""Rows packed on both sides of an encoder-decoder against each example alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import configuration, models

CONFIG = dataclasses.replace(
    configuration.model_config("tiny_t5"),
    vocab_size=41,
    embed_dim=24,
    head_dim=6,
    mlp_dim=32,
    relative_buckets=8,
    relative_max_distance=10,
    attention_block=8,
)
MODEL = models.build(CONFIG)
ENCODER_LENGTH, DECODER_LENGTH = 30, 24


@pytest.fixture(scope="module")
def params():
    """Every parameter random, the norms' scales too."""
    rng = np.random.default_rng(0)

    def leaf(path, x):
        return rng.normal(1.0 if path[-1].key == "scale" else 0.0, 0.4, x.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, MODEL.abstract_params())


def _side(parts, length):
    """A row of segments: tokens, positions, segments, branches. A part is (segment, tokens, branch)."""
    row, start = np.zeros((4, 1, length), np.int32), 0
    row[0] = 7  # what stands in the padding must not matter
    for segment, tokens, branch in parts:
        place = slice(start, start + len(tokens))
        row[:, 0, place] = np.stack(
            [tokens, range(len(tokens)), np.full(len(tokens), segment), np.full(len(tokens), branch)]
        )
        start = place.stop
    assert start <= length
    return list(row)


@jax.jit
def _program(params, encoder, decoder):
    memory = MODEL.encode(params, *encoder[:3])
    return MODEL.logits(params, MODEL.hidden(params, *decoder, memory=memory))


def _logits(params, encoder_parts, decoder_parts):
    return np.asarray(_program(params, _side(encoder_parts, ENCODER_LENGTH), _side(decoder_parts, DECODER_LENGTH)))[0]


def _tokens(length, seed):
    return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, length)


def test_packed_examples_equal_each_alone(params):
    examples = [(_tokens(n, n), _tokens(m, 50 + m)) for n, m in ((9, 4), (1, 7), (13, 1), (5, 9))]
    encoder = [(i, inputs, 0) for i, (inputs, _) in enumerate(examples, 1)]
    decoder = [(i, targets, 0) for i, (_, targets) in enumerate(examples, 1)]
    packed, start = _logits(params, encoder, decoder), 0
    for inputs, targets in examples:
        alone = _logits(params, [(1, inputs, 0)], [(1, targets, 0)])[: len(targets)]
        assert alone.std() > 0.3
        np.testing.assert_allclose(packed[start : start + len(targets)], alone, atol=3e-5)
        start += len(targets)
    assert np.isfinite(packed).all()


def test_options_on_branches_share_one_encoding(params):
    prompts = [_tokens(11, 1), _tokens(6, 2)]
    options = [(1, _tokens(3, 3)), (1, _tokens(5, 4)), (2, _tokens(2, 5)), (2, _tokens(4, 6)), (2, _tokens(1, 7))]
    branches = (1, 2, 1, 2, 3)
    decoder = [(segment, tokens, branch) for (segment, tokens), branch in zip(options, branches, strict=True)]
    packed, start = _logits(params, [(i, prompt, 0) for i, prompt in enumerate(prompts, 1)], decoder), 0
    for segment, tokens in options:
        alone = _logits(params, [(1, prompts[segment - 1], 0)], [(1, tokens, 0)])[: len(tokens)]
        np.testing.assert_allclose(packed[start : start + len(tokens)], alone, atol=3e-5)
        start += len(tokens)


def test_the_encoder_looks_ahead_and_the_decoder_does_not(params):
    inputs, targets = _tokens(9, 1), _tokens(6, 2)
    before = _logits(params, [(1, inputs, 0)], [(1, targets, 0)])
    other = _logits(params, [(1, [*inputs[:-1], (inputs[-1] + 1) % 41], 0)], [(1, targets, 0)])
    assert np.abs(other[0] - before[0]).max() > 1e-2
    other = _logits(params, [(1, inputs, 0)], [(1, [*targets[:-1], (targets[-1] + 1) % 41], 0)])
    np.testing.assert_array_equal(other[:5], before[:5])
    assert np.abs(other[5] - before[5]).max() > 1e-2


def test_every_parameter_matters(params):
    encoder, decoder = _side([(1, _tokens(20, 1), 0)], ENCODER_LENGTH), _side([(1, _tokens(15, 2), 0)], DECODER_LENGTH)
    weights = np.random.default_rng(0).normal(size=(1, DECODER_LENGTH, CONFIG.vocab_size))
    gradient = jax.jit(jax.grad(lambda p: (_program(p, encoder, decoder) * weights)[:, :15].sum()))(params)
    for path, grad in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.abs(grad).max() > 1e-3, jax.tree_util.keystr(path)


def test_bfloat16_is_near_float32():
    params = jax.jit(MODEL.init)(jax.random.key(0))  # the other's scores are so far apart that rounding turns them
    coarse = models.build(dataclasses.replace(CONFIG, dtype="bfloat16"))
    encoder, decoder = _side([(1, _tokens(20, 1), 0)], ENCODER_LENGTH), _side([(1, _tokens(15, 2), 0)], DECODER_LENGTH)

    @jax.jit
    def program(params):
        hidden = coarse.hidden(params, *decoder, memory=coarse.encode(params, *encoder[:3]))
        assert hidden.dtype == jnp.bfloat16
        return coarse.logits(params, hidden)

    found, exact = np.asarray(program(params))[0, :15], np.asarray(_program(params, encoder, decoder))[0, :15]
    assert found.dtype == np.float32
    assert 1e-5 < np.abs(found - exact).mean() < 0.05 * np.abs(exact).mean() + 0.02


def test_parameters_have_t5x_paths_and_axes():
    axes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): names
        for path, names in jax.tree_util.tree_leaves_with_path(
            MODEL.logical_axes(), is_leaf=lambda x: isinstance(x, tuple)
        )
    }
    assert axes["token_embedder/embedding"] == ("vocab", "embed")
    assert axes["encoder/layers/attention/query/kernel"] == ("layers", "embed", "heads", "kv")
    assert axes["decoder/layers/encoder_decoder_attention/out/kernel"] == ("layers", "heads", "kv", "embed")
    assert axes["decoder/layers/pre_cross_attention_layer_norm/scale"] == ("layers", "embed")
    assert axes["encoder/relpos_bias/rel_embedding"] == ("heads", "relpos_buckets")
    assert axes["decoder/logits_dense/kernel"] == ("embed", "vocab")

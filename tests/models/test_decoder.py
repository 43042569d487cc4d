"""The decoder against one written position by position, with loops over layers, heads and keys, in float64."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import models
from flan_jax.errors import FlanError
from flan_jax.models import attention

LAMDA = models.DecoderConfig(
    vocab_size=61,
    num_layers=2,
    embed_dim=24,
    num_heads=4,
    num_kv_heads=4,
    head_dim=6,
    mlp_dim=40,
    activation="gelu",
    positions="relative_bias",
    tied_embeddings=False,
    relative_buckets=8,
    relative_max_distance=16,
    attention_block=8,
)
LLAMA = models.DecoderConfig(
    vocab_size=53,
    num_layers=3,
    embed_dim=20,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=36,
    rope_theta=1e5,
    norm_epsilon=1e-5,
    attention_block=8,
)
GEMMA3 = models.DecoderConfig(
    vocab_size=59,
    num_layers=7,
    embed_dim=16,
    num_heads=4,
    num_kv_heads=1,
    head_dim=10,
    mlp_dim=28,
    activation="gelu",
    rope_theta=1e6,
    local_rope_theta=1e4,
    window=5,
    global_every=6,
    qk_norm=True,
    post_norms=True,
    scale_embeddings=True,
    attention_scale=0.4,
    attention_block=8,
)
each_kind = pytest.mark.parametrize("config", [LAMDA, LLAMA, GEMMA3], ids=["lamda", "llama", "gemma3"])
LENGTH, ROW = 21, 37  # no multiples of the block


def _random_params(config, seed=0):
    """Every parameter random, the norms' scales too."""
    leaves, tree = jax.tree.flatten(models.build(config).abstract_params())
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(
        tree,
        [rng.normal(1.0 if x.ndim <= 2 and min(x.shape) < 8 else 0.0, 0.3, x.shape).astype(np.float32) for x in leaves],
    )


def _tokens(config, *shape, seed=1):
    return np.random.default_rng(seed).integers(0, config.vocab_size, shape, np.int32)


@functools.cache
def _program(config):
    model = models.build(config)
    return jax.jit(lambda params, *arrays: model.logits(params, model.hidden(params, *arrays)))


def _forward(config, params, tokens, positions, segments, branches=None):
    """Logits [B, L, V] of our decoder."""
    arrays = [jnp.asarray(x, jnp.int32) for x in (tokens, positions, segments)]
    branches = None if branches is None else jnp.asarray(branches, jnp.int32)
    return np.asarray(_program(config)(params, *arrays, branches))


def _alone(config, params, tokens):
    """Logits [L, V] of one sequence in a row of its own."""
    length = len(tokens)
    tokens, positions, segments = _packed([tokens], ROW)
    return _forward(config, params, tokens, positions, segments)[0, :length]


def _packed(parts, length):
    """One row of segments and padding: tokens, positions, segments."""
    tokens, positions, segments = np.zeros((3, 1, length), np.int32)
    start = 0
    for number, part in enumerate(parts, 1):
        stop = start + len(part)
        tokens[0, start:stop], positions[0, start:stop] = part, range(len(part))
        segments[0, start:stop] = number
        start = stop
    return tokens, positions, segments


# ------------------------------------------------------------------------------------------------- the reference


def _naive(config, params, tokens):
    """Logits [L, V] of one sequence, each position from those before it."""
    c = config
    decoder = jax.tree.map(lambda x: np.asarray(x, np.float64), params)["decoder"]
    embedding = decoder["token_embedder"]["embedding"]
    out = []
    seen = [([], []) for _ in range(c.num_layers)]  # keys and values of each layer
    for position, token in enumerate(tokens):
        x = embedding[token] * (math.sqrt(c.embed_dim) if c.scale_embeddings else 1.0)
        for number in range(c.num_layers):
            p = jax.tree.map(lambda leaf, n=number: leaf[n], decoder["layers"])
            y = _norm(c, x, p["pre_self_attention_layer_norm"])
            y = _attend(c, p["self_attention"], y, position, number, seen[number], decoder)
            if c.post_norms:
                y = _norm(c, y, p["post_self_attention_layer_norm"])
            x = x + y
            y = _norm(c, x, p["pre_mlp_layer_norm"])
            gate = y @ p["mlp"]["wi_0"]["kernel"]
            gate = gate / (1 + np.exp(-gate)) if c.activation == "silu" else _gelu(gate)
            y = (gate * (y @ p["mlp"]["wi_1"]["kernel"])) @ p["mlp"]["wo"]["kernel"]
            if c.post_norms:
                y = _norm(c, y, p["post_mlp_layer_norm"])
            x = x + y
        x = _norm(c, x, decoder["decoder_norm"])
        out.append(embedding @ x if c.tied_embeddings else x @ decoder["logits_dense"]["kernel"])
    return np.array(out)


def _norm(c, x, p):
    return x / np.sqrt((x * x).mean() + c.norm_epsilon) * p["scale"]


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _rotated(x, position, theta):
    half = len(x) // 2
    turned = np.empty_like(x)
    for i in range(half):
        angle = position / theta ** (2 * i / len(x))
        turned[i] = x[i] * math.cos(angle) - x[half + i] * math.sin(angle)
        turned[half + i] = x[half + i] * math.cos(angle) + x[i] * math.sin(angle)
    return turned


def _t5_bucket(distance, buckets, furthest):
    if distance < buckets // 2:
        return distance
    exact = buckets // 2
    return min(exact + int(math.log(distance / exact) / math.log(furthest / exact) * (buckets - exact)), buckets - 1)


def _attend(c, p, y, position, number, seen, decoder):
    is_global = not c.window or (number + 1) % c.global_every == 0
    keys, values = seen
    queries = [y @ p["query"]["kernel"][:, h] for h in range(c.num_heads)]
    heads = [y @ p["key"]["kernel"][:, g] for g in range(c.num_kv_heads)]
    if c.qk_norm:
        queries = [_norm(c, q, p["query_norm"]) for q in queries]
        heads = [_norm(c, k, p["key_norm"]) for k in heads]
    if c.positions == "rope":
        theta = c.rope_theta if is_global else c.local_rope_theta
        queries = [_rotated(q, position, theta) for q in queries]
        heads = [_rotated(k, position, theta) for k in heads]
    keys.append(heads)
    values.append([y @ p["value"]["kernel"][:, g] for g in range(c.num_kv_heads)])
    first = 0 if is_global else max(0, position - c.window + 1)
    scale = c.head_dim**-0.5 if c.attention_scale is None else c.attention_scale
    result = np.zeros(c.embed_dim)
    for h in range(c.num_heads):
        group = h // (c.num_heads // c.num_kv_heads)
        scores = np.array([scale * queries[h] @ keys[j][group] for j in range(first, position + 1)])
        if c.positions == "relative_bias":
            table = decoder["relpos_bias"]["rel_embedding"][h]
            distances = [position - j for j in range(first, position + 1)]
            scores += [table[_t5_bucket(d, c.relative_buckets, c.relative_max_distance)] for d in distances]
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        mixed = sum(w * values[first + j][group] for j, w in enumerate(weights))
        result += mixed @ p["out"]["kernel"][h]
    return result


# --------------------------------------------------------------------------------------------------------- tests


@each_kind
def test_logits_match_the_naive_decoder(config):
    params = _random_params(config)
    for seed in range(3):
        tokens = _tokens(config, LENGTH, seed=seed)
        expected = _naive(config, params, tokens)
        assert expected.std() > 0.1
        row, positions = tokens[None], np.arange(LENGTH)[None]
        np.testing.assert_allclose(_forward(config, params, row, positions, row * 0 + 1)[0], expected, atol=5e-4)


@each_kind
def test_every_parameter_matters(config):
    """So that agreement with the reference says something about each of them."""
    params, tokens = _random_params(config), _tokens(config, LENGTH)
    model = models.build(config)
    arrays = jnp.asarray(tokens)[None], jnp.arange(LENGTH)[None], jnp.ones((1, LENGTH), jnp.int32)
    weights = np.random.default_rng(0).normal(size=(1, LENGTH, config.vocab_size))

    def total(params):
        return (model.logits(params, model.hidden(params, *arrays)) * weights).sum()

    for path, grad in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(total))(params)):
        assert np.abs(grad).max() > 1e-3, jax.tree_util.keystr(path)


@each_kind
@pytest.mark.parametrize("block", [5, 64])
def test_blocks_do_not_matter(config, block):
    params, tokens = _random_params(config), _tokens(config, LENGTH)
    other = dataclasses.replace(config, attention_block=block)
    np.testing.assert_allclose(_alone(other, params, tokens), _alone(config, params, tokens), atol=2e-5)


@each_kind
def test_packed_segments_equal_each_alone(config):
    params = _random_params(config)
    parts = [_tokens(config, n, seed=n) for n in (9, 1, 14, 6)]
    tokens, positions, segments = _packed(parts, ROW)
    tokens[0, 30:] = 5  # what stands in the padding must not matter
    packed = _forward(config, params, tokens, positions, segments)[0]
    start = 0
    for part in parts:
        np.testing.assert_allclose(packed[start : start + len(part)], _alone(config, params, part), atol=5e-5)
        start += len(part)
    assert np.isfinite(packed).all()


@each_kind
def test_branches_equal_each_option_alone(config):
    params = _random_params(config)
    trees = [
        (_tokens(config, 8, seed=2), [_tokens(config, n, seed=n) for n in (3, 1, 4)]),
        (_tokens(config, 5, seed=3), [_tokens(config, n, seed=10 + n) for n in (2, 6)]),
    ]
    tokens, positions, segments, branches = np.zeros((4, 1, ROW), np.int32)
    places, start = [], 0
    for number, (trunk, options) in enumerate(trees, 1):
        pieces = [(trunk, 0, 0), *((option, len(trunk), k) for k, option in enumerate(options, 1))]
        for piece, depth, branch in pieces:
            place = slice(start, start + len(piece))
            tokens[0, place], positions[0, place] = piece, range(depth, depth + len(piece))
            segments[0, place], branches[0, place] = number, branch
            places.append(place)
            start = place.stop
    assert start <= ROW
    packed = _forward(config, params, tokens, positions, segments, branches)[0]
    found = iter(places)
    for trunk, options in trees:
        on_trunk = packed[next(found)]
        for option in options:
            whole = _alone(config, params, [*trunk, *option])
            np.testing.assert_allclose(on_trunk, whole[: len(trunk)], atol=5e-5)
            np.testing.assert_allclose(packed[next(found)], whole[len(trunk) :], atol=5e-5)


def test_a_row_of_padding_is_finite():
    params, zeros = _random_params(GEMMA3), np.zeros((2, 9), np.int32)
    assert np.isfinite(_forward(GEMMA3, params, zeros, zeros, zeros)).all()


@each_kind
def test_bfloat16_is_near_float32(config):
    params, tokens = _random_params(config), _tokens(config, LENGTH)
    coarse = _alone(dataclasses.replace(config, dtype="bfloat16"), params, tokens)
    exact = _alone(config, params, tokens)
    assert coarse.dtype == np.float32
    assert 1e-5 < np.abs(coarse - exact).mean() < 0.05 * np.abs(exact).mean() + 0.02


@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (8, 16), (16, 20)])
def test_relative_buckets_match_a_loop(buckets, furthest):
    distances = np.arange(-5, 300)
    expected = [_t5_bucket(max(d, 0), buckets, furthest) for d in distances]
    np.testing.assert_array_equal(attention.relative_buckets(jnp.asarray(distances), buckets, furthest), expected)


def test_axes_name_every_dimension():
    for config in (LAMDA, LLAMA, GEMMA3):
        model = models.build(config)
        axes = jax.tree.leaves(model.logical_axes(), is_leaf=lambda x: isinstance(x, tuple))
        shapes = jax.tree.leaves(model.abstract_params())
        assert [len(a) for a in axes] == [len(x.shape) for x in shapes]
        for names, x in zip(axes, shapes, strict=True):
            assert ("layers" in names) == (x.shape[0] == config.num_layers and names[0] == "layers")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"activation": "relu"}, "activation is 'relu'; it can be silu or gelu"),
        ({"positions": "absolute"}, "positions is 'absolute'"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"remat": "some"}, "remat is 'some'"),
        ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn'"),
        ({"num_encoder_layers": 2}, "with num_encoder_layers, positions has to be 'relative_bias'"),
        ({"num_heads": 5}, "num_heads 5 is no multiple of num_kv_heads 2"),
    ],
)
def test_bad_configurations_are_one_line(changed, message):
    with pytest.raises(FlanError, match=message):
        dataclasses.replace(LLAMA, **changed)


def test_configurations_survive_json():
    for config in (LAMDA, LLAMA, GEMMA3):
        assert models.DecoderConfig.from_dict(config.to_dict()) == config
    with pytest.raises(FlanError, match="does not fit this version"):
        models.DecoderConfig.from_dict(LLAMA.to_dict() | {"num_experts": 8})
    with pytest.raises(FlanError, match="does not fit this version"):
        models.DecoderConfig.from_dict({"vocab_size": 3})


def test_an_older_manifest_is_read():
    older = {k: v for k, v in LLAMA.to_dict().items() if not k.startswith(("rope_", "num_encoder", "scale_tied"))}
    assert models.DecoderConfig.from_dict(older | {"rope_theta": 1e5}) == LLAMA


def test_computed_changes_no_model():
    assert LLAMA.computed(dtype="bfloat16", remat="none").dtype == "bfloat16"
    with pytest.raises(FlanError, match="num_layers is no way to compute a model"):
        LLAMA.computed(num_layers=1)

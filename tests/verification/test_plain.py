import dataclasses

import jax
import numpy as np
import pytest

from flan_jax import configuration, models
from flan_jax.errors import FlanError
from flan_jax.verification.plain import Plain, log_likelihoods

SMALL = {"embed_dim": 32, "head_dim": 8, "mlp_dim": 48, "num_layers": 2, "dtype": "bfloat16", "attention": "segments"}
RNG = np.random.default_rng(0)
PROMPT, ANSWER = (RNG.integers(0, 384, n).tolist() for n in (70, 19))


@pytest.fixture(scope="module")
def decoder():
    config = dataclasses.replace(configuration.model_config("tiny"), **SMALL)
    params = jax.jit(models.build(config).init)(jax.random.key(0))
    return Plain(config, params), params


@pytest.fixture(scope="module")
def encoder_decoder():
    config = dataclasses.replace(configuration.model_config("tiny_t5"), **SMALL | {"attention": "xla"})
    params = jax.jit(models.build(config).init)(jax.random.key(0))
    return Plain(config, params), params


def _slots(ids):
    return np.array([ids]), np.arange(len(ids))[None], np.ones((1, len(ids)), np.int32)


def _after(plain, params, count):
    """Logits after the prompt and so many tokens of the answer, by a pass over exactly these, nothing after."""
    model = plain.model
    if plain.has_encoder:

        def passed(params):
            memory = model.encode(params, *_slots(PROMPT))
            return model.hidden(params, *_slots([0, *ANSWER[:count]]), memory=memory)
    else:

        def passed(params):
            return model.hidden(params, *_slots([*PROMPT, *ANSWER[:count]]))

    return jax.jit(lambda params: model.logits(params, passed(params)[0]))(params)


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_logits_are_those_of_what_stands_before(kind, request):
    """Around the first 16, whose logits are computed at once, each by a pass of its own; then all by the longest."""
    plain, params = request.getfixturevalue(kind)
    logits = plain.logits(PROMPT, ANSWER)
    assert logits.shape == (19, 384) and logits.dtype == np.float32
    for count in (0, 15, 16):
        np.testing.assert_allclose(logits[count], _after(plain, params, count)[-1], atol=2e-5, err_msg=str(count))
    np.testing.assert_allclose(logits, _after(plain, params, 18)[-19:], atol=2e-5)
    assert plain.model.config.dtype == "float32" and plain.model.config.attention == "xla"


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_a_gradient_is_the_slope_of_the_loss(kind, request):
    plain, params = request.getfixturevalue(kind)
    gradient = plain.gradient(PROMPT, ANSWER)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)

    def loss(params):
        return -log_likelihoods(Plain(plain.model.config, params).logits(PROMPT, ANSWER), ANSWER).sum()

    step = jax.tree.map(lambda x: np.random.default_rng(x.size).normal(size=x.shape).astype(np.float32), params)
    slope = sum(float((g * s).sum()) for g, s in zip(jax.tree.leaves(gradient), jax.tree.leaves(step), strict=True))
    ahead, back = (loss(jax.tree.map(lambda x, s, e=e: x + e * s, params, step)) for e in (1e-3, -1e-3))
    np.testing.assert_allclose((ahead - back) / 2e-3, slope, rtol=2e-2)


def test_log_likelihoods_are_exact_over_a_large_vocabulary():
    logits = np.random.default_rng(0).normal(0, 3, (3, 262_144)).astype(np.float32)
    exact = logits[range(3), [5, 0, 9]] - np.log(np.exp(logits.astype(np.float64)).sum(-1))
    np.testing.assert_allclose(log_likelihoods(logits, [5, 0, 9]), exact, atol=2e-6)
    logits[1, 7] = np.nan
    assert np.isnan(log_likelihoods(logits, [5, 0, 9])).tolist() == [False, True, False]


def test_a_token_without_an_embedding_is_named(decoder):
    with pytest.raises(FlanError, match="token 384 has no embedding, of which the model has 384"):
        decoder[0].logits(PROMPT, [5, 384])

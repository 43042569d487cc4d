"""What layers keep for the backward pass changes the work and not the result."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from flan_jax import configuration, models

T5 = dataclasses.replace(
    configuration.model_config("tiny_t5"), vocab_size=31, embed_dim=16, num_heads=2, num_kv_heads=2, mlp_dim=24
)
GEMMA = dataclasses.replace(
    configuration.model_config("gemma3_270m"),
    vocab_size=31,
    num_layers=2,
    embed_dim=16,
    head_dim=8,
    mlp_dim=24,
    window=5,
)
LENGTH = 12


def _loss(config):
    model = models.build(config)
    tokens = np.random.default_rng(0).integers(0, 31, (2, LENGTH))
    arrays = tokens, np.tile(np.arange(LENGTH), (2, 1)), np.ones((2, LENGTH), np.int32)

    def loss(params):
        memory = {"memory": model.encode(params, *arrays)} if config.num_encoder_layers else {}
        return jnp.square(model.logits(params, model.hidden(params, *arrays, **memory))).mean()

    return model, loss


KEPT = [name for name in models.REMAT_POLICIES if name != "none"]


@pytest.mark.parametrize(("config", "policies"), [(T5, ["save_attention"]), (GEMMA, KEPT)], ids=["t5", "gemma3"])
def test_gradients_are_equal(config, policies):
    """Every policy of a decoder, and of an encoder-decoder the one that names what is kept; each is a program."""
    model, loss = _loss(dataclasses.replace(config, remat="none"))
    params = jax.jit(model.init)(jax.random.key(0))
    expected = jax.jit(jax.grad(loss))(params)
    for name in policies:
        found = jax.jit(jax.grad(_loss(dataclasses.replace(config, remat=name))[1]))(params)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5 * np.abs(y).max(), err_msg=name)


def test_each_policy_computes_less_again_than_the_one_before():
    products = {}
    for name in models.REMAT_POLICIES:
        model, loss = _loss(dataclasses.replace(GEMMA, remat=name))
        products[name] = str(jax.make_jaxpr(jax.grad(loss))(model.abstract_params())).count("dot_general")
    again = {name: count - products["none"] for name, count in products.items()}
    # All 9 of a layer; all but queries, keys, values and what attention makes of them; the scores; nothing.
    assert again == {"full": 9, "save_attention": 5, "save_dots": 1, "none": 0}


def test_cudnns_forward_pass_is_not_computed_again(monkeypatch):
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91200)  # it is traced, not run
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda *_: True)
    shape = {"num_layers": 2, "vocab_size": 64, "dtype": "bfloat16", "attention": "cudnn"}
    config = dataclasses.replace(configuration.model_config("smollm2_135m"), **shape)
    arrays = np.zeros((2, 128), np.int32), np.tile(np.arange(128), (2, 1)), np.ones((2, 128), np.int32)
    passes = {}
    for name in models.REMAT_POLICIES:
        model = models.build(dataclasses.replace(config, remat=name))
        jaxpr = jax.make_jaxpr(jax.grad(lambda p, m=model: m.hidden(p, *arrays).sum()))(model.abstract_params())
        passes[name] = str(jaxpr).count("dot_product_attention_fwd_wrapper")
    assert passes == {"full": 2, "save_attention": 1, "save_dots": 1, "none": 1}

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import configuration, models
from flan_jax.models import layers, lora
from flan_jax.models.layers import product


@pytest.mark.parametrize("slots", [(7,), (2, 5), (2, 3, 4)])
def test_product_and_its_gradients(slots):
    rng = np.random.default_rng(0)
    x, kernel, d_out = (rng.normal(size=shape).astype(np.float32) for shape in ((*slots, 6), (6, 3), (*slots, 3)))
    out, gradients = jax.vjp(product, x, kernel)
    d_x, d_kernel = gradients(d_out)
    np.testing.assert_allclose(out, x @ kernel, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(d_x, d_out @ kernel.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(d_kernel, x.reshape(-1, 6).T @ d_out.reshape(-1, 3), rtol=1e-5, atol=1e-5)


def test_a_products_gradients_are_no_transposes():
    def gradients(x, kernel):
        return jax.grad(lambda *a: product(*a).sum(), (0, 1))(x, kernel)

    assert "transpose[" not in str(jax.make_jaxpr(gradients)(jnp.ones((2, 5, 6)), jnp.ones((6, 3))))


@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "adapters"])
@pytest.mark.parametrize("name", ["tiny", "tiny_t5"])
def test_projections_joined_are_those_apart(name, adapted, monkeypatch):
    """Hidden states and gradients, with biases and adapters beside the kernels; only where there are many slots."""
    how = {"attention": "segments", "attention_block": 8}
    model = models.build(configuration.model_config(name, how).computed())
    if name == "tiny":
        model = models.build(dataclasses.replace(model.config, qkv_bias=True))
    if adapted:
        model = lora.adapted(model, 2, 4.0, lora.kernels(model))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape), model.init(jax.random.key(0)))
    tokens, positions = rng.integers(0, model.config.vocab_size, (2, 16)), np.tile(np.arange(16), (2, 1))
    slots = tokens.astype(np.int32), positions.astype(np.int32), np.ones((2, 16), np.int32)

    def total(params):
        memory = {"memory": model.encode(params, *slots)} if name == "tiny_t5" else {}
        return jnp.square(model.hidden(params, *slots, **memory)).sum()

    found, products = [], []
    for fewest in (1, 33):
        monkeypatch.setattr(layers, "JOINED_SLOTS", fewest)
        found.append(jax.jit(jax.value_and_grad(lambda params: total(params)))(params))
        products.append(str(jax.make_jaxpr(lambda params: total(params))(params)).count("dot_general"))
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max() + 1e-9)
    assert products[0] < products[1]

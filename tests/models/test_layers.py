import jax
import jax.numpy as jnp
import numpy as np
import pytest

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

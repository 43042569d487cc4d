"""cuDNN's kernel itself, which needs a GPU: `JAX_PLATFORMS=cuda pytest -n 0 tests/models/test_attention_gpu.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.models.attention import EVERY, Slots
from flan_jax.models.attention_switch import attend

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="cuDNN's attention runs on a GPU, and JAX has none here"
)


def _slots(rng, rows, length, trees):
    """Packed segments of random lengths; the later half of each is two branches, where they are trees."""
    positions, segments, branches = np.zeros((3, rows, length), np.int32)
    for b in range(rows):
        start, number = 0, 1
        while (size := int(rng.integers(4, 300))) <= length - start:
            part = slice(start, start + size)
            positions[b, part], segments[b, part] = range(size), number
            if trees:
                option = size // 4
                branches[b, start + size - 2 * option : start + size - option] = 1
                branches[b, start + size - option : start + size] = 2
                positions[b, start + size - option : start + size] -= option
            start, number = start + size, number + 1
    return Slots(*map(jnp.asarray, (positions, segments)), jnp.asarray(branches) if trees else None)


@pytest.mark.parametrize("trees", [False, True])
@pytest.mark.parametrize(("window", "is_global"), [(0, True), (100, False), (100, True)])
@pytest.mark.parametrize(("groups", "per_group", "head_dim"), [(3, 3, 64), (1, 4, 256), (8, 1, 128)])
def test_outputs_and_gradients_are_those_of_xla_in_float32(groups, per_group, head_dim, window, is_global, trees):
    rng = np.random.default_rng(0)
    rows, length = 3, 1280
    slots = _slots(rng, rows, length, trees)
    q = rng.normal(size=(rows, length, groups, per_group, head_dim)) * head_dim**-0.5
    k, v = rng.normal(size=(2, rows, length, groups, head_dim))
    coarse = [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)]
    weights = jnp.asarray(rng.normal(size=q.shape) * (np.asarray(slots.segments) > 0)[:, :, None, None, None])

    def outputs(implementation, arrays):
        def total(*x):
            how = {"window": window, "is_global": jnp.asarray(is_global), "implementation": implementation}
            out = attend(*x, slots, slots, causal=True, **how)
            return (out * weights).sum(), out

        with jax.default_matmul_precision("highest"):
            (_, out), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(*arrays)
        return [np.asarray(x, np.float64) for x in (out * (weights != 0), *gradients)]

    exact = outputs("xla", [x.astype(jnp.float32) for x in coarse])
    for a, b in zip(outputs("cudnn", coarse), exact, strict=True):
        assert np.linalg.norm(b) > 1 and np.isfinite(a).all()
        assert np.linalg.norm(a - b) < 0.01 * np.linalg.norm(b)


@pytest.mark.parametrize("window", [0, 100])
def test_after_a_cache(window):
    rng = np.random.default_rng(1)
    own = _slots(rng, 2, 512, trees=True)
    own = own._replace(positions=own.positions + 100)
    prefix = [jnp.asarray(np.tile(x, (2, 1)), jnp.int32) for x in (range(128), [EVERY] * 100 + [0] * 28, [0] * 128)]
    keys = Slots(*(jnp.concatenate(x, 1) for x in zip(prefix, own, strict=True)))
    q = jnp.asarray(rng.normal(size=(2, 512, 3, 3, 64)) / 8, jnp.bfloat16)
    k, v = jnp.asarray(rng.normal(size=(2, 2, 640, 3, 64)), jnp.bfloat16)
    real = np.asarray(own.segments) > 0

    def attended(implementation, *arrays):
        how = {"causal": True, "window": window, "is_global": False, "implementation": implementation}
        return np.asarray(jax.jit(lambda *x: attend(*x, own, keys, **how))(*arrays), np.float64)[real]

    exact = attended("xla", *(x.astype(jnp.float32) for x in (q, k, v)))
    assert np.linalg.norm(attended("cudnn", q, k, v) - exact) < 0.01 * np.linalg.norm(exact)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import configuration, partitioning
from flan_jax.models.attention import Slots, relative_buckets
from flan_jax.models.relative import biases

ROWS, LENGTH, HEADS = 4, 12, 2


@pytest.fixture(scope="module")
def config():
    return configuration.model_config("tiny", {"relative_buckets": 8, "relative_max_distance": 10})


def _slots(branches):
    segments = np.repeat([[1, 2]], [5, 7], axis=1).repeat(ROWS, axis=0)
    positions = np.concatenate([np.arange(5), np.arange(7)])[None].repeat(ROWS, axis=0)
    return Slots(*(jnp.asarray(x) for x in (positions, segments)), jnp.zeros_like(segments) if branches else None)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("mesh", [None, (1, 4, 2)])
def test_biases_are_those_of_the_positions(config, bidirectional, branches, mesh):
    table = jax.random.normal(jax.random.key(0), (HEADS, 8))
    slots = _slots(branches)
    asked, seen = slice(3, 9), slice(0, 9)

    def found(table):
        if mesh is None:
            return biases(table, slots, config, bidirectional).between(slots.positions, slots.positions, asked, seen)
        with partitioning.layout(partitioning.make_mesh(*mesh)):
            return biases(table, slots, config, bidirectional).between(slots.positions, slots.positions, asked, seen)

    place = jax.sharding.NamedSharding(partitioning.make_mesh(*(mesh or (8, 1, 1))), jax.sharding.PartitionSpec())
    got = np.broadcast_to(jax.jit(found, in_shardings=place)(table), (ROWS, HEADS, 6, 9))
    positions, segments = np.asarray(slots.positions), np.asarray(slots.segments)
    for row in range(ROWS):
        for q in range(*asked.indices(LENGTH)):
            for k in range(*seen.indices(LENGTH)):
                if segments[row, q] == segments[row, k]:  # others are masked
                    bucket = relative_buckets(positions[row, q] - positions[row, k], 8, 10, bidirectional)
                    np.testing.assert_allclose(got[row, :, q - 3, k], table[:, bucket], rtol=1e-6)


def test_keys_of_a_cache_may_lie_further_back_than_the_row_is_long(config):
    table = jax.random.normal(jax.random.key(1), (HEADS, 8))
    queries, keys = jnp.array([[40, 41]]), jnp.array([[0, 31, 38, 40, 41]])
    slots = Slots(queries, jnp.ones_like(queries), jnp.zeros_like(queries))
    got = biases(table, slots, config, False).between(queries, keys, slice(0, 2), slice(0, 5))
    buckets = relative_buckets(queries[0, :, None] - keys[0], 8, 10)
    np.testing.assert_allclose(got[0], np.asarray(table)[:, buckets], rtol=1e-6)

"""Random parameters: each device makes its share, and a conversion one layer's tensor at a time."""

import dataclasses

import jax
import numpy as np
import pytest

from flan_jax import configuration, models, partitioning
from flan_jax.formats import conversion
from flan_jax.formats.source import leaves


def test_a_device_needs_no_more_than_its_share():
    """By the compiler: nothing is made. 137B on 8 devices is 64 GiB each."""
    network = models.build(configuration.model_config("lamda_pt_137b"))
    abstract = network.abstract_params()
    shardings = partitioning.parameter_shardings(
        partitioning.make_mesh(data=1, fsdp=4, tensor=2), network.logical_axes(), abstract
    )
    lowered = jax.jit(network.init, out_shardings=shardings).lower(jax.random.key(0))
    memory = lowered.compile().memory_analysis()
    share = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(abstract)) / 8
    assert memory.output_size_in_bytes == pytest.approx(share, rel=0.01)
    assert memory.temp_size_in_bytes < 0.3 * share  # the random bits of one layer's array, at most


def test_layers_are_made_singly_and_differ():
    """Of an encoder-decoder, which has layers of both kinds."""
    config = configuration.model_config("tiny_t5", {"vocab_size": 384})
    source, again = (conversion.random(config, "tiny_t5") for _ in range(2))
    seen = set()
    expected = jax.jit(models.build(config).init)(jax.random.key(1))
    for number, leaf in enumerate(leaves(config)):
        wanted = expected
        for part in leaf.path:
            wanted = wanted[part]
        found = [source.tensor(leaf.path, layer) for layer in leaf.layers]
        assert all(x.shape == leaf.shape and x.dtype == np.float32 for x in found)
        np.testing.assert_allclose(np.std(found), np.std(np.asarray(wanted)), rtol=0.15, atol=1e-6)
        if np.std(found) > 0:
            numbers = {x.tobytes() for x in found}
            assert len(numbers) == len(found) and not numbers & seen
            seen |= numbers
        if number % 7 == 0:  # each takes a program of its own
            np.testing.assert_array_equal(again.tensor(leaf.path, leaf.layers[-1]), found[-1])


def test_of_the_paper_s_model_one_tensor_can_be_made():
    """A relative bias of 137B's 64 layers, not 513 GiB."""
    config = dataclasses.replace(configuration.model_config("lamda_pt_137b"), vocab_size=384)
    source = conversion.random(config, "137B")
    small = min(leaves(config), key=lambda leaf: leaf.size)
    assert source.tensor(small.path, small.layers[-1]).shape == small.shape

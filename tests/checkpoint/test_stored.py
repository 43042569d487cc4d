"""How a step's arrays lie in their files: in chunks of which each host of a pod reads its own."""

import importlib.util
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import configuration, convert, models, partitioning
from flan_jax.checkpoint import saving, stored
from flan_jax.formats.source import leaves

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "restore.py"
PAPER = configuration.model_config("lamda_pt_137b")


@pytest.mark.parametrize("shape", [(), (1,), (576,), (7, 13), (576, 1536), (49_152, 576), (32_003, 8192), (3, 2**22)])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_chunks_divide_the_array(shape, itemsize):
    chunk = stored.chunk(shape, itemsize)
    assert len(chunk) == len(shape) and all(n % c == 0 for n, c in zip(shape, chunk, strict=True))
    assert all(n // c in (1, 2, 4, 8, 16) for n, c in zip(shape, chunk, strict=True))
    bytes_ = itemsize * math.prod(shape)
    if bytes_ > 1 << 20 and all(n % 16 == 0 for n in shape):
        assert 64 << 10 < itemsize * math.prod(chunk) <= max(256 << 10, bytes_ / 256)


@pytest.mark.parametrize("sizes", [(16, 1), (1, 16), (4, 4), (2, 8)], ids=str)
def test_each_of_16_hosts_reads_its_share_of_the_paper_s_model(sizes):
    """By the chunks that overlap with what a host holds; nothing is made."""
    fsdp, tensor = sizes
    mesh = jax.sharding.AbstractMesh((1, fsdp, tensor), ("data", "fsdp", "tensor"))
    network = models.build(PAPER)
    axes = jax.tree.leaves(network.logical_axes(), is_leaf=partitioning.is_axes)
    read = whole = 0
    for leaf, names in zip(leaves(PAPER), axes, strict=True):
        stacked = (leaf.num_layers,) * bool(leaf.num_layers)
        spec = partitioning.partition_spec(mesh, names, (*stacked, *leaf.shape))[len(stacked) :]
        chunk, own = stored.chunk(leaf.shape, 4), []
        for size, part, entry in zip(leaf.shape, chunk, spec, strict=True):
            ways = 1 if entry is None else math.prod(mesh.shape[a] for a in np.atleast_1d(entry))
            own.append(math.ceil(size // ways / part) * part)
        read, whole = read + math.prod(own) * max(leaf.num_layers, 1), whole + leaf.size
    assert read / whole < 1.05 / 16


def test_a_training_step_s_layers_stand_singly(tmp_path):
    tree = {"layers": {"kernel": jnp.ones((4, 512, 1024))}, "embedding": jnp.ones((2048, 512)), "count": jnp.int32(3)}
    with saving.Saver(tmp_path) as saver:
        saver.save(1, tree, {"v_row": {"layers": {"scale": jnp.ones((4, 512), jnp.bfloat16)}}})
    chunks = {}
    for item, name in (("params", "layers/kernel"), ("params", "embedding"), ("params", "count")):
        store = stored.opened(tmp_path / "checkpoints" / "1" / item, name)
        chunks[name] = store.chunk_layout.read_chunk.shape
        np.testing.assert_array_equal(store.read().result(), np.ones(store.shape) * (3 if name == "count" else 1))
    assert chunks["layers/kernel"][0] == 1 and 4 * math.prod(chunks["layers/kernel"]) <= 256 << 10
    assert 4 * math.prod(chunks["embedding"]) <= 256 << 10 and not chunks["count"]
    assert stored.fault(tmp_path, 1) is None


@pytest.mark.slow
def test_each_process_of_a_pod_reads_its_share(tmp_path):
    spec = importlib.util.spec_from_file_location("restore_benchmark", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    convert.convert("smollm2_135m", tmp_path / "model", tuning="untuned")
    found = benchmark.measured(tmp_path / "model", 4, {"fsdp": 4})
    assert found["own"] == pytest.approx(0.25, abs=0.01) and found["read"] < 0.3

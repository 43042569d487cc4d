import dataclasses

import pytest

from flan_jax import configuration, partitioning
from flan_jax.compilation import estimate, program
from flan_jax.errors import FlanError

LAYERS = 4
SHAPE = program.Shape(rows=4, inputs=24, targets=8)


@pytest.fixture(scope="module")
def config():
    small = {"num_layers": LAYERS, "embed_dim": 32, "mlp_dim": 64, "head_dim": 8, "vocab_size": 64}
    return configuration.model_config("tiny", small | {"remat": "save_dots", "positions": "relative_bias"})


@pytest.fixture(scope="module")
def mesh():
    return partitioning.make_mesh(1, 4, 2)


def _compiled(config, mesh):
    return program.compile_program(*program.lower_train_step(config, mesh, SHAPE))


def test_layers_extrapolate_to_the_whole_unrolled_program(config, mesh):
    one, two = (_compiled(estimate.with_layers(config, n), mesh) for n in (1, 2))
    whole = _compiled(estimate.with_layers(config, LAYERS), mesh)
    assert estimate.extrapolated(one.flops, two.flops, LAYERS) == pytest.approx(whole.flops, rel=0.01)
    scanned = _compiled(config, mesh)
    assert scanned.flops < 0.6 * whole.flops  # its loops count once, which is why


def test_memory_classes_are_the_shards_of_the_state(config, mesh):
    lowered, held = program.lower_train_step(config, mesh, SHAPE)
    memory = program.compile_program(lowered, held).memory
    c = config
    width, kv_width = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    layer = c.embed_dim * (2 * width + 2 * kv_width + 3 * c.mlp_dim)
    split = (LAYERS * layer + c.vocab_size * c.embed_dim) / 8  # over fsdp and tensor
    norms = (2 * LAYERS + 1) * c.embed_dim / 4
    biases = c.num_heads * c.relative_buckets / 2
    assert memory["parameters"] == 4 * (split + norms + biases)
    assert memory["peak"] >= memory["parameters"] + memory["optimizer"] + memory["activations and gradients"]


def test_model_flops_are_six_a_parameter_and_slot_and_attention(config):
    plan = estimate.Plan(config, {}, SHAPE)
    c = config
    width, kv_width = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    parameters = LAYERS * c.embed_dim * (2 * width + 2 * kv_width + 3 * c.mlp_dim)
    slots, length = 4 * 32, 32
    # scores and mixing: two products of 2 x width for half of the pairs, forward and twice backward
    expected = 6 * parameters * slots + 6 * c.vocab_size * c.embed_dim * 4 * 8
    expected += 3 * LAYERS * 4 * 4 * width * length * length / 2
    assert estimate.model_flops(plan) == pytest.approx(expected)
    assert estimate.model_flops(dataclasses.replace(plan, score=True)) == pytest.approx(expected / 3)


def test_rows_that_cannot_be_split_are_refused(config, mesh):
    with pytest.raises(FlanError, match="--rows 3 in 1 part"):
        program.lower_train_step(config, mesh, dataclasses.replace(SHAPE, rows=3))


def test_a_scorer_is_lowered_without_parameters(config, mesh):
    lowered, held = program.lower_scoring(config, mesh, SHAPE)
    assert set(held) == {"parameters"}
    assert "while" in lowered.as_text()


def test_cycles_stand_in_where_the_compiler_gives_no_seconds():
    assert estimate.computation(2.0, 3.0) == {"compute_seconds": 2.0, "compute_source": "one and two layers"}
    found = estimate.computation(float("nan"), 3.0)
    assert found == {"compute_seconds": 3.0, "compute_source": "scheduled cycles"}

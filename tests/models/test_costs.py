"""Sizes and operations by formula, beside what the compiler counts in the program itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import configuration, models
from flan_jax.models import costs
from flan_jax.training import optimizers
from flan_jax.training.state import TrainState, make_train_step

ROWS, LENGTH, TARGETS = 2, 32, 16
WIDE = {"vocab_size": 512, "num_layers": 2, "embed_dim": 96, "num_heads": 4, "num_kv_heads": 2, "head_dim": 24}
CONFIG = dataclasses.replace(configuration.model_config("tiny"), **WIDE, mlp_dim=384, remat="none", unroll=True)


def test_parameters_are_counted():
    for name, millions in (("smollm2_135m", 134.5), ("gemma3_270m", 268.1), ("t5_1_1_small", 77.0)):
        assert costs.parameters(configuration.model_config(name)) / 1e6 == pytest.approx(millions, rel=5e-3)


def _compiled(tuning):
    """What the compiler counts of a step; all slots see all others, as attention is computed here."""
    network = models.build(CONFIG)
    params = network.abstract_params()
    opt_state = jax.eval_shape(optimizers.for_parameters(tuning, network.logical_axes()).init, params)
    of_rows = {"tokens": LENGTH, "positions": LENGTH, "segments": LENGTH, "target_positions": TARGETS}
    of_rows |= {"targets": TARGETS, "dataset_ids": TARGETS}
    batch = {name: jax.ShapeDtypeStruct((ROWS, size), np.int32) for name, size in of_rows.items()}
    batch["weights"] = jax.ShapeDtypeStruct((ROWS, TARGETS), np.float32)
    state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, opt_state)
    return jax.jit(make_train_step(network, tuning, 1)).lower(state, batch).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("frozen", [("token_embedder", "self_attention")], ids=str)
def test_a_step_s_operations_are_those_of_its_program(frozen):
    tuning = optimizers.Tuning(optimizers.sgd(0.1), frozen=frozen)
    work = costs.Work(ROWS * LENGTH, ROWS * TARGETS, ROWS * LENGTH**2)
    trained = tuning.trained(models.build(CONFIG).logical_axes())
    of_step = costs.products(CONFIG, work).step_flops(trained and costs.shares(CONFIG, trained))
    # The head is checkpointed, so that its logits are computed twice; and norms and the softmax count a little.
    again = 2 * CONFIG.embed_dim * CONFIG.vocab_size * ROWS * TARGETS
    assert _compiled(tuning) == pytest.approx(of_step + again, rel=0.06)

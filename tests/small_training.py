"""A small model and data for tests of training: `train` takes a few steps on 8 CPU devices in seconds."""

import dataclasses

import numpy as np

from flan_jax import configuration
from flan_jax.data import token_store
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.training import loop, optimizers

SMALL = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=2, embed_dim=32, head_dim=8, mlp_dim=64, remat="none"
)
LENGTHS = {"inputs": 48, "targets": 16}


def prepare(folder):
    """Tokens of one small dataset."""
    tokenizer, rng = ByteTokenizer(), np.random.default_rng(0)
    examples = [
        token_store.TokenizedExample(*tokenizer.encode([" ".join(rng.choice(["calm", "grey"], 3)), "yes"]), 0, number)
        for number in range(30)
    ]
    info = {"num_records": len(examples), "renderings": 1, "vocab_size": tokenizer.vocab_size}
    token_store.write_dataset(token_store.folder_of(folder, tokenizer.fingerprint) / "sst2", info, examples)
    return folder


def train(folder, prepared, steps, **more):
    """Trains to a step."""
    arguments = {"mixture": "sst2", "model": SMALL, "vocabulary": "bytes", "batch_size": 8, "feature_lengths": LENGTHS}
    arguments |= {"optimizer": optimizers.adafactor(1e-2), "checkpoint_period": 100}
    arguments |= {"mesh_shape": {"data": 2, "fsdp": 4}}
    return loop.train(model_dir=str(folder), prepared_dir=str(prepared), train_steps=steps, **(arguments | more))

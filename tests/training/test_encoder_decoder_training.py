"""Training of an encoder-decoder: the loss of packed rows, and a run of the training binary."""

import dataclasses
import json

import gin
import jax
import numpy as np
import pytest

from flan_jax import configuration, models, train
from flan_jax.checkpoint import arrays
from flan_jax.data import token_store
from flan_jax.data.layouts import EncoderDecoderLayout
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.training import loss

BYTES = ByteTokenizer()
SMALL = configuration.model_config("tiny_t5", {"vocab_size": BYTES.vocab_size, "embed_dim": 32, "mlp_dim": 48})


def test_packed_rows_have_the_loss_of_each_example_alone():
    rng = np.random.default_rng(0)
    rows = [
        [(int(rng.integers(3)), rng.integers(0, 256, n), rng.integers(0, 256, m)) for n, m in lengths]
        for lengths in (((5, 2), (12, 1), (3, 4)), ((20, 6), (1, 1)))
    ]
    model = models.build(dataclasses.replace(SMALL, attention_block=16))
    params = jax.jit(model.init)(jax.random.key(0))
    layout = EncoderDecoderLayout(30, 14, None, BYTES.eos_id)
    program = jax.jit(lambda batch: loss.target_loss(model, params, batch, 3))
    total, metrics = program(layout.batch(rows))
    by_dataset, count = np.zeros(3), 0
    for row in rows:
        for example in row:
            alone, _ = program(layout.batch([[example], []]))
            by_dataset[example[0]] += alone
            count += len(example[2]) + 1
    np.testing.assert_allclose(total, by_dataset.sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["dataset_loss"], by_dataset, rtol=1e-5)
    assert metrics["weight"] == count
    assert metrics["slots_filled"] == count + sum(len(example[1]) + 1 for row in rows for example in row)


@pytest.fixture
def fresh_gin():
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.mark.parametrize("computation", [{"remat": "save_dots"}])
def test_a_run_of_the_binary_learns(tmp_path, fresh_gin, capsys, computation):
    """Two datasets whose answers follow from the input, from random parameters, sharded over 8 devices."""
    rng = np.random.default_rng(0)
    for name, answers in (("sst2", ("negative", "positive")), ("bool_q", ("no", "yes"))):
        examples = []
        for number in range(40):
            answer = int(rng.integers(2))
            text = f"{'-+'[answer]} {' '.join(rng.choice(['calm', 'grey', 'loud'], 2))}"
            examples.append(token_store.TokenizedExample(*BYTES.encode([text, answers[answer]]), 0, number))
        info = {"num_records": 40, "renderings": 1, "vocab_size": BYTES.vocab_size}
        folder = token_store.folder_of(tmp_path / "prepared", BYTES.fingerprint)
        token_store.write_dataset(folder / name, info, examples)
    train.main(
        [
            "--gin_file=runs/tune.gin",
            f"--gin.MODEL_DIR='{tmp_path / 'run'}'",
            f"--gin.PREPARED_DIR='{tmp_path / 'prepared'}'",
            "--gin.MODEL='tiny_t5'",
            f"--gin.COMPUTATION={computation}",
            "--gin.TASK_FEATURE_LENGTHS={'inputs': 40, 'targets': 24}",
            "--gin.BATCH_SIZE=4",
            "--gin.TRAIN_STEPS=16",
            "--gin.LEARNING_RATE=1e-2",
            "--gin.MESH={'data': 2, 'fsdp': 2, 'tensor': 2}",
            "--json",
        ]
    )
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert last["step"] == 16 and last["loss"] < 0.6 * lines[0]["loss"]
    assert set(last["dataset_loss"]) == {"sst2", "bool_q"}
    assert 0.5 < last["slots_filled"] <= 1
    model, params, _, manifest = arrays.load_model(tmp_path / "run")
    assert isinstance(model, models.EncoderDecoder) and model.config.remat == "full"  # of that run alone
    assert params["encoder"]["layers"]["mlp"]["wo"]["kernel"].shape == (2, 128, 64)
    assert manifest.tuning["datasets"] == ["bool_q", "sst2"]

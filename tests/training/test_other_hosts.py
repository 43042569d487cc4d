"""A run that goes on with another mesh and another number of processes: the same rows, and the same losses."""

import json
import subprocess
import sys

import numpy as np
import pytest

from flan_jax import train as train_binary
from flan_jax.checkpoint import choosing, stored
from flan_jax.data import token_store
from flan_jax.data.vocabularies import ByteTokenizer

BYTES = ByteTokenizer()
# Steps, processes, devices of each, and the mesh; the process of this test has eight devices.
STAGES = ((2, 1, 8, {"data": 2, "fsdp": 4}), (4, 4, 1, {"fsdp": 2, "tensor": 2}))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    for name, answers in (("sst2", ("negative", "positive")), ("bool_q", ("no", "yes"))):
        examples = []
        for number in range(40):
            answer = int(rng.integers(2))
            inputs, targets = BYTES.encode(["-+"[answer] + " " + "word " * int(rng.integers(4)), answers[answer]])
            examples.append(token_store.TokenizedExample(inputs, targets, 0, number))
        info = {"num_records": len(examples), "renderings": 1, "vocab_size": BYTES.vocab_size}
        token_store.write_dataset(token_store.folder_of(folder, BYTES.fingerprint) / name, info, examples)
    return folder


def _train(folder, prepared, steps, processes, devices, mesh):
    """One stage."""
    arguments = [
        "--gin_file=runs/tune.gin",
        f"--gin.MODEL_DIR={str(folder)!r}",
        f"--gin.PREPARED_DIR={str(prepared)!r}",
    ]
    arguments += [
        f"--gin.TRAIN_STEPS={steps}",
        "--gin.BATCH_SIZE=8",
        "--gin.LEARNING_RATE=1e-2",
        f"--gin.MESH={ {'data': 1} | mesh }",
    ]
    arguments += ["--gin.TASK_FEATURE_LENGTHS={'inputs': 48, 'targets': 16}"]
    if processes == 1:
        train_binary.main(arguments)
        return
    pod = [sys.executable, "-m", "flan_jax.launch.local_pod", f"--processes={processes}", f"--devices={devices}"]
    command = [*pod, "--", "python", "-m", "flan_jax.train", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def _steps(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_one_process_and_then_four_go_on_with_the_same_stream(prepared, tmp_path):
    """Two processes: `test_local_pod`, and, killed and started again, `test_survival`."""
    _train(tmp_path / "alone", prepared, STAGES[-1][0], *STAGES[0][1:])
    for stage in STAGES:
        _train(tmp_path / "moved", prepared, *stage)
    alone, moved = _steps(tmp_path / "alone"), _steps(tmp_path / "moved")
    assert [one["step"] for one in moved] == [one["step"] for one in alone] == [1, 2, 3, 4]
    for one, other in zip(alone, moved, strict=True):
        assert one["target_tokens"] == other["target_tokens"] and one["slots_filled"] == other["slots_filled"]
        assert list(one["dataset_loss"]) == list(other["dataset_loss"])  # the datasets of the same rows
        np.testing.assert_allclose(list(one["dataset_loss"].values()), list(other["dataset_loss"].values()), rtol=2e-3)
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-3)
    for folder in ("alone", "moved"):
        saved = choosing.steps(tmp_path / folder)
        assert [stored.fault(tmp_path / folder, step) for step in saved] == [None] * len(saved)

"""One trainer at a time on a MODEL_DIR, which goes on from a step that is whole; one is killed, a real process."""

import json
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from flan_jax import configuration, models, partitioning
from flan_jax import train as train_binary
from flan_jax.checkpoint import arrays, choosing, stored
from flan_jax.training import optimizers
from flan_jax.training.state import abstract_state, state_shardings

pytestmark = pytest.mark.slow


def _arguments(folder, prepared, steps, *more):
    arguments = [
        "--gin_file=runs/tune.gin",
        f"--gin.MODEL_DIR={str(folder)!r}",
        f"--gin.PREPARED_DIR={str(prepared)!r}",
    ]
    arguments += [f"--gin.TRAIN_STEPS={steps}", "--gin.BATCH_SIZE=8", "--gin.CHECKPOINT_PERIOD=2"]
    arguments += ["--gin.MIXTURE_OR_TASK_NAME='sst2'", "--gin.MESH={'data': 2, 'fsdp': 4}", "--gin.LEARNING_RATE=1e-2"]
    return [*arguments, "--gin.TASK_FEATURE_LENGTHS={'inputs': 48, 'targets': 16}", *more]


def _refused(arguments, capsys):
    """Trains here, which is refused: in a line, which is returned."""
    with pytest.raises(SystemExit) as caught:
        train_binary.main(arguments)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("flan_jax:")]
    assert caught.value.code not in (0, None)
    return line


def _steps(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _state(folder):
    """The last checkpoint as numpy: (step, leaves of parameters and optimizer state)."""
    network, tx = models.build(configuration.model_config("tiny")), optimizers.adafactor(1e-2)
    abstract = abstract_state(network, tx)
    shardings = state_shardings(partitioning.make_mesh(devices=jax.devices()[:1]), network, tx)
    step, *trees = arrays.restore_training(
        folder, (abstract.params, abstract.opt_state), (shardings.params, shardings.opt_state)
    )
    return step, [np.asarray(leaf) for leaf in jax.tree.leaves(trees)]


def test_a_second_trainer_is_refused_and_a_killed_one_s_folder_taken_over(prepared, tmp_path, capsys):
    """kill -9 in mid-training: what goes on is bit for bit what a run left alone has."""
    folder, alone = tmp_path / "run", tmp_path / "alone"
    command = [sys.executable, "-m", "flan_jax.train", *_arguments(folder, prepared, 100_000)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while not choosing.steps(folder) and time.monotonic() < deadline and first.poll() is None:
            time.sleep(0.05)
        assert choosing.steps(folder)
        line = _refused(_arguments(folder, prepared, 100_000), capsys)
        assert f"is in use by training (process {first.pid} on " in line
        assert first.poll() is None
    finally:
        first.kill()
        assert first.wait() == -signal.SIGKILL
    reached = choosing.latest_step(folder)
    train_binary.main([*_arguments(folder, prepared, reached + 3), "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["step"] == reached + 3
    assert not [path.name for path in folder.iterdir() if "lock" in path.name]
    train_binary.main(_arguments(alone, prepared, reached + 3))
    (step, leaves), (step_alone, leaves_alone) = _state(folder), _state(alone)
    assert step == step_alone == reached + 3 and len(leaves) == len(leaves_alone) > 10
    for one, other in zip(leaves, leaves_alone, strict=True):
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes()
    assert [line["step"] for line in _steps(folder)] == list(range(1, reached + 4))
    assert [line["loss"] for line in _steps(folder)] == [line["loss"] for line in _steps(alone)]


def test_a_damaged_newest_step(prepared, tmp_path, capsys):
    folder = tmp_path / "run"
    train_binary.main(_arguments(folder, prepared, 6))
    before = _steps(folder)
    assert choosing.steps(folder) == [4, 6]
    largest = max((folder / "checkpoints" / "6").rglob("d/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    line = _refused(_arguments(folder, prepared, 6), capsys)  # it has nothing left to do, and is not well
    assert f"step 6 of {folder} is damaged: " in line
    line = _refused(_arguments(folder, prepared, 8), capsys)
    assert f"step 6 of {folder} is damaged: " in line
    assert "take step 4, which is whole: ON_DAMAGE='previous' goes on from it" in line
    train_binary.main(_arguments(folder, prepared, 8, "--gin.ON_DAMAGE='previous'"))
    said = capsys.readouterr().out
    assert f"step 6 of {folder} is damaged: " in said and "going on from step 4" in said
    again = _steps(folder)
    assert [one["step"] for one in again] == list(range(1, 9))
    assert [one["loss"] for one in again[:6]] == [one["loss"] for one in before]
    assert [stored.fault(folder, step) for step in choosing.steps(folder)] == [None, None]

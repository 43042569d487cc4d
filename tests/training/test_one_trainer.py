"""One trainer at a time on a MODEL_DIR, which goes on from a step that is whole; real processes."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from flan_jax.checkpoint import arrays, stored
from flan_jax.data import token_store
from flan_jax.data.vocabularies import ByteTokenizer

BYTES = ByteTokenizer()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    examples = []
    for number in range(40):
        answer = int(rng.integers(2))
        inputs, targets = BYTES.encode(["-+"[answer] + " word", ("negative", "positive")[answer]])
        examples.append(token_store.TokenizedExample(inputs, targets, 0, number))
    info = {"num_records": len(examples), "renderings": 1, "vocab_size": BYTES.vocab_size}
    token_store.write_dataset(token_store.folder_of(folder, BYTES.fingerprint) / "sst2", info, examples)
    return folder


def _command(folder, prepared, steps, *more):
    command = [sys.executable, "-m", "flan_jax.train", "--gin_file=runs/tune.gin", f"--gin.MODEL_DIR={str(folder)!r}"]
    command += [f"--gin.PREPARED_DIR={str(prepared)!r}", f"--gin.TRAIN_STEPS={steps}", "--gin.BATCH_SIZE=8"]
    command += ["--gin.MIXTURE_OR_TASK_NAME='sst2'", "--gin.CHECKPOINT_PERIOD=2"]
    return [*command, "--gin.TASK_FEATURE_LENGTHS={'inputs': 48, 'targets': 16}", *more]


def _run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_a_second_trainer_is_refused_and_a_dead_one_s_folder_taken_over(prepared, tmp_path):
    folder = tmp_path / "run"
    first = subprocess.Popen(_command(folder, prepared, 100_000), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not arrays.steps(folder) and time.monotonic() < deadline and first.poll() is None:
            time.sleep(0.2)
        assert arrays.steps(folder)
        second = _run(_command(folder, prepared, 100_000))
        assert second.returncode not in (0, None)
        (line,) = [line for line in second.stderr.splitlines() if line.startswith("flan_jax:")]
        assert f"is in use by training (process {first.pid} on " in line
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    reached = arrays.latest_step(folder)
    third = _run(_command(folder, prepared, reached + 2))
    assert third.returncode == 0, third.stderr[-2000:]
    assert arrays.latest_step(folder) == reached + 2
    assert not [path.name for path in folder.iterdir() if "lock" in path.name]


@pytest.mark.slow
def test_a_damaged_newest_step(prepared, tmp_path):
    folder = tmp_path / "run"
    assert _run(_command(folder, prepared, 6)).returncode == 0
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert arrays.steps(folder) == [4, 6]
    largest = max((folder / "checkpoints" / "6").rglob("d/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    refused = _run(_command(folder, prepared, 8))
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("flan_jax:")]
    assert refused.returncode != 0 and f"step 6 of {folder} is damaged: " in line
    assert "take step 4, which is whole: ON_DAMAGE='previous' goes on from it" in line
    done = _run(_command(folder, prepared, 8, "--gin.ON_DAMAGE='previous'"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"step 6 of {folder} is damaged: " in done.stdout and "going on from step 4" in done.stdout
    again = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [one["step"] for one in again] == list(range(1, 9))
    assert [one["loss"] for one in again[:6]] == [json.loads(line)["loss"] for line in lines]
    assert [stored.fault(folder, step) for step in arrays.steps(folder)] == [None, None]

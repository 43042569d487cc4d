"""A model converted, data prepared, the model tuned, killed and resumed, evaluated and reported, all under gs://."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from flan_jax import convert, files, prepare, report
from flan_jax.checkpoint import choosing
from flan_jax.training import loop

STEPS, PERIOD = 12, 3
LENGTHS = {"inputs": 192, "targets": 64}
_WITHOUT_TENSORFLOW = """
import sys
from flan_jax.{module} import main
main(sys.argv[1:])
assert "tensorflow" not in sys.modules
print("no TensorFlow")
"""


def _command(module, *arguments):
    return [sys.executable, "-c", _WITHOUT_TENSORFLOW.format(module=module), *arguments]


def _train(root, prepared):
    return _command(
        "train",
        "--gin_file=runs/tune.gin",
        f"--gin.MODEL_DIR='{root}/tuned'",
        f"--gin.PREPARED_DIR='{prepared}'",
        f"--gin.INITIAL_CHECKPOINT_PATH='{root}/model'",
        f"--gin.TRAIN_STEPS={STEPS}",
        f"--gin.CHECKPOINT_PERIOD={PERIOD}",
        "--gin.BATCH_SIZE=8",
        "--gin.LEARNING_RATE=1e-2",
        f"--gin.TASK_FEATURE_LENGTHS={LENGTHS}",
    )


def _quiet(main, *arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        main(arguments)


def _losses(folder):
    return {line["step"]: line["loss"] for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())}


@pytest.mark.slow
def test_everything_under_gs(bucket, server, tmp_path):
    root, run = files.user_path(bucket), {"check": True, "stdout": subprocess.PIPE, "text": True}
    prepared = root / "prepared"
    _quiet(convert.main, "--from=tiny", f"--to={root}/model", "--tuning=untuned")
    _quiet(prepare.main, "--datasets=rte,cb", f"--vocabulary={root}/model/vocabulary", f"--to={prepared}/")

    # ------------------------------------------------------------------------------------ killed, and resumed
    process = subprocess.Popen(_train(root, prepared), stdout=subprocess.DEVNULL)
    try:
        saved, deadline = root / "tuned" / "checkpoints" / str(PERIOD) / "commit_success.txt", time.monotonic() + 300
        while not saved.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    reached = choosing.latest_step(root / "tuned")
    assert PERIOD <= reached < STEPS and max(_losses(root / "tuned")) >= reached
    before = len(server.requests())
    done = subprocess.run(_train(root, prepared), **run)
    assert "no TensorFlow" in done.stdout
    ours = [line for line in server.requests()[before:] if "checkpoints" not in line]
    assert len(ours) < 90, "a start asks the storage little"  # the lock of MODEL_DIR asks for a third of that

    # -------------------------------------------------------------------- the same as on a disk, without a stop
    with contextlib.redirect_stdout(io.StringIO()):
        loop.train(
            model_dir=str(tmp_path / "tuned"),
            mixture="flan",
            prepared_dir=str(prepared),
            train_steps=STEPS,
            initial_checkpoint_path=str(root / "model"),
            batch_size=8,
            feature_lengths=LENGTHS,
            optimizer=loop.optimizers.adafactor(learning_rate=1e-2),
            checkpoint_period=STEPS,
        )
    assert _losses(root / "tuned") == _losses(tmp_path / "tuned") and list(_losses(root / "tuned")) == [*range(1, 13)]
    assert choosing.steps(root / "tuned") == [9, 12]
    there = {path.name for path in (root / "tuned").iterdir()}
    assert there == {path.name for path in (tmp_path / "tuned").iterdir()}
    assert len([path for path in (root / "tuned" / "tensorboard").iterdir() if path.name.startswith("events")]) == 2

    # ------------------------------------------------------------------------------------- evaluated, reported
    evaluate = _command(
        "eval",
        "--gin_file=runs/eval.gin",
        f"--gin.CHECKPOINT_PATH='{root}/tuned'",
        f"--gin.EVAL_OUTPUT_DIR='{root}/eval'",
        f"--gin.PREPARED_DIR='{prepared}'",
        "--gin.DATASETS=('rte',)",
        "--gin.MAX_EXAMPLES=2",
        "--gin.MAX_DEV_EXAMPLES=1",
        "--gin.GENERATE=False",
        "--allow_seen",
        "--json",
    )
    before = len(server.requests())
    done = subprocess.run(evaluate, **run)
    units = len(list((root / "eval" / "predictions" / "rte").iterdir()))
    ours = [line for line in server.requests()[before:] if "checkpoints" not in line]
    assert "no TensorFlow" in done.stdout and units == 16
    assert len(ours) < 35 + 6 * units, "an evaluation asks the storage little"
    results = json.loads((root / "eval" / "results.json").read_text())
    assert results["checkpoint"] == "tuned step 12" and np.isfinite(results["datasets"]["rte"]["mean"])
    _quiet(report.main, "--runs", f"tuned={root}/eval", f"--output={root}/report")
    assert (root / "report" / "report.html").is_file()
    assert not (root / "eval" / ".lock").exists()

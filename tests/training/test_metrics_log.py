"""The log of a run that goes on: lines after its checkpoint are taken off, however long it is."""

import json
import time

import pytest

from flan_jax.training.hooks import earlier
from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.metrics_log import MetricsLog


def _log(folder, first_step, steps):
    context, log = Context(None, folder, None, None, None, first_step), MetricsLog()
    log.start(context)
    for step in steps:
        log.after_step(context, step, {"loss": 1.0 / step, "dataset_loss": {"rte": 2.0}})
    log.end(context)


def _steps(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("block", [1, 7, 40, 1 << 16])
@pytest.mark.parametrize(
    "after", ["", '{"step": 99, "lo', '{"step": 99, "loss": 1}\n{"st', "\n", "[]\n", "nonsense\n{}\n"]
)
def test_lines_after_the_checkpoint_are_taken_off(tmp_path, monkeypatch, block, after):
    monkeypatch.setattr(earlier, "_BLOCK", block)
    _log(tmp_path, 0, range(1, 13))
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + after)
    _log(tmp_path, 12, [])
    assert path.read_text() == whole
    _log(tmp_path, 9, [10, 11])
    assert _steps(tmp_path) == [*range(1, 12)]
    _log(tmp_path, 0, [1])
    assert _steps(tmp_path) == [1]


def test_a_line_whose_end_is_missing_is_whole(tmp_path):
    _log(tmp_path, 0, [1, 2, 3])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().removesuffix("\n"))
    _log(tmp_path, 3, [4])
    assert _steps(tmp_path) == [1, 2, 3, 4]


def test_a_log_that_lacks_the_checkpoints_steps(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 8, "loss": 1}\n')
    _log(tmp_path, 5, [6])
    assert _steps(tmp_path) == [6]


def test_a_long_log_is_cut_at_once(tmp_path):
    """Ten million steps have a log of gigabytes; this one is a large file whose end alone is text."""
    path = tmp_path / "metrics.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 34)  # takes no room
        file.seek(1 << 34)
        file.write(b"\n")
        for step in range(10_000_000, 10_002_000):
            file.write(json.dumps({"step": step, "loss": 1.0}).encode() + b"\n")
    began = time.perf_counter()
    _log(tmp_path, 10_001_000, [10_001_001])
    assert time.perf_counter() - began < 2
    with path.open("rb") as file:
        file.seek(1 << 34)
        steps = [json.loads(line)["step"] for line in file if line.strip()]
    assert steps == [*range(10_000_000, 10_001_002)]

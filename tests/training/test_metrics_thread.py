"""A slow disk does not hold a step up, and a full one ends the run in one line, with nothing written after it."""

import json
import os
import time

import pytest

from flan_jax.errors import FlanError
from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.metrics_log import MetricsLog


class Disk:
    """A file whose disk is slow, or full after some lines, the last of them half-written."""

    def __init__(self, file, seconds=0.0, room=10**9):
        self.file, self.seconds, self.room = file, seconds, room

    def write(self, text):
        time.sleep(self.seconds)
        self.room -= 1
        if self.room == 0:
            self.file.write(text[: len(text) // 2])
            self.file.flush()
            raise OSError(os.strerror(28), "metrics.jsonl") from None
        self.file.write(text)

    def flush(self):
        self.file.flush()

    def close(self):
        self.file.close()


@pytest.fixture
def begun(tmp_path):
    """(a log on such a disk, its context, what reads the steps that are there)."""

    def begun(**disk):
        context, log = Context(None, tmp_path, None, None, None, 0), MetricsLog()
        log.start(context)
        log._file = Disk(log._file, **disk)
        return log, context

    return begun


def _lines(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_a_slow_disk_is_waited_for_at_a_save_alone(tmp_path, begun):
    log, context = begun(seconds=0.05)
    began = time.perf_counter()
    values = {"loss": 0.5}
    for step in range(1, 13):
        log.after_step(context, step, values)
        values["loss"] += 1.0  # what is written is what was there
    took = time.perf_counter() - began
    assert took < 0.3 and len(_lines(tmp_path)) < 12
    log.before_save(context, 12)
    assert [json.loads(line) for line in _lines(tmp_path)] == [{"step": s, "loss": s - 0.5} for s in range(1, 13)]
    log.after_step(context, 13, values)
    log.end(context)
    assert len(_lines(tmp_path)) == 13


def test_a_disk_that_stays_slow_holds_the_run_up_in_the_end(tmp_path, begun, monkeypatch):
    """The lines would fill the memory otherwise."""
    monkeypatch.setattr("flan_jax.training.hooks.metrics_log._MOST_WAITING", 2)
    log, context = begun(seconds=0.02)
    for step in range(1, 8):
        log.after_step(context, step, {"loss": 1.0})
        assert step - len(_lines(tmp_path)) <= 3
    log.end(context)


@pytest.mark.parametrize("when", ["step", "save", "end"])
def test_a_full_disk_ends_the_run_in_one_line(tmp_path, begun, when):
    log, context = begun(room=3)
    for step in (1, 2):
        log.after_step(context, step, {"loss": 1.0})
    with pytest.raises(FlanError, match=r"cannot write .*metrics\.jsonl: no space left on device") as ended:
        for step in range(3, 100 if when == "step" else 4):
            log.after_step(context, step, {"loss": 1.0})
            time.sleep(0.005)
        if when == "save":
            log.before_save(context, 3)
        log.end(context)
    assert "\n" not in str(ended.value)
    whole, half = _lines(tmp_path)[:2], _lines(tmp_path)[2:]
    assert (
        [json.loads(line)["step"] for line in whole] == [1, 2] and len(half) == 1 and half[0].startswith('{"step": 3')
    )
    if when != "end":
        log.end(context)  # closes what is left
        assert len(_lines(tmp_path)) == 3

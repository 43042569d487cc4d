"""A run that makes no step any more ends, with the stacks of its threads; a slow one does not."""

import os
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from flan_jax.errors import STALLED
from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.watchdog import Watchdog

RUN = types.SimpleNamespace(train_steps=99)
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_watchdog import RUN, Steps, Context, Watchdog

steps = Steps(Watchdog({limit}), Context(RUN, Path(sys.argv[1]), None, None, None, 0))
print("ready", flush=True)
steps.take({steps})
print("done", flush=True)
"""


HANGS = 60.0  # seconds; nothing waits for so long


class Steps:
    """What the loop does with a watchdog."""

    def __init__(self, dog, context):
        self.dog, self.context = dog, context
        dog.start(context)

    def take(self, *steps):
        for number, (seconds, hooks) in enumerate(steps, 1):
            self.passes(seconds)  # a step; the first of them compiles before it is handed over
            self.context.at(number, {}, None)
            self.dog.after_step(self.context, number, {"seconds": seconds + hooks})
            self.passes(hooks)
            self.dog.pauses(self.context, number + 1)
        self.dog.end(self.context)

    def passes(self, seconds):
        time.sleep(seconds)


class Tells(Watchdog):
    """Says what it would end, instead of ending the tests."""

    def __init__(self, seconds):
        super().__init__(seconds)
        self.said, self.ended = None, threading.Event()

    def _end_the_run(self, wait):
        self.said = self.said or (round(wait.limit, 3), wait.doing)
        self.ended.set()


class Counted(Steps):
    """By the watchdog's own clock, which goes slower than any other where the machine has too much to do."""

    def passes(self, seconds):
        before = time.monotonic()
        while self.dog._wait.seconds < seconds and time.monotonic() < before + HANGS:
            if self.dog.ended.wait(0.01) and seconds == HANGS:
                return


def _said(tmp_path, *steps):
    dog = Tells(0.5)
    Counted(dog, Context(RUN, tmp_path, None, None, None, 0)).take(*steps)
    return dog.said


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([(HANGS, 0)], (2.0, "compiling and running the first step")),
        ([(0, 0), (0.01, 0), (HANGS, 0)], (0.5, "waiting for step 3")),
        ([(0, 0), (0.01, HANGS)], (2.0, "in what happens after step 2: saving, evaluating, reading rows")),
    ],
)
def test_a_run_that_hangs(tmp_path, steps, said):
    assert _said(tmp_path, *steps) == said


@pytest.mark.parametrize(
    "steps",
    [
        [(1.0, 0), (0.01, 0)],  # compiles for longer than a step may take
        [(0, 0), (0.01, 1.0), (0.01, 0)],  # evaluates
        [(0, 0), (0.1, 0), (0.1, 0), (1.0, 0), (0.1, 0)],  # is slow for once, and its steps are never quick
    ],
)
def test_a_run_that_is_slow(tmp_path, steps):
    assert _said(tmp_path, *steps) is None


def _start(tmp_path, limit, steps):
    code = SCRIPT.format(tests=os.path.dirname(__file__), limit=limit, steps=steps)
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def test_its_end(tmp_path):
    process = _start(tmp_path, 1, f"(0, 0), (0.01, 0), ({HANGS}, 0)")
    out, said = process.communicate(timeout=50)
    assert process.returncode == STALLED not in (0, 1, 2, 75) and out == ""
    for text in (said, (tmp_path / "stacks.0.txt").read_text()):
        assert "no step for 1 s (NO_STEP_SECONDS 1), waiting for step 3" in text
        assert "in take" in text and "most recent call first" in text
    assert said.splitlines()[-1].endswith("goes on from the last checkpoint.")


def test_a_process_that_was_stopped_as_a_whole(tmp_path):
    """By Ctrl-Z, or with its machine."""
    process = _start(tmp_path, 2, "(0, 0), (0.01, 0), (0.8, 0)")
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3)
    os.kill(process.pid, signal.SIGCONT)
    assert process.communicate(timeout=50) == ("done\n", "") and not list(tmp_path.iterdir())

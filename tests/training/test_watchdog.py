"""A run that makes no step any more ends, with the stacks of its threads; a slow one does not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flan_jax.errors import STALLED

SCRIPT = """
import sys, time
from pathlib import Path
from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.watchdog import Watchdog

class Run:
    train_steps = 99

context = Context(Run(), Path(sys.argv[1]), None, None, None, 0)
dog = Watchdog({seconds})
dog.start(context)

def step(number, seconds, hooks=0.0):
    dog.pauses(context, number)
    sleeping_in_a_step(seconds)
    context.at(number, {{}}, None)
    dog.after_step(context, number, {{"seconds": seconds + hooks}})
    time.sleep(hooks)

def sleeping_in_a_step(seconds):
    time.sleep(seconds)

print("ready", flush=True)
{doing}
dog.end(context)
print("done", flush=True)
"""


def _start(tmp_path, seconds, doing):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(seconds=seconds, doing=doing), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


@pytest.mark.parametrize(
    ("seconds", "doing", "words"),
    [
        (1, "step(1, 0.1); step(2, 0.01); step(3, 60)", "no step for 1 s (NO_STEP_SECONDS 1), waiting for step 3"),
        (1, "step(1, 60)", "no step for 4 s (NO_STEP_SECONDS 1), compiling and running the first step"),
        (
            1,
            "step(1, 0.1); step(2, 0.1, hooks=60)",
            "no step for 4 s (NO_STEP_SECONDS 1), in what happens after step 2",
        ),
    ],
)
def test_a_run_that_hangs(tmp_path, seconds, doing, words):
    out, said = _start(tmp_path, seconds, doing).communicate(timeout=50)
    stacks = (tmp_path / "stacks.0.txt").read_text()
    assert "done" not in out
    for text in (said, stacks):
        assert words in text and "in step" in text and "most recent call first" in text
    last = said.splitlines()[-1]
    assert last.startswith("flan_jax: no step for") and last.endswith("goes on from the last checkpoint.")


def test_the_status_is_a_failure_of_its_own(tmp_path):
    process = _start(tmp_path / "no" / "such", 1, "step(1, 0.1); step(2, 60)")
    process.communicate(timeout=50)
    assert process.returncode == STALLED not in (0, 1, 2, 75)


@pytest.mark.parametrize(
    "doing",
    [
        "step(1, 2.5); step(2, 0.1)",  # compiles for longer than a step may take
        "step(1, 0.1); step(2, 0.1, hooks=2.5); step(3, 0.1)",  # evaluates
        "step(1, 0.1); step(2, 0.3); step(3, 0.3); step(4, 2.5); step(5, 0.1)",  # slow for once, and usually slow
        "time.sleep(2.5); step(1, 0.1)",  # waits for its data
    ],
)
def test_a_run_that_is_slow(tmp_path, doing):
    out, said = _start(tmp_path, 1, doing).communicate(timeout=50)
    assert (out, said) == ("done\n", "")


def test_a_process_that_was_stopped_as_a_whole(tmp_path):
    """By Ctrl-Z, or with its machine."""
    process = _start(tmp_path, 1, "step(1, 0.1); step(2, 0.1); step(3, 0.8)")
    time.sleep(0.4)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3)
    os.kill(process.pid, signal.SIGCONT)
    out, said = process.communicate(timeout=50)
    assert (out, said) == ("done\n", "") and not list(Path(tmp_path).iterdir())

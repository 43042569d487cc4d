"""Signals, heard by a program that does nothing else: who is told, when it ends, and with which status."""

import os
import signal
import subprocess
import sys
import time

import pytest

from flan_jax.errors import PREEMPTED
from flan_jax.training.notices import BROKEN_OFF

SCRIPT = """
import ctypes, os, signal, sys, time
from flan_jax.training import notices

with notices.listening() as listener:
    {training}
    print("ready", flush=True)
    {doing}
"""
# In C, which no signal interrupts and where Python's own handlers do not run, as in a compile: a lock taken twice.
DEEP = "c, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64); [c.pthread_mutex_lock(lock) for _ in range(2)]"
WAITS = "time.sleep(30)"
TRAINING = "listener.train({grace}, lambda: 7)"
TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


def _start(training="", doing=DEEP):
    code = f"import signal; signal.alarm(60)\n{SCRIPT.format(training=training, doing=doing)}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def _end(process, first, again=None):
    """Sends a signal, and another one until it ends: (status, seconds, what it said)."""
    began = time.monotonic()
    process.send_signal(first)
    while again is not None and process.poll() is None and time.monotonic() < began + 25:
        time.sleep(1.3)
        process.send_signal(again)
    said = process.communicate(timeout=25)[1]
    assert "Traceback" not in said and all(line.startswith("flan_jax: ") for line in said.splitlines()), said
    return process.returncode, time.monotonic() - began, said


@pytest.mark.parametrize("doing", [DEEP, WAITS])
@pytest.mark.parametrize(("sent", "status"), [(TERM, PREEMPTED), (HUP, PREEMPTED), (INT, BROKEN_OFF)])
def test_before_a_step_is_done_it_ends_at_once(sent, status, doing):
    found, seconds, said = _end(_start(doing=doing), sent)
    assert found == status and seconds < 10
    assert "stopped before a step was done" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("grace", "sent", "status", "words"),
    [
        (0, [TERM], PREEMPTED, "not done after 0 s (GRACE_SECONDS): stopped; the last checkpoint is of step 7"),
        (0.5, [TERM], PREEMPTED, "not done after 0.5 s"),
        (0.5, [HUP], PREEMPTED, "not done after 0.5 s"),
        (20, [TERM, TERM], PREEMPTED, "SIGTERM once more: stopped at once; the last checkpoint is of step 7"),
        (20, [TERM, INT], BROKEN_OFF, "Ctrl-C once more: stopped at once"),
        (0, [INT, INT], BROKEN_OFF, "once more ends at once, and then the last checkpoint is of step 7"),
    ],
)
def test_while_it_trains_it_is_asked_first(grace, sent, status, words):
    found, seconds, said = _end(_start(TRAINING.format(grace=grace)), *sent)
    assert found == status and seconds < 15
    assert words in said and said.count("\n") == 2


@pytest.mark.parametrize("sent", [[TERM, TERM], [INT, INT], [TERM, HUP], [INT, TERM]])
def test_what_a_launcher_passes_on_as_well_is_one_notice(sent):
    doing = "time.sleep(0.6); print(listener.asked.name, flush=True)"
    process = _start(TRAINING.format(grace=60), doing)
    for one in sent:
        process.send_signal(one)
        time.sleep(0.05)
    out, said = process.communicate(timeout=25)
    assert (process.returncode, out) == (0, f"{sent[0].name}\n") and said.count("\n") == 1


def test_hosts_of_a_pod_are_told_one_after_another():
    """A process that knows from another one is not ended by its own notice, some seconds later."""
    process = _start(TRAINING.format(grace=60), "listener.asks(); time.sleep(2); print('went on', flush=True)")
    time.sleep(1.3)
    process.send_signal(TERM)
    out, said = process.communicate(timeout=25)
    assert (process.returncode, out, said) == (0, "went on\n", "")


def test_what_is_ignored_stays_ignored():
    """As nohup and a shell's background have it."""
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)"
    code = ignore + SCRIPT.format(training="", doing="time.sleep(1)")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    for one in (HUP, INT):
        process.send_signal(one)
    assert process.wait(timeout=25) == 0


def test_a_signal_to_a_forked_child_is_none_to_its_parent():
    doing = (
        "__import__('warnings').simplefilter('ignore'); "  # Python 3.12 warns of a fork beside threads, which this is
        "child = os.fork() or time.sleep(30); os.kill(child, signal.SIGTERM); status = os.waitpid(child, 0)[1]; "
        "time.sleep(0.5); print(os.WTERMSIG(status), listener.asked, flush=True)"
    )
    process = _start(TRAINING.format(grace=60), doing)
    out, said = process.communicate(timeout=25)
    assert (out, said) == (f"{int(TERM)} None\n", "")


def test_what_is_to_be_called_at_the_end_is_called_but_not_waited_for():
    training = 'listener.at_the_end(lambda: os.write(1, b"given back\\n")); listener.at_the_end(lambda: time.sleep(60))'
    process = _start(training)
    process.send_signal(TERM)
    out, _ = process.communicate(timeout=25)
    assert process.returncode == PREEMPTED and out == "given back\n"


def test_afterwards_signals_are_as_before():
    from flan_jax.training import notices

    before = [signal.getsignal(one) for one in notices.SIGNALS]
    open_files = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with notices.listening() as listener, notices.listening_if_nobody_does() as same:
            assert same is listener and signal.getsignal(TERM) not in before
    assert [signal.getsignal(one) for one in notices.SIGNALS] == before
    assert len(os.listdir("/proc/self/fd")) == open_files

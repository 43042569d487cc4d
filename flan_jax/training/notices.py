"""Notices to end (SIGTERM, SIGHUP and Ctrl-C), heard at once whatever the program is doing.

Python runs a signal handler between two instructions of the main thread. Compiling, or waiting for a device, is one
long instruction. So the system writes signals to a pipe, and a thread reads them.

Until a step of this start is done, nothing can be lost, and the first notice ends the program. After that, the first
notice only asks, and the hook `preemption` ends the run with a checkpoint. A second notice, or the end of the grace
period, ends the program at once. An evaluation hears Ctrl-C in the same way, and ends after a unit.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flan_jax.errors import PREEMPTED, FlanError
from flan_jax.lazy import lazy_imports

with lazy_imports():  # a pod must be joined before JAX is asked for anything
    import jax

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
BROKEN_OFF = 128 + signal.SIGINT  # exit status after Ctrl-C, as in shells
# Seconds; launchers pass on signals that a process already has, so a repeat within this time is the same notice.
_SAME = 1.0
_NO_STEP = "stopped before a step was done; the same command begins there again"
_LAST_CALLS = 2.0  # seconds for the last calls at the end

# What JAX says if another process is gone.
_OTHERS = re.compile(r"[Gg]loo|[Cc]onnection (closed|reset)|UNAVAILABLE|[Cc]oordination|[Hh]eartbeat|Socket closed")

_listener: Listener | None = None


class Listener:
    """Listens to signals; see the module. There is one at a time, made in the main thread.

    Attributes:
      asked: the signal that asked the run to end, or None.
    """

    def __init__(self, signals: Sequence[signal.Signals], idle: str) -> None:
        self.asked: signal.Signals | None = None
        self._idle = idle
        self._was_told = False  # by a signal of its own, not by another process of the pod
        self._working = False
        self._does = ""  # what the first notice brings about
        self._unit_by_unit = False
        self._grace = float("inf")
        self._last_saved: Callable[[], int | None] = lambda: None
        self._last_calls: list[Callable[[], Any]] = []
        self._asked_at, self._deadline = 0.0, float("inf")
        self._of_jax: Any = None
        # Ignored signals stay ignored: nohup ignores SIGHUP, and a shell ignores SIGINT for background jobs.
        self._before = {one: signal.getsignal(one) for one in signals if signal.getsignal(one) != signal.SIG_IGN}
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for one in self._before:
            signal.signal(one, _to_the_pipe)
        self._thread = threading.Thread(target=self._listen, name="notices", daemon=True)
        self._thread.start()
        self._pid = os.getpid()
        # A signal to a forked child is not for us. Signals that arrive meanwhile wait until this is clear.
        os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._forget)

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """A block inside a joined pod.

        There JAX itself listens to SIGTERM, and this object passes other signals on to it.

        Raises:
          FlanError: another process of the pod is gone. If this one was told to end, it ends as it was told.
        """
        if not jax.distributed.is_initialized():
            yield
            return
        self._tell_jax()
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split())[:100]
            if self.asked is not None and not isinstance(error, FlanError):
                self._exit(f"another process of the pod ended first ({reason}); {self._saved()}.", PREEMPTED)
            if not isinstance(error, jax.errors.JaxRuntimeError) or not _OTHERS.search(str(error)):
                raise
            raise FlanError(f"another process of the pod is gone ({reason}); its own output says why.") from error

    def _tell_jax(self) -> None:
        if signal.SIGTERM not in self._before:
            return
        # Its handler is in C, where Python can neither see nor call it. It informs all processes of the pod.
        set_handler = ctypes.CDLL(None).signal
        set_handler.restype, set_handler.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
        address = set_handler(signal.SIGTERM, None)
        signal.signal(signal.SIGTERM, _to_the_pipe)
        if address and address not in (1, ctypes.c_void_p(-1).value):
            self._of_jax = ctypes.CFUNCTYPE(None, ctypes.c_int)(address)

    def train(self, grace: float, last_saved: Callable[[], int | None]) -> None:
        """From now on there is something to save: the first notice only asks.

        Args:
          grace: seconds from a notice to the end of the program; after Ctrl-C there is no limit.
          last_saved: returns the last step that is completely saved, or None.
        """
        self._grace, self._last_saved = grace, last_saved
        self._working, self._does = True, "the run saves a checkpoint and stops"

    @contextlib.contextmanager
    def finishing(self, does: str) -> Iterator[Callable[[], bool]]:
        """A block whose work is kept unit by unit. Without a limit of time, a notice lets it end between two of them.

        Args:
          does: what the first notice brings about: a sentence without its full stop.

        Yields:
          A function that says whether to end. Up to its first call nothing can be lost.
        """

        def ending() -> bool:
            self._working = True
            return self.asked is not None

        self._does, self._unit_by_unit = does, True
        try:
            yield ending
        finally:
            self._working = self._unit_by_unit = False

    def asks(self) -> None:
        """Another process of the pod was told to end; the grace period of this one begins."""
        if self.asked is None:
            self.asked, self._asked_at = signal.SIGTERM, time.monotonic()
            self._deadline = self._asked_at + self._grace
            os.write(self._pipe[1], b"\0")  # wakes the thread

    def at_the_end(self, call: Callable[[], Any]) -> None:
        """Registers a call for the case that the program ends at once, for example to release a lock.

        It gets little time.
        """
        self._last_calls.append(call)

    def close(self) -> None:
        """Restores the usual handling of signals."""
        if os.getpid() != self._pid:
            return
        for one, handler in self._before.items():
            if signal.getsignal(one) is _to_the_pipe:
                signal.signal(one, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._pipe[1], b"\xff")
        self._thread.join()
        for end in self._pipe:
            os.close(end)

    def _hold(self) -> None:
        if _listener is self:
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._before)

    def _release(self) -> None:
        if _listener is self:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _forget(self) -> None:
        if _listener is not self:
            return
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
            for one, handler in self._before.items():
                signal.signal(one, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    # ---------------------------------------------------------------------------------------------------- the thread

    def _listen(self) -> None:
        while True:
            left = self._deadline - time.monotonic()
            ready = select.select([self._pipe[0]], [], [], None if left == float("inf") else max(left, 0.0))[0]
            for number in os.read(self._pipe[0], 64) if ready else b"":
                if number == 0xFF:
                    return
                if number in list(self._before):
                    self._hear(signal.Signals(number))
            if time.monotonic() >= self._deadline:
                self._exit(f"not done after {self._grace:g} s (GRACE_SECONDS): stopped; {self._saved()}.", PREEMPTED)

    def _hear(self, one: signal.Signals) -> None:
        name = "Ctrl-C" if one == signal.SIGINT else one.name
        status = BROKEN_OFF if one == signal.SIGINT else PREEMPTED
        if not self._working:
            self._exit(f"{name}: {self._idle}.", status)
        if self.asked is not None and not self._was_told:  # the hosts of a pod get their notices one after another
            self._was_told, self._asked_at = True, time.monotonic()
        elif self.asked is None:
            self._was_told, self.asked, self._asked_at = True, one, time.monotonic()
            again = f"; once more ends at once, and then {self._saved()}"
            if one != signal.SIGINT:
                self._deadline = self._asked_at + self._grace
                again = f", at most {self._grace:g} s"
            _say(f"{name}: {self._does}{again}.")
            if self._of_jax is not None:
                self._of_jax(signal.SIGTERM)
        elif time.monotonic() > self._asked_at + _SAME and one != signal.SIGHUP:
            self._exit(f"{name} once more: stopped at once; {self._saved()}.", status)

    def _saved(self) -> str:
        if self._unit_by_unit:
            return "the same command goes on after what is done"
        found: list[int | None] = []
        # In a thread, so that a disk that hangs does not stop the program from ending.
        look = threading.Thread(target=lambda: found.append(self._last_saved()), daemon=True)
        with contextlib.suppress(RuntimeError):
            look.start()
            look.join(_LAST_CALLS)
        if not found:
            return "the same command goes on from the last checkpoint"
        if (step := found[0]) is None:
            return "no checkpoint is there, and the same command begins anew"
        return f"the last checkpoint is of step {step}, and the same command goes on from there"

    def _exit(self, line: str, status: int) -> None:
        """Ends the program as a kill would. Nothing is left that a later start could take for complete."""
        _say(line)
        calls = threading.Thread(target=lambda: [call() for call in self._last_calls], daemon=True)
        calls.start()
        calls.join(_LAST_CALLS)
        os._exit(status)


def _to_the_pipe(number: int, frame: Any) -> None:
    """Does nothing: the system has already written the signal to the pipe."""


def _say(line: str) -> None:
    cursor = b""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stderr.isatty():
            cursor = b"\x1b[?25h\r\x1b[K"  # a progress bar hides the cursor
    with contextlib.suppress(OSError):
        os.write(2, cursor + f"flan_jax: {line}\n".encode())


@contextlib.contextmanager
def listening(signals: Sequence[signal.Signals] = SIGNALS, idle: str = _NO_STEP) -> Iterator[Listener]:
    """A block in which these signals are heard. Programs use it around joining a pod, and training or evaluating.

    Args:
      signals: the signals.
      idle: what is said of a notice while there is nothing that could be lost: a sentence without its full stop.
    """
    global _listener
    if _listener is not None:
        yield _listener
        return
    _listener = made = Listener(signals, idle)
    try:
        yield made
    finally:
        _listener = None
        made.close()


@contextlib.contextmanager
def finishing(does: str) -> Iterator[Callable[[], bool]]:
    """`Listener.finishing` of the program's listener. If no program listens, nobody tells the work to end."""
    if _listener is None:
        yield lambda: False
        return
    with _listener.finishing(does) as ending:
        yield ending


@contextlib.contextmanager
def listening_if_nobody_does() -> Iterator[Listener | None]:
    """For training that Python code calls: SIGTERM is heard unless the caller handles it. Ctrl-C stays as it is."""
    main = threading.current_thread() is threading.main_thread()
    if _listener is not None or not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield _listener
        return
    with listening((signal.SIGTERM,)) as made, made.joined():
        yield made

"""A unit on TPU machines: started on all hosts, watched, shown, and started again after a preemption."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from flan_jax.errors import PREEMPTED, FlanError
from flan_jax.launch import gcloud, work
from flan_jax.launch.tpu_hosts import Hosts, Preempted, say

_STATUS = re.compile(r"FLAN-STATUS (\S+) (\d+) (running|lost|none|ended (\d+))\s*$", re.MULTILINE)
_LOG = re.compile(rb"FLAN-LOG (\S+) (.*)")
_QUIET = 0.7  # seconds without a line after which a log counts as read to its end
_SHOWN = 4000  # characters of a line


@dataclasses.dataclass(frozen=True)
class State:
    """What a host says of a unit.

    Attributes:
      attempt: the number of the last start; 0 for none.
      words: "running", "lost" (it ended without an exit status), "none" or "ended N".
      status: the exit status, if it has ended with one.
    """

    attempt: int
    words: str
    status: int | None = None

    @property
    def over(self) -> bool:
        """Whether nothing of it runs."""
        return self.words != "running"


class Job:
    """Runs units on machines.

    Args:
      hosts: the machines.
      restarts: how many restarts in a row may bring no progress.
      lasting: seconds of a run that count as progress where the output cannot be seen.
      logs: a folder for the logs of all hosts.
    """

    def __init__(self, hosts: Hosts, restarts: int, lasting: float, logs: Path) -> None:
        self.hosts, self.restarts, self.lasting, self.logs = hosts, restarts, lasting, logs
        self._attempt = 0
        self._started: float | None = None

    def run(self, unit: work.Unit) -> int:
        """Runs a unit to its end, with restarts.

        Returns:
          Its exit status; 75 also where restarts in a row brought no progress.

        Raises:
          FlanError: the machines cannot be had or reached.
        """
        counted = work.Restarts(self.restarts, self.lasting)
        counted.last = unit.progress()
        while True:
            self._started = None
            try:
                self.hosts.up()
                self.hosts.install()
                self.start(unit)
                status = self.follow(unit)
                why = f"it ended with status {status}"
            except Preempted as error:
                status, why = PREEMPTED, f"the machines are {error}"
            if not work.is_restarted(status):
                return status
            seconds = 0.0 if self._started is None else time.monotonic() - self._started
            if not counted.allows(unit.progress(), seconds):
                say(f"{unit.name}: {why}, and {self.restarts} restarts in a row brought no progress: given up.")
                return status
            say(f"{unit.name}: {why}; it is started again ({counted}).")

    def states(self, unit: work.Unit) -> dict[str, State]:
        """What every host says of a unit.

        Raises:
          Passing: not every host answers.
        """
        text = self.hosts.on_all(self.hosts.script("status", unit.name))
        found = {
            host: State(int(attempt), words, None if status is None else int(status))
            for host, attempt, words, status in (
                (m[1], m[2], m[3], m[4]) for m in (_STATUS.search(line) for line in text.splitlines()) if m
            )
        }
        if len(found) < self.hosts.count:
            first = sorted(found)[:3]
            told = f"{', '.join(first)}{' and others' if len(found) > len(first) else ''}" if first else "nobody"
            raise gcloud.Passing(
                f"{self.hosts.count - len(found)} of {self.hosts.count} hosts of {self.hosts.machines.name} "
                f"do not answer ({told} did); --patience says how long to wait for them."
            )
        return found

    def start(self, unit: work.Unit) -> None:
        """Starts a unit on all hosts, unless it runs on all, or has ended well on all.

        Raises:
          Preempted: the machines are lost.
          FlanError: it cannot be started.
        """
        states = self.hosts.reached(lambda: self.states(unit))
        attempts = {state.attempt for state in states.values()}
        whole = len(attempts) == 1 and (
            all(state.words == "running" for state in states.values())
            or all(state.status == 0 for state in states.values())
        )
        if not whole:
            if not all(state.over for state in states.values()):
                self.stop(unit)
            self._attempt = max(self._attempt, *attempts) + 1
            script = self.hosts.start_script(unit, self._attempt)
            say(f"{unit.name}: start {self._attempt} on {self.hosts.count} host{'s' * (self.hosts.count != 1)}")
            self.hosts.reached(lambda: self.hosts.on_all(script), stubborn=True)
        self._started = time.monotonic()

    def stop(self, unit: work.Unit) -> None:
        """Ends a unit on all hosts: by SIGTERM, and after the time to settle by SIGKILL."""
        script = self.hosts.script("stop", unit.name, str(max(1, round(self.hosts.timing.settle))))
        self.hosts.reached(lambda: self.hosts.on_all(script, timeout=self.hosts.timing.settle + 180), stubborn=True)

    def follow(self, unit: work.Unit) -> int:
        """Shows the logs of all hosts until a unit ends.

        Returns:
          Its exit status: 0 if that is so on all hosts, 75 if it is to be started again.

        Raises:
          Preempted: the machines are lost.
          FlanError: the hosts do not answer for too long.
        """
        timing = self.hosts.timing
        with _followed(self.hosts, unit, self.logs) as followers:
            ending: float | None = None
            cause: Mapping[str, State] = {}  # what had ended before we ended the others, who may save then
            while True:
                states = self.hosts.reached(lambda: self.states(unit))
                with suppress(gcloud.Passing):
                    if why := self.hosts.lost():
                        raise Preempted(why)
                if all(state.words == "none" for state in states.values()):
                    raise FlanError(f"{unit.name} was never started on {self.hosts.machines.name}.")
                bad = {host: state for host, state in states.items() if state.over and state.status != 0}
                if all(state.over for state in states.values()):
                    break
                if bad and ending is None:
                    ending = time.monotonic() + timing.settle
                    say(f"{unit.name}: {_told(bad)}; the others have {timing.settle:g} s to end.")
                if ending is not None and time.monotonic() > ending:
                    say(f"{unit.name}: stopping the others.")
                    cause = cause or bad
                    self.stop(unit)
                else:
                    time.sleep(timing.poll)
            for follower in followers:
                follower.drain()
        bad = cause or bad
        if not bad:
            return 0
        say(f"{unit.name}: {_told(bad)}.")
        self._settle()
        statuses = [PREEMPTED if state.status is None else state.status for state in bad.values()]
        return next((s for s in (PREEMPTED,) if s in statuses), None) or _cause(statuses)

    def _settle(self) -> None:
        """Waits in case that the end was the beginning of a preemption, which shows later.

        Raises:
          Preempted: it was.
        """
        end = time.monotonic() + self.hosts.timing.settle
        while True:
            with suppress(gcloud.Passing):
                if why := self.hosts.lost():
                    raise Preempted(why)
            if time.monotonic() > end:
                return
            time.sleep(min(self.hosts.timing.poll, max(0.0, end - time.monotonic())))


def _told(bad: Mapping[str, State]) -> str:
    first = sorted(bad)[:3]
    more = f" and {len(bad) - len(first)} more" if len(bad) > len(first) else ""
    told = [f"{host} {'was lost' if bad[host].status is None else bad[host].words}" for host in first]
    return ", ".join(told) + more


def _cause(statuses: list[int]) -> int:
    """Of several exit statuses that of the cause: an error rather than the signal that ended the others by it."""
    return min(statuses, key=lambda status: (status >= 128, status))


# --------------------------------------------------------------------------------------------------------------- logs


class _Follower:
    """Shows the logs of the hosts of one slice, and keeps them; comes back when the connection is lost."""

    def __init__(self, hosts: Hosts, unit: work.Unit, node: str, logs: Path) -> None:
        self._hosts, self._unit, self._node, self._logs = hosts, unit, node, logs
        self._lines: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()
        self._last = time.monotonic()
        self._keeps = True
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def drain(self, most: float = 10.0) -> None:
        """Waits until what was written is shown."""
        began = time.monotonic()
        self._last = began
        while time.monotonic() - self._last < _QUIET and time.monotonic() - began < most:
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it."""
        self._stopped.set()
        process = self._process
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        self._thread.join(timeout=5)

    def _follow(self) -> None:
        while not self._stopped.is_set():
            seen = [f"{host}={count}" for host, count in sorted(self._lines.items())]
            command = self._hosts.machines.ssh(self._node, self._hosts.script("follow", self._unit.name, *seen))
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError:
                return  # the watcher finds the same, and says it
            assert self._process.stdout is not None
            for line in self._process.stdout:
                if found := _LOG.search(line):
                    self._last = time.monotonic()
                    self._take(found[1].decode(errors="replace"), found[2])
                if self._stopped.is_set():
                    break
            self._process.wait()
            self._stopped.wait(self._hosts.timing.poll)

    def _take(self, host: str, line: bytes) -> None:
        self._lines[host] = self._lines.get(host, 0) + 1
        if self._keeps:
            try:
                self._logs.mkdir(parents=True, exist_ok=True)
                with open(self._logs / f"{self._unit.name}.{Path(host).name}.log", "ab") as kept:
                    kept.write(line + b"\n")
            except OSError as error:
                self._keeps = False
                say(f"the logs cannot be kept in {self._logs} ({error.strerror}); they are on the hosts, in flan/jobs.")
        text = "".join(c for c in line.decode(errors="replace") if c.isprintable() or c == "\t")
        with suppress(OSError, ValueError):  # whoever reads our output may have gone
            sys.stdout.write(f"[{host}] {text[:_SHOWN]}\n")
            sys.stdout.flush()


@contextmanager
def _followed(hosts: Hosts, unit: work.Unit, logs: Path) -> Iterator[list[_Follower]]:
    followers = [_Follower(hosts, unit, node, logs) for node in hosts.machines.nodes]
    try:
        yield followers
    finally:
        for follower in followers:
            follower.stop()

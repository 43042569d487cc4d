"""TPU machines as a whole: asked for, waited for, replaced when they are preempted, installed on, deleted."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import secrets
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import TypeVar

from flan_jax import files
from flan_jax.errors import FlanError
from flan_jax.launch import gcloud, work
from flan_jax.launch.tpu_package import EXTRAS, SCRIPT, Package

_CALL, _INSTALL = 180.0, 3600.0  # seconds that a call of gcloud, and an installation, may take
_TRIES = 4
IN_VAIN = 5  # requests in a row that fail before they give a machine
_Result = TypeVar("_Result")


class Preempted(Exception):
    """The machines are gone, or going."""


def say(line: str) -> None:
    """A line of the launcher's own, on standard error."""
    with contextlib.suppress(OSError, ValueError):  # whoever reads it may have gone; the machines have not
        print(f"tpu_vm: {line}", file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds.

    Attributes:
      poll: between two looks.
      patience: without an answer of gcloud or of hosts, before giving up.
      settle: in which a preemption may show after a program has ended.
      wait: for machines, before the request is deleted; None for no end.
    """

    poll: float = 20.0
    patience: float = 900.0
    settle: float = 60.0
    wait: float | None = None


def _new_token() -> str:
    return f"l{secrets.token_hex(6)}"


def fetched(paths: Sequence[str], to: str) -> list[Path]:
    """Where paths of the hosts come to lie here.

    Args:
      paths: on the first host.
      to: the folder here.

    Raises:
      FlanError: a path without a name of its own, or something of that name is here.
    """
    folder = files.user_path(to, "--to")
    if "://" in str(to):
        raise FlanError(f"--to={to}: files are fetched into a folder of this machine.")
    if folder.exists() and not folder.is_dir():
        raise FlanError(f"--to={to}: it is no folder; choose another.")
    found: list[Path] = []
    for path in paths:
        name = path.rstrip("/").rsplit("/", 1)[-1]
        if name in ("", ".", "..", "~"):
            raise FlanError(f"--fetch={path}: name a file or folder, as flan/jobs.")
        target = Path(folder) / name
        if target.exists() or target in found:
            raise FlanError(f"--fetch={path}: {target} is there already: move it, or choose another --to.")
        found.append(target)
    return found


class Hosts:
    """The machines of one launch.

    Args:
      machines: what is asked for.
      package: what is installed on them.
      timing: see `Timing`.

    Attributes:
      may_be_up: whether machines that this launcher is responsible for may cost money.
    """

    def __init__(self, machines: gcloud.Machines, package: Package, timing: Timing) -> None:
        self.machines, self.package, self.timing = machines, package, timing
        self.may_be_up = False
        self.count = 0  # hosts in all, known when they are up
        self._token = _new_token()
        self._installed = False
        self._in_vain = 0
        self._ending = threading.Event()

    # ------------------------------------------------------------------------------------------------ what runs there

    def script(self, *words: str) -> str:
        """The shell command that calls `host.sh` on a host."""
        return shlex.join(["bash", "flan/host.sh", *words])

    def start_script(self, unit: work.Unit, attempt: int) -> str:
        """The shell command that starts a unit."""
        return self.script("start", unit.name, str(attempt), *unit.argv)

    def install_commands(self) -> list[list[str]]:
        """What `install` runs, in order."""
        machines, wheel = self.machines, self.package.wheel
        copied = [str(wheel), str(self.package.lock), str(SCRIPT)]
        install = self.script("install", self.package.digest, wheel.name, EXTRAS)
        return [
            line
            for node in machines.nodes
            for line in (
                machines.ssh(node, "mkdir -p flan"),
                machines.copy_to(node, copied, "flan/"),
                machines.ssh(node, install),
            )
        ]

    def on_all(self, script: str, timeout: float = _CALL) -> str:
        """Runs a shell command on all hosts, and gives all that they print.

        Raises:
          Passing: no connection, or the like.
          FlanError: it failed on a host.
        """
        calls = [self.machines.ssh(node, script) for node in self.machines.nodes]
        return "\n".join(self._each([functools.partial(gcloud.call, command, timeout) for command in calls]))

    # ---------------------------------------------------------------------------------------------------- the machines

    def claim(self, attach: bool) -> None:
        """Makes sure that machines of this name are nobody else's.

        Args:
          attach: take over those that are there.

        Raises:
          FlanError: there are some, and they are not to be taken over.
        """
        found = self._asked(lambda: gcloud.request(self.machines, _CALL))
        if found.state == gcloud.GONE:
            return
        if not attach:
            raise FlanError(
                f"{self.machines.name} is there already ({found.state}), and another launcher may be at work: choose "
                f"another --name, take it over with --attach, or delete it: {shlex.join(self.machines.delete())}."
            )
        self._check_same(found)
        self._token, self.may_be_up = found.token, True

    def _check_same(self, found: gcloud.Request) -> None:
        """Makes sure that what is there is what the options say: other slices would look lost, and be deleted."""
        machines, there = self.machines, f"{self.machines.name} in {self.machines.zone}"
        if found.slices and found.slices != machines.slices:
            count = f"{found.slices} slice{'s' * (found.slices != 1)}"
            raise FlanError(f"{there} has {count}, not {machines.slices}: give --slices={found.slices}.")
        if found.accelerator and machines.accelerator and found.accelerator != machines.accelerator:
            kind = found.accelerator
            raise FlanError(f"{there} is of type {kind}, not {machines.accelerator}: give --type={kind}.")

    def attach(self) -> None:
        """Finds the machines that are there.

        Raises:
          FlanError: there are none, or they are not up.
        """
        found = self._asked(lambda: gcloud.request(self.machines, _CALL))
        if found.state != gcloud.ACTIVE:
            state = "there are none" if found.state == gcloud.GONE else f"they are {found.state}"
            raise FlanError(f"no machines {self.machines.name} are up in {self.machines.zone}: {state}.")
        self._check_same(found)
        self._token = found.token
        states = [self._asked(lambda node=node: self._node(node)) for node in self.machines.nodes]
        self.count = sum(count for _, count in states)

    def up(self) -> None:
        """Makes the machines if there are none, replaces lost ones, and waits until all are up.

        Raises:
          FlanError: they cannot be had, or not within the time that one wants to wait.
        """
        began = told = time.monotonic()
        last, unseen = "", False
        while True:
            found = self._asked(lambda: gcloud.request(self.machines, _CALL))
            state = found.state
            if state == gcloud.GONE:
                self._create()
            elif found.token != self._token:
                self.may_be_up = False
                raise FlanError(f"another launcher has made {self.machines.name} anew: this one leaves it to that.")
            elif state in gcloud.LOST:
                say(f"{self.machines.name} is {state}{f' ({found.reason})' if found.reason else ''}: made again.")
                self._in_vain += 1
                if self._in_vain > IN_VAIN:
                    self.delete()
                    reason = found.reason or "it does not say why"
                    raise FlanError(f"{IN_VAIN} requests in a row gave no machines ({state}: {reason}).")
                self.delete()
                continue
            elif state == gcloud.ACTIVE:
                states = [self._asked(lambda node=node: self._node(node)) for node in self.machines.nodes]
                if unseen != (unseen := any(s == gcloud.GONE for s, _ in states)) and unseen:
                    time.sleep(self.timing.poll)  # a node may come to be seen later than its request
                    continue
                lost = [s for s, _ in states if s in (*gcloud.NODE_LOST, gcloud.GONE)]
                if lost:
                    say(f"{self.machines.name} is {lost[0]}: made again.")
                    self.delete()
                    continue
                state = " ".join(sorted({s for s, _ in states}))
                if all(s == "READY" for s, _ in states):
                    self.count, self._in_vain = sum(count for _, count in states), 0
                    if last:
                        say(f"{self.machines.name} is up: {self.count} host{'s' * (self.count != 1)}.")
                    return
            now = time.monotonic()
            if state != last or now - told > 300:
                say(f"{self.machines.name}: {state}, {(now - began) / 60:.0f} min")
                last, told = state, now
            if self.timing.wait is not None and now - began > self.timing.wait:
                self.delete()
                raise FlanError(
                    f"no machines within {self.timing.wait / 3600:g} h: the request is deleted. Wait longer, or take "
                    "another zone or type."
                )
            time.sleep(self.timing.poll)

    def lost(self) -> str:
        """Why the machines are lost: a state; or "" while they are up.

        Raises:
          Passing: gcloud cannot say now.
        """
        found = gcloud.request(self.machines, _CALL)
        if found.state in (*gcloud.LOST, gcloud.GONE):
            return found.state
        for node in self.machines.nodes:
            state, _ = self._node(node)
            if state in (*gcloud.NODE_LOST, gcloud.GONE):
                return state
        return ""

    def _node(self, node: str) -> tuple[str, int]:
        return gcloud.node_hosts(self.machines, node, _CALL)

    def _create(self) -> None:
        self._installed = False
        self._token = self._token or _new_token()  # machines that were taken over may have had none
        self.may_be_up = True
        try:
            self._asked(lambda: gcloud.call(self.machines.create(self._token), _CALL))
        except FlanError as error:
            if not gcloud.is_taken(error):
                # What was refused is not there; of what got no answer nobody knows.
                self.may_be_up = isinstance(error, gcloud.Passing)
                raise
            # Ours, where a first call got through and its answer did not.
            if self._asked(lambda: gcloud.request(self.machines, _CALL)).token != self._token:
                self.may_be_up = False
                raise FlanError(
                    f"another launcher has just made {self.machines.name}: choose another --name."
                ) from error

    def delete_there(self) -> None:
        """Deletes machines that have to be there: of a wrong name or zone it would say that they are gone.

        Raises:
          FlanError: there are none, or they cannot be deleted.
        """
        if self._asked(lambda: gcloud.request(self.machines, _CALL)).state == gcloud.GONE:
            raise FlanError(
                f"there are no machines {self.machines.name} in {self.machines.zone}, so none is deleted: "
                "check --name, --zone and --project if there should be some."
            )
        self.delete()

    def delete(self) -> None:
        """Deletes the machines and waits until they are gone.

        Raises:
          FlanError: they cannot be deleted.
        """
        self._installed = False
        deadline = time.monotonic() + self.timing.patience
        while True:
            try:
                gcloud.call(self.machines.delete(), _INSTALL)
            except FlanError as error:
                if not gcloud.is_missing(error) and time.monotonic() > deadline:
                    raise FlanError(f"the machines cannot be deleted: {error}") from error
                if not gcloud.is_missing(error):
                    say(f"{error} Tried again.")
            if self._asked(lambda: gcloud.request(self.machines, _CALL)).state == gcloud.GONE:
                self.may_be_up = False
                say(f"{self.machines.name} is deleted.")
                return
            if time.monotonic() > deadline:
                raise FlanError(f"the machines {self.machines.name} are still there after their deletion.")
            time.sleep(self.timing.poll)

    # ---------------------------------------------------------------------------------------------------------- files

    def install(self) -> None:
        """Installs the package and the locked versions on every host, unless they are there.

        Raises:
          Preempted: the machines are lost.
          FlanError: it fails on a host, again and again.
        """
        if self._installed:
            return
        say(f"installing {self.package.wheel.name} on {self.count} host{'s' * (self.count != 1)}")
        commands = self.install_commands()
        each = [commands[start : start + 3] for start in range(0, len(commands), 3)]

        def on_node(lines: list[list[str]]) -> None:
            for line in lines:
                self.reached(functools.partial(gcloud.call, line, _INSTALL), stubborn=True)

        self._each([functools.partial(on_node, lines) for lines in each])
        self._installed = True

    def fetch(self, paths: Sequence[str], to: str) -> None:
        """Copies files or folders of the first host here, each whole or not at all.

        Raises:
          FlanError: something of that name is here, or it cannot be copied.
        """
        targets = fetched(paths, to)
        folder = files.make_folder(files.user_path(to, "--to"))
        for path, target in zip(paths, targets, strict=True):
            with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as partial:
                command = self.machines.copy_from(self.machines.nodes[0], path, partial)
                self._asked(functools.partial(gcloud.call, command, _INSTALL))
                found = list(Path(partial).iterdir())
                if len(found) != 1:
                    raise FlanError(f"{path} was not copied: check that it is on the first host.")
                shutil.move(found[0], target)
            say(f"{path} is in {target}")

    # ------------------------------------------------------------------------------------------------------- patience

    def reached(self, ask: Callable[[], _Result], stubborn: bool = False) -> _Result:
        """What hosts answer, asked again while they do not.

        Args:
          ask: asks them.
          stubborn: also when it fails for another reason than the connection.

        Raises:
          Preempted: they do not answer, and the machines are lost.
          FlanError: they do not answer for too long, or it failed several times.
        """
        deadline, failures = time.monotonic() + self.timing.patience, 0
        while not self._ending.is_set():
            try:
                return ask()
            except FlanError as error:
                passing = isinstance(error, gcloud.Passing)
                if why := self._lost_now():
                    raise Preempted(why) from error
                failures += not passing
                if (not passing and (not stubborn or failures >= _TRIES)) or time.monotonic() > deadline:
                    raise
                say(f"{error} Tried again.")
            self._ending.wait(self.timing.poll)
        raise FlanError("ended, since it failed elsewhere.")

    def _each(self, asked: Sequence[Callable[[], _Result]]) -> list[_Result]:
        """Does several things at a time. When one fails, or we are to end, the others end too."""
        pool = futures.ThreadPoolExecutor(min(16, len(asked)))
        try:
            return list(pool.map(lambda ask: ask(), asked))
        except BaseException:
            self._ending.set()
            gcloud.end_calls()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            self._ending.clear()

    def _lost_now(self) -> str:
        try:
            return self.lost()
        except gcloud.Passing:
            return ""

    def _asked(self, ask: Callable[[], _Result]) -> _Result:
        """What gcloud answers, asked again while the failure may pass: a launcher outlives its network."""
        deadline = time.monotonic() + self.timing.patience
        while True:
            try:
                return ask()
            except gcloud.Passing as error:
                if time.monotonic() > deadline:
                    raise
                say(f"{error} Tried again.")
            time.sleep(self.timing.poll)

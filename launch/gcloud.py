"""Google's command line for TPU machines: the commands, and what their answers mean.

Machines are asked for as a queued resource, whose request waits until there are some. A queued resource of several
slices has a node for each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

from flan_jax.errors import FlanError
from flan_jax.values import Unfit

SPOT, RESERVED, ON_DEMAND = "spot", "reserved", "on_demand"
LABEL = "flan-launch"  # on the machines: which launcher made them
ACTIVE = "ACTIVE"
# States of a queued resource (cloud.google.com/tpu/docs/queued-resources) and of a node of it.
COMING = ("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING")
LOST = ("FAILED", "SUSPENDING", "SUSPENDED", "DELETING")
NODE_LOST = ("PREEMPTED", "TERMINATED", "STOPPING", "STOPPED", "DELETING", "HIDING", "HIDDEN")
GONE = "GONE"  # ours: there is none of that name
_PASSING = re.compile(
    r"UNAVAILABLE|INTERNAL|DEADLINE_EXCEEDED|\b50[0234]\b|[Cc]onnection (reset|refused|timed out|closed)|timed out|"
    r"[Tt]emporary failure|[Nn]etwork is unreachable|SSL|kex_exchange|Max retries exceeded|NewConnectionError|"
    r"[Cc]urrently (unavailable|unable to connect)"
)
# Too many calls in a minute, which is no want of machines.
_TOO_OFTEN = re.compile(r"RATE_LIMIT|Quota exceeded for quota metric|\b429\b|[Tt]oo [Mm]any [Rr]equests|[Rr]ate.?limit")
# What gcloud adds to whatever a service says: who asked. It is no reason.
_WHO = re.compile(
    r" *This command is authenticated .*? (property|variable)\.?( Impersonation is used to impersonate \S+)?"
)
# What gcloud says of a call over ssh before and after the reason.
_ABOUT_SSH = re.compile(r"#####|(SSH|SCP): Attempting|Using (ssh|scp) batch size|.*\[\S*(ssh|scp)\S*\] exited with")
_KEY_CHANGED = re.compile(r"HOST IDENTIFICATION HAS CHANGED|[Hh]ost key verification failed")
_REMEDIES = (
    (r"Error parsing \[|\[project\]", "give --project=PROJECT, or gcloud config set project PROJECT"),
    (r"API .*(not enabled|has not been used|disabled)", "switch it on: gcloud services enable tpu.googleapis.com"),
    (r"active account|auth login|reauthentication|invalid_grant|credentials", "log in: gcloud auth login"),
    (r"RESOURCE_EXHAUSTED|[Qq]uota", "ask for more quota, or take another zone, type or --spot"),
    (r"[Ll]ocation .*(not found|unavailable|not exist)|[Zz]one .*(not|invalid)|denied on 'locations", "check --zone"),
    (r"PERMISSION_DENIED|not have permission|[Pp]roject .*(not found|not exist)", "check --project and your rights"),
)


_running: set[subprocess.Popen[bytes]] = set()


class Passing(FlanError):
    """Something that may work when it is tried again."""


class NameOfMachines:
    """What a queued resource and its nodes may be called, as a kind of `flan_jax.values`."""

    wanted = "up to 50 lower-case letters, digits and hyphens that begin with a letter, for example flan-1"

    def fit(self, value: str) -> str:
        """The value; raises Unfit."""
        if not isinstance(value, str) or not re.fullmatch(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", value):
            raise Unfit
        return value


# Flags of gcloud that the launchers give themselves, and on which they rely.
OWN_FLAGS = ("zone", "project", "quiet", "format", "async", "node-id", "node-count", "node-prefix", "accelerator-type")
OWN_FLAGS += ("runtime-version", "spot", "reserved", "worker", "command", "recurse", "type", "topology")


class FlagOfGcloud:
    """A flag that is handed on, as a kind of `flan_jax.values`."""

    wanted = "one flag of gcloud as a word, for example --network=NAME"

    def fit(self, value: str) -> str:
        """The value; raises Unfit."""
        found = re.fullmatch(r"--([a-z][a-z0-9-]*)(=.*)?", str(value))
        if not found:
            raise Unfit
        if found[1].removeprefix("no-") in OWN_FLAGS:
            raise Unfit("the launcher gives this flag itself; see its own options")
        return value


@dataclasses.dataclass(frozen=True)
class Machines:
    """What is asked for.

    Attributes:
      name: of the queued resource. Its node has the same; of several slices they are NAME-0, NAME-1, ...
      zone: where, for example "us-east5-b".
      accelerator: gcloud's accelerator type, for example "v5p-256".
      runtime: gcloud's runtime version, for example "v2-alpha-tpuv5".
      project: None takes gcloud's default.
      slices: how many, joined by the data-centre network.
      how: "spot", "reserved" or "on_demand".
      flags: further flags of `queued-resources create`.
      ssh_flags: further flags of `ssh` and `scp`, for example --internal-ip.
    """

    name: str
    zone: str
    accelerator: str = ""
    runtime: str = ""
    project: str | None = None
    slices: int = 1
    how: str = ON_DEMAND
    flags: tuple[str, ...] = ()
    ssh_flags: tuple[str, ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the slices."""
        return (self.name,) if self.slices == 1 else tuple(f"{self.name}-{n}" for n in range(self.slices))

    def _command(self, kind: str, verb: str, name: str, *more: str) -> list[str]:
        where = [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]
        return ["gcloud", "compute", "tpus", kind, verb, name, *where, "--quiet", *more]

    def create(self, token: str) -> list[str]:
        """Asks for the machines; `token` tells later whose they are."""
        nodes = ["--node-id=" + self.name]
        if self.slices > 1:
            nodes = [f"--node-count={self.slices}", f"--node-prefix={self.name}"]
        kind = [f"--accelerator-type={self.accelerator}", f"--runtime-version={self.runtime}"]
        how = {SPOT: ["--spot"], RESERVED: ["--reserved"], ON_DEMAND: []}[self.how]
        label = f"--labels={LABEL}={token}"
        more = (*kind, *nodes, *how, label, "--async", *self.flags)
        return self._command("queued-resources", "create", self.name, *more)

    def describe(self) -> list[str]:
        """Asks for the state of the request."""
        return self._command("queued-resources", "describe", self.name, "--format=json")

    def delete(self) -> list[str]:
        """Deletes the request and its machines."""
        return self._command("queued-resources", "delete", self.name, "--force")

    def describe_node(self, node: str) -> list[str]:
        """Asks for the state of one slice."""
        return self._command("tpu-vm", "describe", node, "--format=json")

    def ssh(self, node: str, script: str, worker: str = "all") -> list[str]:
        """Runs a script on the hosts of one slice."""
        return self._command("tpu-vm", "ssh", node, f"--worker={worker}", *self.ssh_flags, f"--command={script}")

    def copy_to(self, node: str, paths: Sequence[str], folder: str) -> list[str]:
        """Copies files to all hosts of one slice."""
        more = (*paths[1:], f"{node}:{folder}", "--worker=all", *self.ssh_flags)
        return _paths_first(self._command("tpu-vm", "scp", paths[0], *more))

    def copy_from(self, node: str, path: str, folder: str, worker: int = 0) -> list[str]:
        """Copies a file or folder of one host to this machine."""
        more = (folder, "--recurse", f"--worker={worker}", *self.ssh_flags)
        return _paths_first(self._command("tpu-vm", "scp", f"{node}:{path}", *more))


def _paths_first(command: list[str]) -> list[str]:
    options = [word for word in command[5:] if word.startswith("--")]
    return [*command[:5], *(word for word in command[5:] if not word.startswith("--")), *options]


def call(command: Sequence[str], timeout: float | None = None) -> str:
    """Runs a command of gcloud and gives what it prints.

    Raises:
      Passing: it failed in a way that may pass.
      FlanError: there is no gcloud, or it failed; the line has its own reason and the remedy.
    """
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    try:
        with subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=pipe, start_new_session=True) as process:
            _running.add(process)
            try:
                out, err = process.communicate(timeout=timeout)
            finally:
                _end(process)
                _running.discard(process)
    except FileNotFoundError as error:
        raise FlanError("there is no gcloud on PATH: install the Google Cloud CLI, then gcloud init.") from error
    except PermissionError as error:
        raise FlanError(f"{error.filename} cannot be run: check its permissions.") from error
    except subprocess.TimeoutExpired as error:
        raise Passing(f"gcloud {_words(command)} did not end within {timeout:g} s.") from error
    if process.returncode:
        raise failure(command, process.returncode, err.decode(errors="replace"))
    return out.decode(errors="replace")


def end_calls() -> None:
    """Ends the calls that run in other threads, so that nobody waits for them."""
    for process in list(_running):
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the ssh that it started


def _words(command: Sequence[str]) -> str:
    return " ".join(word for word in command[1:6] if not word.startswith("--"))


def failure(command: Sequence[str], status: int, errors: str) -> FlanError:
    """The one line of a command that failed."""
    lines = [_WHO.sub("", " ".join(line.split())) for line in errors.splitlines() if line.strip()]
    changed = any(map(_KEY_CHANGED.search, lines))
    lines = [line for line in lines if not _ABOUT_SSH.match(line)] or lines
    said = [line for line in lines if line.startswith(("ERROR", "Permission denied", "ssh:", "host.sh:"))] or lines[-1:]
    reason = re.sub(r"^ERROR: (\(gcloud[\w.-]*\) )?", "", said[-1])[:300].rstrip(".") if said else "it does not say why"
    text = " ".join(said)
    often = _TOO_OFTEN.search(text)
    remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, text)), None) if not often else None
    passing = often or (remedy is None and (status == 255 or _PASSING.search(text)))
    if changed:  # it may be mended while we try again
        remedy = "the host has another key than before: ssh-keygen -f ~/.ssh/google_compute_known_hosts -R HOST"
    line = f"gcloud {_words(command)} ended with exit status {status}: {reason}{f'; {remedy}' if remedy else ''}."
    return Passing(line) if passing else FlanError(line)


def is_missing(error: FlanError) -> bool:
    """Whether a failure says that there is nothing of that name."""
    return bool(
        re.search(r"(queuedResources|nodes)/.*(not found|does not exist)|Requested entity was not found", str(error))
    )


def is_taken(error: FlanError) -> bool:
    """Whether a failure says that there is something of that name already."""
    return bool(re.search(r"ALREADY_EXISTS|already exists", str(error)))


def _parsed(command: Sequence[str], text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        first = " ".join(text.split())[:80]
        raise Passing(f"gcloud {_words(command)} printed {first!r}, which is no JSON object; update gcloud.")
    return found


@dataclasses.dataclass(frozen=True)
class Request:
    """The state of a queued resource.

    Attributes:
      state: one of COMING, ACTIVE, LOST, or GONE.
      token: of the launcher that made it; "" if it has none.
      reason: why it failed, where it says so.
      slices: how many it asked for; 0 where that is not said.
      accelerator: its type; "" where that is not said.
    """

    state: str
    token: str = ""
    reason: str = ""
    slices: int = 0
    accelerator: str = ""


def request(machines: Machines, timeout: float) -> Request:
    """Asks for the state of the request.

    Raises:
      FlanError: gcloud cannot say.
    """
    command = machines.describe()
    try:
        found = _parsed(command, call(command, timeout))
    except FlanError as error:
        if is_missing(error):
            return Request(GONE)
        raise
    try:
        state = found["state"]
        specs = (found.get("tpu") or {}).get("nodeSpec") or []
        several = [spec.get("multisliceParams") or spec.get("multiNodeParams") or {} for spec in specs]
        slices = sum(int(params.get("nodeCount") or 1) for params in several)
        node = (specs[0].get("node") or {}) if specs else {}
        labels, accelerator = node.get("labels") or {}, str(node.get("acceleratorType") or "")
        failed = ((state.get("failedData") or {}).get("error") or {}).get("message") or ""
        if not isinstance(state["state"], str):
            raise TypeError
        reason = " ".join(str(failed).split())[:300]
        return Request(state["state"].upper(), str(labels.get(LABEL, "")), reason, slices, accelerator)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise Passing(f"gcloud {_words(command)} gave no state; update gcloud.") from error


def node_hosts(machines: Machines, node: str, timeout: float) -> tuple[str, int]:
    """The state of one slice, or GONE, and how many hosts it has."""
    command = machines.describe_node(node)
    try:
        found = _parsed(command, call(command, timeout))
    except FlanError as error:
        if is_missing(error):
            return GONE, 0
        raise
    endpoints = found.get("networkEndpoints")
    return str(found.get("state", "")).upper(), len(endpoints) if isinstance(endpoints, list) and endpoints else 1

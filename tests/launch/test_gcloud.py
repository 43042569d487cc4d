import json
import os
import stat
import time
from pathlib import Path

import pytest

from flan_jax.errors import FlanError
from flan_jax.launch import gcloud

MACHINES = gcloud.Machines("flan", "z", "v5p-8", "v2")
COMMAND = MACHINES.describe()
WHO = "This command is authenticated as a@b.c which is the active account specified by the [core/account] property."


@pytest.mark.parametrize(
    ("status", "errors", "passing", "says"),
    [
        (1, "ERROR: (gcloud.x) UNAVAILABLE: The service is unavailable.", True, "The service is unavailable"),
        (1, "ERROR: (gcloud.x) problem refreshing your tokens: Max retries exceeded with url: /token", True, "tokens"),
        (255, "x@y: Permission denied (publickey).", True, "publickey"),  # a new machine does not know the key yet
        (255, "", True, "it does not say why"),
        (1, "Warning: a\nERROR: (gcloud.x) RESOURCE_EXHAUSTED: Quota limit\nmore", False, "ask for more quota"),
        (1, "ERROR: (gcloud.x) invalid_grant: Bad Request", False, "gcloud auth login"),
        (1, "ERROR: (gcloud.x) PERMISSION_DENIED: x", False, "check --project"),
        (2, "ERROR: (gcloud.x) unrecognized arguments: --sopt", False, "--sopt"),
        (1, "ERROR: (gcloud.x) INVALID_ARGUMENT: " + "y" * 9999, False, "yyy"),
        (-9, "", False, "exit status -9"),
        # gcloud says who asked with whatever a service says, and lists details below.
        (1, f"ERROR: (gcloud.x) UNAVAILABLE: The service is unavailable. {WHO}\n- '@type': x", True, "is unavailable."),
        (1, f"ERROR: (gcloud.x) RESOURCE_EXHAUSTED: Quota limit. {WHO}", False, "ask for more quota"),
        (
            1,
            f"ERROR: (gcloud.x) PERMISSION_DENIED: x. {WHO} Impersonation is used to impersonate a@b",
            False,
            "x; check",
        ),
        (
            1,
            f"ERROR: (gcloud.x) RESOURCE_EXHAUSTED: Quota exceeded for quota metric 'Reads' per minute. {WHO}",
            True,
            "R",
        ),
        (1, "ERROR: (gcloud.x) HttpError accessing <https://x>: response: <{'status': '429'}>", True, "429"),
        (
            1,
            "ERROR: (gcloud.x) Error parsing [queued_resource].\nFailed to find attribute [project].",
            False,
            "--project=",
        ),
        (1, "ERROR: (gcloud.x) The required property [project] is not currently set.", False, "--project="),
        (
            1,
            f"ERROR: (gcloud.x) PERMISSION_DENIED: Cloud TPU API has not been used in project 1. {WHO}",
            False,
            "enable tpu",
        ),
        (
            1,
            "ERROR: (gcloud.x) This TPU is going through a maintenance event, and is currently unavailable.",
            True,
            "event",
        ),
        # Of a call over ssh the reason stands between lines about the call.
        (
            1,
            "SSH: Attempting to connect to worker 1...\nE: no space\n##### Command execution on worker 1 failed",
            False,
            "E: no",
        ),
        (
            255,
            "Permission denied (publickey).\nERROR: (gcloud.x) [/usr/bin/ssh] exited with return code [255].",
            True,
            "public",
        ),
        (
            255,
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            True,
            "ssh-keygen -f",
        ),
    ],
)
def test_failures_are_one_line_and_some_may_pass(status, errors, passing, says):
    found = gcloud.failure(COMMAND, status, errors)
    assert isinstance(found, gcloud.Passing) == passing and says in str(found)
    assert "authenticated" not in str(found) or WHO not in errors
    assert "\n" not in str(found) and len(str(found)) < 500
    assert str(found).startswith(f"gcloud {' '.join(COMMAND[1:6])} ended")


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """A gcloud that prints a text."""

    def of(text, status=0):
        path = tmp_path / "gcloud"
        (tmp_path / "text").write_text(text)
        path.write_text(f"#!/bin/sh\ncat {tmp_path}/text\ncat {tmp_path}/text >&2\nexit {status}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return of


STATELESS = ("ACTIVE", {"state": 6}, {}, None, [])


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "{}", "<html>", *(json.dumps({"state": state}) for state in STATELESS)]
)
def test_answers_that_say_nothing_may_be_better_next_time(answers, text):
    answers(text)
    with pytest.raises(gcloud.Passing):
        gcloud.request(MACHINES, 30)


def test_states_are_read(answers):
    answers(json.dumps({"state": {"state": "ACTIVE"}, "tpu": [1]}))
    with pytest.raises(gcloud.Passing):
        gcloud.request(MACHINES, 30)
    answers(json.dumps({"state": {"state": "ACTIVE"}, "tpu": {}}))
    assert gcloud.request(MACHINES, 30) == gcloud.Request("ACTIVE")
    answers("ERROR: (gcloud.x) NOT_FOUND: Resource 'projects/p/locations/z/queuedResources/flan' was not found", 1)
    assert gcloud.request(MACHINES, 30) == gcloud.Request(gcloud.GONE)
    answers("ERROR: (gcloud.x) NOT_FOUND: Project 'p' not found or deleted", 1)
    with pytest.raises(FlanError, match="check --project"):
        gcloud.request(MACHINES, 30)
    answers(json.dumps({"state": "READY", "networkEndpoints": [{}, {}, {}]}))
    assert gcloud.node_hosts(MACHINES, "flan", 30) == ("READY", 3)
    answers(json.dumps({"state": {"state": "active"}}))
    assert gcloud.request(MACHINES, 30).state == gcloud.ACTIVE
    answers(f"ERROR: (gcloud.x) NOT_FOUND: Resource 'p/queuedResources/flan' was not found. {WHO}\n- '@type': x", 1)
    assert gcloud.request(MACHINES, 30).state == gcloud.GONE


def test_a_call_that_hangs_is_ended(tmp_path, monkeypatch):
    (tmp_path / "gcloud").write_text(f"#!/bin/sh\nsleep 60 & echo $! > {tmp_path}/child\nwait\n")
    (tmp_path / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(gcloud.Passing, match="did not end within 1 s"):
        gcloud.call(COMMAND, 1)
    child = int((tmp_path / "child").read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(child, 0)
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                raise ProcessLookupError
            time.sleep(0.05)


@pytest.mark.parametrize("params", ["multisliceParams", "multiNodeParams"])
def test_slices_are_counted_however_they_were_asked_for(answers, params):
    node = {"acceleratorType": "v5p-8", "labels": {gcloud.LABEL: "t"}}
    for specs in (
        [{"nodeId": f"flan-{n}", "node": node} for n in range(3)],
        [{params: {"nodeCount": 3}, "node": node}],
    ):
        answers(json.dumps({"state": {"state": "ACTIVE"}, "tpu": {"nodeSpec": specs}}))
        assert gcloud.request(MACHINES, 30) == gcloud.Request("ACTIVE", "t", "", 3, "v5p-8")

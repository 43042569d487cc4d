"""The supervisor on a TPU host, as it is, in a home folder of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from flan_jax.launch import tpu_package


@pytest.fixture
def host(tmp_path):
    """Calls the supervisor: exit status, output, errors."""
    (tmp_path / "flan/venv/bin").mkdir(parents=True)
    (tmp_path / "flan/venv/bin/python").symlink_to(sys.executable)

    def call(*words):
        env = {**os.environ, "HOME": str(tmp_path)}
        command = ["bash", str(tpu_package.SCRIPT), *words]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, done.stdout, done.stderr

    call.job = tmp_path / "flan/jobs/u"
    yield call
    for name in ("program", "pid"):
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((call.job / name).read_text()), signal.SIGKILL)


def state(host):
    return host("status", "u")[1].split(maxsplit=2)[2].strip()


def wait_for(host, wanted):
    end = time.monotonic() + 20
    while (found := state(host)) != wanted:
        assert time.monotonic() < end, found
        time.sleep(0.05)


def test_a_program_outlives_the_call_and_leaves_its_status(host):
    assert state(host) == "0 none"
    code = "import sys, time; print(sys.argv[1:], flush=True); time.sleep(0.5); sys.exit(75)"
    assert host("start", "u", "1", "-c", code, "it's", "a b\n$c")[0] == 0
    assert state(host) == "1 running"
    assert host("start", "u", "1", "-c", "raise SystemExit('a second time')")[0] == 0
    wait_for(host, "1 ended 75")
    assert host("start", "u", "1", "-c", "raise SystemExit('a third time')")[0] == 0
    assert (host.job / "log").read_text() == repr(["it's", "a b\n$c"]) + "\n"
    assert host("start", "u", "2", "-c", "print('again')")[0] == 0
    wait_for(host, "2 ended 0")
    assert (host.job / "log").read_text().endswith("again\n")


def test_an_attempt_does_not_start_beside_another(host):
    assert host("start", "u", "1", "-c", "import time; time.sleep(60)")[0] == 0
    status, _, errors = host("start", "u", "2", "-c", "pass")
    assert status == 4 and "attempt 1 still runs" in errors


def test_a_program_that_does_not_end_is_killed(host):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    )
    assert host("start", "u", "1", "-c", stubborn)[0] == 0
    while "on" not in (host.job / "log").read_text():
        time.sleep(0.05)
    assert host("stop", "u", "1")[0] == 0 and state(host) == "1 ended 137"
    assert host("stop", "u", "1")[0] == 0


def test_a_program_that_was_lost_is_told_from_one_that_runs(host):
    assert host("start", "u", "1", "-c", "import time; time.sleep(60)")[0] == 0
    program = int((host.job / "program").read_text())
    os.kill(int((host.job / "pid").read_text()), signal.SIGKILL)
    os.kill(program, signal.SIGKILL)
    wait_for(host, "1 lost")
    # After the host was started again, the number may be that of another process.
    with subprocess.Popen(["sleep", "60"]) as other:
        (host.job / "pid").write_text(str(other.pid))
        assert state(host) == "1 running"
        (host.job / "boot").write_text("another")
        assert state(host) == "1 lost"
        other.kill()


def test_half_an_installation_is_none(host, tmp_path):
    (tmp_path / "flan/venv/installed").write_text("digest\n")
    assert host("install", "digest", "no.whl", "tpu")[0] == 0
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "python3.11").write_text("#!/bin/sh\nexit 1\n")
    (fake / "python3.11").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{fake}:{os.environ['PATH']}")
        assert host("install", "newer", "no.whl", "tpu")[0] != 0
    assert not (tmp_path / "flan/venv/installed").exists()

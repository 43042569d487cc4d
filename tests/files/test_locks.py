"""Locks, on a disk and on object storage."""

import os
import subprocess
import sys
import threading
import time

import pytest

from flan_jax import files
from flan_jax.errors import FlanError
from flan_jax.files import locks


@pytest.fixture(params=["disk", "gs"])
def place(request, tmp_path):
    """Where a lock lies."""
    if request.param == "disk":
        yield tmp_path / "deep" / ".lock"
    else:
        yield files.user_path(request.getfixturevalue("bucket")) / ".lock"


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(locks, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.6)


def test_one_at_a_time(place):
    inside, most, waited = 0, 0, []

    def work():
        nonlocal inside, most
        with files.alone(place, waited.append):
            inside += 1
            most = max(most, inside)
            time.sleep(0.1)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and len(waited) >= 3


def test_an_error_frees_it(place):
    with pytest.raises(KeyError), files.alone(place):
        raise KeyError
    with files.alone(place, pytest.fail):
        pass


def test_dead_holder_is_taken_over(bucket):
    place = files.user_path(bucket) / ".lock"
    files.write_atomic(place, '{"host": "gone", "pid": 7, "token": "x"}')
    waited = []
    with files.alone(place, waited.append):
        pass
    assert [str(holder) for holder in waited] == ["process 7 on gone"]
    assert not place.exists()


@pytest.mark.parametrize("left", ["", "{", "[]", '{"host": 1}'])
def test_odd_content_is_taken_over_too(bucket, left):
    place = files.user_path(bucket) / ".lock"
    files.write_atomic(place, left)
    with files.alone(place):
        pass
    assert not place.exists()


def test_living_holder_is_not_taken_over(bucket):
    place, order = files.user_path(bucket) / ".lock", []

    def hold():
        with files.alone(place):
            order.append("first")
            time.sleep(1.5)  # longer than a dead one's lock stays
            order.append("first ends")

    thread = threading.Thread(target=hold)
    thread.start()
    while not order:
        time.sleep(0.01)
    with files.alone(place):
        order.append("second")
    thread.join()
    assert order == ["first", "first ends", "second"]


def test_who_was_cut_off_says_so(bucket):
    place = files.user_path(bucket) / ".lock"
    with pytest.raises(FlanError, match="was lost to another process, since this one was cut off"), files.alone(place):
        files.write_atomic(place, '{"host": "other", "pid": 1, "token": "theirs"}')
        time.sleep(0.3)
    assert "theirs" in place.read_text()  # which is not ours to remove


@pytest.mark.slow
def test_kill_9_frees_it_on_a_disk(tmp_path):
    code = (
        "import sys, time; from flan_jax import files\n"
        "with files.alone(files.user_path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, env=os.environ, text=True
    )
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    with files.alone(tmp_path / "lock", pytest.fail):
        pass

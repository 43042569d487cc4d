import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flan_jax.checkpoint import lock
from flan_jax.errors import FlanError, StorageError

HOLD = """
import sys, time
from pathlib import Path
from flan_jax.checkpoint import lock
lock.BEAT, lock.SILENCE, lock.WATCHED, lock._LOOK = 0.1, 1.0, 0.5, 0.05
with lock.held(Path(sys.argv[1]), "training") as it:
    print("held", flush=True)
    for line in sys.stdin:
        try:
            it.check()
            print("mine", flush=True)
        except Exception as error:
            print(error, flush=True)
"""


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    for name, seconds in (("BEAT", 0.1), ("SILENCE", 1.0), ("WATCHED", 0.5), ("_LOOK", 0.05)):
        monkeypatch.setattr(lock, name, seconds)


@pytest.fixture
def faster(monkeypatch, fast):
    """Where nobody is alive whose signs of life could come late."""
    for name, seconds in (("SILENCE", 0.15), ("WATCHED", 0.1), ("_LOOK", 0.02)):
        monkeypatch.setattr(lock, name, seconds)


@contextlib.contextmanager
def _holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _ask(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def _files(folder):
    return sorted(path.name for path in folder.iterdir())


def _elsewhere(folder, **changed):
    """The file of a holder on another machine."""
    record = dataclasses.replace(lock._Record.own("training"), machine="another", host="vm-7", state="holding")
    path = folder / "lock-0123456789ab.json"
    lock._write(path, record)
    if changed:
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return path


@contextlib.contextmanager
def _beating(path):
    """A heartbeat of another machine."""
    end = threading.Event()

    def beat():
        number = 0
        while not end.wait(0.05):
            number += 1
            lock.write_atomic(path, json.dumps(json.loads(path.read_text()) | {"beat": float(number)}))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_held_and_given_back(tmp_path):
    folder = tmp_path / "new" / "model"
    with lock.held(folder, "training") as it:
        it.check()
        (name,) = _files(folder)
        record = json.loads((folder / name).read_text())
        assert record["what"] == "training" and record["pid"] == os.getpid() and record["state"] == "holding"
        first = record["beat"]
        time.sleep(0.3)
        assert json.loads((folder / name).read_text())["beat"] > first
        (folder / "config.gin").write_text("")
    assert _files(folder) == ["config.gin"]
    with pytest.raises(KeyError), lock.held(folder, "training"):
        raise KeyError
    assert _files(folder) == ["config.gin"]
    with lock.held(folder, "training"):
        pass


def test_a_folder_of_which_nothing_came_is_removed(tmp_path):
    with lock.held(tmp_path / "model", "training"):
        pass
    assert _files(tmp_path) == []


def test_the_second_is_refused_by_name(tmp_path):
    with _holder(tmp_path) as process:
        began = time.monotonic()
        with pytest.raises(FlanError) as caught, lock.held(tmp_path, "training"):
            raise AssertionError
        assert time.monotonic() - began < 1
        text = str(caught.value)
        assert "\n" not in text and str(tmp_path) in text
        assert f"is in use by training (process {process.pid} on " in text and "end it, or give another" in text
        assert _ask(process) == "mine"
    with lock.held(tmp_path, "training") as it:  # it was killed
        it.check()
        assert len(_files(tmp_path)) == 1


def test_the_same_process_a_second_time(tmp_path):
    refused = pytest.raises(FlanError, match="which is this very process")
    with lock.held(tmp_path, "training"), refused, lock.held(tmp_path, "training"):
        raise AssertionError


def test_a_stopped_holder_on_this_machine_is_not_dead(tmp_path):
    with _holder(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)  # beyond the silence of another machine's
        with pytest.raises(FlanError, match=f"which is stopped: kill -CONT {process.pid}"):
            lock.held(tmp_path, "training").__enter__()
        process.send_signal(signal.SIGCONT)
        assert _ask(process) == "mine"


def test_a_holder_that_was_suspended_notices(tmp_path, monkeypatch):
    with _holder(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(lock, "_machine", lambda: "another")  # as a second machine sees it
        with lock.held(tmp_path, "training") as mine:
            process.send_signal(signal.SIGCONT)
            said = _ask(process)
            assert "is no longer held by this process" in said and "nothing more is saved" in said
            assert f"taken over by training (process {os.getpid()} on" in said
            time.sleep(0.3)
            mine.check()
            assert len(_files(tmp_path)) == 1


@pytest.mark.usefixtures("faster")
def test_a_holder_that_woke_and_wrote_does_not_disturb(tmp_path):
    path = _elsewhere(tmp_path)
    text = path.read_text()
    with lock.held(tmp_path, "training") as mine:
        assert not path.exists()
        path.write_text(text)
        mine.check()
        assert not path.exists()


def test_a_removed_file_is_noticed(tmp_path):
    with lock.held(tmp_path, "training") as mine:
        (tmp_path / _files(tmp_path)[0]).unlink()
        with pytest.raises(FlanError, match="was removed, by another run or by hand; nothing more is saved"):
            mine.check()
        time.sleep(0.3)
        assert _files(tmp_path) == []  # and it does not come back


def test_a_zombie_is_dead(tmp_path):
    code = HOLD.split("    for line")[0] + "    __import__('os').kill(__import__('os').getpid(), 9)\n"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    process.stdout.read()  # until it is gone; nobody has waited for it
    while lock._process(process.pid)[0] != "Z":
        time.sleep(0.01)
    assert len(_files(tmp_path)) == 1
    with lock.held(tmp_path, "training"):
        pass
    process.wait()
    process.stdout.close()


def test_a_pid_that_was_given_again(tmp_path):
    own = lock._Record.own("training")
    lock._write(tmp_path / "lock-1.json", dataclasses.replace(own, state="holding", started=own.started - 1))
    with lock.held(tmp_path, "training"):
        assert len(_files(tmp_path)) == 1


def test_the_pid_of_another_user(tmp_path, monkeypatch):
    """Neither a signal is allowed, nor is /proc to be seen."""

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(lock, "_process", lambda pid: None)
    lock._write(tmp_path / "lock-1.json", dataclasses.replace(lock._Record.own("x"), state="holding", started=None))
    with pytest.raises(FlanError, match="is in use by x"):
        lock.held(tmp_path, "training").__enter__()


@pytest.mark.parametrize("host", ["vm-7", os.uname().nodename])
def test_a_living_holder_on_another_machine(tmp_path, host):
    """Also one that has the same name."""
    path = _elsewhere(tmp_path, host=host)
    with _beating(path), pytest.raises(FlanError, match=rf"in use by training \(process {os.getpid()} on {host}"):
        lock.held(tmp_path, "training").__enter__()
    assert _files(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("ahead", "least", "most"), [(0, 0.8, 2), (-0.4, 0.5, 2), (-86400, 0.5, 0.9), (86400, 1, 2), (1e30, 1, 2)]
)
def test_a_silent_holder_on_another_machine(tmp_path, ahead, least, most):
    """Its clock may be wrong: it is always watched for a while, and never longer than its silence."""
    _elsewhere(tmp_path, beat=time.time() + ahead)
    began = time.monotonic()
    with lock.held(tmp_path, "training"):
        assert least <= time.monotonic() - began <= most and len(_files(tmp_path)) == 1


GARBAGE = {
    "empty": b"",
    "binary": b"\xff\x00\x80" * 50,
    "half": b'{"what": "train',
    "list": b"[]",
    "deep": b"[" * 60_000,
    "another file": b'{"a": 1}',
    "long": b"x" * 10_000_000,
}
ODD = {
    "pid 0": {"pid": 0},
    "pid -1": {"pid": -1},
    "large pid": {"pid": 2**40},
    "pid of text": {"pid": "1"},
    "pid true": {"pid": True},
    "no state": {"state": "?"},
    "beat nothing": {"beat": None},
    "host a list": {"host": []},
    "more": {"colour": 1},
}


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_watched_and_taken_over(tmp_path, garbage):
    (tmp_path / "lock-1.json").write_bytes(GARBAGE[garbage])
    with lock.held(tmp_path, "training"):
        assert len(_files(tmp_path)) == 1


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_record_is_no_record(odd):
    text = json.dumps(dataclasses.asdict(lock._Record.own("training")))
    assert lock._Record.parse(text) is not None
    assert lock._Record.parse(json.dumps(json.loads(text) | ODD[odd])) is None


@pytest.mark.usefixtures("faster")
def test_a_folder_in_place_of_the_file(tmp_path):
    (tmp_path / "lock-1.json").mkdir()
    with lock.held(tmp_path, "training") as mine:
        mine.check()


@pytest.mark.usefixtures("faster")
def test_what_a_killed_writer_left_is_removed(tmp_path):
    path = _elsewhere(tmp_path)
    (tmp_path / f".{path.name}.4711").write_text("half")
    (tmp_path / "lock.json").write_text("the user's own")
    with lock.held(tmp_path, "training"):
        pass
    assert _files(tmp_path) == ["lock.json"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FlanError, match="is no folder; choose another path"):
        lock.held(tmp_path / "file" / "model", "training").__enter__()
    if os.getuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(FlanError, match="permission denied; choose a place that you may write to"):
            lock.held(tmp_path / "closed", "training").__enter__()
    if Path("/proc/self").exists():
        with pytest.raises(FlanError) as caught:
            lock.held(Path("/proc/self/fd"), "training").__enter__()
        assert "\n" not in str(caught.value)


def test_a_slow_disk_is_no_suspension(tmp_path, monkeypatch):
    """What is written takes longer than half the silence; the process runs meanwhile."""
    plain, done = lock._write, []

    def slow(path, record):
        time.sleep(0.7)
        plain(path, record)
        done.append(path)

    with lock.held(tmp_path, "training") as mine:
        monkeypatch.setattr(lock, "_write", slow)
        while len(done) < 2:
            time.sleep(0.05)
        mine.check()
        other = _elsewhere(tmp_path)  # holds it now
        while mine._lost is None:
            time.sleep(0.05)
        with pytest.raises(FlanError, match="it was taken over by"):
            mine.check()
        other.unlink()


def test_a_full_disk_of_the_holder_is_no_end(tmp_path, monkeypatch):
    with lock.held(tmp_path, "training") as mine:

        def full(*_):
            raise FlanError("no space left on device")

        monkeypatch.setattr(lock, "write_atomic", full)
        time.sleep(0.3)
        mine.check()
        monkeypatch.undo()
        assert mine._thread.is_alive()


def test_an_outage_of_the_storage_is_no_end(tmp_path, monkeypatch):
    """The thread that gives signs of life goes on, and neither a save nor the end fails by it."""

    def away(*_, **__):
        raise StorageError("cannot list gs://bucket/run: the storage cannot be reached.")

    with lock.held(tmp_path, "training") as mine:
        for name in ("_there", "write_atomic"):
            with monkeypatch.context() as patched:
                patched.setattr(lock, name, away)
                time.sleep(0.3)
                mine.check()
            assert mine._thread.is_alive()
        monkeypatch.setattr(type(mine._path), "unlink", away)
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1  # another run sees that its process is gone


def test_a_forked_child_does_not_give_it_back(tmp_path):
    code = f"""
import os, sys
from pathlib import Path
from flan_jax.checkpoint import lock
with lock.held(Path({str(tmp_path)!r}), "training") as it:
    if (child := os.fork()) == 0:
        it.release()  # as leaving the block does
        os._exit(0)
    os.waitpid(child, 0)
    it.check()
    print(len(os.listdir({str(tmp_path)!r})))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
    assert _files(tmp_path) == []


RACE = """
import os, sys, time
from pathlib import Path
from flan_jax.checkpoint import lock
folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
lock.BEAT, lock.SILENCE, lock.WATCHED, lock._LOOK = 0.1, 1.0, 0.5, 0.05
lock._machine()


def note(number, how):
    descriptor = os.open(folder / f"{number}.{how}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b"x")


def ended(number):
    return sum(path.stat().st_size for path in folder.glob(f"{number}.*"))


for number in range(rounds):
    place = folder / str(number)
    if sys.argv[3] == "dead":  # whose folder both take over
        place.mkdir()
        dead = lock.dataclasses.replace(lock._Record.own("training"), state="holding", started=0)
        lock._write(place / "lock-dead.json", dead)
    start = time.time() + 0.02
    for _ in range(3):
        if os.fork() == 0:
            try:
                while time.time() < start:
                    pass
                taken = lock._take(place, "training")
                note(number, "won")
                while ended(number) < 3:  # the others have to find it held
                    time.sleep(0.005)
                taken.release()
            except lock.FlanError as error:
                note(number, "lost" if "is in use by" in str(error) else repr(error))
            except BaseException as error:
                print(repr(error), flush=True)
                note(number, "error")
            os._exit(0)
    for _ in range(3):
        os.wait()
found = [[path.stat().st_size for path in sorted(folder.glob(f"{n}.*"))] for n in range(rounds)]
print(found == [[2, 1]] * rounds, flush=True)  # those that have lost, and the one that has won
"""


@pytest.mark.parametrize("first", ["none", "dead"])
def test_of_those_that_start_at_once_one_wins(tmp_path, first):
    command = [sys.executable, "-W", "ignore", "-c", RACE, str(tmp_path), "30", first]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "True\n", done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*lock-*") if re.search("lock-", path.name)]

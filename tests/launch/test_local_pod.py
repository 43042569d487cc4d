import json
import os
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from flan_jax import distributed
from flan_jax import train as train_binary
from flan_jax.checkpoint import arrays
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import token_store
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError

BYTES = ByteTokenizer()

# --------------------------------------------------------------------------------------------------- the launcher


def _run(local_pod, options, code, timeout=120):
    command = [*local_pod, *options, "--", "python", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_every_process_has_its_number_and_its_output(local_pod):
    code = "import os, sys; print('I am', os.environ['JAX_PROCESS_ID']); print('oh', file=sys.stderr)"
    done = _run(local_pod, ["--processes=3"], code)
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == ["I am 0", "[process 1] I am 1", "[process 2] I am 2"]
    assert sorted(done.stderr.splitlines()) == ["[process 1] oh", "[process 2] oh", "oh"]


@pytest.mark.parametrize("address", ["host", "", ":", "host:", "host:port", ":8476", "host:123456", "a b:1"])
def test_an_address_without_a_port_is_named(address, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", address)  # an empty option counts as none
    with pytest.raises(FlanError, match="coordinator_address is .*: it has to be HOST:PORT of process 0"):
        distributed.join(address, 2, 0)


def test_the_environment_is_jax_s(load):
    launcher = load("local_pod")
    inherited = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_cpu_enable_fast_math=false", "HOME": "x"}
    found = launcher.environment(2, 4, 3, 1234, inherited)
    assert found["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false" and found["HOME"] == "x"
    assert found["JAX_COORDINATOR_ADDRESS"] == "127.0.0.1:1234"
    assert (found["JAX_PROCESS_ID"], found["JAX_NUM_PROCESSES"], found["JAX_NUM_CPU_DEVICES"]) == ("2", "4", "3")


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [
        ("sys.exit(7)", 7, "ended with exit status 7"),
        ("os.kill(os.getpid(), 9)", 128 + 9, "ended with signal SIGKILL"),
    ],
)
def test_when_one_fails_the_others_are_stopped(local_pod, end, status, words):
    code = f"import os, sys, time\nif os.environ['JAX_PROCESS_ID'] == '1': {end}\ntime.sleep(600)"
    began = time.monotonic()
    done = _run(local_pod, ["--processes=3", "--grace=1"], code)
    assert done.returncode == status and time.monotonic() - began < 60
    assert "local_pod: process 1 (pid " in done.stderr and words in done.stderr
    assert "stopping process 0, 2." in done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_terminating_the_launcher_ends_its_processes(local_pod, tmp_path, how):
    code = f"import os, time; open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w'); time.sleep(600)"
    launcher = subprocess.Popen([*local_pod, "--processes=2", "--", "python", "-c", code])
    while len(pids := [int(path.name) for path in tmp_path.iterdir()]) < 2:
        time.sleep(0.05)
    launcher.send_signal(how)
    assert launcher.wait(timeout=60) == 128 + how
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("end", ["sys.exit(75)", "os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 15)"])
def test_all_are_started_again_when_one_is_preempted(local_pod, tmp_path, end):
    code = f"""
import os, sys, time
me, seen = os.environ["JAX_PROCESS_ID"], {str(tmp_path)!r}
open(f"{{seen}}/{{os.getpid()}}", "w").write(me)
while len(os.listdir(seen)) < 2: time.sleep(0.01)
if len(os.listdir(seen)) == 2:
    if me == "1": {end}
    time.sleep(600)
"""
    done = _run(local_pod, ["--processes=2", "--grace=0.3", "--restarts=1"], code)
    assert done.returncode == 0, done.stderr
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["0", "0", "1", "1"]
    assert done.stderr.count("started again (1 of 1 restarts without progress are used).") == 1


@pytest.mark.parametrize(("restarts", "end", "status", "starts"), [(2, 75, 75, 3), (2, 3, 3, 1), (0, 75, 75, 1)])
def test_restarts_without_progress_and_errors_end(local_pod, tmp_path, restarts, end, status, starts):
    code = f"import os, sys; open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w'); sys.exit({end})"
    done = _run(local_pod, ["--processes=1", f"--restarts={restarts}"], code)
    assert done.returncode == status and len(list(tmp_path.iterdir())) == starts, done.stderr


def test_sigterm_is_passed_on_and_nothing_is_started_again(local_pod, tmp_path):
    code = f"""
import os, signal, sys, time
def save(*_):
    open(f"{tmp_path!s}/saved" + os.environ["JAX_PROCESS_ID"], "w")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
open(f"{tmp_path!s}/ready" + os.environ["JAX_PROCESS_ID"], "w")
time.sleep(600)
"""
    launcher = subprocess.Popen([*local_pod, "--processes=2", "--restarts=5", "--", "python", "-c", code])
    while len(list(tmp_path.glob("ready*"))) < 2:
        time.sleep(0.05)
    launcher.terminate()
    assert launcher.wait(timeout=60) == 75
    assert {path.name for path in tmp_path.glob("saved*")} == {"saved0", "saved1"}


# ------------------------------------------------------------------------------------------------- training on a pod


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    for name, answers in (("sst2", ("negative", "positive")), ("bool_q", ("no", "yes"))):
        examples = []
        for number in range(40):
            answer = int(rng.integers(2))
            inputs, targets = BYTES.encode(["-+"[answer] + " " + "word " * int(rng.integers(4)), answers[answer]])
            examples.append(token_store.TokenizedExample(inputs, targets, 0, number))
        info = {"num_records": len(examples), "renderings": 1, "vocab_size": BYTES.vocab_size}
        token_store.write_dataset(token_store.folder_of(folder, BYTES.fingerprint) / name, info, examples)
    return folder


def _arguments(folder, prepared, steps=3, **mesh):
    return [
        "--gin_file=runs/tune.gin",
        f"--gin.MODEL_DIR={str(folder)!r}",
        f"--gin.PREPARED_DIR={str(prepared)!r}",
        f"--gin.TRAIN_STEPS={steps}",
        "--gin.BATCH_SIZE=8",
        "--gin.LEARNING_RATE=1e-2",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 48, 'targets': 16}",
        f"--gin.MESH={mesh or {'data': 2, 'fsdp': 2, 'tensor': 2}}",
    ]


def _losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(prepared, tmp_path_factory):
    """The same run in one process with eight devices."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    train_binary.main(_arguments(folder, prepared))
    return folder


def _assert_alike(folder, alone):
    np.testing.assert_allclose(_losses(folder), _losses(alone), rtol=1e-4)
    found, expected = (arrays.load_model(each)[1] for each in (folder, alone))
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        # Adafactor's update is near the sign of a gradient, which rounding may turn where it is about zero.
        assert np.mean(np.abs(np.asarray(x) - np.asarray(y)) > 1e-4) < 2e-3


@pytest.mark.slow
def test_processes_train_like_one(local_pod, prepared, alone, tmp_path):
    """The axis of data lies across two processes, and each has two devices along another one.

    Of four processes, of other axes across them, and of another number in the middle: `test_other_hosts`.
    """
    arguments = _arguments(tmp_path / "run", prepared, data=2, tensor=2)
    command = [*local_pod, "--processes=2", "--devices=2", "--", "python", "-m", "flan_jax.train", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    _assert_alike(tmp_path / "run", alone)
    # One process writes and prints.
    own, others = [], []
    for line in done.stdout.splitlines():
        (others if line.startswith("[process") else own).append(line)
    assert json.loads(next(line for line in reversed(own) if line.startswith("{")))["step"] == 3
    assert not any("loss" in line for line in others)  # gloo does say there that it is connected
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {path.name for path in alone.iterdir()}
    assert Manifest.load(tmp_path / "run").tuning == Manifest.load(alone).tuning


@pytest.mark.slow
def test_each_host_reads_its_own_rows(local_pod):
    code = """
import numpy as np
from flan_jax import distributed, partitioning
distributed.join()
import jax
for sizes in ((2, 2, 1), (1, 1, 4), (4, 1, 1)):
    mesh = partitioning.make_mesh(*sizes)
    rows = partitioning.local_rows(mesh, 8)
    assert len(rows) == max(8 // partitioning.rows_per_shard_of(mesh), 4) if sizes[2] == 1 else len(rows) == 8, rows
    whole = np.arange(8 * 3).reshape(8, 3)
    shardings = partitioning.batch_shardings(mesh, {"x": whole})
    batch = partitioning.global_batch({"x": whole[rows]}, shardings, rows, 8)
    for shard in batch["x"].addressable_shards:
        np.testing.assert_array_equal(shard.data, whole[shard.index])
    total = jax.jit(lambda x: x.sum(), out_shardings=jax.sharding.NamedSharding(mesh, jax.P()))(batch["x"])
    assert int(total) == whole.sum()
assert not distributed.everywhere(jax.process_index() == 0) and distributed.everywhere(True)
"""
    done = _run(local_pod, ["--processes=2", "--devices=2"], code, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_a_killed_process_ends_the_pod(local_pod, prepared, tmp_path):
    """kill -9 of one process in mid-training: the launcher names it and ends, and so do the others."""
    arguments = _arguments(tmp_path / "run", prepared, 100_000, data=2)
    command = [*local_pod, "--processes=2", "--grace=5", "--", "python", "-m", "flan_jax.train", *arguments]
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        log, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 600
        while time.monotonic() < deadline and launcher.poll() is None:
            if log.exists() and log.read_text().count("\n") > 2:
                break
            time.sleep(0.2)
        pids = [int(pid) for pid in subprocess.check_output(["pgrep", "-P", str(launcher.pid)], text=True).split()]
        assert len(pids) == 2
        killed = time.monotonic()
        os.kill(max(pids), signal.SIGKILL)
        _, errors = launcher.communicate(timeout=60)
        assert launcher.returncode not in (0, None) and time.monotonic() - killed < 60
        assert f"(pid {max(pids)}) ended with signal SIGKILL" in errors
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
    finally:
        launcher.terminate()
        launcher.wait()


@pytest.mark.slow
def test_a_process_that_fails_does_not_wait_for_the_others(local_pod):
    """Without the launcher's help: an error in one process ends it though the other never comes to the end."""
    code = """
import argparse, os, sys, time
from flan_jax import distributed
from flan_jax.errors import FlanError
with distributed.pod(argparse.Namespace(coordinator_address=None, num_processes=None, process_id=None)):
    if os.environ["JAX_PROCESS_ID"] == "1":
        raise FlanError("this one fails.")
    time.sleep(600)
"""
    began = time.monotonic()
    done = _run(local_pod, ["--processes=2", "--grace=1"], code, timeout=300)
    assert done.returncode == 2 and time.monotonic() - began < 120
    assert "[process 1] flan_jax: this one fails." in done.stderr
    assert "local_pod: process 1 (pid " in done.stderr


def test_incomplete_flags_are_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        train_binary.main(["--coordinator_address=127.0.0.1:1", "--process_id=0"])
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and "also needs --num_processes (or JAX_NUM_PROCESSES)" in line

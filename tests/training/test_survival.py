"""Training as a user starts it, told to end at bad moments, or hanging: what it says, leaves, and goes on with."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flan_jax import train as train_binary
from flan_jax.checkpoint import choosing
from flan_jax.errors import PREEMPTED, STALLED
from flan_jax.training.notices import BROKEN_OFF

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
HOOK = '''
import os, shutil, signal, time
from pathlib import Path


class Tells:
    """Sends signals to its own process, or to one of the pod, at a step; hangs there, or fills the disk before."""

    def __init__(self, step, signals=(), again=(), at="after_step", process=0, hangs=0.0, fills=False):
        self.step, self.signals, self.again, self.at = step, signals, again, at
        self.process, self.hangs, self.fills = process, hangs, fills

    def tell(self, context, step, at):
        if step != self.step or at != self.at or int(os.environ.get("JAX_PROCESS_ID", 0)) != self.process:
            return
        while self.fills and (free := shutil.disk_usage(context.folder).free) > 400_000:
            with (context.folder / "filler").open("ab") as file:
                file.write(bytes(free - 390_000))
        for one in self.signals:
            os.kill(os.getpid(), one)
        for one in self.again:
            time.sleep(1.5)
            os.kill(os.getpid(), one)
        time.sleep(self.hangs)

    def start(self, context):
        self.tell(context, 0, "start")

    def after_step(self, context, step, values):
        self.tell(context, step, "after_step")

    def before_save(self, context, step):
        self.tell(context, step, "before_save")

    def after_save(self, context, step):
        self.tell(context, step, "after_save")
'''


class Started:
    """A run that has ended: of a process of its own, of a pod, or, where it may not end at once, of this process."""

    def __init__(self, folder, prepared, hook, around, processes=1, steps=6, here=None, **macros):
        self.folder = folder / "run"
        (folder / "tells.py").write_text(HOOK)
        macros = {"MODEL_DIR": str(self.folder), "PREPARED_DIR": str(prepared), "TRAIN_STEPS": steps} | macros
        macros |= {"MIXTURE_OR_TASK_NAME": "sst2", "BATCH_SIZE": 8 if here else 2, "HOOKS": f"tells:Tells({hook})"}
        macros |= {"TASK_FEATURE_LENGTHS": {"inputs": 48, "targets": 16}}
        train = ["-m", "flan_jax.train", "--gin_file=runs/tune.gin"]
        train += [f"--gin.{name}={value!r}" for name, value in macros.items()]
        if here is not None:
            self.status, (self.out, self.err) = here(folder, train[2:])
            self.said = [line for line in self.err.splitlines() if "flan_jax: " in line]
            return
        pod = [sys.executable, "-m", "flan_jax.launch.local_pod", f"--processes={processes}", "--grace=1", "--"]
        paths = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = around | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        done = subprocess.run(
            [sys.executable, *train] if processes == 1 else [*pod, "python", *train],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.said = [line for line in self.err.splitlines() if "flan_jax: " in line]

    @property
    def logged(self):
        log = self.folder / "metrics.jsonl"
        return [json.loads(line)["step"] for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def saved(self):
        return choosing.steps(self.folder)


@pytest.mark.parametrize("both", [False, True], ids=["output", "output and errors"])
@pytest.mark.parametrize("told", [False, True], ids=["head", "Ctrl-C to all of a pipeline"])
def test_a_reader_that_goes_costs_no_run(prepared, tmp_path, one_device, told, both):
    """`train | head`; and `train | tee log` at Ctrl-C, which ends tee before the run has said its last word."""
    macros = {"MODEL_DIR": "run", "PREPARED_DIR": str(prepared), "TRAIN_STEPS": 100_000 if told else 12}
    macros |= {"MIXTURE_OR_TASK_NAME": "sst2", "BATCH_SIZE": 2, "TASK_FEATURE_LENGTHS": {"inputs": 48, "targets": 16}}
    macros |= {"LOG_PERIOD": 1, "CHECKPOINT_PERIOD": 1_000_000}
    command = [sys.executable, "-m", "flan_jax.train", "--gin_file=runs/tune.gin"]
    command += [f"--gin.{name}={value!r}" for name, value in macros.items()]
    errors = subprocess.STDOUT if both else subprocess.PIPE
    around = one_device | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}
    options = {"env": around, "cwd": tmp_path, "text": True, "start_new_session": True}
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, **options)
    said = next(line for line in run.stdout if line.startswith("step 3/"))
    run.stdout.close()
    if told:
        os.killpg(run.pid, signal.SIGINT)
    run.wait(timeout=300)
    errors = "" if both else run.stderr.read()
    assert said and run.returncode == (BROKEN_OFF if told else 0), errors
    assert choosing.steps(tmp_path / "run")[-1] >= (3 if told else 12)
    assert "Traceback" not in errors and (both or errors.count("the reader of the output is gone") == 1)


@pytest.fixture
def here(monkeypatch, capfd):
    """(folder of the hook, arguments) -> exit status, and what training in this process says."""

    def trained(folder, arguments):
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, "tells", raising=False)
        try:
            train_binary.main(arguments)
        except SystemExit as end:
            return end.code or 0, capfd.readouterr()
        return 0, capfd.readouterr()

    return trained


@pytest.mark.parametrize(
    ("hook", "macros", "status", "saved", "words"),
    [
        ("step=4, at='after_save', signals=(2,)", {"CHECKPOINT_PERIOD": 4}, BROKEN_OFF, None, "Ctrl-C: the run saves"),
        ("step=5, signals=(15,), hangs=60", {"GRACE_SECONDS": 1}, PREEMPTED, 2, "not done after 1 s"),
        ("step=6, signals=(15,)", {}, 0, 6, "SIGTERM: the run saves"),  # it was at its end
    ],
)
def test_told_to_end(prepared, tmp_path, one_device, here, hook, macros, status, saved, words):
    alone = "hangs" in hook  # its process is ended at once
    run = Started(
        tmp_path, prepared, hook, one_device, here=None if alone else here, **({"CHECKPOINT_PERIOD": 2} | macros)
    )
    assert run.status == status, run.err
    assert any(words in line for line in run.said) and "Traceback" not in run.err
    if saved is None:  # the step that was running
        assert run.saved[-1] == run.logged[-1] < 6
    else:  # the save of step 4 may have been going on
        assert (run.saved or [0])[-1] in (saved, saved + 2)
    assert not list(run.folder.glob("checkpoints/*tmp*")) or "not done" in run.err or "once more" in run.err
    if status != 0 and saved is None:
        assert f"stopped after step {run.logged[-1]}" in run.out


def test_a_process_of_a_pod_hangs(prepared, tmp_path, one_device):
    """The others wait for it, and say where."""
    run = Started(tmp_path, prepared, "step=2, signals=(19,), process=1", one_device, processes=2, NO_STEP_SECONDS=1)
    assert run.status == STALLED, run.err
    assert any("no step for" in line for line in run.said) and "most recent call first" in run.err
    assert "loop.py" in (run.folder / "stacks.0.txt").read_text()


def test_no_room_for_the_save(prepared, tmp_path, one_device, make_disk):
    disk = make_disk(16_000)
    run = Started(tmp_path, prepared, "step=2, signals=(15,), fills=True", one_device, MODEL_DIR=str(disk / "run"))
    assert run.status == 2 and "no space left on device" in run.said[-1] and "Traceback" not in run.err
    assert not list((disk / "run").glob("checkpoints/*"))


def test_killed_at_random_instants():
    """The short form of `python benchmarks/faults.py`, whose full output is in docs/results/survival.md.

    A pod gets SIGKILL while it compiles, and SIGTERM during a save; one process gets SIGKILL in `test_one_trainer`.
    """
    command = [sys.executable, ROOT / "benchmarks" / "faults.py", "--instants=2", "--steps=25", "--seed=1", "--json"]
    done = subprocess.run([*command, "--processes=2"], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    (run,) = json.loads(done.stdout.splitlines()[-1])["runs"]
    assert run["arrays_equal"] == run["arrays"] > 20 and run["lines_equal"] == run["lines_alone"] == 25
    assert run["left"] == []
    strikes = {(strike["where"], strike["signal"], strike["reached"]) for strike in run["strikes"]}
    assert strikes == {("the first compile", "SIGKILL", True), ("a save", "SIGTERM", True)}

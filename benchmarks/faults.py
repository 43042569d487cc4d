"""Kills real training again and again at random instants, and compares what is left in the end with a run left alone.

python benchmarks/faults.py --instants=20 --json

A run of one process and a pod of two on this machine are each killed at half of the instants, by SIGKILL and by
SIGTERM, in turn while the first step compiles, during a save, during an evaluation, and anywhere. Each time the same
command is started again, on the same folder. In the end parameters and optimizer's state are compared bit for bit, and
metrics.jsonl line by line without seconds and rates.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from flan_jax import models, options, partitioning
from flan_jax.checkpoint import arrays, choosing
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import token_store
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import PREEMPTED, one_line_errors
from flan_jax.training import optimizers
from flan_jax.training.figures import OF_MACHINE
from flan_jax.training.state import abstract_state, state_shardings
from flan_jax.values import Whole

WHERE = ("the first compile", "a save", "an evaluation", "anywhere")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
DEVICES = 2  # of each run in all
LENGTHS = {"inputs": 48, "targets": 16}
_PATIENCE = 300.0  # seconds for anything to happen
_HOOK = '''
import time
from pathlib import Path

import jax

from flan_jax.training import loss


class Evaluates:
    """The loss of the first rows at every so many steps, which takes its time."""

    def __init__(self, every):
        self.every = every

    def start(self, context):
        batch = context.stream.batch(0)
        count = len(context.stream.parts)
        self.loss = jax.jit(lambda params: loss.target_loss(context.network, params, batch, count)[0])

    def pauses(self, context, step):
        return step % self.every == 0

    def after_step(self, context, step, values):
        time.sleep(0.03)  # so that there are instants between two steps
        if self.pauses(context, step):
            marker = Path(context.folder).parent / "evaluating"
            marker.touch()
            context.write("evaluated_loss", self.loss(context.state().params))
            time.sleep(0.3)
            marker.unlink(missing_ok=True)
'''


@dataclasses.dataclass(frozen=True)
class Instant:
    """When a run is killed.

    Attributes:
      where: one of `WHERE`.
      signal: by which signal.
      all: whether all processes of the pod get it, or one.
      delay: seconds after the first sign of `where`; of "anywhere", steps after the first of this start.
    """

    where: str
    signal: signal.Signals
    all: bool
    delay: float


def instants(seed: int, count: int) -> list[Instant]:
    """Of one run, in turn by place and by signal."""
    draw = random.Random(seed)
    order = [(WHERE[n % len(WHERE)], SIGNALS[(n + n // len(WHERE)) % len(SIGNALS)]) for n in range(count)]
    draw.shuffle(order)
    longest = {"the first compile": 2.5, "a save": 0.15, "an evaluation": 0.3, "anywhere": 9}
    return [Instant(where, one, draw.random() < 0.5, draw.uniform(0, longest[where])) for where, one in order]


class Training:
    """One folder and the command that trains into it."""

    def __init__(self, folder: Path, prepared: Path, processes: int, steps: int) -> None:
        self.folder, self.processes = folder / "run", processes
        folder.mkdir()
        (folder / "evaluates.py").write_text(_HOOK)
        train = [
            *("python", "-m", "flan_jax.train", "--gin_file=runs/tune.gin"),
            f"--gin.MODEL_DIR={str(self.folder)!r}",
            f"--gin.PREPARED_DIR={str(prepared)!r}",
            f"--gin.TRAIN_STEPS={steps}",
            "--gin.BATCH_SIZE=4",
            "--gin.LEARNING_RATE=1e-2",
            "--gin.CHECKPOINT_PERIOD=10",
            "--gin.GRACE_SECONDS=60",  # for machines that are busy
            "--gin.KEEP_BEST={'figure': 'evaluated_loss'}",
            f"--gin.TASK_FEATURE_LENGTHS={LENGTHS}",
            "--gin.MESH={'data': 1, 'fsdp': 2}",
            "--gin.HOOKS='evaluates:Evaluates(every=5)'",
        ]
        pod = [sys.executable, "-m", "flan_jax.launch.local_pod", f"--processes={processes}"]
        pod += [f"--devices={DEVICES // processes}", "--grace=3", "--"]
        self._command = [sys.executable, *train[1:]] if processes == 1 else [*pod, *train]
        flags = " ".join(f for f in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in f)
        paths = [str(folder), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self._environment = os.environ | {
            "XLA_FLAGS": flags,
            "JAX_NUM_CPU_DEVICES": str(DEVICES),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        self._out = folder / "out.txt"

    def start(self, compiles: bool = False) -> subprocess.Popen[bytes]:
        """Starts the command; programs are compiled, or taken from those that were, where there are any."""
        (self.folder.parent / "evaluating").unlink(missing_ok=True)
        self._said = self._out.stat().st_size if self._out.exists() else 0
        with self._out.open("ab") as out:
            cache = {"JAX_COMPILATION_CACHE_DIR": "" if compiles else str(self.folder.parent.parent / "compiled")}
            return subprocess.Popen(self._command, env=self._environment | cache, stdout=out, stderr=out)

    def said(self) -> str:
        """What the last start has printed."""
        with self._out.open("rb") as out:
            out.seek(self._said)
            return out.read().decode(errors="replace")

    def finish(self) -> None:
        """Starts it and waits for its end."""
        process = self.start()
        if status := process.wait(_PATIENCE):
            raise RuntimeError(f"training ended with status {status}:\n{self.said()[-3000:]}")

    def steps(self) -> int:
        """Lines of metrics.jsonl."""
        log = self.folder / "metrics.jsonl"
        return log.read_bytes().count(b"\n") if log.exists() else 0

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without seconds and rates."""
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [{name: x for name, x in line.items() if name not in OF_MACHINE} for line in lines]

    def state(self) -> tuple[int, list[np.ndarray]]:
        """The last checkpoint: its step, and the leaves of parameters and optimizer's state."""
        network, tx = models.build(models.DecoderConfig.from_dict(Manifest.load(self.folder).model)), _OPTIMIZER
        abstract = abstract_state(network, tx)
        shardings = state_shardings(partitioning.make_mesh(devices=jax.devices()[:1]), network, tx)
        step, *trees = arrays.restore_training(
            self.folder, (abstract.params, abstract.opt_state), (shardings.params, shardings.opt_state)
        )
        return step, [np.asarray(leaf) for leaf in jax.tree.leaves(trees)]

    def left_over(self) -> list[str]:
        """What killed starts have left half-done."""
        found = [*self.folder.glob("checkpoints/*orbax-checkpoint-tmp*"), *self.folder.glob(".*"), *self._locks()]
        return sorted(str(path.relative_to(self.folder)) for path in found)

    def _locks(self) -> Iterator[Path]:
        return self.folder.glob("lock-*.json")


_OPTIMIZER = optimizers.adafactor(1e-2)


def _prepare(folder: Path) -> None:
    """Tokens of two small datasets."""
    tokenizer, rng = ByteTokenizer(), np.random.default_rng(0)
    for name, answers in (("sst2", ("negative", "positive")), ("bool_q", ("no", "yes"))):
        examples = []
        for number in range(40):
            answer = int(rng.integers(2))
            text = f"{'-+'[answer]} {' '.join(rng.choice(['calm', 'grey', 'loud', 'soft'], 2))}"
            examples.append(token_store.TokenizedExample(*tokenizer.encode([text, answers[answer]]), 0, number))
        info = {"num_records": len(examples), "renderings": 1, "vocab_size": tokenizer.vocab_size}
        token_store.write_dataset(token_store.folder_of(folder, tokenizer.fingerprint) / name, info, examples)


def _processes(training: Training, launcher: subprocess.Popen[bytes]) -> list[int]:
    """The training processes, by their number in the pod."""
    if training.processes == 1:
        return [launcher.pid]
    path = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    with contextlib.suppress(OSError):
        return sorted(map(int, path.read_text().split()))
    return []


def _wait_for(there: Any, process: subprocess.Popen[bytes]) -> bool:
    """Whether it came before the process ended."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if there():
            return True
        time.sleep(0.002)
    return False


def strike(training: Training, instant: Instant, draw: random.Random) -> dict[str, Any]:
    """Starts the run, kills it at the instant, and says what happened."""
    before, process = training.steps(), training.start(compiles=instant.where == WHERE[0])
    saved = choosing.latest_step(training.folder) or 0
    checkpoints = training.folder / "checkpoints"
    told = signal.SIGKILL
    try:
        signs = {
            "the first compile": lambda: "absent:" in training.said(),  # printed last before it
            "a save": lambda: any(checkpoints.glob("*orbax-checkpoint-tmp*")) and training.steps() > saved,
            "an evaluation": lambda: (training.folder.parent / "evaluating").exists(),
            "anywhere": lambda: training.steps() > saved + instant.delay and training.steps() != before,
        }
        reached = _wait_for(signs[instant.where], process)
        if instant.where != "anywhere":
            time.sleep(instant.delay)
        pids = _processes(training, process)
        told = instant.signal
        for pid in pids if instant.all else [draw.choice(pids)] if pids else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, told)
        began = time.monotonic()
        status = process.wait(_PATIENCE)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    text = training.said()
    return {
        "where": instant.where,
        "reached": reached,
        "signal": told.name,
        "of": "all" if instant.all else "one",
        "status": status,
        "seconds_to_end": round(time.monotonic() - began, 2),
        "from_step": saved,
        "steps_logged": training.steps(),
        "step_saved": choosing.latest_step(training.folder) or 0,
        "traceback": "Traceback" in text,
        "left": training.left_over(),
    }


def campaign(folder: Path, prepared: Path, processes: int, strikes: Sequence[Instant], steps: int, seed: int) -> dict:
    """Kills one run at all of its instants, and compares it with one that is left alone."""
    name = "one process" if processes == 1 else f"a pod of {processes}"
    alone = Training(folder / f"alone_{processes}", prepared, processes, steps)
    alone.finish()
    killed, draw = Training(folder / f"killed_{processes}", prepared, processes, steps), random.Random(seed)
    rows = []
    for number, instant in enumerate(strikes, 1):
        row = strike(killed, instant, draw)
        rows.append(row)
        print(f"{name}, {number} of {len(strikes)}: {_line(row)}", flush=True)
        if row["traceback"] and row["signal"] == "SIGTERM":
            print(killed.said()[-4000:], flush=True)
    killed.finish()
    (step, leaves), (step_alone, leaves_alone) = killed.state(), alone.state()
    same = [a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(leaves, leaves_alone, strict=True)]
    metrics, metrics_alone = killed.metrics(), alone.metrics()
    told = [row for row in rows if row["signal"] == "SIGTERM" and row["reached"]]
    return {
        "processes": processes,
        "steps": steps,
        "strikes": rows,
        "end_step": step,
        "arrays": len(leaves),
        "arrays_equal": sum(same) if step == step_alone else 0,
        "lines": len(metrics),
        "lines_equal": sum(one == other for one, other in zip(metrics, metrics_alone, strict=False)),
        "lines_alone": len(metrics_alone),
        "told_to_end": len(told),
        "ended_as_told": sum(row["status"] == PREEMPTED for row in told),
        "told_and_saved_all": sum(row["step_saved"] == max(row["steps_logged"], row["from_step"]) for row in told),
        "left": killed.left_over(),
    }


def _line(row: dict[str, Any]) -> str:
    place = row["where"] if row["reached"] else f"{row['where']} (not reached)"
    return (
        f"{row['signal']} to {row['of']} during {place}: status {row['status']} after {row['seconds_to_end']} s; began "
        f"at {row['from_step']}, logged {row['steps_logged']}, saved {row['step_saved']}; left: "
        f"{', '.join(row['left']) or 'nothing'}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, kills and compares; status 1 where anything differs."""
    parser = options.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instants", type=options.of(Whole(1)), default=20, help="in all; default 20")
    parser.add_argument("--steps", type=options.of(Whole(10)), default=120, help="of each run; default 120")
    parser.add_argument("--seed", type=options.of(Whole(0)), default=0, help="of the instants; default 0")
    parser.add_argument("--processes", default="1,2", help="of the runs; default 1,2")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object at the end")
    arguments = parser.parse_args(argv)
    kinds = [int(count) for count in arguments.processes.split(",")]
    with one_line_errors(), tempfile.TemporaryDirectory(prefix="flan_jax_faults_") as temporary:
        folder = Path(temporary)
        _prepare(folder / "prepared")
        began, results = time.monotonic(), []
        for number, processes in enumerate(kinds):
            count = arguments.instants // len(kinds) + (number < arguments.instants % len(kinds))
            strikes = instants(arguments.seed + number, count)
            seed = arguments.seed + number
            results.append(campaign(folder, folder / "prepared", processes, strikes, arguments.steps, seed))
        for result in results:
            print(
                f"{result['processes']} process(es): {result['arrays_equal']} of {result['arrays']} arrays are equal, "
                f"{result['lines_equal']} of {result['lines_alone']} lines of metrics; of {result['told_to_end']} that "
                f"were told to end, {result['ended_as_told']} did with status {PREEMPTED}, and "
                f"{result['told_and_saved_all']} had saved every step; left in the end: "
                f"{', '.join(result['left']) or 'nothing'}."
            )
        sound = all(
            result["arrays_equal"] == result["arrays"]
            and result["lines_equal"] == result["lines"] == result["lines_alone"]
            and result["ended_as_told"] == result["told_to_end"]
            for result in results
        )
        print("everything is equal." if sound else "NOT everything is as it has to be.")
        if arguments.json:
            print(json.dumps({"sound": sound, "seconds": round(time.monotonic() - began), "runs": results}))
        sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()

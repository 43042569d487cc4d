"""Runs a program as a small pod on this machine: N processes with M CPU devices each, before one pays for a real one.

python -m flan_jax.launch.local_pod --processes=4 --devices=2 -- python -m flan_jax.train --gin_file=runs/tune.gin ...

The processes join by `jax.distributed` over loopback and exchange arrays by gloo, on the code path of a pod slice:
every host reads its own rows, Orbax saves from all. The output of process 0 passes through; the lines of the others
carry their number. When one process fails, the others are stopped after --grace seconds, and the exit status is that of
the one that failed. With --restarts=N all are started again when one ends with status 75 (it was preempted, and saved)
or is killed, until N restarts in a row have brought no progress. SIGTERM is passed on to all, as to a pod's hosts that
are taken away; they have --grace seconds to save, and nothing is started again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from flan_jax import options, output
from flan_jax.errors import PREEMPTED
from flan_jax.launch import work
from flan_jax.values import Number, Whole

HEARTBEAT_SECONDS = 10  # on one machine a silent process is a dead one


def environment(
    process: int, num_processes: int, devices: int, port: int, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The environment of one process.

    Args:
      process: its number, from 0.
      num_processes: processes in all.
      devices: CPU devices of each.
      port: where process 0 coordinates, on loopback.
      inherited: the launcher's own environment.
    """
    flags = re.sub(r"--xla_force_host_platform_device_count=\S+", "", inherited.get("XLA_FLAGS", "")).strip()
    proxied = any(name.lower().endswith("_proxy") for name in inherited)
    around = {"no_proxy": ",".join(filter(None, [inherited.get("no_proxy"), "127.0.0.1"]))} if proxied else {}
    return {
        **inherited,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(num_processes),
        "JAX_PROCESS_ID": str(process),
        "FLAN_JAX_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
        "PYTHONUNBUFFERED": "1",
        **around,
    }


ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # the processes are in sessions of their own, and get none


class Terminated(BaseException):
    """The launcher got one of ENDING."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(command: Sequence[str], num_processes: int, devices: int, grace: float, restarts: int = 0) -> int:
    """Runs a pod to its end, with restarts.

    Args:
      command: what every process runs; a first word "python" is this interpreter.
      num_processes: processes in all.
      devices: CPU devices of each.
      grace: seconds that the others have to end by themselves when one has failed.
      restarts: how many restarts in a row may bring no progress.

    Returns:
      0 if all processes ended well, otherwise the exit status of the first that did not (128 + N for signal N); 75 if
      any saved and stopped.
    """
    command = [sys.executable, *command[1:]] if command[0] in ("python", "python3") else list(command)
    unit, counted = work.program(command[1:]), work.Restarts(restarts)
    counted.last = unit.progress()
    while True:
        began = time.monotonic()
        status, told = _run_once(command, num_processes, devices, grace)
        again = not told and work.is_restarted(status)
        if not again or not counted.allows(unit.progress(), time.monotonic() - began):
            return status
        _say(f"started again ({counted}).")


def _run_once(command: Sequence[str], num_processes: int, devices: int, grace: float) -> tuple[int, bool]:
    """Starts the pod and waits for its end: the exit status, and whether we were told to end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pod: list[subprocess.Popen[str]] = []
    readers: list[threading.Thread] = []
    try:
        for number in range(num_processes):
            # Process 0 may draw on a terminal; elsewhere its lines go through here too, so that none is torn.
            own = {s: None if number == 0 and s.isatty() else subprocess.PIPE for s in (sys.stdout, sys.stderr)}
            process = subprocess.Popen(
                command,
                env=environment(number, num_processes, devices, port, os.environ),
                stdout=own[sys.stdout],
                stderr=own[sys.stderr],
                text=True,
                errors="replace",
                start_new_session=True,  # so that its children can be ended with it, and Ctrl-C comes here first
            )
            pod.append(process)
            for stream, out in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                if stream is not None:
                    readers.append(threading.Thread(target=_pass_on, args=(number, stream, out), daemon=True))
                    readers[-1].start()
        return _wait(pod, grace), False
    except Terminated as told:
        for process in pod:
            if process.poll() is None:
                process.terminate()
        _say(f"SIGTERM is passed on to all; they have {grace:g} s to end.")
        _wait(pod, grace, time.monotonic() + grace)
        saved = any(process.returncode == PREEMPTED for process in pod)
        return PREEMPTED if saved else 128 + told.number, True
    finally:
        _stop(pod)
        for reader in readers:
            reader.join(timeout=5)


def _pass_on(number: int, stream: IO[str], out: IO[str]) -> None:
    try:
        for line in stream:
            out.write(f"[process {number}] {line}" if number else line)
            out.flush()
    except BrokenPipeError:  # not of our own output, which outlasts its reader
        stream.close()


def _wait(pod: Sequence[subprocess.Popen[str]], grace: float, deadline: float | None = None) -> int:
    status = 0
    while True:
        codes = [process.poll() for process in pod]
        running = [str(number) for number, code in enumerate(codes) if code is None]
        # A process whose neighbour is killed may fail by that before the next look: the signal is the cause.
        failed = sorted((code > 0, number, code) for number, code in enumerate(codes) if code)
        if failed and deadline is None:
            status = failed[0][2] if failed[0][2] > 0 else 128 - failed[0][2]
            status = PREEMPTED if PREEMPTED in codes else status
            deadline = time.monotonic() + grace
            for _, number, code in failed:
                end = f"exit status {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
                others = f"; process {', '.join(running)} has {grace:g} s to end" if running else ""
                _say(f"process {number} (pid {pod[number].pid}) ended with {end}{others}.")
        if not running:
            return status
        if deadline is not None and time.monotonic() > deadline:
            _say(f"stopping process {', '.join(running)}.")
            return status
        time.sleep(0.1)


def _stop(pod: Sequence[subprocess.Popen[str]]) -> None:
    """Ends what is left, with its children; not by SIGTERM, which JAX takes for a notice of preemption."""
    for process in pod:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    for process in pod:
        process.wait()


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # whoever reads it may have gone; the processes have not
        print(f"local_pod: {line}", file=sys.stderr, flush=True)


def _terminated(number: int, frame: object) -> None:
    for ending in ENDING:
        signal.signal(ending, signal.SIG_IGN)  # once is enough
    raise Terminated(number)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and runs the pod."""
    parser = options.Parser(
        prog="python -m flan_jax.launch.local_pod",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--processes=N] [--devices=M] [--grace=SECONDS] [--restarts=N] -- COMMAND ...",
    )
    parser.add_argument("--processes", type=options.of(Whole(1, 1024)), default=2, help="processes; default 2")
    parser.add_argument("--devices", type=options.of(Whole(1, 1024)), default=1, help="CPU devices of each; default 1")
    parser.add_argument(
        "--grace",
        type=options.of(Number(least=0, most=86400)),
        default=15.0,
        help="seconds to end when another has failed; default 15",
    )
    parser.add_argument(
        "--restarts", type=options.count_or_none, default=0, help="restarts in a row without progress; default 0: none"
    )
    parser.add_argument("command", nargs="+", help="what every process runs")
    arguments = parser.parse_args(argv)
    for ending in ENDING:
        if signal.getsignal(ending) != signal.SIG_IGN:  # which nohup has set
            signal.signal(ending, _terminated)
    for name in ("stdout", "stderr"):
        output.outlast(name)
    try:
        pod = (arguments.command, arguments.processes, arguments.devices, arguments.grace, arguments.restarts)
        sys.exit(run(*pod))
    except FileNotFoundError as error:
        parser.error(f"no program {error.filename!r}.")
    except OSError as error:  # of the start of a process: its output is passed on elsewhere
        parser.error(f"{error.filename or arguments.command[0]!r} cannot be run: {error.strerror}.")
    except Terminated as error:  # between two pods
        sys.exit(128 + error.number)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()

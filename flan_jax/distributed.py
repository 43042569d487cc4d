"""Pods: several processes, one on each host, that run the same program together.

JAX itself finds the other processes on TPU virtual machines, in SLURM's `srun`, Open MPI's `mpirun` and an indexed
Kubernetes job. Elsewhere, flags or the environment say where they are: JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0
(JAX reads this one too), JAX_NUM_PROCESSES and JAX_PROCESS_ID. `python -m flan_jax.launch.local_pod` starts such a
pod on one machine.

If several processes share a host, each takes the GPU with its own number, as JAX arranges it. A process that is alone
on its host takes all GPUs. JAX_LOCAL_DEVICE_IDS=0,1 changes that.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from flan_jax import options
from flan_jax.errors import PREEMPTED, FlanError, one_line_errors
from flan_jax.lazy import lazy_imports
from flan_jax.quiet import has_tpu

with lazy_imports():  # these options are part of every command line, so the import must be fast
    import jax
    from jax.experimental import multihost_utils

HEARTBEAT = "FLAN_JAX_HEARTBEAT_SECONDS"  # a process that is silent for so many seconds counts as dead; default 100
_ADDRESS = re.compile(r"\S+:\d{1,5}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `pod` reads to a parser."""
    group = parser.add_argument_group("several processes", "on TPU virtual machines none of these is needed")
    group.add_argument("--coordinator_address", help="HOST:PORT of process 0 (or JAX_COORDINATOR_ADDRESS)")
    group.add_argument("--num_processes", type=options.count, help="number of all processes (or JAX_NUM_PROCESSES)")
    group.add_argument(
        "--process_id", type=options.count_or_none, help="number of this process, from 0 (or JAX_PROCESS_ID)"
    )


@contextlib.contextmanager
def pod(arguments: argparse.Namespace) -> Iterator[None]:
    """Joins the other processes of a run, if there are any. The binaries call it before their first JAX call.

    A process that fails ends at once with its error. It does not wait for the others, because they wait for it.

    Raises:
      FlanError: incomplete flags, or no coordinator at that address.
    """
    join(arguments.coordinator_address, arguments.num_processes, arguments.process_id)
    if not jax.distributed.is_initialized():
        yield
        return
    try:
        with one_line_errors():
            yield
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in (None, 0, PREEMPTED):  # the others end in the same way
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)


def join(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes, if flags, the environment, a cluster or a TPU say that there are any.

    It calls `jax.distributed.initialize`.

    Args:
      coordinator_address: HOST:PORT of process 0.
      num_processes: how many processes there are.
      process_id: which of them this one is, from 0.

    Raises:
      FlanError: some of the three are missing, the cluster's information is incomplete, or the coordinator does not
        answer.
    """
    address = coordinator_address or os.environ.get("JAX_COORDINATOR_ADDRESS")
    given: dict[str, Any] = {
        "coordinator_address": address,
        "num_processes": _number("JAX_NUM_PROCESSES") if num_processes is None else num_processes,
        "process_id": _number("JAX_PROCESS_ID") if process_id is None else process_id,
    }
    found = _cluster()
    if found is not None and any(value is None for value in given.values()):
        given["num_processes"] = found.processes if given["num_processes"] is None else given["num_processes"]
        given["process_id"] = found.process if given["process_id"] is None else given["process_id"]
    missing = [name for name, value in given.items() if value is None]
    if jax.distributed.is_initialized() or (len(missing) == len(given) and found is None and not _on_tpu_vm()):
        return
    if given["num_processes"] == 1 and address is None:
        return  # this process works alone, even if the cluster has more tasks
    if missing and not (found is not None and found.finds_address) and not _on_tpu_vm():
        raise FlanError(
            f"a run of several processes also needs {' and '.join(f'--{name}' for name in missing)} "
            f"(or {' and '.join(f'JAX_{name.upper()}' for name in missing)})"
            + ("." if found is None else f": {found.lacks}.")
        )
    if address is not None and not _ADDRESS.fullmatch(address):
        raise FlanError(f"--coordinator_address is {address!r}: it has to be HOST:PORT of process 0, as 10.0.0.2:8476.")
    method = found.method if found is not None and address is None else None
    try:
        jax.distributed.initialize(
            **given, cluster_detection_method=method, heartbeat_timeout_seconds=_number(HEARTBEAT) or 100
        )
    except Exception as error:  # the cluster's own client can raise anything
        reason = str(error).strip().partition("\n")[0][:200].rstrip(".") or type(error).__name__
        who = "the process" if given["process_id"] is None else f"process {given['process_id']}"
        who += "" if given["num_processes"] is None else f" of {given['num_processes']}"
        at = f"at {address}" if address else "" if found is None else f"that {found.name} names"
        raise FlanError(
            f"{who} cannot join the pod {at} ({reason}); start all processes, with the same address, or give "
            "--coordinator_address, --num_processes and --process_id."
        ) from error
    if found is not None and found.is_alone_on_host and not os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        for platform in ("cuda", "rocm"):  # JAX has given it only the first GPU
            jax.config.update(f"jax_{platform}_visible_devices", "all")


@dataclasses.dataclass(frozen=True)
class _Cluster:
    """What started this process, alone or with others.

    Attributes:
      name: its name for people.
      method: its name in JAX.
      processes: how many there are; None if only JAX can find out.
      process: which of them this one is, or None.
      finds_address: whether JAX can find process 0 through it.
      lacks: what JAX would need for that, in words for people.
      is_alone_on_host: whether every process has a host of its own.
    """

    name: str
    method: str
    processes: int | None
    process: int | None
    finds_address: bool
    lacks: str = ""
    is_alone_on_host: bool = False


_OF_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_OF_OPEN_MPI = ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")


def _cluster() -> _Cluster | None:
    """The cluster that started this process as one of several, in JAX's order of detection; None if there is none.

    The shell of a SLURM allocation (salloc, sbatch) has a job but no step. What is started there is alone.
    """
    environment = os.environ
    if (size := _number("OMPI_COMM_WORLD_SIZE")) is not None:
        lacks = _missing(_OF_OPEN_MPI)
        if "OMPI_MCA_orte_hnp_uri" in lacks:
            lacks = "Open MPI from version 5 on does not say where process 0 is"
        is_alone = environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
        return _Cluster("Open MPI", "ompi", size, _number("OMPI_COMM_WORLD_RANK"), not lacks, lacks, is_alone)
    if (size := _number("SLURM_STEP_NUM_TASKS")) is not None:
        lacks = _missing(_OF_SLURM)
        is_alone = bool(re.fullmatch(r"1(\(x\d+\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", "")))
        return _Cluster("SLURM", "slurm", size, _number("SLURM_PROCID"), not lacks, lacks, is_alone)
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment and not _on_tpu_vm():
        if importlib.util.find_spec("kubernetes") is None:
            print(
                "this is a pod of an indexed Kubernetes job, which runs alone: to join its pods to one run, install "
                "jax[k8s], or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.",
                file=sys.stderr,
                flush=True,
            )
            return None
        return _Cluster("Kubernetes", "k8s", None, None, True)
    return None


def _missing(names: Sequence[str]) -> str:
    lacking = [name for name in names if not os.environ.get(name)]
    return f"the environment of this step has no {' and no '.join(lacking)}" if lacking else ""


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is not None and not text.isdecimal():
        raise FlanError(f"the environment's {name} is {text!r}; it has to be a number.")
    return None if text is None else int(text)


def _on_tpu_vm() -> bool:
    wanted = "tpu" in os.environ.get("JAX_PLATFORMS", "tpu")
    return wanted and has_tpu() and importlib.util.find_spec("libtpu") is not None


def is_primary() -> bool:
    """Whether this is the one process that writes files and prints."""
    return jax.process_index() == 0


def everywhere(flag: bool) -> bool:
    """Whether `flag` is true in all processes. All processes must call this together."""
    if jax.process_count() == 1:
        return flag
    return bool(np.all(multihost_utils.process_allgather(np.array(flag))))


def gathered(text: str) -> list[str]:
    """The texts of all processes, in the order of their numbers. All processes must call this together."""
    if jax.process_count() == 1:
        return [text]
    own = np.frombuffer(text.encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.array(len(own), np.int32)))
    padded = np.zeros(int(sizes.max()) + 1, np.uint8)  # gloo cannot send an array without elements
    padded[: len(own)] = own
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def decided(by_primary: Callable[[], Any]) -> Any:
    """Lets process 0 decide something and tells the result to all. All processes must call this together.

    Args:
      by_primary: called in process 0 only; returns a value that JSON can hold.

    Raises:
      FlanError: in all processes, if process 0 raises it.
    """
    if jax.process_count() == 1:
        return by_primary()
    said: dict[str, Any] = {}
    failed: Exception | None = None
    if is_primary():
        try:
            said = {"value": by_primary()}
        except Exception as error:  # tell the others, which wait, before raising it
            failed, said = error, {"error": str(error)}
    said = json.loads(gathered(json.dumps(said))[0])
    if failed is not None:
        raise failed
    if "error" in said:
        raise FlanError(f"process 0: {said['error']}")
    return said["value"]

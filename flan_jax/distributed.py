"""A pod: several processes, one a host, that run the same program together.

On TPU virtual machines the processes find each other, and so do the tasks of SLURM's `srun`, the ranks of Open MPI's
`mpirun` and the pods of an indexed Kubernetes job, as JAX detects them. Elsewhere each is told by flags or by the
environment: JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0 (which JAX reads too), JAX_NUM_PROCESSES and JAX_PROCESS_ID.
`python -m flan_jax.launch.local_pod` starts such a pod on one machine.

Of several tasks on a host each takes the GPU of its own number, as JAX has it; a task that is alone on its host takes
all of them. JAX_LOCAL_DEVICE_IDS=0,1 says otherwise.
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

with lazy_imports():  # its options are part of every command line
    import jax
    from jax.experimental import multihost_utils

HEARTBEAT = "FLAN_JAX_HEARTBEAT_SECONDS"  # after so many without a sign of life a process counts as dead; default 100
_ADDRESS = re.compile(r"\S+:\d{1,5}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `pod` reads."""
    group = parser.add_argument_group("several processes", "on TPU virtual machines none of these is needed")
    group.add_argument("--coordinator_address", help="HOST:PORT of process 0 (or JAX_COORDINATOR_ADDRESS)")
    group.add_argument("--num_processes", type=options.count, help="processes in all (or JAX_NUM_PROCESSES)")
    group.add_argument(
        "--process_id", type=options.count_or_none, help="number of this one, from 0 (or JAX_PROCESS_ID)"
    )


@contextlib.contextmanager
def pod(arguments: argparse.Namespace) -> Iterator[None]:
    """Joins the processes of a run, if it has several, before the first JAX call; for the binaries.

    A process that fails ends at once with its error, instead of waiting for the others, which wait for it.

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
        if isinstance(error, SystemExit) and error.code in (None, 0, PREEMPTED):  # the others end so too
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)


def join(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Calls `jax.distributed.initialize` where flags, environment, a cluster or a TPU say that there are others.

    Raises:
      FlanError: some of the three are missing, what a cluster says is incomplete, or nobody answers.
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
        return  # a task of its own, whatever else there is in the cluster
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
    except Exception as error:  # a cluster's own client raises whatever it likes
        reason = str(error).strip().partition("\n")[0][:200].rstrip(".") or type(error).__name__
        who = "the process" if given["process_id"] is None else f"process {given['process_id']}"
        who += "" if given["num_processes"] is None else f" of {given['num_processes']}"
        at = f"at {address}" if address else "" if found is None else f"that {found.name} names"
        raise FlanError(
            f"{who} cannot join the pod {at} ({reason}); start all processes, with the same address, or give "
            "--coordinator_address, --num_processes and --process_id."
        ) from error
    if found is not None and found.is_alone_on_host and not os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        for platform in ("cuda", "rocm"):  # JAX has given it the first GPU only
            jax.config.update(f"jax_{platform}_visible_devices", "all")


@dataclasses.dataclass(frozen=True)
class _Cluster:
    """What started this process, together with others or not.

    Attributes:
      name: of it, for people.
      method: JAX's name for it.
      processes: in all; None where only JAX can ask.
      process: which of them this is, or None.
      finds_address: whether JAX finds process 0 by it.
      lacks: what is missing for that, for people.
      is_alone_on_host: whether no host has two of the processes.
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
    """Which cluster has started this process as one of several, in JAX's order; None for none.

    In the shell of an allocation of SLURM (salloc, sbatch) there is a job, and no step: what is started there is alone.
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
    """Whether this process writes files and prints; there is one."""
    return jax.process_index() == 0


def everywhere(flag: bool) -> bool:
    """Whether `flag` is true in all processes, which have to ask together."""
    if jax.process_count() == 1:
        return flag
    return bool(np.all(multihost_utils.process_allgather(np.array(flag))))


def gathered(text: str) -> list[str]:
    """What each process says, by its number; all have to ask together."""
    if jax.process_count() == 1:
        return [text]
    own = np.frombuffer(text.encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.array(len(own), np.int32)))
    padded = np.zeros(int(sizes.max()) + 1, np.uint8)  # gloo takes no array without elements
    padded[: len(own)] = own
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def decided(by_primary: Callable[[], Any]) -> Any:
    """What process 0 decides, told to all, which have to ask together; only process 0 calls `by_primary`.

    Args:
      by_primary: gives something that JSON can hold.

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
        except Exception as error:  # the others wait, and are told before it goes on
            failed, said = error, {"error": str(error)}
    said = json.loads(gathered(json.dumps(said))[0])
    if failed is not None:
        raise failed
    if "error" in said:
        raise FlanError(f"process 0: {said['error']}")
    return said["value"]

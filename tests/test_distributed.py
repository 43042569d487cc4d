"""Which processes join to a pod, and how: by flags, by the environment, or by what a cluster says."""

import os
import socket
import subprocess
import sys

import jax
import pytest

from flan_jax import distributed
from flan_jax.errors import FlanError

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "node[03-04]",
    "SLURM_NTASKS": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}
RANKS = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
GIVEN = {"JAX_COORDINATOR_ADDRESS": "10.0.0.2:8476", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}
OF_CLUSTERS = ("SLURM_", "OMPI_", "JAX_COORDINATOR", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "KUBERNETES_", "JOB_")


@pytest.fixture
def joined(monkeypatch):
    """Calls `join` in an environment; what JAX is told, or None."""

    def ask(environment, *flags):
        for name in [name for name in os.environ if name.startswith(OF_CLUSTERS)]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        told = []
        monkeypatch.setattr(jax.distributed, "initialize", lambda **how: told.append(how))
        visible = []
        monkeypatch.setattr(jax.config, "update", lambda *what: visible.append(what))
        distributed.join(*flags)
        if not told:
            assert not visible
            return None
        how = told[0]
        sees_all = ("jax_cuda_visible_devices", "all") in visible
        names = ("coordinator_address", "num_processes", "process_id", "cluster_detection_method")
        return (*(how[name] for name in names), sees_all)

    return ask


def _without(environment, *names):
    return {name: value for name, value in environment.items() if name not in names}


SALLOC = _without(STEP, "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID")
SBATCH = _without(STEP, "SLURM_STEP_NUM_TASKS")
ALONE = STEP | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
INTERACTIVE = STEP | {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
ONE_RANK = RANKS | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}
PER_GPU = STEP | {"SLURM_STEP_TASKS_PER_NODE": "2"}
MIXED = STEP | {"SLURM_STEP_TASKS_PER_NODE": "1,2(x3)"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        (GIVEN, ("10.0.0.2:8476", 3, 2, None, False)),
        (STEP, (None, 2, 1, "slurm", True)),
        (PER_GPU, (None, 2, 1, "slurm", False)),
        (MIXED, (None, 2, 1, "slurm", False)),
        (PER_GPU | GIVEN, ("10.0.0.2:8476", 3, 2, None, False)),
        (STEP | {"JAX_COORDINATOR_ADDRESS": "a:1"}, ("a:1", 2, 1, None, True)),
        (STEP | {"JAX_LOCAL_DEVICE_IDS": "0,1"}, (None, 2, 1, "slurm", False)),
        (SALLOC, None),
        (SBATCH, None),
        (ALONE, None),
        (INTERACTIVE, None),
        (RANKS, (None, 4, 3, "ompi", False)),
        (RANKS | STEP, (None, 4, 3, "ompi", False)),  # mpirun inside a job of SLURM, in JAX's order
        (ONE_RANK, None),
        (_without(RANKS, "OMPI_MCA_orte_hnp_uri") | {"JAX_COORDINATOR_ADDRESS": "a:1"}, ("a:1", 4, 3, None, False)),
        ({"JAX_NUM_PROCESSES": "1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # a pod that is no part of an indexed job
        (KUBERNETES | GIVEN, ("10.0.0.2:8476", 3, 2, None, False)),
    ],
)
def test_who_joins(joined, environment, wanted):
    assert joined(environment) == wanted


def test_flags_count_before_a_cluster(joined):
    assert joined(STEP, "b:2", 5, 4) == ("b:2", 5, 4, None, True)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            _without(STEP, "SLURM_STEP_NODELIST"),
            r"needs --coordinator_address .*of this step has no SLURM_STEP_NODELIST\.",
        ),
        (_without(STEP, "SLURM_PROCID", "SLURM_LOCALID"), "has no SLURM_PROCID and no SLURM_LOCALID"),
        (STEP | {"SLURM_PROCID": "one"}, "SLURM_PROCID is 'one'; it has to be a number"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "-2"}, "SLURM_STEP_NUM_TASKS is '-2'"),
        (
            _without(RANKS, "OMPI_MCA_orte_hnp_uri"),
            "--coordinator_address .*Open MPI from version 5 on does not say where",
        ),
        (_without(RANKS, "OMPI_COMM_WORLD_RANK"), "has no OMPI_COMM_WORLD_RANK"),
        (_without(GIVEN, "JAX_PROCESS_ID"), r"also needs --process_id \(or JAX_PROCESS_ID\)\."),
    ],
)
def test_a_part_of_an_environment_is_named(joined, environment, message):
    with pytest.raises(FlanError, match=message) as caught:
        joined(environment)
    assert "\n" not in str(caught.value)


def test_a_kubernetes_job_without_its_package_is_told_how(joined, capsys, monkeypatch):
    find = distributed.importlib.util.find_spec
    monkeypatch.setattr(
        distributed.importlib.util, "find_spec", lambda name: None if name == "kubernetes" else find(name)
    )
    assert joined(KUBERNETES) is None
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and "jax[k8s]" in line and "JAX_COORDINATOR_ADDRESS" in line


def test_a_kubernetes_job_is_joined_as_jax_asks_the_cluster(joined, monkeypatch):
    find = distributed.importlib.util.find_spec
    monkeypatch.setattr(distributed.importlib.util, "find_spec", lambda name: name == "kubernetes" or find(name))
    assert joined(KUBERNETES) == (None, None, None, "k8s", False)


def test_what_a_cluster_s_client_raises_is_one_line(joined, monkeypatch):
    def fail(**_):
        raise LookupError("no pod\nof that address")

    ask = jax.distributed.initialize
    joined({})
    monkeypatch.setattr(jax.distributed, "initialize", fail)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FlanError, match=r"process 1 of 2 cannot join the pod that SLURM names \(no pod\)") as caught:
        distributed.join()
    assert "\n" not in str(caught.value) and ask is not fail


PROGRAM = """
from flan_jax import distributed
distributed.join()
import jax
print(jax.process_count(), distributed.gathered(f"I am {jax.process_index()}"), flush=True)
"""


def _slurm(number, port):
    return STEP | {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_PROCID": str(number), "JAX_COORDINATOR_PORT": str(port)}


def _open_mpi(number, port):
    job = 4096 * (port - 61440 if port >= 61440 else 7)
    own = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": str(number), "OMPI_COMM_WORLD_LOCAL_RANK": str(number)}
    uri = {"OMPI_MCA_orte_hnp_uri": f"{job}.0;tcp://127.0.0.1:34911", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    return own | uri | {"JAX_COORDINATOR_PORT": str(port)}


@pytest.mark.parametrize("of_one", [_slurm, pytest.param(_open_mpi, marks=pytest.mark.slow)], ids=["slurm", "open mpi"])
def test_two_processes_find_each_other(of_one):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    around = {name: value for name, value in os.environ.items() if not name.startswith(OF_CLUSTERS)}
    around |= {"JAX_PLATFORMS": "cpu", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo", "JAX_NUM_CPU_DEVICES": "1"}
    around |= {"XLA_FLAGS": "", "no_proxy": "127.0.0.1", "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=around | of_one(number, port), stdout=subprocess.PIPE, text=True
        )
        for number in range(2)
    ]
    try:
        for process in both:
            out, _ = process.communicate(timeout=120)
            assert out.splitlines()[-1] == "2 ['I am 0', 'I am 1']"
    finally:
        for process in both:
            process.kill()
            process.wait()

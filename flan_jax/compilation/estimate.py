"""From compiled programs to the cost of a step: memory, computation, communication and time."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np

from flan_jax import models, partitioning
from flan_jax.compilation import communication, hlo, program
from flan_jax.compilation.topology import Topology
from flan_jax.errors import FlanError
from flan_jax.models import costs
from flan_jax.training import optimizers

PAPER_STEPS = 30_000


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to compile.

    Attributes:
      config: the model, and how it is computed.
      mesh: sizes of data, fsdp and tensor.
      shape: the shape of the batch.
      score: whether to compile a scorer's forward pass and not the training step.
    """

    config: models.DecoderConfig
    mesh: dict[str, int]
    shape: program.Shape
    score: bool = False


def estimate(plan: Plan, topology: Topology, memory_only: bool = False) -> dict[str, Any]:
    """Compiles for the topology and reports the costs. Unless it says otherwise, a figure is for one device.

    Memory and collectives are those of the whole program. Collectives in loops are counted as often as the loops run,
    and so are the cycles that the compiler schedules (`scheduled_seconds`). The compiler's own FLOPs and seconds count
    a loop only once. So they are taken from programs with one and two layers and without loops, and extrapolated
    linearly. If the compiler gives no seconds, those of the scheduled cycles are used (`compute_source`).

    Args:
      plan: what to compile.
      topology: the devices.
      memory_only: whether to leave out FLOPs and the compiler's seconds, which saves two of three compilations.

    Returns:
      A tree of figures that JSON can hold: bytes, seconds, FLOPs. `fits` says whether the device has enough memory.

    Raises:
      FlanError: the plan does not fit the number of devices or the model.
    """
    mesh = partitioning.make_mesh(**plan.mesh, devices=topology.devices)
    tpu = mesh.devices.flat[0].platform == "tpu"
    lower = program.lower_scoring if plan.score else program.lower_train_step
    report: dict[str, Any] = {
        "topology": topology.name,
        "slices": topology.slices,
        "mesh": dict(mesh.shape),
        "rows": plan.shape.rows,
        "remat": plan.config.remat,
        "attention": plan.config.attention,
        "program": "scoring" if plan.score else "training step",
        "hbm_bytes": topology.chip.hbm_bytes / topology.chip.devices,
    }
    try:
        whole = program.compile_program(*lower(plan.config, mesh, plan.shape), tpu=tpu)
    except program.TooLargeError as error:
        return report | {"fits": False, "memory": {"peak": error.needed}, "reason": str(error).partition("\n")[0][:300]}
    report |= {"fits": True, "memory": whole.memory}
    devices = mesh.devices.ravel()
    report["communication"] = by_kind(hlo.collectives(whole.text), devices, topology)
    report["scheduled_seconds"] = hlo.cycles(whole.text) / topology.chip.clock
    if memory_only:
        return report

    def of_layers(number: int) -> program.Compiled:
        config = with_layers(plan.config, number)
        return program.compile_program(*lower(config, mesh, plan.shape), tpu=tpu, straight=True)

    one, two = of_layers(1), of_layers(2)
    layers = plan.config.num_layers
    report["flops"] = extrapolated(one.flops, two.flops, layers)
    report |= computation(extrapolated(one.seconds, two.seconds, layers), report["scheduled_seconds"])
    return report | step_figures(report, plan, topology)


def with_layers(config: models.DecoderConfig, number: int) -> models.DecoderConfig:
    """The model with fewer layers, each kind in its share, and without loops.

    Raises:
      FlanError: encoder and decoder have different numbers of layers.
    """
    if config.num_encoder_layers not in (0, config.num_layers):
        raise FlanError("precompile: an encoder has to be as deep as its decoder.")
    encoder = number if config.num_encoder_layers else 0
    return dataclasses.replace(config, num_layers=number, num_encoder_layers=encoder, unroll=True)


def extrapolated(one: float, two: float, layers: int) -> float:
    """The quantity for `layers` layers, from those for one and two layers.

    Example:
      >>> extrapolated(10.0, 13.0, 4)
      19.0
    """
    return one + (two - one) * (layers - 1)


def computation(seconds: float, scheduled: float) -> dict[str, Any]:
    """The seconds of a step's computation, and which of two sources they come from.

    Args:
      seconds: the compiler's own, or NaN.
      scheduled: the seconds of its scheduled cycles.
    """
    if np.isnan(seconds):
        return {"compute_seconds": scheduled, "compute_source": "scheduled cycles"}
    return {"compute_seconds": seconds, "compute_source": "one and two layers"}


def by_kind(found: list[hlo.Collective], devices: np.ndarray, topology: Topology) -> dict[str, Any]:
    """Counts, bytes and seconds of a step's collectives by kind and size of group; and the sum of the seconds."""
    kinds: dict[str, dict[str, float]] = collections.defaultdict(lambda: {"count": 0, "bytes": 0.0, "seconds": 0.0})
    halved = communication.with_their_reverse(found)
    for collective in found:
        if collective.groups.shape[1] < 2:
            continue
        seconds = communication.seconds(collective, devices, topology) / (2 if collective.name in halved else 1)
        entry = kinds[f"{collective.kind} of {collective.groups.shape[1]}"]
        entry["count"] += collective.count
        entry["bytes"] += collective.count * collective.size
        entry["seconds"] += collective.count * seconds
    return {"kinds": dict(kinds), "seconds": sum(entry["seconds"] for entry in kinds.values())}


def step_figures(report: dict[str, Any], plan: Plan, topology: Topology) -> dict[str, Any]:
    """Times, rates and the share of the peak, from the seconds of computation and communication."""
    compute, network = report["compute_seconds"], report["communication"]["seconds"]
    overlapped, serial = max(compute, network), compute + network
    slots = plan.shape.rows * (plan.shape.inputs + plan.shape.targets)
    useful = model_flops(plan)
    peak = topology.chip.peak_flops * topology.chips
    return {
        "step_seconds": {"overlapped": overlapped, "serial": serial},
        "tokens_per_second": {"overlapped": slots / overlapped, "serial": slots / serial},
        "mfu": {"overlapped": useful / peak / overlapped, "serial": useful / peak / serial},
        "hours_of_the_paper": {"overlapped": PAPER_STEPS * overlapped / 3600, "serial": PAPER_STEPS * serial / 3600},
        "floor_seconds": useful / peak,
    }


def model_flops(plan: Plan) -> float:
    """The FLOPs that the model's definition needs; see `models.costs`.

    Attention counts the slots before a query (in an encoder all slots), as if a row were one segment.
    """
    shape, rows = plan.shape, plan.shape.rows
    inputs, targets = shape.inputs, shape.targets
    length = targets if plan.config.num_encoder_layers else inputs + targets
    work = costs.Work(
        slots=rows * length,
        head_slots=rows * shape.capacities(plan.config)[1],
        pairs=rows * length * length / 2,
        encoder_slots=rows * inputs,
        encoder_pairs=rows * inputs * inputs,
        cross_pairs=rows * inputs * targets,
    )
    found = costs.products(plan.config, work)
    if plan.score:
        return found.forward_flops
    tuning = optimizers.Tuning.of(shape.optimizer)
    return found.step_flops(tuning.shares(tuning.adapted(models.build(plan.config))))

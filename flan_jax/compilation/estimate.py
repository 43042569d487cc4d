"""From compiled programs to what a step takes: memory, computation, communication, time."""

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
      config: the model, with how it is computed.
      mesh: sizes of data, fsdp and tensor.
      shape: of the batch.
      score: a scorer's forward pass instead of the training step.
    """

    config: models.DecoderConfig
    mesh: dict[str, int]
    shape: program.Shape
    score: bool = False


def estimate(plan: Plan, topology: Topology, memory_only: bool = False) -> dict[str, Any]:
    """Compiles for the topology and reports, for one device where nothing else is said.

    The memory and the collectives are those of the whole program; the collectives in its loops are counted as often as
    the loops run, and so are the cycles that the compiler schedules (`scheduled_seconds`). The compiler's FLOPs and
    seconds count a loop once, so they are taken from programs of one and two layers without loops, and continued in a
    straight line. Where the compiler gives no seconds, those of the scheduled cycles stand for them
    (`compute_source`).

    Args:
      plan: what to compile.
      topology: for which devices.
      memory_only: leave out FLOPs and the compiler's seconds, and so two of three compilations.

    Returns:
      A tree of figures as JSON holds it: bytes, seconds, FLOPs. `fits` says whether the device's memory suffices.

    Raises:
      FlanError: the plan does not fit the devices' number or the model.
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
    """The model with fewer layers, of each kind in its share, and without loops.

    Raises:
      FlanError: an encoder and a decoder of unlike depth, which one number of layers cannot stand for.
    """
    if config.num_encoder_layers not in (0, config.num_layers):
        raise FlanError("precompile: an encoder has to be as deep as its decoder.")
    encoder = number if config.num_encoder_layers else 0
    return dataclasses.replace(config, num_layers=number, num_encoder_layers=encoder, unroll=True)


def extrapolated(one: float, two: float, layers: int) -> float:
    """A quantity of so many layers from what one and two layers take."""
    return one + (two - one) * (layers - 1)


def computation(seconds: float, scheduled: float) -> dict[str, Any]:
    """What a step's computation takes, in seconds, and which of two accounts says so.

    Args:
      seconds: the compiler's own, or not a number.
      scheduled: by its cycles.
    """
    if np.isnan(seconds):
        return {"compute_seconds": scheduled, "compute_source": "scheduled cycles"}
    return {"compute_seconds": seconds, "compute_source": "one and two layers"}


def by_kind(found: list[hlo.Collective], devices: np.ndarray, topology: Topology) -> dict[str, Any]:
    """Counts, bytes and seconds of collectives a step by kind and size of group, and their sum in seconds."""
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
    """Times, rates and the share of the peak, from the computation's and the communication's seconds."""
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
    """FLOPs that the model's definition asks for; see `models.costs`.

    Attention counts the slots before a query (all of them in an encoder), as if a row were one segment.
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

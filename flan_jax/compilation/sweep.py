"""Tries meshes and remat policies one after another, each compiled in a process of its own, and ranks them.

One compilation of three shows whether a candidate fits, what it communicates, and how many cycles are scheduled. The
best ones by that are estimated in full.
"""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flan_jax import models
from flan_jax.compilation.topology import Topology
from flan_jax.models import costs

COMMAND = (sys.executable, "-m", "flan_jax.precompile")
POLICIES = ("save_dots", "save_attention", "full")  # from least computation to least memory
FINALISTS = 3  # how many are estimated in full


def meshes(config: models.DecoderConfig, rows: int, topology: Topology) -> Iterator[dict[str, int]]:
    """The meshes that divide the model and the rows, so that every device has rows, heads and units to compute."""
    total = len(topology.devices)
    for tensor in _divisors(total):
        if config.num_heads % tensor or config.mlp_dim % tensor:
            continue
        for fsdp in _divisors(total // tensor):
            data = total // tensor // fsdp
            if rows % (data * fsdp) == 0 and data % topology.slices == 0:
                yield {"data": data, "fsdp": fsdp, "tensor": tensor}


def parameter_bytes(config: models.DecoderConfig, mesh: dict[str, int]) -> float:
    """The bytes of parameters and their gradients on one device, in float32. Training needs at least these."""
    return 8.0 * costs.parameters(config) / (mesh["fsdp"] * mesh["tensor"])


def candidates(
    config: models.DecoderConfig, rows: int, topology: Topology, policies: Sequence[str] = POLICIES
) -> list[tuple[dict[str, int], str]]:
    """(mesh, remat policy) pairs whose parameters and gradients alone would fit."""
    limit = topology.chip.hbm_bytes / topology.chip.devices
    return [
        (mesh, policy)
        for mesh in meshes(config, rows, topology)
        if parameter_bytes(config, mesh) < limit
        for policy in policies
    ]


def ranked(
    commands: Sequence[Sequence[str]],
    jobs: int,
    done: Callable[[dict[str, Any]], None] = lambda report: None,
) -> list[dict[str, Any]]:
    """Ranked reports for precompile's command lines.

    First come those estimated in full, the fastest first, then the others, then those that do not fit.

    Args:
      commands: a list of options for each.
      jobs: number of processes at a time.
      done: called with each report as it comes.
    """
    first = run([[*command, "--memory"] for command in commands], jobs, done)
    best = [report for report in first if report["fits"]][:FINALISTS]
    full = run([report["command"].removesuffix(" --memory").split() for report in best], jobs, done)
    return full + first[len(best) :]


def run(
    commands: Sequence[Sequence[str]], jobs: int, done: Callable[[dict[str, Any]], None] = lambda report: None
) -> list[dict[str, Any]]:
    """Runs precompile's command lines, `jobs` at a time, and ranks their reports.

    First come those that fit, the fastest first. A process that fails gives a report that does not fit, with its last
    line as the reason.
    """

    def one(arguments: Sequence[str]) -> dict[str, Any]:
        command = [*COMMAND, *arguments, "--json"]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            report = json.loads(process.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            lines = process.stderr.strip().splitlines()
            report = {"fits": False, "reason": lines[-1] if lines else f"exit status {process.returncode}"}
        report["command"] = " ".join(arguments)
        done(report)
        return report

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        reports = list(pool.map(one, commands))
    return sorted(reports, key=_rank)


def _rank(report: dict[str, Any]) -> tuple[bool, float]:
    if "step_seconds" in report:
        return not report["fits"], report["step_seconds"]["serial"]
    seconds = report.get("scheduled_seconds", float("inf"))
    return not report["fits"], seconds + report.get("communication", {}).get("seconds", 0.0)


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]

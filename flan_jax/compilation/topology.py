"""The devices of a TPU slice that is not here, for the compiler."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any

import jax

from flan_jax.chips import Chip, chip
from flan_jax.errors import FlanError
from flan_jax.quiet import describe_tpu

_FLAGS, _OF_CPUS = "XLA_FLAGS", "--xla_cpu_"


@dataclasses.dataclass(frozen=True)
class Topology:
    """One or several equal slices.

    Attributes:
      name: as given, for example "v3:8x8".
      chip: what each chip can do.
      shape: number of chips along each axis of one slice.
      slices: number of slices, joined by the data-centre network.
      devices: abstract devices, for a mesh.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]
    slices: int
    devices: Sequence[Any]

    @property
    def chips(self) -> int:
        """The number of chips in all slices."""
        return len(self.devices) // self.chip.devices

    def ring(self, axis: int) -> bool:
        """Whether the chips along an axis form a ring."""
        return self.shape[axis] % self.chip.wraps == 0


def load(name: str, slices: int = 1) -> Topology:
    """The topology with a name such as "v3:8x8" or "v5p:4x4x8".

    Raises:
      FlanError: the name has another form, or no TPU compiler is installed.
    """
    generation, _, grid = name.partition(":")
    found = chip(generation)
    if not re.fullmatch(r"\d+(x\d+){1,2}", grid) or slices < 1:
        raise FlanError(f"--topology={name} --slices={slices}: write GENERATION:CHIPSxCHIPS[xCHIPS], such as v3:8x8.")
    if importlib.util.find_spec("libtpu") is None:
        raise FlanError("the TPU compiler is not installed: pip install -e '.[tpu]' (libtpu; no TPU is needed).")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # this is no TPU machine, so nothing would answer
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    describe_tpu()
    # No device is in use, so several processes may compile at the same time.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    more: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if found.configuration:
        more["chip_config_name"] = found.configuration
    try:
        _hide_flags_of_cpus()
        described = topologies.get_topology_desc(platform="tpu", topology_name=name, **more)
    except Exception as error:  # the plug-in's errors have no type of their own
        reason = str(error).strip().partition("\n")[0][:200]
        raise FlanError(f"--topology={name}: the TPU compiler knows no such slice ({reason}).") from error
    return Topology(name, found, tuple(int(n) for n in grid.split("x")), slices, described.devices)


def _hide_flags_of_cpus() -> None:
    """Removes CPU flags from XLA_FLAGS, because the TPU's compiler ends the process for a flag that it does not know.

    It reads the flags when it first compiles. JAX's own backend reads them when it starts, so it is started before.
    """
    flags = os.environ.get(_FLAGS, "").split()
    others = [flag for flag in flags if not flag.startswith(_OF_CPUS)]
    if len(others) < len(flags):
        jax.devices("cpu")
        os.environ[_FLAGS] = " ".join(others)

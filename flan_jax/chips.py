"""What accelerators can do: TPUs by generation, and peak speeds by JAX's device name, with sources."""

from __future__ import annotations

import dataclasses

from flan_jax.errors import unknown_name

GB, GIB = 1e9, 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation of TPU chips.

    Attributes:
      peak_flops: bfloat16 operations a second of one chip; a multiply-add counts as two.
      hbm_bytes: memory of one chip, in bytes.
      hbm_bandwidth: bytes a second between that memory and the cores.
      link_bandwidth: bytes a second over one link to a neighbour, one way.
      wraps: an axis of a slice is a ring if its length is a multiple of this; otherwise it is a line.
      devices: how many devices JAX counts for one chip.
      clock: cycles a second of a core. It follows from the peak and the published number of multipliers.
      network_bandwidth: bytes a second that one chip can send to other slices.
      source: where these numbers are published.
      configuration: the compiler's name for how the cores of a chip work together, if its default is another one.
    """

    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    link_bandwidth: float
    wraps: int
    devices: int
    clock: float
    network_bandwidth: float
    source: str
    configuration: str | None = None


# The vendor gives the bidirectional ICI bandwidth of a chip. We divide it by its links (4 in a 2D torus, 6 in 3D) and
# by two directions. For v3: 656 Gbit/s a link and direction, which also fits its 340 TB/s of all-reduce over 1,024
# chips of 4 links.
CHIPS = {
    "v3": Chip(
        *(123e12, 32 * GIB, 900 * GB, 82 * GB, 8, 2, 940e6, 6.25 * GB),
        "docs.cloud.google.com/tpu/docs/v3; links: Norrie et al. 2021, The Design Process for Google's Training Chips",
    ),
    "v4": Chip(
        *(275e12, 32 * GIB, 1200 * GB, 50 * GB, 4, 1, 1050e6, 6.25 * GB),
        "docs.cloud.google.com/tpu/docs/v4; links: Jouppi et al. 2023, TPU v4 (arXiv 2304.01433)",
        "megacore",
    ),
    "v5p": Chip(
        *(459e12, 95 * GIB, 2765 * GB, 100 * GB, 4, 1, 1750e6, 6.25 * GB),
        "docs.cloud.google.com/tpu/docs/v5p (1,200 GB/s of 6 links; network 50 Gbit/s a chip)",
    ),
    "v5e": Chip(
        *(197e12, 16 * GIB, 819 * GB, 50 * GB, 16, 1, 1500e6, 3.125 * GB),
        "docs.cloud.google.com/tpu/docs/v5e (400 GB/s of 4 links; network 6.4 Tbit/s of 256 chips)",
    ),
    "v6e": Chip(
        *(918e12, 32 * GIB, 1638 * GB, 100 * GB, 16, 1, 1750e6, 12.5 * GB),
        # Versions of that page say 2 or 4 arrays of 256 x 256. By the compiler's cycles, a large product does 409
        # thousand operations a cycle, and 2 arrays could not do that. So we take 4, and get the clock from that and the
        # peak.
        "docs.cloud.google.com/tpu/docs/v6e (800 GB/s of 4 links); network: jax-ml.github.io/scaling-book/tpus",
    ),
}


def chip(generation: str) -> Chip:
    """The chip of a TPU generation, for example "v5e".

    Raises:
      FlanError: the generation is not in the table; the message has near matches.

    Example:
      >>> chip("v5e").devices
      1
    """
    if generation not in CHIPS:
        raise unknown_name("TPU generation", generation, CHIPS)
    return CHIPS[generation]


# JAX's device names of each generation.
_KINDS = {"TPU v3": "v3", "TPU v4": "v4", "TPU v5": "v5p", "TPU v5p": "v5p", "TPU v5 lite": "v5e", "TPU v5e": "v5e"}
_KINDS |= {"TPU v6 lite": "v6e", "TPU v6e": "v6e"}
# GPUs: dense speeds from the vendor's data sheets.
_GPU_PEAKS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H200": 989.4e12,
}


def peak_flops(kind: str) -> float | None:
    """The peak of a device in bfloat16 operations a second.

    Args:
      kind: the device's name in JAX, `jax.Device.device_kind`.

    Returns:
      Operations a second, or None for a device that is not in the table.

    Example:
      >>> peak_flops("NVIDIA H100 80GB HBM3") / 1e12
      989.4
      >>> peak_flops("cpu") is None
      True
    """
    if kind in _KINDS:
        found = CHIPS[_KINDS[kind]]
        return found.peak_flops / found.devices
    return _GPU_PEAKS.get(kind)

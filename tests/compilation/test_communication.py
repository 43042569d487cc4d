import dataclasses
import itertools

import numpy as np
import pytest

from flan_jax.chips import CHIPS
from flan_jax.compilation import communication
from flan_jax.compilation.hlo import Collective
from flan_jax.compilation.topology import Topology
from flan_jax.errors import FlanError

MB = 1e6


@dataclasses.dataclass(frozen=True)
class Device:
    coords: tuple[int, ...]
    core_on_chip: int
    slice_index: int = 0


def _slice(generation, shape, slices=1):
    chip = CHIPS[generation]
    places = itertools.product(range(slices), *(range(n) for n in shape), range(chip.devices))
    devices = [Device(tuple(place[1:-1]), place[-1], place[0]) for place in places]
    return np.array(devices, object), Topology(generation, chip, shape, slices, devices)


def _seconds(kind, members, devices, topology, size=100 * MB):
    return communication.seconds(Collective(kind, size, np.array([members]), 1, "c"), devices, topology)


def test_a_ring_has_links_both_ways():
    devices, topology = _slice("v5e", (16, 16))
    row = list(range(16))
    assert _seconds("all-gather", row, devices, topology) == pytest.approx(100 * MB * 15 / 16 / (2 * 50e9))
    assert _seconds("all-reduce", row, devices, topology) == pytest.approx(2 * 100 * MB * 15 / 16 / (2 * 50e9))


def test_a_part_of_a_ring_and_a_short_axis_are_lines():
    devices, topology = _slice("v5e", (16, 16))
    assert _seconds("all-gather", range(4), devices, topology) == pytest.approx(100 * MB * 3 / 4 / 50e9)
    devices, topology = _slice("v5e", (8, 8))  # only axes of 16 close
    assert _seconds("all-gather", range(8), devices, topology) == pytest.approx(100 * MB * 7 / 8 / 50e9)


def test_groups_that_take_turns_along_an_axis_share_its_links():
    devices, topology = _slice("v5e", (16, 16))
    every_fourth = [0, 4, 8, 12]  # around the ring, as three other groups are
    assert _seconds("all-gather", every_fourth, devices, topology) == pytest.approx(100 * MB * 3 / 4 / (2 * 50e9 / 4))
    assert _seconds("all-gather", [0, 2], devices, topology) == pytest.approx(100 * MB / 2 / (50e9 / 2))


def test_two_axes_at_once():
    devices, topology = _slice("v5e", (16, 16))
    assert _seconds("reduce-scatter", range(256), devices, topology) == pytest.approx(100 * MB * 255 / 256 / (4 * 50e9))


def test_devices_of_a_chip_share_its_links():
    devices, topology = _slice("v3", (8, 8))
    apart = [i for i, d in enumerate(devices) if d.coords[0] == 0 and d.core_on_chip == 0]  # 8 chips, one core of each
    together = [i for i, d in enumerate(devices) if d.coords[0] == 0]  # both cores
    one_group = 100 * MB * 7 / 8 / (2 * 82e9)
    assert _seconds("all-gather", together, devices, topology) == pytest.approx(one_group)
    assert _seconds("all-gather", apart, devices, topology) == pytest.approx(2 * one_group)
    assert _seconds("all-gather", [0, 1], devices, topology) == 0.0


def test_between_slices_the_network_counts():
    devices, topology = _slice("v5e", (4, 4), slices=2)
    # the same chip of two slices: each sends half of what it holds
    assert _seconds("all-gather", [0, 16], devices, topology) == pytest.approx(100 * MB / 2 / 3.125e9)
    # four chips of each slice carry a quarter each
    both = [0, 1, 2, 3, 16, 17, 18, 19]
    assert _seconds("all-gather", both, devices, topology) == pytest.approx(
        100 * MB / 4 / 2 / 3.125e9 + 100 * MB * 3 / 4 / 50e9
    )


def test_all_to_all_on_a_ring():
    devices, topology = _slice("v5e", (16, 16))
    # every chip sends 15/16 of what it holds over 4 hops on the mean, and there are two links
    assert _seconds("all-to-all", range(16), devices, topology) == pytest.approx(100 * MB * 15 / 16 * 4 / (2 * 50e9))


def _permutation(pairs, name="c"):
    return Collective("collective-permute", 100 * MB, np.array(pairs), 1, name)


def test_a_permutation_takes_its_busiest_link():
    devices, topology = _slice("v5e", (16, 16))
    seconds = lambda *pairs: communication.seconds(_permutation(pairs), devices, topology) / (100 * MB / 50e9)  # noqa: E731
    assert (
        seconds([0, 1]) == seconds([0, 15 * 16]) == seconds([0, 3]) == 1
    )  # one hop, one over the wrap, three in a row
    assert seconds([0, 3], [1, 2]) == 2  # the way of the first goes over the link of the second
    assert seconds([0, 3], [3, 0]) == seconds([0, 3], [16, 19]) == 1  # two directions, two rows
    assert seconds([0, 0]) == 0
    assert seconds(*[[i, (i + 2) % 16] for i in range(16)]) == 2  # every link has two ways
    ring_of_8_in_a_box = [0, 1, 2, 3, 19, 18, 17, 16]
    around = list(zip(ring_of_8_in_a_box, np.roll(ring_of_8_in_a_box, -1), strict=True))
    assert seconds(*around) == 1


def test_the_devices_of_a_chip_send_over_the_same_links():
    devices, topology = _slice("v3", (8, 8))
    both = [[0, 16], [1, 17]]  # both cores of a chip to its neighbour
    assert communication.seconds(_permutation(both), devices, topology) == pytest.approx(2 * 100 * MB / 82e9)


def test_permutations_and_their_reverse_run_together():
    ring = [[i, (i + 1) % 4] for i in range(4)]
    back = [[b, a] for a, b in ring]
    swap = [[0, 1], [1, 0]]
    found = [
        _permutation(pairs, name) for pairs, name in ((ring, "on"), (back, "back"), (swap, "swap"), (ring, "more"))
    ]
    assert communication.with_their_reverse(found) == {"on", "back", "more"}
    assert communication.with_their_reverse(found[2:]) == set()


@pytest.mark.parametrize("name", list(CHIPS))
def test_the_table_is_of_the_published_order(name):
    """Against the roofline figures that jax-ml.github.io/scaling-book/tpus gives, which round differently."""
    flops, memory, link = {
        "v3": (1.4e14, 9.0e11, 1.0e11),
        "v4": (2.75e14, 1.2e12, 4.5e10),
        "v5p": (4.59e14, 2.8e12, 9e10),
        "v5e": (1.97e14, 8.2e11, 4.5e10),
        "v6e": (9.2e14, 1.6e12, 9e10),
    }[name]
    chip = CHIPS[name]
    assert chip.peak_flops == pytest.approx(flops, rel=0.15)
    assert chip.hbm_bandwidth == pytest.approx(memory, rel=0.05)
    assert chip.link_bandwidth == pytest.approx(link, rel=0.2)
    assert chip.source
    multipliers = {"v3": 4 * 128**2, "v4": 8 * 128**2, "v5p": 8 * 128**2, "v5e": 4 * 128**2, "v6e": 4 * 256**2}
    assert chip.clock * multipliers[name] * 2 == pytest.approx(flops if name != "v3" else 123e12, rel=0.01)


def test_an_unknown_generation_has_near_matches():
    from flan_jax.chips import chip

    with pytest.raises(FlanError, match="v5p"):
        chip("v5")

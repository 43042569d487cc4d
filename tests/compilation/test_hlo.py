import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from flan_jax import partitioning
from flan_jax.compilation import hlo
from flan_jax.errors import FlanError

SIZE = 64  # elements of the whole array, float32


@pytest.fixture(scope="module")
def mesh():
    return partitioning.make_mesh(1, 2, 4)


def _compiled(mesh, function, spec_in, spec_out, trips=0):
    """The text of a program that runs `function` on each device, `trips` times in a loop if there are any."""

    def looped(x):
        step = lambda x, _: (function(x).sum() + x, None)  # noqa: E731
        return jax.lax.scan(step, x, None, length=trips)[0]

    body = looped if trips else function
    mapped = jax.shard_map(body, mesh=mesh, in_specs=spec_in, out_specs=spec_out, check_vma=False)
    return jax.jit(mapped).lower(jnp.zeros(SIZE)).compile().as_text()


T = PartitionSpec("tensor")
WHOLE = PartitionSpec()


@pytest.mark.parametrize(
    ("kind", "function", "spec_in", "spec_out", "size"),
    [
        ("all-gather", lambda x: jax.lax.all_gather(x, "tensor", tiled=True), T, WHOLE, SIZE * 4),
        ("all-reduce", lambda x: jax.lax.psum(x, "tensor"), WHOLE, WHOLE, SIZE * 4),
        ("reduce-scatter", lambda x: jax.lax.psum_scatter(x, "tensor", tiled=True), WHOLE, T, SIZE * 4),
        ("all-to-all", lambda x: jax.lax.all_to_all(x, "tensor", 0, 0, tiled=True), T, T, SIZE),
    ],
)
def test_bytes_and_groups_of_each_kind(mesh, kind, function, spec_in, spec_out, size):
    found = hlo.collectives(_compiled(mesh, function, spec_in, spec_out))
    assert [(c.kind, c.size, c.count) for c in found] == [(kind, size, 1)]
    # devices 0-3 are the first half of fsdp, 4-7 the second
    np.testing.assert_array_equal(np.sort(found[0].groups, axis=None), np.arange(8))
    assert sorted(map(sorted, found[0].groups.tolist())) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_groups_across_the_other_axis(mesh):
    found = hlo.collectives(_compiled(mesh, lambda x: jax.lax.psum(x, "fsdp"), WHOLE, WHOLE))
    assert sorted(map(sorted, found[0].groups.tolist())) == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_partners_of_a_permutation(mesh):
    ring = [(i, (i + 1) % 4) for i in range(4)]
    found = hlo.collectives(_compiled(mesh, lambda x: jax.lax.ppermute(x, "tensor", ring), T, T))
    assert [(c.kind, c.size) for c in found] == [("collective-permute", SIZE)]
    assert [0, 1] in found[0].groups.tolist() and [7, 4] in found[0].groups.tolist()


@pytest.mark.parametrize("trips", [3, 11])
def test_a_loop_counts_as_often_as_it_runs(mesh, trips):
    found = hlo.collectives(_compiled(mesh, lambda x: jax.lax.psum(x, "tensor"), WHOLE, WHOLE, trips))
    assert [(c.kind, c.count) for c in found] == [("all-reduce", trips)]


def test_loops_within_loops(mesh):
    def inner(x):
        return jax.lax.scan(lambda x, _: (x + jax.lax.psum(x, "tensor"), None), x, None, length=5)[0]

    found = hlo.collectives(_compiled(mesh, inner, WHOLE, WHOLE, trips=7))
    assert sum(c.count for c in found) == 35


# As the TPU's compiler writes them, which the CPU's does not.
ASYNCHRONOUS = """
HloModule m

ENTRY %main (p: bf16[16,8]) -> bf16[128,8] {
  %p = bf16[16,8]{1,0} parameter(0)
  %start = (bf16[16,8]{1,0}, bf16[128,8]{1,0}) all-gather-start(%p), replica_groups=[4,8]<=[8,4]T(1,0), dimensions={0}
  ROOT %done = bf16[128,8]{1,0} all-gather-done(%start)
}
"""


def test_asynchronous_gathers_and_iota_groups():
    (found,) = hlo.collectives(ASYNCHRONOUS)
    assert (found.kind, found.size, found.count) == ("all-gather", 128 * 8 * 2, 1)
    np.testing.assert_array_equal(found.groups, np.arange(32).reshape(8, 4).T)


def test_tuples_are_summed():
    text = ASYNCHRONOUS.replace(
        "%start = (bf16[16,8]{1,0}, bf16[128,8]{1,0}) all-gather-start(%p), replica_groups=[4,8]<=[8,4]T(1,0)",
        "%start = (f32[6]{0}, bf16[4]{0}) all-reduce(%p, %p), replica_groups={{0,1},{2,3}}",
    )
    (found,) = hlo.collectives(text)
    assert found.size == 6 * 4 + 4 * 2
    assert found.groups.tolist() == [[0, 1], [2, 3]]


def test_groups_as_axes_of_a_mesh():
    def groups(text):
        program = ASYNCHRONOUS.replace("[4,8]<=[8,4]T(1,0)", text)
        return hlo.collectives(program)[0].groups

    numbers = np.arange(8).reshape(2, 4)
    np.testing.assert_array_equal(groups("mesh['a'=2,'b'=4] {'b'}"), numbers)
    np.testing.assert_array_equal(groups("mesh['a'=2,'b'=4] {'a'}"), numbers.T)
    np.testing.assert_array_equal(groups("mesh['a'=2,'b'=4] {'b':(2)2}"), np.arange(8).reshape(4, 2))
    np.testing.assert_array_equal(groups("mesh['a'=2,'b'=4] {'b':(1)2}"), [[0, 2], [1, 3], [4, 6], [5, 7]])
    np.testing.assert_array_equal(groups("mesh['a'=2,'b'=4] {'a','b'}"), [np.arange(8)])


def test_groups_that_cannot_be_read_are_refused():
    with pytest.raises(FlanError, match="replica_groups=new_way"):
        hlo.collectives(ASYNCHRONOUS.replace("[4,8]<=[8,4]T(1,0)", "new_way"))


def test_a_reduction_and_a_slice_in_one_are_a_reduce_scatter():
    text = """
HloModule m, num_partitions=8

%add (a: bf16[], b: bf16[]) -> bf16[] {
  %a = bf16[] parameter(0)
  %b = bf16[] parameter(1)
  ROOT %sum = bf16[] add(%a, %b)
}

%all-reduce-scatter.4 (input: bf16[64,8]) -> bf16[8,8] {
  %input = bf16[64,8]{1,0} parameter(0)
  %pad.1 = bf16[72,8]{1,0} pad(%input), padding=0_8x0_0
  %all-reduce.1 = bf16[72,8]{1,0} all-reduce(%pad.1), replica_groups={}, to_apply=%add
  ROOT %slice.1 = bf16[8,8]{1,0} dynamic-slice(%all-reduce.1), dynamic_slice_sizes={8,8}
}

ENTRY %main (p: bf16[64,8]) -> bf16[8,8] {
  %p = bf16[64,8]{1,0} parameter(0)
  ROOT %fusion.1 = bf16[8,8]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.4
}
"""
    (found,) = hlo.collectives(text)
    assert (found.kind, found.size, found.groups.shape) == ("reduce-scatter", 64 * 8 * 2, (1, 8))


def test_a_gathering_spread_over_fusions_counts_once():
    text = """
HloModule m, num_partitions=8

%fused_computation.1 (a: bf16[1,8]) -> (bf16[1,8], bf16[8,8]) {
  %a = bf16[1,8]{1,0} parameter(0)
  %all-gather.1 = bf16[8,8]{1,0} all-gather(%a), channel_id=3, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %start = (bf16[1,8], bf16[8,8]) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.2 (b: bf16[1,8]) -> bf16[8,8] {
  %b = bf16[1,8]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[8,8]{1,0} all-gather(%b), channel_id=3, replica_groups=[1,8]<=[8], dimensions={0}
}

%fused_computation.3 (c: bf16[1,8]) -> bf16[8,8] {
  %c = bf16[1,8]{1,0} parameter(0)
  %all-gather.3 = bf16[8,8]{1,0} all-gather(%c), channel_id=3, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %done = bf16[8,8]{1,0} custom-call(%c, %all-gather.3), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (p: bf16[1,8]) -> bf16[8,8] {
  %p = bf16[1,8]{1,0} parameter(0)
  %fusion.1 = (bf16[1,8], bf16[8,8]) fusion(%p), kind=kCustom, calls=%fused_computation.1
  %fusion.2 = bf16[8,8]{1,0} fusion(%p), kind=kCustom, calls=%async_collective_fusion.2
  %fusion.4 = bf16[8,8]{1,0} fusion(%p), kind=kCustom, calls=%async_collective_fusion.2
  ROOT %fusion.3 = bf16[8,8]{1,0} fusion(%p), kind=kCustom, calls=%fused_computation.3
}
"""
    (found,) = hlo.collectives(text)
    assert (found.kind, found.size, found.count, found.name) == ("all-gather", 8 * 8 * 2, 1, "all-gather.1")


def test_the_trips_of_a_loop_are_read_from_its_condition():
    text = """
HloModule m, num_partitions=8

%condition (p: (s32[], f32[4])) -> pred[] {
  %limit = s32[]{:T(256)} constant(64)
  %p = (s32[], f32[4]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%body (q: (s32[], f32[4])) -> (s32[], f32[4]) {
  %q = (s32[], f32[4]) parameter(0)
  %x = f32[4] get-tuple-element(%q), index=1
  %sum = f32[4] all-reduce(%x), replica_groups={}, to_apply=%add
  ROOT %t = (s32[], f32[4]) tuple(%x, %sum)
}

ENTRY %main (a: (s32[], f32[4])) -> (s32[], f32[4]) {
  %a = (s32[], f32[4]) parameter(0)
  ROOT %loop = (s32[], f32[4]) while(%a), condition=%condition, body=%body
}
"""
    (found,) = hlo.collectives(text)
    assert (found.count, found.size) == (64, 16)
    timed = text.replace("to_apply=%add", 'to_apply=%add, backend_config={"estimated_cycles":"50"}')
    assert hlo.cycles(timed.replace("body=%body", 'body=%body, backend_config={"estimated_cycles":"7"}')) == 64 * 50 + 7
    # Unrolled by two, as the compiler does to loops that overlap a product with a gathering.
    by_two = text.replace(
        "  ROOT %t = (s32[], f32[4]) tuple(%x, %sum)",
        """  %one = s32[] constant(1)
  %c = s32[] get-tuple-element(%q), index=0
  %d = s32[]{:T(128)} add(%c, %one)
  %e = s32[]{:T(128)} add(%d, %one), metadata={op_name="x"}
  ROOT %t = (s32[], f32[4]) tuple(%e, %sum)""",
    )
    assert [c.count for c in hlo.collectives(by_two)] == [32]
    assert [c.count for c in hlo.collectives(by_two.replace("constant(64)", "constant(63)"))] == [32]

"""Every way to compute attention against one written with a loop over queries, in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import models, partitioning
from flan_jax.errors import FlanError
from flan_jax.models import attention_switch
from flan_jax.models.attention import EVERY, Slots, relative_buckets
from flan_jax.models.attention_cudnn import attend_by_cudnn
from flan_jax.models.attention_segments import How
from flan_jax.models.attention_splash import attend_by_splash
from flan_jax.models.attention_switch import attend
from flan_jax.models.relative import biases

GROUPS, PER_GROUP, HEAD_DIM = 2, 3, 8
LENGTHS = ((5, 1, 40, 9), (64, 6), (20, 33, 8))  # segments of each row of 70, then padding


def _slots(lengths=LENGTHS, length=70):
    positions, segments = np.zeros((2, len(lengths), length), np.int32)
    for b, row in enumerate(lengths):
        start = 0
        for number, size in enumerate(row, 1):
            positions[b, start : start + size], segments[b, start : start + size] = range(size), number
            start += size
    return Slots(positions, segments)


def _arrays(slots, seed=0, groups=GROUPS, per_group=PER_GROUP):
    rng = np.random.default_rng(seed)
    rows, length = slots.segments.shape
    q = rng.normal(size=(rows, length, groups, per_group, HEAD_DIM))
    k, v = rng.normal(size=(2, rows, length, groups, HEAD_DIM))
    return [x.astype(np.float32) for x in (q, k, v)]


def _naive(q, k, v, slots, window=0, softcap=0.0):
    """Output of each query from a loop over rows, queries and heads; padding has 0."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros(q.shape)
    for b, i in np.ndindex(q.shape[:2]):
        if not slots.segments[b, i]:
            continue
        seen = [j for j in range(i + 1) if slots.segments[b, j] == slots.segments[b, i]]
        if slots.branches is not None:
            seen = [j for j in seen if slots.branches[b, j] in (0, slots.branches[b, i])]
        if window:
            seen = [j for j in seen if slots.positions[b, i] - slots.positions[b, j] < window]
        for g, p in np.ndindex(q.shape[2:4]):
            scores = k[b, seen, g] @ q[b, i, g, p]
            scores = softcap * np.tanh(scores / softcap) if softcap else scores
            weights = np.exp(scores - scores.max())
            out[b, i, g, p] = weights @ v[b, seen, g] / weights.sum()
    return out


def _by(name, slots, window=0, is_global=True, **softcap):
    """Attention by a path as (q, k, v) -> out; `is_global` is traced, as in scanned layers."""
    local = {"window": window, "is_global": jnp.asarray(is_global), **softcap}
    slots = jax.tree.map(jnp.asarray, slots)
    if name == "splash":
        return lambda q, k, v: attend_by_splash(q, k, v, slots, interpret=True, **local)
    if name == "cudnn":  # the library's own fallback, with the arguments that cuDNN gets
        return lambda q, k, v: attend_by_cudnn(q, k, v, slots, slots, causal=True, library="xla", **local)
    return lambda q, k, v: attend(q, k, v, slots, slots, causal=True, block=16, implementation=name, **local)


each_path = pytest.mark.parametrize("name", ["xla", "segments", "splash", "cudnn"])
each_window = pytest.mark.parametrize(("window", "is_global"), [(0, True), (7, False), (7, True)])


def _with_gradients(function, slots, arrays):
    """Output, and gradients of its product with a random array at slots that are no padding."""
    weights = np.random.default_rng(9).normal(size=arrays[0].shape) * (slots.segments > 0)[:, :, None, None, None]

    def total(*x):
        out = function(*x)
        return (out * weights).sum(), out

    (_, out), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(*arrays)
    return out, gradients


@functools.cache
def _plain_gradients(window, softcap=0.0):
    """Gradients of plain attention, all pairs at once, which JAX derives."""
    slots = _slots()
    seen = slots.segments[:, :, None] == slots.segments[:, None, :]
    seen &= np.tril(np.ones((70, 70), bool))
    if window:
        seen &= slots.positions[:, :, None] - slots.positions[:, None, :] < window

    def plain(q, k, v):
        scores = jnp.einsum("bqgpk,bsgk->bgpqs", q, k)
        scores = jnp.where(seen[:, None, None], softcap * jnp.tanh(scores / softcap) if softcap else scores, -1e30)
        return jnp.einsum("bgpqs,bsgk->bqgpk", jax.nn.softmax(scores), v)

    return _with_gradients(plain, slots, _arrays(slots))[1]


@pytest.mark.parametrize("name", ["xla", "segments", "splash", "cudnn"])
@pytest.mark.parametrize(("window", "is_global"), [(0, True), (7, False), (7, True)])
def test_output_matches_the_loop_and_gradients_plain_attention(name, window, is_global):
    slots = _slots()
    arrays = _arrays(slots)
    out, gradients = _with_gradients(_by(name, slots, window, is_global), slots, arrays)
    seen = 0 if is_global else window
    assert np.isfinite(out).all()
    real = slots.segments > 0
    np.testing.assert_allclose(np.asarray(out)[real], _naive(*arrays, slots, seen)[real], atol=2e-5)
    for a, b in zip(gradients, _plain_gradients(seen), strict=True):
        assert np.abs(b).max() > 0.5
        np.testing.assert_allclose(a, b, atol=3e-5)


@pytest.mark.parametrize("name", ["xla", "segments", "splash"])
@pytest.mark.parametrize(("window", "is_global"), [(0, True), (7, False)])
def test_scores_within_a_soft_cap(name, window, is_global):
    slots, softcap = _slots(), 1.5  # the scores themselves go to about 10
    arrays = _arrays(slots)
    out, gradients = _with_gradients(_by(name, slots, window, is_global, softcap=softcap), slots, arrays)
    real, seen = slots.segments > 0, 0 if is_global else window
    assert np.isfinite(out).all()
    np.testing.assert_allclose(np.asarray(out)[real], _naive(*arrays, slots, seen, softcap)[real], atol=2e-5)
    assert np.abs(_naive(*arrays, slots, seen, softcap) - _naive(*arrays, slots, seen)).max() > 0.1
    for a, b in zip(gradients, _plain_gradients(seen, softcap), strict=True):
        assert np.abs(b).max() > 0.3
        np.testing.assert_allclose(a, b, atol=3e-5)


def test_cudnn_has_no_soft_cap():
    slots = _slots()
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in _arrays(slots))
    with pytest.raises(FlanError, match="attention='cudnn' takes no soft-cap of its scores: set attention='xla'"):
        attend(q, k, v, slots, slots, causal=True, softcap=2.0, implementation="cudnn")


@pytest.mark.parametrize("name", ["segments", "splash"])
def test_bfloat16_is_near_float32(name):
    slots = _slots()
    coarse = [jnp.asarray(x, jnp.bfloat16) for x in _arrays(slots)]
    exact = [np.asarray(x, np.float32) for x in coarse]
    out, gradients = _with_gradients(_by(name, slots), slots, coarse)
    assert out.dtype == jnp.bfloat16
    real = slots.segments > 0
    np.testing.assert_allclose(np.asarray(out, np.float32)[real], _naive(*exact, slots)[real], atol=0.03)
    for a, b in zip(gradients, _plain_gradients(0), strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(a, np.float32), b, atol=0.03 * np.abs(b).max())


@pytest.mark.parametrize("name", ["xla", "segments", "cudnn"])
def test_branches_match_the_loop(name):
    slots = _slots(((12, 30),), 48)
    branches = np.zeros_like(slots.segments)
    branches[0, 6:9], branches[0, 9:12], branches[0, 22:30], branches[0, 30:42] = 1, 2, 1, 2
    positions = slots.positions.copy()
    positions[0, 9:12] -= 3
    positions[0, 30:42] -= 8
    slots = Slots(positions, slots.segments, branches)
    q, k, v = _arrays(slots)
    real = slots.segments > 0
    out = np.asarray(jax.jit(_by(name, slots, 5, False))(q, k, v))
    np.testing.assert_allclose(out[real], _naive(q, k, v, slots, 5)[real], atol=2e-5)


@pytest.mark.parametrize("block", [7, 35, 256])
def test_segments_by_blocks_of_any_size(block):
    slots = _slots()
    q, k, v = _arrays(slots)
    real = slots.segments > 0
    function = functools.partial(attend, causal=True, block=block, implementation="segments")
    out = np.asarray(jax.jit(lambda *x: function(*x, slots, slots))(q, k, v))
    np.testing.assert_allclose(out[real], _naive(q, k, v, slots)[real], atol=2e-5)


@pytest.mark.parametrize(("window", "is_global"), [(0, True), (30, False), (30, True)])
def test_segments_and_cudnn_after_a_cache(window, is_global):
    """Three keys that every segment sees, and two of empty slots, before the row's own."""
    slots = _slots()
    real = slots.segments > 0
    own = Slots(np.where(real, slots.positions + 3, 0), slots.segments, (slots.positions > 4) * (slots.positions % 3))
    cached = [np.tile(x, (3, 1)) for x in ([0, 1, 2, 0, 0], [EVERY] * 3 + [0, 0], [0] * 5)]
    keys = Slots(*(np.concatenate(x, 1) for x in zip(cached, own, strict=True)))
    q, _, _ = _arrays(own)
    _, k, v = _arrays(keys, seed=1)

    def attended(name):
        how = {"causal": True, "window": window, "is_global": jnp.asarray(is_global)}
        function = functools.partial(attend, implementation=name, block=16, **how)
        if name == "cudnn":
            function = functools.partial(attend_by_cudnn, library="xla", **how)
        return jax.jit(function)(q, k, v, own, keys)[real]

    np.testing.assert_allclose(attended("segments"), attended("xla"), atol=2e-5)
    np.testing.assert_allclose(attended("cudnn"), attended("xla"), atol=2e-5)


@pytest.mark.parametrize("block", [16, 33, 70, 256])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross", "cross, unordered"])
def test_segments_with_biases_and_without_order(kind, block):
    """As `xla`, output and gradients, the biases' too: an encoder's rows, a decoder's, and from one to the other."""
    slots = _slots()
    q, k, v = _arrays(slots, groups=PER_GROUP, per_group=2)
    keys = slots if kind in ("encoder", "decoder") else _slots(((30, 2, 1, 9), (3, 60), (8, 20, 30)), 90)
    if kind == "cross, unordered":  # padding first, numbers that fall
        keys = Slots(keys.positions, keys.segments[:, ::-1])
    if keys is not slots:
        _, k, v = _arrays(keys, 1, PER_GROUP, 2)
    bias = np.random.default_rng(3).normal(size=(1, 2 * PER_GROUP, 70, 70)).astype(np.float32)
    real = slots.segments > 0
    weights = np.random.default_rng(9).normal(size=q.shape) * real[..., None, None, None]

    def total(name, q, k, v, bias):
        bias = bias if keys is slots else None

        def between(asked, seen):
            return bias[:, :, asked, seen].reshape(1, PER_GROUP, 2, asked.stop - asked.start, -1)

        how = {"causal": kind == "decoder", "block": block, "implementation": name}
        of_bias = {} if bias is None else {"bias": between, "by_slot_SxHxLxL": bias}
        out = attend(q, k, v, slots, keys, **how, **of_bias)
        return (out * weights).sum(), jnp.where(real[..., None, None, None], out, 0)

    found, expected = (
        jax.jit(jax.value_and_grad(functools.partial(total, name), (0, 1, 2, 3), has_aux=True))(q, k, v, bias)
        for name in ("segments", "xla")
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=3e-5)


def test_segments_leave_what_they_have_no_form_for():
    """Biases of trees: the same numbers as `xla`, which computes them."""
    slots = _slots()._replace(branches=np.zeros((3, 70), np.int32))
    arrays = _arrays(slots)
    bias = jnp.ones((3, GROUPS, PER_GROUP, 70, 70))
    how = {"causal": True, "bias": lambda asked, seen: bias[:, :, :, asked, seen]}
    found = [attend(*arrays, slots, slots, **how, implementation=name) for name in ("segments", "xla")]
    np.testing.assert_array_equal(*found)


def test_widths_reach_the_whole_row():
    assert How(128, 0).widths(1280) == (1, 2, 3, 4, 6, 9, 10)
    assert How(256, 0).widths(256) == (1,)


@pytest.mark.parametrize(("data", "tensor", "groups", "per_group"), [(4, 2, 2, 3), (2, 4, 1, 4), (2, 4, 3, 1)])
def test_splash_on_a_mesh(data, tensor, groups, per_group):
    """Key heads on the tensor axis; the queries of one key head on it; neither divisible."""
    slots = _slots((*LENGTHS, (70,)))
    arrays = _arrays(slots, groups=groups, per_group=per_group)
    mesh = partitioning.make_mesh(data=data, tensor=tensor)
    alone = _with_gradients(_by("xla", slots), slots, arrays)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        spread = [jax.device_put(x, jax.NamedSharding(mesh, jax.P("data"))) for x in arrays]
        together = _with_gradients(_by("splash", slots), slots, spread)
    real = (slots.segments > 0)[:, :, None, None, None]
    np.testing.assert_allclose(together[0] * real, alone[0] * real, atol=3e-5)
    for a, b in zip(together[1], alone[1], strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)


CONFIG = models.DecoderConfig(
    vocab_size=32,
    num_layers=2,
    embed_dim=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=24,
    window=6,
    global_every=2,
    attention_block=16,
)


def test_a_model_by_segments_has_the_same_gradients():
    slots = _slots()
    tokens = np.random.default_rng(2).integers(32, size=slots.segments.shape)
    real = (slots.segments > 0)[..., None]

    def gradient(**how):
        model = models.build(CONFIG.computed(**how))

        def total(params):
            return jnp.square(model.hidden(params, tokens, slots.positions, slots.segments) * real).sum()

        return jax.jit(jax.grad(total))(params)

    params = jax.jit(models.build(CONFIG).init)(jax.random.key(0))
    expected = gradient()
    for remat in ("save_dots", "full", "none"):
        found = gradient(attention="segments", remat=remat)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3), found, expected)


def test_segments_keep_no_mask_of_all_blocks_for_the_loop_over_layers():
    slots = _slots()
    model = models.build(CONFIG.computed(attention="segments", remat="save_dots"))
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jnp.zeros(slots.segments.shape, jnp.int32)

    def total(params):
        return model.hidden(params, tokens, slots.positions, slots.segments).sum()

    program = str(jax.make_jaxpr(jax.grad(total))(params))
    blocks, groups, queries = -(-70 // 16), 2, 2 * 16  # of 70 slots; 4 heads in 2 groups
    assert f"[{groups},{queries},{blocks * 16}]" in program  # a block's scores
    assert f"[{blocks},{groups},{queries},{blocks * 16}]" not in program


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attention": "flash"}, "attention is 'flash'; it can be xla or segments or splash or cudnn"),
        ({"attention": "cudnn"}, "'cudnn' computes in bfloat16"),
        ({"attention": "splash", "positions": "relative_bias"}, "'splash' takes no relative bias"),
        ({"attention": "cudnn", "dtype": "bfloat16", "attention_softcap": 50.0}, "'cudnn' takes no attention_softcap"),
        ({"positions": "relative_bias", "attention_softcap": 50.0}, "attention_softcap does not go with relative"),
        ({"head_dim": 7}, "head_dim is 7: rotary positions turn pairs"),
        ({"pre_norms": False}, "without pre_norms, post_norms has to be True"),
        ({"qk_norm_across_heads": True}, "says how qk_norm is done"),
        ({"positions": "relative_bias", "num_encoder_layers": 2, "post_norms": True}, "no post_norms"),
    ],
)
def test_configurations_that_cannot_be(changed, message):
    with pytest.raises(FlanError, match=message):
        dataclasses.replace(CONFIG, **changed)


def test_refusals():
    slots = _slots()
    q, k, v = (jnp.asarray(x) for x in _arrays(slots))
    tree = slots._replace(branches=slots.segments)
    for name, keys, how, message in (
        ("splash", tree, {}, "'splash' knows no branches of scoring trees: set attention='xla'"),
        ("splash", slots, {"causal": False}, "is causal self-attention only"),
        ("splash", slots, {"bias": lambda *_: 0.0}, "takes no relative bias"),
        ("cudnn", slots, {}, "computes in bfloat16, not in float32: set dtype='bfloat16' or attention='xla'"),
    ):
        with pytest.raises(FlanError, match=message):
            attend(q, k, v, keys, keys, **{"causal": True, "implementation": name, **how})
    attention_switch.refuse("xla", "cpu")
    attention_switch.refuse("splash", "tpu")
    with pytest.raises(FlanError, match="'splash' runs on TPU, and the devices here are CPU: set attention='xla'"):
        attention_switch.refuse("splash", "cpu")


# --------------------------------------------------------------------------------------------------------- bfloat16


def _rounded(arrays, scale):
    """Arrays in bfloat16, their exact values in float64, and queries whose scores spread by `scale`."""
    q, k, v = (x.astype(jnp.bfloat16) for x in (arrays[0] * scale, *arrays[1:]))
    return (q, k, v), [np.asarray(x, np.float64) for x in (q, k, v)]


def _relative_error(found, wanted):
    return np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("scale", [0.4, 3])
@pytest.mark.parametrize(
    ("name", "window", "most"),
    [
        ("xla", 0, 0.0018),
        ("xla", 7, 0.0018),
        ("segments", 0, 0.0018),
        ("segments", 7, 0.0018),
        ("splash", 7, 0.003),
        ("cudnn", 7, 0.003),
    ],
)
def test_bfloat16_rounds_no_scores(name, window, most, scale):
    """Rounding the output alone is off by 0.0016; with rounded scores and weights it was 0.0035 to 0.0117."""
    slots = _slots()
    arrays, exact = _rounded(_arrays(slots, 3), scale)
    out = jax.jit(_by(name, slots, window, False))(*arrays)
    assert out.dtype == jnp.bfloat16
    real = (slots.segments > 0)[:, :, None, None, None]
    assert _relative_error(out * real, _naive(*exact, slots, window)) < most


@pytest.mark.parametrize("scale", [0.4, 3])
@pytest.mark.parametrize("name", ["xla", "segments"])
def test_gradients_of_bfloat16(name, scale):
    slots = _slots()
    arrays, exact = _rounded(_arrays(slots, 4), scale)
    weights = np.random.default_rng(5).normal(size=exact[0].shape).astype(np.float32)
    weights *= (slots.segments > 0)[:, :, None, None, None]

    def total(*x):
        return (_by(name, slots)(*x).astype(jnp.float32) * weights).sum()

    with jax.enable_x64(True):
        seen = jnp.asarray(_seen_everywhere(slots))

        def naive_total(q, k, v):
            scores = jnp.where(seen[:, None, None], jnp.einsum("bqgpk,bsgk->bgpqs", q, k), -1e30)
            return (jnp.einsum("bgpqs,bsgk->bqgpk", jax.nn.softmax(scores), v) * weights).sum()

        wanted = [np.asarray(x) for x in jax.grad(naive_total, (0, 1, 2))(*exact)]
    for found, exact_gradient in zip(jax.jit(jax.grad(total, (0, 1, 2)))(*arrays), wanted, strict=True):
        assert found.dtype == jnp.bfloat16 and _relative_error(found, exact_gradient) < 0.008


def _seen_everywhere(slots):
    segments, length = slots.segments, slots.segments.shape[1]
    return (segments[:, :, None] == segments[:, None, :]) & np.tril(np.ones((length, length), bool))


@pytest.mark.parametrize("causal", [True, False], ids=["with a cache and biases", "an encoder's, with biases"])
def test_bfloat16_with_biases_and_a_cache(causal):
    """Relative biases stay as their table is: they were rounded to bfloat16 before they were added."""
    rng, cached = np.random.default_rng(6), 24 if causal else 0
    length, num_keys = 40, 40 + cached
    q = rng.normal(size=(2, length, GROUPS, PER_GROUP, HEAD_DIM))
    k, v = rng.normal(size=(2, 2, num_keys, GROUPS, HEAD_DIM))
    arrays, exact = _rounded((q, k, v), 1)
    bias = (8 * rng.normal(size=(1, GROUPS, PER_GROUP, length, num_keys))).astype(np.float32)
    keys = Slots(jnp.arange(num_keys)[None].repeat(2, 0), jnp.ones((2, num_keys), jnp.int32))
    queries = keys.part(slice(cached, None))
    out = attend(
        *arrays, queries, keys, causal=causal, block=16, bias=lambda asked, seen: jnp.asarray(bias)[..., asked, seen]
    )
    scores = np.einsum("bqgpk,bsgk->bgpqs", *exact[:2]) + bias
    if causal:
        scores = np.where(np.arange(num_keys) <= cached + np.arange(length)[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    wanted = np.einsum("bgpqs,bsgk->bqgpk", weights / weights.sum(-1, keepdims=True), exact[2])
    assert _relative_error(out, wanted) < 0.0018


def test_tables_of_biases_are_not_rounded():
    config = models.DecoderConfig(
        vocab_size=259, num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=2, head_dim=8, mlp_dim=16
    )
    config = dataclasses.replace(config, positions="relative_bias").computed(dtype="bfloat16")
    table = jnp.asarray(np.random.default_rng(0).normal(size=(2, config.relative_buckets)), jnp.float32)
    for branches in (None, jnp.zeros((1, 12), jnp.int32)):
        slots = Slots(jnp.arange(12)[None], jnp.ones((1, 12), jnp.int32), branches)
        found = biases(table, slots, config, False).between(slots.positions, slots.positions, slice(0, 12), slice(0, 1))
        buckets = relative_buckets(jnp.arange(12), config.relative_buckets, config.relative_max_distance)
        np.testing.assert_array_equal(np.asarray(found)[0, :, :, 0], np.asarray(table)[:, buckets])


def test_a_model_in_bfloat16_is_near_float32():
    """Loss and gradients of a model whose scores spread widely; each way to keep a layer gives the same."""
    config = models.DecoderConfig(
        vocab_size=259, num_layers=2, embed_dim=32, num_heads=2, num_kv_heads=1, head_dim=16, mlp_dim=48, qk_norm=True
    )
    exact = models.build(config.computed(attention="xla", remat="none"))
    params = jax.jit(exact.init)(jax.random.key(0))
    slots = _slots(((30, 18),), 48)
    tokens = jnp.asarray(np.random.default_rng(1).integers(3, 259, (1, 48)))

    def loss(model):
        def of(params):
            hidden = model.hidden(params, tokens, *map(jnp.asarray, slots[:2]))
            log_p = jax.nn.log_softmax(model.logits(params, hidden[:, :-1]))
            return -jnp.take_along_axis(log_p, tokens[:, 1:, None], -1).mean()

        return jax.jit(jax.value_and_grad(of))(params)

    wanted, wanted_gradient = loss(exact)
    for attention, remat in (("xla", "full"), ("segments", "save_attention"), ("segments", "none")):
        how = {"attention": attention, "remat": remat, "dtype": "bfloat16", "attention_block": 16}
        found, gradient = loss(models.build(config.computed(**how)))
        assert abs(found - wanted) < 2e-3 * wanted
        for path, x in jax.tree_util.tree_leaves_with_path(gradient):
            y = functools.reduce(lambda tree, key: tree[key.key], path, wanted_gradient)
            assert x.dtype == jnp.float32 and _relative_error(x, np.asarray(y, np.float64)) < 0.05, (how, path)

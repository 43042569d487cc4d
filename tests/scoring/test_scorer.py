import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import configuration, models, partitioning
from flan_jax.errors import FlanError
from flan_jax.scoring import tree_packing
from flan_jax.scoring.scorer import Scorer, _log_probabilities
from flan_jax.scoring.trees import Tree, build_trees, share_prefix

LENGTHS = (32, 64, 128)


@pytest.fixture(scope="module")
def tiny():
    model = models.build(configuration.model_config("tiny"))
    return model, jax.jit(model.init)(jax.random.key(0))


def _random_trees(seed, count):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        unscored = rng.integers(0, 3, rng.integers(1, 8))
        branches = tuple(tuple(rng.integers(0, 384, u + rng.integers(1, 9)).tolist()) for u in unscored)
        trunk = tuple(rng.integers(0, 384, rng.integers(1, 40)).tolist())
        found.append(Tree(trunk, branches, tuple(unscored.tolist()), (1,) * len(branches)))
    return found


@pytest.fixture(scope="module")
def some():
    return _random_trees(0, 40)


@pytest.fixture(scope="module")
def one_by_one(tiny, some):
    """Sums and greediness of each option by a forward pass of its own, log-softmax in float64."""
    model, params = tiny
    length = max(tree.longest for tree in some)

    @jax.jit
    def forward(tokens_1xL, segments_1xL):
        positions = jnp.arange(length)[None]
        return model.logits(params, model.hidden(params, tokens_1xL, positions, segments_1xL))[0]

    found = []
    for tree in some:
        sums, greedy = [], []
        for branch, unscored in zip(tree.branches, tree.unscored, strict=True):
            tokens = np.zeros((1, length), np.int32)
            ids = [*tree.trunk, *branch]
            tokens[0, : len(ids)] = ids
            logits = np.asarray(forward(tokens, (np.arange(length) < len(ids))[None].astype(np.int32)), np.float64)
            logprobs = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
            logprobs -= logits.max(-1, keepdims=True)
            places = range(len(tree.trunk) + unscored, len(ids))
            sums.append(sum(logprobs[i - 1, ids[i]] for i in places))
            greedy.append(all(logits[i - 1].argmax() == ids[i] for i in places))
        found.append((sums, greedy))
    return found


def _check(scores, trees, one_by_one):
    assert len(scores) == len(trees)
    for found, tree, (sums, greedy) in zip(scores, trees, one_by_one, strict=True):
        np.testing.assert_allclose(found.loglikelihood, sums, atol=1e-4)
        assert found.is_greedy == tuple(greedy)
        assert found.tokens == tree.tokens and found.num_bytes == tree.num_bytes


@pytest.mark.parametrize(("lengths", "slots"), [(LENGTHS, 128), ((128,), 512), ((64, 100), 1)])
def test_packed_trees_score_like_one_option_at_a_time(tiny, some, one_by_one, lengths, slots):
    scorer = Scorer(*tiny, row_lengths=lengths, tokens_per_batch=slots)
    _check(scorer.score(some), some, one_by_one)


def test_a_mesh_of_eight_scores_the_same(tiny, some, one_by_one):
    mesh = partitioning.make_mesh(data=2, fsdp=2, tensor=2)
    scorer = Scorer(*tiny, mesh=mesh, row_lengths=LENGTHS, tokens_per_batch=128)
    _check(scorer.score(some), some, one_by_one)


_OTHERS = {
    "window and soft-caps": {
        "window": 9,
        "global_every": 2,
        "qk_norm": True,
        "local_rope_theta": 100.0,
        "attention_softcap": 1.0,
        "logits_softcap": 2.0,
    },
    "relative bias": {"positions": "relative_bias"},
}


@pytest.mark.parametrize("changed", _OTHERS.values(), ids=_OTHERS)
def test_a_shared_prefix_scores_like_a_longer_prompt(changed):
    model = models.build(dataclasses.replace(configuration.model_config("tiny"), num_layers=2, **changed))
    params = jax.jit(model.init)(jax.random.key(0))
    rng, trees = np.random.default_rng(2), _random_trees(2, 24)
    exemplars = [tuple(rng.integers(0, 384, n).tolist()) for n in (40, 50)]
    whole = [dataclasses.replace(tree, trunk=exemplars[i % 2] + tree.trunk) for i, tree in enumerate(trees)]
    shared = [None] * 24
    for first in (0, 1):
        shared[first::2] = share_prefix(whole[first::2])
    assert {len(tree.prefix) for tree in shared} == {40, 50}
    assert [tree.prefix + tree.trunk for tree in shared] == [tree.trunk for tree in whole]
    scorer = Scorer(model, params, row_lengths=(128,), tokens_per_batch=256)
    expected = scorer.score(whole)
    slots = scorer.work.slots
    found = scorer.score([*shared, whole[0]])
    assert found[24] == found[0] or np.allclose(found[24].loglikelihood, found[0].loglikelihood, atol=1e-4)
    for one, other in zip(found[:24], expected, strict=True):
        np.testing.assert_allclose(one.loglikelihood, other.loglikelihood, atol=1e-4)
        assert (one.tokens, one.is_greedy) == (other.tokens, other.is_greedy)
    assert scorer.work.slots - slots < slots
    compiled = scorer.compile_count
    scorer.score(shared[::-1])
    assert scorer.compile_count == compiled == 3  # rows without and with a prefix, and the prefix


def test_prefixes_that_are_not_worth_it_or_too_long(tiny):
    trees = [Tree((1, 2, 3, n), ((5,),), (0,), (1,)) for n in (6, 7)]
    assert share_prefix(trees) == trees and share_prefix(trees[:1], 1) == trees[:1]
    assert [(t.prefix, t.trunk) for t in share_prefix(trees, 3)] == [((1, 2, 3), (6,)), ((1, 2, 3), (7,))]
    same = [Tree((1, 2, 3), ((n,),), (0,), (1,)) for n in (6, 7)]
    assert {(t.prefix, t.trunk) for t in share_prefix(same, 2)} == {((1, 2), (3,))}  # something has to predict
    with pytest.raises(FlanError, match="prompt 0 has a shared prefix of 3000 tokens"):
        Scorer(*tiny).score([dataclasses.replace(trees[0], prefix=(1,) * 3000)])


def test_shapes_are_compiled_once_and_order_does_not_matter(tiny, some, one_by_one):
    scorer = Scorer(*tiny, row_lengths=LENGTHS, tokens_per_batch=256)
    scorer.score(some)
    compiled = scorer.compile_count
    assert 1 <= compiled <= len(LENGTHS)
    seen = []
    _check(scorer.score(some[::-1], lambda *a: seen.append(a)), some[::-1], one_by_one[::-1])
    assert scorer.compile_count == compiled
    total = sum(len(tree.branches) for tree in some)
    assert seen[-1] == (total, total) and seen == sorted(seen)
    for part in (some[:1], some[3:7], []):
        scorer.score(part)
        assert scorer.compile_count <= len(LENGTHS)


def test_a_scorer_of_shapes_is_lent_parameters_without_a_copy(tiny, some):
    model, params = tiny
    mesh = partitioning.make_mesh(data=2, fsdp=4)
    shardings = partitioning.parameter_shardings(mesh, model.logical_axes(), params)
    shapes = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, shardings)
    empty = Scorer(model, shapes, mesh=mesh, row_lengths=LENGTHS[-1:])

    def places(tree):
        return [part.data.unsafe_buffer_pointer() for x in jax.tree.leaves(tree) for part in x.addressable_shards]

    for live in (params, jax.tree.map(lambda x: x * 2, params)):
        laid_out = jax.device_put(live, shardings)
        lent = empty.with_params(laid_out)
        assert places(lent.params) == places(laid_out)
        found, wanted = lent.score(some), Scorer(model, live, mesh=mesh, row_lengths=LENGTHS[-1:]).score(some)
        assert [one.loglikelihood for one in found] == [one.loglikelihood for one in wanted]
    assert lent.compile_count == empty.compile_count == 1


def test_greedy_options_are_found(tiny):
    model, params = tiny
    scorer = Scorer(model, params, row_lengths=(64,))
    candidates = Tree((5, 6, 7), tuple((token,) for token in range(384)), (0,) * 384, (1,) * 384)
    (scores,) = scorer.score([candidates])
    assert sum(scores.is_greedy) == 1
    assert scores.is_greedy[int(np.argmax(scores.loglikelihood))]
    assert np.isclose(np.exp(scores.loglikelihood).sum(), 1, atol=1e-5)  # and 384 options span several rows


def test_a_tree_that_is_too_long_is_refused(tiny):
    with pytest.raises(FlanError, match="prompt 1 takes 33 tokens"):
        Scorer(*tiny, row_lengths=(32,)).score([Tree((1,), ((2,),), (0,), (1,)), Tree((1,) * 32, ((2,),), (0,), (1,))])


def test_log_probabilities_of_a_large_vocabulary():
    logits = np.random.default_rng(0).normal(0, 3, (1, 3, 262_144)).astype(np.float32)
    targets = np.array([[[0, 5, 262_143, -1]] * 3])
    exact = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    found, _ = _log_probabilities(jnp.asarray(logits), jnp.asarray(targets))
    np.testing.assert_allclose(found[..., :3], np.take_along_axis(exact, targets[..., :3], -1), atol=5e-6)


def test_a_tree_is_cut_where_its_trunk_is_short():
    branches = ((1, 2, 3, 4),) * 40  # three slots each: the last token is only predicted
    short = Tree((1, 2), branches, (0,) * 40, (1,) * 40)
    pieces = tree_packing.pieces_of(0, short, LENGTHS)
    assert [len(piece.branches) for piece in pieces] == [9, 9, 9, 9, 4]  # rows of 32, not of 128
    assert all(piece.size <= LENGTHS[0] for piece in pieces)
    (whole,) = tree_packing.pieces_of(0, Tree((1,) * 12, branches[:36], (0,) * 36, (1,) * 36), LENGTHS)
    assert whole.size == 12 + 36 * 3
    (single,) = tree_packing.pieces_of(0, Tree((1,), ((2,),) * 100, (0,) * 100, (1,) * 100), LENGTHS)
    assert single.size == 25  # no slots, but as many predictions


def test_packing_loses_nothing_and_fills_rows():
    trees = _random_trees(1, 300)
    pieces = [p for i, tree in enumerate(trees) for p in tree_packing.pieces_of(i, tree, LENGTHS)]
    rows = tree_packing.pack(pieces, LENGTHS)
    packed = [piece for row in rows for piece in row.pieces]
    assert sorted((p.tree, k) for p in packed for k in p.branches) == [
        (i, k) for i, tree in enumerate(trees) for k in range(len(tree.branches))
    ]
    for row in rows:
        assert row.length in LENGTHS and row.free == row.length - sum(p.size for p in row.pieces) >= 0
    long_rows = tree_packing.pack(pieces, LENGTHS[-1:])
    assert sum(p.size for p in pieces) / (128 * len(long_rows)) > 0.95


def test_rows_are_shortened_where_that_saves_slots():
    pieces = [tree_packing.Piece(i, (0,), size) for i, size in enumerate((60, 60, 40))]

    def found(rows_per_batch):
        rows = tree_packing.cheapest_packing(pieces, LENGTHS, rows_per_batch, lambda length: 1.0)
        assert all(row.free == row.length - sum(p.size for p in row.pieces) >= 0 for row in rows)
        return sorted(row.length for row in rows)

    assert found({32: 1, 64: 1, 128: 1}) == [64, 64, 64]
    pieces[2] = tree_packing.Piece(2, (0,), 30)
    assert found({32: 1, 64: 1, 128: 1}) == [32, 64, 64]
    assert found({32: 16, 64: 3, 128: 1}) == [64, 64, 64]  # a batch of short rows would be padded to 16


def test_trees_attend_in_segments_on_one_cpu_device(tiny):
    model, params = tiny
    assert model.config.attention == "xla"
    alone, many = (Scorer(model, params, mesh=mesh)._model for mesh in (None, partitioning.make_mesh(data=8)))
    assert (alone.config.attention, many.config.attention) == ("segments", "xla")
    biased = models.build(dataclasses.replace(model.config, positions="relative_bias"))
    assert Scorer(biased, biased.abstract_params())._model.config.attention == "xla"


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_agrees_with_lm_evaluation_harness(shared):
    """SmolLM2-135M on 100 HellaSwag items; the reference is described in its file."""
    from flan_jax.formats import gguf, pretrained

    try:
        path = pretrained.locate("smollm2-135m-instruct")
    except FlanError as error:
        pytest.skip(str(error))
    items = json.loads((shared / "oracles/scoring/hellaswag100_smollm2.json").read_text())["items"]
    found = gguf.read(path)
    contexts, options = [item["context"] for item in items], [item["options"] for item in items]
    trees = build_trees(found.tokenizer, contexts, options, joint="joined")
    scores = Scorer(models.build(found.config), found.params).score(trees)
    sums = np.array([s.loglikelihood for s in scores])
    np.testing.assert_allclose(sums, [item["loglikelihood"] for item in items], atol=2e-3)
    assert [list(s.tokens) for s in scores] == [item["n_option_tokens"] for item in items]
    assert [list(s.is_greedy) for s in scores] == [item["is_greedy"] for item in items]
    labels = np.array([item["label"] for item in items])
    characters = np.array([[len(option) - 1 for option in choices] for choices in options])  # without the space
    assert np.mean(sums.argmax(-1) == labels) == 0.34
    assert np.mean((sums / characters).argmax(-1) == labels) == 0.41

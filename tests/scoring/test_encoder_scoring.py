"""Trees scored by an encoder-decoder, against one option at a time."""

import dataclasses

import jax
import numpy as np
import pytest

from flan_jax import configuration, models, partitioning
from flan_jax.errors import FlanError
from flan_jax.scoring import encoder_packing, tree_packing
from flan_jax.scoring.scorer import Scorer
from flan_jax.scoring.trees import Tree

LENGTHS = (64, 128)


@pytest.fixture(scope="module")
def tiny():
    model = models.build(configuration.model_config("tiny_t5"))
    params = jax.jit(model.init)(jax.random.key(0))
    return model, jax.tree.map(lambda x: x * 2 if x.ndim > 2 else x, params)


def _trees(seed, count, longest=40):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        branches = tuple(tuple(rng.integers(0, 384, rng.integers(1, 9)).tolist()) for _ in range(rng.integers(1, 6)))
        trunk = (*rng.integers(2, 384, rng.integers(1, longest)).tolist(), 1)
        found.append(Tree(trunk, branches, (0,) * len(branches), (1,) * len(branches)))
    return found


def _filled(rows, length):
    tokens, segments = np.zeros((2, len(rows), length), np.int32)
    for b, ids in enumerate(rows):
        tokens[b, : len(ids)], segments[b, : len(ids)] = ids, 1
    return tokens, np.tile(np.arange(length, dtype=np.int32), (len(rows), 1)), segments


def _one_by_one(model, params, trees):
    """Sums and greediness of all options, each a row of its own; log-softmax in float64."""
    options = [(tree.trunk, branch) for tree in trees for branch in tree.branches]

    @jax.jit
    def forward(params):
        memory = model.encode(params, *_filled([trunk for trunk, _ in options], 64))
        shifted = _filled([(0, *branch[:-1]) for _, branch in options], 16)
        return model.logits(params, model.hidden(params, *shifted, memory=memory))

    logits = np.asarray(forward(params), np.float64)
    logits -= logits.max(-1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    sums = [sum(p[i, token] for i, token in enumerate(b)) for p, (_, b) in zip(logprobs, options, strict=True)]
    greedy = [all(x[i, token] == 0 for i, token in enumerate(b)) for x, (_, b) in zip(logits, options, strict=True)]
    return sums, greedy


def test_packed_trees_score_like_one_option_at_a_time(tiny):
    trees = _trees(0, 24)
    sums, greedy = _one_by_one(*tiny, trees)
    scorer = Scorer(*tiny, row_lengths=LENGTHS, tokens_per_batch=256)
    shared = [dataclasses.replace(tree, prefix=tree.trunk[:-1], trunk=tree.trunk[-1:]) for tree in trees[:8]]
    mesh = partitioning.make_mesh(data=2, fsdp=2, tensor=2)
    for some in (scorer.score([*shared, *trees[8:]]), Scorer(*tiny, mesh=mesh, row_lengths=(128,)).score(trees)):
        np.testing.assert_allclose(np.concatenate([s.loglikelihood for s in some]), sums, atol=1e-4)
        assert [g for s in some for g in s.is_greedy] == greedy
        assert [s.tokens for s in some] == [tree.tokens for tree in trees]
    compiled = scorer.compile_count
    scorer.score(trees[::-1])
    assert scorer.compile_count == compiled <= len(LENGTHS)
    assert np.std(sums) > 1


@pytest.mark.parametrize("share", [0.125, 0.5, 2.0])
def test_packing_keeps_to_both_sides(share):
    trees = _trees(1, 200)
    if share == 0.125:
        trees = [dataclasses.replace(tree, branches=tree.branches[:1], unscored=(0,), num_bytes=(1,)) for tree in trees]
    decoded = [encoder_packing.of_decoder(tree) for tree in trees]
    pieces = [p for i, tree in enumerate(decoded) for p in tree_packing.pieces_of(i, tree, (int(share * 128),))]
    rows = encoder_packing.pack(pieces, trees, LENGTHS, share)
    packed = sorted((p.tree, k) for row in rows for p in row.pieces for k in p.branches)
    assert packed == [(i, k) for i, tree in enumerate(trees) for k in range(len(tree.branches))]
    for row in rows:
        used = sum(len(trees[p.tree].trunk) for p in row.pieces)
        assert row.length in LENGTHS and row.free == row.length - used >= 0
        assert sum(p.size for p in row.pieces) <= share * row.length
    assert encoder_packing.decoder_share(trees, 128) in (0.5, 2.0)  # a decoder's row of 16 slots is too full


def test_options_that_repeat_the_prompt_are_refused(tiny):
    with pytest.raises(FlanError, match="score it with the joint 'eos'"):
        Scorer(*tiny).score([Tree((5, 1), ((6, 7),), (1,), (1,))])

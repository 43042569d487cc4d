"""Generation against transformers' `generate`, one prompt at a time, with the same random weights."""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tokenizers

from flan_jax import models, partitioning
from flan_jax.data.vocabularies import ByteTokenizer, HuggingFaceTokenizer
from flan_jax.decoding import completion, sampling
from flan_jax.decoding.beam import Beams
from flan_jax.decoding.generator import Generation, Generator
from flan_jax.decoding.sampling import Sampling
from flan_jax.errors import FlanError, NotFiniteError

LLAMA = models.DecoderConfig(
    vocab_size=60,
    num_layers=2,
    embed_dim=24,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=32,
    norm_epsilon=1e-5,
)
GEMMA3 = dataclasses.replace(
    LLAMA,
    num_layers=3,
    num_kv_heads=1,
    activation="gelu",
    rope_theta=1e6,
    window=5,
    global_every=3,
    qk_norm=True,
    post_norms=True,
    scale_embeddings=True,
    attention_scale=0.25,
)
T5 = dataclasses.replace(
    LLAMA,
    num_encoder_layers=2,
    num_kv_heads=4,
    activation="gelu",
    positions="relative_bias",
    tied_embeddings=False,
    attention_scale=1.0,
    relative_buckets=8,
    relative_max_distance=20,
)
EOS = 1
SIZES = {"prompt_lengths": (8, 24), "new_tokens": (12,), "rows": (16,)}


def _model(config):
    """A random model that ends some of its texts: the logit of EOS varies more than the others."""
    model = models.build(config)
    params = jax.jit(model.init)(jax.random.key(0))
    params = jax.tree.map(lambda x: x * 2.5 if x.ndim > 2 else x, params)
    if config.tied_embeddings:
        table = params["decoder"]["token_embedder"]
        table["embedding"] = table["embedding"].at[EOS].multiply(2)
    else:
        table = params["decoder"]["logits_dense"]
        table["kernel"] = table["kernel"].at[:, EOS].multiply(2) * 3
    return model, params


def _prompts(count, seed=0, longest=22):
    rng = np.random.default_rng(seed)
    return [rng.integers(2, LLAMA.vocab_size, n).tolist() for n in rng.integers(2, longest + 1, count)]


@pytest.fixture(scope="module")
def llama():
    return _model(LLAMA)


def _theirs(config, params):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from as_transformers import as_transformers

    return as_transformers(config, params, EOS)


def _continuation(config, output, prompt):
    """Their tokens after the prompt, or after the decoder's start, up to the end of sequence."""
    ids = output[0].tolist()[1 if config.num_encoder_layers else len(prompt) :]
    return ids[: ids.index(EOS)] if EOS in ids else ids


@pytest.mark.parametrize(("config", "count"), [(LLAMA, 24), (GEMMA3, 24), (T5, 100)], ids=["llama", "gemma3", "t5"])
def test_greedy_tokens_are_those_of_transformers(config, count):
    torch = pytest.importorskip("torch")

    model, params = _model(config)
    theirs, prompts = _theirs(config, params), _prompts(count)
    limits = [5 + i % 8 for i in range(count)]
    generator = Generator(model, params, EOS, **SIZES)
    found = generator.generate(prompts, limits)
    for prompt, limit, generation in zip(prompts, limits, found, strict=True):
        output = theirs.generate(torch.tensor([prompt]), max_new_tokens=limit, do_sample=False)
        assert list(generation.tokens) == _continuation(config, output, prompt)
        assert generation.ended == (EOS in output[0].tolist())
    assert count / 12 < sum(g.ended for g in found) < count - 2
    assert len({g.tokens for g in found}) > count / 2
    compiled = generator.compile_count
    generator.generate(prompts[::-1], 9)
    assert generator.compile_count == compiled == 4  # two lengths of prompts, first token and loop


def test_beam_search_is_that_of_transformers():
    torch = pytest.importorskip("torch")

    model, params = _model(T5)
    theirs, prompts = _theirs(T5, params), _prompts(16)
    found = Generator(model, params, EOS, prompt_lengths=(24,), new_tokens=(10,), rows=(16,)).generate(
        prompts, 10, choose=Beams(4)
    )
    for prompt, generation in zip(prompts, found, strict=True):
        output = theirs.generate(
            torch.tensor([prompt]),
            max_new_tokens=10,
            num_beams=4,
            do_sample=False,
            early_stopping=False,
            length_penalty=1.0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        assert list(generation.tokens) == _continuation(T5, output.sequences, prompt)
        np.testing.assert_allclose(generation.score, output.sequences_scores[0], atol=2e-5)
    assert 2 < sum(g.ended for g in found) < 16
    assert len({len(g.tokens) for g in found}) > 2


ENDS = (EOS, 7, 30, 59)


@pytest.mark.parametrize("choose", [Sampling(), Beams(3)], ids=["greedy", "beams"])
def test_every_end_of_sequence_stops(llama, choose):
    torch = pytest.importorskip("torch")

    model, params = llama
    theirs, prompts = _theirs(LLAMA, params), _prompts(12, longest=8)
    generator = Generator(model, params, ENDS, prompt_lengths=(8,), new_tokens=(12,), rows=(16,))
    found = generator.generate(prompts, 12, choose=choose)
    assert len({g.end for g in found}) > 2
    beams = {"num_beams": 3, "early_stopping": False} if isinstance(choose, Beams) else {}
    for prompt, generation in zip(prompts, found, strict=True):
        output = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=list(ENDS), pad_token_id=0, **beams
        )
        ids = output[0].tolist()[len(prompt) :]
        ends = [at for at, token in enumerate(ids) if token in ENDS]
        assert list(generation.tokens) == ids[: ends[0] if ends else None]
        assert generation.end == (ids[ends[0]] if ends else None)


def test_draws_end_at_every_end_of_sequence(llama):
    choose = Sampling(temperature=2.0, seed=1)
    sizes = {"prompt_lengths": (8,), "new_tokens": (12,), "rows": (16,)}
    prompts = _prompts(12, longest=8)
    whole = Generator(*llama, (), **sizes).generate(prompts, 12, choose=choose)
    assert {len(g.tokens) for g in whole} == {12} and not any(g.ended for g in whole)
    generator = Generator(*llama, EOS, **sizes)
    for one, other in zip(whole, generator.generate(prompts, 12, choose=choose, more_ends=range(40, 60)), strict=True):
        ends = [at for at, token in enumerate(one.tokens) if token == EOS or token >= 40]
        assert other.tokens == one.tokens[: ends[0] if ends else None]
        assert other.end == (one.tokens[ends[0]] if ends else None)
    assert generator.generate(prompts[:1], 12, choose=choose, more_ends=[-1, 10**6])  # ids that no model has


def test_a_beam_search_with_one_beam_and_limits_of_rows(llama):
    prompts, limits = _prompts(8, longest=8), [1, 3, 2, 6, 4, 1, 5, 2]
    generator = Generator(*llama, EOS, prompt_lengths=(8,), new_tokens=(6,), rows=(8,))
    greedy = generator.generate(prompts, limits)
    single = generator.generate(prompts, limits, choose=Beams(1))
    assert [len(g.tokens) <= limit for g, limit in zip(single, limits, strict=True)] == [True] * 8
    # One beam drops EOS from its candidates to go on; until then it is the greedy search.
    assert [g.tokens[:1] for g, h in zip(single, greedy, strict=True) if not h.ended] == [
        h.tokens[:1] for h in greedy if not h.ended
    ]


def test_draws_do_not_depend_on_the_batch(llama):
    prompts, choose = _prompts(11, longest=8), Sampling(temperature=1.5, top_k=20, top_p=0.9, seed=3)
    generator = Generator(*llama, EOS, prompt_lengths=(8,), new_tokens=(8,), rows=(4, 16))
    found = generator.generate(prompts, 8, choose=choose)
    assert generator.generate(prompts[6:9], 8, choose=choose) == found[6:9]
    again = generator.generate([prompts[2]] * 4, 8, choose=choose)
    assert again[0] == found[2] and len({g.tokens for g in again}) > 2  # the same prompt again is another draw
    other = generator.generate(prompts, 8, choose=dataclasses.replace(choose, seed=4))
    assert sum(a.tokens != b.tokens for a, b in zip(found, other, strict=True)) > 8
    compiled = generator.compile_count
    generator.generate(prompts, 8, choose=Sampling(temperature=0.7, top_p=0.5))
    assert generator.compile_count == compiled


def test_a_mesh_generates_the_same(llama):
    prompts = _prompts(5, longest=8)
    sizes = {"prompt_lengths": (8,), "new_tokens": (8,), "rows": (2, 8)}
    mesh = partitioning.make_mesh(data=2, fsdp=2, tensor=2)
    assert Generator(*llama, EOS, mesh=mesh, **sizes).generate(prompts, 8) == Generator(*llama, EOS, **sizes).generate(
        prompts, 8
    )


@pytest.mark.parametrize("config", [LLAMA, T5], ids=["decoder", "encoder_decoder"])
def test_the_last_rows_of_a_large_batch_go_on_in_a_smaller_one(config):
    model, params = _model(config)
    prompts = _prompts(50, seed=5, longest=8)
    limits = [int(n) for n in np.random.default_rng(6).choice([1, 3, 5, 24], 50, p=[0.3, 0.3, 0.2, 0.2])]
    sizes = {"prompt_lengths": (8,), "new_tokens": (24,)}
    alone = Generator(model, params, EOS, rows=(1,), **sizes).generate(prompts, limits)
    large = Generator(model, params, EOS, rows=(1, 4, 16, 64), **sizes)
    assert large.generate(prompts, limits) == alone
    assert large.compile_count == 4  # first token, loop, the move, and the loop of the smaller batch
    draws = Sampling(temperature=1.2, seed=2)
    drawn = Generator(model, params, EOS, rows=(1,), **sizes).generate(prompts, limits, choose=draws)
    assert [g.tokens for g in drawn].count(()) < 50 and drawn != alone
    # The same prompt twice is another draw, by its place among all prompts and not by its batch.
    assert large.generate(prompts, limits, choose=draws) == drawn


def test_rows_that_are_complete_are_left_when_a_batch_is_moved(llama):
    prompts, sizes = _prompts(60, seed=7, longest=8), {"prompt_lengths": (8,), "new_tokens": (40,)}
    generator = Generator(*llama, EOS, rows=(16, 64), **sizes)
    whole = Generator(*llama, EOS, rows=(1,), **sizes).generate(prompts, 40)
    found = generator.generate(prompts, 40, is_complete=lambda tokens: len(tokens) >= 9 and tokens[2] % 8 > 0)
    assert any(len(g.tokens) > 30 for g in found) and sum(len(g.tokens) < 20 for g in found) > 30
    assert generator.compile_count == 4
    assert [w.tokens[: len(g.tokens)] for g, w in zip(found, whole, strict=True)] == [g.tokens for g in found]


def test_a_mesh_moves_the_last_rows_too(llama):
    prompts, limits = _prompts(100, seed=8, longest=8), [2] * 80 + [12] * 20
    sizes = {"prompt_lengths": (8,), "new_tokens": (12,), "rows": (16, 64)}
    generator = Generator(*llama, EOS, mesh=partitioning.make_mesh(data=2, tensor=4), **sizes)
    assert generator.generate(prompts, limits) == Generator(*llama, EOS, **sizes).generate(prompts, limits)
    assert generator.compile_count == 4


def test_what_cannot_be_generated(llama):
    generator = Generator(*llama, EOS, **SIZES)
    assert generator.generate([], 3) == []
    for prompts, limit, message in (
        ([[1], []], 3, "prompt 1 has 0 tokens; it can have 1 to 24"),
        ([[1] * 25], 3, "prompt 0 has 25 tokens"),
        ([[1]], 13, "asks for 13 new tokens; it can be 1 to 12"),
        ([[1]], 0, "asks for 0 new tokens"),
    ):
        with pytest.raises(FlanError, match=message):
            generator.generate(prompts, limit)


# ---------------------------------------------------------------------------------------------------------- choices


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.3), (5, 1.0), (7, 0.8), (1, 0.9), (0, 1.0), (99, 0.01), (40, 0.95)])
def test_likeliest_tokens(top_k, top_p):
    logits = np.random.default_rng(0).normal(0, 2, (20, 40)).astype(np.float32)
    found = np.asarray(jax.jit(sampling.only_likeliest)(logits, top_k, top_p))
    for row, kept in zip(logits, found, strict=True):
        order = np.argsort(-row)[: top_k or None]
        p = np.exp(row[order].astype(np.float64))
        p /= p.sum()
        count = next((n for n in range(1, len(p)) if p[:n].sum() >= top_p), len(p))
        assert set(np.flatnonzero(np.isfinite(kept))) == set(order[:count])
        np.testing.assert_array_equal(kept[order[:count]], row[order[:count]])


def test_draws_have_the_models_probabilities():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32)).repeat(4_000).reshape(4, -1).T
    numbers = Sampling(temperature=0.5).numbers
    seeds = sampling.row_seeds([[i] for i in range(4_000)], 0)
    drawn = sampling.next_tokens(logits, seeds, 3, numbers, sampling.DRAWN)
    expected = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    shares = np.bincount(drawn, minlength=4) / 4_000
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.03)  # standard deviation 0.008


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_bad_choices(wrong):
    with pytest.raises(FlanError, match="give a temperature and a top_k of 0 or more"):
        Sampling(**wrong)
    with pytest.raises(FlanError, match="one beam or more, not 0"):
        Beams(0)


# ------------------------------------------------------------------------------------------------------------ texts


def test_prompts_as_tokens():
    tokenizer = ByteTokenizer()

    def texts(joint, encoder=False):
        return completion.prompt_tokens(tokenizer, ["ab "], joint, encoder=encoder)[0]

    ids = tokenizer.encode(["ab "])[0]
    assert texts("eos") == [*ids, 1]
    assert texts("newline") == [*ids, *tokenizer.encode(["\n"])[0]]
    assert texts("space") == ids[:2]
    assert texts("newline", encoder=True) == [*ids, 1]
    tokenizer.bos_id = 2
    assert texts("eos") == [2, *ids, 1]
    assert texts("eos", encoder=True) == [*ids, 1]
    with pytest.raises(FlanError, match="joint is 'auto'"):
        texts("auto")


@pytest.mark.parametrize(
    ("stops", "expected"),
    [([], "one\n\ntwo"), (["\n"], "one"), (["two", "e\n"], "on"), (["one"], ""), (["x"], "one\n\ntwo")],
)
def test_text_before_the_first_stop(stops, expected):
    assert completion.cut("one\n\ntwo", stops) == expected


def _spoken(texts, special, stops):
    """A vocabulary of letters and special tokens, and a stand-in for a model that says these texts."""
    words = [*"abcdefghijklmnopqrstuvwxyz <|>/_\n", "</s>", *special]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.decoder = tokenizers.decoders.Fuse()
    tokenizer.add_special_tokens([tokenizers.AddedToken(text, special=True) for text in ("</s>", *special)])
    ours = HuggingFaceTokenizer(tokenizer.to_str().encode(), words.index("</s>"))

    class Says:
        def generate(self, prompts, limits, *, is_complete, more_ends, **_):
            found = []
            for ids in ours.encode(texts):
                said = []
                for token in ids:
                    if token in (ours.eos_id, *more_ends) or (is_complete is not None and is_complete(tuple(said))):
                        break
                    said.append(token)
                ended = len(said) < len(ids) and ids[len(said)] in (ours.eos_id, *more_ends)
                found.append(Generation(tuple(said), ids[len(said)] if ended else None))
            return found

    return completion.complete_tokens(Says(), ours, [[1]] * len(texts), max_new_tokens=5, stops=stops)


@pytest.mark.parametrize(
    ("text", "stops", "expected", "finish"),
    [
        ("ab<|im_end|>cd", ["<|im_end|>"], "ab", "stop"),
        ("ab<|im_end|>cd", [], "abcd", "length"),
        ("ab<|im_end|>cd", ["<|im_end|>\n"], "abcd", "length"),
        ("ab<|im_end|>\ncd", ["<|im_end|>\n"], "ab", "stop"),
        ("ab<|im_end|>\ncd", ["b<|im_end|>"], "a", "stop"),
        ("ab<tool>c<|im_end|>d", ["c<|im_end|>"], "ab", "stop"),
        ("ab</s>cd", ["</s>"], "ab", "eos"),
        ("ab</s>cd", ["d"], "ab", "eos"),
        ("abcd", ["<|im_end|>", "c"], "ab", "stop"),
        ("<|im_end|>", ["<|im_end|>"], "", "stop"),
        ("a<tool>b", ["ab"], "", "stop"),
    ],
)
def test_a_stop_that_is_a_special_token(text, stops, expected, finish):
    (said,) = _spoken([text], ["<|im_end|>", "<tool>"], stops)
    assert (said.text, said.finish) == (expected, finish)


def test_texts_stop_before_a_stop_string():
    config = dataclasses.replace(LLAMA, vocab_size=ByteTokenizer.vocab_size)
    model = models.build(config)
    params = jax.jit(model.init)(jax.random.key(1))
    tokenizer = ByteTokenizer()
    generator = Generator(model, params, tokenizer.eos_id, prompt_lengths=(16,), new_tokens=(40,), rows=(4,))
    prompts = ["first", "the second", "third one", "4"]
    settings = {"joint": "eos", "max_new_tokens": [40, 30, 20, 10], "choose": Sampling(temperature=1.0)}
    whole = completion.complete(generator, tokenizer, prompts, **settings)
    assert all(c.num_tokens <= n for c, n in zip(whole, settings["max_new_tokens"], strict=True))
    stop = whole[0].text[5:7]
    found = completion.complete(generator, tokenizer, prompts, stops=[stop], **settings)
    assert found[0].finish == "stop" and found[0].text == whole[0].text[: whole[0].text.index(stop)]
    assert found[0].num_tokens <= 7 * 4 + 8 < whole[0].num_tokens + 8  # noticed soon; a character is up to four bytes
    for one, other in zip(found[1:], whole[1:], strict=True):
        assert one.text == completion.cut(other.text, [stop])
    with pytest.raises(FlanError, match="a stop string is empty"):
        completion.complete(generator, tokenizer, prompts, stops=[""], **settings)


def test_a_generator_of_shapes_is_lent_parameters(llama):
    model, params = llama
    mesh = partitioning.make_mesh(devices=jax.devices()[:1])
    shardings = partitioning.parameter_shardings(mesh, model.logical_axes(), params)
    shapes = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, shardings)
    empty = Generator(model, shapes, EOS, mesh=mesh, **SIZES)
    prompts = _prompts(5)
    for live in (params, jax.tree.map(lambda x: x * 0.5, params)):
        lent = empty.with_params(jax.device_put(live, shardings))
        assert lent.generate(prompts, 12) == Generator(model, live, EOS, **SIZES).generate(prompts, 12)
    assert lent.compile_count == empty.compile_count == 2


@pytest.mark.parametrize("vocab", [60, 256, 512, 256 * 7, 257])
@pytest.mark.parametrize("hostile", ["ties", "all equal", "infinite", "minus infinite"])
def test_the_likeliest_token_is_that_of_argmax(vocab, hostile):
    """The first of those that tie, also where tokens are looked at in blocks."""
    rng = np.random.default_rng(vocab)
    logits_BxV = rng.normal(size=(5, vocab)).astype(np.float32)
    if hostile == "ties":
        logits_BxV = np.round(logits_BxV)
    elif hostile == "all equal":
        logits_BxV[:] = -3.0
    else:
        value = {"infinite": np.inf, "minus infinite": -np.inf}[hostile]
        logits_BxV[np.arange(5), rng.integers(0, vocab, 5)] = value
        logits_BxV[1, [3, vocab - 1]] = value
        logits_BxV[2] = -np.inf
    found_B = jax.jit(sampling.likeliest)(logits_BxV)
    np.testing.assert_array_equal(found_B, np.argmax(logits_BxV, axis=-1))
    assert found_B.dtype == np.int32


def test_the_likeliest_token_where_devices_share_the_vocabulary():
    """The parts of the vocabulary lie on eight devices; ties are between parts."""
    mesh = partitioning.make_mesh(tensor=8, fsdp=1, data=1)
    logits_BxV = np.round(np.random.default_rng(0).normal(size=(3, 256 * 16)).astype(np.float32))
    laid_out = jax.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "tensor"))
    found_B = jax.jit(sampling.likeliest)(jax.device_put(logits_BxV, laid_out))
    np.testing.assert_array_equal(found_B, np.argmax(logits_BxV, axis=-1))


def test_draws_do_not_depend_on_jaxs_generator(llama):
    """Others than threefry give a row other bits under vmap than alone."""
    prompts = _prompts(16, seed=5)
    drawn = {"choose": Sampling(temperature=1.0, seed=3)}
    found = Generator(*llama, EOS, **SIZES).generate(prompts, 8, **drawn)
    with jax.default_prng_impl("unsafe_rbg"):
        generator = Generator(*llama, EOS, **SIZES)
        assert generator.generate(prompts, 8, **drawn) == found
        assert [generator.generate([prompt], 8, **drawn)[0] for prompt in prompts[:4]] == found[:4]


@pytest.mark.parametrize("top_p", [1e-9, 1e-40, 1e-50, 5e-324])
def test_the_likeliest_token_is_never_left_out(llama, top_p):
    prompts = _prompts(8, seed=6)
    generator = Generator(*llama, EOS, **SIZES)
    found = generator.generate(prompts, 6, choose=Sampling(temperature=1.0, top_p=top_p))
    assert [g.tokens for g in found] == [g.tokens for g in generator.generate(prompts, 6)]


def test_nothing_behind_a_complete_answer_counts(llama):
    """The host looks every few steps, or when a batch is moved: the tokens behind do not depend on when that is."""
    prompts = _prompts(64, seed=7)
    whole = Generator(*llama, (), **SIZES | {"new_tokens": (24,)}).generate(prompts, 24)
    wanted = [g.tokens[3 + i % 13] for i, g in enumerate(whole)]
    generator = Generator(*llama, (), **SIZES | {"new_tokens": (24,), "rows": (1, 16, 64)})
    for i in (0, 5, 11):
        alone = generator.generate([prompts[i]], 24, is_complete=lambda tokens, i=i: wanted[i] in tokens)[0]
        assert alone.tokens == whole[i].tokens[: whole[i].tokens.index(wanted[i]) + 1]
        limits = [24 if k == i else 1 + k % 9 for k in range(64)]
        asked = generator.generate(prompts, limits, is_complete=lambda tokens, i=i: wanted[i] in tokens)[i]
        assert asked == alone


def test_nan_behind_a_complete_answer_is_no_error(llama):
    model, params = llama
    prompts = [[5, 7, 9], [8, 6, 4, 11]]
    whole = Generator(model, params, (), **SIZES).generate(prompts, 12)[0].tokens
    at = next(n for n in range(3, 11) if whole[n] not in (*whole[:n], *prompts[0]))
    bad = jax.tree.map(lambda x: x, params)
    table = bad["decoder"]["token_embedder"]
    table["embedding"] = table["embedding"].at[whole[at], 0].set(np.nan)
    # The table is the LM head too, so all logits have a NaN: the first token is never reached.
    with pytest.raises(NotFiniteError):
        Generator(model, bad, (), **SIZES).generate(prompts[:1], 12, is_complete=lambda tokens: len(tokens) >= at)
    config = dataclasses.replace(LLAMA, tied_embeddings=False)
    model, params = _model(config)
    whole = Generator(model, params, (), **SIZES).generate(prompts, 12)[0].tokens
    at = next(n for n in range(2, 11) if whole[n] not in (*whole[:n], *prompts[0]))
    bad = jax.tree.map(lambda x: x, params)
    table = bad["decoder"]["token_embedder"]
    table["embedding"] = table["embedding"].at[whole[at]].set(np.nan)
    generator = Generator(model, bad, (), **SIZES)
    (found,) = generator.generate(prompts[:1], 12, is_complete=lambda tokens: len(tokens) >= at)
    assert found.tokens == whole[:at] and found.is_finite
    with pytest.raises(NotFiniteError):
        generator.generate(prompts[:1], 12)


def test_the_first_prompt_that_is_not_finite_is_named(llama):
    """Long prompts are computed first, but the first of the call is named."""
    model, params = llama
    bad = jax.tree.map(lambda x: x, params)
    table = bad["decoder"]["token_embedder"]
    table["embedding"] = table["embedding"].at[13].set(np.nan)
    with pytest.raises(NotFiniteError, match="prompt 0 ") as raised:
        Generator(model, bad, EOS, **SIZES | {"rows": (1,)}).generate([[13, 3], [4, 5], [13] * 20], 4)
    assert raised.value.number == 0


@pytest.mark.parametrize(
    ("prompts", "limits", "message"),
    [
        ([[2, 3], [4, 60]], 3, "prompt 1 has 60, which is no token"),
        ([[2, -1]], 3, "prompt 0 has -1, which is no token"),
        ([[2, 10**12]], 3, "which is no token"),
        ([[2, 2.5]], 3, "which is no token"),
        ([[2, True]], 3, "which is no token"),
        ([[2, 3]], [3, 4], "2 limits for 1 prompts"),
        ([[2, 3]], 2.5, "asks for 2.5 new tokens"),
        ([[2, 3]], True, "asks for True new tokens"),
        ([np.arange(2, 30)], 3, "prompt 0 has 28 tokens"),
        ([np.zeros(0, int)], 3, "prompt 0 has 0 tokens"),
    ],
)
def test_prompts_that_are_no_tokens(llama, prompts, limits, message):
    with pytest.raises(FlanError, match=message) as raised:
        Generator(*llama, EOS, **SIZES).generate(prompts, limits)
    assert "\n" not in str(raised.value)


def test_tokens_of_an_array_are_the_same_prompt(llama):
    drawn = {"choose": Sampling(temperature=1.0, seed=3)}
    generator = Generator(*llama, np.int64(EOS), **SIZES)
    found = generator.generate([[2, 3, 4], [9, 8]], [5, 6], **drawn)
    assert generator.generate([np.array([2, 3, 4]), np.array([9, 8])], np.array([5, 6]), **drawn) == found
    assert generator.generate([[2, 3, 4]], np.int64(5), **drawn)[0] == found[0]


class _Asks:
    """A stand-in for a model that says these bytes until the test says that they are enough."""

    has_encoder = False

    def __init__(self, said):
        self.said = ByteTokenizer().encode([said])[0]

    def generate(self, prompts, limits, *, is_complete, **_):
        count = next((n for n in range(len(self.said)) if is_complete(tuple(self.said[:n]))), len(self.said))
        return [Generation(tuple(self.said[:count]), None)]


@pytest.mark.parametrize(("said", "text"), [("aé b", "aé b"), ("a\ufffdb", "a")])
def test_half_a_character_is_not_yet_a_stop(said, text):
    """A stop string that is U+FFFD: bytes of half a character are decoded to it while the other half is missing."""
    settings = {"joint": "joined", "max_new_tokens": 5, "stops": ["\ufffd"]}
    assert completion.complete(_Asks(said), ByteTokenizer(), ["x"], **settings)[0].text == text


@pytest.mark.parametrize("penalty", [-200.0, -10.5, 11.0, float("nan"), float("inf")])
def test_length_penalties_under_which_scores_vanish(penalty):
    with pytest.raises(FlanError, match="a number from -10 to 10, not "):
        Beams(2, penalty)


def test_the_steepest_length_penalties_still_find_an_answer(llama):
    for penalty in (-10.0, 10.0):
        found = Generator(*llama, EOS, **SIZES).generate(_prompts(4, seed=2), 12, choose=Beams(2, penalty))
        assert all(np.isfinite(g.score) and (g.tokens or g.ended) for g in found)


@pytest.mark.parametrize("top_k", [2.5, 2**31])
def test_top_k_is_a_whole_number_that_fits(top_k):
    with pytest.raises(FlanError, match="give a whole number from 0 to 2147483647"):
        Sampling(temperature=1.0, top_k=top_k)

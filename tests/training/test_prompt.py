"""Prompt tuning: rows, scores and texts with a soft prompt beside one segment at a time, embeddings written out."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import SMALL, train

from flan_jax import configuration, convert, models
from flan_jax.checkpoint import adapters, arrays, saving
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.decoding.generator import Generator
from flan_jax.errors import FlanError
from flan_jax.models import nested, prompt
from flan_jax.models.attention import Slots
from flan_jax.scoring.scorer import Scorer
from flan_jax.scoring.trees import Tree
from flan_jax.training import optimizers

LENGTH = 5
TUNING = optimizers.Tuning(optimizers.adamw(1e-1), prompt_length=LENGTH)
NETWORK = TUNING.adapted(models.build(SMALL))


def _alone(params, tokens):
    """Logits [L, V] of one text: the prompt's embeddings and the tokens' as one sequence, without a cache."""
    table = params["decoder"]["token_embedder"]["embedding"]
    x = jnp.concatenate([params["decoder"][prompt.SOFT]["embedding"], table[jnp.asarray(tokens)]])[None]
    slots = Slots(jnp.arange(x.shape[1])[None], jnp.ones((1, x.shape[1]), jnp.int32))
    hidden = NETWORK._root(SMALL).apply({"params": params}, x, slots, method="hidden")
    return NETWORK.logits(params, hidden)[0, LENGTH:]


@pytest.fixture(scope="module")
def params():
    found = jax.jit(NETWORK.init)(jax.random.key(0))
    return nested.merged(found, nested.at(prompt.PATH, jax.random.normal(jax.random.key(1), (LENGTH, SMALL.embed_dim))))


def test_packed_rows_are_as_if_each_segment_had_the_prompt_before_it(params):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, SMALL.vocab_size, (1, 16), np.int32)
    cuts = ((0, 7, 13),)
    segments, positions = np.zeros((2, 1, 16), np.int32)
    for row, edges in enumerate(cuts):
        for number, (start, end) in enumerate(itertools.pairwise(edges), 1):
            segments[row, start:end], positions[row, start:end] = number, np.arange(end - start)

    @jax.jit
    def loss(params):
        logits = NETWORK.logits(params, NETWORK.hidden(params, tokens, positions, segments))
        return jnp.sum(jnp.where(segments[..., None] > 0, logits, 0.0)[..., :7] ** 2), logits

    def naive(params):
        each = [
            _alone(params, tokens[row, a:b]) for row, edges in enumerate(cuts) for a, b in itertools.pairwise(edges)
        ]
        return sum(jnp.sum(x[:, :7] ** 2) for x in each), jnp.concatenate(each)

    (_, found), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    (_, expected), theirs = jax.jit(jax.value_and_grad(naive, has_aux=True))(params)
    np.testing.assert_allclose(np.asarray(found)[segments > 0], expected, atol=2e-5)
    ours, soft = (np.asarray(tree["decoder"][prompt.SOFT]["embedding"]) for tree in (gradient, theirs))
    np.testing.assert_allclose(ours, soft, rtol=1e-3, atol=1e-4 * np.abs(soft).max())


def test_scores_and_texts_are_those_of_one_text_at_a_time(params):
    trees = [Tree((4, 9, 17), ((5, 6), (7,)), (0, 0), (1, 1)), Tree((30, 4), ((8, 9, 10),), (0,), (1,))]
    padded = jax.jit(lambda tokens: jax.nn.log_softmax(_alone(params, tokens)))

    def forward(ids):
        return np.asarray(padded(np.pad(ids, (0, 8 - len(ids)))))[: len(ids)]

    for tree, scores in zip(trees, Scorer(NETWORK, params).score(trees), strict=True):
        for branch, found in zip(tree.branches, scores.loglikelihood, strict=True):
            ids = [*tree.trunk, *branch]
            logprobs = forward(np.array(ids))
            expected = sum(logprobs[i - 1, ids[i]] for i in range(len(tree.trunk), len(ids)))
            np.testing.assert_allclose(found, expected, atol=1e-4)
    (text,) = Generator(NETWORK, params, (1,), prompt_lengths=(8,), new_tokens=(4,), rows=(8,)).generate(
        [[4, 9, 17]], 4
    )
    ids = [4, 9, 17]
    for token in text.tokens:
        assert token == int(forward(np.array(ids))[-1].argmax())
        ids.append(token)
    assert len(ids) > 3


# ------------------------------------------------------------------------------------------------ their checkpoints


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    with saving.Saver(folder) as saver:
        saver.save(0, jax.jit(models.build(SMALL).init)(jax.random.key(3)))
    Manifest.create(SMALL, ByteTokenizer(), UNTUNED).save(folder)
    ByteTokenizer().save(folder / "vocabulary")
    return folder


@pytest.fixture(scope="module")
def tuned(prepared, base, tmp_path_factory):
    """Two starts of a step each."""
    folder = tmp_path_factory.mktemp("runs") / "prompt"
    for steps in (1, 2):
        arguments = {"initial_checkpoint_path": str(base), "prompt_length": LENGTH, "checkpoint_period": 1}
        train(folder, prepared, steps, optimizer=optimizers.adamw(1e-1), **arguments)
    return folder


def test_a_checkpoint_holds_the_prompt_alone(tuned, base, tmp_path):
    saved = json.loads((tuned / "checkpoints" / "2" / "digests" / "metadata").read_text())
    assert list(saved["adapters"]) == ["/".join(prompt.PATH)] and "params" not in saved
    assert saved["adapters"]["/".join(prompt.PATH)][1] == [LENGTH, SMALL.embed_dim]
    network, params, _, _ = arrays.load_model(tuned)
    assert isinstance(network, prompt.Prompted) and network.length == LENGTH
    start = arrays.load_model(base)[1]
    rest = nested.part(params, nested.paths(start))
    jax.tree.map(np.testing.assert_array_equal, rest, start)
    first = arrays.load_model(tuned, 1)[1]["decoder"][prompt.SOFT]["embedding"]
    moved = np.abs(np.asarray(params["decoder"][prompt.SOFT]["embedding"]) - np.asarray(first))
    assert 0.01 < moved.max() < 0.2
    assert adapters.weights(tuned, 1) != adapters.weights(tuned, 2)
    assert json.loads((tuned / "run.json").read_text())["program"]["prompt_length"] == LENGTH
    with pytest.raises(FlanError, match="holds a soft prompt, for which this format has no place"):
        convert.convert(str(tuned), str(tmp_path / "x"))
    plain = models.build(SMALL)
    shardings = jax.tree.map(lambda x: x.sharding, start)
    with pytest.raises(FlanError, match="holds a soft prompt, which is no part of a model's own parameters"):
        arrays.restore_params(tuned, plain.abstract_params(), shardings)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"prompt_length": LENGTH + 1}, "PROMPT_LENGTH 5 -> 6"),
        ({"prompt_length": None}, "PROMPT_LENGTH 5 -> absent"),
        ({"prompt_length": 0}, "train.prompt_length is 0"),
        ({"lora": {}}, "leave FROZEN and LORA out"),
        ({"computation": {"attention": "splash"}}, "takes no attention='splash'"),
        ({"initial_checkpoint_path": None, "model": SMALL}, "INITIAL_CHECKPOINT_PATH"),
    ],
)
def test_other_prompts_are_refused(tuned, prepared, base, changed, says):
    arguments = {"initial_checkpoint_path": str(base), "prompt_length": LENGTH} | changed
    with pytest.raises(FlanError) as caught:
        train(tuned, prepared, 3, **({"optimizer": optimizers.adamw(1e-1)} | arguments))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_an_encoder_decoder_takes_none():
    config = dataclasses.replace(configuration.model_config("tiny_t5"))
    with pytest.raises(FlanError, match="an encoder-decoder takes none"):
        TUNING.adapted(models.build(config))


def test_peft_gives_our_logits(tuned, base, tmp_path):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    convert.convert(str(base), str(tmp_path / "base"), form="huggingface")
    convert.convert(str(tuned), str(tmp_path / "prompt"), form="peft")
    network, params, _, _ = arrays.load_model(tuned)
    tokens = np.random.default_rng(1).integers(3, 259, (2, 9)).astype(np.int32)
    slots = (np.tile(np.arange(9, dtype=np.int32), (2, 1)), np.ones((2, 9), np.int32))
    ours = network.logits(params, network.hidden(params, tokens, *slots))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    loaded = peft.PeftModel.from_pretrained(theirs, tmp_path / "prompt").eval()
    with torch.no_grad():
        after = loaded(input_ids=torch.tensor(tokens)).logits.numpy()[:, LENGTH:]
    np.testing.assert_allclose(after, ours, atol=2e-4)

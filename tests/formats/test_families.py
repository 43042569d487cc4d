"""Qwen 2, Mistral, Gemma 2 and OLMo 2 through everything that is done with a model, against transformers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flan_jax import models, partitioning
from flan_jax.checkpoint import arrays
from flan_jax.compilation import program
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.decoding.generator import Generator
from flan_jax.errors import FlanError
from flan_jax.formats import conversion, huggingface, names, native, t5x
from flan_jax.formats.source import Source, of_tree, tree_of
from flan_jax.scoring.scorer import Scorer
from flan_jax.scoring.trees import Tree
from flan_jax.training import loss, optimizers
from flan_jax.training.state import TrainState, make_train_step, state_shardings

VOCAB = ByteTokenizer().vocab_size
LLAMA = models.DecoderConfig(
    vocab_size=VOCAB,
    num_layers=2,
    embed_dim=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=48,
    attention_block=16,
)
CONFIGS = {
    "qwen2": dataclasses.replace(
        LLAMA, qkv_bias=True, window=6, global_every=-1, global_first=1, local_rope_theta=None
    ),
    "mistral": dataclasses.replace(LLAMA, window=6, global_every=-1, local_rope_theta=None, tied_embeddings=False),
    "gemma2": dataclasses.replace(
        LLAMA,
        activation="gelu",
        window=6,
        global_every=2,
        local_rope_theta=None,
        post_norms=True,
        scale_embeddings=True,
        attention_scale=0.25,
        attention_softcap=2.0,
        logits_softcap=3.0,
    ),
    "olmo2": dataclasses.replace(
        LLAMA, qk_norm=True, qk_norm_across_heads=True, pre_norms=False, post_norms=True, tied_embeddings=False
    ),
}
each = pytest.mark.parametrize("name", CONFIGS)


def _params(config, seed=0):
    """Random, with biases and norms that show."""
    flat, tree = jax.tree.flatten(jax.jit(models.build(config).init)(jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [x * 1.5 + (rng.normal(size=x.shape) * 0.1).astype(np.float32) for x in flat])


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """(name) -> our parameters and transformers' model with them, through a folder."""
    transformers = pytest.importorskip("transformers")
    made = {}

    def pair(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("families") / name
            params = _params(CONFIGS[name])
            source = Source(CONFIGS[name], of_tree(jax.tree.map(np.asarray, params)), ByteTokenizer(), name)
            huggingface.write(source, folder)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
            made[name] = params, model.eval()
        return made[name]

    return pair


@each
def test_decoded_tokens(theirs, name):
    torch = pytest.importorskip("torch")
    params, model = theirs(name)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, VOCAB, n).tolist() for n in (5, 9, 14)]  # shorter and longer than the window
    generator = Generator(
        models.build(CONFIGS[name]), params, VOCAB - 1, prompt_lengths=(16,), new_tokens=(12,), rows=(4,)
    )
    found = generator.generate(prompts, 12)
    for prompt, generation in zip(prompts, found, strict=True):
        output = model.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=VOCAB - 1, pad_token_id=0
        )
        said = output[0].tolist()[len(prompt) :]
        assert list(generation.tokens) == said[: said.index(VOCAB - 1)] if VOCAB - 1 in said else said


@each
def test_scores(theirs, name):
    torch = pytest.importorskip("torch")
    params, model = theirs(name)
    rng = np.random.default_rng(1)

    def tokens(count):
        return tuple(rng.integers(3, VOCAB, count).tolist())

    trees = [Tree(tokens(11), tuple(map(tokens, (3, 1, 5))), (0,) * 3, (1,) * 3) for _ in range(3)]
    found = Scorer(models.build(CONFIGS[name]), params, row_lengths=(64,), tokens_per_batch=64).score(trees)
    for scores, tree in zip(found, trees, strict=True):
        for score, branch in zip(scores.loglikelihood, tree.branches, strict=True):
            ids = torch.tensor([[int(i) for i in (*tree.trunk, *branch)]])
            with torch.no_grad():
                logprobs = torch.log_softmax(model(ids).logits[0].double(), -1)
            places = range(len(tree.trunk), ids.shape[1])
            assert score == pytest.approx(sum(float(logprobs[i - 1, ids[0, i]]) for i in places), abs=2e-4)


def _batch(rows=8, length=20, slots=6):
    rng = np.random.default_rng(3)
    return {
        "tokens": rng.integers(3, VOCAB, (rows, length), dtype=np.int32),
        "positions": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        "segments": np.ones((rows, length), np.int32),
        "target_positions": np.tile(np.arange(length - slots, length, dtype=np.int32), (rows, 1)),
        "targets": rng.integers(3, VOCAB, (rows, slots), dtype=np.int32),
        "weights": np.ones((rows, slots), np.float32),
        "dataset_ids": np.zeros((rows, slots), np.int32),
    }


@each
def test_the_loss_and_its_gradients(theirs, name):
    torch = pytest.importorskip("torch")
    params, model = theirs(name)
    batch, network = _batch(), models.build(CONFIGS[name])
    total, gradients = jax.jit(jax.value_and_grad(lambda p: loss.target_loss(network, p, batch, 1)[0]))(params)
    model.zero_grad()
    logits = model(torch.tensor(batch["tokens"], dtype=torch.int64)).logits[:, -6:]
    targets = torch.tensor(batch["targets"], dtype=torch.int64)
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), targets.reshape(-1), reduction="sum")
    expected.backward()
    assert float(total) == pytest.approx(float(expected.detach()), rel=1e-5)
    of_layer = model.model.layers[1]
    ours = gradients["decoder"]["layers"]
    pairs = [(ours["mlp"]["wo"]["kernel"][1].T, of_layer.mlp.down_proj.weight.grad)]
    pairs.append((gradients["decoder"]["token_embedder"]["embedding"], model.model.embed_tokens.weight.grad))
    query = ours["self_attention"]["query"]
    pairs.append((query["kernel"][1].reshape(32, -1).T, of_layer.self_attn.q_proj.weight.grad))
    if name == "qwen2":
        pairs.append((query["bias"][1].ravel(), of_layer.self_attn.q_proj.bias.grad))
    if name == "olmo2":
        pairs.append((ours["self_attention"]["query_norm"]["scale"][1].ravel(), of_layer.self_attn.q_norm.weight.grad))
        pairs.append((ours["post_mlp_layer_norm"]["scale"][1], of_layer.post_feedforward_layernorm.weight.grad))
    for found, reference in pairs:
        reference = reference.numpy()
        assert np.abs(reference).max() > 1e-3
        np.testing.assert_allclose(found, reference, atol=2e-3 * np.abs(reference).max())


@each
@pytest.mark.slow
def test_ways_to_compute_are_equal(name):
    """Attention in segments, what is kept for the backward pass, bfloat16, and a mesh of eight."""
    config, batch = CONFIGS[name], _batch()
    params = _params(config)

    def gradient(**how):
        network = models.build(config.computed(**how))
        return jax.jit(jax.value_and_grad(lambda p: loss.target_loss(network, p, batch, 1)[0]))(params)

    total, expected = gradient()
    # Each is a program that takes seconds to compile: what does not touch the same part goes into one.
    for how in ({"attention": "segments", "remat": "none", "unroll": True}, {"remat": "save_dots"}):
        for a, b in zip(*map(jax.tree.leaves, (gradient(**how)[1], expected)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * max(1.0, np.abs(b).max()), err_msg=str(how))
    _, coarse = gradient(dtype="bfloat16")
    far, size = (
        sum(np.abs(x).sum() for x in jax.tree.leaves(t))
        for t in (jax.tree.map(np.subtract, coarse, expected), expected)
    )
    assert far / size < 0.25  # of the plain Llama of these sizes, 0.2

    network, mesh = models.build(config), partitioning.make_mesh(2, 2, 2)
    tx = optimizers.for_parameters(optimizers.adafactor(1e-2), network.logical_axes())
    weight = batch["weights"].sum()

    @jax.jit
    def updated(params, gradient):
        mean = jax.tree.map(lambda x: x / weight, gradient)
        return optax.apply_updates(params, tx.update(mean, tx.init(params), params)[0])

    shardings = state_shardings(mesh, network, tx)
    state = jax.device_put(TrainState(jnp.int32(0), params, tx.init(params)), shardings)
    of_batch = partitioning.batch_shardings(mesh, batch)
    run = jax.jit(make_train_step(network, tx, 1, shardings=shardings), in_shardings=(shardings, of_batch))
    state, metrics = run(state, jax.device_put(batch, of_batch))
    assert float(metrics["loss"]) == pytest.approx(float(total), rel=1e-4)
    one, other = updated(params, expected), jax.device_get(state.params)
    wrong = [(np.abs(a - b) > 1e-3).mean() for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)]
    assert max(wrong) < 0.01  # Adafactor's first step is near the sign of the gradient


@each
def test_through_every_format(tmp_path, name):
    """Ours, a layer at a time; T5X, layers apart and stacked; and back."""
    config = CONFIGS[name]
    source = Source(config, of_tree(jax.tree.map(np.asarray, _params(config))), ByteTokenizer(), name)
    manifest = conversion.manifest_of(source, None, names.NATIVE)
    conversion.write(source, tmp_path / "ours", manifest)
    network, params, _, _ = arrays.load_model(tmp_path / "ours")
    assert network.config == config
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(params), tree_of(source))
    again = native.read(tmp_path / "ours")
    for scanned in (False, True):
        conversion.write(again, tmp_path / f"t5x_{scanned}", manifest, names.T5X, scanned=scanned)
        found = conversion.open_source(tmp_path / f"t5x_{scanned}")
        assert found.config == config
        jax.tree.map(np.testing.assert_array_equal, tree_of(found), tree_of(source))
    assert t5x.is_scanned(tmp_path / "t5x_True" / "checkpoint_0")


def test_weights_that_are_not_finite_are_neither_read_nor_written(tmp_path):
    params = jax.tree.map(np.array, _params(CONFIGS["qwen2"]))
    params["decoder"]["layers"]["mlp"]["wo"]["kernel"][1, 3, 3] = np.nan
    source = Source(CONFIGS["qwen2"], of_tree(params), ByteTokenizer(), "broken")
    manifest = conversion.manifest_of(source, None, names.NATIVE)
    with pytest.raises(FlanError, match="model.layers.1.mlp.down_proj.weight in float32: 1 of 1536 numbers are NaN"):
        huggingface.write(source, tmp_path / "theirs")
    conversion.write(source, tmp_path / "ours", manifest)
    with pytest.raises(FlanError, match="decoder/layers/mlp/wo/kernel: 1 of 1536 numbers are NaN or infinite"):
        conversion.write(native.read(tmp_path / "ours"), tmp_path / "t5x", manifest, names.T5X)
    assert not (tmp_path / "t5x").exists()
    t5x.write(source, tmp_path / "t5x" / "checkpoint_0")
    with pytest.raises(FlanError, match="layers_1/mlp/wo/kernel: 1 of 1536 numbers are NaN or infinite"):
        tree_of(t5x.read(tmp_path / "t5x" / "checkpoint_0", CONFIGS["qwen2"]))


def test_soft_caps_are_in_the_programs_that_are_planned():
    mesh = partitioning.make_mesh(devices=jax.devices()[:1])
    shape = program.Shape(rows=2, inputs=32, targets=16)

    def bounds(config, lower):
        return lower(config, mesh, shape)[0].as_text().count("stablehlo.tanh")

    plain = dataclasses.replace(CONFIGS["gemma2"], activation="silu", attention_softcap=0.0, logits_softcap=0.0)
    for lower in (program.lower_train_step, program.lower_scoring):
        assert bounds(plain, lower) == 0
        one = bounds(dataclasses.replace(plain, logits_softcap=3.0), lower)
        assert one > 0 and bounds(dataclasses.replace(plain, logits_softcap=3.0, attention_softcap=2.0), lower) > one

"""Checkpoints that T5X itself wrote, with the logits, scores and losses that it computed from them."""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import models
from flan_jax.errors import FlanError
from flan_jax.formats import t5x
from flan_jax.formats.source import Source, of_tree
from flan_jax.formats.source import tree_of as tree

ORACLES = ("t5x_decoder_only", "t5x_encoder_decoder")


def _config(folder):
    """T5X's example networks: relative bias, queries that are not scaled, a tied head that is."""
    c = json.loads((folder / "config.json").read_text())
    return models.DecoderConfig(
        vocab_size=c["vocab_size"],
        num_layers=c["num_layers"] if "num_layers" in c else c["num_decoder_layers"],
        num_encoder_layers=c.get("num_encoder_layers", 0),
        embed_dim=c["emb_dim"],
        num_heads=c["num_heads"],
        num_kv_heads=c["num_heads"],
        head_dim=c["head_dim"],
        mlp_dim=c["mlp_dim"],
        activation=c["mlp_activations"][0],
        positions="relative_bias",
        tied_embeddings=c["logits_via_embedding"],
        scale_tied_logits=c["logits_via_embedding"],
        attention_scale=1.0,
    )


def random_source(config, seed=0):
    params = jax.jit(models.build(config).init)(jax.random.key(seed))
    return Source(config, of_tree(jax.tree.map(np.asarray, params)), None, "random")


@pytest.fixture(params=ORACLES)
def oracle(request, shared):
    return shared / "oracles" / request.param


def _logits(config, params, *, io):
    model = models.build(config)
    targets = io["batch/decoder_target_tokens"]
    if config.num_encoder_layers:
        inputs = io["batch/encoder_input_tokens"]

        def rows(tokens, filled):
            return tokens, np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape), filled.astype(np.int32)

        memory = model.encode(params, *rows(inputs, inputs > 0))
        hidden = model.hidden(params, *rows(io["batch/decoder_input_tokens"], targets > 0), memory=memory)
        return model.logits(params, hidden), targets > 0
    names = ("input_tokens", "positions", "segment_ids")
    hidden = model.hidden(params, *(io[f"batch/decoder_{name}"] for name in names))
    return model.logits(params, hidden), io["batch/decoder_segment_ids"] > 0


def test_logits_scores_and_loss_are_those_of_t5x(oracle):
    config, io = _config(oracle), np.load(oracle / "io.npz")
    params = tree(t5x.read(oracle / "checkpoint_0", config))
    logits, filled = jax.jit(functools.partial(_logits, config, io=io))(params)
    assert io["logits"][filled].std() > 0.1
    np.testing.assert_allclose(logits[filled], io["logits"][filled], atol=1e-4)

    weights, targets = io["batch/decoder_loss_weights"], io["batch/decoder_target_tokens"]
    log_z = jax.nn.logsumexp(logits, -1)
    likelihoods = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0] - log_z
    np.testing.assert_allclose((likelihoods * weights).sum(-1), io["scores"], atol=1e-3)
    z_loss = json.loads((oracle / "config.json").read_text())["z_loss"]
    # A sum over target tokens: T5X divides it by nothing unless it is told to.
    np.testing.assert_allclose(((z_loss * log_z**2 - likelihoods) * weights).sum(), io["loss"], atol=1e-3)


def test_what_is_rewritten_is_what_t5x_wrote(oracle, tmp_path):
    theirs, ours = oracle / "checkpoint_0", tmp_path / "checkpoint_0"
    optimizer = t5x.read_optimizer(theirs)
    assert optimizer.step == 0
    t5x.write(t5x.read(theirs, _config(oracle)), ours, optimizer)

    def files(folder):
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    expected, found = files(theirs), files(ours)
    assert set(found) == set(expected) and sum(name.endswith(".zarray") for name in found) > 50
    assert found["checkpoint"] == expected["checkpoint"]  # names, specs, inline arrays, the order of all of them
    for name in found:
        if name.endswith(".zarray"):
            assert found[name] == expected[name], name
    again = t5x.read_optimizer(ours)
    jax.tree.map(np.testing.assert_array_equal, again.param_states, optimizer.param_states)
    jax.tree.map(np.testing.assert_array_equal, *(tree(t5x.read(f, _config(oracle))) for f in (ours, theirs)))


SHAPE = {"vocab_size": 50, "embed_dim": 24, "num_heads": 3, "num_kv_heads": 3, "head_dim": 6, "mlp_dim": 40}
T5 = models.DecoderConfig(
    **SHAPE,
    num_layers=3,
    num_encoder_layers=2,
    activation="gelu",
    positions="relative_bias",
    tied_embeddings=False,
    attention_scale=1.0,
)
LLAMA = models.DecoderConfig(**SHAPE | {"num_kv_heads": 1}, num_layers=3, qk_norm=True)


QWEN2 = dataclasses.replace(LLAMA, qk_norm=False, qkv_bias=True)
OLMO2 = dataclasses.replace(LLAMA, qk_norm_across_heads=True, pre_norms=False, post_norms=True)


@pytest.mark.parametrize("config", [T5, LLAMA, QWEN2, OLMO2], ids=["t5", "llama", "qwen2", "olmo2"])
@pytest.mark.parametrize("scanned", [False, True])
def test_round_trip(tmp_path, config, scanned):
    source, folder = random_source(config), tmp_path / "checkpoint_7"
    t5x.write(source, folder, t5x.OptimizerState(7, {}), scanned)
    jax.tree.map(np.testing.assert_array_equal, tree(t5x.read(folder, config)), tree(source))
    assert t5x.read_optimizer(folder) == t5x.OptimizerState(7, {})
    assert t5x.locate(tmp_path) == t5x.locate(folder) == folder
    zarr = json.loads(
        (folder / f"target.decoder.layers{'' if scanned else '_2'}.mlp.wo.kernel" / ".zarray").read_text()
    )
    assert zarr["shape"] == ([40, 3, 24] if scanned else [40, 24])  # scalable_t5 scans over axis 1
    if scanned:
        norm = (
            folder / f"target.decoder.layers.{'pre' if config.pre_norms else 'post'}_mlp_layer_norm.scale" / ".zarray"
        )
        assert json.loads(norm.read_text())["shape"] == [24, 3]


def test_long_axes_are_cut_into_chunks_of_64_mib():
    assert t5x.chunk_shape((32128, 4096), 4) == [4016, 4096]
    assert t5x.chunk_shape((4096, 10240), 4) == [4096, 2560]
    assert t5x.chunk_shape((512, 64), 4) == [512, 64]
    for shape in ((50257, 1600), (30, 7001, 999)):
        chunk = t5x.chunk_shape(shape, 4)
        assert all(n % m == 0 for n, m in zip(shape, chunk, strict=True)) and np.prod(chunk) * 4 <= 64 << 20


def _message(*arguments):
    with pytest.raises(FlanError) as caught:
        tree(t5x.read(*arguments))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_one_line(tmp_path):
    folder = tmp_path / "checkpoint_0"
    t5x.write(random_source(T5), folder)

    def other(**changed):
        return models.DecoderConfig(**(T5.to_dict() | changed))

    assert "decoder/logits_dense/kernel has shape (24, 50) instead of (24, 51)" in _message(
        folder, other(vocab_size=51)
    )
    assert "lacks the parameter decoder/layers_3/" in _message(folder, other(num_layers=4))
    assert "holds parameters that the model has not: decoder/layers_2/" in _message(folder, other(num_layers=2))
    assert "decoder/logits_dense/kernel" in _message(folder, other(tied_embeddings=True))
    shutil.rmtree(folder / "target.encoder.layers_1.mlp.wi_0.kernel")
    assert "target.encoder.layers_1.mlp.wi_0.kernel cannot be read" in _message(folder, T5)
    for content in (b"", b"\x80", b"model_checkpoint_path: x"):
        (folder / "checkpoint").write_bytes(content)
        assert "cannot be read as a T5X checkpoint" in _message(folder, T5)
    (folder / "checkpoint").unlink()
    assert "the file checkpoint is missing" in _message(folder, T5)
    assert t5x.locate(tmp_path) is None

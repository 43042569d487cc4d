"""Logits of models that T5X itself wrote and ran, from the arrays of its checkpoints."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from flan_jax import models


def _config(folder, **more):
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
        attention_block=10,
        **more,
    )


def _params(folder, model):
    """The arrays `target.*` in our tree: layers stacked, attention's kernels by heads."""

    def read(path):
        spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(folder / "checkpoint_0" / path)}}
        return tensorstore.open(spec, read=True).result().read().result()

    def leaf(path, expected):
        names = [key.key for key in path]
        if "layers" not in names:
            return jnp.asarray(read("target." + ".".join(names)))
        at = names.index("layers")
        layers = (".".join([*names[:at], f"layers_{i}", *names[at + 1 :]]) for i in range(expected.shape[0]))
        return jnp.stack([read(f"target.{name}").reshape(expected.shape[1:]) for name in layers])

    return jax.tree_util.tree_map_with_path(leaf, model.abstract_params())


def test_decoder_only(shared):
    folder = shared / "oracles" / "t5x_decoder_only"
    model, io = models.build(_config(folder)), np.load(folder / "io.npz")
    names = ("input_tokens", "positions", "segment_ids")
    hidden = model.hidden(_params(folder, model), *(io[f"batch/decoder_{name}"] for name in names))
    filled = io["batch/decoder_segment_ids"] > 0
    assert io["batch/decoder_segment_ids"].max() > 1 and io["logits"][filled].std() > 0.1
    found = model.logits(_params(folder, model), hidden)
    np.testing.assert_allclose(found[filled], io["logits"][filled], atol=1e-4)


@pytest.mark.parametrize("remat", ["none", "save_dots"])
def test_encoder_decoder(shared, remat):
    folder = shared / "oracles" / "t5x_encoder_decoder"
    model, io = models.build(_config(folder, remat=remat)), np.load(folder / "io.npz")
    params = _params(folder, model)

    def arrays(tokens, filled):
        return tokens, np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape), filled.astype(np.int32)

    inputs, targets = io["batch/encoder_input_tokens"], io["batch/decoder_target_tokens"]
    memory = model.encode(params, *arrays(inputs, inputs > 0))
    hidden = model.hidden(params, *arrays(io["batch/decoder_input_tokens"], targets > 0), memory=memory)
    found = model.logits(params, hidden)
    assert io["logits"][targets > 0].std() > 0.1
    np.testing.assert_allclose(found[targets > 0], io["logits"][targets > 0], atol=1e-4)

"""Adapters as a folder of `peft`, which loads it beside our model in transformers and gives our logits."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import configuration, convert, models
from flan_jax.checkpoint import adapters, arrays, saving
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.models import lora
from flan_jax.training import optimizers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {"embed_dim": 32, "num_heads": 4, "head_dim": 8, "mlp_dim": 48, "vocab_size": 259, "num_layers": 2}
SHAPES = {
    "decoder": dataclasses.replace(configuration.model_config("tiny"), **SMALL, num_kv_heads=2),
    "encoder-decoder": dataclasses.replace(
        configuration.model_config("tiny_t5"), **SMALL, num_kv_heads=4, num_encoder_layers=2
    ),
}
TARGETS = {
    "decoder": ("self_attention", "wi_0", "wo"),
    "encoder-decoder": ("encoder_decoder_attention", "decoder/*/wi_1"),
}


@pytest.fixture(scope="module", params=SHAPES)
def saved(request, tmp_path_factory):
    """A model and adapters of it, B among them not zero, as a run saves them."""
    folder, config = tmp_path_factory.mktemp(request.param), SHAPES[request.param]
    tuning = optimizers.Tuning(lora=optimizers.Lora(3, 6.0, TARGETS[request.param]))
    network = tuning.adapted(models.build(config))
    rng = np.random.default_rng(0)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32) if path[-1].key == lora.LORA_B else x,
        jax.jit(network.init)(jax.random.key(0)),
    )
    plain = lora.merged({k: v for k, v in _without(params).items()})
    for name, tree in (("base", {"params": plain}), ("run", {"params": None, "adapters": _alone(params)})):
        with saving.Saver(folder / name) as saver:
            saver.save(2, **tree)
        Manifest.create(config, ByteTokenizer(), UNTUNED).save(folder / name)
        ByteTokenizer().save(folder / name / "vocabulary")
    adapters.Base.of(folder / "base", 2).save(folder / "run")
    return folder, config


def _without(tree):
    return {k: _without(v) if isinstance(v, dict) else v for k, v in tree.items() if k not in lora.NAMES}


def _alone(tree):
    found = {
        k: _alone(v) if isinstance(v, dict) else v for k, v in tree.items() if isinstance(v, dict) or k in lora.NAMES
    }
    return {k: v for k, v in found.items() if not isinstance(v, dict) or v}


def test_peft_gives_our_logits(saved, tmp_path):
    peft = pytest.importorskip("peft")  # here, for its import takes 2 s
    folder, config = saved
    convert.convert(str(folder / "base"), str(tmp_path / "base"), form="huggingface")
    written = convert.convert(str(folder / "run"), str(tmp_path / "adapters"), form="peft")
    assert written["parameters"] == sum(x.size for x in jax.tree.leaves(_alone(lora_tree(folder))))
    about = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert (about["r"], about["lora_alpha"], about["base_model_name_or_path"]) == (3, 6.0, "base")
    network, params, _, _ = arrays.load_model(folder / "run")
    tokens = np.random.default_rng(1).integers(3, 259, (2, 9)).astype(np.int32)
    slots = (np.tile(np.arange(9, dtype=np.int32), (2, 1)), np.ones((2, 9), np.int32))
    if config.num_encoder_layers:
        kind, asked = transformers.AutoModelForSeq2SeqLM, {"decoder_input_ids": torch.tensor(tokens[:, ::-1].copy())}
        memory = network.encode(params, tokens, *slots)
        ours = network.logits(params, network.hidden(params, tokens[:, ::-1], *slots, memory=memory))
    else:
        kind, asked = transformers.AutoModelForCausalLM, {}
        ours = network.logits(params, network.hidden(params, tokens, *slots))
    theirs = kind.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
    with torch.no_grad():
        before = theirs(input_ids=torch.tensor(tokens), **asked).logits.numpy()
        loaded = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapters").eval()
        after = loaded(input_ids=torch.tensor(tokens), **asked).logits.numpy()
    np.testing.assert_allclose(after, ours, atol=2e-4)
    assert np.abs(after - before).max() > 0.05
    wanted = {f"base_model.model.{name}" for name, _ in loaded.base_model.model.named_parameters() if "lora_" in name}
    assert len(wanted) == 2 * len([m for m in loaded.modules() if hasattr(m, "lora_A")])


def lora_tree(folder):
    from flan_jax.formats import native

    return native.adapters_of(folder / "run", 2)[1]


def test_what_holds_no_adapters_is_said(saved, tmp_path):
    folder, _ = saved
    with pytest.raises(
        FlanError, match="holds no adapters of a run with LORA or PROMPT_LENGTH: leave --format=peft out"
    ):
        convert.convert(str(folder / "base"), str(tmp_path / "x"), form="peft")
    assert not (tmp_path / "x").exists()

"""Folders of transformers as people have them, to change and to read: small random models of each family."""

import functools
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flan_jax import models
from flan_jax.errors import FlanError
from flan_jax.formats import huggingface
from flan_jax.formats.source import tree_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCAB, LENGTH, NEW = 400, 20, 5
SHAPE = {"vocab_size": VOCAB, "num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 48, "bos_token_id": None, "eos_token_id": None}
SHAPE |= {"pad_token_id": None}
T5 = {"vocab_size": VOCAB, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_heads": 4, "num_layers": 2}
T5 |= {"num_decoder_layers": 3, "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0, "eos_token_id": None}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 16, "rope_theta": 1e4}


def _decoder(kind, **more):
    config = getattr(transformers, f"{kind}Config")(**SHAPE | more)
    name = kind.removesuffix("Text")
    return getattr(transformers, f"{name}ForCausalLM")(config)


def _t5(**more):
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**T5 | more))


FAMILIES = {
    "llama": lambda: _decoder("Llama"),
    "llama 3.1": lambda: _decoder("Llama", rope_parameters=LLAMA3, tie_word_embeddings=True),
    "llama linear": lambda: _decoder(
        "Llama", rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    ),
    "mistral": lambda: _decoder("Mistral", sliding_window=7),
    "mistral 0.3": lambda: _decoder("Mistral", sliding_window=None),
    "qwen 2": lambda: _decoder("Qwen2", tie_word_embeddings=True),
    "qwen 2 with windows": lambda: _decoder("Qwen2", use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "qwen 3": lambda: _decoder("Qwen3"),
    "gemma 2": lambda: _decoder(
        "Gemma2", sliding_window=7, query_pre_attn_scalar=20, attn_logit_softcapping=2.0, final_logit_softcapping=20.0
    ),
    "gemma 3": lambda: _decoder("Gemma3Text", sliding_window=7, query_pre_attn_scalar=20, num_hidden_layers=7),
    "olmo 2": lambda: _decoder("Olmo2"),
    "t5 1.1": lambda: _t5(tie_word_embeddings=False),
    "t5 tied": _t5,
}
DECODERS = [name for name in FAMILIES if not name.startswith("t5")]


def randomized(model):
    """Fresh random weights, norms and biases included: with ones and zeros a mistake there would not show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            random = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                weight.copy_(random * 0.3 + (0 if "Gemma" in str(type(model)) or "bias" in name else 1))
            else:
                t5 = model.config.is_encoder_decoder
                wide = ("embed" in name or "shared" in name) and not t5
                scale = (0.3 if ".q." in name else 1.0) if t5 else 1.5  # T5 does not divide its scores by sqrt(K)
                weight.copy_(random * (1.0 if wide else scale * weight.shape[1] ** -0.5))
    return model.eval()


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def edit(folder, *dropped, **changed):
    values = {name: value for name, value in config_of(folder).items() if name not in dropped} | changed
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def change_weights(folder, change):
    """Rewrites the weights as `change` of {name: array} gives them."""
    path = folder / "model.safetensors"
    save_file({k: np.ascontiguousarray(v) for k, v in change(load_file(path)).items()}, path, {"format": "pt"})
    return folder


# --------------------------------------------------------------------------------------- what transformers computes

TOKENS = np.random.default_rng(0).integers(3, VOCAB, (2, LENGTH))


def theirs(folder):
    """Tokens with what transformers adds greedily, and its logits for all of them."""
    from_encoder = "num_decoder_layers" in config_of(folder)
    kind = transformers.AutoModelForSeq2SeqLM if from_encoder else transformers.AutoModelForCausalLM
    model, loading = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not loading["missing_keys"], loading
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    model.generation_config.decoder_start_token_id = 0
    with torch.no_grad():
        start = torch.tensor(TOKENS)
        # With a cache, transformers 5.23 stumbles over decoders that have more layers than their encoder.
        said = model.generate(start, max_new_tokens=NEW, do_sample=False, use_cache=False)
        logits = model(input_ids=start, decoder_input_ids=said).logits if from_encoder else model(said).logits
    return said.numpy(), logits.numpy()


@functools.cache
def forward_of(config):
    """One program for all folders of a configuration."""
    model = models.build(config)

    def rows(tokens):
        return tokens, np.tile(np.arange(tokens.shape[1]), (len(tokens), 1)), np.ones(tokens.shape, np.int32)

    def forward(params, tokens):
        memory = {}
        if config.num_encoder_layers:
            memory = {"memory": model.encode(params, *rows(TOKENS))}
        return model.logits(params, model.hidden(params, *rows(tokens), **memory))

    return jax.jit(forward)


def as_transformers(folder, reference=None):
    """Reads the folder and compares it with transformers' reading of it, or of another one."""
    source = huggingface.read(folder)
    said, expected = theirs(reference or folder)
    found = np.asarray(forward_of(source.config)(tree_of(source), said))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)
    before = found[:, -NEW - 1 : -1]  # what the new tokens were chosen by; a tie may go either way
    chosen = np.take_along_axis(before, said[:, -NEW:, None], -1)[..., 0]
    assert (chosen >= before.max(-1) - 2e-4).all()
    return source


def refused(folder, *words):
    """Reading ends in one line, which names the folder and has these words."""
    with pytest.raises(FlanError) as caught:
        tree_of(huggingface.read(folder))
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message and len(message) < 600, message
    for word in words:
        assert word in message, message
    return message


def spelt_by_4(folder):
    """The same config.json as transformers 4 wrote it."""
    values = config_of(folder)
    values["torch_dtype"] = values.pop("dtype", "float32")
    values |= {"_name_or_path": "someone/model", "transformers_version": "4.44.2", "use_cache": True}
    if rope := values.pop("rope_parameters", None):
        whole = rope.get("full_attention", rope)
        values["rope_theta"] = whole["rope_theta"]
        scaling = {key: value for key, value in whole.items() if key != "rope_theta"}
        values["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
        if "sliding_attention" in rope:
            values["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
            values["sliding_window_pattern"] = 6
    if values["model_type"] != "qwen2":
        values.pop("layer_types", None)
    if "scale_decoder_outputs" in values:
        values["tie_word_embeddings"] = values.pop("scale_decoder_outputs")
    (folder / "config.json").write_text(json.dumps(values))
    return folder

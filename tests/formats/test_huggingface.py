"""Random models of transformers: to ours and back, with equal logits."""

import dataclasses
import io
import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import sentencepiece
import tokenizers
from safetensors.numpy import load_file, save_file
from tokenizers import decoders, pre_tokenizers, trainers

from flan_jax import models, partitioning
from flan_jax.checkpoint import arrays
from flan_jax.checkpoint.manifest import UNKNOWN, Manifest
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.formats import huggingface, huggingface_config, native
from flan_jax.formats.source import Source, of_tree, tree_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = [
    "The ferry left the harbour at half past six, and nobody on the pier waved.",
    "Is the second sentence true?\nOPTIONS:\n- yes\n- it is not possible to tell\n- no",
    "naïve café “quoted” – 10,240 €! 日本語 Привет",
    "  two spaces,   three,\ttabs\t\tand\n\n\nblank lines  ",
]
LENGTH = 40

COMMON = {
    "vocab_size": 353,  # no multiple of anything
    "num_hidden_layers": 3,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 80,
    "attn_implementation": "eager",
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,  # so that positions here are beyond it
}
T5_SHAPE = {"vocab_size": 301, "d_model": 48, "d_kv": 12, "d_ff": 80, "num_heads": 4}
T5_SHAPE |= {"num_layers": 2, "num_decoder_layers": 3, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0}


def _llama(**more):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**COMMON | {"rms_norm_eps": 1e-5} | more))


def _qwen3(**more):
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**COMMON | more))


def _gemma3(**more):
    changed = {"num_hidden_layers": 7, "num_key_value_heads": 1, "sliding_window": 9, "query_pre_attn_scalar": 30}
    config = transformers.Gemma3TextConfig(**COMMON | changed | more)
    return transformers.Gemma3ForCausalLM(config)


def _t5(**more):
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5_SHAPE | more))
    if not more.get("tie_word_embeddings", True):
        model.lm_head.weight = torch.nn.Parameter(torch.zeros(301, 48))
    return model


LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6}
MAKERS = {
    "llama": _llama,
    "llama tied": lambda: _llama(tie_word_embeddings=True),
    "llama 3": lambda: _llama(rope_parameters=LLAMA3),
    "llama linear": lambda: _llama(rope_parameters=LINEAR | {"rope_theta": 1e4}),
    "qwen 3": _qwen3,
    "gemma 3": _gemma3,
    "gemma 3 long": lambda: _gemma3(
        rope_parameters={
            "full_attention": LINEAR,
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
        }
    ),
    "t5 1.1": lambda: _t5(tie_word_embeddings=False),
    "t5 tied": _t5,
}


def _randomized(model):
    """Fresh random weights, norms included: with their initial ones and zeros a mistake there would not show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            random = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                weight.copy_(random * 0.3 + (0 if "Gemma" in str(type(model)) else 1))
            else:
                wide = ("embed" in name or "shared" in name) and not model.config.is_encoder_decoder
                weight.copy_(random * (1.0 if wide else weight.shape[1] ** -0.5))
    return model.eval()


# ------------------------------------------------------------------------------------------------------ vocabularies


def _bpe(bos):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, show_progress=False, special_tokens=special, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if bos:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
        )
    return tokenizer.to_str().encode()


def _pieces(kind):
    model = io.BytesIO()
    t5 = kind == "t5"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=model,
        model_type="unigram" if t5 else "bpe",
        vocab_size=110 if t5 else 340,
        byte_fallback=not t5,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc" if t5 else "identity",
        add_dummy_prefix=t5,
        remove_extra_whitespaces=t5,
        pad_id=0,
        eos_id=1,
        bos_id=-1 if t5 else 2,
        unk_id=2 if t5 else 3,
        minloglevel=2,
    )
    return model.getvalue()


def _put_tokenizer(folder, family):
    if family == "t5":
        (folder / "spiece.model").write_bytes(_pieces("t5"))
        return
    (folder / "tokenizer.json").write_bytes(_bpe(bos=family.startswith("gemma")))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "bos_token": "<|begin|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Saved models by name, made when they are asked for: (model, folder)."""
    made = {}

    def folder(name):
        if name not in made:
            path = tmp_path_factory.mktemp("huggingface") / name.replace(" ", "_")
            model = _randomized(MAKERS[name]())
            model.save_pretrained(path, max_shard_size="60KB")
            _put_tokenizer(path, model.config.model_type)
            made[name] = model, path
        return made[name]

    return folder


# ------------------------------------------------------------------------------------------------------------- logits

TOKENS = np.random.default_rng(0).integers(3, 301, (2, LENGTH))
TARGETS = np.random.default_rng(1).integers(3, 301, (2, 11))


def _theirs(model):
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            inputs = {"input_ids": torch.tensor(TOKENS), "decoder_input_ids": torch.tensor(TARGETS)}
            return model(**inputs).logits.numpy()
        return model(torch.tensor(TOKENS)).logits.numpy()


def _ours(config, params):
    model = models.build(config)

    def rows(tokens):
        return tokens, np.tile(np.arange(tokens.shape[1]), (len(tokens), 1)), np.ones(tokens.shape, np.int32)

    @jax.jit
    def forward(params):
        if config.num_encoder_layers:
            memory = model.encode(params, *rows(TOKENS))
            return model.logits(params, model.hidden(params, *rows(TARGETS), memory=memory))
        return model.logits(params, model.hidden(params, *rows(TOKENS)))

    return np.asarray(forward(params))


@pytest.mark.parametrize("name", MAKERS)
def test_both_ways_with_equal_logits(folders, tmp_path, name):
    model, folder = folders(name)
    assert len(list(folder.glob("*.safetensors"))) > 3
    source = huggingface.read(folder)
    expected = _theirs(model)
    assert expected.std() > 0.1
    np.testing.assert_allclose(_ours(source.config, tree_of(source)), expected, atol=1e-4)

    back = tmp_path / "back"
    huggingface.write(source, back, shard_bytes=60_000)
    assert len(list(back.glob("*.safetensors"))) > 3
    sizes = [path.stat().st_size for path in back.glob("*.safetensors")]
    assert sorted(sizes)[-2] < 70_000  # only a tensor that is larger by itself has a larger file
    kind = transformers.AutoModelForSeq2SeqLM if model.config.is_encoder_decoder else transformers.AutoModelForCausalLM
    again, loading = kind.from_pretrained(back, attn_implementation="eager", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert again.dtype == torch.float32
    np.testing.assert_allclose(_theirs(again.eval()), expected, atol=1e-4)
    reread = huggingface.read(back)
    assert reread.config == source.config
    jax.tree.map(np.testing.assert_array_equal, tree_of(reread), tree_of(source))


def test_bfloat16(folders, tmp_path):
    model, folder = folders("gemma 3")
    source = huggingface.read(folder)
    huggingface.write(source, tmp_path / "half", dtype="bfloat16")
    assert sum(p.stat().st_size for p in (tmp_path / "half").glob("*.safetensors")) < 0.55 * sum(
        p.stat().st_size for p in folder.glob("*.safetensors")
    )
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert again.dtype == torch.bfloat16
    for (name, x), y in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(x.to(torch.bfloat16), y), name
    found = tree_of(huggingface.read(tmp_path / "half"))  # read in float32
    kernel = np.asarray(tree_of(source)["decoder"]["layers"]["mlp"]["wo"]["kernel"])
    np.testing.assert_array_equal(
        found["decoder"]["layers"]["mlp"]["wo"]["kernel"], kernel.astype(ml_dtypes.bfloat16).astype(np.float32)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma 3", "t5 1.1"])
def test_odd_shapes_on_a_mesh(folders, tmp_path, name):
    """353 or 301 ids, 6 heads and 1 or 2 KV heads on 8 devices: what a mesh axis does not divide stays whole."""
    model, folder = folders(name)
    source = huggingface.read(folder)
    manifest = Manifest.create(source.config, source.tokenizer, UNKNOWN)
    native.write(source, manifest, tmp_path / "ours")
    for sizes in ((1, 1, 8), (1, 8, 1)):
        mesh = partitioning.make_mesh(*sizes)
        network, params, _, _ = arrays.load_model(tmp_path / "ours", mesh=mesh)
        specs = {str(x.sharding.spec) for x in jax.tree.leaves(params)}
        assert len(specs) > 1  # something is split
        np.testing.assert_allclose(_ours(network.config, params), _theirs(model), atol=1e-4)


# --------------------------------------------------------------------------------------------------------- tokenizers


def _same_ids(folder, tokenizer, encoder):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = tokenizer.encode([text])[0]
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids
        start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        end = [tokenizer.eos_id] if encoder else []
        assert theirs(text)["input_ids"] == start + ids + end
    assert theirs.eos_token_id == tokenizer.eos_id


@pytest.mark.parametrize("name", ["llama", "gemma 3", "t5 1.1"])
def test_tokenizers_travel(folders, tmp_path, name):
    _, folder = folders(name)
    source = huggingface.read(folder)
    assert source.tokenizer.eos_id == 1
    assert source.tokenizer.bos_id == (0 if name == "gemma 3" else None)  # only that one adds it
    huggingface.write(source, tmp_path / "back")
    _same_ids(tmp_path / "back", source.tokenizer, name.startswith("t5"))
    assert huggingface.read(tmp_path / "back").tokenizer.fingerprint == source.tokenizer.fingerprint


def test_ends_and_chats_travel(copy, tmp_path):
    """Through our own folder and back: every end of sequence, and the chat templates."""
    folder = copy("llama")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 44]}))
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[-1].content }}")
    source = huggingface.read(folder)
    native.write(source, Manifest.create(source.config, source.tokenizer, UNKNOWN), tmp_path / "ours")
    huggingface.write(native.read(tmp_path / "ours"), tmp_path / "back")
    for tokenizer in (source.tokenizer, native.read(tmp_path / "ours").tokenizer):
        assert tokenizer.stop_ids == (1, 44)
        assert tokenizer.chat.render([{"role": "user", "content": "a"}]) == "<|begin|>a"
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "back").eos_token_id == [1, 44]
    assert transformers.AutoConfig.from_pretrained(tmp_path / "back").eos_token_id == [1, 44]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert theirs.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "<|begin|>a"
    assert huggingface.read(tmp_path / "back").tokenizer.stop_ids == (1, 44)


def test_more_ids_than_embeddings(copy):
    folder = copy("llama")
    tokens = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens.add_tokens([f"<added_{i}>" for i in range(90)])
    tokens.save(str(folder / "tokenizer.json"))
    size = tokens.get_vocab_size()
    assert f"the tokenizer has {size} ids and the model 353 embeddings" in _message(folder)


def test_vocabularies_of_other_origin(folders, tmp_path):
    """A SentencePiece model as our GGUF reader makes it, and bytes."""
    source = huggingface.read(folders("gemma 3")[1])
    for number, tokenizer in enumerate(
        (vocabularies.SentencePieceTokenizer(_pieces("gemma"), bos_id=2), vocabularies.ByteTokenizer())
    ):
        folder = tmp_path / str(number)
        huggingface.write(dataclasses.replace(source, tokenizer=tokenizer), folder)
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        for text in TEXTS:
            assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode([text])[0]
        assert huggingface.read(folder).tokenizer.fingerprint == tokenizer.fingerprint
    unigram = vocabularies.SentencePieceTokenizer(_pieces("t5"))
    with pytest.raises(FlanError, match="no tokenizer for a SentencePiece unigram vocabulary with gemma3_text"):
        huggingface.write(dataclasses.replace(source, tokenizer=unigram), tmp_path / "unigram")


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.fixture
def copy(folders, tmp_path):
    def copied(name="llama"):
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        return shutil.copytree(folders(name)[1], folder)

    return copied


def _message(folder, **changed):
    path = folder / "config.json"
    original = path.read_text()
    path.write_text(json.dumps(json.loads(original) | changed))
    with pytest.raises(FlanError) as caught:
        huggingface.read(folder)
    path.write_text(original)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


def test_variants_that_are_not_covered_name_file_and_field(copy):
    folder = copy()
    assert "config.json: attention_bias is True" in _message(folder, attention_bias=True)
    assert "config.json: hidden_act is 'relu'" in _message(folder, hidden_act="relu")
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}
    assert "config.json: rope_parameters.rope_type is 'yarn'" in _message(folder, rope_parameters=yarn)
    old = {"type": "dynamic", "factor": 2.0}
    assert "rope_scaling.rope_type is 'dynamic'" in _message(folder, rope_parameters=None, rope_scaling=old)
    assert "mscale is 1.0" in _message(folder, rope_parameters={"rope_type": "default", "mscale": 1.0})
    assert "partial_rotary_factor is 0.5" in _message(folder, partial_rotary_factor=0.5)
    assert "the field residual_multiplier (0.5) is unknown" in _message(folder, residual_multiplier=0.5)
    assert "model_type is 'mixtral'; llama, mistral" in _message(folder, model_type="mixtral")
    assert "quantization_config" in _message(folder, quantization_config={"bits": 4})
    assert "lacks the field hidden_size" in _message(folder, hidden_size=None)
    folder = copy("gemma 3")
    assert "attn_logit_softcapping is 30.0" in _message(folder, attn_logit_softcapping=30.0)
    kinds = ["full_attention", "sliding_attention", "sliding_attention"] + ["full_attention"] * 4
    assert "layer_types is" in _message(folder, layer_types=kinds)
    folder = copy("t5 1.1")
    assert "feed_forward_proj is 'relu'" in _message(folder, feed_forward_proj="relu")


def test_weights_that_do_not_fit(copy):
    folder = copy()
    assert "has shape (48, 80); by config.json it should be (48, 96)" in _message(folder, intermediate_size=96) or (
        "it should be (96, 48)" in _message(folder, intermediate_size=96)
    )
    path = folder / "config.json"
    original = path.read_text()
    path.write_text(json.dumps({key: value for key, value in json.loads(original).items() if key != "vocab_size"}))
    usual = "config.json and the usual vocab_size, which it does not say, it should be .32000"
    with pytest.raises(FlanError, match=usual):
        huggingface.read(folder)
    path.write_text(original)
    assert "lacks the tensor model.layers.3" in _message(folder, num_hidden_layers=4)
    assert "holds tensors that are not covered: model.layers.2" in _message(folder, num_hidden_layers=2)
    weights = {k: v for p in sorted(folder.glob("*.safetensors")) for k, v in load_file(p).items()}
    for path in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
        path.unlink()
    assert "has no model.safetensors" in _message(folder)
    bias = {"model.layers.0.self_attn.q_proj.bias": np.zeros(96, np.float32)}
    save_file(weights | bias, folder / "model.safetensors")
    assert "not covered: model.layers.0.self_attn.q_proj.bias" in _message(folder)
    (folder / "model.safetensors").write_bytes(b"none")
    assert "model.safetensors cannot be read" in _message(folder)
    save_file(weights, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{")
    assert "tokenizer.json is no JSON" in _message(folder)
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer.json, spiece.model or tokenizer.model" in _message(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(FlanError, match="config.json cannot be read"):
        huggingface.read(folder)


def test_a_missing_shard_is_named(copy):
    folder = copy()
    sorted(folder.glob("*.safetensors"))[1].unlink()
    assert "lacks model-00002-of" in _message(folder)


def test_shapes_that_transformers_has_not(tmp_path):
    lamda = models.DecoderConfig(
        vocab_size=259,
        num_layers=1,
        embed_dim=16,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        mlp_dim=16,
        activation="gelu",
    )
    lamda = dataclasses.replace(lamda, positions="relative_bias")
    for config in (lamda, dataclasses.replace(lamda, positions="rope"), dataclasses.replace(lamda, embed_dim=17)):
        source = Source(config, of_tree({}), vocabularies.ByteTokenizer(), "random")
        with pytest.raises(FlanError, match="transformers has no architecture for this decoder"):
            huggingface.write(source, tmp_path / "none")
    odd = dataclasses.replace(lamda, positions="rope", activation="silu", embed_dim=17)
    with pytest.raises(FlanError, match="no multiple of their heads"):
        huggingface_config.write(odd, vocabularies.ByteTokenizer(), "float32")
    assert not (tmp_path / "none").exists()


HUB = {  # as published, less what plays no part
    "smollm2": (
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 576}
        | {"intermediate_size": 1536, "is_llama_config": True, "num_attention_heads": 9, "num_hidden_layers": 30}
        | {"num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-5, "rope_interleaved": False}
        | {"rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True, "vocab_size": 49152}
        | {"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "max_position_embeddings": 8192}
        | {"attention_bias": False, "mlp_bias": False, "bos_token_id": 0, "eos_token_id": 0},
        {"rope_theta": 1e5, "head_dim": 64, "tied_embeddings": True, "rope_scaling": "none"},
    ),
    "llama 3.1": (
        {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}
        | {"num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 500000.0}
        | {"vocab_size": 128256, "tie_word_embeddings": False, "eos_token_id": [128001, 128008]}
        | {"rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"} | {"rope_type": "llama3"}},
        {"rope_scaling": "llama3", "rope_scaling_factor": 8.0, "rope_original_length": 16, "tied_embeddings": False},
    ),
    "gemma 3 4b": (
        {"model_type": "gemma3", "image_token_index": 262144, "vision_config": {"hidden_size": 1152}}
        | {
            "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text"}
            | {"num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}
        },
        {"vocab_size": 262_208, "num_heads": 8, "num_kv_heads": 4, "head_dim": 256, "rope_theta": 1e6, "window": 1024}
        | {"global_every": 6, "rope_scaling": "linear", "rope_scaling_factor": 8.0, "attention_scale": 1 / 16}
        | {"tied_embeddings": True, "local_rope_theta": 1e4},
    ),
    "flan-t5 small": (
        {"model_type": "t5", "d_ff": 1024, "d_kv": 64, "d_model": 512, "feed_forward_proj": "gated-gelu"}
        | {"num_layers": 8, "num_decoder_layers": 8, "num_heads": 6, "tie_word_embeddings": False}
        | {"n_positions": 512, "output_past": True, "dense_act_fn": "gelu_new", "is_gated_act": True}
        | {"task_specific_params": {"summarization": {"num_beams": 4}}, "layer_norm_epsilon": 1e-6},
        {"tied_embeddings": False, "scale_tied_logits": False, "num_encoder_layers": 8, "attention_scale": 1.0},
    ),
}


@pytest.mark.parametrize("name", HUB)
def test_configurations_as_published(name):
    values, expected = HUB[name]
    _, config = huggingface_config.read(values, ["lm_head.weight"], "config.json")
    assert {field: getattr(config, field) for field in expected} == expected
    written = huggingface_config.write(config, vocabularies.ByteTokenizer(), "float32")
    assert huggingface_config.read(written, ["lm_head.weight"], "config.json")[1] == config
    if (length := huggingface_config.positions_of(values)) is not None:  # other programs cut texts there
        again = huggingface_config.write(config, vocabularies.ByteTokenizer(), "float32", length)
        assert again == written | {"max_position_embeddings": length}

"""Folders as people have them: what is converted gives transformers' logits and tokens, the rest is refused by name."""

import functools
import itertools
import json
import re
import shutil

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


def _randomized(model):
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


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """(name) -> a folder of that family, as this version of transformers saves it."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("base") / name.replace(" ", "_")
            model = _randomized(FAMILIES[name]())
            if name == "t5 1.1":
                model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0) + 0.1)
                model.config.tie_word_embeddings = False
            model.save_pretrained(made[name])
            if name == "t5 1.1":
                _edit(made[name], tie_word_embeddings=False, scale_decoder_outputs=False)
            settings = {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125}
            (made[name] / "tokenizer_config.json").write_text(json.dumps(settings))
        return made[name]

    return folder


@pytest.fixture
def copy(base, tmp_path):
    """(name) -> a copy of the folder to change."""
    numbers = itertools.count()

    def copied(name):
        return shutil.copytree(base(name), tmp_path / f"{next(numbers)}")

    return copied


def _config(folder):
    return json.loads((folder / "config.json").read_text())


def _edit(folder, *dropped, **changed):
    values = {name: value for name, value in _config(folder).items() if name not in dropped} | changed
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def _weights(folder, change):
    """Rewrites the weights as `change` of {name: array} gives them."""
    path = folder / "model.safetensors"
    save_file({k: np.ascontiguousarray(v) for k, v in change(load_file(path)).items()}, path, {"format": "pt"})
    return folder


# --------------------------------------------------------------------------------------- what transformers computes

TOKENS = np.random.default_rng(0).integers(3, VOCAB, (2, LENGTH))


def _theirs(folder):
    """Tokens with what transformers adds greedily, and its logits for all of them."""
    from_encoder = "num_decoder_layers" in _config(folder)
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
def _forward(config):
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


def _as_transformers(folder, reference=None):
    """Reads the folder and compares it with transformers' reading of it, or of another one."""
    source = huggingface.read(folder)
    said, expected = _theirs(reference or folder)
    found = np.asarray(_forward(source.config)(tree_of(source), said))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)
    before = found[:, -NEW - 1 : -1]  # what the new tokens were chosen by; a tie may go either way
    chosen = np.take_along_axis(before, said[:, -NEW:, None], -1)[..., 0]
    assert (chosen >= before.max(-1) - 2e-4).all()
    return source


def _refused(folder, *words):
    """Reading ends in one line, which names the folder and has these words."""
    with pytest.raises(FlanError) as caught:
        tree_of(huggingface.read(folder))
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message and len(message) < 600, message
    for word in words:
        assert word in message, message
    return message


# ----------------------------------------------------------------------------------------------- files and spellings


def _sharded(folder):
    kind = transformers.AutoModelForSeq2SeqLM if "d_kv" in _config(folder) else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_as_saved(base, name):
    source = _as_transformers(base(name))
    assert source.config.head_dim == 12


@pytest.mark.parametrize("name", ["llama", "gemma 2", "t5 tied"])
def test_sharded(copy, name):
    _as_transformers(_sharded(copy(name)))


def _as_transformers_4(folder):
    """The same config.json as transformers 4 wrote it."""
    values = _config(folder)
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


@pytest.mark.parametrize("name", FAMILIES)
def test_the_spelling_of_transformers_4(copy, base, name):
    source = _as_transformers(_as_transformers_4(copy(name)))
    assert source.config == huggingface.read(base(name)).config


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_floats_of_other_widths_are_converted_exactly(copy, dtype):
    folder, theirs = copy("llama 3.1"), {}
    path = folder / "model.safetensors"
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    for name, tensor in load_torch(path).items():
        theirs[name] = tensor.to(getattr(torch, dtype)).contiguous()
    save_torch(theirs, path, {"format": "pt"})
    source = _as_transformers(_edit(folder, dtype=dtype))
    wo = np.asarray(tree_of(source)["decoder"]["layers"]["mlp"]["wo"]["kernel"])
    np.testing.assert_array_equal(wo[0].T, theirs["model.layers.0.mlp.down_proj.weight"].float().numpy())


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "int32", "int64", "bool", "complex64", "float8_e4m3fn", "float8_e5m2"]
)
@pytest.mark.parametrize("which", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_dtypes_that_are_not_covered(copy, dtype, which):
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    path = (folder := copy("llama")) / "model.safetensors"
    tensors = load_torch(path)
    tensors[which] = tensors[which].to(getattr(torch, dtype))
    save_torch(tensors, path, {"format": "pt"})
    _refused(folder, which, "is stored as", "without quantization")


def test_float64_that_float32_does_not_hold(copy):
    folder = _weights(copy("llama"), lambda w: w | {"model.norm.weight": w["model.norm.weight"] + np.float64(1e-12)})
    _refused(folder, "model.norm.weight holds float64 numbers", "float32")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["llama", "t5 1.1"])
def test_weights_that_are_not_finite(copy, name, bad):
    def change(weights, which):
        weights[which].flat[-1] = bad
        return weights

    for which in list(load_file(copy(name) / "model.safetensors"))[::5]:
        folder = _weights(copy(name), functools.partial(change, which=which))
        _refused(folder, which, "are NaN or infinite")


@pytest.mark.parametrize("prefix", ["", "model.", "language_model.model.", "_orig_mod.model."])
def test_prefixes(copy, base, prefix):
    folder = copy("llama 3.1")
    _weights(folder, lambda w: {prefix + name.removeprefix("model."): x for name, x in w.items()})
    _as_transformers(folder, base("llama 3.1"))


def test_names_that_would_break_a_line(copy):
    _refused(_weights(copy("llama"), lambda w: w | {"model.a\nb": w["model.norm.weight"]}), r"'model.a\nb'")
    _refused(_edit(copy("llama"), **{"a\nb": 3}), r"a\nb (3)")
    _refused(_edit(copy("llama"), model_type="a\nb"), r"model_type is 'a\nb'")
    _refused(_edit(copy("llama"), num_hidden_layers=2**31 - 1), "num_hidden_layers is 2147483647")


def test_two_models_in_one_folder(copy):
    folder = _weights(copy("llama"), lambda w: w | {f"draft.{name}": x for name, x in w.items()})
    assert re.search("several (models|heads)", _refused(folder))


# ------------------------------------------------------------------------------------- what repeats something (A7)


@pytest.mark.parametrize("name", ["llama", "gemma 2"])
@pytest.mark.parametrize("tie", [True, False, None])
@pytest.mark.parametrize("head", ["none", "equal", "other"])
def test_heads(copy, name, tie, head):
    folder = copy(name)

    def change(weights):
        weights.pop("lm_head.weight", None)
        embedding = weights["model.embed_tokens.weight"]
        return weights | (
            {} if head == "none" else {"lm_head.weight": embedding if head == "equal" else embedding[::-1]}
        )

    _weights(folder, change)
    _edit(folder, "tie_word_embeddings", **({} if tie is None else {"tie_word_embeddings": tie}))
    ties = name in ("gemma 2", "gemma 3") if tie is None else tie
    if head == "none" and not ties:
        _refused(folder, "lacks the tensor lm_head.weight")
        return
    source = _as_transformers(folder)
    assert source.config.tied_embeddings == (ties and head != "other")


def test_a_tied_model_that_has_the_head_alone(copy, base):
    folder = _weights(
        copy("llama 3.1"),
        lambda w: {("lm_head.weight" if "embed" in name else name): x for name, x in w.items()},
    )
    assert _as_transformers(folder, base("llama 3.1")).config.tied_embeddings
    _as_transformers(folder)
    _refused(_edit(folder, tie_word_embeddings=False), "lacks the tensor model.embed_tokens.weight")


COPIES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(
    "has",  # which of COPIES there are, and which of two tables each holds
    [
        "a...",
        ".a..",
        "..a.",
        "...a",
        "aaaa",
        "aaa.",
        ".aa.",
        "a..b",
        "aa.b",
        ".aab",
        "..ab",
        ".a.b",
        "baaa",
        "baa.",
        "baab",
    ],
)
def test_embeddings_of_t5(copy, has, scaled):
    """MADLAD's have no shared.weight; transformers takes what is there for what is missing."""
    folder = copy("t5 1.1")

    def change(weights):
        tables = {"a": weights["shared.weight"], "b": weights["shared.weight"][::-1]}
        weights = {name: x for name, x in weights.items() if name not in COPIES}
        return weights | {name: tables[which] for name, which in zip(COPIES, has, strict=True) if which != "."}

    _edit(_weights(folder, change), "scale_decoder_outputs", tie_word_embeddings=scaled)
    _as_transformers(folder)


@pytest.mark.parametrize("has", ["ab..", "a.b.", "aab.", "aba.", ".ab.", "bab.", ".a.b"])
def test_embeddings_of_t5_that_differ(copy, has):
    folder = copy("t5 tied")

    def change(weights):
        tables = {"a": weights["shared.weight"], "b": weights["shared.weight"][::-1]}
        weights = {name: x for name, x in weights.items() if name not in COPIES}
        return weights | {name: tables[which] for name, which in zip(COPIES, has, strict=True) if which != "."}

    _weights(folder, change)
    if has == ".a.b":
        _as_transformers(folder)
    else:
        _refused(folder, "differ")


def test_t5_without_any_embedding(copy):
    _refused(
        _weights(copy("t5 tied"), lambda w: {n: x for n, x in w.items() if n not in COPIES}),
        "lacks the tensor shared.weight",
    )


def test_a_table_that_transformers_never_reads(copy):
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    _as_transformers(_weights(copy("t5 1.1"), lambda w: w | {name: np.full((32, 4), 9, np.float32)}))
    _refused(
        _weights(copy("t5 1.1"), lambda w: w | {name.replace("block.0", "block.1"): np.ones((32, 4), np.float32)}),
        "not covered",
    )


@pytest.mark.parametrize("theta", [1e4, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_frequencies_in_the_file(copy, theta, dtype):
    frequencies = (theta ** -(np.arange(6) / 6)).astype(dtype)
    names = [f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(3)]
    folder = _weights(copy("llama"), lambda w: w | dict.fromkeys(names, frequencies))
    if theta == 1e4:
        _as_transformers(folder)
    else:
        _refused(folder, names[0], "rope_theta")


# ----------------------------------------------------------------------------------- files that contradict each other


def test_a_newer_file_beside_old_shards(copy, base):
    """As transformers: model.safetensors goes before the index (A8)."""
    folder = _sharded(copy("llama"))
    newer = {name: x[..., ::-1] for name, x in load_file(base("llama") / "model.safetensors").items()}
    save_file({k: np.ascontiguousarray(v) for k, v in newer.items()}, folder / "model.safetensors", {"format": "pt"})
    source = _as_transformers(folder)
    np.testing.assert_array_equal(tree_of(source)["decoder"]["decoder_norm"]["scale"], newer["model.norm.weight"])


def _index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    changed = change(index)
    path.write_text(json.dumps(index if changed is None else changed))
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda i: i["weight_map"].update({"model.norm.weight": i["weight_map"]["model.embed_tokens.weight"]}),
         ("model.norm.weight", "which lacks it")),
        (lambda i: i["weight_map"].update({"model.other.weight": i["weight_map"]["model.norm.weight"]}),
         ("model.other.weight", "which lacks it")),
        (lambda i: i["weight_map"].update({"model.norm.weight": "model-00099-of-00099.safetensors"}),
         ("lacks model-00099-of-00099.safetensors",)),
        (lambda i: i["weight_map"].update({"model.norm.weight": "../base/model.safetensors"}), ("not in this folder",)),
        (lambda i: i["weight_map"].update({"model.norm.weight": "/etc/passwd"}), ("not in this folder",)),
        (lambda i: i["weight_map"].update({"model.norm.weight": "..\\x.safetensors"}), ("not in this folder",)),
        (lambda i: i["weight_map"].update({"model.norm.weight": "a\nb"}), (r"'a\nb'", "not in this folder")),
        (lambda i: i["weight_map"].update({"model.norm.weight": "a\0b"}), ("not in this folder",)),
        (lambda i: i["weight_map"].update({"model.norm.weight": 3}), ("weight_map",)),
        (lambda i: i["weight_map"].clear(), ("weight_map",)),
        (lambda i: i.pop("weight_map") and None, ("weight_map",)),
        (lambda i: {}, ("weight_map",)),
        (lambda i: [], ("weight_map",)),
        (lambda i: {"weight_map": []}, ("weight_map",)),
        (lambda i: {"weight_map": "model.safetensors"}, ("weight_map",)),
    ],
)  # fmt: skip
def test_an_index_that_is_wrong(copy, change, words):
    _refused(_index(_sharded(copy("llama")), change), *words)


def test_a_tensor_in_two_shards(copy):
    folder = _sharded(copy("llama"))
    first, last = sorted(folder.glob("model-*.safetensors"))[:: len(list(folder.glob("model-*.safetensors"))) - 1]
    name, array = next(iter(load_file(first).items()))
    save_file(load_file(last) | {name: array * 2}, last, {"format": "pt"})
    _refused(folder, name, first.name, last.name)


def test_shards_without_their_index(copy):
    folder = _sharded(copy("llama"))
    (folder / "model.safetensors.index.json").unlink()
    _refused(folder, "has no model.safetensors", "index")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.fp16.safetensors", ("model.fp16.safetensors has another name", "rename")),
        ("consolidated.safetensors", ("consolidated.safetensors has another name",)),
        ("model-00001-of-00002.safetensors", ("model-00001-of-00002.safetensors needs its",)),
        ("pytorch_model.bin", ("pytorch_model.bin", "save_pretrained")),
    ],
)
def test_weights_under_another_name(copy, name, words):
    folder = copy("llama")
    (folder / "model.safetensors").rename(folder / name)
    _refused(folder, "has no model.safetensors", *words)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_copy_of_the_cache_without_its_blobs(copy, name):
    folder = copy("llama")
    (folder / "model.safetensors").unlink()
    (folder / name).symlink_to("../../blobs/0123")
    _refused(folder, f"{name} is a link to ../../blobs/0123, which is not there", "cp -rL")


OLD = {"max_length": 20, "min_length": 0, "do_sample": False, "num_beams": 1, "num_beam_groups": 1, "temperature": 1.0}
OLD |= {"top_k": 50, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "prefix": None}
OLD |= {"num_return_sequences": 1, "no_repeat_ngram_size": 0, "bad_words_ids": None, "suppress_tokens": None}
OLD |= {"torchscript": False, "finetuning_task": None, "pruned_heads": {}, "sep_token_id": None, "return_dict": True}


@pytest.mark.parametrize("name", ["t5 tied", "llama"])
def test_fields_of_every_configuration_of_transformers_4(copy, base, name):
    folder = _edit(copy(name), **OLD, tokenizer_class="T5Tokenizer")
    _as_transformers(folder, base(name))


@pytest.mark.parametrize(
    "changed",
    [
        {"repetition_penalty": 1.1},
        {"num_beams": 4},
        {"no_repeat_ngram_size": 3},
        {"suppress_tokens": [5]},
        {"forced_bos_token_id": 7},
        {"pruned_heads": {"0": [1]}},
        {"auto_map": {"AutoModelForCausalLM": "modeling_other.Other"}},
        {"clip_qkv": 8.0},
    ],
)
def test_fields_that_may_change_an_answer(copy, changed):
    _refused(_edit(copy("llama"), **changed), *changed)


def test_an_adapter_beside_the_model(copy):
    folder = copy("llama")
    (folder / "adapter_config.json").write_text("{}")
    _refused(folder, "adapter")


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.999])
def test_weights_that_broke_off(copy, share):
    path = (folder := copy("llama")) / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    _refused(folder, "model.safetensors cannot be read")


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize 12345\n"


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"]
)
def test_a_pointer_of_git_lfs(copy, file):
    folder = copy("llama")
    (folder / file).write_text(POINTER)
    _refused(folder, file, "git lfs pull")


@pytest.mark.parametrize("file", ["model.safetensors.index.json", "model-00002-of-"])
def test_a_pointer_in_place_of_a_part(copy, file):
    folder = _sharded(copy("llama"))
    path = next(path for path in folder.iterdir() if path.name.startswith(file))
    path.write_text(POINTER)
    _refused(folder, path.name, "git lfs pull")


# ------------------------------------------------------------------------------------------------------- config.json


def _either(folder):
    """transformers' logits, or one line; says which."""
    try:
        huggingface.read(folder)
    except FlanError:
        _refused(folder)
        return False
    _as_transformers(folder)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True], ids=["5", "4"])
@pytest.mark.parametrize("name", FAMILIES)
def test_without_each_field(copy, name, old):
    folder = _as_transformers_4(copy(name)) if old else copy(name)
    values = _config(folder)
    kept = {field for field in values if _either(_edit_all(folder, {k: v for k, v in values.items() if k != field}))}
    assert {"use_cache", "architectures"} & set(values) <= kept


def _edit_all(folder, values):
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_each_field_null(copy, name):
    folder = copy(name)
    values = _config(folder)
    for field in values:
        _edit_all(folder, values | {field: None})
        try:
            config = huggingface.read(folder).config
        except FlanError:
            _refused(folder)
            continue
        try:
            said, expected = _theirs(folder)
        except Exception:  # transformers refuses it: then it is no other model here
            assert config == huggingface.read(_edit_all(folder, values)).config, field
            continue
        found = np.asarray(_forward(config)(tree_of(huggingface.read(folder)), said))
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=field)


WRONG = ["four", "4", -1, 0, 4.5, True, [], [4], {}, {"a": 1}, float("nan"), float("inf"), 2**40, 1e400]


@pytest.mark.parametrize("name", ["llama 3.1", "gemma 2", "gemma 3", "qwen 2 with windows", "t5 1.1"])
def test_values_of_a_wrong_kind(copy, base, name):
    """One line, or the same model: no field is half understood."""
    folder, expected = copy(name), huggingface.read(base(name)).config
    values = _config(folder)
    played = set()
    for field, wrong in itertools.product(values, WRONG):
        _edit_all(folder, values | {field: wrong})
        try:
            config = huggingface.read(folder).config
        except FlanError:
            _refused(folder)
            played.add(field)
            continue
        # A number that another model could have is not a wrong kind; weights would not fit or it is checked elsewhere.
        if config != expected:
            assert (isinstance(wrong, int | float) and np.isfinite(wrong) and wrong > 0) or wrong in (
                [],
                {},
                0,
                True,
            ), (
                field,
                wrong,
            )
    assert {"model_type", "vocab_size"} <= played


@pytest.mark.parametrize("content", ["", "[]", "3", "null", '"x"', "{", "\ufeff{}", "[" * 100_000, "{}"])
def test_a_config_that_is_none(copy, content):
    folder = copy("llama")
    (folder / "config.json").write_text(content)
    _refused(folder, "config.json")


@pytest.mark.parametrize(
    ("scaling", "words"),
    [
        ({"rope_type": "yarn", "factor": 4.0}, ("rope_type is 'yarn'",)),
        ({"rope_type": "dynamic", "factor": 4.0}, ("rope_type is 'dynamic'",)),
        ({"type": "longrope", "short_factor": [1.0] * 6, "long_factor": [1.0] * 6}, ("rope_type is 'longrope'",)),
        ({"rope_type": ["linear"], "factor": 4.0}, ("rope_type",)),
        ({"rope_type": "linear"}, ("factor",)),
        ({"rope_type": "linear", "factor": "4"}, ("factor",)),
        ({"rope_type": "linear", "factor": 0}, ("factor",)),
        ({"rope_type": "linear", "factor": -2.0}, ("factor",)),
        ({"rope_type": "linear", "factor": None}, ("factor",)),
        ({k: v for k, v in LLAMA3.items() if k != "low_freq_factor"}, ("rope_scaling.low_freq_factor",)),
        ({k: v for k, v in LLAMA3.items() if k != "high_freq_factor"}, ("rope_scaling.high_freq_factor",)),
        ({k: v for k, v in LLAMA3.items() if k != "factor"}, ("rope_scaling.factor",)),
        (LLAMA3 | {"low_freq_factor": 4.0}, ("high_freq_factor",)),
        (LLAMA3 | {"rope_theta": None}, ("rope_theta",)),
        (LLAMA3 | {"attention_factor": 2.0}, ("attention_factor",)),
        (LLAMA3 | {"original_max_position_embeddings": None}, ("original_max_position_embeddings",)),
        ("linear", ("rope_scaling",)),
        ([4.0], ("rope_scaling",)),
    ],
)
@pytest.mark.parametrize("place", ["rope_scaling", "rope_parameters"])
def test_scalings_that_are_refused(copy, scaling, words, place):
    folder = _edit(copy("llama"), "rope_parameters", **{place: scaling})
    _refused(folder, *(word.replace("rope_scaling", place) for word in words))


@pytest.mark.parametrize(
    "changed",
    [
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 4.0}},
        {"rope_theta": 5e5},
        {"rope_theta": 500_000, "rope_scaling": {}},
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e3}},
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e3}, "rope_scaling": LLAMA3},
        {"rope_scaling": {k: v for k, v in LLAMA3.items() if k != "original_max_position_embeddings"}},
    ],
)
@pytest.mark.parametrize("name", ["llama", "gemma 2"])
def test_where_scalings_are_found(copy, changed, name):
    assert _either(_edit(copy(name), "rope_parameters", **changed))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("mistral", {"sliding_window": 7, "layer_types": ["full_attention"] * 3}),
        ("qwen 2", {"use_sliding_window": True, "sliding_window": None}),
        ("qwen 2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 3, "layer_types": None}),
        ("qwen 2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0, "layer_types": None}),
        ("qwen 3", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2, "layer_types": None}),
        ("qwen 3", {"layer_types": ["sliding_attention"] * 3}),
        ("llama", {"sliding_window": 7}),
        ("llama", {"attention_bias": True}),
        ("llama", {"mlp_bias": True}),
        ("olmo 2", {"attention_bias": True}),
        ("olmo 2", {"sliding_window": 7}),
        ("gemma 2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
        ("gemma 2", {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}),
        ("gemma 2", {"layer_types": ["full_attention"] * 3}),
        ("gemma 2", {"layer_types": ["sliding_attention"] * 3}),
        ("gemma 2", {"layer_types": ["chunked_attention"] * 3}),
        ("gemma 2", {"layer_types": ["full_attention"] * 2}),
        ("gemma 3", {"final_logit_softcapping": 2.0}),
        ("gemma 3", {"attn_logit_softcapping": 2.0}),
        ("gemma 3", {"use_bidirectional_attention": True}),
        ("gemma 3", {"rope_parameters": {"rope_type": "linear", "factor": 4.0}}),
        ("gemma 3", {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 4.0}}),
        ("gemma 3", {"rope_parameters": None, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
        ("t5 tied", {"decoder_start_token_id": 5}),
        ("t5 tied", {"feed_forward_proj": "gated-silu"}),
        ("t5 tied", {"feed_forward_proj": "gated-relu"}),
        ("t5 tied", {"feed_forward_proj": "gelu"}),
    ],
)  # fmt: skip
def test_variants(copy, name, changed):
    _either(_edit(copy(name), **changed))


# ------------------------------------------------------------------------------------------------------- and back


@pytest.mark.parametrize("name", FAMILIES)
def test_written_again(base, tmp_path, name):
    source = huggingface.read(base(name))
    huggingface.write(source, tmp_path / "back", shard_bytes=30_000)
    again = _as_transformers(tmp_path / "back")
    assert again.config == source.config
    jax.tree.map(np.testing.assert_array_equal, tree_of(again), tree_of(source))
    # Without a window Mistral is a Llama.
    kind = "LlamaForCausalLM" if name == "mistral 0.3" else _config(base(name))["architectures"][0]
    assert _config(tmp_path / "back")["architectures"] == [kind]

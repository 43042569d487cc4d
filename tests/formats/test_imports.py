"""Files as people have them: what is converted gives transformers' logits and tokens, the rest is refused by name."""

import functools
import json
import re

import jax
import numpy as np
import pytest
from folders_of_transformers import (
    FAMILIES,
    as_transformers,
    change_weights,
    config_of,
    edit,
    refused,
    spelt_by_4,
    torch,
    transformers,
)
from safetensors.numpy import load_file, save_file

from flan_jax.formats import huggingface
from flan_jax.formats.source import tree_of

# ----------------------------------------------------------------------------------------------- files and spellings


def _sharded(folder):
    kind = transformers.AutoModelForSeq2SeqLM if "d_kv" in config_of(folder) else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_as_saved(base, name):
    source = as_transformers(base(name))
    assert source.config.head_dim == 12


@pytest.mark.parametrize("name", ["llama", "gemma 2", "t5 tied"])
def test_sharded(copy, name):
    as_transformers(_sharded(copy(name)))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_spelling_of_transformers_4(copy, base, name):
    source = as_transformers(spelt_by_4(copy(name)))
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
    source = as_transformers(edit(folder, dtype=dtype))
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
    refused(folder, which, "is stored as", "without quantization")


def test_float64_that_float32_does_not_hold(copy):
    folder = change_weights(
        copy("llama"), lambda w: w | {"model.norm.weight": w["model.norm.weight"] + np.float64(1e-12)}
    )
    refused(folder, "model.norm.weight holds float64 numbers", "float32")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["llama", "t5 1.1"])
def test_weights_that_are_not_finite(copy, name, bad):
    def change(weights, which):
        weights[which].flat[-1] = bad
        return weights

    for which in list(load_file(copy(name) / "model.safetensors"))[::5]:
        folder = change_weights(copy(name), functools.partial(change, which=which))
        refused(folder, which, "are NaN or infinite")


@pytest.mark.parametrize("prefix", ["", "model.", "language_model.model.", "_orig_mod.model."])
def test_prefixes(copy, base, prefix):
    folder = copy("llama 3.1")
    change_weights(folder, lambda w: {prefix + name.removeprefix("model."): x for name, x in w.items()})
    as_transformers(folder, base("llama 3.1"))


def test_names_that_would_break_a_line(copy):
    refused(change_weights(copy("llama"), lambda w: w | {"model.a\nb": w["model.norm.weight"]}), r"'model.a\nb'")
    refused(edit(copy("llama"), **{"a\nb": 3}), r"a\nb (3)")
    refused(edit(copy("llama"), model_type="a\nb"), r"model_type is 'a\nb'")
    refused(edit(copy("llama"), num_hidden_layers=2**31 - 1), "num_hidden_layers is 2147483647")


def test_two_models_in_one_folder(copy):
    folder = change_weights(copy("llama"), lambda w: w | {f"draft.{name}": x for name, x in w.items()})
    assert re.search("several (models|heads)", refused(folder))


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

    change_weights(folder, change)
    edit(folder, "tie_word_embeddings", **({} if tie is None else {"tie_word_embeddings": tie}))
    ties = name in ("gemma 2", "gemma 3") if tie is None else tie
    if head == "none" and not ties:
        refused(folder, "lacks the tensor lm_head.weight")
        return
    source = as_transformers(folder)
    assert source.config.tied_embeddings == (ties and head != "other")


def test_a_tied_model_that_has_the_head_alone(copy, base):
    folder = change_weights(
        copy("llama 3.1"),
        lambda w: {("lm_head.weight" if "embed" in name else name): x for name, x in w.items()},
    )
    assert as_transformers(folder, base("llama 3.1")).config.tied_embeddings
    as_transformers(folder)
    refused(edit(folder, tie_word_embeddings=False), "lacks the tensor model.embed_tokens.weight")


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

    edit(change_weights(folder, change), "scale_decoder_outputs", tie_word_embeddings=scaled)
    as_transformers(folder)


@pytest.mark.parametrize("has", ["ab..", "a.b.", "aab.", "aba.", ".ab.", "bab.", ".a.b"])
def test_embeddings_of_t5_that_differ(copy, has):
    folder = copy("t5 tied")

    def change(weights):
        tables = {"a": weights["shared.weight"], "b": weights["shared.weight"][::-1]}
        weights = {name: x for name, x in weights.items() if name not in COPIES}
        return weights | {name: tables[which] for name, which in zip(COPIES, has, strict=True) if which != "."}

    change_weights(folder, change)
    if has == ".a.b":
        as_transformers(folder)
    else:
        refused(folder, "differ")


def test_t5_without_any_embedding(copy):
    refused(
        change_weights(copy("t5 tied"), lambda w: {n: x for n, x in w.items() if n not in COPIES}),
        "lacks the tensor shared.weight",
    )


def test_a_table_that_transformers_never_reads(copy):
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    as_transformers(change_weights(copy("t5 1.1"), lambda w: w | {name: np.full((32, 4), 9, np.float32)}))
    refused(
        change_weights(
            copy("t5 1.1"), lambda w: w | {name.replace("block.0", "block.1"): np.ones((32, 4), np.float32)}
        ),
        "not covered",
    )


@pytest.mark.parametrize("theta", [1e4, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_frequencies_in_the_file(copy, theta, dtype):
    frequencies = (theta ** -(np.arange(6) / 6)).astype(dtype)
    names = [f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(3)]
    folder = change_weights(copy("llama"), lambda w: w | dict.fromkeys(names, frequencies))
    if theta == 1e4:
        as_transformers(folder)
    else:
        refused(folder, names[0], "rope_theta")


# ----------------------------------------------------------------------------------- files that contradict each other


def test_a_newer_file_beside_old_shards(copy, base):
    """As transformers: model.safetensors goes before the index (A8)."""
    folder = _sharded(copy("llama"))
    newer = {name: x[..., ::-1] for name, x in load_file(base("llama") / "model.safetensors").items()}
    save_file({k: np.ascontiguousarray(v) for k, v in newer.items()}, folder / "model.safetensors", {"format": "pt"})
    source = as_transformers(folder)
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
    refused(_index(_sharded(copy("llama")), change), *words)


def test_a_tensor_in_two_shards(copy):
    folder = _sharded(copy("llama"))
    first, last = sorted(folder.glob("model-*.safetensors"))[:: len(list(folder.glob("model-*.safetensors"))) - 1]
    name, array = next(iter(load_file(first).items()))
    save_file(load_file(last) | {name: array * 2}, last, {"format": "pt"})
    refused(folder, name, first.name, last.name)


def test_shards_without_their_index(copy):
    folder = _sharded(copy("llama"))
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, "has no model.safetensors", "index")


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
    refused(folder, "has no model.safetensors", *words)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_copy_of_the_cache_without_its_blobs(copy, name):
    folder = copy("llama")
    (folder / "model.safetensors").unlink()
    (folder / name).symlink_to("../../blobs/0123")
    refused(folder, f"{name} is a link to ../../blobs/0123, which is not there", "cp -rL")


OLD = {"max_length": 20, "min_length": 0, "do_sample": False, "num_beams": 1, "num_beam_groups": 1, "temperature": 1.0}
OLD |= {"top_k": 50, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "prefix": None}
OLD |= {"num_return_sequences": 1, "no_repeat_ngram_size": 0, "bad_words_ids": None, "suppress_tokens": None}
OLD |= {"torchscript": False, "finetuning_task": None, "pruned_heads": {}, "sep_token_id": None, "return_dict": True}


@pytest.mark.parametrize("name", ["t5 tied", "llama"])
def test_fields_of_every_configuration_of_transformers_4(copy, base, name):
    folder = edit(copy(name), **OLD, tokenizer_class="T5Tokenizer")
    as_transformers(folder, base(name))


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
    refused(edit(copy("llama"), **changed), *changed)


def test_an_adapter_beside_the_model(copy):
    folder = copy("llama")
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "adapter")


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.999])
def test_weights_that_broke_off(copy, share):
    path = (folder := copy("llama")) / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(folder, "model.safetensors cannot be read")


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize 12345\n"


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"]
)
def test_a_pointer_of_git_lfs(copy, file):
    folder = copy("llama")
    (folder / file).write_text(POINTER)
    refused(folder, file, "git lfs pull")


@pytest.mark.parametrize("file", ["model.safetensors.index.json", "model-00002-of-"])
def test_a_pointer_in_place_of_a_part(copy, file):
    folder = _sharded(copy("llama"))
    path = next(path for path in folder.iterdir() if path.name.startswith(file))
    path.write_text(POINTER)
    refused(folder, path.name, "git lfs pull")


# ------------------------------------------------------------------------------------------------------- and back


@pytest.mark.parametrize("name", FAMILIES)
def test_written_again(base, tmp_path, name):
    source = huggingface.read(base(name))
    huggingface.write(source, tmp_path / "back", shard_bytes=30_000)
    again = as_transformers(tmp_path / "back")
    assert again.config == source.config
    jax.tree.map(np.testing.assert_array_equal, tree_of(again), tree_of(source))
    # Without a window Mistral is a Llama.
    kind = "LlamaForCausalLM" if name == "mistral 0.3" else config_of(base(name))["architectures"][0]
    assert config_of(tmp_path / "back")["architectures"] == [kind]

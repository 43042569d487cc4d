"""GGUF files of every architecture, whole and in parts, written by the gguf package from models of transformers."""

import re
import shutil

import gguf
import numpy as np
import pytest

from flan_jax import models
from flan_jax.errors import FlanError
from flan_jax.formats import gguf as reader

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCAB = 60
SHAPE = {"vocab_size": VOCAB, "num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "intermediate_size": 48, "attn_implementation": "eager", "pad_token_id": None}
CAPS = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 20.0}
GEMMA = {"sliding_window": 7, "head_dim": 12, "query_pre_attn_scalar": 12}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192, "rope_theta": 1e7}  # so that 8 pairs reach beyond 8192 positions
MODELS = {  # architecture, class, what is unlike SHAPE
    "llama": ("llama", "Llama", {}),
    "llama 3.1": ("llama", "Llama", {"rope_parameters": LLAMA3, "head_dim": 16}),
    "llama linear": ("llama", "Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "mistral": ("llama", "Mistral", {"sliding_window": None, "rms_norm_eps": 1e-5}),
    "qwen2": ("qwen2", "Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", "Qwen3", {"head_dim": 12}),
    "gemma2": ("gemma2", "Gemma2", GEMMA | CAPS),
    "gemma3": ("gemma3", "Gemma3", GEMMA | {"num_hidden_layers": 7}),
    "olmo2": ("olmo2", "Olmo2", {}),
}


def _model(name):
    _, kind, changed = MODELS[name]
    config = getattr(transformers, kind + ("TextConfig" if kind == "Gemma3" else "Config"))(**SHAPE | changed)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            random = torch.randn(weight.shape, generator=generator)
            center = 0 if "Gemma" in kind or "bias" in weight_name else 1
            scale = 1.0 if "embed" in weight_name else 1.5 * weight.shape[-1] ** -0.5
            weight.copy_(random * 0.3 + center if weight.ndim == 1 else random * scale)
    return model


def _tensors(model, architecture):
    """The model's tensors under the names that the gguf package gives them, as llama.cpp's converter stores them."""
    config, found = model.config, {}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.numpy().copy()
        if "gemma" in architecture and "norm" in name:
            array += 1
        if architecture == "llama" and (which := re.search(r"\.([qk])_proj", name)):
            heads = config.num_attention_heads if which[1] == "q" else config.num_key_value_heads
            array = (
                array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
            )  # pairs side by side
        found[names.get_name(name, try_suffixes=(".weight", ".bias"))] = array
    if (config.rope_parameters or {}).get("rope_type") == "llama3":
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        scaled = ROPE_INIT_FUNCTIONS["llama3"](config)[0].numpy()
        found["rope_freqs.weight"] = (1e7 ** -(np.arange(8) / 8) / scaled).astype(np.float32)
    return found


def _write(path, model, architecture, tensors, *, parts=0, dtypes=None, **fields):
    """Writes the file, or about as many parts; `fields` adds or replaces metadata, None leaves it out."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=-(-len(tensors) // parts) if parts else 0)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    values = {
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "context_length": 512,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": float(rope["rope_theta"]),
    }
    if getattr(config, "head_dim", None):
        values |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    if "gemma" in architecture:
        values["attention.sliding_window"] = config.sliding_window
    if architecture == "gemma2":
        values |= {name: getattr(config, name) for name in CAPS}
    if rope["rope_type"] == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": rope["factor"]}
    for name, value in (values | fields).items():
        if value is not None:
            write = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
            write[type(value)](f"{architecture}.{name}", value)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{i}>" for i in range(VOCAB)])
    writer.add_token_scores([-float(i) for i in range(VOCAB)])
    kinds = gguf.TokenType
    writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL] + [kinds.NORMAL] * (VOCAB - 3))
    for name, number in (("unk", 0), ("eos", 1), ("bos", 2)):
        getattr(writer, f"add_{name}_token_id")(number)
    for name, tensor in tensors.items():
        dtype = (dtypes or {}).get(name)
        writer.add_tensor(name, gguf.quants.quantize(tensor, dtype) if dtype else tensor, raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


TOKENS = np.random.default_rng(0).integers(3, VOCAB, (2, 20))


def _ours(found):
    model = models.build(found.config)
    rows = TOKENS, np.tile(np.arange(20), (2, 1)), np.ones((2, 20), np.int32)
    return np.asarray(model.logits(found.params, model.hidden(found.params, *rows)))


def _theirs(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.numpy()


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(tmp_path, name):
    model, architecture = _model(name), MODELS[name][0]
    found = reader.read(_write(tmp_path / "model.gguf", model, architecture, _tensors(model, architecture)))
    expected = _theirs(model)
    assert expected.std() > 0.1
    np.testing.assert_allclose(_ours(found), expected, atol=1e-4)
    if name == "llama 3.1":
        assert found.config.rope_scaling == "llama3" and found.config.rope_scaling_factor == pytest.approx(8.0)


@pytest.fixture(scope="module")
def llama():
    model = _model("llama")
    return model, _tensors(model, "llama")


@pytest.mark.parametrize(("architecture", "layers"), [("gemma2", 46), ("gemma3", 62), ("gemma2", 42)])
def test_27b_models_have_another_scale_of_attention(tmp_path, llama, architecture, layers):
    """llama.cpp knows them by their layers; no field says it. (Read no further than the shape.)"""
    model, tensors = llama
    many = {"token_embd.weight": tensors["token_embd.weight"]} | {
        f"x{i}": np.ones(1, np.float32) for i in range(layers)
    }
    fields = {"block_count": layers, "attention.sliding_window": 7, "attention.key_length": 12}
    fields |= {"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention.value_length": 12}
    model.config.sliding_window, model.config.attn_logit_softcapping = 7, 1.0
    model.config.final_logit_softcapping = 1.0
    path = _write(tmp_path / "model.gguf", model, architecture, many, **fields)
    contents = reader.gguf_files.read(path)
    config = reader.gguf_tensors.config(architecture, reader.gguf_files.Fields(path, contents.fields), contents)
    assert config.attention_scale == pytest.approx((12 if layers == 42 else 8) ** -0.5)
    assert config.logits_softcap == (30.0 if architecture == "gemma2" else 0.0)


# ------------------------------------------------------------------------------------------------------------ in parts


def _parts(folder):
    return sorted(folder.glob("*-of-*.gguf"))


@pytest.fixture
def split(tmp_path, llama):
    folder = tmp_path / "parts"
    folder.mkdir()
    _write(folder / "model.gguf", *llama[:1], "llama", llama[1], parts=3)
    assert [path.name for path in _parts(folder)] == [f"model-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    return folder


def _refused(path, *words):
    with pytest.raises(FlanError) as caught:
        reader.read(path)
    message = str(caught.value)
    assert "\n" not in message and str(path.parent) in message, message
    for word in words:
        assert word in message, message


def test_any_part_leads_to_all(split, llama):
    for path in _parts(split):
        np.testing.assert_allclose(_ours(reader.read(path)), _theirs(llama[0]), atol=1e-4)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_part_that_is_missing(split, missing):
    paths = _parts(split)
    paths[missing].unlink()
    _refused(paths[missing - 1], f"{paths[missing].name} is missing")


def test_a_part_under_another_name(split):
    first = _parts(split)[0]
    _refused(first.rename(split / "model.gguf"), "is part 1 of 3", "-00001-of-00003.gguf")


def test_parts_in_the_wrong_order(split):
    first, second, _ = _parts(split)
    first.rename(split / "x")
    second.rename(first)
    (split / "x").rename(second)
    _refused(first, "is part 2 of 3", "mixed up")


def test_parts_of_another_model(split, tmp_path, llama):
    model, tensors = llama
    other = tmp_path / "other"
    other.mkdir()
    _write(other / "model.gguf", model, "llama", dict(list(tensors.items())[3:]), parts=3)
    shutil.copy(_parts(other)[1], _parts(split)[1])
    _refused(_parts(split)[0], "mixed up")


def test_a_part_that_is_a_pointer(split):
    path = _parts(split)[1]
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    _refused(_parts(split)[0], path.name, "git lfs pull")


# ------------------------------------------------------------------------------------------------------------- tensors


def test_an_equal_head_is_no_head(tmp_path, llama):
    model, tensors = llama
    equal = tensors | {"output.weight": tensors["token_embd.weight"]}
    assert reader.read(_write(tmp_path / "equal.gguf", model, "llama", equal)).config.tied_embeddings
    found = reader.read(_write(tmp_path / "other.gguf", model, "llama", tensors))
    np.testing.assert_array_equal(found.params["decoder"]["logits_dense"]["kernel"].T, tensors["output.weight"])


@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0", "Q5_0"])
def test_kinds_that_are_dequantized(tmp_path, llama, dtype):
    model, tensors = llama
    name, kind = "blk.1.ffn_up.weight", gguf.GGMLQuantizationType[dtype]
    found = reader.read(_write(tmp_path / "model.gguf", model, "llama", tensors, dtypes={name: kind}))
    kernel = found.params["decoder"]["layers"]["mlp"]["wi_1"]["kernel"][1].T
    np.testing.assert_array_equal(kernel, gguf.quants.dequantize(gguf.quants.quantize(tensors[name], kind), kind))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.float64])
def test_kinds_that_are_refused(tmp_path, llama, dtype):
    model, tensors = llama
    changed = tensors | {"blk.1.ffn_up.weight": tensors["blk.1.ffn_up.weight"].astype(dtype)}
    _refused(_write(tmp_path / "model.gguf", model, "llama", changed), "blk.1.ffn_up.weight", "is stored as")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["blk.0.attn_q.weight", "output_norm.weight", "output.weight"])
def test_numbers_that_are_not_finite(tmp_path, llama, name, bad):
    model, tensors = llama
    array = tensors[name].copy()
    array.flat[3] = bad
    _refused(_write(tmp_path / "model.gguf", model, "llama", tensors | {name: array}), name, "NaN or infinite")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"blk.0.attn_q.weight": (32, 24)}, ("blk.0.attn_q.weight has shape",)),
        ({"blk.2.attn_norm.weight": (31,)}, ("blk.2.attn_norm.weight has shape",)),
        ({"token_embd.weight": (59, 32)}, ("59",)),  # of 60 tokens
        ({"output.weight": (61, 32)}, ("output.weight has shape",)),
        ({"blk.0.attn_q.bias": (32,)}, ("blk.0.attn_q.bias",)),
        ({"blk.3.attn_norm.weight": (32,)}, ("blk.3.attn_norm.weight",)),
        ({"rope_freqs.weight": (4,)}, ("rope_freqs.weight",)),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, llama, change, words):
    model, tensors = llama
    changed = tensors | {name: np.random.default_rng(0).normal(size=s).astype(np.float32) for name, s in change.items()}
    _refused(_write(tmp_path / "model.gguf", model, "llama", changed), *words)


def test_factors_of_one_scale_nothing(tmp_path, llama):
    model, tensors = llama
    path = _write(tmp_path / "model.gguf", model, "llama", tensors | {"rope_freqs.weight": np.ones(4, np.float32)})
    assert reader.read(path).config.rope_scaling == "none"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"block_count": 0}, ("llama.block_count is 0",)),
        ({"block_count": 2**30}, ("layers",)),
        ({"block_count": "3"}, ("llama.block_count is 3",)),
        ({"attention.head_count": [4, 4, 2]}, ("llama.attention.head_count is [4, 4, 2]",)),
        ({"attention.head_count_kv": 3}, ("no multiple",)),
        ({"attention.key_length": 7}, ("7",)),
        ({"attention.value_length": 4}, ("llama.attention.value_length is 4",)),
        ({"rope.dimension_count": 4}, ("llama.rope.dimension_count is 4",)),
        ({"rope.freq_base": float("nan")}, ("llama.rope.freq_base is nan",)),
        ({"attention.layer_norm_rms_epsilon": None}, ("lacks the field llama.attention.layer_norm_rms_epsilon",)),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, ("rope.scaling.type is 'yarn'",)),
        ({"rope.scaling.type": "linear"}, ("lacks the field llama.rope.scaling.factor",)),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 0.0}, ("llama.rope.scaling.factor is 0.0",)),
        ({"attention.sliding_window": 7}, ("llama.attention.sliding_window", "unknown here")),
        ({"expert_count": 8}, ("llama.expert_count", "unknown here")),
        ({"logit_scale": 0.5}, ("llama.logit_scale", "unknown here")),
        ({"attention.scale": 0.1}, ("llama.attention.scale", "unknown here")),
    ],
)
def test_fields_that_are_wrong_or_unknown(tmp_path, llama, fields, words):
    _refused(_write(tmp_path / "model.gguf", llama[0], "llama", llama[1], **fields), *words)


@pytest.mark.parametrize("fields", [{"attention.head_count": [4, 4, 4]}, {"vocab_size": VOCAB}, {"expert_count": 0}])
def test_fields_that_say_nothing_new(tmp_path, llama, fields):
    found = reader.read(_write(tmp_path / "model.gguf", llama[0], "llama", llama[1], **fields))
    assert found.config.num_heads == 4


def test_a_pointer_of_git_lfs(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    _refused(path, "git lfs pull")

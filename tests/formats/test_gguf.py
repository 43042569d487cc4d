import functools
import gc
import io
import json
import re

import gguf
import jax
import numpy as np
import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, pre_tokenizers, trainers

from flan_jax import models
from flan_jax.errors import FlanError
from flan_jax.formats import gguf as reader
from flan_jax.formats import gguf_tokenizer, names, pretrained

TEXTS = [
    "The ferry left the harbour at half past six, and nobody on the pier waved.",
    "Is the second sentence true?\nOPTIONS:\n- yes\n- it is not possible to tell\n- no",
    "def area(width, height):\n    return width * height  # in square metres\n",
    "A kilo of apples costs 3 euros; 12 kilos cost 36, less a discount of 10 %.",
    "naïve café “quoted” – 10,000 € … 日本語 Привет 😀👩‍👩‍👧 e\u0301",
    "  two spaces,   three,\ttabs\t\tand\n\n\nblank lines  ",
    "http://example.org/a?b=c&d=%20 CamelCase_snake-case don't I'm we'll",
]

# ------------------------------------------------------------------------------------- small files, written by gguf

LLAMA = models.DecoderConfig(
    vocab_size=1,  # stands in for that of the vocabulary
    num_layers=2,
    embed_dim=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    mlp_dim=96,
    rope_theta=1e5,
    norm_epsilon=1e-5,
)
GEMMA3 = models.DecoderConfig(
    vocab_size=1,  # stands in for that of the vocabulary
    num_layers=3,
    embed_dim=64,
    num_heads=2,
    num_kv_heads=1,
    head_dim=48,
    mlp_dim=96,
    activation="gelu",
    rope_theta=1e6,
    local_rope_theta=1e4,
    window=7,
    global_every=6,
    qk_norm=True,
    post_norms=True,
    scale_embeddings=True,
    attention_scale=48**-0.5,
)
SHAPES = {"llama": LLAMA, "gemma3": GEMMA3}


def _bpe():
    """A byte-level BPE of the kind of SmolLM2's, trained on TEXTS; ids of BOS and EOS."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    cuts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence(cuts), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _sentencepiece():
    """A SentencePiece BPE of the kind of Gemma's, trained on TEXTS."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        user_defined_symbols=["\n", "\n\n", "▁▁", "▁▁▁"],
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def _write_bpe(writer, tokenizer, kind, pre):
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([text for text, _ in vocabulary])
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if text.startswith("<|") else kinds.NORMAL for text, _ in vocabulary])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(False)


def _write_sentencepiece(writer, model):
    kinds = []
    for i in range(model.vocab_size()):
        kind = gguf.TokenType.UNKNOWN if model.is_unknown(i) else gguf.TokenType.NORMAL
        kind = gguf.TokenType.CONTROL if model.is_control(i) else kind
        kind = gguf.TokenType.BYTE if model.is_byte(i) else kind
        kinds.append(gguf.TokenType.USER_DEFINED if model.id_to_piece(i) in ("\n", "\n\n", "▁▁", "▁▁▁") else kind)
    writer.add_tokenizer_model("llama")
    pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
    # As llama.cpp's converter writes user-defined pieces: with plain spaces.
    user = gguf.TokenType.USER_DEFINED
    writer.add_token_list([p.replace("▁", " ") if k == user else p for p, k in zip(pieces, kinds, strict=True)])
    writer.add_token_scores([model.get_score(i) for i in range(model.vocab_size())])
    writer.add_token_types(kinds)
    for name, number in (("pad", 0), ("eos", 1), ("bos", 2), ("unk", 3)):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


def _arrays(architecture, vocab_size, tied=True):
    """Random tensors under GGUF's names, [out, in] as torch has them, before llama's reordering of heads."""
    c, rng = SHAPES[architecture], np.random.default_rng(0)
    d, f, q, k = c.embed_dim, c.mlp_dim, c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    shapes = {"token_embd": (vocab_size, d), "output_norm": (d,)} | ({} if tied else {"output": (vocab_size, d)})
    layer = {"attn_norm": (d,), "attn_q": (q, d), "attn_k": (k, d), "attn_v": (k, d), "attn_output": (d, q)}
    layer |= {"ffn_norm": (d,), "ffn_gate": (f, d), "ffn_up": (f, d), "ffn_down": (d, f)}
    if architecture == "gemma3":
        layer |= {"attn_q_norm": (c.head_dim,), "attn_k_norm": (c.head_dim,)}
        layer |= {"post_attention_norm": (d,), "post_ffw_norm": (d,)}
    shapes |= {f"blk.{i}.{name}": shape for i in range(c.num_layers) for name, shape in layer.items()}
    return {f"{name}.weight": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _interleaved(weight, heads):
    """Row 2i of a head is its row i, row 2i + 1 its row i + K/2: how llama.cpp stores Llama's queries and keys."""
    head_dim = len(weight) // heads
    order = [h * head_dim + i + half for h in range(heads) for i in range(head_dim // 2) for half in (0, head_dim // 2)]
    return weight[order]


def _write(
    path, architecture, tokenizer, arrays, *, quantized=(), skip=(), extra=(), kind="gpt2", pre="smollm", **changed
):
    """Writes a GGUF file. `quantized` tensors become Q8_0; `changed` replaces metadata, None leaves a field out."""
    c, name = SHAPES[architecture], changed.pop("name", architecture)
    writer = gguf.GGUFWriter(path, name)
    writer.add_name("Small")
    fields = {
        "block_count": c.num_layers,
        "embedding_length": c.embed_dim,
        "feed_forward_length": c.mlp_dim,
        "head_count": c.num_heads,
        "head_count_kv": c.num_kv_heads,
        "layer_norm_rms_eps": c.norm_epsilon,
        "rope_freq_base": c.rope_theta,
        "key_length": c.head_dim if architecture == "gemma3" else None,
        "sliding_window": c.window or None,
    }
    for field, value in (fields | changed).items():
        if value is not None:
            getattr(writer, f"add_{field}")(value)
    if isinstance(tokenizer, tokenizers.Tokenizer):
        _write_bpe(writer, tokenizer, kind, pre)
    elif tokenizer is not None:
        _write_sentencepiece(writer, tokenizer)
    for tensor, weight in {**arrays, **dict(extra)}.items():
        if tensor in skip:
            continue
        if architecture == "llama" and re.search(r"attn_[qk]\.weight", tensor):
            weight = _interleaved(weight, c.num_heads if "attn_q" in tensor else c.num_kv_heads)
        dtype = gguf.GGMLQuantizationType.Q8_0 if tensor in quantized else None
        writer.add_tensor(tensor, gguf.quants.quantize(weight, dtype) if dtype else weight, raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def bpe():
    return _bpe()


@pytest.fixture(scope="module")
def pieces():
    return _sentencepiece()


def _vocabulary(architecture, bpe, pieces):
    return (bpe, bpe.get_vocab_size()) if architecture == "llama" else (pieces, pieces.vocab_size())


def _assert_params_are(params, arrays, c, tied=True):
    """Our parameters are the written tensors, each looked up by its own rule."""
    decoder = params["decoder"]
    np.testing.assert_array_equal(decoder["token_embedder"]["embedding"], arrays["token_embd.weight"])
    np.testing.assert_array_equal(decoder["decoder_norm"]["scale"], arrays["output_norm.weight"])
    if not tied:
        np.testing.assert_array_equal(decoder["logits_dense"]["kernel"], arrays["output.weight"].T)
    x = np.random.default_rng(1).normal(size=c.embed_dim).astype(np.float32)
    inner = np.random.default_rng(2).normal(size=c.mlp_dim).astype(np.float32)
    heads = np.random.default_rng(3).normal(size=(c.num_heads, c.head_dim)).astype(np.float32)
    for i in range(c.num_layers):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], decoder["layers"])
        attention = layer["self_attention"]

        def written(name, i=i):
            return arrays[f"blk.{i}.{name}.weight"]

        for ours, name in (("query", "attn_q"), ("key", "attn_k"), ("value", "attn_v")):
            projected = np.einsum("d,dhk->hk", x, attention[ours]["kernel"])
            np.testing.assert_allclose(projected.ravel(), written(name) @ x, rtol=1e-4, atol=1e-4)
        out = np.einsum("hk,hkd->d", heads, attention["out"]["kernel"])
        np.testing.assert_allclose(out, written("attn_output") @ heads.ravel(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(x @ layer["mlp"]["wi_0"]["kernel"], written("ffn_gate") @ x, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(x @ layer["mlp"]["wi_1"]["kernel"], written("ffn_up") @ x, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            inner @ layer["mlp"]["wo"]["kernel"], written("ffn_down") @ inner, rtol=1e-4, atol=1e-4
        )
        norms = {"pre_self_attention_layer_norm": "attn_norm", "pre_mlp_layer_norm": "ffn_norm"}
        if c.post_norms:
            norms |= {"post_self_attention_layer_norm": "post_attention_norm", "post_mlp_layer_norm": "post_ffw_norm"}
            np.testing.assert_array_equal(attention["query_norm"]["scale"], written("attn_q_norm"))
            np.testing.assert_array_equal(attention["key_norm"]["scale"], written("attn_k_norm"))
        for ours, name in norms.items():
            np.testing.assert_array_equal(layer[ours]["scale"], written(name))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_shape_and_parameters_as_written(tmp_path, bpe, pieces, architecture, tied):
    tokenizer, size = _vocabulary(architecture, bpe, pieces)
    arrays = _arrays(architecture, size, tied)
    found = reader.read(_write(tmp_path / "small.gguf", architecture, tokenizer, arrays))
    expected = SHAPES[architecture].to_dict() | {"vocab_size": size, "tied_embeddings": tied}
    if architecture == "llama":
        assert found.config.window == 0 and found.config.positions == "rope"
        expected["attention_scale"] = found.config.attention_scale
    assert found.config.norm_epsilon == pytest.approx(expected.pop("norm_epsilon"))
    assert {k: v for k, v in found.config.to_dict().items() if k != "norm_epsilon"} == expected
    assert found.name == "Small"
    abstract = models.build(found.config).abstract_params()
    assert jax.tree.map(lambda x: (x.shape, str(x.dtype)), found.params) == jax.tree.map(
        lambda x: (x.shape, str(x.dtype)), abstract
    )
    _assert_params_are(found.params, arrays, found.config, tied)


def test_quantized_tensors_are_dequantized(tmp_path, bpe):
    arrays = _arrays("llama", bpe.get_vocab_size())
    names = ["token_embd.weight", "blk.0.attn_q.weight", "blk.1.ffn_down.weight"]
    found = reader.read(_write(tmp_path / "small.gguf", "llama", bpe, arrays, quantized=names))
    kernel = found.params["decoder"]["layers"]["mlp"]["wo"]["kernel"]
    np.testing.assert_array_equal(kernel[0], arrays["blk.0.ffn_down.weight"].T)
    error = np.abs(kernel[1] - arrays["blk.1.ffn_down.weight"].T)
    assert 0 < error.max() < 0.02  # a step of Q8_0 is 1/127 of a block's largest value
    assert kernel.dtype == np.float32


def test_byte_level_vocabulary(tmp_path, bpe):
    path = _write(tmp_path / "small.gguf", "llama", bpe, _arrays("llama", bpe.get_vocab_size()))
    tokenizer = reader.read(path).tokenizer
    assert tokenizer.kind == "huggingface" and tokenizer.vocab_size == bpe.get_vocab_size()
    assert (tokenizer.eos_id, tokenizer.bos_id) == (1, None)
    texts = [*TEXTS, "", " ", "Ġ", "1234567", "a  12", "\x00"]
    assert tokenizer.encode(texts) == [bpe.encode(text, add_special_tokens=False).ids for text in texts]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(texts)] == texts


def test_sentencepiece_vocabulary(tmp_path, pieces):
    path = _write(tmp_path / "small.gguf", "gemma3", pieces, _arrays("gemma3", pieces.vocab_size()))
    tokenizer = reader.read(path).tokenizer
    assert tokenizer.kind == "sentencepiece" and tokenizer.vocab_size == pieces.vocab_size()
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id) == (1, 2, 0)
    texts = [*TEXTS, "", " ", "     ", "\n\n\n", "unseen: ℵ 中", "<bos>"]
    assert tokenizer.encode(texts) == [pieces.encode(text) for text in texts]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(texts)] == texts


# ---------------------------------------------------------------------------------------------------------- errors


def _error(path):
    with pytest.raises(FlanError) as caught:
        reader.read(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.mark.parametrize("content", [b"", b"GG", b"not a gguf file at all, but text", b"GGUF" + b"\xff" * 64])
def test_a_file_of_something_else(tmp_path, content):
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    assert "cannot be read as GGUF" in _error(path)


def test_a_missing_file(tmp_path):
    assert "cannot be read as GGUF" in _error(tmp_path / "none.gguf")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.999])
def test_a_download_that_broke_off(tmp_path, bpe, share):
    path = _write(tmp_path / "small.gguf", "llama", bpe, _arrays("llama", bpe.get_vocab_size()))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "cannot be read as GGUF" in _error(path)


def test_what_is_not_covered_is_refused(tmp_path, bpe):
    arrays = _arrays("llama", bpe.get_vocab_size())

    def message(**changed):
        return _error(_write(tmp_path / "small.gguf", "llama", bpe, arrays, **changed))

    assert "architecture 'qwen3moe'; llama, qwen2" in message(name="qwen3moe")
    assert "lacks the tensor blk.1.ffn_up.weight" in message(skip=["blk.1.ffn_up.weight"])
    bias = np.zeros(64, np.float32)
    assert "blk.0.attn_q.bias" in message(extra=[("blk.0.attn_q.bias", bias)])
    assert "rope_freqs.weight" in message(extra=[("rope_freqs.weight", bias[:8])])
    assert "rope.scaling" in message(rope_scaling_type=gguf.RopeScalingType.LINEAR)
    assert "lacks the field llama.embedding_length" in message(embedding_length=None)
    assert "lacks the field llama.feed_forward_length" in message(feed_forward_length=None)


def test_vocabularies_that_are_not_covered(tmp_path, bpe):
    arrays = _arrays("llama", bpe.get_vocab_size())
    assert "lacks the field tokenizer.ggml" in _error(_write(tmp_path / "none.gguf", "llama", None, arrays))
    assert "cuts text as 'viking'" in _error(_write(tmp_path / "pre.gguf", "llama", bpe, arrays, pre="viking"))
    assert "vocabulary of kind 'bert'" in _error(_write(tmp_path / "kind.gguf", "llama", bpe, arrays, kind="bert"))


# ------------------------------------------------------------------- real weights, against transformers' own loading

DAYS = [
    "On {day} the lighthouse keeper of {place} counted {n} boats before breakfast and wrote the number on a slate.",
    "Her brother, who repaired nets in the yard below, said that {n} was a good number for the time of year.",
    "By noon the wind had turned to the west, and the fishermen of {place} came home earlier than they had planned.",
    "One of them had lost an anchor; another had found a crate of oranges, and gave half of them to the school.",
]
PLACES = [("Monday", "Kelso", 14), ("Tuesday", "Arden", 9), ("Thursday", "Minho", 21), ("Saturday", "Ravna", 37)]
STORY = " ".join(s.format(day=day, place=place, n=n) for day, place, n in PLACES for s in DAYS)
LONG = STORY + " In the following year the same things happened in another order. " + STORY.replace("anchor", "rudder")
PROMPTS = [
    STORY[:300],
    "Premise: A dog runs across the beach.\nHypothesis: An animal is outdoors.\nDoes it follow?",
    "Question: What is the capital of France?\nAnswer:",
]


def _located(name):
    try:
        return pretrained.locate(name)
    except FlanError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def parsed_once():
    """One reader for each real file: the package takes up to ten seconds over one, and transformers uses it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "GGUFReader", functools.cache(gguf.GGUFReader))
        yield


HF_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def _transformers_weights(path, config):
    """The file's tensors, dequantized, under the names and in the layout of transformers."""
    torch = pytest.importorskip("torch")
    gemma = config.model_type.startswith("gemma3")
    names = HF_NAMES | (
        {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm"}
        if gemma
        else {"ffn_norm": "post_attention_layernorm"}
    )
    top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for tensor in gguf.GGUFReader(str(path)).tensors:
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        *block, name = tensor.name.removesuffix(".weight").removeprefix("blk.").split(".")
        if gemma and "norm" in name:
            weight = weight - 1  # transformers adds it when it runs
        if not gemma and name in heads:
            half = config.head_dim // 2
            stored = [(h, i, part) for h in range(heads[name]) for part in range(2) for i in range(half)]
            weight = weight[[h * config.head_dim + 2 * i + part for h, i, part in stored]]
        new = f"model.layers.{block[0]}.{names[name]}" if block else top[name]
        weights[f"{new}.weight"] = torch.from_numpy(np.require(weight, requirements="W"))
    return weights


def _transformers_logits(path, prompts, keep):
    """Logits at the last `keep` positions of each prompt, by transformers and the configuration it reads itself."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name)
    kind = {"llama": transformers.LlamaForCausalLM, "gemma3_text": transformers.Gemma3ForCausalLM}[config.model_type]
    weights = _transformers_weights(path, config)
    model, loading = kind.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    assert set(loading["missing_keys"]) <= {"lm_head.weight"} and not loading["unexpected_keys"]
    del weights
    with torch.no_grad():
        return [model(torch.tensor([ids]), logits_to_keep=keep).logits[0].numpy() for ids in prompts]


def _our_logits(found, prompts, keep):
    """The same by our model: the last prompt in a row of its own, the others packed into another."""
    model, length = models.build(found.config), len(prompts[-1])
    tokens, positions, segments = np.zeros((3, 2, length), np.int32)
    wanted, start = [], 0
    for number, ids in enumerate(prompts, 1):
        row, start = (1, 0) if number == len(prompts) else (0, start)
        place = slice(start, start + len(ids))
        tokens[row, place], positions[row, place], segments[row, place] = ids, range(len(ids)), number
        wanted.append([row * length + i for i in range(place.stop - keep, place.stop)])
        start = place.stop

    @jax.jit
    def forward(params):
        hidden = model.hidden(params, tokens, positions, segments)
        return model.logits(params, hidden.reshape(-1, hidden.shape[-1])[np.array(wanted)])

    return np.asarray(forward(found.params))


@pytest.mark.slow
@pytest.mark.usefixtures("optimized", "parsed_once")
@pytest.mark.parametrize(("name", "parameters"), [(names.GEMMA, 268_098_176), (names.SMOLLM, 134_515_008)])
def test_real_weights_give_the_logits_of_transformers(name, parameters):
    pytest.importorskip("transformers")
    path = _located(name)
    found = reader.read(path)
    assert sum(x.size for x in jax.tree.leaves(found.params)) == parameters
    start = [] if found.tokenizer.bos_id is None else [found.tokenizer.bos_id]
    longest, least = (LONG, 600) if name == names.GEMMA else (STORY, 200)  # Gemma has a window of 512
    prompts = [start + ids for ids in found.tokenizer.encode([*PROMPTS, longest])]
    assert len(prompts[-1]) > least
    keep = min(map(len, prompts))
    ours = _our_logits(found, prompts, keep)
    del found
    gc.collect()
    for one, other in zip(ours, _transformers_logits(path, prompts, keep), strict=True):
        assert one.shape == other.shape and np.ptp(other) > 10
        np.testing.assert_allclose(one, other, atol=2e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.usefixtures("parsed_once")
@pytest.mark.parametrize("name", names.PACKAGED)
def test_real_vocabularies_are_those_of_transformers(name, request):
    transformers = pytest.importorskip("transformers")
    path = _located(name)
    meta = {f.name: f.contents() for f in gguf.GGUFReader(str(path)).fields.values() if "chat" not in f.name}
    ours = gguf_tokenizer.read(meta, path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    assert ours.vocab_size == len(theirs)
    lines = [*TEXTS, *PROMPTS, LONG]
    try:
        shared = request.getfixturevalue("shared")
    except pytest.skip.Exception:
        pass
    else:
        for file in sorted((shared / "data").glob("*/*.jsonl")):
            with file.open(encoding="utf-8") as rows:
                for row, _ in zip(rows, range(60), strict=False):
                    lines += [value for value in json.loads(row).values() if isinstance(value, str)]
        assert len(lines) > 3000
    if name == names.SMOLLM:
        # SmolLM2 cuts before and after each digit, which transformers does not do for a GGUF file: it shows where
        # several blanks stand before one.
        lines = [line for line in lines if not re.search(r"\s\s\d|[^\W\d_a-zA-Z]|[¹²³½¼¾]", line)]
    expected = theirs(lines, add_special_tokens=False)["input_ids"]
    for line, one, other in zip(lines, ours.encode(lines), expected, strict=True):
        assert one == other, line

"""The shapes in `gin/models/` against published parameter counts, and against a formula of their own."""

import functools
import math
import re
from pathlib import Path

import jax
import pytest

from flan_jax import configuration, gin_files, models
from flan_jax.errors import FlanError

EXACT = {  # as the checkpoints on the Hugging Face hub have them; Gemma 3 from 4B on without the image model
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1_7b": 1_711_376_384,
    "llama3_1b": 1_235_814_400,
    "llama3_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "gemma3_270m": 268_098_176,
    "gemma3_1b": 999_885_952,
    "qwen3_0_6b": 596_049_920,
    "qwen3_1_7b": 1_720_574_976,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "qwen3_14b": 14_768_307_200,
    "qwen3_32b": 32_762_123_264,
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_1_5b": 1_543_714_304,
    "qwen2_5_3b": 3_085_938_688,
    "qwen2_5_7b": 7_615_616_512,
    "qwen2_5_14b": 14_770_033_664,
    "qwen2_5_32b": 32_763_876_352,
    "qwen2_5_72b": 72_706_203_648,
    "mistral_7b_v0_1": 7_241_732_096,
    "mistral_7b_v0_3": 7_248_023_552,
    "gemma2_2b": 2_614_341_888,
    "gemma2_9b": 9_241_705_984,
    "gemma2_27b": 27_227_128_320,
    "olmo2_1b": 1_484_916_736,
    "olmo2_7b": 7_298_617_344,
    "olmo2_13b": 13_716_198_400,
    "olmo2_32b": 32_234_279_936,
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
}
# Gemma 3's technical report, table 1: millions of parameters without the embedding, and of it.
GEMMA3 = {"1b": (698, 302), "4b": (3_209, 675), "12b": (10_759, 1_012), "27b": (25_600, 1_416)}
# Named by their size alone; the names leave out the embedding, or most of the digits.
LAMDA_PT = {"422m": 422e6, "2b": 2.1e9, "8b": 8.6e9, "68b": 68.5e9, "137b": 137.4e9}


def _count(tree):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


@functools.cache
def _params(name):
    return models.build(configuration.model_config(name)).abstract_params()


@pytest.mark.parametrize("name", EXACT)
def test_exact_counts(name):
    assert _count(_params(name)) == EXACT[name]


@pytest.mark.parametrize("size", GEMMA3)
def test_gemma3_matches_its_report(size):
    params = _params(f"gemma3_{size}")["decoder"]
    embedding = _count(params["token_embedder"])
    expected, expected_embedding = GEMMA3[size]
    assert embedding == pytest.approx(expected_embedding * 1e6, rel=0.007)
    assert _count(params) - embedding == pytest.approx(expected * 1e6, rel=0.001)


@pytest.mark.parametrize("size", LAMDA_PT)
def test_lamda_pt_is_near_its_name(size):
    params = _params(f"lamda_pt_{size}")["decoder"]
    assert _count(params) - _count(params["token_embedder"]) == pytest.approx(LAMDA_PT[size], rel=0.01)


@pytest.mark.parametrize("name", configuration.model_names())
def test_every_count_matches_a_formula(name):
    c = configuration.model_config(name)
    attention = c.embed_dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    attention += c.qkv_bias * c.head_dim * (c.num_heads + 2 * c.num_kv_heads)
    mlp = 3 * c.embed_dim * c.mlp_dim
    heads = c.num_heads + c.num_kv_heads if c.qk_norm_across_heads else 2
    sublayer_norms = 2 * c.pre_norms + 2 * c.post_norms + bool(c.num_encoder_layers)
    decoder_norms = sublayer_norms * c.embed_dim + c.qk_norm * heads * c.head_dim
    decoder = c.num_layers * (attention * (1 + bool(c.num_encoder_layers)) + mlp + decoder_norms) + c.embed_dim
    encoder = c.num_encoder_layers * (attention + mlp + 2 * c.embed_dim)
    if c.num_encoder_layers:
        encoder += c.embed_dim
    embeddings = c.vocab_size * c.embed_dim * (2 - c.tied_embeddings)
    tables = (1 + bool(c.num_encoder_layers)) if c.positions == "relative_bias" else 0
    biases = tables * c.num_heads * c.relative_buckets
    assert _count(_params(name)) == decoder + encoder + embeddings + biases


def test_every_model_has_its_family():
    known = (*EXACT, *(f"gemma3_{size}" for size in GEMMA3), *(f"lamda_pt_{size}" for size in LAMDA_PT))
    assert set(configuration.model_names()) == {*known, "tiny", "tiny_t5"}


def test_layers_that_see_everything():
    assert configuration.model_config("gemma2_2b").global_layers == (False, True) * 13
    assert not any(configuration.model_config("mistral_7b_v0_1").global_layers)
    first = configuration.model_config("mistral_7b_v0_1", {"global_first": 3}).global_layers
    assert first == (True,) * 3 + (False,) * 29
    gemma = configuration.model_config("gemma3_270m").global_layers
    assert [i for i, is_global in enumerate(gemma) if is_global] == [5, 11, 17]
    assert all(configuration.model_config("smollm2_135m").global_layers)


def test_attention_scales():
    for size in GEMMA3:
        expected = 168 if size == "27b" else 256
        assert configuration.model_config(f"gemma3_{size}").attention_scale == pytest.approx(expected**-0.5)


def test_configurations_survive_json():
    for config in map(configuration.model_config, configuration.model_names()):
        assert models.DecoderConfig.from_dict(config.to_dict()) == config


def test_an_unknown_model_has_near_matches():
    with pytest.raises(FlanError, match="unknown model 'gemma_270m': did you mean 'gemma3_270m'"):
        configuration.model_config("gemma_270m")


def test_overrides():
    assert configuration.model_config("tiny", {"num_layers": 1}).num_layers == 1
    with pytest.raises(FlanError, match="remat is 'half'"):
        configuration.model_config("tiny", {"remat": "half"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DecoderConfig:\n    vocab_size = %VOCAB\n", "%VOCAB in a model's gin file"),
        ("DecoderConfig:\n    vocab_size = @size()\n", "@size in a model's gin file"),
        ("DecoderConfig:\n    vocab_size = 3\nOther.size = 3\n", "models/mine.gin line 3: only DecoderConfig"),
        ("DecoderConfig:\n    vocab_size = three\n", "models/mine.gin line 2"),
        ("DecoderConfig:\n    vocab_size = 3\n", "does not fit this version"),
    ],
)
def test_a_file_of_ones_own(tmp_path, monkeypatch, text, message):
    (tmp_path / "models").mkdir()
    shipped = next(folder for folder in gin_files.search_paths()[1:]) / "models" / "tiny.gin"
    (tmp_path / "models" / "mine.gin").write_text(text)
    (tmp_path / "models" / "good.gin").write_text(Path(shipped).read_text())
    monkeypatch.chdir(tmp_path)
    assert configuration.model_config("good") == configuration.model_config("tiny")
    with pytest.raises(FlanError, match=re.escape(message)):
        configuration.model_config("mine")

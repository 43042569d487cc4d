"""config.json as people have it: read as transformers reads it, or refused by the name of the field."""

import itertools
import json

import numpy as np
import pytest
from folders_of_transformers import (
    FAMILIES,
    LLAMA3,
    as_transformers,
    config_of,
    edit,
    forward_of,
    refused,
    spelt_by_4,
    theirs,
    transformers,
)

from flan_jax.errors import FlanError
from flan_jax.formats import huggingface
from flan_jax.formats.source import tree_of

# ------------------------------------------------------------------------------------------------------- config.json


def _either(folder, compared=None):
    """transformers' logits, or one line; says which.

    `compared`, a set, is for folders of the same weights: what both sides read as before is not computed again.
    """
    try:
        config = huggingface.read(folder).config
    except FlanError:
        refused(folder)
        return False
    read = config, transformers.AutoConfig.from_pretrained(folder).to_json_string(use_diff=False)
    if compared is None or read not in compared:
        as_transformers(folder)
    if compared is not None:
        compared.add(read)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True], ids=["5", "4"])
@pytest.mark.parametrize("name", FAMILIES)
def test_without_each_field(copy, name, old):
    folder = spelt_by_4(copy(name)) if old else copy(name)
    values, compared = config_of(folder), set()
    kept = {
        field
        for field in values
        if _either(_edit_all(folder, {k: v for k, v in values.items() if k != field}), compared)
    }
    assert {"use_cache", "architectures"} & set(values) <= kept


def _edit_all(folder, values):
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_each_field_null(copy, name):
    folder = copy(name)
    values = config_of(folder)
    for field in values:
        _edit_all(folder, values | {field: None})
        try:
            config = huggingface.read(folder).config
        except FlanError:
            refused(folder)
            continue
        try:
            said, expected = theirs(folder)
        except Exception:  # transformers refuses it: then it is no other model here
            assert config == huggingface.read(_edit_all(folder, values)).config, field
            continue
        found = np.asarray(forward_of(config)(tree_of(huggingface.read(folder)), said))
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=field)


WRONG = ["four", "4", -1, 0, 4.5, True, [], [4], {}, {"a": 1}, float("nan"), float("inf"), 2**40, 1e400]


@pytest.mark.parametrize("name", ["llama 3.1", "gemma 2", "gemma 3", "qwen 2 with windows", "t5 1.1"])
def test_values_of_a_wrong_kind(copy, base, name):
    """One line, or the same model: no field is half understood."""
    folder, expected = copy(name), huggingface.read(base(name)).config
    values = config_of(folder)
    played = set()
    for field, wrong in itertools.product(values, WRONG):
        _edit_all(folder, values | {field: wrong})
        try:
            config = huggingface.read(folder).config
        except FlanError:
            refused(folder)
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
    refused(folder, "config.json")


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
    folder = edit(copy("llama"), "rope_parameters", **{place: scaling})
    refused(folder, *(word.replace("rope_scaling", place) for word in words))


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
    assert _either(edit(copy(name), "rope_parameters", **changed))


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
    _either(edit(copy(name), **changed))

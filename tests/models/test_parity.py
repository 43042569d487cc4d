"""Random Llama, Gemma 3, Qwen 3 and T5 1.1 models of transformers, their weights copied into our parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import models

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LLAMA = models.DecoderConfig(
    vocab_size=97,
    num_layers=3,
    embed_dim=48,
    num_heads=6,
    num_kv_heads=2,
    head_dim=16,  # not embed_dim / num_heads
    mlp_dim=80,
    rope_theta=5e4,
    norm_epsilon=1e-5,
    attention_block=16,
)
GEMMA3 = models.DecoderConfig(
    vocab_size=101,
    num_layers=7,
    embed_dim=40,
    num_heads=4,
    num_kv_heads=1,
    head_dim=24,
    mlp_dim=64,
    activation="gelu",
    rope_theta=1e6,
    local_rope_theta=1e4,
    window=9,
    global_every=6,
    qk_norm=True,
    post_norms=True,
    scale_embeddings=True,
    attention_scale=30**-0.5,
    attention_block=16,
)
LLAMA31 = dataclasses.replace(  # wavelengths of 6 to 2,500 positions: short, blended and long ones of 64 / 4 to 64 / 1
    LLAMA,
    rope_theta=1e3,
    rope_scaling="llama3",
    rope_scaling_factor=8.0,
    rope_original_length=64,
)
GEMMA3_4B = dataclasses.replace(GEMMA3, rope_scaling="linear", rope_scaling_factor=8.0)
QWEN3 = dataclasses.replace(LLAMA, qk_norm=True, norm_epsilon=1e-6, rope_theta=1e6)
T5 = models.DecoderConfig(
    vocab_size=103,
    num_layers=3,
    num_encoder_layers=2,
    embed_dim=48,
    num_heads=6,
    num_kv_heads=6,
    head_dim=10,  # not embed_dim / num_heads
    mlp_dim=80,
    activation="gelu",
    positions="relative_bias",
    tied_embeddings=False,
    attention_scale=1.0,
    relative_buckets=8,
    relative_max_distance=20,
    attention_block=16,
)
LENGTH = 50  # several blocks, and several windows


def _rope(theta, config):
    """What transformers calls rope_parameters."""
    parameters = {"rope_type": config.rope_scaling, "rope_theta": theta, "factor": config.rope_scaling_factor}
    if config.rope_scaling == "none":
        return {"rope_type": "default", "rope_theta": theta}
    if config.rope_scaling == "llama3":
        parameters |= {
            "low_freq_factor": config.rope_low_frequency_factor,
            "high_freq_factor": config.rope_high_frequency_factor,
            "original_max_position_embeddings": config.rope_original_length,
        }
    return parameters


def _llama_like(kind):
    def make(config):
        arguments = {
            "vocab_size": config.vocab_size,
            "num_hidden_layers": config.num_layers,
            "hidden_size": config.embed_dim,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.num_kv_heads,
            "head_dim": config.head_dim,
            "intermediate_size": config.mlp_dim,
            "rope_parameters": _rope(config.rope_theta, config),
            "max_position_embeddings": 8 * LENGTH,
            "rms_norm_eps": config.norm_epsilon,
            "tie_word_embeddings": config.tied_embeddings,
            "attn_implementation": "eager",
        }
        return getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**arguments))

    return make


_llama, _qwen3 = _llama_like("Llama"), _llama_like("Qwen3")


def _gemma3(config):
    kinds = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(config.num_layers)]
    return transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(
            vocab_size=config.vocab_size,
            num_hidden_layers=config.num_layers,
            hidden_size=config.embed_dim,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.mlp_dim,
            rope_parameters={
                "full_attention": _rope(config.rope_theta, config),
                "sliding_attention": {"rope_type": "default", "rope_theta": config.local_rope_theta},
            },
            rms_norm_eps=config.norm_epsilon,
            sliding_window=config.window,
            layer_types=kinds,
            query_pre_attn_scalar=30,
            pad_token_id=None,  # or the embedding of id 0 gets no gradient
            attn_implementation="eager",
        )
    )


def _randomized(model):
    """Fresh random weights, norms included: with their initial ones and zeros a mistake there would not show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.copy_(
                    torch.randn(weight.shape, generator=generator) * 0.3 + (0 if "Gemma" in str(type(model)) else 1)
                )
            else:
                scale = 1.0 if "embed" in name else 1.5 * weight.shape[1] ** -0.5
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return model.eval()


def _params(model, config):
    """Our parameters from the names and layouts of transformers: [out, in], heads by halves for the rotation."""
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    offset = 1.0 if config.post_norms else 0.0  # Gemma stores the norms' scales less one
    dims = (config.embed_dim, config.num_heads, config.num_kv_heads, config.head_dim)
    d, heads, kv_heads, k = dims

    def every(name, convert):
        return np.stack([convert(weights[f"model.layers.{i}.{name}.weight"]) for i in range(config.num_layers)])

    def scale(name):
        return {"scale": every(name, lambda w: w + offset)}

    def kernel(name):
        return {"kernel": every(name, lambda w: w.T)}

    def into(name, count):
        return {"kernel": every(name, lambda w: w.T.reshape(d, count, k))}

    attention = {
        "query": into("self_attn.q_proj", heads),
        "key": into("self_attn.k_proj", kv_heads),
        "value": into("self_attn.v_proj", kv_heads),
        "out": {"kernel": every("self_attn.o_proj", lambda w: w.T.reshape(heads, k, d))},
    }
    layers = {
        "self_attention": attention,
        "mlp": {"wi_0": kernel("mlp.gate_proj"), "wi_1": kernel("mlp.up_proj"), "wo": kernel("mlp.down_proj")},
        "pre_self_attention_layer_norm": scale("input_layernorm"),
    }
    if config.qk_norm:
        attention |= {"query_norm": scale("self_attn.q_norm"), "key_norm": scale("self_attn.k_norm")}
    if config.post_norms:
        layers |= {
            "post_self_attention_layer_norm": scale("post_attention_layernorm"),
            "pre_mlp_layer_norm": scale("pre_feedforward_layernorm"),
            "post_mlp_layer_norm": scale("post_feedforward_layernorm"),
        }
    else:
        layers["pre_mlp_layer_norm"] = scale("post_attention_layernorm")
    decoder = {
        "token_embedder": {"embedding": weights["model.embed_tokens.weight"]},
        "layers": layers,
        "decoder_norm": {"scale": weights["model.norm.weight"] + offset},
    }
    if not config.tied_embeddings:
        decoder["logits_dense"] = {"kernel": weights["lm_head.weight"].T}
    return {"decoder": decoder}


def _gradient(logits_of, params):
    """That of the summed log-sum-exp of logits, and the logits, by one program."""

    def total(params):
        logits = logits_of(params)
        return jax.nn.logsumexp(logits, -1).sum(), logits

    return jax.jit(jax.grad(total, has_aux=True))(params)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "config"),
    [
        (_llama, LLAMA),
        (_llama, dataclasses.replace(LLAMA, tied_embeddings=False, num_kv_heads=6)),
        (_llama, LLAMA31),
        (_qwen3, QWEN3),
        (_gemma3, GEMMA3),
        (_gemma3, GEMMA3_4B),
    ],
    ids=["llama", "llama untied", "llama 3.1", "qwen3", "gemma3", "gemma3 4b"],
)
def test_logits_and_gradients_match(make, config):
    theirs = _randomized(make(config))
    network, params = models.build(config), jax.tree.map(jnp.asarray, _params(theirs, config))
    assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, network.abstract_params())
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, LENGTH))
    expected = theirs(torch.tensor(tokens)).logits
    arrays = jnp.asarray(tokens), jnp.tile(jnp.arange(LENGTH), (2, 1)), jnp.ones((2, LENGTH), jnp.int32)
    ours, found = _gradient(lambda p: network.logits(p, network.hidden(p, *arrays)), params)
    assert expected.detach().std() > 0.3
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-4)

    expected.logsumexp(-1).sum().backward()
    gradient = theirs.model.embed_tokens.weight.grad.numpy()
    ours = np.asarray(ours["decoder"]["token_embedder"]["embedding"])
    assert np.abs(gradient).max() > 0.1
    np.testing.assert_allclose(ours, gradient, atol=1e-3 * np.abs(gradient).max())


def _t5(config):
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=config.vocab_size,
            num_layers=config.num_encoder_layers,
            num_decoder_layers=config.num_layers,
            d_model=config.embed_dim,
            num_heads=config.num_heads,
            d_kv=config.head_dim,
            d_ff=config.mlp_dim,
            feed_forward_proj="gated-gelu",
            relative_attention_num_buckets=config.relative_buckets,
            relative_attention_max_distance=config.relative_max_distance,
            layer_norm_epsilon=config.norm_epsilon,
            tie_word_embeddings=config.tied_embeddings,
            dropout_rate=0.0,
        )
    )


def _t5_params(model, config):
    """Our parameters from the names of transformers' T5: sublayers are numbered in the order of their use."""
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    d, heads, k = config.embed_dim, config.num_heads, config.head_dim

    def stack(side, count, sublayers):
        def every(name, shape=None):
            leaves = (weights[f"{side}.block.{i}.layer.{name}.weight"].T for i in range(count))
            return np.stack([leaf if shape is None else leaf.reshape(shape) for leaf in leaves])

        layers = {}
        for number, (name, norm, theirs) in enumerate(sublayers):
            layers[norm] = {"scale": every(f"{number}.layer_norm")}
            if theirs == "DenseReluDense":
                layers[name] = {n: {"kernel": every(f"{number}.{theirs}.{n}")} for n in ("wi_0", "wi_1", "wo")}
            else:
                into = {"query": "q", "key": "k", "value": "v"}
                layers[name] = {n: {"kernel": every(f"{number}.{theirs}.{t}", (d, heads, k))} for n, t in into.items()}
                layers[name]["out"] = {"kernel": every(f"{number}.{theirs}.o", (heads, k, d))}
        table = weights[f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        return {
            "layers": layers,
            "relpos_bias": {"rel_embedding": table.T},
            f"{side}_norm": {"scale": weights[f"{side}.final_layer_norm.weight"]},
        }

    mlp = ("mlp", "pre_mlp_layer_norm", "DenseReluDense")
    crossing = ("encoder_decoder_attention", "pre_cross_attention_layer_norm", "EncDecAttention")
    own = ("self_attention", "pre_self_attention_layer_norm", "SelfAttention")
    decoder = stack("decoder", config.num_layers, [own, crossing, mlp])
    if not config.tied_embeddings:
        decoder["logits_dense"] = {"kernel": weights["lm_head.weight"].T}
    alike = ("attention", "pre_attention_layer_norm", "SelfAttention")
    return {
        "token_embedder": {"embedding": weights["shared.weight"]},
        "encoder": stack("encoder", config.num_encoder_layers, [alike, mlp]),
        "decoder": decoder,
    }


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_t5_logits_and_gradients_match(tied):
    config = dataclasses.replace(T5, tied_embeddings=tied, scale_tied_logits=tied)
    theirs = _randomized(_t5(config))
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if name.endswith(".q.weight"):
                weight *= config.head_dim**-0.5  # as T5 starts; without it most of the softmax is one-hot
    network, params = models.build(config), jax.tree.map(jnp.asarray, _t5_params(theirs, config))
    assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, network.abstract_params())
    rng = np.random.default_rng(0)
    inputs, targets = (rng.integers(0, config.vocab_size, (2, n)) for n in (LENGTH, 23))
    lengths = np.array([LENGTH, 31])
    filled = np.arange(LENGTH) < lengths[:, None]
    expected = theirs(
        input_ids=torch.tensor(inputs), attention_mask=torch.tensor(filled), decoder_input_ids=torch.tensor(targets)
    ).logits
    encoder = inputs, np.tile(np.arange(LENGTH), (2, 1)), filled.astype(np.int32)
    decoder = targets, np.tile(np.arange(23), (2, 1)), np.ones((2, 23), np.int32)

    def logits(params):
        return network.logits(params, network.hidden(params, *decoder, memory=network.encode(params, *encoder)))

    ours, found = _gradient(logits, params)
    assert expected.detach().std() > 0.2
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-4)

    expected.logsumexp(-1).sum().backward()
    gradient = theirs.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.grad.numpy().T
    assert np.abs(gradient).max() > 0.1
    found = ours["encoder"]["relpos_bias"]["rel_embedding"]
    np.testing.assert_allclose(found, gradient, atol=1e-3 * np.abs(gradient).max())

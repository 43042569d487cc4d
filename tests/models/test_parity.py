"""Random Llama and Gemma 3 models of transformers, their weights copied into our parameters."""

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
LENGTH = 50  # several blocks, and several windows


def _llama(config):
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            num_hidden_layers=config.num_layers,
            hidden_size=config.embed_dim,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.mlp_dim,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            rms_norm_eps=config.norm_epsilon,
            tie_word_embeddings=config.tied_embeddings,
            attn_implementation="eager",
        )
    )


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
                "full_attention": {"rope_type": "default", "rope_theta": config.rope_theta},
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
    if config.post_norms:
        attention |= {"query_norm": scale("self_attn.q_norm"), "key_norm": scale("self_attn.k_norm")}
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "config"),
    [
        (_llama, LLAMA),
        (_llama, dataclasses.replace(LLAMA, tied_embeddings=False, num_kv_heads=6)),
        (_gemma3, GEMMA3),
    ],
    ids=["llama", "llama untied", "gemma3"],
)
def test_logits_and_gradients_match(make, config):
    theirs = _randomized(make(config))
    network, params = models.build(config), jax.tree.map(jnp.asarray, _params(theirs, config))
    assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, network.abstract_params())
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, LENGTH))
    expected = theirs(torch.tensor(tokens)).logits
    arrays = jnp.asarray(tokens), jnp.tile(jnp.arange(LENGTH), (2, 1)), jnp.ones((2, LENGTH), jnp.int32)
    found = jax.jit(lambda p: network.logits(p, network.hidden(p, *arrays)))(params)
    assert expected.detach().std() > 0.3
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-4)

    expected.logsumexp(-1).sum().backward()
    gradient = theirs.model.embed_tokens.weight.grad.numpy()
    ours = jax.jit(jax.grad(lambda p: jax.nn.logsumexp(network.logits(p, network.hidden(p, *arrays)), -1).sum()))(
        params
    )
    ours = np.asarray(ours["decoder"]["token_embedder"]["embedding"])
    assert np.abs(gradient).max() > 0.1
    np.testing.assert_allclose(ours, gradient, atol=1e-3 * np.abs(gradient).max())

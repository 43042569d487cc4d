"""The side of `train_step.py` that is transformers on PyTorch: Llama and T5 1.1, with our parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import transformers

from flan_jax.errors import FlanError
from flan_jax.models import DecoderConfig

Arrays = Mapping[str, np.ndarray]


class TorchStep:
    """Forward, backward and an update by SGD, as a user of transformers writes them."""

    def __init__(
        self, config: DecoderConfig, ours: Arrays, batch: Arrays, learning_rate: float, compiled: bool = False
    ) -> None:
        """Builds the model with our parameters, through torch.compile or as it is, and its inputs of our rows."""
        make = _t5 if config.num_encoder_layers else _llama
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.device(self._device):
            self._model, named = make(config, {name: ours[name] for name in ours})
            self._model.to(getattr(torch, config.dtype)).train()
        missing = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, value in named:
                missing.pop(name).copy_(torch.from_numpy(np.ascontiguousarray(value)))
        if missing:
            raise FlanError(f"the model of transformers has parameters that ours lacks: {', '.join(missing)}.")
        if compiled:
            self._model.compile()
            if config.num_encoder_layers:
                self._model.encoder.compile()  # which is called by itself
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=learning_rate)
        inputs = _t5_inputs if config.num_encoder_layers else _llama_inputs
        self._forward = inputs(self._model, batch, self._tensor)

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        """Integers as indices, and what may be seen as what is added to the scores."""
        if x.dtype != bool:
            return torch.from_numpy(x).long().to(self._device)
        dtype = self._model.dtype
        return torch.where(torch.from_numpy(x)[:, None], 0.0, torch.finfo(dtype).min).to(self._device, dtype)

    def __call__(self) -> float:
        """One step; returns the loss."""
        self._optimizer.zero_grad()
        loss = self._forward()
        loss.backward()
        self._optimizer.step()
        return loss.item()


def _same(queries: np.ndarray, keys: np.ndarray, causal: bool = False) -> np.ndarray:
    """Which slots are of one segment [B, Q, S], and not later."""
    same = queries[:, :, None] == keys[:, None, :]
    return same & np.tril(np.ones(same.shape[1:], bool)) if causal else same


# ----------------------------------------------------------------------------------------------------------- Llama


def _llama(c: DecoderConfig, ours: Arrays) -> tuple[Any, Iterator[tuple[str, np.ndarray]]]:
    config = transformers.LlamaConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.embed_dim,
        num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_heads,
        num_key_value_heads=c.num_kv_heads,
        head_dim=c.head_dim,
        intermediate_size=c.mlp_dim,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        rms_norm_eps=c.norm_epsilon,
        tie_word_embeddings=c.tied_embeddings,
        attn_implementation="sdpa",
    )
    return transformers.LlamaForCausalLM(config), _llama_parameters(c, ours)


def _llama_parameters(c: DecoderConfig, ours: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    """Our parameters under the names and in the layout of transformers."""
    yield "model.embed_tokens.weight", ours["decoder/token_embedder/embedding"]
    yield "model.norm.weight", ours["decoder/decoder_norm/scale"]
    if not c.tied_embeddings:
        yield "lm_head.weight", ours["decoder/logits_dense/kernel"].T
    into = {f"self_attn.{name[0]}_proj": f"self_attention/{name}" for name in ("query", "key", "value")}
    into |= {"mlp.gate_proj": "mlp/wi_0", "mlp.up_proj": "mlp/wi_1"}
    out = {"self_attn.o_proj": "self_attention/out", "mlp.down_proj": "mlp/wo"}
    norms = {"input_layernorm": "pre_self_attention_layer_norm", "post_attention_layernorm": "pre_mlp_layer_norm"}
    for i in range(c.num_layers):
        yield from _layer(ours, f"model.layers.{i}", "decoder/layers", i, into, out, norms)


def _layer(
    ours: Arrays, theirs: str, stack: str, i: int, into: Mapping[str, str], out: Mapping[str, str], norms: Mapping
) -> Iterator[tuple[str, np.ndarray]]:
    for name, our_name in into.items():
        kernel = ours[f"{stack}/{our_name}/kernel"][i]
        yield f"{theirs}.{name}.weight", kernel.reshape(kernel.shape[0], -1).T
    for name, our_name in out.items():
        kernel = ours[f"{stack}/{our_name}/kernel"][i]
        yield f"{theirs}.{name}.weight", kernel.reshape(-1, kernel.shape[-1]).T
    for name, our_name in norms.items():
        yield f"{theirs}.{name}.weight", ours[f"{stack}/{our_name}/scale"][i]


def _llama_inputs(model: Any, batch: Arrays, tensor: Callable[[np.ndarray], Any]) -> Callable[[], Any]:
    labels = np.full(batch["segments"].shape, -100)
    for b, t in zip(*np.nonzero(batch["weights"]), strict=True):
        labels[b, batch["target_positions"][b, t] + 1] = batch["targets"][b, t]  # transformers shifts them
    inputs = {
        "input_ids": tensor(batch["tokens"]),
        "position_ids": tensor(batch["positions"]),
        "attention_mask": tensor(_same(batch["segments"], batch["segments"], causal=True)),
        "labels": tensor(labels),
    }
    return lambda: model(**inputs, use_cache=False).loss


# -------------------------------------------------------------------------------------------------------------- T5


def _t5(c: DecoderConfig, ours: Arrays) -> tuple[Any, Iterator[tuple[str, np.ndarray]]]:
    config = transformers.T5Config(
        vocab_size=c.vocab_size,
        num_layers=c.num_encoder_layers,
        num_decoder_layers=c.num_layers,
        d_model=c.embed_dim,
        num_heads=c.num_heads,
        d_kv=c.head_dim,
        d_ff=c.mlp_dim,
        feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=c.relative_buckets,
        relative_attention_max_distance=c.relative_max_distance,
        layer_norm_epsilon=c.norm_epsilon,
        tie_word_embeddings=c.tied_embeddings,
        dropout_rate=0.0,
    )
    model = transformers.T5ForConditionalGeneration(config)
    if not c.tied_embeddings:  # transformers 5 ties them whatever the configuration says
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    return model, _t5_parameters(c, ours)


def _t5_parameters(c: DecoderConfig, ours: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    """As `_llama_parameters`; T5 numbers the parts of a block in the order of their use."""
    yield "shared.weight", ours["token_embedder/embedding"]
    if not c.tied_embeddings:
        yield "lm_head.weight", ours["decoder/logits_dense/kernel"].T
    decoder = (("self_attention", "SelfAttention"), ("encoder_decoder_attention", "EncDecAttention"))
    norms = ("pre_self_attention_layer_norm", "pre_cross_attention_layer_norm", "pre_mlp_layer_norm")
    sides = (
        ("encoder", c.num_encoder_layers, (("attention", "SelfAttention"),), ("pre_attention_layer_norm", norms[2])),
        ("decoder", c.num_layers, decoder, norms),
    )
    for side, layers, attentions, layer_norms in sides:
        table = ours[f"{side}/relpos_bias/rel_embedding"]
        yield f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", table.T
        yield f"{side}.final_layer_norm.weight", ours[f"{side}/{side}_norm/scale"]
        mlp = f"{len(attentions)}.DenseReluDense"
        into, out = {f"{mlp}.wi_0": "mlp/wi_0", f"{mlp}.wi_1": "mlp/wi_1"}, {f"{mlp}.wo": "mlp/wo"}
        for number, (name, theirs) in enumerate(attentions):
            into |= {f"{number}.{theirs}.{n[0]}": f"{name}/{n}" for n in ("query", "key", "value")}
            out[f"{number}.{theirs}.o"] = f"{name}/out"
        scales = {f"{number}.layer_norm": name for number, name in enumerate(layer_norms)}
        for i in range(layers):
            yield from _layer(ours, f"{side}.block.{i}.layer", f"{side}/layers", i, into, out, scales)


def _t5_inputs(model: Any, batch: Arrays, tensor: Callable[[np.ndarray], Any]) -> Callable[[], Any]:
    ahead, segments = batch["encoder_segments"], batch["segments"]
    encoder = {"input_ids": tensor(batch["encoder_tokens"]), "attention_mask": tensor(_same(ahead, ahead))}
    decoder = {
        "decoder_input_ids": tensor(batch["tokens"]),
        "decoder_attention_mask": tensor(_same(segments, segments, causal=True)),
        "attention_mask": tensor(_same(segments, ahead)),  # of the decoder's slots to the encoder's
        "labels": tensor(np.where(batch["weights"] > 0, batch["targets"], -100)),
    }
    return lambda: model(encoder_outputs=model.encoder(**encoder), **decoder, use_cache=False).loss

"""The same weights on both sides: a checkpoint folder of ours as a Llama of transformers, in float32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tokenizers
from tokenizers import decoders, pre_tokenizers, trainers

from flan_jax import configuration, models
from flan_jax.checkpoint import arrays, saving
from flan_jax.checkpoint.manifest import UNKNOWN, Manifest
from flan_jax.data import vocabularies

END = "<|endoftext|>"


def write_tiny(texts: Iterable[str], to: str | Path) -> None:
    """Writes a checkpoint folder of a random tiny Llama whose byte-level BPE is trained on these texts."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    size = configuration.model_config("tiny").vocab_size
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    tokenizer = vocabularies.HuggingFaceTokenizer(bpe.to_str().encode(), eos_id=bpe.token_to_id(END))
    config = configuration.model_config("tiny")
    params = models.build(config).init(jax.random.key(0))
    # Sharper than at initialization, so that the log-likelihoods of a random model differ.
    params["decoder"]["token_embedder"]["embedding"] *= 8
    with saving.Saver(to, keep=1) as saver:
        saver.save(0, params)
    tokenizer.save(Path(to) / "vocabulary")
    Manifest.create(config, tokenizer, UNKNOWN).save(to)


def load_as_transformers(checkpoint: str | Path, max_length: int = 2048) -> tuple[Any, Any]:
    """(LlamaForCausalLM, tokenizer) of transformers with the weights and the vocabulary of a checkpoint folder."""
    import torch
    import transformers

    model, params, tokenizer, _ = arrays.load_model(checkpoint)
    c = model.config
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=c.vocab_size,
            num_hidden_layers=c.num_layers,
            hidden_size=c.embed_dim,
            num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            intermediate_size=c.mlp_dim,
            max_position_embeddings=max_length,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
            rms_norm_eps=c.norm_epsilon,
            tie_word_embeddings=c.tied_embeddings,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_id,
        )
    )
    weights = {name: torch.tensor(np.array(value, np.float32)) for name, value in _named(jax.device_get(params), c)}
    missing, unexpected = llama.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:  # tied: the embedding is the head
        raise ValueError(f"weights do not fit: {missing[:2]} missing, {unexpected[:2]} unexpected")
    fast = tokenizers.Tokenizer.from_str((Path(checkpoint) / "vocabulary" / "tokenizer.json").read_text())
    end = fast.id_to_token(tokenizer.eos_id)
    of_theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=fast, eos_token=end, pad_token=end)
    return llama.eval(), of_theirs


def _named(params: Any, c: models.DecoderConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Llama's names and layouts, [out, in]."""
    decoder = params["decoder"]
    layers, width = decoder["layers"], c.num_heads * c.head_dim
    yield "model.embed_tokens.weight", decoder["token_embedder"]["embedding"]
    yield "model.norm.weight", decoder["decoder_norm"]["scale"]
    if not c.tied_embeddings:
        yield "lm_head.weight", decoder["logits_dense"]["kernel"].T
    attention, mlp = layers["self_attention"], layers["mlp"]
    for i in range(c.num_layers):
        at = f"model.layers.{i}."
        yield at + "input_layernorm.weight", layers["pre_self_attention_layer_norm"]["scale"][i]
        yield at + "post_attention_layernorm.weight", layers["pre_mlp_layer_norm"]["scale"][i]
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v")):
            yield f"{at}self_attn.{theirs}_proj.weight", attention[ours]["kernel"][i].reshape(c.embed_dim, -1).T
        yield at + "self_attn.o_proj.weight", attention["out"]["kernel"][i].reshape(width, c.embed_dim).T
        for ours, theirs in (("wi_0", "gate"), ("wi_1", "up"), ("wo", "down")):
            yield f"{at}mlp.{theirs}_proj.weight", mlp[ours]["kernel"][i].T

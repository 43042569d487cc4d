"""Which tensor of a folder is which parameter, by transformers 5's rules for tied and repeated tensors.

A tensor that exists is used. A missing tensor that is tied takes the tensor that it is tied to, in either direction: a
file may have only the embedding or only the head. If both exist and differ, they are not tied, whatever the file says.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from flan_jax.errors import FlanError
from flan_jax.formats.huggingface_fields import T5
from flan_jax.formats.huggingface_files import WeightFiles
from flan_jax.formats.huggingface_tensors import Tensor, tensors
from flan_jax.formats.source import Path as ParameterPath
from flan_jax.models import DecoderConfig, rotary

_HEAD, _EMBEDDING = "lm_head.weight", "embed_tokens.weight"
_FIRST = "layers.0.mlp.gate_proj.weight"  # every family of decoders has it in its text model
_T5_EMBEDDINGS = ("shared.weight", f"encoder.{_EMBEDDING}", f"decoder.{_EMBEDDING}", _HEAD)
_T5_UNREAD = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"  # transformers never reads it
_FREQUENCIES = "rotary_emb.inv_freq"
_HALF = 2e-2  # relative error of a number in bfloat16, with some margin

Key = tuple[ParameterPath, int | None]


def place(
    config: DecoderConfig, family: str, files: WeightFiles, folder: Path
) -> tuple[DecoderConfig, dict[Key, Tensor]]:
    """The tensor of every parameter, and the configuration with a separate head if the files have one.

    Raises:
      FlanError: a tensor is missing, or the files do not decide which one counts.
    """
    if family == T5:
        prefix, embedding, head = "", *_t5_embeddings(config, files, folder)
    else:
        prefix = _prefix(files, folder)
        embedding, head = _decoder_embeddings(config, files, folder, prefix)
    config = dataclasses.replace(config, tied_embeddings=head is None)
    placed = {}
    for (path, layer), tensor in tensors(config, family).items():
        name = {"embedding": embedding, "logits_dense": head}.get(path[-2] if "logits_dense" in path else path[-1])
        name = prefix + tensor.name if name is None else name
        if name not in files.names:
            raise FlanError(f"{folder} lacks the tensor {name}: the weights are not those of config.json.")
        placed[path, layer] = tensor._replace(name=name)
    if head is not None:  # it includes the scale
        config = dataclasses.replace(config, scale_tied_logits=False)
    return config, placed


def redundant(config: DecoderConfig, family: str, files: WeightFiles) -> set[str]:
    """The tensors that need not be read: they repeat others, or transformers never reads them.

    Raises:
      FlanError: frequencies of the rotary positions differ from those of config.json.
    """
    if family == T5:
        return {*_T5_EMBEDDINGS, _T5_UNREAD}
    found = {name for name in files.names if name == _HEAD or name.endswith(f".{_HEAD}")}
    for name in files.names:
        if name.endswith(_FREQUENCIES):
            unscaled = dataclasses.replace(config, rope_scaling="none")
            expected = (*rotary.frequencies(config), rotary.frequencies(unscaled)[0])
            stored = files.load(name)
            if not any(x.shape == stored.shape and np.allclose(x, stored, rtol=_HALF, atol=1e-7) for x in expected):
                raise FlanError(
                    f"{files.where(name)} is of other rotary positions than config.json says: correct rope_theta there."
                )
            found.add(name)
    return found


def _prefix(files: WeightFiles, folder: Path) -> str:
    """The prefix of the text model's tensors."""
    found = sorted(name.removesuffix(_FIRST) for name in files.names if name.endswith(_FIRST))
    if len(found) > 1:
        raise FlanError(f"{folder} holds several models ({found[0]}*, {found[1]}*): keep the weights of one.")
    return found[0] if found else "model."


def _decoder_embeddings(config: DecoderConfig, files: WeightFiles, folder: Path, prefix: str) -> tuple[str, str | None]:
    """The names of the embedding, and of the head if it is another tensor."""
    embedding = prefix + _EMBEDDING
    heads = sorted(name for name in files.names if name == _HEAD or name.endswith(f".{_HEAD}"))
    if len(heads) > 1:
        raise FlanError(f"{folder} holds several heads ({', '.join(heads)}): keep the weights of one model.")
    if not heads and not config.tied_embeddings:
        raise FlanError(
            f"{folder} lacks the tensor {_HEAD}, and config.json does not say tie_word_embeddings: get the head, or "
            "say it if the model is so."
        )
    if not heads:
        return embedding, None
    (head,) = heads
    if embedding not in files.names and config.tied_embeddings:
        embedding = head
    if embedding not in files.names:
        raise FlanError(f"{folder} lacks the tensor {embedding}: the weights are not those of config.json.")
    return embedding, None if config.tied_embeddings and files.equal(embedding, head) else head


def _t5_embeddings(config: DecoderConfig, files: WeightFiles, folder: Path) -> tuple[str, str | None]:
    """The same for T5, whose encoder, decoder and head may each have a copy of the shared embedding, or their own."""
    shared = next((name for name in _T5_EMBEDDINGS if name in files.names), None)
    if shared is None:
        raise FlanError(f"{folder} lacks the tensor {_T5_EMBEDDINGS[0]}: the weights are not those of config.json.")
    _, encoder, decoder, head = (name if name in files.names else shared for name in _T5_EMBEDDINGS)
    if encoder != decoder and not files.equal(encoder, decoder):
        raise FlanError(
            f"{folder}: {encoder} and {decoder} differ, and encoder and decoder share one embedding here: this model "
            "cannot be converted."
        )
    if head == _HEAD and not config.scale_tied_logits and encoder != _HEAD:
        return encoder, head  # T5 1.1 has a separate head, even if it holds the same numbers
    return encoder, None if head == encoder or files.equal(encoder, head) else head

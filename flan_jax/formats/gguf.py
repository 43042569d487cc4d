"""Reads GGUF: a file's shape, parameters and vocabulary. The gguf package parses and dequantizes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.formats import gguf_files, gguf_tensors, gguf_tokenizer
from flan_jax.models import DecoderConfig


@dataclasses.dataclass(frozen=True)
class Gguf:
    """The content of a GGUF file.

    Attributes:
      config: the decoder's shape.
      params: float32 arrays at the paths of `flan_jax.models`, layers stacked on axis 0.
      tokenizer: the vocabulary.
      name: the model's name in the file.
    """

    config: DecoderConfig
    params: dict[str, Any]
    tokenizer: vocabularies.Tokenizer
    name: str


def read(path: str | Path) -> Gguf:
    """Reads a GGUF file, or any part of one that was split, dequantized to float32.

    Raises:
      FlanError: the file is missing or broken, or its architecture, variant or vocabulary is not supported.
    """
    contents = gguf_files.read(Path(path))
    path = contents.path
    architecture = contents.fields.get("general.architecture")
    if architecture not in gguf_tensors.ARCHITECTURES:
        known = ", ".join(gguf_tensors.ARCHITECTURES)
        raise FlanError(f"{path} is of architecture {architecture!r}; {known} can be converted.")
    meta = gguf_files.Fields(path, contents.fields)
    tokenizer = gguf_tokenizer.read(meta, path)
    config = gguf_tensors.config(architecture, meta, contents)
    vocabularies.check_fits(tokenizer, config.vocab_size, str(path))
    params = gguf_tensors.params(architecture, config, contents)
    return Gguf(config, params, tokenizer, meta.get("general.name", ""))

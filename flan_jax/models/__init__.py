"""Decoders. Flax Linen lives here and nowhere else."""

from flan_jax.models.config import PRESETS, DecoderConfig, preset
from flan_jax.models.decoder import Model

__all__ = ["PRESETS", "DecoderConfig", "Model", "build", "preset"]


def build(config: DecoderConfig) -> Model:
    """The model of a configuration."""
    return Model(config)

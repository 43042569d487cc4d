"""Decoders and encoder-decoders. Flax Linen lives here and nowhere else."""

from flan_jax.models.attention_switch import refuse as refuse_attention
from flan_jax.models.cache import Cache
from flan_jax.models.config import DecoderConfig
from flan_jax.models.decoder import Model
from flan_jax.models.encoder_decoder import EncoderDecoder
from flan_jax.models.layers import Memory
from flan_jax.models.remat import POLICIES as REMAT_POLICIES

__all__ = [
    "REMAT_POLICIES",
    "Cache",
    "DecoderConfig",
    "EncoderDecoder",
    "Memory",
    "Model",
    "build",
    "refuse_attention",
]


def build(config: DecoderConfig) -> Model:
    """The model of a configuration: an `EncoderDecoder` where it has encoder layers."""
    return EncoderDecoder(config) if config.num_encoder_layers else Model(config)

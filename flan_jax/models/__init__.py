"""Decoders and encoder-decoders. Only this package uses Flax Linen."""

from flan_jax.lazy import lazy_api_imports

with lazy_api_imports(globals()):  # code that only needs a model's shape needs no JAX
    from flan_jax.models.attention_switch import refuse as refuse_attention
    from flan_jax.models.cache import Cache
    from flan_jax.models.config import DecoderConfig
    from flan_jax.models.decoder import Model
    from flan_jax.models.dropout import Dropout
    from flan_jax.models.encoder_decoder import EncoderDecoder, build
    from flan_jax.models.layers import Memory
    from flan_jax.models.remat import POLICIES as REMAT_POLICIES

__all__ = [
    "REMAT_POLICIES",
    "Cache",
    "DecoderConfig",
    "Dropout",
    "EncoderDecoder",
    "Memory",
    "Model",
    "build",
    "refuse_attention",
]

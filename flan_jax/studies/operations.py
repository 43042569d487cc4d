"""How long a training takes at least, by its operations alone, before anything like it was timed."""

from __future__ import annotations

import functools
import time

import numpy as np

from flan_jax import configuration
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.errors import FlanError
from flan_jax.files import user_path
from flan_jax.formats import names
from flan_jax.models.config import DecoderConfig
from flan_jax.models.costs import Work, products

# gin/models of what is packaged; of others the folder says it.
_SHAPES = {names.GEMMA: "gemma3_270m", names.SMOLLM: "smollm2_135m", "tiny": "tiny"}
_SIZE, _SECONDS = 512, 0.3  # of the matrices whose product is timed, and how long: others may take the processor


@functools.cache
def rate() -> float:
    """Floating point operations a second of a float32 matrix product on this machine's processor, the best of many."""
    matrix = np.ones((_SIZE, _SIZE), np.float32)
    best, began = np.inf, time.perf_counter()
    while time.perf_counter() - began < _SECONDS:
        start = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - start)
    return 2.0 * _SIZE**3 / best


def shape_of(model: str) -> DecoderConfig | None:
    """The shape of a model of MODELS; None where nothing says it."""
    try:
        if model in _SHAPES:
            return configuration.model_config(_SHAPES[model])
        return DecoderConfig.from_dict(Manifest.load(user_path(model)).model)
    except FlanError:
        return None


def seconds(config: DecoderConfig, slots: float, head_slots: float) -> float:
    """Of a training of so many slots, all of whose parameters are trained.

    Six operations a weight and slot (Chowdhery et al. 2022, appendix B), those of the vocabulary where there are
    targets, at the rate of a plain matrix product; attention's scores, the optimizer and the input take more.

    Args:
      config: of the model.
      slots: of all rows.
      head_slots: those that may hold targets.
    """
    encoder = slots - head_slots if config.num_encoder_layers else 0
    return products(config, Work(slots - encoder, head_slots, encoder_slots=encoder)).step_flops() / rate()

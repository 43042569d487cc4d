"""What a run's gin file configures, by the names that it uses; importing this makes them known to gin."""

from __future__ import annotations

import gin

from flan_jax import configuration, parts
from flan_jax.training import loop, optimizers

gin.external_configurable(loop.train, "train")
gin.external_configurable(parts.of, "mixture")
gin.external_configurable(optimizers.adafactor, "adafactor")
gin.external_configurable(configuration.model_config, "model_config")

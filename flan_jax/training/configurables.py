"""What a run's gin file can configure. Importing this module makes the names known to gin."""

from __future__ import annotations

from typing import Any

import gin

from flan_jax import configuration, macro_checks, parts
from flan_jax.training import loop, optimizers


@macro_checks.checked
def optimizer(name: str | optimizers.Optimizer = "adafactor") -> optimizers.Optimizer:
    """An optimizer by name, with the arguments that gin binds to it.

    Args:
      name: one of `optimizers.OWN`, or "module:function" for any other. Arguments in brackets override gin's. An
        optimizer object is returned as it is.

    Raises:
      FlanError: an unknown name, an argument that it does not take, or no optimizer.
    """
    if not isinstance(name, str):
        return name
    makers = {known: gin.get_configurable(known) for known in (*optimizers.OWN, "factory")}
    return optimizers.by_text(name, makers)


def _known(function: Any, name: str) -> None:
    gin.external_configurable(function, name)


_known(loop.train, "train")
_known(optimizer, "optimizer")
_known(optimizers.factory, "factory")
_known(parts.of, "mixture")
_known(configuration.model_config, "model_config")
for _name, _maker in optimizers.OWN.items():
    _known(_maker, _name)

"""What a run's gin file can configure. Importing this module makes the names known to gin."""

from __future__ import annotations

from typing import Any

import gin

from flan_jax import configuration, macro_checks, parts
from flan_jax.training import by_name, loop, optimizers
from flan_jax.training.optimizers import named
from flan_jax.values import shown


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
    if (found := named.named(name)) is None:
        return gin.get_configurable("factory")(name)
    known, given = found
    return by_name.made(f"OPTIMIZER: {shown(name)}", gin.get_configurable(known), given)


def _known(function: Any, name: str) -> None:
    gin.external_configurable(function, name)


_known(loop.train, "train")
_known(optimizer, "optimizer")
_known(optimizers.factory, "factory")
_known(parts.of, "mixture")
_known(configuration.model_config, "model_config")
for _name, _maker in optimizers.OWN.items():
    _known(_maker, _name)

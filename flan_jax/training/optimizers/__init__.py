"""Optimizers, learning-rate schedules, and which part of a model is trained."""

from flan_jax.training.optimizers.factored import adafactor, scale_by_parameter_rms
from flan_jax.training.optimizers.kinds import Known, Optimizer, for_parameters
from flan_jax.training.optimizers.layout import declare
from flan_jax.training.optimizers.matrices import by_matrix
from flan_jax.training.optimizers.named import OWN, adamw, by_text, factory, lion, sgd
from flan_jax.training.optimizers.schedules import schedule
from flan_jax.training.optimizers.tuning import Lora, Tuning, rate, state_shardings

__all__ = [
    "OWN",
    "Known",
    "Lora",
    "Optimizer",
    "Tuning",
    "adafactor",
    "adamw",
    "by_matrix",
    "by_text",
    "declare",
    "factory",
    "for_parameters",
    "lion",
    "rate",
    "scale_by_parameter_rms",
    "schedule",
    "sgd",
    "state_shardings",
]

"""FLAN-JAX: instruction tuning and held-out zero-shot evaluation in JAX."""

__version__ = "0.1.0"

"""FLAN-JAX: instruction tuning and held-out zero-shot evaluation in JAX."""

from flan_jax.quiet import quiet_tensorflow, quiet_tpu

__version__ = "0.1.0"

quiet_tensorflow()
quiet_tpu()

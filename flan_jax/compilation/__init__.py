"""Estimates what a step would cost on a TPU, with the TPU's compiler but without a TPU."""

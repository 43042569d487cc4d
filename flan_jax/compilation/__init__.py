"""What a step would cost on a TPU, from its compiler, without the TPU."""

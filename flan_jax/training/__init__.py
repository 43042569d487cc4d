"""The training loop and what it needs: loss, optimizers, state and hooks."""

"""Checkpoints in other programs' formats: transformers, GGUF, T5X and peft."""

"""Datasets of a user's own: JSON lines, conversations and SeqIO tasks, made to text, tokens and held-back examples."""

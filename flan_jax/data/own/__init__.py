"""A user's own datasets: JSON lines, conversations and SeqIO tasks become text, tokens and held-back examples."""

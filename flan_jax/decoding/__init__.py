"""Text from a model: greedy, sampled and by beam search."""

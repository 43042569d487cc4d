"""Texts that evaluation and training share: n-grams, and the contamination of examples by a corpus."""

"""Texts that evaluation and training share: n-grams, contamination of examples by a corpus, and the audit."""

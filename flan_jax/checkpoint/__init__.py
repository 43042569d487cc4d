"""A checkpoint folder: its manifest and its arrays."""

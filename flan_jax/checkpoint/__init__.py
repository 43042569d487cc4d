"""Checkpoint folders: the manifest, the arrays and their digests, and the lock."""

"""Scoring held-out clusters: prompts, tree scoring, metrics, the protocol and its report."""

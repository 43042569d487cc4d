"""Runs lm-evaluation-harness on our engine (extra `lm_eval`)."""

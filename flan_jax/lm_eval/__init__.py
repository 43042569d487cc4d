"""Runs lm-evaluation-harness on our engine (extra `lm_eval`): our model `flan_jax` and the harness's command line with
it.
"""

"""lm-evaluation-harness on our engine (extra `lm_eval`): its model `flan_jax`, and its command line with it."""

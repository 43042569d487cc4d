"""Evaluation of held-out clusters: jobs, units, ranked options, generated answers, and figures."""

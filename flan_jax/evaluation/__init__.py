"""Held-out clusters evaluated: jobs, units, options ranked, answers generated, and their figures."""

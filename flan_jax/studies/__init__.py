"""The paper's experiments, and three of our own, each as a plan of runs, evaluations, tables and figures.

`settings` resolves what a study is run with, `kinds` has a file for each study, `plan` makes commands of what a study
compares, `keys` names folders, `records` keeps what was done, `stamps` sees data that changed, `results` reads scores
and refuses to mix kinds of them, `figures` draws, `paper` has the numbers of the paper's 137B model, and `document`
writes.
`flan_jax.study` runs it all.
"""

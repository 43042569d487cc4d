"""The course of training runs, in a terminal and as a page: what metrics.jsonl and run.json say, also of one at work.

`reading` takes it from MODEL_DIR, `figures` says which figures are shown and thins them, `terminal` and `page` show.
"""

"""The course of training runs, in a terminal or as a page, from metrics.jsonl and run.json.

A run may still be going on.

`reading` reads MODEL_DIR, `figures` chooses figures and thins out their points, `terminal` and `page` show them.
"""

"""Checks that a checkpoint computes what it should, on any data, by comparing with a plain computation.

The fast code packs, branches, accumulates and caches. The other side of each check does none of that: it is one
sequence at a time through the model (`plain`), or another program (`transformers`).
"""

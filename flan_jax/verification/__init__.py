"""Whether a checkpoint computes what it says, on anyone's own data: each check against a plain computation.

What is fast here is packed, cut into branches, accumulated or cached. The other side of each check is none of that: one
sequence at a time through the model (`plain`), or somebody else's program (`transformers`).
"""

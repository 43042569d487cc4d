"""Log-likelihoods of answer options: trees, packings, the scorer, and plain items."""

"""Log-likelihoods of answer options: trees, packing, the scorer, and plain items without a catalog."""

"""Starting runs: a small pod on this machine, TPU virtual machines, XManager."""

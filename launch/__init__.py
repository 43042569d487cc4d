"""Starting runs: sweeps, a small pod on this machine, TPU virtual machines, Kubernetes, XManager."""

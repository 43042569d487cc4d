"""The datasets and their templates, one module per cluster, as data."""

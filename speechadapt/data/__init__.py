"""Data: manifests, training batches that are a function of (seed, step), corpora."""

"""Connectionist temporal classification: greedy and prefix beam search, word times by alignment."""

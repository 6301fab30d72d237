"""Decoders: encoder frames in, hypotheses out."""

"""Readers of corpora: one file each, from a local folder to utterances."""

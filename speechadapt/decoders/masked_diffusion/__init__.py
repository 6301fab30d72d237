"""Masked diffusion over text: every token of an utterance is written at once, in a few steps."""

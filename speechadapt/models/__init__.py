"""Models: an encoder with its decoder, loaded by name, and their cards."""

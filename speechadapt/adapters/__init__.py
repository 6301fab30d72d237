"""Adapters at the sites of frozen encoders. Nothing here yet."""

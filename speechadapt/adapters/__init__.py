"""Adapters at the sites of frozen encoders: methods, attaching, merging, verifying, storing."""

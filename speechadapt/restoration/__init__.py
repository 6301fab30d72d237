"""Restoration of speech: cleaner and vocoder. Nothing here yet."""

"""Whisper's autoregressive decoding: options, generation, fallback, word times, one file each."""

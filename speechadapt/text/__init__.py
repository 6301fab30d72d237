"""Text: normalisers for scoring, alphabets, guards against invented text."""

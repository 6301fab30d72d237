"""Scores: error rates with intervals, speed, coverage."""

"""Training on one's own recordings: what is checked, how they are split, what is said of both."""

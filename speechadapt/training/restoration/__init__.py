"""What the training of restorers has in common: clean speech, its degradation, adversaries."""

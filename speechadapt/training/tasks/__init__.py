"""Training tasks: one file each, a loss and an evaluation."""

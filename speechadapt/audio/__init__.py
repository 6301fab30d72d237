"""Sound alone: files in, where somebody speaks, pieces a model can take, and damage on purpose."""

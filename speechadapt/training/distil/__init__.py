"""What adapters learn from a teacher: settings, inputs, losses, models, and their objective."""

"""Training on several tasks at once: settings, fusion, the matrix of adapters and tasks."""

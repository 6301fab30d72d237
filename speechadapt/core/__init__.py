"""What everything stands on: errors, shapes, seeds, files that are whole or absent."""

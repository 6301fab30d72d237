"""Engines: where units of work run. They know callables and units, no models and no audio."""

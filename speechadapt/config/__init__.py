"""From recipes and overrides to dataclasses; Hydra stays in here."""

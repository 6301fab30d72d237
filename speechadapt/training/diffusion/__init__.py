"""Training the masked-diffusion decoder: rows, starts, settings."""

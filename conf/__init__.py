"""Hydra groups that differ by place: machine, data, trainer, job. Shipped as `speechadapt.conf`."""

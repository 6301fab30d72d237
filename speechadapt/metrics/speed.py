"""What a speed was measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Environment:
    """What a speed was measured on.

    Args:
        device: `cpu` or `cuda`, with the accelerator's name where there is one.
        dtype: Number format of the weights.
        threads: torch's threads on the CPU.
        batch: Utterances (or seconds, as the job says) per batch.
        torch: torch's version.
    """

    device: str
    dtype: str
    threads: int
    batch: str
    torch: str

    @property
    def line(self) -> str:
        """The environment in one line."""
        return (
            f"{self.device}, {self.dtype}, {self.threads} threads, batch {self.batch}, "
            f"torch {self.torch}"
        )


def describe_environment(device: Any, dtype: Any, batch: int | str) -> Environment:
    """Read the environment from torch.

    Args:
        device: A torch device or its name.
        dtype: A torch dtype or its name.
        batch: Batch size, or a text that says how batches are made.
    """
    import torch

    place = torch.device(device)
    name = str(place)
    if place.type == "cuda" and torch.cuda.is_available():
        name = f"{place} ({torch.cuda.get_device_name(place)})"
    return Environment(
        device=name,
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        batch=str(batch),
        torch=torch.__version__,
    )

"""The memory of this process, as the system counts it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

MemoryField = Literal["VmRSS", "VmHWM"]


def resident_bytes(field: MemoryField) -> int | None:
    """Return the resident memory of this process in bytes; None where the system does not say.

    Unlike `ru_maxrss`, the peak belongs to this program alone: it does not start at what the
    process held that started it.

    Args:
        field: `VmRSS` for what is held now, `VmHWM` for the most that was held.
    """
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    sizes = (line.split() for line in text.splitlines() if line.startswith(f"{field}:"))
    return next((int(words[1]) * 1024 for words in sizes), None)

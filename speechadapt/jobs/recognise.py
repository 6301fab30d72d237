"""Decode a batch so that no clip costs another: it is halved or split where it cannot be done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from speechadapt.audio.span import Signal

_Clip = TypeVar("_Clip")


@runtime_checkable
class Recogniser(Protocol):
    """What a job needs of a model."""

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms it takes."""

    @property
    def window_s(self) -> float | None:
        """Longest input in seconds, or None where any length goes."""

    @property
    def language(self) -> str | None:
        """Code of its one language, None where it has several or nobody says."""

    def fingerprint(self) -> Any:
        """What tells it from every other model and setting, JSON types only."""

    def decode_batch(
        self, waveforms: Sequence[Signal], languages: Sequence[str | None] | None = None
    ) -> Sequence[Any]:
        """Write one `decoders.base.Hypothesis` per waveform, in order."""


@dataclass(frozen=True)
class Failure:
    """Why a clip has no hypothesis.

    Args:
        reason: `OOM` or `MODEL`.
        message: What was raised.
    """

    reason: str
    message: str


def recognise(
    decode: Callable[[Sequence[_Clip]], Sequence[Any]], clips: Sequence[_Clip]
) -> list[Any]:
    """Decode a batch, in smaller parts where the whole cannot be.

    Args:
        decode: Writes a hypothesis per clip.
        clips: What it takes.

    Returns:
        A hypothesis or a `Failure` per clip, in order.
    """
    if not clips:
        return []
    try:
        found = list(decode(clips))
        if len(found) != len(clips):
            raise RuntimeError(f"{len(clips)} clips gave {len(found)} hypotheses")
        return found
    except Exception as error:
        full = is_out_of_memory(error)
        failure = Failure("OOM" if full else "MODEL", _describe(error))
    # Outside the handler: the error's traceback held the tensors that did not fit.
    if full:
        _release_memory()
    if len(clips) == 1:
        return [failure]
    size = (len(clips) + 1) // 2 if full else 1
    parts = (clips[start : start + size] for start in range(0, len(clips), size))
    return [result for part in parts for result in recognise(decode, part)]


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, on the CPU or on an accelerator."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "alloc_failed" in text
    )


def _describe(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _release_memory() -> None:
    import gc
    import sys

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()

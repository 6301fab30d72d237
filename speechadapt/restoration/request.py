"""What a restorer is asked: how to restore, and how long a channel is before and after."""

from __future__ import annotations

from dataclasses import dataclass, field

from speechadapt.core.limits import Count
from speechadapt.restoration.level import KEEP
from speechadapt.restoration.seams import PieceConfig


@dataclass(frozen=True)
class RestoreConfig:
    """How recordings are restored.

    Args:
        iterations: Of the vocoder; None takes its own number.
        level: `keep`, or a loudness such as `-23LUFS`.
        pieces: How long recordings are cut.
        seed: Of the initial noise of a vocoder that starts from noise.
    """

    iterations: Count | None = None
    level: str = KEEP
    pieces: PieceConfig = field(default_factory=PieceConfig)
    seed: int = 0


@dataclass(frozen=True)
class Length:
    """How long a channel is, and how long it will be.

    Args:
        samples: Its samples.
        sample_rate: Their rate in Hz.
        output_rate: Of the result, in Hz.
    """

    samples: int
    sample_rate: int
    output_rate: int

    @property
    def restored(self) -> int:
        """Samples of the result."""
        return self.at(self.output_rate)

    def at(self, rate: int) -> int:
        """Return the samples of the channel at a rate.

        Args:
            rate: Hz.
        """
        return round(self.samples * rate / self.sample_rate)

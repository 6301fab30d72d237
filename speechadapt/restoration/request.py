"""What a restorer is asked: how to restore, and how long a channel is before and after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from speechadapt.core.limits import Count, CountOrNone, Range
from speechadapt.restoration.level import KEEP
from speechadapt.restoration.seams import PieceConfig

SignalName: TypeAlias = Literal["generated", "masked"]
SIGNALS: tuple[SignalName, ...] = ("generated", "masked")


@dataclass(frozen=True)
class MaskConfig:
    """How strongly the mask takes down.

    Args:
        power: Exponent of the ratio of sizes.
        floor: Least factor of any cell.
        bins: Neighbours on either side along frequency that sizes are smoothed over.
        frames: The same along time.
    """

    power: Annotated[float, Range(above=0.0)] = 0.7
    floor: Annotated[float, Range(0.0, 1.0)] = 0.03
    bins: CountOrNone = 3
    frames: CountOrNone = 1


@dataclass(frozen=True)
class RestoreConfig:
    """How recordings are restored.

    Args:
        iterations: Of the vocoder; None takes its own number.
        level: `keep`, or a loudness such as `-23LUFS`.
        pieces: How long recordings are cut.
        seed: Of the initial noise of a vocoder that starts from noise.
        signal: `generated`, what the vocoder makes, which gives back what is lost; or `masked`, the
            input turned down to that signal's levels, which keeps the voice (see `masking`). None
            takes what the restorer says.
        mask: How strongly `masked` turns down.
    """

    iterations: Count | None = None
    level: str = KEEP
    pieces: PieceConfig = field(default_factory=PieceConfig)
    seed: int = 0
    signal: SignalName | None = None
    mask: MaskConfig = field(default_factory=MaskConfig)


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

"""Restore one recording from file to file, channel by channel, in bounded memory.

A first pass says what is there; a second restores every channel into a file of plain samples; a
third puts them together at the level asked for. What is held in memory does not grow with the
recording.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Float32

from speechadapt.audio.io import AudioStream, probe
from speechadapt.audio.loudness import LoudnessMeter, gain_between
from speechadapt.audio.reader import Region
from speechadapt.audio.span import Signal
from speechadapt.audio.writer import AudioWriter, writable_rate
from speechadapt.core.errors import AudioError, MissingExtra
from speechadapt.jobs.listen import Problem, problem_of
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.restore_options import RestoreOptions
from speechadapt.metrics.quality import BandwidthMeter
from speechadapt.restoration.level import unclipped, wanted_loudness
from speechadapt.restoration.request import Length, RestoreConfig

if TYPE_CHECKING:
    from typing import BinaryIO

    from speechadapt.restoration.request import SignalName

_PORTION_S = 10.0
_FULL_SCALE = 0.999
_BYTES = 4


@runtime_checkable
class ChannelRestorer(Protocol):
    """What a job needs of a restorer."""

    @property
    def input_rate(self) -> int:
        """Hz of the samples it takes."""

    def channel(
        self, blocks: Iterable[Signal], length: Length, config: RestoreConfig
    ) -> Iterator[Signal]:
        """Restore one channel (see `models.restorer.Restorer.channel`)."""

    def fingerprint(self) -> Any:
        """What tells it from every other restorer, JSON types only."""


@dataclass(frozen=True)
class Survey:
    """What a recording is before anything is done to it.

    Args:
        item: The item.
        sample_rate: Hz; 0 where the file cannot be read.
        samples: Of a channel.
        flat: For each channel whether it holds one value alone.
        level_db: Root mean square over all channels in decibels of full scale; None for silence.
        clipped_rate: Share of samples at full scale.
        bandwidth_hz: Highest frequency with something in it in any channel; None for silence.
        problem: Why it cannot be restored (no samples) or is partial; None where all is well.
        decode_s: Seconds spent on it.
    """

    item: PlanItem
    sample_rate: int = 0
    samples: int = 0
    flat: tuple[bool, ...] = ()
    level_db: float | None = None
    clipped_rate: float = 0.0
    bandwidth_hz: float | None = None
    problem: Problem | None = None
    decode_s: float = 0.0

    @property
    def audio_s(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate if self.sample_rate else 0.0


@dataclass
class Made:
    """A file that was made and is not in its place yet.

    Args:
        path: The file.
        sample_rate: Hz.
        samples: Of a channel.
        level_db: As in `Survey`.
        bandwidth_hz: As in `Survey`.
        decode_s: Seconds of reading and decoding.
        model_s: Seconds of the model.
        write_s: Seconds of putting channels together and encoding.
    """

    path: Path
    sample_rate: int
    samples: int
    level_db: float | None = None
    bandwidth_hz: float | None = None
    decode_s: float = 0.0
    model_s: float = 0.0
    write_s: float = 0.0


@dataclass
class _Level:
    """Sums over samples."""

    lowest: float = math.inf
    highest: float = -math.inf
    power: float = 0.0
    count: int = 0
    clipped: int = 0

    def add(self, samples: Float32[np.ndarray, ...]) -> None:
        if samples.size:
            self.lowest = min(self.lowest, float(samples.min()))
            self.highest = max(self.highest, float(samples.max()))
            self.power += float(np.square(samples, dtype=np.float64).sum())
            self.count += samples.size
            self.clipped += int(np.count_nonzero(np.abs(samples) >= _FULL_SCALE))


def survey(item: PlanItem) -> Survey:
    """Read a recording once: its rate, channels, length, level, and what is wrong with it.

    Args:
        item: The item.

    Returns:
        What is there; nothing is raised for a file that cannot be read.
    """
    began = time.perf_counter()
    try:
        found = probe(Path(item.path))
        levels, bands, problem = list[_Level](), list[BandwidthMeter](), None
        for channel in range(found.channels):
            stream = _channel(item, found.sample_rate, channel)
            levels.append(_Level())
            bands.append(BandwidthMeter(found.sample_rate))
            for block in stream:
                levels[-1].add(block)
                bands[-1].add(block)
            if stream.status == "partial":
                problem = Problem("PARTIAL", stream.note or "")
    except (AudioError, MissingExtra, MemoryError) as error:
        return Survey(item, problem=problem_of(error), decode_s=time.perf_counter() - began)
    count = sum(level.count for level in levels)
    return Survey(
        item=item,
        sample_rate=found.sample_rate,
        samples=levels[0].count,
        flat=tuple(level.lowest == level.highest for level in levels),
        level_db=_decibels(sum(level.power for level in levels), count),
        clipped_rate=sum(level.clipped for level in levels) / count,
        bandwidth_hz=_widest(bands),
        problem=problem,
        decode_s=time.perf_counter() - began,
    )


@dataclass
class FileRestorer:
    """Makes restored files in a folder of its own.

    Args:
        restorer: The model.
        options: What was asked for.
        folder: Where files are made, each under a name of its own.
    """

    restorer: ChannelRestorer
    options: RestoreOptions
    folder: Path
    _config: RestoreConfig = field(init=False)
    _number: int = 0

    def __post_init__(self) -> None:
        self._config = RestoreConfig(
            self.options.iterations,
            seed=self.options.seed,
            signal=cast("SignalName | None", self.options.signal),
        )

    def restore(self, known: Survey) -> Made:
        """Restore a recording.

        Args:
            known: What is there.

        Raises:
            AudioError: The file changed since it was surveyed.
            OSError: A file cannot be written.
        """
        made = self._begin(known)
        length = Length(known.samples, known.sample_rate, made.sample_rate)

        def channel(number: int) -> Iterator[Signal]:
            heard = _timed(_channel(known.item, self.restorer.input_rate, number), made)
            return self.restorer.channel(heard, length, self._config)

        began = time.perf_counter()
        self._write_channels(known, channel)
        made.model_s = time.perf_counter() - began - made.decode_s
        return self._join(known, made, bend=True)

    def keep(self, known: Survey) -> Made:
        """Write a recording as it was, in the format, at the rate and the loudness asked for.

        Args:
            known: What is there.

        Raises:
            AudioError: The file changed since it was surveyed.
            OSError: A file cannot be written.
        """
        made = self._begin(known)

        def channel(number: int) -> Iterator[Signal]:
            return _timed(_channel(known.item, made.sample_rate, number), made)

        self._write_channels(known, channel)
        return self._join(known, made, bend=wanted_loudness(self.options.loudness) is not None)

    def clear(self) -> None:
        """Remove what was made and not moved away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self, known: Survey) -> Made:
        wanted = self.options.output_rate or known.sample_rate
        rate = writable_rate(self.options.format, wanted)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        path = self.folder / f"{self._number}.{self.options.format}"
        return Made(path, rate, Length(known.samples, known.sample_rate, rate).restored)

    def _plain(self, number: int) -> Path:
        return self.folder / f"channel{number}.f32"

    def _write_channels(self, known: Survey, channel: Callable[[int], Iterator[Signal]]) -> None:
        """Write each channel's samples into a file; a flat one's stays empty."""
        for number, flat in enumerate(known.flat):
            with self._plain(number).open("wb") as handle:
                for portion in channel(number) if not flat else ():
                    handle.write(portion.astype("<f4").tobytes())

    def _join(self, known: Survey, made: Made, bend: bool) -> Made:
        """Put the channels together at the level asked for, and encode them."""
        began = time.perf_counter()
        channels, wanted = len(known.flat), wanted_loudness(self.options.loudness)
        gain = 1.0
        if wanted is not None:
            meter = LoudnessMeter(made.sample_rate)
            for portion in self._portions(channels, made):
                meter.add(portion)
            gain = gain_between(meter.lufs(), wanted)
        level, bands = _Level(), [BandwidthMeter(made.sample_rate) for _ in range(channels)]
        with AudioWriter(made.path, self.options.format, made.sample_rate, channels) as writer:
            for portion in self._portions(channels, made):
                louder = portion * np.float32(gain)
                final = unclipped(louder) if bend else louder
                level.add(final)
                for band, samples in zip(bands, final, strict=True):
                    band.add(samples)
                writer.write(final)
        for number in range(channels):
            self._plain(number).unlink()
        made.level_db = _decibels(level.power, level.count)
        made.bandwidth_hz = _widest(bands)
        made.write_s = time.perf_counter() - began
        return made

    def _portions(
        self, channels: int, made: Made
    ) -> Iterator[Float32[np.ndarray, "channels samples"]]:
        size, left = round(_PORTION_S * made.sample_rate), made.samples
        handles = [self._plain(number).open("rb") for number in range(channels)]
        try:
            while left > 0:
                count = min(size, left)
                yield np.stack([_read_plain(handle, count) for handle in handles])
                left -= count
        finally:
            for handle in handles:
                handle.close()


def _channel(item: PlanItem, sample_rate: int, number: int) -> AudioStream:
    region = Region(item.offset, item.duration)
    return AudioStream(Path(item.path), sample_rate, region, block_s=_PORTION_S, channel=number)


def _widest(bands: Iterable[BandwidthMeter]) -> float | None:
    return max((hz for band in bands if (hz := band.hz()) is not None), default=None)


def _timed(blocks: Iterable[Signal], made: Made) -> Iterator[Signal]:
    """Pass blocks on, and count the time that they take to come."""
    source = iter(blocks)
    while True:
        began = time.perf_counter()
        block = next(source, None)
        made.decode_s += time.perf_counter() - began
        if block is None:
            return
        yield block


def _read_plain(handle: BinaryIO, count: int) -> Signal:
    """Read so many samples; past the end of a file are zeros."""
    data = np.frombuffer(handle.read(count * _BYTES), dtype="<f4")
    return np.pad(data, (0, count - len(data))).astype(np.float32, copy=False)


def _decibels(power: float, count: int) -> float | None:
    return round(10 * math.log10(power / count), 2) if power > 0 and count else None

"""Audio in: any readable file as mono float32 at the rate asked for, with its length judged.

A file that stops before its header says it does is decoded as far as it goes and called `partial`;
a file with nothing to hear raises `AudioError` with one of these reasons:

    UNREADABLE   not audio, no permission, a folder, damaged beyond its header
    NO_AUDIO     a container without an audio stream
    EMPTY        no bytes, or no samples
    TOO_SHORT    less than `MINIMUM_S`, one analysis window of the feature extractors
    NONFINITE    a NaN or an infinity among the samples
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soxr
from jaxtyping import Float32

from speechadapt.audio.header import Header, read_header
from speechadapt.audio.reader import Block, Reader, Region, open_reader
from speechadapt.audio.span import Signal
from speechadapt.core.errors import AudioError

Status = Literal["ok", "partial"]

MINIMUM_S = 0.025
_REGION_TOLERANCE_S = 0.1
_RATES_HZ = (1000, 1_000_000)


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says.

    Args:
        container: `wav`, `flac`, `mp3`, `ogg`, or FFmpeg's name of another (`mov`, `aac`, ...).
        sample_rate: In Hz.
        channels: Of the recording, before mixing.
        header_s: Length in seconds by the header; None where it states none (ogg, live streams).
        estimate_s: Length in seconds to plan with, without any guarantee; None where not even
            the decoder can say.
    """

    container: str
    sample_rate: int
    channels: int
    header_s: float | None
    estimate_s: float | None

    @property
    def frames(self) -> int | None:
        """Length in samples per channel by the header; None where it states none."""
        return None if self.header_s is None else round(self.header_s * self.sample_rate)


@dataclass(frozen=True)
class Decoded:
    """A recording, or the part asked for, in memory.

    Args:
        waveform: Mono, at `sample_rate`.
        sample_rate: In Hz.
        header_s: Length of the whole file by its header; None where it states none.
        decoded_s: Seconds decoded, counted in the file's own samples.
        status: `partial` where less was there than the header or the request says.
        note: Why it is partial, naming both lengths; None otherwise.
    """

    waveform: Signal
    sample_rate: int
    header_s: float | None
    decoded_s: float
    status: Status
    note: str | None


def probe(path: Path) -> AudioInfo:
    """Read a file's header, without decoding.

    Raises:
        AudioError: `UNREADABLE`, `NO_AUDIO` or `EMPTY` (no bytes).
        MissingExtra: The container needs PyAV, which is not installed.
    """
    with _opened(path) as (reader, _):
        return AudioInfo(
            container=reader.container,
            sample_rate=reader.sample_rate,
            channels=reader.channels,
            header_s=reader.header_s,
            estimate_s=reader.estimate_s,
        )


def decode_audio(
    path: Path,
    sample_rate: int,
    *,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    minimum_s: float = MINIMUM_S,
) -> Decoded:
    """Decode a file or a part of it, mix its channels by their mean, and resample it.

    Args:
        path: The file.
        sample_rate: Wanted, in Hz.
        offset_s: Seconds to leave out at the start.
        duration_s: Seconds to decode; None means up to the end.
        minimum_s: Anything shorter is an error.

    Raises:
        AudioError: Nothing usable; its `reason` says which case.
        MissingExtra: The container needs PyAV, which is not installed.
    """
    stream = AudioStream(path, sample_rate, Region(offset_s, duration_s), minimum_s=minimum_s)
    parts = list(stream)
    return Decoded(
        waveform=parts[0] if len(parts) == 1 else np.concatenate(parts),
        sample_rate=sample_rate,
        header_s=stream.header_s,
        decoded_s=stream.decoded_s,
        status=stream.status,
        note=stream.note,
    )


def decode_channels(path: Path) -> tuple[Float32[np.ndarray, "channels samples"], int]:
    """Decode a file at its own rate, channels one above the other.

    Args:
        path: The file.

    Returns:
        Its samples and their rate in Hz; of a damaged file as far as it goes.

    Raises:
        AudioError: Nothing usable; its `reason` says which case.
        MissingExtra: The container needs PyAV, which is not installed.
    """
    found = probe(path)
    rows = [
        np.concatenate(list(AudioStream(path, found.sample_rate, channel=channel)))
        for channel in range(found.channels)
    ]
    return np.stack(rows), found.sample_rate


def stream_audio(
    path: Path, sample_rate: int, block_s: float = 30.0, *, minimum_s: float = MINIMUM_S
) -> AudioStream:
    """Decode a file of any length in blocks, in bounded memory.

    The blocks laid end to end equal the waveform of `decode_audio`, sample for sample.

    Args:
        path: The file.
        sample_rate: Wanted, in Hz.
        block_s: Seconds of each block but the last, which is shorter.
        minimum_s: Anything shorter is an error.

    Returns:
        An iterable of blocks that is read once. Opening, decoding and their errors (as in
        `decode_audio`) come while it is read; `NONFINITE` may come after good blocks.
    """
    return AudioStream(path, sample_rate, block_s=block_s, minimum_s=minimum_s)


class AudioStream:
    """The blocks of one recording, and after the last of them what became of it.

    Args:
        path: The file.
        sample_rate: Wanted, in Hz.
        region: The part to read.
        block_s: Seconds a block.
        minimum_s: Anything shorter is an error.
        channel: The channel to read, counted from 0; None mixes all by their mean.

    Attributes:
        header_s: Length of the whole file by its header; None where it states none.
        decoded_s: Seconds decoded so far, counted in the file's own samples.
        status: `ok` or `partial`; final when the blocks are used up.
        note: Why it is partial, naming both lengths.
    """

    def __init__(
        self,
        path: Path,
        sample_rate: int,
        region: Region | None = None,
        *,
        block_s: float = 30.0,
        minimum_s: float = MINIMUM_S,
        channel: int | None = None,
    ) -> None:
        self.header_s: float | None = None
        self.decoded_s = 0.0
        self.status: Status = "ok"
        self.note: str | None = None
        self._path, self._sample_rate = path, sample_rate
        self._region = region or Region()
        self._block = max(1, round(block_s * sample_rate))
        self._minimum_s = minimum_s
        self._channel = channel

    def __iter__(self) -> Iterator[Signal]:
        """Yield blocks of one channel at the wanted rate."""
        with _opened(self._path) as (reader, header):
            self.header_s = reader.header_s
            pending: list[Signal] = []
            size = 0
            for part in self._resampled(reader):
                pending.append(part)
                size += len(part)
                while size >= self._block:
                    whole = pending[0] if len(pending) == 1 else np.concatenate(pending)
                    yield whole[: self._block]
                    pending, size = [whole[self._block :]], size - self._block
            self._judge(reader, header)
            if size:
                yield pending[0] if len(pending) == 1 else np.concatenate(pending)

    def _resampled(self, reader: Reader) -> Iterator[Signal]:
        resampler = None
        if reader.sample_rate != self._sample_rate:
            resampler = soxr.ResampleStream(
                reader.sample_rate, self._sample_rate, 1, dtype="float32"
            )
        frames = 0
        for block in reader.blocks(self._region):
            mono = self._mixed(block, frames, reader.sample_rate)
            frames += len(mono)
            self.decoded_s = frames / reader.sample_rate
            yield mono if resampler is None else resampler.resample_chunk(mono)
        if resampler is not None:
            yield resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)

    def _mixed(self, block: Block, frames: int, rate: int) -> Signal:
        with np.errstate(over="ignore", invalid="ignore"):
            mixed = self._channel is None and block.shape[1] > 1
            mono: Signal = block.mean(axis=1) if mixed else block[:, self._channel or 0]
        finite = np.isfinite(mono)
        if not finite.all():
            at = self._region.offset_s + (frames + int(np.argmin(finite))) / rate
            raise AudioError(
                "NONFINITE",
                f"{self._path.name!r} holds samples that are not finite, the first at {at:.3f} s.",
            )
        return mono

    def _judge(self, reader: Reader, header: Header) -> None:
        """Set status and note, or raise where there is too little to use."""
        region, name = self._region, repr(self._path.name)
        expected, tolerance = region.duration_s, _REGION_TOLERANCE_S
        said = "the header states no length" if expected is None else f"{expected:.2f} s asked for"
        if expected is None and reader.header_s is not None:
            expected, tolerance = reader.header_s - region.offset_s, reader.tolerance_s
            rest = f" from {region.offset_s:g} s on" if region.offset_s else ""
            said = f"the header says {expected:.2f} s{rest}"
        if self.decoded_s == 0.0:
            where = f" from {region.offset_s:g} s on" if region.offset_s else ""
            raise AudioError("EMPTY", f"{name} holds no samples{where} ({said}).")
        if self.decoded_s < self._minimum_s:
            raise AudioError(
                "TOO_SHORT",
                f"{name} lasts {self.decoded_s:.4f} s; at least {self._minimum_s:g} s are needed.",
            )
        cause = reader.fault or (header.cut if region.duration_s is None else None)
        missing = expected is not None and expected - self.decoded_s > tolerance
        if missing or cause:
            self.status = "partial"
            self.note = f"{said}, {self.decoded_s:.2f} s decoded" + (f": {cause}" if cause else "")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Reader, Header]]:
    """Open a file for decoding; what is no usable regular file raises `AudioError`."""
    name = path.name
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise AudioError("UNREADABLE", f"{name!r} is {kind}; an audio file is needed.")
        descriptor = os.open(path, os.O_RDONLY)
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) else str(error)
        raise AudioError("UNREADABLE", f"{name!r} cannot be opened: {found}.") from error
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            raise AudioError("EMPTY", f"{name!r} has no bytes.")
        header = read_header(descriptor, size)
        reader = open_reader(path, descriptor, size, header)
        try:
            low, high = _RATES_HZ
            if not low <= reader.sample_rate <= high:
                raise AudioError(
                    "UNREADABLE",
                    f"{name!r} claims {reader.sample_rate} Hz; {low} to {high} Hz are possible.",
                )
            yield reader, header
        finally:
            reader.close()
    finally:
        os.close(descriptor)

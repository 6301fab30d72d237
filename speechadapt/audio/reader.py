"""Native sound of a file, block by block: libsndfile, or FFmpeg (PyAV) for what that cannot read.

A reader yields what can be decoded and remembers why it stopped; judging that is left to
`speechadapt.audio.io`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import soundfile
from jaxtyping import Float32

from speechadapt.audio.header import Header
from speechadapt.core.errors import AudioError, MissingExtra

Block: TypeAlias = Float32[np.ndarray, "frames channels"]

_BLOCK_VALUES = 1 << 20
_UNKNOWN_FRAMES = 1 << 40
_END_OF_FLAC = 39
_UNREAD_BYTES = 4096
_UNREAD_S = 0.5
_SEEK_MARGIN_S = 1.0
_NO_LENGTH = ("aac", "amr")


@dataclass(frozen=True)
class Region:
    """The part of a recording to read.

    Args:
        offset_s: Seconds to leave out at the start.
        duration_s: Seconds to read; None means up to the end.
    """

    offset_s: float = 0.0
    duration_s: float | None = None

    @property
    def is_whole(self) -> bool:
        """True where nothing is left out."""
        return self.offset_s == 0.0 and self.duration_s is None


@runtime_checkable
class Reader(Protocol):
    """Decodes one file.

    Attributes:
        container: Name of the container.
        sample_rate: Of the file, in Hz.
        channels: Of the file.
        header_s: Length in seconds as the header states it; None where it states none.
        estimate_s: Length in seconds that the decoder expects to give; None where it cannot say.
        tolerance_s: How much shorter than stated a whole file of this container may decode.
        fault: Why decoding stopped before the end; None while nothing went wrong.
    """

    container: str
    sample_rate: int
    channels: int
    header_s: float | None
    estimate_s: float | None
    tolerance_s: float
    fault: str | None

    def blocks(self, region: Region) -> Iterator[Block]:
        """Yield the sound of a region; it ends early at the first fault."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class SoundfileReader:
    """Reads what libsndfile knows: wav, flac, mp3, ogg, opus, aiff, ...

    Args:
        descriptor: An open file; it stays open and the caller closes it.
        size: Bytes of the file.
        header: What `read_header` found.

    Raises:
        soundfile.LibsndfileError: libsndfile does not recognise the file.
    """

    def __init__(self, descriptor: int, size: int, header: Header) -> None:
        self._descriptor, self._size, self._header = descriptor, size, header
        self._file = self._open()
        self.container = header.container or self._file.format.lower()
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.tolerance_s = 0.1 if self.container == "mp3" else 0.05
        self.fault: str | None = None
        bounded = self._file.frames < _UNKNOWN_FRAMES and not header.prefix
        self.estimate_s = self._file.frames / self.sample_rate if bounded else None
        self.header_s: float | None = None
        if self.estimate_s is not None and header.states_length:
            self.header_s = self.estimate_s * max(1.0, header.claimed)

    def blocks(self, region: Region) -> Iterator[Block]:
        """Yield the sound of a region; it ends early at the first fault."""
        skip = round(region.offset_s * self.sample_rate)
        left = _UNKNOWN_FRAMES
        if region.duration_s is not None:
            left = round(region.duration_s * self.sample_rate)
        skip -= self._seek(skip)
        decoded = 0
        while left > 0:
            wanted = self._readable(left + skip)
            block = self._read(wanted)
            last = len(block) < wanted or not wanted
            passed, skip = min(skip, len(block)), max(0, skip - len(block))
            block = block[passed:]
            left -= len(block)
            decoded += len(block)
            if len(block):
                yield block
            if self.fault is not None:
                return
            if last:
                break
        if region.is_whole:
            self._look_behind(decoded)

    def close(self) -> None:
        """Release libsndfile's handle."""
        self._file.close()

    def _open(self) -> soundfile.SoundFile:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        if self._header.patch or self._header.prefix:
            return soundfile.SoundFile(_MendedFile(self._descriptor, self._size, self._header))
        return soundfile.SoundFile(self._descriptor, closefd=False)

    def _seek(self, frame: int) -> int:
        """Move to a frame and return where the file now stands: there, or at its start."""
        if frame == 0:
            return 0
        try:
            self._file.seek(min(frame, self._file.frames))
        except soundfile.LibsndfileError:
            self._file.close()
            self._file = self._open()
            return 0
        return frame

    def _readable(self, wanted: int) -> int:
        """Limit a read to one block and to the frames libsndfile still promises."""
        frames = min(wanted, max(1024, _BLOCK_VALUES // self.channels))
        if self._file.frames < _UNKNOWN_FRAMES:
            frames = min(frames, self._file.frames - self._file.tell())
        return int(frames)

    def _read(self, frames: int) -> Block:
        """Read up to `frames`, fewer only at the end; after an error, what came before it.

        libsndfile does not say how much it wrote before an error, so the buffer is filled with NaN,
        which no codec that can fail midway produces.
        """
        buffer = np.full((frames, self.channels), np.nan, dtype=np.float32)
        try:
            block: Block = self._file.read(frames, dtype="float32", always_2d=True, out=buffer)
        except soundfile.LibsndfileError as error:
            written = np.flatnonzero(~np.isnan(buffer[:, 0]))
            block = buffer[: int(written[-1]) + 1 if len(written) else 0]
            if self._header.states_length or error.code != _END_OF_FLAC:
                self.fault = f"the {self.container} decoder stops (libsndfile error {error.code})"
        return block

    def _look_behind(self, decoded: int) -> None:
        """Notice sound that libsndfile leaves unread because the header states too little."""
        seconds = decoded / self.sample_rate
        if self.container == "wav":
            if self._header.claimed < 1.0:
                held = seconds / self._header.claimed
                self.fault = f"the file holds {held:.2f} s"
            return
        if self.container == "ogg":
            stated = self._file.frames / self.sample_rate
            if stated - seconds > self.tolerance_s:
                self.fault = f"pages before the last, which ends at {stated:.2f} s, are damaged"
            return
        position = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        rest = self._size - position
        if self._header.prefix or not 0 < position < self._size - _UNREAD_BYTES:
            return
        tail = os.pread(self._descriptor, 192, max(0, self._size - 192))
        more = rest / position * seconds
        if more > _UNREAD_S and b"APETAGEX" not in tail:
            self.fault = f"about {more:.1f} s more follow"


class PyavReader:
    """Reads containers that libsndfile does not know: m4a, mp4, webm, mka, aac, ...

    Args:
        descriptor: An open file; it stays open and the caller closes it.
        name: The file's name, for messages.
        header: What `read_header` found; its container is forced on FFmpeg, which therefore
            follows no playlist and opens no other file.

    Raises:
        AudioError: `UNREADABLE` or `NO_AUDIO`.
        MissingExtra: PyAV is not installed.
    """

    def __init__(self, descriptor: int, name: str, header: Header) -> None:
        try:
            import av
        except ImportError as error:
            raise MissingExtra("av", f"reading {name!r} ({header.container})") from error
        self.container = header.container
        self.tolerance_s = 0.3
        self.fault: str | None = None
        os.lseek(descriptor, 0, os.SEEK_SET)
        self._file = os.fdopen(os.dup(descriptor), "rb")
        try:
            self._input: Any = av.open(self._file, format=header.container)
        except (av.error.FFmpegError, ValueError) as error:
            self._file.close()
            raise AudioError(
                "UNREADABLE", f"{name!r} is a damaged {self.container} file."
            ) from error
        if not self._input.streams.audio:
            self.close()
            raise AudioError("NO_AUDIO", f"{name!r} holds no audio stream.")
        self._stream: Any = self._input.streams.audio[0]
        self.sample_rate: int = self._stream.rate or 0
        self.channels: int = self._stream.channels
        self.header_s = self.estimate_s = self._stated_s()

    def blocks(self, region: Region) -> Iterator[Block]:
        """Yield the sound of a region; it ends early at the first fault."""
        skip = round(region.offset_s * self.sample_rate)
        left = _UNKNOWN_FRAMES
        if region.duration_s is not None:
            left = round(region.duration_s * self.sample_rate)
        if region.offset_s > _SEEK_MARGIN_S:
            self._input.seek(int((region.offset_s - _SEEK_MARGIN_S) * 1_000_000))
        for start, block in self._frames(counted=region.offset_s <= _SEEK_MARGIN_S):
            block = block[max(0, skip - start) :][:left]
            left -= len(block)
            if len(block):
                yield block
            if left <= 0:
                return

    def close(self) -> None:
        """Release FFmpeg's handles."""
        self._input.close()
        self._file.close()

    def _frames(self, counted: bool) -> Iterator[tuple[int, Block]]:
        """Yield decoded frames with the sample at which each starts.

        Args:
            counted: Count samples from 0; otherwise, after a seek, trust the time stamps.
        """
        import av

        resampler = av.AudioResampler(format="fltp", rate=self.sample_rate)
        origin = float((self._stream.start_time or 0) * (self._stream.time_base or 0))
        position = 0
        try:
            for packet_frame in self._input.decode(self._stream):
                if not counted and packet_frame.time is not None:
                    position = round((packet_frame.time - origin) * self.sample_rate)
                for frame in resampler.resample(packet_frame):
                    block = np.ascontiguousarray(frame.to_ndarray().T, dtype=np.float32)
                    yield position, block
                    position += len(block)
        except (av.error.FFmpegError, ValueError) as error:
            self.fault = f"the {self.container} decoder stops ({type(error).__name__})"

    def _stated_s(self) -> float | None:
        if self.container in _NO_LENGTH:
            return None
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return self._input.duration / 1_000_000 if self._input.duration else None


def open_reader(path: Path, descriptor: int, size: int, header: Header) -> Reader:
    """Choose the reader for an open file.

    Raises:
        AudioError: `UNREADABLE` or `NO_AUDIO`.
        MissingExtra: The container needs PyAV, which is not installed.
    """
    if header.foreign:
        return PyavReader(descriptor, path.name, header)
    try:
        return SoundfileReader(descriptor, size, header)
    except soundfile.LibsndfileError as error:
        if header.container == "ogg":
            return PyavReader(descriptor, path.name, header)
        found = header.container or "no audio container known here"
        raise AudioError(
            "UNREADABLE", f"{path.name!r} is not readable as audio; found {found}."
        ) from error


class _MendedFile(io.RawIOBase):
    """A file with some bytes put before it and some replaced, for libsndfile alone."""

    def __init__(self, descriptor: int, size: int, header: Header) -> None:
        self._descriptor = descriptor
        self._prefix, self._patch = header.prefix, header.patch
        self._size = len(self._prefix) + size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        shift = len(self._prefix)
        data = self._prefix[self._position : self._position + len(view)]
        if len(data) < len(view):
            start = max(0, self._position - shift)
            data += os.pread(self._descriptor, len(view) - len(data), start)
        mended = bytearray(data)
        for offset, replacement in self._patch.items():
            for index, byte in enumerate(replacement):
                at = offset + shift + index - self._position
                if 0 <= at < len(mended):
                    mended[at] = byte
        view[: len(mended)] = mended
        self._position += len(mended)
        return len(mended)

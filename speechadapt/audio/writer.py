"""Sound out: FLAC, WAV and Opus files, written portion by portion; equal samples, equal bytes."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile
from jaxtyping import Float32

from speechadapt.core.errors import ConfigError, near_misses

FORMATS = ("flac", "wav", "opus")
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_SUBTYPES = {"flac": "PCM_16", "wav": "PCM_16", "opus": "OPUS"}
_CONTAINERS = {"flac": "FLAC", "wav": "WAV", "opus": "OGG"}
_POLYNOMIAL = 0x04C11DB7
_CRC_AT, _SERIAL_AT, _HEAD = 22, 14, 27


class AudioWriter:
    """Writes one file of 16-bit samples (Opus: libsndfile's default quality).

    Args:
        path: The file; its suffix does not count.
        format: Of `FORMATS`.
        sample_rate: Hz; Opus knows `OPUS_RATES` alone.
        channels: How many.

    Raises:
        ConfigError: The format is none, or does not know the rate.
    """

    def __init__(self, path: Path, format: str, sample_rate: int, channels: int) -> None:
        if format not in FORMATS:
            raise ConfigError(f"no audio format is named '{format}'.{near_misses(format, FORMATS)}")
        if format == "opus" and sample_rate not in OPUS_RATES:
            raise ConfigError(f"Opus was asked for at {sample_rate} Hz; it knows {OPUS_RATES}.")
        self._path, self._format = path, format
        self._file = soundfile.SoundFile(
            os.fspath(path),
            "w",
            sample_rate,
            channels,
            _SUBTYPES[format],
            format=_CONTAINERS[format],
        )

    def write(self, waveforms: Float32[np.ndarray, "channels samples"]) -> None:
        """Append samples.

        Args:
            waveforms: The next samples of every channel; beyond full scale they are clipped.
        """
        self._file.write(waveforms.T)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
        if self._format == "opus":
            _settle_serial(self._path)

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def writable_rate(format: str, sample_rate: int) -> int:
    """Return the rate to write at: the one asked for, or the next one that a format knows.

    Args:
        format: Of `FORMATS`.
        sample_rate: Hz.
    """
    if format != "opus":
        return sample_rate
    return next((rate for rate in OPUS_RATES if rate >= sample_rate), OPUS_RATES[-1])


def _settle_serial(path: Path) -> None:
    """Give an Ogg stream the serial number 1: libsndfile draws it at random.

    Source: RFC 3533 section 6 (page header and checksum).
    """
    with path.open("r+b") as handle:
        at = 0
        while len(head := handle.read(_HEAD)) == _HEAD:
            segments = handle.read(head[-1])
            page = bytearray(head + segments + handle.read(sum(segments)))
            page[_SERIAL_AT : _SERIAL_AT + 4] = struct.pack("<I", 1)
            page[_CRC_AT : _CRC_AT + 4] = bytes(4)
            page[_CRC_AT : _CRC_AT + 4] = struct.pack("<I", _crc(page))
            handle.seek(at)
            handle.write(page)
            at += len(page)


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (_POLYNOMIAL if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


_TABLE = _table()


def _crc(page: bytearray) -> int:
    value = 0
    for byte in page:
        value = (value << 8) & 0xFFFFFFFF ^ _TABLE[(value >> 24) ^ byte]
    return value

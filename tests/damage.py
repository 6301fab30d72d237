"""The damage kit: one good clip spoiled in every way that recordings are, and what must come of it.

`DAMAGE` is the table: name, expected status and reason of a job, and of `decode_audio` alike. The
good clip stands between the bad ones, for one bad file never costs another.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

Writer = Callable[[Path, "Clip"], object]
THREE_HOURS_S = 3 * 3600.0


@dataclass(frozen=True)
class Damage:
    """One file of the kit.

    Args:
        name: Path inside the kit's folder.
        status: `ok`, `partial` or `failed`.
        reason: The reason code; None where nothing is wrong.
        flags: Flags that a job must set.
        has_speech: True where the clip's words are all there.
    """

    name: str
    status: str
    reason: str | None = None
    flags: tuple[str, ...] = ()
    has_speech: bool = False


@dataclass(frozen=True)
class Clip:
    """The good clip: mono samples at a rate in Hz."""

    samples: np.ndarray
    rate: int


def _good(name: str) -> Damage:
    return Damage(name, "ok", has_speech=True)


def _partial(name: str) -> Damage:
    return Damage(name, "partial", "PARTIAL")


def _failed(name: str, reason: str) -> Damage:
    return Damage(name, "failed", reason)


DAMAGE: tuple[Damage, ...] = (
    _good("good.flac"),
    _failed("empty.wav", "EMPTY"),
    _failed("no_samples.wav", "EMPTY"),
    _failed("text.wav", "UNREADABLE"),
    _failed("noise_bytes.mp3", "UNREADABLE"),
    _failed("no_permission.wav", "UNREADABLE"),
    _failed("folder.wav", "UNREADABLE"),
    _good("folder.wav/inside.flac"),
    _failed("video_only.mp4", "NO_AUDIO"),
    _failed("nan.wav", "NONFINITE"),
    _failed("infinity.wav", "NONFINITE"),
    _failed("short.wav", "TOO_SHORT"),
    _partial("truncated.wav"),
    _partial("truncated.flac"),
    _partial("truncated.mp3"),
    _partial("truncated.ogg"),
    _partial("truncated.opus"),
    _partial("header_too_long.wav"),
    _partial("header_too_short.wav"),
    _partial("header_too_long.flac"),
    _partial("header_too_short.flac"),
    _partial("header_too_long.mp3"),
    _partial("hole.flac"),
    _good("header_zero.wav"),
    _good("header_streaming.wav"),
    _good("header_unknown.flac"),
    _good("no_frame_count.mp3"),
    _good("eight_channels.wav"),
    _good("rate_8000.wav"),
    _good("rate_11025.wav"),
    _good("rate_44100.wav"),
    _good("rate_48000.wav"),
    _good("rate_96000.wav"),
    _good("pcm_24.wav"),
    _good("float_64.wav"),
    _good("pcm_u8.wav"),
    _good("compressed.mp3"),
    _good("compressed.ogg"),
    _good("compressed.opus"),
    _good("sp\u0101ce \u8a9e\u97f3 \U0001f399.wav"),
    _good("line\nbreak.wav"),
    _good(os.fsdecode(b"undecodable-\xff.wav")),
    Damage("silence.flac", "ok", flags=("no_speech",)),
)


def write_damage_kit(
    clip: Path, folder: Path, *, silence_s: float = THREE_HOURS_S
) -> tuple[Damage, ...]:
    """Write the kit.

    Args:
        clip: A good clip, a second or longer, mono.
        folder: Where to write; made if it is not there.
        silence_s: Length of `silence.flac`.

    Returns:
        The table's rows that this machine can show: without PyAV there is no `video_only.mp4`, some
        file systems refuse undecodable names, and where permission bits do not stop reading (for
        the superuser) `no_permission.wav` is a good file.
    """
    samples, rate = soundfile.read(clip, dtype="float32")
    good = Clip(samples, rate)
    folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for row in DAMAGE:
        path = folder / row.name
        try:
            if row.name == "silence.flac":
                write_silence(path, rate, silence_s)
            else:
                _WRITERS.get(row.name, _write_good)(path, good)
        except (ImportError, OSError) as error:
            if row.name == "video_only.mp4" or "undecodable" in row.name:
                continue
            raise RuntimeError(f"{row.name!r} cannot be written: {error}") from error
        readable = row.name == "no_permission.wav" and os.access(path, os.R_OK)
        shown.append(_good(row.name) if readable else row)
    return tuple(shown)


def cut_in_half(path: Path) -> None:
    """Drop the second half of a file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def patch(path: Path, offset: int, data: bytes) -> None:
    """Overwrite bytes of a file."""
    with path.open("r+b") as handle:
        handle.seek(offset)
        handle.write(data)


def set_wave_length(path: Path, length: int) -> None:
    """Make a WAV's data chunk claim another length in bytes."""
    patch(path, path.read_bytes().index(b"data") + 4, struct.pack("<I", length))


def set_flac_length(path: Path, samples: int) -> None:
    """Make a FLAC's STREAMINFO claim another number of samples; 0 means unknown."""
    kept = path.read_bytes()[21] & 0xF0
    patch(path, 21, bytes((kept | samples >> 32,)) + struct.pack(">I", samples & 0xFFFFFFFF))


def write_without_frame_count(path: Path, clip: Clip) -> None:
    """Write an MP3 of variable bit rate without its Xing frame."""
    soundfile.write(path, clip.samples, clip.rate, bitrate_mode="VARIABLE")
    data = path.read_bytes()
    mark = data[:2]
    path.write_bytes(data[data.index(mark, 4) :])


def write_silence(path: Path, rate: int, seconds: float) -> None:
    """Write a FLAC of digital silence frame by frame, a thousand times faster than by encoding."""
    block, total = 32768, round(seconds * rate)
    sizes = [block] * (total // block) + ([total % block] if total % block else [])
    info = struct.pack(">HH", block, block) + bytes(6)
    info += struct.pack(">Q", rate << 44 | 15 << 36 | total) + bytes(16)
    frames = bytearray(b"fLaC" + b"\x80" + struct.pack(">I", len(info))[1:] + info)
    for number, size in enumerate(sizes):
        # Fixed block size, its length in 16 bits, rate of STREAMINFO, one channel of 16 bits.
        head = b"\xff\xf8\x70\x08" + _utf8(number) + struct.pack(">H", size - 1)
        frame = head + bytes((_crc(head, 8, 0x07),)) + b"\0\0\0"
        frames += frame + struct.pack(">H", _crc(frame, 16, 0x8005))
    path.write_bytes(frames)


def _write_good(path: Path, clip: Clip) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".opus":
        soundfile.write(path, clip.samples, clip.rate, format="OGG", subtype="OPUS")
        return
    # libsndfile wants a name it can encode; the bytes are the same.
    plain = path.with_name(f"plain{path.suffix}")
    soundfile.write(plain, clip.samples, clip.rate)
    plain.rename(path)


def _write_resampled(path: Path, clip: Clip) -> None:
    import soxr

    rate = int(path.stem.removeprefix("rate_"))
    soundfile.write(path, soxr.resample(clip.samples, clip.rate, rate), rate)


def _write_subtype(subtype: str) -> Writer:
    return lambda path, clip: soundfile.write(path, clip.samples, clip.rate, subtype=subtype)


def _write_spoiled(value: float) -> Writer:
    def write(path: Path, clip: Clip) -> None:
        samples = clip.samples.copy()
        samples[len(samples) // 2] = value
        soundfile.write(path, samples, clip.rate, subtype="FLOAT")

    return write


def _then(change: Callable[[Path], None], write: Writer = _write_good) -> Writer:
    def both(path: Path, clip: Clip) -> None:
        write(path, clip)
        change(path)

    return both


def _overstate_mp3(path: Path) -> None:
    data = path.read_bytes()
    tag = max(data.find(b"Xing"), data.find(b"Info"))
    frames = struct.unpack(">I", data[tag + 8 : tag + 12])[0]
    patch(path, tag + 8, struct.pack(">I", 10 * frames))


def _write_hole(path: Path) -> None:
    noise = np.random.default_rng(0).bytes(400)
    patch(path, path.stat().st_size // 2, noise)


def _scale_wave(factor: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = path.read_bytes()
        start = data.index(b"data") + 8
        set_wave_length(path, int((len(data) - start) * factor) // 2 * 2)

    return change


def _scale_flac(factor: float) -> Callable[[Path], None]:
    return lambda path: set_flac_length(path, int(soundfile.info(path).frames * factor))


def _write_video(path: Path, clip: Clip) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for shade in range(0, 250, 50):
            picture = np.full((64, 64, 3), shade, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _utf8(number: int) -> bytes:
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    value, top, mask = 0, 1 << (bits - 1), (1 << bits) - 1
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
    return value


def _write_eight(path: Path, clip: Clip) -> None:
    soundfile.write(path, np.tile(clip.samples[:, None], (1, 8)), clip.rate)


_WRITERS: dict[str, Writer] = {
    "empty.wav": lambda path, clip: path.touch(),
    "no_samples.wav": lambda path, clip: soundfile.write(path, clip.samples[:0], clip.rate),
    "text.wav": lambda path, clip: path.write_text("these are words, not sound\n" * 40),
    "noise_bytes.mp3": lambda path, clip: path.write_bytes(bytes(range(100, 200)) * 40),
    "no_permission.wav": _then(lambda path: path.chmod(0)),
    "folder.wav": lambda path, clip: path.mkdir(exist_ok=True),
    "video_only.mp4": _write_video,
    "nan.wav": _write_spoiled(float("nan")),
    "infinity.wav": _write_spoiled(float("inf")),
    "short.wav": lambda path, clip: soundfile.write(
        path, clip.samples[: clip.rate // 100], clip.rate
    ),
    "truncated.wav": _then(cut_in_half),
    "truncated.flac": _then(cut_in_half),
    "truncated.mp3": _then(cut_in_half),
    "truncated.ogg": _then(cut_in_half),
    "truncated.opus": _then(cut_in_half),
    "header_too_long.wav": _then(_scale_wave(10)),
    "header_too_short.wav": _then(_scale_wave(0.4)),
    "header_too_long.flac": _then(_scale_flac(10)),
    "header_too_short.flac": _then(_scale_flac(0.2)),
    "header_too_long.mp3": _then(_overstate_mp3),
    "hole.flac": _then(_write_hole),
    "header_zero.wav": _then(lambda path: set_wave_length(path, 0)),
    "header_streaming.wav": _then(lambda path: set_wave_length(path, 0xFFFFFFFF)),
    "header_unknown.flac": _then(lambda path: set_flac_length(path, 0)),
    "no_frame_count.mp3": write_without_frame_count,
    "eight_channels.wav": _write_eight,
    "rate_8000.wav": _write_resampled,
    "rate_11025.wav": _write_resampled,
    "rate_44100.wav": _write_resampled,
    "rate_48000.wav": _write_resampled,
    "rate_96000.wav": _write_resampled,
    "pcm_24.wav": _write_subtype("PCM_24"),
    "float_64.wav": _write_subtype("DOUBLE"),
    "pcm_u8.wav": _write_subtype("PCM_U8"),
}

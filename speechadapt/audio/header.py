"""What the first bytes of a file say: its container, and where they contradict the rest of it.

Decoders believe or mend headers in silence. A WAV cut in half opens without an error, a WAV that
was never closed reads as empty, and an MP3 without a frame count is cut off at an estimate. The
checks here find those cases from a few kilobytes, without decoding.

Source: RIFF/WAVE and RF64 (EBU Tech 3306), Ogg pages (RFC 3533), MPEG audio frame headers
(ISO 11172-3) with the Xing tag.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

_HEAD_BYTES = 4096
_TAIL_BYTES = 65536
_UNKNOWN_32 = 0xFFFFFFFF
_MAX_CHUNKS = 1000
_MPEG1_LAYER3_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_LAYER3_KBPS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG1_RATES_HZ = (44100, 48000, 32000)

# Containers that libsndfile does not read, by (offset, magic bytes) and FFmpeg's name for them.
_FOREIGN = (
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"FLV\x01", "flv"),
    (0, b"#!AMR", "amr"),
)


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Args:
        container: `wav`, `flac`, `mp3`, `ogg`, FFmpeg's name of a foreign one (`mov`, `matroska`,
            `aac`, ...) or empty where the first bytes are none of these.
        foreign: True where libsndfile does not read the container.
        claimed: Length the header states over the length the file holds; 1 where they agree.
        states_length: False where the header leaves the length open.
        cut: What shows that the end is missing, for a person; None where nothing does.
        patch: Bytes to read in place of the file's own, by offset, so that all of it is decoded.
        prefix: Bytes to read before the file's own, for the same purpose.
    """

    container: str
    foreign: bool = False
    claimed: float = 1.0
    states_length: bool = True
    cut: str | None = None
    patch: Mapping[int, bytes] = field(default_factory=dict)
    prefix: bytes = b""


def read_header(descriptor: int, size: int) -> Header:
    """Inspect an open file without moving its read position.

    Args:
        descriptor: An open, seekable file.
        size: Its bytes.

    Returns:
        The header; the container is empty where no audio or video container is recognised.
    """
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _read_wave(descriptor, head, size)
    if head[:4] == b"fLaC":
        return Header("flac", states_length=_flac_total(head) != 0)
    if head[:4] == b"OggS":
        return _read_ogg(descriptor, size)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return Header("avi", foreign=True)
    for offset, magic, name in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            return Header(name, foreign=True)
    return _read_mp3(descriptor, head)


def _read_wave(descriptor: int, head: bytes, size: int) -> Header:
    """Walk the chunks to `data` and compare its size with the bytes that follow."""
    order = ">" if head[:4] == b"RIFX" else "<"
    position, long_size = 12, None
    for _ in range(_MAX_CHUNKS):
        chunk = os.pread(descriptor, 24, position)
        if len(chunk) < 8:
            break
        name, length = chunk[:4], struct.unpack(order + "I", chunk[4:8])[0]
        if name == b"ds64" and len(chunk) == 24:
            long_size = struct.unpack("<Q", chunk[16:24])[0]
        if name == b"data":
            if length == _UNKNOWN_32:
                length = long_size
            return _compare_wave(descriptor, order, position + 8, length, size)
        position += 8 + length + length % 2
    return Header("wav", cut="the data chunk is missing")


def _compare_wave(descriptor: int, order: str, start: int, length: int | None, size: int) -> Header:
    held = size - start
    if length is None:
        return Header("wav", states_length=False)
    if length == 0 and held > 0 and not _is_chunk(descriptor, order, start, size):
        # A recorder that was stopped before it wrote the length: the sound is there.
        patch = {start - 4: struct.pack(order + "I", min(held, _UNKNOWN_32))}
        return Header("wav", states_length=False, patch=patch)
    rest = start + length + length % 2
    if 0 < length < held - 1 and not _is_chunk(descriptor, order, rest, size):
        return Header("wav", claimed=length / held)
    return Header("wav", claimed=length / held if length > held > 0 else 1.0)


def _is_chunk(descriptor: int, order: str, position: int, size: int) -> bool:
    """Say whether a chunk, a tag or zero filling begins at `position`."""
    data = os.pread(descriptor, 8, position)
    if len(data) < 8 or not any(data) or data[:3] in (b"TAG", b"ID3"):
        return True
    printable = all(32 <= byte < 127 for byte in data[:4])
    length = struct.unpack(order + "I", data[4:8])[0]
    return printable and position + 8 + int(length) <= size + 1


def _flac_total(head: bytes) -> int:
    """Return the total samples of STREAMINFO (36 bits at byte 21); 0 means unknown."""
    if len(head) < 26:
        return 0
    return ((head[21] & 0x0F) << 32) | int(struct.unpack(">I", head[22:26])[0])


def _read_ogg(descriptor: int, size: int) -> Header:
    """Look for the end-of-stream flag of the last page; a header states no length."""
    tail = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    page = tail.rfind(b"OggS")
    closed = False
    if page >= 0 and len(tail) >= page + 27:
        segments = tail[page + 26]
        table = tail[page + 27 : page + 27 + segments]
        whole = len(table) == segments and len(tail) >= page + 27 + segments + sum(table)
        closed = bool(tail[page + 5] & 4) and whole
    return Header("ogg", states_length=False, cut=None if closed else "no end-of-stream page")


def _read_mp3(descriptor: int, head: bytes) -> Header:
    """Find the first frame and its Xing, Info or VBRI tag; make up for a missing one."""
    start = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        parts = head[6:10]
        start = 10 + (parts[0] << 21 | parts[1] << 14 | parts[2] << 7 | parts[3])
    frame = os.pread(descriptor, 256, start)
    if not _is_layer3(frame):
        return Header("mp3" if start else "")
    if any(tag in frame[:64] for tag in (b"Xing", b"Info", b"VBRI")):
        return Header("mp3")
    return Header("mp3", states_length=False, prefix=_open_ended_frame(frame))


def _is_layer3(frame: bytes) -> bool:
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:
        return False
    version, rate_index = (frame[1] >> 3) & 3, (frame[2] >> 2) & 3
    return version != 1 and rate_index != 3 and 0 < frame[2] >> 4 < 15


def _open_ended_frame(frame: bytes) -> bytes:
    """Build a Xing frame that states a length no file reaches.

    Without one, libsndfile takes the first frame's bit rate for the whole file's and stops there.
    """
    version, mono = (frame[1] >> 3) & 3, frame[3] >> 6 == 3
    mpeg1 = version == 3
    index = 9 if mpeg1 else 11
    kbps = (_MPEG1_LAYER3_KBPS if mpeg1 else _MPEG2_LAYER3_KBPS)[index]
    rate = _MPEG1_RATES_HZ[(frame[2] >> 2) & 3] // {3: 1, 2: 2, 0: 4}[version]
    length = (144 if mpeg1 else 72) * kbps * 1000 // rate
    side = (17 if mono else 32) if mpeg1 else (9 if mono else 17)
    header = bytes((0xFF, frame[1] | 1, (index << 4) | (frame[2] & 0x0C), frame[3]))
    tag = b"Xing" + struct.pack(">II", 1, 0x00FFFFFF)
    return (header + bytes(side) + tag).ljust(length, b"\0")

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.audio.header import Header, read_header
from tests.damage import cut_in_half, set_flac_length, set_wave_length

RATE = 16000
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write two seconds of noise under a name."""

    def make(name: str, **options: str) -> Path:
        noise = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)
        soundfile.write(tmp_path / name, noise, RATE, **options)
        return tmp_path / name

    return make


def header_of(path: Path) -> Header:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        header = read_header(descriptor, path.stat().st_size)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0, "the read position moved"
    finally:
        os.close(descriptor)
    return header


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
def test_whole_files_state_their_length_and_need_no_mending(write: Write, name: str) -> None:
    header = header_of(write(name))
    assert header == Header(name[2:])


def test_ogg_states_no_length_and_ends_with_its_flag(write: Write) -> None:
    assert header_of(write("a.ogg")) == Header("ogg", states_length=False)


@pytest.mark.parametrize("options", [{}, {"subtype": "OPUS", "format": "OGG"}])
def test_cut_ogg_lacks_its_last_page(write: Write, options: dict[str, str]) -> None:
    path = write("a.ogg", **options)
    cut_in_half(path)
    assert header_of(path).cut == "no end-of-stream page"


def test_wave_that_claims_more_than_it_holds_is_told_by_the_ratio(write: Write) -> None:
    path = write("a.wav")
    set_wave_length(path, 8 * RATE)
    assert header_of(path).claimed == pytest.approx(2.0)


def test_wave_that_claims_less_than_it_holds_is_told_by_the_ratio(write: Write) -> None:
    path = write("a.wav")
    set_wave_length(path, RATE)
    assert header_of(path).claimed == pytest.approx(0.25)


def test_wave_with_another_chunk_after_its_data_is_whole(write: Write) -> None:
    path = write("a.wav")
    with path.open("ab") as handle:
        handle.write(b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + bytes(18))
    assert header_of(path) == Header("wav")


def test_wave_that_was_never_closed_is_mended_to_what_it_holds(write: Write) -> None:
    path = write("a.wav")
    set_wave_length(path, 0)
    header = header_of(path)
    assert not header.states_length
    assert list(header.patch.values()) == [struct.pack("<I", 4 * RATE)]


def test_streamed_wave_states_no_length(write: Write) -> None:
    path = write("a.wav")
    set_wave_length(path, 0xFFFFFFFF)
    assert header_of(path) == Header("wav", states_length=False)


def test_long_wave_takes_its_length_from_the_64_bit_chunk(write: Write) -> None:
    header = header_of(write("a.wav", format="RF64"))
    assert header == Header("wav")


def test_flac_without_a_sample_count_states_no_length(write: Write) -> None:
    path = write("a.flac")
    set_flac_length(path, 0)
    assert header_of(path) == Header("flac", states_length=False)


def test_mp3_without_a_frame_count_gets_one_that_no_file_reaches(write: Write) -> None:
    path = write("a.mp3")
    data = path.read_bytes()
    path.write_bytes(data[data.index(data[:2], 4) :])
    header = header_of(path)
    assert header.container == "mp3"
    assert not header.states_length
    assert b"Xing" in header.prefix


@pytest.mark.parametrize(
    ("magic", "container"),
    [
        (b"\x00\x00\x00\x20ftypM4A ", "mov"),
        (b"\x1a\x45\xdf\xa3", "matroska"),
        (b"\xff\xf1\x50\x80", "aac"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "avi"),
    ],
)
def test_foreign_containers_are_known_by_their_first_bytes(
    tmp_path: Path, magic: bytes, container: str
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(magic + bytes(64))
    header = header_of(path)
    assert (header.container, header.foreign) == (container, True)


@pytest.mark.parametrize(
    "content", [b"x", b"#EXTM3U\nother.ts\n", b"RIFF", b"OggS", b"fLaC", b"ID3"]
)
def test_scraps_and_playlists_are_no_foreign_container(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.m4a"
    path.write_bytes(content)
    assert not header_of(path).foreign

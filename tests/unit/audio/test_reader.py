from __future__ import annotations

import builtins
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechadapt.audio.header import Header, read_header
from speechadapt.audio.reader import PyavReader, Reader, Region, SoundfileReader, open_reader
from speechadapt.core.errors import AudioError, MissingExtra
from tests.damage import cut_in_half, set_flac_length

RATE = 16000
WHOLE = Region()


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = path.stat().st_size
        reader = open_reader(path, descriptor, size, read_header(descriptor, size))
        yield reader
        reader.close()
    finally:
        os.close(descriptor)


def read(path: Path, region: Region = WHOLE) -> np.ndarray:
    with opened(path) as reader:
        return np.concatenate([np.zeros((0, reader.channels), np.float32), *reader.blocks(region)])


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    smooth = np.convolve(np.random.default_rng(0).standard_normal(3 * RATE), np.ones(8) / 8, "same")
    return (0.3 * smooth).astype(np.float32)


def write_av(path: Path, noise: np.ndarray, codec: str, container: str) -> Path:
    """Encode noise with PyAV at 48 kHz."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=48000)
        stream.layout = "mono"
        size = 1024 if codec == "aac" else 960
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=48000, frame_size=size)
        if codec == "libopus":
            resampler = av.AudioResampler(format="flt", layout="mono", rate=48000, frame_size=size)
        frame = av.AudioFrame.from_ndarray(noise[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return path


def test_blocks_laid_end_to_end_are_the_file(tmp_path: Path, noise: np.ndarray) -> None:
    stereo = np.stack([noise, -noise], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), stereo)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_a_region_equals_the_same_part_of_the_whole(
    tmp_path: Path, noise: np.ndarray, name: str
) -> None:
    soundfile.write(tmp_path / name, noise, RATE)
    whole = read(tmp_path / name)
    part = read(tmp_path / name, Region(offset_s=1.25, duration_s=0.5))
    np.testing.assert_allclose(part, whole[20000:28000], atol=1e-6)


def test_a_region_of_an_unstated_length_is_found_by_reading(
    tmp_path: Path, noise: np.ndarray
) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise, RATE)
    whole = read(path)
    set_flac_length(path, 0)
    np.testing.assert_array_equal(read(path, Region(1.25, 0.5)), whole[20000:28000])


def test_a_cut_flac_gives_every_sample_before_the_cut(tmp_path: Path, noise: np.ndarray) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise, RATE)
    whole = read(path)
    cut_in_half(path)
    with opened(path) as reader:
        blocks = list(reader.blocks(WHOLE))
        assert reader.fault is not None
        assert "flac decoder stops" in reader.fault
    part = np.concatenate(blocks)
    assert 0.8 * RATE < len(part) < 2 * RATE
    np.testing.assert_array_equal(part, whole[: len(part)])


def test_an_mp3_without_a_frame_count_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    quiet_then_loud = np.concatenate(
        [np.zeros(5 * RATE), np.random.default_rng(1).standard_normal(5 * RATE) * 0.2]
    )
    soundfile.write(path, quiet_then_loud, RATE, bitrate_mode="VARIABLE")
    data = path.read_bytes()
    path.write_bytes(data[data.index(data[:2], 4) :])
    assert len(read(path)) / RATE == pytest.approx(10.0, abs=0.15)


def test_two_mp3_files_in_one_are_called_more_than_the_header_says(
    tmp_path: Path, noise: np.ndarray
) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise, RATE)
    path.write_bytes(path.read_bytes() * 2)
    with opened(path) as reader:
        list(reader.blocks(WHOLE))
        assert reader.fault is not None
        assert "more follow" in reader.fault


def test_damaged_ogg_pages_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    long_noise = np.random.default_rng(2).standard_normal(10 * RATE) * 0.1
    soundfile.write(path, long_noise, RATE)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = np.random.default_rng(3).bytes(300)
    path.write_bytes(data)
    with opened(path) as reader:
        list(reader.blocks(WHOLE))
        assert reader.fault is not None
        assert "damaged" in reader.fault


@pytest.mark.parametrize(
    ("codec", "container", "name"),
    [("aac", "mp4", "a.m4a"), ("aac", "adts", "a.aac"), ("libopus", "webm", "a.webm")],
)
def test_foreign_containers_are_read_at_their_length(
    tmp_path: Path, noise: np.ndarray, codec: str, container: str, name: str
) -> None:
    path = write_av(tmp_path / name, noise, codec, container)
    with opened(path) as reader:
        assert isinstance(reader, PyavReader)
        length = sum(map(len, reader.blocks(WHOLE))) / reader.sample_rate
        assert reader.fault is None
    assert length == pytest.approx(3.0, abs=0.06)


def test_a_region_of_a_foreign_container_is_the_same_sound(
    tmp_path: Path, noise: np.ndarray
) -> None:
    path = write_av(tmp_path / "a.m4a", noise, "aac", "mp4")
    whole = read(path)[:, 0]
    part = read(path, Region(1.5, 0.5))[:, 0]
    assert len(part) == 24000
    expected = whole[72000:96000]
    assert np.corrcoef(part, expected)[0, 1] > 0.99


def test_a_cut_foreign_file_says_why_it_stops(tmp_path: Path, noise: np.ndarray) -> None:
    path = write_av(tmp_path / "a.aac", noise, "aac", "adts")
    cut_in_half(path)
    with opened(path) as reader:
        length = sum(map(len, reader.blocks(WHOLE))) / reader.sample_rate
        assert reader.fault is not None
    assert 1.0 < length < 2.0


def test_a_foreign_file_cut_before_its_index_is_unreadable(
    tmp_path: Path, noise: np.ndarray
) -> None:
    path = write_av(tmp_path / "a.m4a", noise, "aac", "mp4")
    cut_in_half(path)
    with pytest.raises(AudioError, match="is a damaged mov file") as caught, opened(path):
        pass
    assert caught.value.reason == "UNREADABLE"


def test_without_pyav_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    path = tmp_path / "a.m4a"
    path.write_bytes(b"\x00\x00\x00\x20ftypM4A " + bytes(64))
    with pytest.raises(MissingExtra, match=r"reading 'a.m4a'.*speechadapt\[av\]"), opened(path):
        pass


def test_libsndfile_reads_mended_bytes_as_if_they_were_the_files(
    tmp_path: Path, noise: np.ndarray
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE, subtype="FLOAT")
    content = path.read_bytes()
    spoiled = b"XXXX" + content[4:]
    path.write_bytes(spoiled[10:])
    descriptor = os.open(path, os.O_RDONLY)
    # Ten bytes are missing at the start and are given back, two patches inside them and after.
    header = Header("wav", prefix=content[:10], patch={0: content[10:12]})
    reader = SoundfileReader(descriptor, len(content) - 10, header)
    blocks = np.concatenate(list(reader.blocks(WHOLE)))
    reader.close()
    os.close(descriptor)
    np.testing.assert_array_equal(blocks[:, 0], noise)

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from speechadapt.audio.io import MINIMUM_S, AudioStream, decode_audio, probe, stream_audio
from speechadapt.audio.reader import Region
from speechadapt.core.errors import AudioError
from tests.damage import Damage, cut_in_half, set_wave_length, write_damage_kit, write_silence

RATE = 16000
SILENCE_S = 90.0


@pytest.fixture(scope="module")
def clip(demo_clips: Path) -> Path:
    return demo_clips / "connected-en11.flac"


@pytest.fixture(scope="module")
def kit(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Damage, ...]]:
    folder = tmp_path_factory.mktemp("kit")
    return folder, write_damage_kit(clip, folder, silence_s=SILENCE_S)


def outcome(path: Path) -> tuple[str, str | None]:
    try:
        decoded = decode_audio(path, RATE)
    except AudioError as error:
        return "failed", error.reason
    return decoded.status, "PARTIAL" if decoded.status == "partial" else None


def test_every_file_of_the_damage_kit_has_the_outcome_of_the_table(
    kit: tuple[Path, tuple[Damage, ...]],
) -> None:
    folder, rows = kit
    assert len(rows) >= 40
    found = {row.name: outcome(folder / row.name) for row in rows}
    assert found == {row.name: (row.status, row.reason) for row in rows}


def test_files_of_the_kit_with_all_their_speech_sound_like_the_clip(
    kit: tuple[Path, tuple[Damage, ...]], clip: Path
) -> None:
    folder, rows = kit
    good = decode_audio(clip, RATE).waveform
    for row in rows:
        if row.has_speech:
            waveform = decode_audio(folder / row.name, RATE).waveform
            assert abs(len(waveform) - len(good)) < 0.1 * RATE, row.name
            assert likeness(good, waveform) > 0.9, row.name


def test_a_partial_note_names_both_lengths(kit: tuple[Path, tuple[Damage, ...]]) -> None:
    decoded = decode_audio(kit[0] / "truncated.wav", RATE)
    assert decoded.header_s == pytest.approx(3.034, abs=0.01)
    assert decoded.decoded_s == pytest.approx(1.517, abs=0.01)
    assert decoded.note == "the header says 3.03 s, 1.52 s decoded"


def test_messages_name_the_file_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "line\nbreak.wav"
    path.touch()
    with pytest.raises(AudioError, match=r"^'line\\nbreak\.wav' has no bytes\.$"):
        decode_audio(path, RATE)


@pytest.mark.parametrize("source", [8000, 11025, 44100, 96000])
def test_resampling_equals_soxr_on_the_whole(tmp_path: Path, source: int) -> None:
    noise = (0.1 * np.random.default_rng(0).standard_normal(3 * source)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, source, subtype="FLOAT")
    decoded = decode_audio(tmp_path / "a.wav", RATE)
    np.testing.assert_array_equal(decoded.waveform, soxr.resample(noise, source, RATE))


def test_channels_are_mixed_by_their_mean(tmp_path: Path) -> None:
    channels = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 3)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", channels, RATE, subtype="FLOAT")
    decoded = decode_audio(tmp_path / "a.wav", RATE)
    np.testing.assert_allclose(decoded.waveform, channels.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("block_s", [0.3, 1.0, 100.0])
def test_blocks_of_a_stream_are_the_waveform(tmp_path: Path, block_s: float) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(5 * 44100 + 77)
    soundfile.write(tmp_path / "a.flac", noise, 44100)
    blocks = list(stream_audio(tmp_path / "a.flac", RATE, block_s))
    assert {len(block) for block in blocks[:-1]} <= {round(block_s * RATE)}
    whole = decode_audio(tmp_path / "a.flac", RATE).waveform
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_a_stream_tells_its_status_when_it_is_used_up(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(clip.read_bytes())
    cut_in_half(path)
    stream = stream_audio(path, RATE, 0.5)
    seconds = sum(map(len, stream)) / RATE
    assert stream.status == "partial"
    assert stream.note is not None
    assert stream.decoded_s == pytest.approx(seconds, abs=0.001)


def test_streaming_a_long_recording_keeps_memory_flat(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    write_silence(tmp_path / "long.flac", RATE, 1200.0)
    process = psutil.Process()
    stream = iter(stream_audio(tmp_path / "long.flac", RATE, 30.0))
    next(stream)
    before = process.memory_info().rss
    peak = max(process.memory_info().rss for _ in stream)
    assert peak - before < 30e6


@pytest.mark.parametrize(("offset_s", "duration_s"), [(0.0, 0.5), (1.0, None), (1.5, 0.25)])
def test_a_region_is_the_same_part_of_the_whole(
    clip: Path, offset_s: float, duration_s: float | None
) -> None:
    whole = decode_audio(clip, RATE).waveform
    part = decode_audio(clip, RATE, offset_s=offset_s, duration_s=duration_s)
    end = len(whole) if duration_s is None else round((offset_s + duration_s) * RATE)
    np.testing.assert_array_equal(part.waveform, whole[round(offset_s * RATE) : end])
    assert part.status == "ok"


def test_a_region_in_the_good_half_of_a_cut_file_is_whole(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(clip.read_bytes())
    cut_in_half(path)
    assert decode_audio(path, RATE, offset_s=0.2, duration_s=0.5).status == "ok"
    late = decode_audio(path, RATE, offset_s=0.5, duration_s=2.0)
    assert late.status == "partial"
    assert late.note is not None
    assert late.note.startswith("2.00 s asked for, 0.78 s decoded")


def test_a_region_beyond_the_end_is_empty(clip: Path) -> None:
    with pytest.raises(AudioError, match="holds no samples from 60 s on") as caught:
        decode_audio(clip, RATE, offset_s=60.0, duration_s=1.0)
    assert caught.value.reason == "EMPTY"


def test_the_shortest_clip_allowed_is_decoded(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(round(MINIMUM_S * RATE), 0.1), RATE)
    assert len(decode_audio(tmp_path / "a.wav", RATE).waveform) == 400
    with pytest.raises(AudioError, match=r"lasts 0\.0250 s; at least 0\.1 s"):
        decode_audio(tmp_path / "a.wav", RATE, minimum_s=0.1)


def test_a_sum_that_overflows_is_not_finite(tmp_path: Path) -> None:
    huge = np.full((RATE, 2), 3e38, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", huge, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"the first at 0\.000 s") as caught:
        decode_audio(tmp_path / "a.wav", RATE)
    assert caught.value.reason == "NONFINITE"


def test_an_impossible_sample_rate_is_unreadable(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 5)
    with pytest.raises(AudioError, match="claims 5 Hz"):
        probe(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["missing.wav", "nul\0byte.wav"])
def test_what_cannot_be_opened_is_unreadable(tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioError, match="cannot be opened") as caught:
        decode_audio(tmp_path / name, RATE)
    assert caught.value.reason == "UNREADABLE"


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="no regular file"):
        decode_audio(tmp_path / "pipe.wav", RATE)


def test_probe_reads_the_header_alone(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((800, 2)), 8000)
    info = probe(tmp_path / "a.wav")
    assert (info.container, info.sample_rate, info.channels) == ("wav", 8000, 2)
    assert (info.header_s, info.estimate_s, info.frames) == (0.1, 0.1, 800)


def test_probe_tells_the_claim_from_what_can_be_expected(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    set_wave_length(tmp_path / "a.wav", 160000)
    info = probe(tmp_path / "a.wav")
    assert info.header_s == pytest.approx(10.0)
    assert info.estimate_s == 1.0


def test_probe_of_an_ogg_estimates_what_the_header_leaves_open(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.ogg", np.zeros(RATE), RATE)
    info = probe(tmp_path / "a.ogg")
    assert (info.header_s, info.estimate_s) == (None, 1.0)
    assert info.frames is None


def test_no_descriptor_stays_open(kit: tuple[Path, tuple[Damage, ...]]) -> None:
    folder, rows = kit
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for row in rows:
        outcome(folder / row.name)
    stream = iter(AudioStream(folder / "good.flac", RATE, Region(), block_s=0.1))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after == before


def test_reading_audio_does_not_load_torch() -> None:
    script = "import sys, speechadapt.audio.io; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def likeness(good: np.ndarray, waveform: np.ndarray) -> float:
    """Return the best correlation of half a second over shifts of up to 0.1 s (codecs delay)."""
    first, size, reach = RATE, RATE // 2, RATE // 10
    wanted = good[first : first + size].astype(np.float64)
    around = waveform[first - reach : first + size + reach].astype(np.float64)
    at = int(np.argmax(np.correlate(around, wanted, "valid")))
    return float(np.corrcoef(around[at : at + size], wanted)[0, 1])

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.audio.io import AudioStream
from speechadapt.audio.vad import SpeechDetector, speech_detector
from speechadapt.jobs.listen import Clip, cut_recording, find_speech, problem_of, read_clip
from speechadapt.jobs.plan import PlanItem

RATE = 16000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))
    return made.astype(np.float32)


def save(path: Path, samples: np.ndarray) -> PlanItem:
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return PlanItem(path.name, path.name, str(path), path.stem)


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return speech_detector(scorer="energy")


def test_a_clip_is_read_whole_with_its_length(tmp_path: Path):
    samples = noise(1.5)
    clip = read_clip(save(tmp_path / "a.wav", samples), RATE, 4.0)
    assert clip.audio_s == 1.5
    assert clip.problem is None
    assert not clip.silent
    np.testing.assert_array_equal(clip.waveform, samples)


def test_what_is_wrong_with_a_file_is_in_the_clip(tmp_path: Path):
    missing = read_clip(PlanItem("a", "a", str(tmp_path / "a.wav"), "a"), RATE, None)
    assert missing.failed
    assert missing.problem is not None
    assert missing.problem.reason == "UNREADABLE"
    spoiled = noise(1.0)
    spoiled[500] = np.nan
    assert read_clip(save(tmp_path / "nan.wav", spoiled), RATE, None).problem.reason == "NONFINITE"


def test_a_file_longer_than_it_said_is_not_held_in_memory(tmp_path: Path):
    item = save(tmp_path / "a.wav", noise(2.0))
    assert read_clip(item, RATE, 1.0).overlong
    assert not len(read_clip(item, RATE, 1.0).waveform)
    assert not read_clip(item, RATE, 2.0).overlong


def test_silence_is_what_stays_below_hearing(tmp_path: Path):
    item = PlanItem("a", "a", "a", "a")
    assert Clip(item, np.zeros(100, dtype=np.float32)).silent
    assert Clip(item, np.full(100, 1e-4, dtype=np.float32)).silent
    assert not Clip(item, np.full(100, 1e-3, dtype=np.float32)).silent


def test_speech_is_looked_for_where_there_is_sound(tmp_path: Path, detector: SpeechDetector):
    loud = np.concatenate((np.zeros(RATE, dtype=np.float32), noise(1.0)))
    clips = [
        read_clip(save(tmp_path / "a.wav", loud), RATE, None),
        read_clip(PlanItem("b", "b", "nowhere", "b"), RATE, None),
    ]
    found = find_speech(clips, detector)
    assert found[0].speech_s == pytest.approx(1.0, abs=0.2)
    assert found[1].speech is None
    assert [clip.item.id for clip in found] == ["a.wav", "b"]


@pytest.mark.parametrize("with_speech", [True, False])
def test_pieces_fit_the_window_and_keep_every_sample_in_order(
    tmp_path: Path, detector: SpeechDetector, with_speech: bool
):
    samples = noise(9.0)
    item = save(tmp_path / "a.wav", samples)
    stream = AudioStream(Path(item.path), RATE, block_s=1.0)
    pieces = list(cut_recording(stream, RATE, 2.0, detector if with_speech else None))
    assert all(0.5 < piece.end_s - piece.start_s <= 2.0 + 1e-6 for piece in pieces)
    for piece in pieces:
        start = round(piece.start_s * RATE)
        np.testing.assert_array_equal(piece.waveform, samples[start : start + len(piece.waveform)])
    if not with_speech:
        np.testing.assert_array_equal(np.concatenate([p.waveform for p in pieces]), samples)


def test_no_memory_for_a_file_is_said_so():
    assert problem_of(MemoryError()).reason == "OOM"

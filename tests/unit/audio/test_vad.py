from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt.audio import vad
from speechadapt.audio.io import decode_audio
from speechadapt.audio.span import Span, total_s
from speechadapt.audio.vad import SpeechDetector, VadOptions, spans_of, speech_detector
from speechadapt.core.errors import CheckpointError, ConfigError

RATE = 16000
HOP_S = 0.032
OPTIONS = VadOptions()


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return speech_detector()


@pytest.fixture(scope="module")
def clips(demo_clips: Path) -> list[np.ndarray]:
    return [decode_audio(path, RATE).waveform for path in sorted(demo_clips.glob("*.flac"))]


def scores(*runs: tuple[int, float]) -> np.ndarray:
    return np.concatenate([np.full(count, value, dtype=np.float32) for count, value in runs])


def test_speech_lies_between_the_first_and_last_high_window() -> None:
    high = scores((10, 0.1), (20, 0.9), (30, 0.1))
    assert spans_of(high, 60 * HOP_S, OPTIONS) == [Span(0.32, 0.96)]


def test_a_short_pause_does_not_end_a_span() -> None:
    runs = scores((20, 0.9), (15, 0.1), (20, 0.9), (20, 0.1))
    assert len(spans_of(runs, 75 * HOP_S, OPTIONS)) == 1
    shorter = VadOptions(min_silence_duration_ms=200, speech_pad_ms=100)
    assert len(spans_of(runs, 75 * HOP_S, shorter)) == 2


def test_short_speech_is_dropped() -> None:
    assert spans_of(scores((5, 0.1), (7, 0.9), (40, 0.1)), 52 * HOP_S, OPTIONS) == []


def test_scores_between_the_thresholds_change_nothing() -> None:
    assert spans_of(scores((10, 0.9), (90, 0.4)), 100 * HOP_S, OPTIONS) == [Span(0.0, 3.2)]
    assert spans_of(scores((100, 0.4)), 100 * HOP_S, OPTIONS) == []


def test_no_span_ends_after_the_recording() -> None:
    assert spans_of(scores((20, 0.9)), 0.63, OPTIONS) == [Span(0.0, 0.63)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.4, 1.0])), max_size=25))
def test_spans_are_in_order_apart_and_long_enough(runs: list[tuple[int, float]]) -> None:
    values = scores(*runs) if runs else np.zeros(0, dtype=np.float32)
    spans = spans_of(values, len(values) * HOP_S, OPTIONS)
    assert all(span.duration_s > 0.25 for span in spans)
    for before, after in pairwise(spans):
        assert after.start_s - before.end_s >= 0.5 - 1e-9
    loud = np.flatnonzero(values >= 0.5)
    for span in spans:
        assert any(abs(span.start_s - index * HOP_S) < 1e-9 for index in loud)


def test_real_clips_hold_speech(detector: SpeechDetector, clips: list[np.ndarray]) -> None:
    assert len(clips) >= 8
    for clip in clips:
        assert total_s(detector.detect(clip)) > 0.25


def test_silence_and_nothing_hold_no_speech(detector: SpeechDetector) -> None:
    assert detector.detect(np.zeros(20 * RATE, dtype=np.float32)) == []
    assert detector.detect(np.zeros(0, dtype=np.float32)) == []
    assert detector.detect_batch([]) == []


@pytest.mark.parametrize("size", [1000, 16000, 123457])
def test_blocks_of_any_size_give_the_same_spans(
    detector: SpeechDetector, clips: list[np.ndarray], size: int
) -> None:
    silence = np.zeros(10 * RATE, dtype=np.float32)
    recording = np.concatenate([part for clip in clips for part in (clip, silence)])
    stream = detector.stream()
    spans = []
    for start in range(0, len(recording), size):
        spans += stream.push(recording[start : start + size])
        assert all(span.end_s <= stream.undecided_s for span in spans)
    assert spans + stream.finish() == detector.detect(recording)


def test_a_batch_gives_the_spans_of_its_clips(
    detector: SpeechDetector, clips: list[np.ndarray]
) -> None:
    several = [*clips, np.zeros(0, np.float32), np.zeros(RATE, np.float32), np.concatenate(clips)]
    assert detector.detect_batch(several) == [detector.detect(clip) for clip in several]


def test_two_runs_agree_to_the_last_bit(clips: list[np.ndarray]) -> None:
    recording = np.concatenate(clips)
    assert speech_detector().detect(recording) == speech_detector().detect(recording)


def test_where_silero_does_not_load_energy_stands_in_by_name(
    monkeypatch: pytest.MonkeyPatch, clips: list[np.ndarray]
) -> None:
    def fail() -> None:
        raise CheckpointError("the weights are gone.")

    monkeypatch.setattr(vad, "SileroScorer", fail)
    detector = speech_detector()
    assert detector.name == "energy (stands in for silero-vad: the weights are gone.)"
    assert all(detector.detect(np.concatenate((np.zeros(RATE, np.float32), c))) for c in clips[:3])
    with pytest.raises(CheckpointError, match="the weights are gone"):
        speech_detector(scorer="silero")


def test_energy_can_be_asked_for() -> None:
    detector = speech_detector(scorer="energy")
    assert (detector.name, detector.fallback) == ("energy", None)


def test_the_detectors_name_holds_the_wheels_version(detector: SpeechDetector) -> None:
    assert detector.name.startswith("silero-vad 6.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 1.0}, "vad.threshold must be between 0 and 1, got 1.0"),
        ({"neg_threshold": 0.6}, r"between 0 and vad.threshold \(0.5\), got 0.6"),
        ({"speech_pad_ms": -1}, "vad.speech_pad_ms must be 0 or more milliseconds, got -1"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VadOptions(**changes)  # type: ignore[arg-type]


def test_padding_is_at_most_half_of_a_pause() -> None:
    assert VadOptions(speech_pad_ms=400).pad_s == 0.25
    assert VadOptions(speech_pad_ms=100).pad_s == 0.1


def test_the_exit_threshold_follows_the_entry() -> None:
    assert VadOptions().exit_threshold == pytest.approx(0.35)
    assert VadOptions(neg_threshold=0.2).exit_threshold == 0.2
    assert VadOptions(threshold=0.1).exit_threshold == pytest.approx(0.01)

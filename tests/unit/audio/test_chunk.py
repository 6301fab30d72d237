from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt.audio.chunk import Segment, cut_span, merge_spans, quietest_s, segments
from speechadapt.audio.io import decode_audio
from speechadapt.audio.span import Span, overlap_s, pad_span, total_s
from speechadapt.audio.speech_probability import WINDOW
from speechadapt.audio.vad import SpeechDetector, speech_detector
from speechadapt.core.errors import ConfigError

RATE = 16000


class LevelScorer:
    """Calls a window speech where its mean level is above 0.05: exact, fast, without memory."""

    name = "level"

    def start(self) -> None:
        return None

    def score(self, samples: np.ndarray, state: Any) -> tuple[np.ndarray, None]:
        levels = np.abs(samples.reshape(-1, WINDOW)).mean(axis=1)
        return np.where(levels > 0.05, 0.9, 0.1).astype(np.float32), None

    def score_batch(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self.score(clip, None)[0] for clip in clips]


DETECTOR = SpeechDetector(LevelScorer())
talk = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 120)), max_size=6)


def recording_of(turns: Sequence[tuple[int, int]], seed: int = 0) -> np.ndarray:
    """Alternate speech-like noise, of varying level, and near silence; lengths in windows."""
    generator = np.random.default_rng(seed)
    parts = [np.zeros(0)]
    for loud, quiet in turns:
        level = np.repeat(generator.uniform(0.15, 0.6, loud), WINDOW)
        parts += [generator.standard_normal(loud * WINDOW) * level]
        parts += [generator.standard_normal(quiet * WINDOW) * 1e-3]
    return np.concatenate(parts).astype(np.float32)


def blocks_of(waveform: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (waveform[start : start + size] for start in range(0, len(waveform), size))


def spans_at(*edges: tuple[float, float]) -> list[Span]:
    return [Span(float(start), float(end)) for start, end in edges]


def times(found: Sequence[Segment]) -> list[tuple[float, float, float]]:
    return [(each.start_s, each.end_s, each.speech_s) for each in found]


def offline(waveform: np.ndarray, detector: SpeechDetector, window_s: float) -> list[Span]:
    """Do the steps of `segments` on the whole recording."""
    end_s = len(waveform) / RATE
    padded = [pad_span(each, detector.options.pad_s, end_s) for each in detector.detect(waveform)]
    pieces = [
        piece
        for span in padded
        for piece in cut_span(span, window_s, lambda half: quietest_s(waveform, RATE, 0.0, half))
    ]
    return list(merge_spans(pieces, window_s, 2.0))


@settings(max_examples=25, deadline=None)
@given(talk, st.sampled_from([1.0, 3.0, 10.0]), st.integers(2000, 200_000))
def test_speech_is_covered_once_in_order_and_within_the_window(
    turns: list[tuple[int, int]], window_s: float, size: int
) -> None:
    waveform = recording_of(turns)
    found = list(segments(blocks_of(waveform, size), DETECTOR, window_s))
    speech = DETECTOR.detect(waveform)
    for before, after in pairwise(found):
        assert before.end_s <= after.start_s + 1e-9
    for each in found:
        assert each.end_s - each.start_s <= window_s + 1e-6
        first, last = round(each.start_s * RATE), round(each.end_s * RATE)
        np.testing.assert_array_equal(each.waveform, waveform[first:last])
    covered = [Span(each.start_s, each.end_s) for each in found]
    assert math.isclose(sum(overlap_s(s, covered) for s in speech), total_s(speech), abs_tol=1e-6)
    assert math.isclose(sum(e.speech_s for e in found), total_s(speech), abs_tol=1e-6)


@settings(max_examples=15, deadline=None)
@given(talk, st.sampled_from([1.0, 4.0]), st.integers(2000, 200_000))
def test_blocks_of_any_size_give_the_segments_of_the_whole(
    turns: list[tuple[int, int]], window_s: float, size: int
) -> None:
    waveform = recording_of(turns)
    found = list(segments(blocks_of(waveform, size), DETECTOR, window_s))
    whole = list(segments([waveform], DETECTOR, window_s))
    assert times(found) == times(whole)
    spans = [Span(each.start_s, each.end_s) for each in found]
    assert spans == offline(waveform, DETECTOR, window_s)


def test_a_long_recording_of_real_clips_is_cut_in_its_pauses(demo_clips: Path) -> None:
    pause = np.zeros(3 * RATE, dtype=np.float32)
    clips = [decode_audio(path, RATE).waveform for path in sorted(demo_clips.glob("*.flac"))]
    waveform = np.concatenate([part for clip in clips for part in (clip, pause)])
    edges = np.cumsum([0, *(len(clip) + len(pause) for clip in clips)]) / RATE
    found = list(segments(blocks_of(waveform, 30 * RATE), speech_detector(), 10.0))
    for start, clip in zip(edges, clips, strict=False):
        own = Span(start - 0.3, start + len(clip) / RATE + 0.9)
        assert any(own.start_s <= e.start_s and e.end_s <= own.end_s for e in found)
    joins = [Span(edge - 2.0, edge - 0.4) for edge in edges[1:]]
    assert all(overlap_s(Span(e.start_s, e.end_s), joins) == 0.0 for e in found)


def test_speech_without_a_pause_is_cut_where_it_is_quietest() -> None:
    waveform = recording_of([(1000, 20)])
    dip = round(17.3 * RATE)
    waveform[dip - 800 : dip + 800] *= 0.1
    first = next(iter(segments([waveform], DETECTOR, 20.0)))
    assert (first.start_s, first.end_s) == (0.0, pytest.approx(17.3, abs=0.05))


def test_endless_speech_does_not_pile_up_in_memory() -> None:
    block = recording_of([(937, 1)])[: 937 * WINDOW]
    held: list[int] = []
    produced = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal produced
        for _ in range(40):
            produced += len(block)
            yield block

    taken = 0
    for each in segments(endless(), DETECTOR, 10.0):
        taken = round(each.end_s * RATE)
        held.append(produced - taken)
    assert taken > 39 * len(block)
    assert max(held) < len(block) + 40 * RATE


def test_far_apart_speech_stays_apart_and_near_speech_is_joined() -> None:
    waveform = recording_of([(30, 40), (30, 100), (30, 30)])
    found = list(segments([waveform], DETECTOR, 30.0))
    assert len(found) == 2
    assert found[0].speech_s == pytest.approx(60 * 0.032)
    assert len(list(segments([waveform], DETECTOR, 30.0, max_pause_s=60.0))) == 1


def test_silence_gives_no_segment() -> None:
    assert list(segments([np.zeros(RATE, dtype=np.float32)] * 20, DETECTOR, 10.0)) == []
    assert list(segments([], DETECTOR, 10.0)) == []


def test_a_window_below_a_second_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be 1 second or more, got 0\.5 s"):
        list(segments([], DETECTOR, 0.5))


@settings(deadline=None)
@given(st.floats(0, 100), st.floats(0.1, 200), st.floats(1, 30), st.floats(0, 1))
def test_cut_pieces_lie_end_to_end_and_fit(
    start: float, length: float, window: float, share: float
) -> None:
    span = Span(start, start + length)
    pieces = cut_span(span, window, lambda half: half.start_s + share * half.duration_s)
    assert pieces[0].start_s == span.start_s
    assert pieces[-1].end_s == span.end_s
    assert all(piece.duration_s <= window + 1e-5 for piece in pieces)
    assert all(a.end_s == b.start_s for a, b in pairwise(pieces))


def test_merging_takes_neighbours_while_they_fit() -> None:
    spans = spans_at((0, 4), (5, 9), (9.5, 12), (20, 21))
    assert list(merge_spans(spans, 10.0)) == spans_at((0, 9), (9.5, 12), (20, 21))
    assert list(merge_spans(spans, 12.0)) == spans_at((0, 12), (20, 21))
    assert list(merge_spans(spans, 12.0, max_pause_s=0.6)) == spans_at((0, 4), (5, 12), (20, 21))


def test_the_quietest_place_is_the_last_of_equals_and_on_a_sample() -> None:
    waveform = np.ones(2 * RATE, dtype=np.float32)
    waveform[8000:9600] = 0.0
    at = quietest_s(waveform, RATE, 5.0, Span(5.0, 7.0))
    assert at == pytest.approx(5.55)
    silent = np.zeros(2 * RATE, dtype=np.float32)
    assert quietest_s(silent, RATE, 0.0, Span(0.5, 1.5)) > 1.4

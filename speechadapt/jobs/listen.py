"""Read what a job transcribes: clips whole, with their speech; longer recordings in blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from speechadapt.audio.chunk import Segment, quietest_s, segments
from speechadapt.audio.io import AudioStream
from speechadapt.audio.reader import Region
from speechadapt.audio.span import Signal, Span, total_s
from speechadapt.audio.vad import SpeechDetector
from speechadapt.core.errors import AudioError, MissingExtra
from speechadapt.jobs.plan import PlanItem

# Peak below which nobody can be heard (-70 dB of full scale, ten steps of 16 bits).
SILENCE_PEAK = 10.0 ** (-70 / 20)
CUT_S = 30.0


@dataclass(frozen=True)
class Problem:
    """Why an item is not whole.

    Args:
        reason: See `ledger.REASONS`.
        message: What was found.
    """

    reason: str
    message: str


@dataclass(frozen=True)
class Clip:
    """One item in memory, or why it is not.

    Args:
        item: The item.
        waveform: Mono at the model's rate; empty where the item failed or is cut later.
        audio_s: Seconds decoded.
        problem: Why it failed (no waveform) or is partial (a waveform); None where all is well.
        overlong: Longer than its header said and than the model takes: it is cut after all.
        speech: Spans of speech; None where nobody looked.
        decode_s: Seconds spent on it.
    """

    item: PlanItem
    waveform: Signal = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    audio_s: float = 0.0
    problem: Problem | None = None
    overlong: bool = False
    speech: tuple[Span, ...] | None = None
    decode_s: float = 0.0

    @property
    def failed(self) -> bool:
        """True where there is nothing to decode."""
        return self.problem is not None and not len(self.waveform)

    @property
    def silent(self) -> bool:
        """True where the signal stays below anything that can be heard."""
        return bool(np.abs(self.waveform).max(initial=0.0) < SILENCE_PEAK)

    @property
    def speech_s(self) -> float | None:
        """Seconds of speech; None where nobody looked."""
        return None if self.speech is None else total_s(self.speech)


def read_clip(item: PlanItem, sample_rate: int, limit_s: float | None) -> Clip:
    """Decode one item.

    Args:
        item: The item.
        sample_rate: The model's, in Hz.
        limit_s: Most seconds to hold in memory; None for any length.

    Returns:
        The clip; what is wrong with the file is in it, nothing is raised for it.
    """
    began = time.perf_counter()
    try:
        clip = _decode(item, sample_rate, limit_s)
    except (AudioError, MissingExtra, MemoryError) as error:
        clip = Clip(item, problem=problem_of(error))
    return replace(clip, decode_s=time.perf_counter() - began)


def find_speech(clips: Sequence[Clip], detector: SpeechDetector) -> list[Clip]:
    """Look for speech in all clips of a batch at once.

    Args:
        clips: The clips; failed and overlong ones are passed through.
        detector: Finds the speech, at the clips' rate.

    Returns:
        The clips in the same order; the time is shared among those that were looked at.
    """
    wanted = [place for place, clip in enumerate(clips) if len(clip.waveform)]
    began = time.perf_counter()
    found = detector.detect_batch([clips[place].waveform for place in wanted]) if wanted else []
    share = (time.perf_counter() - began) / max(1, len(wanted))
    marked = list(clips)
    for place, spans in zip(wanted, found, strict=True):
        clip = clips[place]
        marked[place] = replace(clip, speech=tuple(spans), decode_s=clip.decode_s + share)
    return marked


def cut_recording(
    stream: AudioStream, sample_rate: int, window_s: float, detector: SpeechDetector | None
) -> Iterator[Segment]:
    """Cut a recording into segments that fit the model, in bounded memory.

    Args:
        stream: The recording, at `sample_rate`.
        sample_rate: In Hz.
        window_s: Longest segment in seconds.
        detector: Finds the speech to cut around; None cuts everything at quiet places.

    Yields:
        Segments in order.
    """
    if detector is not None:
        yield from segments(stream, detector, window_s)
        return
    sound: Signal = np.zeros(0, dtype=np.float32)
    origin, size = 0, round(window_s * sample_rate)
    for block in stream:
        sound = np.concatenate((sound, block))
        while len(sound) > size:
            start_s = origin / sample_rate
            half = Span(start_s + window_s / 2, start_s + window_s)
            at_s = quietest_s(sound, sample_rate, start_s, half)
            cut = round(at_s * sample_rate) - origin
            yield _whole_segment(sound[:cut], origin, sample_rate)
            sound, origin = sound[cut:].copy(), origin + cut
    if len(sound):
        yield _whole_segment(sound, origin, sample_rate)


def open_recording(item: PlanItem, sample_rate: int) -> AudioStream:
    """Open an item for reading block by block.

    Args:
        item: The item.
        sample_rate: Wanted, in Hz.
    """
    region = Region(item.offset, item.duration)
    return AudioStream(Path(item.path), sample_rate, region, block_s=CUT_S)


def problem_of(error: Exception) -> Problem:
    """Say as a reason and a message why an item cannot be read."""
    if isinstance(error, AudioError):
        return Problem(error.reason, str(error))
    if isinstance(error, MemoryError):
        return Problem("OOM", "the system has no memory for this file.")
    return Problem("UNREADABLE", str(error))


def _decode(item: PlanItem, sample_rate: int, limit_s: float | None) -> Clip:
    stream = open_recording(item, sample_rate)
    parts: list[Signal] = []
    held, most = 0, None if limit_s is None else round(limit_s * sample_rate)
    for block in stream:
        parts.append(block)
        held += len(block)
        if most is not None and held > most:
            return Clip(item, overlong=True)
    problem = Problem("PARTIAL", stream.note or "") if stream.status == "partial" else None
    waveform = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return Clip(item, waveform, stream.decoded_s, problem)


def _whole_segment(waveform: Signal, origin: int, sample_rate: int) -> Segment:
    start_s, size_s = origin / sample_rate, len(waveform) / sample_rate
    return Segment(start_s, start_s + size_s, waveform.copy(), size_s)

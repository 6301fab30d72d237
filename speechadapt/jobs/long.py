"""Transcribe one recording of any length: cut, decode in batches, map the times back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from speechadapt.audio.chunk import Segment
from speechadapt.audio.vad import SpeechDetector
from speechadapt.core.errors import AudioError, MissingExtra
from speechadapt.jobs.listen import (
    CUT_S,
    SILENCE_PEAK,
    Problem,
    cut_recording,
    open_recording,
    problem_of,
)
from speechadapt.jobs.plan import Limits, PlanItem
from speechadapt.jobs.recognise import Failure, Recogniser, recognise


@dataclass(frozen=True)
class Piece:
    """One segment of a recording with what was heard in it; its sound is gone.

    Args:
        start_s: Seconds from the start of the item.
        end_s: Seconds from the start of the item.
        speech_s: Seconds of speech in it.
        hypothesis: What the model wrote, times from the start of the piece; None where it failed.
    """

    start_s: float
    end_s: float
    speech_s: float
    hypothesis: Any


@dataclass
class Recording:
    """What became of a long recording.

    Args:
        pieces: Its segments in order.
        audio_s: Seconds decoded.
        problem: Why it failed or is partial; None where all is well.
        decode_s: Seconds of reading, decoding and finding speech.
        model_s: Seconds of the model.
    """

    pieces: list[Piece] = field(default_factory=list)
    audio_s: float = 0.0
    problem: Problem | None = None
    decode_s: float = 0.0
    model_s: float = 0.0


def transcribe_recording(
    item: PlanItem, recogniser: Recogniser, detector: SpeechDetector | None, limits: Limits
) -> Recording:
    """Transcribe a recording in bounded memory.

    Args:
        item: The recording.
        recogniser: The model.
        detector: Finds the speech to cut around; None cuts everything at quiet places.
        limits: What a batch of segments may hold.

    Returns:
        The pieces. What is wrong with the file, or with the model on some piece, is in the result;
        samples that are not finite take all pieces away.
    """
    result = Recording()
    window_s = limits.window_s or CUT_S
    stream = open_recording(item, recogniser.sample_rate)
    began = time.perf_counter()
    try:
        cut = cut_recording(stream, recogniser.sample_rate, window_s, detector)
        for batch in _batches(cut, limits, window_s):
            result.decode_s += time.perf_counter() - began
            _decode(batch, item.lang, recogniser, result)
            began = time.perf_counter()
        result.decode_s += time.perf_counter() - began
    except (AudioError, MissingExtra, MemoryError) as error:
        return Recording(problem=problem_of(error), decode_s=result.decode_s)
    result.audio_s = stream.decoded_s
    if stream.status == "partial" and result.problem is None:
        result.problem = Problem("PARTIAL", stream.note or "")
    return result


def _batches(
    segments: Iterator[Segment], limits: Limits, window_s: float
) -> Iterator[list[Segment]]:
    """Group segments as they come; what a group holds depends on the recording and limits alone."""
    room = max(1, min(limits.batch_size, int(limits.batch_s // window_s)))
    group: list[Segment] = []
    for segment in segments:
        group.append(segment)
        if len(group) >= room:
            yield group
            group = []
    if group:
        yield group


def _decode(
    batch: list[Segment], language: str | None, recogniser: Recogniser, result: Recording
) -> None:
    def decode(parts: Sequence[Segment]) -> Sequence[Any]:
        waveforms = [part.waveform for part in parts]
        return recogniser.decode_batch(waveforms, [language] * len(parts))

    began = time.perf_counter()
    heard = [part for part in batch if abs(part.waveform).max(initial=0.0) >= SILENCE_PEAK]
    found = iter(recognise(decode, heard))
    result.model_s += time.perf_counter() - began
    for part in heard:
        hypothesis = next(found)
        if isinstance(hypothesis, Failure):
            where = f"{part.start_s:.1f} s to {part.end_s:.1f} s: {hypothesis.message}"
            result.problem = result.problem or Problem(hypothesis.reason, where)
            hypothesis = None
        result.pieces.append(Piece(part.start_s, part.end_s, part.speech_s, hypothesis))

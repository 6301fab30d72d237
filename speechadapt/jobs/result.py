"""From what was heard to what is written: transcript, flags, coverage, files, row of one item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import fsum
from pathlib import Path
from typing import Any

from speechadapt.audio.span import Span
from speechadapt.jobs.formats import render
from speechadapt.jobs.ledger import Status
from speechadapt.jobs.listen import Clip, Problem
from speechadapt.jobs.long import Recording
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.recognise import Failure
from speechadapt.jobs.rows import make_row
from speechadapt.metrics.coverage import measure_coverage
from speechadapt.models.transcript import Piece, Transcript, assemble
from speechadapt.text.guard import Evidence, check_text

NO_SPEECH = "no_speech"


@dataclass(frozen=True)
class Result:
    """One item, ready to be written.

    Args:
        item: The item.
        status: See `ledger.STATUSES`.
        row: Its row among the job's rows (`transcripts.jsonl`).
        files: Contents, or finished files, by path relative to the output folder.
        reason: See `ledger.REASONS`; None where nothing is wrong.
        message: What was found, for a person.
        flags: Reasons for doubt.
        audio_s: Seconds decoded.
        model_audio_s: Seconds of it that the model heard.
        decode_s: Seconds of reading and decoding.
        model_s: Seconds of the model.
        write_s: Seconds of making its files, beside those of putting them in place.
        speech_s: Seconds of speech; None where nobody looked.
        covered_s: Seconds of speech under text; None where nobody looked.
    """

    item: PlanItem
    status: Status
    row: Mapping[str, Any]
    files: Mapping[str, str | Path] = field(default_factory=dict)
    reason: str | None = None
    message: str = ""
    flags: tuple[str, ...] = ()
    audio_s: float = 0.0
    model_audio_s: float = 0.0
    decode_s: float = 0.0
    model_s: float = 0.0
    write_s: float = 0.0
    speech_s: float | None = None
    covered_s: float | None = None


@dataclass(frozen=True)
class Heard:
    """A hypothesis with the stretch it stands for.

    Args:
        start_s: Seconds from the start of the item.
        end_s: Seconds from the start of the item.
        hypothesis: What the model wrote.
        speech_s: Seconds of speech in the stretch; None where nobody looked.
    """

    start_s: float
    end_s: float
    hypothesis: Any
    speech_s: float | None


def clip_result(
    clip: Clip, hypothesis: Any, model_s: float, formats: Sequence[str], language: str | None
) -> Result:
    """Finish an item that was decoded whole.

    Args:
        clip: The audio.
        hypothesis: What the model wrote, a `Failure`, or None where it was not asked because
            nothing can be heard.
        model_s: Seconds of the model for it.
        formats: Output formats.
        language: The model's language, where it has one.
    """
    item = clip.item
    if isinstance(hypothesis, Failure):
        problem = Problem(hypothesis.reason, hypothesis.message)
        return failed_result(item, problem, clip.audio_s, clip.decode_s)
    if clip.failed and clip.problem is not None:
        return failed_result(item, clip.problem, clip.audio_s, clip.decode_s)
    language = item.lang or language
    heard = []
    if hypothesis is not None:
        heard = [Heard(0.0, clip.audio_s, hypothesis, clip.speech_s)]
    transcript, notes = _transcript(heard, clip.audio_s, language)
    if hypothesis is None:
        transcript = replace(transcript, flags=(NO_SPEECH,))
    result = _finished(item, transcript, notes, clip.problem, formats)
    covered_s = None if clip.speech is None else _covered_s(clip.speech, transcript)
    return replace(
        result,
        audio_s=clip.audio_s,
        model_audio_s=clip.audio_s if hypothesis is not None else 0.0,
        decode_s=clip.decode_s,
        model_s=model_s,
        speech_s=clip.speech_s,
        covered_s=covered_s,
    )


def recording_result(
    item: PlanItem, recording: Recording, formats: Sequence[str], language: str | None, vad: bool
) -> Result:
    """Finish a recording that was cut into pieces.

    Args:
        item: The item.
        recording: Its pieces.
        formats: Output formats.
        language: The model's language, where it has one.
        vad: Whether speech was looked for.
    """
    language = item.lang or language
    heard = [
        Heard(piece.start_s, piece.end_s, piece.hypothesis, piece.speech_s if vad else None)
        for piece in recording.pieces
        if piece.hypothesis is not None
    ]
    problem = recording.problem
    if problem is not None and not heard:
        return replace(
            failed_result(item, problem, recording.audio_s, recording.decode_s),
            model_s=recording.model_s,
        )
    transcript, notes = _transcript(heard, recording.audio_s, language)
    if not heard:
        transcript = replace(transcript, flags=(NO_SPEECH,))
    result = _finished(item, transcript, notes, problem, formats)
    spoken = [piece for piece in recording.pieces if vad]
    written = [part.speech_s or 0.0 for part in heard if part.hypothesis.text]
    return replace(
        result,
        audio_s=recording.audio_s,
        model_audio_s=recording.audio_s,
        decode_s=recording.decode_s,
        model_s=recording.model_s,
        speech_s=fsum(piece.speech_s for piece in spoken) if vad else None,
        covered_s=fsum(written) if vad else None,
    )


def failed_result(
    item: PlanItem, problem: Problem, audio_s: float = 0.0, decode_s: float = 0.0
) -> Result:
    """Finish an item that has no outputs.

    Args:
        item: The item.
        problem: Why.
        audio_s: Seconds that were decoded all the same.
        decode_s: Seconds spent on it.
    """
    duration = audio_s or item.audio_s or None
    row = make_row(item, "failed", reason=problem.reason, duration=duration)
    return Result(
        item,
        "failed",
        row,
        reason=problem.reason,
        message=problem.message,
        audio_s=audio_s,
        decode_s=decode_s,
    )


def _finished(
    item: PlanItem,
    transcript: Transcript,
    notes: Sequence[str],
    problem: Problem | None,
    formats: Sequence[str],
) -> Result:
    doubtful = [flag for flag in transcript.flags if flag != NO_SPEECH or transcript.text]
    status: Status = "flagged" if doubtful else "ok"
    messages = list(notes)
    if problem is not None:
        status, messages = "partial", [problem.message, *notes]
    reason = None if problem is None else problem.reason
    row = make_row(
        item,
        status,
        pred_text=transcript.text,
        flags=transcript.flags,
        reason=reason,
        duration=transcript.duration,
    )
    return Result(
        item,
        status,
        row,
        files={f"{item.stem}.{name}": render(name, transcript) for name in formats},
        reason=reason,
        message="; ".join(messages),
        flags=transcript.flags,
    )


def _transcript(
    heard: Iterable[Heard], audio_s: float, language: str | None
) -> tuple[Transcript, list[str]]:
    """Assemble what was heard, with the guards' flags, and say what the guards found."""
    pieces: list[Piece] = []
    notes: list[str] = []
    for part in heard:
        hypothesis = part.hypothesis
        evidence = Evidence(
            duration_s=part.end_s - part.start_s,
            speech_s=part.speech_s,
            no_speech_prob=hypothesis.no_speech_prob,
            avg_logprob=hypothesis.avg_logprob,
            language=hypothesis.details.get("language") or language,
        )
        found = check_text(hypothesis.text, evidence)
        notes += [f"{flag.name}: {flag.reason}" for flag in found]
        flags = dict.fromkeys((*hypothesis.flags, *(flag.name for flag in found)))
        pieces.append(Piece(part.start_s, part.end_s, replace(hypothesis, flags=tuple(flags))))
    return assemble(pieces, audio_s, language), notes


def _covered_s(speech: Sequence[Span], transcript: Transcript) -> float:
    written = [
        Span(segment.start, max(segment.start, segment.end))
        for segment in transcript.segments
        if segment.text
    ]
    return measure_coverage(speech, written).covered_s

"""The worker of a transcription: decodes audio ahead, runs the model, writes, then journals."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path
from typing import Any

from speechadapt.audio.vad import SpeechDetector, speech_detector
from speechadapt.engines.base import Unit
from speechadapt.jobs.commit import ItemFiles, commit
from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.ledger import Journal, Ledger, Record
from speechadapt.jobs.listen import CUT_S, Clip, find_speech, read_clip
from speechadapt.jobs.load import device_of, load_recogniser
from speechadapt.jobs.long import transcribe_recording
from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.plan import Limits, PlanItem
from speechadapt.jobs.recognise import Failure, Recogniser, recognise
from speechadapt.jobs.result import Result, clip_result, recording_result
from speechadapt.jobs.rows import make_row
from speechadapt.jobs.run import Assignment, ItemDone, UnitResult

_READERS = 4


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to start; picklable.

    Args:
        options: What was asked for.
        limits: What a batch may hold.
        shard: Names the driver in journals and locks (`1-of-1`).
        threads: CPU threads of this worker; None as torch does.
    """

    options: TranscribeOptions
    limits: Limits
    shard: str
    threads: int | None = None

    @property
    def folder(self) -> JobFolder:
        """The job's folder."""
        return JobFolder(Path(self.options.output))


def start_worker(setup: WorkerSetup, number: int) -> TranscribeWorker:
    """Load the model and start a worker in a process of its own.

    Args:
        setup: What it needs.
        number: The worker's number.
    """
    options = replace(setup.options, device=device_of(setup.options.device, number))
    recogniser = load_recogniser(options, setup.threads)
    return TranscribeWorker(setup, recogniser, number, locked=True)


class TranscribeWorker:
    """Transcribes assignments (see `engines.base.Worker`).

    Args:
        setup: What it needs.
        recogniser: The model.
        number: The worker's number.
        locked: Whether to hold the workers' lock, so that a later driver waits for this process.
    """

    def __init__(
        self, setup: WorkerSetup, recogniser: Recogniser, number: int, locked: bool = False
    ) -> None:
        self._setup, self._recogniser, self._number = setup, recogniser, number
        self._folder = setup.folder
        name = f"{setup.shard}-worker-{number}"
        self._lock = self._folder.lock(f"workers-{setup.shard}", shared=True) if locked else None
        if self._lock is not None:
            self._lock.__enter__()
        self._staging = self._folder.state / "staging" / name
        self._journal = Journal(self._folder.journal / f"{name}.jsonl")
        self._detector = _detector(setup.options, recogniser)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self._formats = setup.options.format_names
        self._first = True

    def prepare(self, unit: Unit) -> list[Clip]:
        """Decode the clips of a batch and look for speech in them; nothing for a long recording."""
        assignment: Assignment = unit.payload
        if assignment.long:
            return []
        clips = list(self._readers.map(self._read, assignment.items))
        return clips if self._detector is None else find_speech(clips, self._detector)

    def process(self, unit: Unit, prepared: list[Clip]) -> UnitResult:
        """Transcribe an assignment, write its outputs, journal it."""
        assignment: Assignment = unit.payload
        known: Mapping[str, ItemDone] = {}
        if unit.attempt > 1 or assignment.recheck:
            known = _already_done(Ledger(self._folder.journal), assignment)
        assignment = replace(assignment, todo=assignment.todo.difference(known))
        if assignment.long:
            results = [self._transcribe_long(item) for item in assignment.items]
        else:
            results = self._transcribe_clips(prepared)
        written = [result for result in results if result.item.id in assignment.todo]
        began = time.perf_counter()
        records = self._write(written, assignment, unit.attempt)
        write_s = time.perf_counter() - began
        audio_s = fsum(result.model_audio_s for result in results)
        first = self._first and audio_s > 0
        self._first = self._first and not first
        done = tuple(ItemDone(record.id, record.status, record.audio_s) for record in records)
        return UnitResult(
            items=(*known.values(), *done),
            worker=self._number,
            audio_s=audio_s,
            decode_s=fsum(result.decode_s for result in results),
            model_s=fsum(result.model_s for result in results),
            write_s=write_s,
            first=first,
        )

    def close(self) -> None:
        """Close the journal and let go of the lock."""
        self._readers.shutdown()
        self._journal.close()
        if self._lock is not None:
            self._lock.__exit__(None, None, None)

    def _read(self, item: PlanItem) -> Clip:
        window_s = self._setup.limits.window_s
        # Where the model takes any length, a row of a manifest is decoded whole.
        limit_s = window_s if window_s is not None or item.whole else CUT_S
        return read_clip(item, self._recogniser.sample_rate, limit_s)

    def _transcribe_clips(self, clips: Sequence[Clip]) -> list[Result]:
        heard = [clip for clip in clips if len(clip.waveform) and not clip.silent]
        began = time.perf_counter()
        found = recognise(self._decode, heard)
        model_s = time.perf_counter() - began
        audio_s = fsum(clip.audio_s for clip in heard)
        hypotheses: dict[str, Any | Failure] = {
            clip.item.id: hypothesis for clip, hypothesis in zip(heard, found, strict=True)
        }
        results = []
        for clip in clips:
            if clip.overlong:
                results.append(self._transcribe_long(clip.item))
                continue
            share = clip.audio_s / audio_s * model_s if clip.item.id in hypotheses else 0.0
            hypothesis = hypotheses.get(clip.item.id)
            results.append(
                clip_result(clip, hypothesis, share, self._formats, self._recogniser.language)
            )
        return results

    def _decode(self, clips: Sequence[Clip]) -> Sequence[Any]:
        waveforms = [clip.waveform for clip in clips]
        return self._recogniser.decode_batch(waveforms, [clip.item.lang for clip in clips])

    def _transcribe_long(self, item: PlanItem) -> Result:
        recording = transcribe_recording(item, self._recogniser, self._detector, self._setup.limits)
        watched = self._detector is not None
        return recording_result(item, recording, self._formats, self._recogniser.language, watched)

    def _write(
        self, results: Sequence[Result], assignment: Assignment, attempt: int
    ) -> list[Record]:
        files = [ItemFiles(result.item.id, result.files) for result in results if result.files]
        problems = commit(self._folder.output, self._staging, files)
        records = []
        for result in results:
            attempts = assignment.attempts.get(result.item.id, 0) + attempt
            problem = problems.get(result.item.id)
            records.append(_record(result, attempts, problem))
        if records:
            self._journal.append(records)
        return records


def _record(result: Result, attempts: int, problem: str | None) -> Record:
    item = result.item
    if problem is not None:
        row = make_row(item, "failed", reason="WRITE", duration=result.audio_s or None)
        return Record(item.id, item.key, "failed", "WRITE", problem, attempts=attempts, row=row)
    return Record(
        id=item.id,
        key=item.key,
        status=result.status,
        reason=result.reason,
        message=result.message,
        flags=result.flags,
        attempts=attempts,
        audio_s=round(result.audio_s, 4),
        decode_s=round(result.decode_s, 4),
        model_s=round(result.model_s, 4),
        speech_s=result.speech_s,
        covered_s=result.covered_s,
        outputs=tuple(result.files),
        row=result.row,
    )


def _already_done(ledger: Ledger, assignment: Assignment) -> dict[str, ItemDone]:
    keys = {item.id: item.key for item in assignment.items}
    done = {}
    for name in assignment.todo:
        entry = ledger.entries.get(name)
        newer = entry is not None and entry.attempts > assignment.attempts.get(name, 0)
        if entry is not None and newer and entry.key == keys[name]:
            done[name] = ItemDone(name, entry.status, entry.audio_s)
    return done


def _detector(options: TranscribeOptions, recogniser: Recogniser) -> SpeechDetector | None:
    if not options.vad:
        return None
    detector = speech_detector()
    if recogniser.sample_rate != detector.sample_rate:
        from speechadapt.core.errors import ConfigError

        raise ConfigError(
            f"--vad listens at {detector.sample_rate} Hz and the model at "
            f"{recogniser.sample_rate} Hz; give --no-vad."
        )
    return detector

"""The worker of a transcription: decodes audio ahead, runs the model on batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import fsum
from typing import Any

from speechadapt.audio.vad import SpeechDetector, speech_detector
from speechadapt.core.errors import AudioError
from speechadapt.engines.base import Unit
from speechadapt.jobs.job_worker import JobWorker, WorkerSetup
from speechadapt.jobs.listen import CUT_S, Clip, find_speech, problem_of, read_clip
from speechadapt.jobs.long import transcribe_recording
from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.recognise import Failure, Recogniser, recognise
from speechadapt.jobs.result import Result, clip_result, failed_result, recording_result
from speechadapt.jobs.run import Assignment

_READERS = 4


class TranscribeWorker(JobWorker):
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
        super().__init__(setup, number, locked)
        self._recogniser = recogniser
        self._detector = _detector(setup.options, recogniser)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self._formats = setup.options.format_names

    def prepare(self, unit: Unit) -> list[Clip]:
        """Decode the clips of a batch and look for speech in them; nothing for a long recording."""
        assignment: Assignment = unit.payload
        if assignment.long:
            return []
        clips = list(self._readers.map(self._read, assignment.items))
        return clips if self._detector is None else find_speech(clips, self._detector)

    def work(self, assignment: Assignment, prepared: list[Clip]) -> list[Result]:
        """Transcribe a whole batch, whatever part of it is still to be written."""
        if assignment.long:
            return [self._transcribe_long(item) for item in assignment.items]
        return self._transcribe_clips(prepared)

    def release(self) -> None:
        """End the reading threads."""
        self._readers.shutdown()

    def _read(self, item: PlanItem) -> Clip:
        began = time.perf_counter()
        try:
            with self.copies.near(item) as near:
                clip = self._read_near(near)
            return replace(clip, item=item, decode_s=time.perf_counter() - began)
        except AudioError as error:
            return Clip(item, problem=problem_of(error))

    def _read_near(self, item: PlanItem) -> Clip:
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
        began = time.perf_counter()
        try:
            with self.copies.near(item) as near:
                fetch_s = time.perf_counter() - began
                recording = transcribe_recording(
                    near, self._recogniser, self._detector, self._setup.limits
                )
        except AudioError as error:
            return failed_result(item, problem_of(error))
        recording.decode_s += fetch_s
        watched = self._detector is not None
        return recording_result(item, recording, self._formats, self._recogniser.language, watched)


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

"""The transcription job: recordings become texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from speechadapt.jobs.execute import run_job
from speechadapt.jobs.figures import TextFigures
from speechadapt.jobs.load import load_recogniser
from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.plan import Limits, PlanItem
from speechadapt.jobs.worker import TranscribeWorker

if TYPE_CHECKING:
    from speechadapt.jobs.folder import JobFolder
    from speechadapt.jobs.job_worker import WorkerSetup
    from speechadapt.jobs.ledger import Record
    from speechadapt.jobs.recognise import Recogniser


def transcribe(options: TranscribeOptions, rescan: bool = True) -> int:
    """Run a transcription job, print its report, and return the exit code (see `run_job`).

    Args:
        options: What was asked for.
        rescan: Whether to look at the inputs again; otherwise the plan's items are taken.

    Raises:
        FingerprintError: The output folder holds a job with other options.
        SpeechadaptError: The inputs, the model or the job folder cannot be used.
    """
    return run_job(options, rescan)


class Transcription:
    """What sets transcription apart from other jobs (see `kind.Kind`)."""

    name = "transcribe"
    options = TranscribeOptions
    packages = ("speechadapt", "silero-vad", "soundfile", "soxr")

    def rows(self, folder: JobFolder) -> Path:
        """Return the file of the transcripts."""
        return folder.transcripts

    def load(self, options: TranscribeOptions, threads: int | None) -> Recogniser:
        """Load the recogniser; see `load.load_recogniser`."""
        return load_recogniser(options, threads)

    def limits(self, options: TranscribeOptions, model: Recogniser) -> Limits:
        """Return what a batch may hold."""
        return Limits(options.batch_size, options.batch_s, model.window_s)

    def outputs(self, options: TranscribeOptions, item: PlanItem) -> tuple[str, ...]:
        """Return a file for each format."""
        return tuple(f"{item.stem}.{name}" for name in options.format_names)

    def worker(
        self, setup: WorkerSetup, model: Recogniser, number: int, locked: bool
    ) -> TranscribeWorker:
        """Build a worker."""
        return TranscribeWorker(setup, model, number, locked)

    def check_output(self, path: Path, record: Record) -> str | None:
        """Say whether a text is missing where something was recognised, or is not what it is."""
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        if record.row.get("pred_text") and not text.strip():
            return "is empty"
        if path.suffix == ".json" and not _is_json(text):
            return "is not JSON"
        if path.suffix == ".vtt" and not text.startswith("WEBVTT"):
            return "is not WebVTT"
        return None

    def figures(self, normaliser: str) -> TextFigures:
        """Return the scores of what was recognised."""
        return TextFigures(normaliser)


KIND = Transcription()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True

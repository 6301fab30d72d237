"""What can be asked of a restoration: one frozen value with the defaults and their help.

The command line grows its flags from these fields; programs construct the value directly. Nothing
heavy is imported here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from speechadapt.core.errors import ConfigError
from speechadapt.jobs.gate import Condition, parse_condition
from speechadapt.jobs.job_options import JobOptions, at_least, one_of, setting

FORMATS = ("flac", "wav", "opus")
KEEP = "keep"
MEASURES = ("dnsmos", "speaker", "words")
SIGNALS = ("generated", "masked")
_LOUDNESS = re.compile(r"-\d+(\.\d+)?\s*LUFS", re.IGNORECASE)
_RATES_HZ = (8000, 192000)
_OPUS_RATES = ("8000", "12000", "16000", "24000", "48000")


@dataclass(frozen=True)
class RestoreOptions(JobOptions):
    """Everything a restoration job can be asked.

    Raises:
        ConfigError: A value is out of its range or set; all such values are named at once.
    """

    job: ClassVar[str] = "restore"

    format: str = setting("flac", "Output format: flac, wav, opus.", "-f")
    model: str | None = setting(None, "A restorer: a bundled name or a folder.", "-m")
    sample_rate: str = setting(
        KEEP, "Of the outputs, in Hz; keep: each file's own (Opus: the next it knows)."
    )
    loudness: str = setting(KEEP, "keep each file's level, or a loudness such as -23LUFS.")
    suffix: str = setting("", "Put after the outputs' names, before the format's suffix.")
    iterations: int | None = setting(None, "Of the vocoder; None: as the model says.")
    signal: str | None = setting(
        None,
        "generated: what the vocoder makes; masked: the input turned down to it, which keeps the "
        "voice and gives nothing back; None: as the model says.",
    )
    score: tuple[str, ...] = setting(
        (), "Measure before and after: dnsmos, speaker, words (repeatable)."
    )
    keep_original_if: tuple[str, ...] = setting(
        (),
        "Keep the original where this holds (repeatable): speaker<0.75, cer>0.10, dnsmos<-0.1.",
    )
    judge: str = setting(
        "mini-whisper", "The recogniser that hears words before and after: a name or a folder."
    )
    speaker_model: str | None = setting(
        None, "The model that compares speakers: a folder; None: the bundled one."
    )

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The quality gate."""
        return tuple(parse_condition(text) for text in self.keep_original_if)

    @property
    def measures(self) -> tuple[str, ...]:
        """What has to be measured: what was asked for, and what the gate needs."""
        asked = {*self.score, *(condition.measure for condition in self.conditions)}
        return tuple(name for name in MEASURES if name in asked)

    @property
    def output_rate(self) -> int | None:
        """Hz of the outputs; None keeps each file's own."""
        return None if self.sample_rate == KEEP else int(self.sample_rate)

    @property
    def batch_note(self) -> str:
        """What is restored at once, in words."""
        return "one piece of one channel"

    def plain_values(self) -> dict[str, Any]:
        """Return the gate and the scores as lists in which nothing stands twice."""
        words = "words" in self.measures
        return {
            "score": list(self.measures),
            "keep_original_if": sorted(set(self.keep_original_if)),
            "judge": self.judge if words else None,
            "speaker_model": self.speaker_model if "speaker" in self.measures else None,
        }

    def own_problems(self) -> list[str | None]:
        """Say what is wrong with the fields of this job; None where nothing is."""
        return [
            one_of("--format", self.format, FORMATS),
            *(one_of("--score", name, MEASURES) for name in self.score),
            _rate_problem(self.sample_rate, self.format),
            _loudness_problem(self.loudness),
            _suffix_problem(self.suffix),
            at_least("--iterations", self.iterations, 1),
            None if self.signal is None else one_of("--signal", self.signal, SIGNALS),
            *(_refusal(parse_condition, text) for text in self.keep_original_if),
            _threads_problem(self.threads, self.workers),
        ]


def _rate_problem(text: str, format: str) -> str | None:
    if text == KEEP:
        return None
    low, high = _RATES_HZ
    if not text.isdigit() or not low <= int(text) <= high:
        return f"--sample-rate must be keep, or {low} to {high}, got {text!r}."
    if format == "opus" and text not in _OPUS_RATES:
        return f"--sample-rate {text} is none of Opus: {', '.join(_OPUS_RATES)}."
    return None


def _loudness_problem(text: str) -> str | None:
    if text == KEEP or _LOUDNESS.fullmatch(text.strip()):
        return None
    return f"--loudness must be keep, or a loudness such as -23LUFS, got {text!r}."


def _suffix_problem(text: str) -> str | None:
    if os.sep in text or "\0" in text:
        return f"--suffix is part of a name and holds no '{os.sep}', got {text!r}."
    return None


def _threads_problem(threads: int | None, workers: int) -> str | None:
    if threads is None or threads == workers:
        return None
    return (
        f"--threads {threads} was given, but each worker of a restoration runs in one, so that "
        f"outputs do not depend on their number; give --workers {threads}."
    )


def _refusal(read: Callable[[str], Any], text: str) -> str | None:
    try:
        read(text)
    except ConfigError as error:
        return str(error)
    return None

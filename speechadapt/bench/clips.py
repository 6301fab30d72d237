"""The recordings of a comparison: sets of the data pack, or the clips of the package."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from speechadapt.audio.span import Signal
from speechadapt.data.corpora import pack
from speechadapt.data.manifest import Utterance
from speechadapt.data.own import load_own, read_own

BUCKETS_S = (5.0, 10.0, 20.0, 30.0)
_SHIPPED = Path(__file__).parents[1] / "demo" / "manifest.jsonl"


@dataclass(frozen=True)
class Clip:
    """A recording with its transcript.

    Args:
        id: Names it.
        set: The set it belongs to.
        waveform: Mono samples at the encoder's rate.
        seconds: Its length.
        text: What is said; None where nobody wrote it down.
        speaker: Groups clips for intervals; None where unknown.
        language: BCP 47 code; None where unknown.
    """

    id: str
    set: str
    waveform: Signal
    seconds: float
    text: str | None
    speaker: str | None = None
    language: str | None = None

    @property
    def bucket(self) -> str:
        """The range of lengths it falls into, such as `5-10 s`."""
        return bucket_of(self.seconds)


def bucket_of(seconds: float) -> str:
    """Return the range of lengths that a length falls into.

    Args:
        seconds: Length of a clip.
    """
    edges = (0.0, *BUCKETS_S)
    for low, high in zip(edges, BUCKETS_S, strict=False):
        if seconds < high:
            return f"{low:g}-{high:g} s" if low else f"<{high:g} s"
    return f">={BUCKETS_S[-1]:g} s"


def read_clips(sets: Sequence[str], root: Path, sample_rate: int, limit: int = 0) -> list[Clip]:
    """Read sets of the data pack, or the shipped clips where none is named.

    Sentences whose transcript was derived are taken where the corpus holds it for sure.

    Args:
        sets: `CORPUS/SPLIT` each.
        root: The data pack's folder.
        sample_rate: Wanted, in Hz.
        limit: Most clips of a set, evenly spread over it; 0 takes all.

    Raises:
        DataError: A set is not there.
    """
    if not sets:
        rows = _some(load_own(_SHIPPED), limit)
        return [_clip("shipped", row, read_own(row, sample_rate)[0], sample_rate) for row in rows]
    clips: list[Clip] = []
    for name in sets:
        corpus, split = name.split("/")
        rows = [
            row
            for row in pack.load_corpus(root, corpus, split)
            if row.text is not None and row.extra.get("open_grammar_agrees", True) is True
        ]
        for row in _some(rows, limit):
            samples, rate = pack.read_audio(root, row)
            if rate != sample_rate:
                samples = soxr.resample(samples, rate, sample_rate)
            clips.append(_clip(name, row, samples, sample_rate))
    return clips


def batches_of(clips: Iterable[Clip], size: int) -> dict[str, list[list[Clip]]]:
    """Return batches of clips of about one length, by the range of their lengths.

    Args:
        clips: In any order.
        size: Most clips in a batch.
    """
    ordered = sorted(clips, key=lambda clip: (clip.seconds, clip.id))
    groups: dict[str, list[Clip]] = {}
    for clip in ordered:
        groups.setdefault(clip.bucket, []).append(clip)
    return {
        name: [members[at : at + size] for at in range(0, len(members), size)]
        for name, members in groups.items()
    }


def _clip(name: str, row: Utterance, samples: Signal, sample_rate: int) -> Clip:
    waveform = np.ascontiguousarray(samples, dtype=np.float32)
    seconds = len(waveform) / sample_rate
    return Clip(row.id, name, waveform, seconds, row.text, row.speaker, row.lang)


def _some(rows: Sequence[Utterance], limit: int) -> list[Utterance]:
    if not limit or limit >= len(rows):
        return list(rows)
    return [rows[number * len(rows) // limit] for number in range(limit)]

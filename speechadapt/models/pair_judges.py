"""What models hear in restored recordings and in clean ones: the speaker, and the words.

They judge a restorer, so neither may be made of the weights that it hears with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechadapt.audio.span import Signal
from speechadapt.core.errors import AudioError
from speechadapt.metrics import quality_report, wer
from speechadapt.metrics.quality_listener import at_rate
from speechadapt.metrics.report import SetScore, score_set
from speechadapt.models.recogniser import Recogniser
from speechadapt.models.speaker import SpeakerModel

_RATE = 16000  # Hz, of speaker models
_PIECE_S = 20.0
_SHORTEST_S = 0.5


@dataclass(frozen=True)
class SpeakerScore:
    """The cosine of the speaker's vectors of two recordings (see `quality_report.PairScore`).

    Args:
        model: Makes the vectors.
    """

    model: SpeakerModel

    def __call__(
        self, reference: Signal, degraded: Signal, sample_rate: int
    ) -> dict[str, float | None]:
        """Return `speaker`; None where a recording is silent or shorter than half a second.

        Args:
            reference: Clean samples.
            degraded: As many.
            sample_rate: Hz.
        """
        if len(reference) < _SHORTEST_S * sample_rate or not reference.any() or not degraded.any():
            return {"speaker": None}
        one, other = (self._vector(at_rate(x, sample_rate, _RATE)) for x in (reference, degraded))
        size = float(np.linalg.norm(one) * np.linalg.norm(other))
        return {"speaker": float(one @ other) / size if size > 0 else None}

    def _vector(self, signal: Signal) -> Signal:
        """Return the sum over pieces of about equal length, none longer than the longest."""
        parts = np.array_split(signal, -(-len(signal) // round(_PIECE_S * _RATE)))
        vectors = [self.model.embed(part) * np.float32(len(part)) for part in parts]
        return np.asarray(np.sum(vectors, axis=0), dtype=np.float32)


@dataclass(frozen=True)
class Words:
    """What a recogniser heard in pairs.

    Args:
        transcribed: References that are the text beside the clean file.
        heard: References that are what the recogniser hears in the clean file.
        sides: Scores of `before` (where there is one) and of `degraded`.
    """

    transcribed: int
    heard: int
    sides: tuple[SetScore, ...]


def judge_words(
    pairs: Sequence[quality_report.Pair], judge: Recogniser, normaliser: str = "verbatim"
) -> Words:
    """Score what is heard in the recordings against the text beside the clean one.

    The text of `x.flac` is that of `x.txt`; without such a file it is what the recogniser hears in
    the clean recording itself. A recording that is missing or cannot be read counts as one in which
    nothing was heard; a clean one without a text that cannot be read is left out.

    Args:
        pairs: The recordings.
        judge: Hears words.
        normaliser: Of the words, as `load_normaliser` takes it.
    """
    texts = {pair.id: pair.reference.with_suffix(".txt") for pair in pairs}
    written = {key: path.read_text("utf-8").strip() for key, path in texts.items() if path.exists()}
    heard = {pair.id: _heard(judge, pair.reference) for pair in pairs if pair.id not in written}
    references = written | heard

    def side(name: str) -> SetScore:
        paths = [(pair.id, getattr(pair, name)) for pair in pairs]
        items = [wer.Pair(key, references[key], _heard(judge, path)) for key, path in paths]
        return score_set(name, items, normaliser=normaliser)

    names = ["before"] if any(pair.before is not None for pair in pairs) else []
    found = tuple(side(name) for name in (*names, "degraded"))
    return Words(len(written), len(heard), found)


def _heard(judge: Recogniser, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return judge.transcribe(path).text
    except AudioError:
        return None

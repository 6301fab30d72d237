"""The recogniser: a frozen encoder and a decoder that turn recordings into text."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speechadapt.adapters.handle import attachments
from speechadapt.adapters.routing import Names
from speechadapt.adapters.speaking import encode_spoken
from speechadapt.audio.chunk import segments
from speechadapt.audio.io import decode_audio
from speechadapt.audio.margin import add_margin
from speechadapt.audio.span import Signal
from speechadapt.audio.vad import speech_detector
from speechadapt.core.errors import AudioError, ShapeError
from speechadapt.core.shapes import Clip, Waveform
from speechadapt.decoders.base import Decoder, Hypothesis
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.source import fingerprint_module
from speechadapt.models.told import Told
from speechadapt.models.transcript import Piece, Transcript, assemble

OPEN_WINDOW_S = 30.0
_VERSIONS = ("speechadapt", "torch", "transformers")


class Recogniser:
    """An encoder with a decoder for its frames.

    Args:
        name: What it was loaded by.
        encoder: Turns waveforms into frames.
        decoder: Turns frames into text.
        language: Code of its one language, None where it has several or nobody says.
        margin_s: Seconds of faint hiss put on either side of a clip (see `audio.margin`); word
            times are those of the clip itself.

    Attributes:
        sample_rate: Hz of the waveforms it takes.
        window_s: Longest clip in seconds that is decoded whole. An encoder that takes any length
            gets 30 s, because attention grows with the square of the length.
        speaks: Adapters composed (see `adapters.composed`), whose weights every hypothesis then
            says under `adapters`; None where nothing is composed.
        told: What its adapter is told about every clip (see `models.told.tell`); None where it
            reads nothing.
    """

    def __init__(
        self,
        name: str,
        encoder: Encoder,
        decoder: Decoder,
        language: str | None = None,
        margin_s: float = 0.0,
    ) -> None:
        self.name = name
        self.encoder = encoder.eval()
        self.decoder = decoder.eval()
        self.language = language
        self.margin_s = margin_s
        self.sample_rate = encoder.sample_rate
        self.window_s = encoder.window_s or OPEN_WINDOW_S
        self.speaks: Names | None = None
        self.told: Told | None = None
        self._weights: dict[str, str] | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells this recogniser from every other one, JSON types only.

        Weights by hash (taken once, so change none afterwards), decode settings, the precision and
        the versions of the packages whose change may change a text. Not the device.
        """
        if self._weights is None:
            self._weights = {
                "encoder": fingerprint_module(self.encoder.model),
                "decoder": fingerprint_module(self.decoder),
            } | {
                f"adapter {name}": fingerprint_module(handle.module)
                for name, handle in attachments(self.encoder).items()
            }
        return {
            "weights": self._weights,
            "family": self.encoder.family,
            "margin_s": self.margin_s,
            "dtype": str(next(self.encoder.model.parameters()).dtype).removeprefix("torch."),
            "decoder": {"name": self.decoder.name} | self.decoder.settings(),
            "versions": {package: version(package) for package in _VERSIONS},
        } | ({} if self.told is None else {"told": dict(self.told.sources)})

    @torch.inference_mode()
    def decode_batch(
        self, waveforms: Sequence[Signal], languages: Sequence[str | None] | None = None
    ) -> list[Hypothesis]:
        """Write one hypothesis per clip, the same in any batch.

        Args:
            waveforms: Mono clips at `sample_rate`, full scale 1.0, none longer than `window_s`. A
                clip without samples gets the empty text.
            languages: BCP 47 code of each clip's speech where somebody said it; read by models of
                several languages alone.

        Raises:
            ShapeError: A clip is longer than the window.
        """
        most = round(self.window_s * self.sample_rate)
        for row, waveform in enumerate(waveforms):
            if len(waveform) > most:
                raise ShapeError(
                    f"clip {row} of the batch lasts {len(waveform) / self.sample_rate:.2f} s; "
                    f"{self.name} takes {self.window_s:g} s. Use transcribe(), which cuts."
                )
        results = [Hypothesis("")] * len(waveforms)
        heard = [row for row, waveform in enumerate(waveforms) if len(waveform)]
        if heard:
            clips = [self._clip(waveforms[row]) for row in heard]
            said = None if languages is None else [languages[row] for row in heard]
            found = self._heard(clips, said)
            for row, hypothesis in zip(heard, found, strict=True):
                seconds = len(waveforms[row]) / self.sample_rate
                results[row] = _without_margin(hypothesis, self.margin_s, seconds)
        return results

    def transcribe(
        self,
        audio: str | Path | npt.NDArray[Any],
        sample_rate: int | None = None,
        *,
        batch_size: int = 8,
    ) -> Transcript:
        """Transcribe one recording.

        A recording no longer than `window_s` is decoded whole. A longer one is cut where nobody
        speaks into pieces of at most a window.

        Args:
            audio: A file, or samples at full scale 1.0, `[samples]` or `[samples, channels]`;
                channels are mixed by their mean.
            sample_rate: Hz of the samples; not for files.
            batch_size: Pieces decoded at a time.

        Raises:
            AudioError: The recording cannot be used; its `reason` says which case.
            ShapeError: Samples without a rate, or of more than two axes.
        """
        waveform = self._waveform(audio, sample_rate)
        duration = len(waveform) / self.sample_rate
        if duration <= self.window_s:
            pieces = [Piece(0.0, duration, self.decode_batch([waveform])[0])]
            return assemble(pieces, duration, self.language)
        parts = list(segments([waveform], speech_detector(), self.window_s))
        if not parts:
            return Transcript("", self.language, (), duration, ("no_speech",))
        pieces = []
        for at in range(0, len(parts), batch_size):
            batch = parts[at : at + batch_size]
            found = self.decode_batch([part.waveform for part in batch])
            pieces += [
                Piece(part.start_s, part.end_s, hypothesis)
                for part, hypothesis in zip(batch, found, strict=True)
            ]
        return assemble(pieces, duration, self.language)

    def _heard(
        self, clips: Sequence[Clip], languages: Sequence[str | None] | None
    ) -> list[Hypothesis]:
        rate = self.encoder.frame_rate
        if self.speaks is None:
            told = nullcontext() if self.told is None else self.told.of(self.encoder, len(clips))
            with told:
                frames, lengths = self.encoder.encode(clips)
            return list(self.decoder.decode(frames, lengths, rate, languages))
        frames, lengths, spoken = encode_spoken(self.encoder, self.speaks, clips)
        found = self.decoder.decode(frames, lengths, rate, languages)
        return [
            replace(one, details={**one.details, "adapters": weights})
            for one, weights in zip(found, spoken, strict=True)
        ]

    def _clip(self, waveform: Signal) -> Waveform:
        padded = add_margin(waveform, self.sample_rate, self.margin_s)
        return torch.from_numpy(np.ascontiguousarray(padded))

    def _waveform(self, audio: str | Path | npt.NDArray[Any], sample_rate: int | None) -> Signal:
        if not isinstance(audio, np.ndarray):
            if sample_rate is not None:
                raise ShapeError("sample_rate goes with samples; a file states its own.")
            return decode_audio(Path(audio).expanduser(), self.sample_rate).waveform
        if sample_rate is None:
            raise ShapeError(f"samples need their sample_rate in Hz ({self.name} resamples them).")
        if audio.ndim not in (1, 2):
            raise ShapeError(f"samples are [samples] or [samples, channels], got {audio.shape}.")
        if not np.issubdtype(audio.dtype, np.floating):
            raise ShapeError(f"samples are floats of full scale 1.0, got {audio.dtype}.")
        mono = audio if audio.ndim == 1 else audio.mean(axis=1)
        if not np.isfinite(mono).all():
            raise AudioError("NONFINITE", "the samples hold NaN or infinity.")
        if sample_rate != self.sample_rate:
            import soxr

            mono = soxr.resample(mono, sample_rate, self.sample_rate)
        return np.ascontiguousarray(mono, dtype=np.float32)


def _without_margin(hypothesis: Hypothesis, margin_s: float, seconds: float) -> Hypothesis:
    if not margin_s or not hypothesis.words:
        return hypothesis

    def back(time: float) -> float:
        return min(max(time - margin_s, 0.0), seconds)

    words = tuple(
        replace(word, start=back(word.start), end=back(word.end)) for word in hypothesis.words
    )
    return replace(hypothesis, words=words)

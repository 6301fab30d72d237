"""The restorer: degraded speech at any rate in, restored speech of exactly that length out.

A restorer's folder is whole in itself: `config.json`, `encoder/` (the layers of the frozen encoder
that it needs, as transformers stores them), `cleaner/` (a saved adapter) and `vocoder/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float32

from speechadapt.audio.io import decode_channels
from speechadapt.audio.loudness import loudness_gain
from speechadapt.audio.span import Signal
from speechadapt.audio.writer import AudioWriter
from speechadapt.core.errors import AudioError, CheckpointError
from speechadapt.core.seed import derive_seed
from speechadapt.encoders.source import fingerprint_module
from speechadapt.restoration.cleaner import Cleaner
from speechadapt.restoration.frames import frame_hop, framed
from speechadapt.restoration.level import matching_gain, unclipped, wanted_loudness
from speechadapt.restoration.masking import masked
from speechadapt.restoration.request import Length, RestoreConfig, SignalName
from speechadapt.restoration.seams import Cutter, Piece, joined
from speechadapt.restoration.vocoder import Vocoder

_BLOCK_S = 10.0
_VERSIONS = ("speechadapt", "torch", "transformers")


@dataclass(frozen=True)
class Restored:
    """A restored recording.

    Args:
        waveforms: Channels one above the other; full scale 1.0.
        sample_rate: Hz.
    """

    waveforms: Float32[np.ndarray, "channels samples"]
    sample_rate: int

    def save(self, path: str | Path) -> Path:
        """Write a file.

        Args:
            path: Its suffix says the format: `.flac`, `.wav` or `.opus`.

        Raises:
            ConfigError: The format is none of these, or does not know the rate.
        """
        target = Path(path)
        name = target.suffix.removeprefix(".").lower()
        with AudioWriter(target, name, self.sample_rate, len(self.waveforms)) as writer:
            writer.write(self.waveforms)
        return target


class Restorer:
    """A cleaner and a vocoder made for its features.

    Args:
        cleaner: Predicts clean features.
        vocoder: Turns them into a waveform.
        signal: What comes out where nobody says: see `RestoreConfig`.

    Raises:
        CheckpointError: The vocoder reads features of another width or rate.
    """

    def __init__(
        self, cleaner: Cleaner, vocoder: Vocoder, signal: SignalName = "generated"
    ) -> None:
        encoder, speech = cleaner.encoder, vocoder.speech
        if encoder.dim != speech.dim or abs(encoder.frame_rate - speech.frame_rate) > 1e-6:
            raise CheckpointError(
                f"the cleaner gives frames of width {encoder.dim} at {encoder.frame_rate:g} Hz, "
                f"the vocoder was made for width {speech.dim} at {speech.frame_rate:g} Hz."
            )
        self.cleaner = cleaner
        self.vocoder = vocoder
        self.signal = signal
        self.hop = frame_hop(encoder, encoder.sample_rate)
        self.sample_rate = speech.sample_rate

    @property
    def input_rate(self) -> int:
        """Hz of what the encoder hears."""
        return self.cleaner.encoder.sample_rate

    def to(self, device: str | torch.device, dtype: torch.dtype = torch.float32) -> Restorer:
        """Move all parts; return self.

        Args:
            device: A torch device.
            dtype: Of their arithmetic.
        """
        self.cleaner.encoder.to(torch.device(device), dtype)
        self.vocoder.to(torch.device(device), dtype)
        return self

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells this restorer from every other one, JSON types only.

        Weights by hash, the vocoder's settings, the precision, and the versions of the packages
        whose change may change a sample. Not the device.
        """
        cleaner, model = self.cleaner, self.cleaner.encoder.model
        front = {} if cleaner.front is None else {"front": fingerprint_module(cleaner.front)}
        return {
            "weights": {
                "encoder": fingerprint_module(model),
                "cleaner": fingerprint_module(cleaner.handle.module),
                "vocoder": fingerprint_module(self.vocoder),
            }
            | front,
            "vocoder": {"kind": self.vocoder.kind} | asdict(self.vocoder.config),
            "signal": self.signal,
            "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
            "versions": {package: version(package) for package in _VERSIONS},
        }

    @overload
    def restore(
        self,
        recording: str | Path,
        *,
        config: RestoreConfig | None = None,
        output_rate: int | None = None,
    ) -> Restored: ...

    @overload
    def restore(
        self,
        recording: Float32[np.ndarray, "*channels samples"],
        sample_rate: int,
        config: RestoreConfig | None = None,
        output_rate: int | None = None,
    ) -> Float32[np.ndarray, "*channels restored"]: ...

    def restore(
        self,
        recording: str | Path | Float32[np.ndarray, "*channels samples"],
        sample_rate: int | None = None,
        config: RestoreConfig | None = None,
        output_rate: int | None = None,
    ) -> Restored | Float32[np.ndarray, "*channels restored"]:
        """Restore a recording, channel by channel.

        Args:
            recording: A file; or one channel, or several one above the other, full scale 1.0.
            sample_rate: Hz, of samples.
            config: How; None takes the defaults.
            output_rate: Of the result, in Hz; None keeps the recording's.

        Returns:
            As many channels, and exactly as many samples at the same rate, or
            `round(samples * output_rate / sample_rate)` at another; nothing reaches full scale. A
            channel without any sound comes back as silence.

        Raises:
            AudioError: There are no samples, some are no numbers, or the file cannot be read.
            ConfigError: The level is none.
        """
        if isinstance(recording, str | Path):
            waveforms, rate = decode_channels(Path(recording))
            made = self.restore(waveforms, rate, config, output_rate)
            return Restored(made, rate if output_rate is None else output_rate)
        chosen = RestoreConfig() if config is None else config
        loudness = wanted_loudness(chosen.level)
        if sample_rate is None:
            raise TypeError("restore(samples, sample_rate): samples need their rate in Hz.")
        if not recording.shape[-1]:
            raise AudioError("EMPTY", "a recording without samples cannot be restored.")
        if not np.isfinite(recording).all():
            raise AudioError("NONFINITE", "the recording holds NaN or infinity.")
        rate = sample_rate if output_rate is None else output_rate
        rows = recording.reshape(-1, recording.shape[-1])
        restored = np.stack([self._row(row, sample_rate, rate, chosen) for row in rows])
        if loudness is not None:
            restored = restored * np.float32(loudness_gain(restored, rate, loudness))
        return unclipped(restored).reshape(*recording.shape[:-1], restored.shape[1])

    def _row(self, signal: Signal, sample_rate: int, rate: int, config: RestoreConfig) -> Signal:
        length = Length(len(signal), sample_rate, rate)
        if float(np.ptp(signal)) == 0.0:
            return np.zeros(length.restored, dtype=np.float32)
        heard = _resampled(signal, sample_rate, self.input_rate)
        block = round(_BLOCK_S * self.input_rate)
        blocks = (heard[start : start + block] for start in range(0, len(heard), block))
        return np.concatenate(list(self.channel(blocks, length, config)))

    def channel(
        self, blocks: Iterable[Signal], length: Length, config: RestoreConfig
    ) -> Iterator[Signal]:
        """Restore one channel of known length, in bounded memory, at the level it came with.

        Args:
            blocks: Samples at `input_rate`, in any portions; they do not change the result.
            length: The channel's before and after.
            config: How; its level is not looked at.

        Yields:
            Portions at the wanted rate, exactly `length.restored` samples in all.
        """
        made = first_of(self.stream(blocks, config), length.at(self.sample_rate))
        if self.sample_rate != length.output_rate:
            made = _resampled_stream(made, self.sample_rate, length.output_rate)
        left = length.restored
        for portion in first_of(made, left):
            left -= len(portion)
            yield portion
        if left:
            yield np.zeros(left, dtype=np.float32)

    def stream(self, blocks: Iterable[Signal], config: RestoreConfig) -> Iterator[Signal]:
        """Restore one channel block by block, in bounded memory, at the level it came with.

        Args:
            blocks: Samples at `input_rate`, in any portions; they do not change the result.
            config: How; its level is not looked at.

        Yields:
            Portions at the vocoder's rate, a whole number of frames in all: the last one covers
            the last sample.
        """
        cutter = Cutter(config.pieces, self.cleaner.encoder.frame_rate, self.hop)
        fade = 2 * cutter.half_fade * self.vocoder.speech.hop
        parts = (
            self._part(piece, cutter.half_fade, derive_seed(config.seed, number), config)
            for number, piece in enumerate(cutter.pieces(blocks))
        )
        yield from joined(parts, fade)

    @torch.no_grad()
    def _part(self, piece: Piece, half_fade: int, seed: int, config: RestoreConfig) -> Signal:
        """Return a piece restored, with half a fade beyond every cut."""
        encoder, hop = self.cleaner.encoder, self.vocoder.speech.hop
        waveform = torch.from_numpy(np.ascontiguousarray(piece.samples))
        frames, _ = self.cleaner.encode([framed(waveform, encoder)])
        random = torch.Generator().manual_seed(seed)
        made = self.vocoder(frames, config.iterations, random)[-1][0].float().cpu().numpy()
        heard = piece.samples
        as_heard = _resampled(made, self.sample_rate, self.input_rate)
        shared = min(len(heard), len(as_heard))
        made = made * np.float32(matching_gain(as_heard[:shared], heard[:shared]))
        if (config.signal or self.signal) == "masked":
            own = _resampled(heard, self.input_rate, self.sample_rate)[: len(made)]
            own = np.pad(own, (0, len(made) - len(own)))
            made = masked(own, made, self.sample_rate, config.mask)
        start = piece.lead - (0 if piece.first else half_fade)
        end = piece.lead + piece.frames + (0 if piece.last else half_fade)
        return np.asarray(made[start * hop : end * hop], dtype=np.float32)


def first_of(portions: Iterable[Signal], count: int) -> Iterator[Signal]:
    """Yield so many samples at most; the portions are used up all the same.

    Args:
        portions: A signal.
        count: How many.
    """
    for portion in portions:
        if count > 0:
            yield portion[:count]
        count -= len(portion)


def _resampled(signal: Signal, sample_rate: int, rate: int) -> Signal:
    if sample_rate == rate:
        return signal
    import soxr

    return np.asarray(soxr.resample(signal, sample_rate, rate), dtype=np.float32)


def _resampled_stream(portions: Iterable[Signal], sample_rate: int, rate: int) -> Iterator[Signal]:
    import soxr

    stream = soxr.ResampleStream(sample_rate, rate, 1, dtype="float32")
    for portion in portions:
        yield stream.resample_chunk(portion)
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)

"""The restorer: degraded speech at any rate in, restored speech of exactly that length out.

A restorer's folder holds `restorer.json` (which frozen encoder it needs), `cleaner/` (a saved
adapter) and `vocoder/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from speechadapt.adapters import store
from speechadapt.audio.loudness import loudness_gain
from speechadapt.audio.span import Signal
from speechadapt.core.errors import AudioError, CheckpointError
from speechadapt.core.files import atomic_write_json, read_json
from speechadapt.core.limits import Count
from speechadapt.core.seed import derive_seed
from speechadapt.models.build import find_model
from speechadapt.restoration.cleaner import Cleaner, cleaner_layer, load_cleaner
from speechadapt.restoration.frames import frame_hop, framed
from speechadapt.restoration.level import (
    KEEP,
    matching_gain,
    unclipped,
    wanted_loudness,
)
from speechadapt.restoration.seams import Cutter, Piece, PieceConfig, joined
from speechadapt.restoration.vocoder import Vocoder
from speechadapt.restoration.vocoder_folder import load_vocoder, read_vocoder

CONFIG = "restorer.json"
FORMAT = "speechadapt restorer"
_BLOCK_S = 10.0


@dataclass(frozen=True)
class RestoreConfig:
    """How recordings are restored.

    Args:
        iterations: Of the vocoder; None takes its own number.
        level: `keep`, or a loudness such as `-23LUFS`.
        pieces: How long recordings are cut.
        seed: Of the initial noise of a vocoder that starts from noise.
    """

    iterations: Count | None = None
    level: str = KEEP
    pieces: PieceConfig = field(default_factory=PieceConfig)
    seed: int = 0


class Restorer:
    """A cleaner and a vocoder made for its features.

    Args:
        cleaner: Predicts clean features.
        vocoder: Turns them into a waveform.

    Raises:
        CheckpointError: The vocoder reads features of another width or rate.
    """

    def __init__(self, cleaner: Cleaner, vocoder: Vocoder) -> None:
        encoder, speech = cleaner.encoder, vocoder.speech
        if encoder.dim != speech.dim or abs(encoder.frame_rate - speech.frame_rate) > 1e-6:
            raise CheckpointError(
                f"the cleaner gives frames of width {encoder.dim} at {encoder.frame_rate:g} Hz, "
                f"the vocoder was made for width {speech.dim} at {speech.frame_rate:g} Hz."
            )
        self.cleaner = cleaner
        self.vocoder = vocoder
        self.hop = frame_hop(encoder, encoder.sample_rate)
        self.sample_rate = speech.sample_rate

    @property
    def input_rate(self) -> int:
        """Hz of what the encoder hears."""
        return self.cleaner.encoder.sample_rate

    def to(self, device: str | torch.device) -> Restorer:
        """Move all parts; return self.

        Args:
            device: A torch device.
        """
        self.cleaner.encoder.to(torch.device(device))
        self.vocoder.to(torch.device(device))
        return self

    def restore(
        self,
        waveforms: Float32[np.ndarray, "*channels samples"],
        sample_rate: int,
        config: RestoreConfig | None = None,
        output_rate: int | None = None,
    ) -> Float32[np.ndarray, "*channels restored"]:
        """Restore a recording, channel by channel.

        Args:
            waveforms: One channel, or several one above the other; full scale 1.0.
            sample_rate: Hz.
            config: How; None takes the defaults.
            output_rate: Of the result, in Hz; None keeps the recording's.

        Returns:
            As many channels, and exactly as many samples at the same rate, or
            `round(samples * output_rate / sample_rate)` at another; nothing reaches full scale. A
            channel without any sound comes back as silence.

        Raises:
            AudioError: There are no samples, or some are no numbers.
            ConfigError: The level is none.
        """
        chosen = RestoreConfig() if config is None else config
        wanted_loudness(chosen.level)
        if not waveforms.shape[-1]:
            raise AudioError("EMPTY", "a recording without samples cannot be restored.")
        if not np.isfinite(waveforms).all():
            raise AudioError("NONFINITE", "the recording holds NaN or infinity.")
        rate = sample_rate if output_rate is None else output_rate
        length = round(waveforms.shape[-1] * rate / sample_rate)
        rows = waveforms.reshape(-1, waveforms.shape[-1])
        made = [self._channel(row, sample_rate, rate, length, chosen) for row in rows]
        return np.stack(made).reshape(*waveforms.shape[:-1], length)

    def _channel(
        self, signal: Signal, sample_rate: int, rate: int, length: int, config: RestoreConfig
    ) -> Signal:
        if float(np.ptp(signal)) == 0.0:
            return np.zeros(length, dtype=np.float32)
        heard = _resampled(signal, sample_rate, self.input_rate)
        block = round(_BLOCK_S * self.input_rate)
        blocks = (heard[start : start + block] for start in range(0, len(heard), block))
        made = np.concatenate(list(self.stream(blocks, config)))
        made = _resampled(
            made[: round(len(signal) * self.sample_rate / sample_rate)], self.sample_rate, rate
        )
        made = np.pad(made[:length], (0, max(0, length - len(made))))
        loudness = wanted_loudness(config.level)
        if loudness is not None:
            made = made * np.float32(loudness_gain(made, rate, loudness))
        return unclipped(made)

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
        gain = matching_gain(as_heard[:shared], heard[:shared])
        start = piece.lead - (0 if piece.first else half_fade)
        end = piece.lead + piece.frames + (0 if piece.last else half_fade)
        return np.asarray(made[start * hop : end * hop] * np.float32(gain), dtype=np.float32)


def _resampled(signal: Signal, sample_rate: int, rate: int) -> Signal:
    if sample_rate == rate:
        return signal
    import soxr

    return np.asarray(soxr.resample(signal, sample_rate, rate), dtype=np.float32)


def assemble(cleaner: Path, vocoder: Path, folder: Path) -> Path:
    """Put a trained cleaner and a trained vocoder together as a restorer.

    Args:
        cleaner: Folder of the cleaner.
        vocoder: Folder of the vocoder.
        folder: The restorer's; is made.

    Returns:
        `folder`.

    Raises:
        CheckpointError: A folder is damaged, or the vocoder was made for other features.
    """
    base, features = store.read(cleaner).base, read_vocoder(vocoder)["features"]
    layer = cleaner_layer(cleaner)
    theirs: dict[str, Any] = features.get("base", {})
    if features.get("layer") != layer or theirs.get("files") != base.get("files"):
        raise CheckpointError(
            f"the cleaner gives features of layer {layer} of {base.get('name')} "
            f"({str(base.get('files'))[:8]}...), the vocoder reads layer {features.get('layer')} "
            f"of {theirs.get('name')} ({str(theirs.get('files'))[:8]}...). Train them on the same."
        )
    for source, name in ((cleaner, "cleaner"), (vocoder, "vocoder")):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(source, folder / name)
    atomic_write_json(folder / CONFIG, {"format": FORMAT, "version": 1, "base": base})
    return folder


def load_restorer(folder: Path, base: str | Path | None = None) -> Restorer:
    """Load a restorer.

    Args:
        folder: What `assemble` wrote.
        base: The frozen encoder: a bundled model, a folder or a hub id; None takes the one that
            the restorer names.

    Returns:
        The restorer, on the CPU.

    Raises:
        CatalogError: The encoder is not there.
        CheckpointError: The folder is damaged, or the encoder is another one.
    """
    try:
        facts = read_json(folder / CONFIG)
        known = facts["format"] == FORMAT
        named = facts["base"]["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"'{folder}' was to be read as a restorer, but: {error}") from error
    if not known:
        raise CheckpointError(f"'{folder}' holds a '{facts['format']}', which is no restorer.")
    found = find_model(named if base is None else base)
    cleaner = load_cleaner(folder / "cleaner", found)
    return Restorer(cleaner, load_vocoder(folder / "vocoder"))

"""Input features of the three encoders, equal to the transformers extractors but batched.

The extractors that ship with the models loop over frames in NumPy or always pad to the full
window. Here the same numbers come from batched torch code. Windows, mel filters and sizes are read
from the extractor objects, so no constant of theirs is written twice, and every row depends on its
own samples alone: a batch equals its singles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import ASTFeatureExtractor, SeamlessM4TFeatureExtractor, WhisperFeatureExtractor

from speechadapt.core.errors import ShapeError
from speechadapt.core.shapes import Clip, Frames, Lengths, Waveform, length_mask

_WINDOW, _HOP, _FFT = 400, 160, 512  # Kaldi's 25 ms window every 10 ms at 16 kHz
_PREEMPHASIS = 0.97
_LOG_FLOOR = 1.192092955078125e-07
_WHISPER_FLOOR = 1e-10
_BLOCK_FRAMES = 1024  # 4 MB of doubles: larger blocks fall out of the cache and run 4x slower


def seamless_fbank(
    waveforms: Sequence[Clip], stride: int, num_mel_bins: int, normalise: bool = True
) -> tuple[Frames, Lengths]:
    """Compute w2v-BERT's stacked log-mel filter banks, as `SeamlessM4TFeatureExtractor` does.

    Kaldi filter banks of 25 ms every 10 ms, each mel bin normalised over the clip's own frames,
    then `stride` neighbouring frames side by side. Frames left over at the end of a clip are
    dropped, so the row count never depends on the rest of the batch. A clip too short for one
    stack (`400 + 160 (stride - 1)` samples) is extended with zeros to exactly one. Computed on the
    CPU.

    Args:
        waveforms: Mono signals at 16 kHz, full scale 1.0.
        stride: Frames per stack, at least 1; the rows come at `100 / stride` Hz.
        num_mel_bins: Mel bins per frame.
        normalise: Give each mel bin zero mean and unit variance over the clip.

    Returns:
        Stacks of `stride * num_mel_bins` values in float32 on the CPU, zero past each length, and
        the valid number of stacks per row.

    Raises:
        ShapeError: There is no waveform.

    Source:
        transformers, `models/seamless_m4t/feature_extraction_seamless_m4t.py`.
    """
    _sample_counts(waveforms)
    shortest = _WINDOW + _HOP * (stride - 1)
    clips = [_at_least(waveform, shortest).cpu() for waveform in waveforms]
    framed = [clip.unfold(0, _WINDOW, _HOP) for clip in clips]
    window, mel_filters = _seamless_constants(num_mel_bins)
    blocks = torch.split(torch.cat(framed), _BLOCK_FRAMES)
    energies = torch.cat([_kaldi_log_mel(block, window, mel_filters) for block in blocks])
    rows = []
    for clip in torch.split(energies, [frames.shape[0] for frames in framed]):
        values = _standardise(clip) if normalise else clip
        stacks = values.shape[0] // stride
        rows.append(values[: stacks * stride].reshape(stacks, stride * num_mel_bins))
    return _pad_rows(rows)


def whisper_log_mel(
    waveforms: Sequence[Clip], extractor: WhisperFeatureExtractor, padding: str = "full"
) -> tuple[Float[Tensor, "batch mels time"], Lengths]:
    """Compute Whisper's log-mel features, as `WhisperFeatureExtractor` does, without its dither.

    Both paddings take each frame from the clip followed by zeros, so before the dynamic range is
    limited the native frames are the first frames of the full ones. The range (eight decades below
    the loudest value) is taken over the frames that are returned for the clip: the whole window
    for `full`, the clip's own frames for `native`. A clip shorter than one hop (160 samples)
    counts as one frame.

    Args:
        waveforms: Mono signals at 16 kHz, full scale 1.0, none longer than the window.
        extractor: Gives the filters, the window and the sizes.
        padding: `full` pads every row to the extractor's window; `native` to the longest clip.

    Returns:
        Features in float32, 100 frames per second, and the valid frames per row (whole hops of
        the clip, at least one). Past a length `full` rows hold the value of silence and `native`
        rows hold zeros.

    Raises:
        ShapeError: There is no waveform, or one is longer than the extractor's window; the message
            names both lengths.

    Source:
        transformers, `models/whisper/feature_extraction_whisper.py`.
    """
    samples = _sample_counts(waveforms)
    check_window(samples, extractor.n_samples, extractor.sampling_rate)
    hop, fft = int(extractor.hop_length), int(extractor.n_fft)
    # one FFT of zeros after the longest clip: every frame that touches a signal is computed, and
    # the reflection at the end of the buffer reflects zeros, or what the full window would reflect
    size = min(max(samples) + fft, extractor.n_samples)
    buffer = torch.stack([_at_least(waveform.float(), size) for waveform in waveforms])
    window = torch.hann_window(fft, device=buffer.device)
    spectrum = torch.stft(buffer, fft, hop, window=window, return_complex=True)[..., :-1]
    power = spectrum.real.square() + spectrum.imag.square()
    mel_filters = torch.from_numpy(extractor.mel_filters).to(buffer.device, torch.float32)
    log_mel = (mel_filters.T @ power.contiguous()).clamp(min=_WHISPER_FLOOR).log10()
    lengths = torch.tensor([max(count // hop, 1) for count in samples], device=buffer.device)
    if padding == "native":
        frames = int(lengths.max())
        valid = length_mask(lengths, frames)[:, None, :]
        silent = log_mel[..., :frames].masked_fill(~valid, math.log10(_WHISPER_FLOOR))
        return _limit_range(silent).masked_fill(~valid, 0.0), lengths
    missing = extractor.nb_max_frames - log_mel.shape[-1]
    padded = torch.nn.functional.pad(log_mel, (0, missing), value=math.log10(_WHISPER_FLOOR))
    return _limit_range(padded), lengths


def ast_fbank(
    waveforms: Sequence[Clip], extractor: ASTFeatureExtractor
) -> tuple[Float[Tensor, "batch time mels"], Lengths]:
    """Compute AST's filter banks with the model's own extractor.

    Frames of 25 ms every 10 ms, padded to the extractor's `max_length` and scaled by its mean and
    standard deviation. A clip shorter than one frame (400 samples) is extended with zeros to one.

    Args:
        waveforms: Mono signals at 16 kHz, full scale 1.0, none longer than the window.
        extractor: The model's own.

    Returns:
        Features in float32 on the CPU and the valid frames per row.

    Raises:
        ShapeError: There is no waveform, or one is longer than the window of
            `max_length / 100` seconds, which the extractor alone would cut off silently.
    """
    samples = _sample_counts(waveforms)
    check_window(samples, extractor.max_length * _HOP, extractor.sampling_rate)
    clips = [_at_least(waveform.float(), _WINDOW).cpu().numpy() for waveform in waveforms]
    rows = extractor(clips, sampling_rate=extractor.sampling_rate, return_tensors="np")
    features = torch.from_numpy(np.stack(rows["input_values"]))
    frames = [1 + (len(clip) - _WINDOW) // _HOP for clip in clips]
    return features, torch.tensor(frames)


def check_window(samples: Sequence[int], window: int, sample_rate: int) -> None:
    """Refuse clips longer than a model's window.

    Args:
        samples: Samples per clip.
        window: The most samples the model takes.
        sample_rate: In Hz.

    Raises:
        ShapeError: A clip is longer; the message names both lengths in seconds.
    """
    for row, count in enumerate(samples):
        if count > window:
            raise ShapeError(
                f"clip {row} of the batch lasts {count / sample_rate:.3f} s ({count} samples), but "
                f"the encoder's window is {window / sample_rate:.3f} s ({window} samples). "
                "Cut recordings into segments that fit first."
            )


def _limit_range(log_mel: Float[Tensor, "batch mels time"]) -> Float[Tensor, "batch mels time"]:
    loudest = log_mel.amax(dim=(1, 2), keepdim=True)
    return (torch.maximum(log_mel, loudest - 8.0) + 4.0) / 4.0


def _kaldi_log_mel(
    frames: Float[Tensor, "frames window"],
    window: Float[Tensor, " window"],
    mel_filters: Float[Tensor, "bins mels"],
) -> Float[Tensor, "frames mels"]:
    # double precision: quiet bins of a loud frame drown in float32 rounding
    samples = frames.double() * 2**15
    samples = samples - samples.mean(dim=1, keepdim=True)
    shifted = torch.cat([samples[:, :1], samples[:, :-1]], dim=1)
    samples = (samples - _PREEMPHASIS * shifted) * window
    # the extractor keeps its spectrum in single precision, and that rounding shows in quiet bins
    spectrum = torch.fft.rfft(samples, n=_FFT).to(torch.complex64)
    power = spectrum.real.double().square() + spectrum.imag.double().square()
    energies: Tensor = power @ mel_filters
    return energies.clamp(min=_LOG_FLOOR).log().float()


def _standardise(values: Float[Tensor, "frames mels"]) -> Float[Tensor, "frames mels"]:
    if values.shape[0] == 1:  # one frame has no sample variance; centred it is zero
        return torch.zeros_like(values)
    # NumPy and column order, as in the extractor: float32 sums depend on both, at 1e-5
    array = np.asfortranarray(values.numpy())
    spread = np.sqrt(array.var(axis=0, ddof=1) + 1e-7)
    return torch.from_numpy(np.ascontiguousarray((array - array.mean(axis=0)) / spread))


@lru_cache(maxsize=4)
def _seamless_constants(num_mel_bins: int) -> tuple[Tensor, Tensor]:
    extractor = SeamlessM4TFeatureExtractor(feature_size=num_mel_bins, num_mel_bins=num_mel_bins)
    window = torch.from_numpy(np.asarray(extractor.window, dtype=np.float64))
    filters = torch.from_numpy(np.asarray(extractor.mel_filters, dtype=np.float64))
    return window, filters


def _sample_counts(waveforms: Sequence[Clip]) -> list[int]:
    if not waveforms:
        raise ShapeError("features of 0 waveforms were asked for; a batch holds at least one.")
    return [waveform.shape[0] for waveform in waveforms]


def _at_least(waveform: Waveform, samples: int) -> Float[Tensor, " extended"]:
    missing = samples - waveform.shape[0]
    return torch.nn.functional.pad(waveform, (0, missing)) if missing > 0 else waveform


def _pad_rows(rows: Sequence[Float[Tensor, "_ dim"]]) -> tuple[Frames, Lengths]:
    lengths = torch.tensor([row.shape[0] for row in rows], device=rows[0].device)
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True), lengths

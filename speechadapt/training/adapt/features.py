"""Features of training rows for any encoder family, augmented as pictures of frames and bands.

Augmentation works on `[frames, bands]`; every family packs those in its own way. Without any
augmentation of features the result is the encoder's own `extract`, untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechadapt.audio.augment import AugmentConfig, augment_features
from speechadapt.audio.margin import add_margin
from speechadapt.core.errors import ConfigError
from speechadapt.core.shapes import Lengths
from speechadapt.encoders.base import Encoder
from speechadapt.training.speech import SpeechRow

Picture = NDArray[np.float32]


class FeatureMaker:
    """Extracts and augments the features of training rows.

    Args:
        encoder: Whose features.
        augment: Ranges.
        margin_s: Hiss put on either side of a row, in seconds.

    Raises:
        ConfigError: Features are to be augmented and nobody knows how the family packs them.
    """

    def __init__(self, encoder: Encoder, augment: AugmentConfig, margin_s: float = 0.0) -> None:
        self.encoder = encoder
        self.augment = augment
        self.margin_s = margin_s
        window = encoder.window_s
        self._most = None if window is None else round(window * encoder.sample_rate)
        if augments_features(augment) and encoder.family not in _PACKINGS:
            raise ConfigError(
                f"augment asks for changed features, but how {encoder.family} packs them is "
                f"known for {', '.join(_PACKINGS)} alone. Set augment.formant=0 "
                "augment.tempo=[1,1] augment.tilt_db=0 augment.time_masks=0 augment.band_masks=0."
            )

    def __call__(self, rows: Sequence[SpeechRow], step: int) -> tuple[Tensor, Lengths]:
        """Return the features of rows and the valid number of feature frames per row.

        Args:
            rows: Signals, cut to the encoder's window where it has one.
            step: Training step, for masks that start late.
        """
        rate = self.encoder.sample_rate
        signals = [add_margin(row.signal, rate, self.margin_s)[: self._most] for row in rows]
        clips = [torch.from_numpy(np.ascontiguousarray(signal)) for signal in signals]
        features, lengths = self.encoder.extract(clips)
        if not augments_features(self.augment):
            return features, lengths
        unpack, pack = _PACKINGS[self.encoder.family]
        changed = [
            augment_features(unpack(self.encoder, values, length), self.augment, row.random, step)
            for values, length, row in zip(features, lengths.tolist(), rows, strict=True)
        ]
        return pack(self.encoder, features, lengths.tolist(), changed)


def augments_features(augment: AugmentConfig) -> bool:
    """Return whether features of the same signal differ from draw to draw."""
    return bool(
        augment.formant
        or augment.tempo != (1.0, 1.0)
        or augment.tilt_db
        or augment.time_masks
        or augment.band_masks
    )


def augments_signal(augment: AugmentConfig, noises: bool, responses: bool) -> bool:
    """Return whether the signal of the same row differs from draw to draw.

    Args:
        augment: Probabilities.
        noises: Whether there is noise to add.
        responses: Whether there are rooms to convolve with.
    """
    return bool(
        augment.speed_prob
        or augment.band_limit_prob
        or (augment.noise_prob and noises)
        or (augment.reverb_prob and responses)
        or augment.gain_db[0] != augment.gain_db[1]
    )


def _unstack(encoder: Any, values: Tensor, length: int) -> Picture:
    stride = int(encoder.extractor.stride)
    return _plain(values[:length].reshape(length * stride, -1))


def _stack(
    encoder: Any, features: Tensor, lengths: Sequence[int], changed: Sequence[Picture]
) -> tuple[Tensor, Tensor]:
    stride = int(encoder.extractor.stride)
    rows = []
    for picture in changed:
        count = max(1, len(picture) // stride)
        missing = max(0, count * stride - len(picture))
        whole = np.pad(picture, ((0, missing), (0, 0)))[: count * stride]
        rows.append(torch.from_numpy(whole.reshape(count, -1)))
    counts = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), counts


def _turn(encoder: Any, values: Tensor, length: int) -> Picture:
    return _plain(values[:, :length].T)


def _turn_back(
    encoder: Any, features: Tensor, lengths: Sequence[int], changed: Sequence[Picture]
) -> tuple[Tensor, Tensor]:
    native = encoder.padding == "native"
    most = 2 * int(encoder.config.max_source_positions)
    kept = [picture[:most] for picture in changed]
    size = max(map(len, kept)) if native else most
    batch = features.new_zeros(len(kept), features.shape[1], size)
    for number, picture in enumerate(kept):
        if not native:
            # past the clip come its last frame's remains, and silence: the lowest value there is
            batch[number] = features[number].min()
            past = features[number, :, lengths[number] :][:, : min(2, most - len(picture))]
            batch[number, :, len(picture) : len(picture) + past.shape[1]] = past
        batch[number, :, : len(picture)] = torch.from_numpy(picture.T)
    return batch, torch.tensor([len(picture) for picture in kept])


def _cut(encoder: Any, values: Tensor, length: int) -> Picture:
    return _plain(values[:length])


def _fill(
    encoder: Any, features: Tensor, lengths: Sequence[int], changed: Sequence[Picture]
) -> tuple[Tensor, Tensor]:
    extractor = encoder.extractor
    silence = -extractor.mean / (2 * extractor.std) if extractor.do_normalize else 0.0
    batch = torch.full_like(features, silence)
    kept = [picture[: features.shape[1]] for picture in changed]
    for number, picture in enumerate(kept):
        batch[number, : len(picture)] = torch.from_numpy(picture)
    return batch, torch.tensor([len(picture) for picture in kept])


def _plain(values: Tensor) -> Picture:
    return np.ascontiguousarray(values.numpy(), dtype=np.float32)


_Unpack = Callable[[Any, Tensor, int], Picture]
_Pack = Callable[[Any, Tensor, Sequence[int], Sequence[Picture]], tuple[Tensor, Tensor]]
_PACKINGS: dict[str, tuple[_Unpack, _Pack]] = {
    "w2v_bert": (_unstack, _stack),
    "whisper": (_turn, _turn_back),
    "ast": (_cut, _fill),
}

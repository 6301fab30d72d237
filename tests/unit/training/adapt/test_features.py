"""Features of every family, changed as pictures and packed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from speechadapt.audio.augment import AugmentConfig
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder
from speechadapt.training.adapt.features import FeatureMaker, augments_features, augments_signal
from speechadapt.training.speech import SpeechRow
from tests.tiny_tasks import PLAIN

SLOWER = replace(PLAIN, tempo=(0.8, 0.8))
FASTER = replace(PLAIN, tempo=(1.25, 1.25))
# Asks for a change of nothing: everything is unpacked and packed again.
THROUGH = replace(PLAIN, time_masks=1, time_mask_rate=0.0, mask_from_step=10**6)
FAMILIES = [("w2v_bert", "full"), ("whisper", "full"), ("whisper", "native"), ("ast", "full")]


@pytest.fixture(params=FAMILIES, ids="-".join)
def encoder(request: pytest.FixtureRequest, tiny_folder: Callable[[str], Path]) -> Encoder:
    """Return a tiny encoder of each family and padding."""
    family, padding = request.param
    return load_encoder(tiny_folder(family), padding=padding)


def rows(signal: Callable[..., Tensor]) -> list[SpeechRow]:
    """Return three rows of different lengths."""
    return [
        SpeechRow(signal(samples, seed).numpy(), "a", np.random.default_rng(seed))
        for seed, samples in enumerate((16000, 9600, 12345))
    ]


def test_without_augmentation_features_are_the_encoders_own(
    encoder: Encoder, signal: Callable[..., Tensor]
) -> None:
    given = rows(signal)
    features, lengths = FeatureMaker(encoder, PLAIN)(given, 0)
    own, counts = encoder.extract([torch.from_numpy(row.signal) for row in given])
    assert torch.equal(features, own)
    assert torch.equal(lengths, counts)


def test_features_that_change_by_nothing_are_packed_as_they_were(
    encoder: Encoder, signal: Callable[..., Tensor]
) -> None:
    assert augments_features(THROUGH)
    features, lengths = FeatureMaker(encoder, THROUGH)(rows(signal), 0)
    own, counts = FeatureMaker(encoder, PLAIN)(rows(signal), 0)
    assert torch.equal(lengths, counts)
    # what pads a row to the window is silence, which whisper's extractor puts one rounding away
    torch.testing.assert_close(features, own, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("augment", "factor"), [(SLOWER, 1.25), (FASTER, 0.8)])
def test_tempo_changes_the_length_within_the_window(
    encoder: Encoder, signal: Callable[..., Tensor], augment: AugmentConfig, factor: float
) -> None:
    features, lengths = FeatureMaker(encoder, augment)(rows(signal), 0)
    own, counts = FeatureMaker(encoder, PLAIN)(rows(signal), 0)
    assert (lengths - counts * factor).abs().max() <= 1.5
    frames, valid = encoder(features, lengths)
    assert torch.isfinite(frames).all()
    assert int(valid.max()) <= frames.shape[1]
    if encoder.window_s is not None and not encoder.masks_padding:
        assert features.shape == own.shape


def test_a_row_is_changed_by_its_own_randomness_alone(
    encoder: Encoder, signal: Callable[..., Tensor]
) -> None:
    maker = FeatureMaker(encoder, replace(PLAIN, tilt_db=6.0, band_masks=2))
    together, lengths = maker(rows(signal), 0)
    alone, own = maker(rows(signal)[1:2], 0)
    assert own[0] == lengths[1]
    axis = 1 if encoder.family == "whisper" else 0
    count = min(together[1].shape[axis], alone[0].shape[axis])
    torch.testing.assert_close(
        together[1].narrow(axis, 0, count), alone[0].narrow(axis, 0, count), rtol=0, atol=1e-5
    )
    untouched, _ = FeatureMaker(encoder, PLAIN)(rows(signal)[1:2], 0)
    assert (alone - untouched).abs().max() > 0.05


def test_a_margin_makes_rows_longer_and_the_window_cuts_them(
    tiny_folder: Callable[[str], Path], signal: Callable[..., Tensor]
) -> None:
    encoder = load_encoder(tiny_folder("w2v_bert"))
    plain, longer = (
        FeatureMaker(encoder, PLAIN, margin_s)(rows(signal), 0)[1] for margin_s in (0.0, 0.1)
    )
    assert set((longer - plain).tolist()) == {10}  # 0.2 s at 50 Hz
    encoder = load_encoder(tiny_folder("whisper"))
    _, lengths = FeatureMaker(encoder, PLAIN, 1.0)(rows(signal), 0)
    assert lengths.tolist() == [200, 200, 200]


def test_what_is_random_about_a_row_is_known() -> None:
    assert not augments_features(PLAIN)
    assert not augments_signal(PLAIN, True, True)
    assert augments_signal(replace(PLAIN, speed_prob=0.1), False, False)
    assert augments_signal(replace(PLAIN, gain_db=(-1.0, 1.0)), False, False)
    noisy = replace(PLAIN, noise_prob=0.5, reverb_prob=0.5)
    assert not augments_signal(noisy, False, False)
    assert augments_signal(noisy, True, False)
    assert augments_signal(noisy, False, True)


def test_a_family_that_packs_otherwise_is_refused(tiny_folder: Callable[[str], Path]) -> None:
    encoder = load_encoder(tiny_folder("ast"))
    encoder.family = "other"
    FeatureMaker(encoder, PLAIN)
    with pytest.raises(ConfigError, match="how other packs them is known for w2v_bert"):
        FeatureMaker(encoder, SLOWER)

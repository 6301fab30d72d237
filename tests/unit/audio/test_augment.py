from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from speechadapt.audio.augment import (
    AugmentConfig,
    add_noise,
    augment_features,
    augment_signal,
    band_limit,
    change_speed,
    fit_length,
    mask_features,
    reverberate,
    trim_quiet,
    warp_features,
)

RATE = 16000
OFF = AugmentConfig(
    speed_prob=0.0,
    band_limit_prob=0.0,
    noise_prob=0.0,
    reverb_prob=0.0,
    gain_db=(0.0, 0.0),
    tilt_db=0.0,
    formant=0.0,
    tempo=(1.0, 1.0),
    time_masks=0,
    band_masks=0,
)


def random(seed: int = 0) -> np.random.Generator:
    """Return a generator."""
    return np.random.default_rng(seed)


def noise(samples: int = RATE, seed: int = 0) -> NDArray[np.float32]:
    """Return white noise well below full scale."""
    return (0.05 * random(seed).standard_normal(samples)).astype(np.float32)


def tone(hertz: float, samples: int = RATE) -> NDArray[np.float32]:
    """Return a tone of amplitude 0.3."""
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)).astype(np.float32)


def peak_hz(signal: NDArray[np.float32]) -> float:
    """Return the strongest frequency."""
    return float(np.abs(np.fft.rfft(signal)).argmax() * RATE / len(signal))


def power_db(signal: NDArray[np.float32]) -> float:
    """Return the mean power in decibels."""
    return 10 * float(np.log10(np.mean(signal.astype(np.float64) ** 2)))


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
@pytest.mark.parametrize("samples", [RATE // 3, 2 * RATE])
def test_noise_is_added_at_the_ratio_asked_for(snr_db: float, samples: int) -> None:
    speech = tone(300.0)
    mixed = add_noise(speech, noise(samples, seed=1), snr_db, random())
    assert len(mixed) == len(speech)
    assert power_db(speech) - power_db(mixed - speech) == pytest.approx(snr_db, abs=0.01)


def test_silent_noise_leaves_the_speech_as_it_is() -> None:
    speech = tone(300.0)
    silent = np.zeros(100, dtype=np.float32)
    np.testing.assert_allclose(add_noise(speech, silent, 10.0, random()), speech, atol=1e-6)


def test_a_room_keeps_length_level_and_the_place_of_the_direct_path() -> None:
    click = np.zeros(4000, dtype=np.float32)
    click[1000] = 0.5
    response = np.zeros(600, dtype=np.float32)
    response[37], response[137] = 1.0, 0.4
    wet = reverberate(click, response)
    assert len(wet) == len(click)
    assert int(np.abs(wet).argmax()) == 1000
    assert wet[1100] / wet[1000] == pytest.approx(0.4, abs=1e-4)
    assert power_db(wet) == pytest.approx(power_db(click), abs=1e-3)


def test_a_telephone_band_has_nothing_above_four_kilohertz() -> None:
    signal = noise()
    narrow = band_limit(signal, RATE)
    assert len(narrow) == len(signal)
    spectrum = np.abs(np.fft.rfft(narrow)) ** 2
    hertz = np.fft.rfftfreq(len(narrow), 1 / RATE)
    original = np.abs(np.fft.rfft(signal)) ** 2
    assert spectrum[hertz > 4200].sum() < 1e-3 * original[hertz > 4200].sum()
    below = hertz < 3000
    assert spectrum[below].sum() == pytest.approx(original[below].sum(), rel=0.05)


@pytest.mark.parametrize("factor", [0.85, 1.18])
def test_speed_moves_length_and_pitch_together(factor: float) -> None:
    changed = change_speed(tone(400.0), factor)
    assert len(changed) == pytest.approx(RATE / factor, abs=2)
    assert peak_hz(changed) == pytest.approx(400.0 * factor, abs=2.0)


def test_signals_are_cut_or_padded_to_a_length() -> None:
    assert fit_length(tone(300.0), 10).tolist() == tone(300.0)[:10].tolist()
    padded = fit_length(tone(300.0, 10), 12)
    assert len(padded) == 12
    assert not padded[10:].any()
    assert padded.dtype == np.float32


def test_the_same_generator_state_gives_the_same_signal() -> None:
    config = AugmentConfig(speed_prob=1.0, band_limit_prob=0.5, noise_prob=1.0, reverb_prob=1.0)
    response = np.exp(-np.arange(300) / 50).astype(np.float32)

    def once(seed: int) -> NDArray[np.float32]:
        return augment_signal(tone(300.0), RATE, config, random(seed), [noise()], [response])

    assert np.array_equal(once(3), once(3))
    assert len(once(3)) != len(once(4)) or not np.array_equal(once(3), once(4))
    assert once(3).dtype == np.float32
    assert np.abs(once(3)).max() <= 1.0


def test_with_everything_off_signal_and_features_pass_unchanged() -> None:
    signal = tone(300.0)
    assert np.array_equal(augment_signal(signal, RATE, OFF, random(), [noise()]), signal)
    features = random().standard_normal((20, 80)).astype(np.float32)
    assert np.array_equal(augment_features(features, OFF, random(), step=0), features)


def test_the_gain_is_drawn_from_its_range() -> None:
    config = replace(OFF, gain_db=(-10.0, 0.0))
    quiet = tone(300.0)
    gains = [
        power_db(augment_signal(quiet, RATE, config, random(seed))) - power_db(quiet)
        for seed in range(40)
    ]
    assert -10.01 <= min(gains) < -7
    assert -3 < max(gains) <= 0.01


def test_warping_by_one_is_the_identity() -> None:
    features = random().standard_normal((31, 80)).astype(np.float32)
    assert np.array_equal(warp_features(features, 1.0, 1.0), features)


def test_warping_moves_formants_up_and_time_together() -> None:
    features = np.zeros((40, 80), dtype=np.float32)
    features[:20, 30] = 1.0
    warped = warp_features(features, formant=1.1, tempo=1.25)
    assert warped.shape == (32, 80)
    assert int(warped[0].argmax()) == 33
    assert warped[:15, 33].min() > 0.5
    assert not warped[17:].any()


def test_one_frame_can_be_warped() -> None:
    assert warp_features(np.ones((1, 80), dtype=np.float32), 1.05, 1.2).shape == (1, 80)


def test_masks_are_zero_and_no_wider_than_asked() -> None:
    config = replace(OFF, time_masks=2, time_mask_rate=0.1, band_masks=2, band_mask_width=6)
    hidden_frames, hidden_bands = [], []
    for seed in range(60):
        masked = mask_features(np.ones((50, 80), dtype=np.float32), config, random(seed))
        hidden_frames.append(int((~masked.any(axis=1)).sum()))
        hidden_bands.append(int((~masked.any(axis=0)).sum()))
    assert max(hidden_frames) <= 2 * 5
    assert max(hidden_bands) <= 2 * 6
    assert np.mean(hidden_frames) > 2
    assert np.mean(hidden_bands) > 3


def test_masks_wait_for_their_step_and_leave_the_input_alone() -> None:
    config = replace(OFF, band_masks=4, band_mask_width=40, mask_from_step=10)
    features = np.ones((30, 80), dtype=np.float32)
    assert augment_features(features, config, random(1), step=9).all()
    assert not augment_features(features, config, random(1), step=10).all()
    assert features.all()


def test_a_tilt_changes_low_against_high_bands_by_so_many_decibels() -> None:
    config = replace(OFF, tilt_db=6.0, unit_db=10.0)
    for seed in range(5):
        tilted = augment_features(np.zeros((4, 80), dtype=np.float32), config, random(seed), 0)
        slope = (tilted[:, -1] - tilted[:, 0]) * config.unit_db
        assert np.abs(slope).max() <= 6.0 + 1e-5
        assert slope[0] != 0
        assert tilted[0].mean() == pytest.approx(0.0, abs=1e-6)


def test_a_room_may_say_where_its_direct_path_is() -> None:
    click = np.zeros(400, dtype=np.float32)
    click[100] = 1.0
    response = np.zeros(60, dtype=np.float32)
    response[[5, 30]] = [0.5, 1.0]
    assert set(np.flatnonzero(np.abs(reverberate(click, response)) > 1e-3)) == {75, 100}
    assert set(np.flatnonzero(np.abs(reverberate(click, response, 5)) > 1e-3)) == {100, 125}


def test_trimming_keeps_the_speech_and_nothing_beside_it() -> None:
    speech = tone(300.0)[: RATE // 2]
    hiss = 1e-3 * random(1).standard_normal(RATE // 4).astype(np.float32)
    padded = np.concatenate([hiss, speech, hiss])
    found = trim_quiet(padded, RATE)
    assert abs(len(found) - len(speech)) <= RATE // 50
    assert np.array_equal(found, padded[len(hiss) : len(hiss) + len(found)])


def test_trimming_leaves_silence_and_a_few_samples_alone() -> None:
    silence = np.zeros(RATE, dtype=np.float32)
    assert len(trim_quiet(silence, RATE)) == RATE
    assert len(trim_quiet(silence[:100], RATE)) == 100

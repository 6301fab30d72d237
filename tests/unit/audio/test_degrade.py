"""The degradation pipeline: seeds, stages, presets and what it says about itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from speechadapt.audio import degrade as module
from speechadapt.audio.degrade import PRESETS, Degradation, degrade, preset
from speechadapt.core.bind import bind
from speechadapt.core.errors import CatalogError
from speechadapt.core.seed import generator

RATE = 16000


def tone(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    swell = 0.5 + 0.5 * np.sin(9 * time)
    voice = swell * np.sin(2 * np.pi * 220 * time) * 0.3
    return (voice + 0.02 * random.standard_normal(len(time))).astype(np.float32)


def hiss(seed: int = 1) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(RATE * 2)).astype(np.float32)


def only(stage: str, **settings: object) -> Degradation:
    return Degradation(**{"order": (stage,), f"{stage}_prob": 1.0, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(name: str) -> None:
    rooms = [np.array([0.0, 1.0, 0.5, 0.2], dtype=np.float32)]
    runs = [
        degrade(tone(), RATE, PRESETS[name], generator(seed), [hiss()], rooms) for seed in (0, 0, 1)
    ]
    assert runs[0].signal.tobytes() == runs[1].signal.tobytes()
    assert runs[0].applied == runs[1].applied
    assert runs[0].signal.tobytes() != runs[2].signal.tobytes()
    assert all(run.signal.shape == tone().shape for run in runs)
    assert all(run.signal.dtype == np.float32 for run in runs)
    assert json.loads(json.dumps(runs[0].applied)) == runs[0].applied


def test_stages_draw_apart() -> None:
    both = degrade(tone(), RATE, preset("sidon", noise_prob=1.0), generator(3), [hiss()])
    alone = degrade(tone(), RATE, only("noise", snr_db=(-5.0, 20.0)), generator(3), [hiss()])
    found = [one for one in both.applied if one["stage"] == "noise"]
    assert found == alone.applied


def test_the_order_is_the_setting() -> None:
    stages = ("clip", "level", "offset")
    for order in (stages, stages[::-1]):
        config = Degradation(order=order, clip_prob=1.0, level_prob=1.0, offset_prob=1.0)
        done = degrade(tone(), RATE, config, generator(0))
        assert tuple(one["stage"] for one in done.applied) == order


def test_noise_has_the_ratio_that_is_recorded() -> None:
    signal = tone()
    done = degrade(signal, RATE, only("noise", snr_db=(3.0, 9.0)), generator(5), [hiss()])
    added = done.signal - signal
    ratio = 10 * np.log10(np.mean(signal**2) / np.mean(added**2))
    assert ratio == pytest.approx(done.applied[0]["snr_db"], abs=0.01)
    assert 3.0 <= ratio <= 9.0


def test_without_noise_recordings_nothing_is_said_to_be_added() -> None:
    done = degrade(tone(), RATE, only("noise"), generator(0))
    assert done.applied == []
    assert done.signal.tobytes() == tone().tobytes()


def test_rooms_keep_the_speech_in_its_place() -> None:
    click = np.zeros(RATE, dtype=np.float32)
    click[5000] = 1.0
    for seed in range(6):
        config = only("reverb", simulated_prob=1.0, rt60_s=(0.2, 1.5))
        done = degrade(click, RATE, config, generator(seed))
        first = int(np.flatnonzero(np.abs(done.signal) > 1e-3 * np.abs(done.signal).max())[0])
        assert first == 5000
        assert done.applied[0]["room"]["rt60_s"] >= 0.2


def test_measured_rooms_are_taken_from_files_when_there_are_some() -> None:
    response = np.zeros(200, dtype=np.float32)
    response[[10, 90]] = [1.0, 0.5]
    config = only("reverb", simulated_prob=0.0)
    click = np.zeros(1000, dtype=np.float32)
    click[100] = 1.0
    done = degrade(click, RATE, config, generator(0), responses=[response])
    assert done.applied == [{"stage": "reverb", "response": 0}]
    assert set(np.flatnonzero(np.abs(done.signal) > 1e-3)) == {100, 180}


def test_a_narrow_band_has_nothing_above_it() -> None:
    done = degrade(hiss(), RATE, only("band", band_rates=(8000,)), generator(0))
    power = np.abs(np.fft.rfft(done.signal)) ** 2
    edge = len(power) * 4300 // (RATE // 2)
    assert power[edge:].sum() < 1e-4 * power.sum()
    wide = degrade(hiss(), RATE, only("band", band_rates=(16000,)), generator(0))
    assert wide.applied == []


@pytest.mark.parametrize("kind", ["soft", "hard", "quantile"])
def test_clipping_flattens_peaks_and_keeps_the_scale(kind: str) -> None:
    signal = tone()
    config = only("clip", clip_kinds=(kind,), clip_share=(0.05, 0.1))
    done = degrade(signal, RATE, config, generator(2))
    assert done.applied[0]["kind"] == kind
    assert np.abs(done.signal).max() <= np.abs(signal).max() + 1e-6
    if kind == "hard":
        flat = np.abs(done.signal) >= np.abs(done.signal).max() - 1e-6
        assert flat.sum() > 20
    if kind == "quantile":
        above = done.applied[0]["above"]
        flat = (done.signal >= done.signal.max() - 1e-7).mean()
        assert flat == pytest.approx(above, abs=0.002)


def test_lost_packets_are_silent_where_the_record_says() -> None:
    config = only("loss", losses_per_s=6.0)
    signal = tone(2.0) + np.float32(1.0)
    done = degrade(signal, RATE, config, generator(1))
    silent = np.zeros(len(signal), dtype=bool)
    for start_s, length_s in done.applied[0]["gaps_s"]:
        start = int(start_s * RATE)
        silent[start : start + int(length_s * RATE)] = True
    assert np.array_equal(done.signal == 0.0, silent)
    assert silent.any()


def test_level_and_offset_are_what_is_recorded() -> None:
    signal = tone()
    louder = degrade(signal, RATE, only("level"), generator(0))
    gain = 10 ** (louder.applied[0]["gain_db"] / 20)
    np.testing.assert_allclose(louder.signal, signal * gain, rtol=1e-5)
    moved = degrade(signal, RATE, only("offset"), generator(0))
    np.testing.assert_allclose(moved.signal - signal, moved.applied[0]["offset"], atol=1e-6)


def test_a_codec_does_not_clip_what_is_louder_than_full_scale() -> None:
    loud = tone() * np.float32(5.0)
    done = degrade(loud, RATE, only("codec", codecs=("alaw",)), generator(0))
    assert np.abs(done.signal).max() > 0.9 * np.abs(loud).max()


def test_some_signals_may_pass_untouched_and_empty_ones_always_do() -> None:
    config = preset("miipher", untouched_prob=1.0)
    done = degrade(tone(), RATE, config, generator(0), [hiss()])
    assert done.applied == []
    empty = np.zeros(0, dtype=np.float32)
    assert degrade(empty, RATE, PRESETS["sidon"], generator(0)).signal.shape == (0,)


def test_silence_stays_finite_in_every_preset() -> None:
    silence = np.zeros(RATE, dtype=np.float32)
    for name in PRESETS:
        done = degrade(silence, RATE, PRESETS[name], generator(name), [hiss()])
        assert bool(np.isfinite(done.signal).all())


def test_settings_are_checked() -> None:
    values = {"codecs": ["mp9:16"], "order": ["noise", "noise"], "band_rates": [], "snr_db": [9, 1]}
    _, problems = bind(Degradation, values)
    text = " ".join(problems)
    assert "there is no codec 'mp9'" in text
    assert "a stage twice" in text
    assert "band_rates is empty" in text
    assert "snr_db" in text
    for name, config in PRESETS.items():
        assert not module.Degradation.problems(config), name


def test_an_unknown_preset_names_the_near_one() -> None:
    with pytest.raises(CatalogError, match="Did you mean miipher"):
        preset("mipher")

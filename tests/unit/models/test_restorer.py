"""The restorer: exact lengths at every rate, levels, long recordings, damage, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechadapt.core.errors import AudioError, CheckpointError, ConfigError
from speechadapt.models.restorer import Restorer, first_of
from speechadapt.restoration.cleaner import make_cleaner
from speechadapt.restoration.cut import load_cut
from speechadapt.restoration.istft import IstftConfig
from speechadapt.restoration.request import Length, RestoreConfig
from speechadapt.restoration.seams import PieceConfig
from speechadapt.restoration.vocoder import Speech
from speechadapt.restoration.vocoder_folder import make_vocoder
from speechadapt.restoration.wavefit import WaveFitConfig

SHORT = RestoreConfig(pieces=PieceConfig(longest_s=0.5, context_s=0.1, fade_s=0.04))
WAVEFIT = WaveFitConfig(
    upsample=2,
    factors=(5, 6, 8),
    channels=(4, 4, 2),
    down_channels=(2, 4, 4),
    width=8,
    layers=1,
    iterations=2,
)


def parts(folder: Path, sample_rate: int = 16000, wavefit: bool = False):
    torch.manual_seed(0)
    cleaner = make_cleaner(load_cut(folder, 1), config={"bottleneck": 4})
    speech = Speech(cleaner.encoder.dim, cleaner.encoder.frame_rate, sample_rate)
    config = WAVEFIT if wavefit else IstftConfig(width=8, layers=1)
    return cleaner, make_vocoder(speech, config).eval()


@pytest.fixture(scope="module")
def restorer(tiny_folder) -> Restorer:
    return Restorer(*parts(tiny_folder("w2v_bert")))


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        (1, 16000),
        (319, 16000),
        (320, 16000),
        (800, 16000),
        (16001, 16000),
        (4001, 8000),
        (7777, 22050),
        (44101, 44100),
        (24001, 48000),
    ],
)
def test_the_length_is_kept_to_the_sample(restorer: Restorer, samples: int, rate: int) -> None:
    found = restorer.restore(noise(samples), rate, SHORT)
    assert found.shape == (samples,)
    assert found.dtype == np.float32
    assert bool(np.isfinite(found).all())
    assert restorer.restore(noise(samples), rate, SHORT, 24000).shape == (
        round(samples * 24000 / rate),
    )


def test_the_tail_is_there(restorer: Restorer) -> None:
    found = restorer.restore(noise(16131), 16000, SHORT)
    level = np.sqrt(np.mean(found**2))
    for tail in (found[-160:], found[-40:]):
        assert np.sqrt(np.mean(tail**2)) > 0.05 * level


def test_a_vocoder_at_another_rate_keeps_lengths_too(tiny_folder) -> None:
    restorer = Restorer(*parts(tiny_folder("w2v_bert"), 24000, wavefit=True))
    assert restorer.sample_rate == 24000
    for samples in (5000, 16001):
        assert restorer.restore(noise(samples), 16000, SHORT).shape == (samples,)
    one, again = (restorer.restore(noise(9000), 16000, SHORT) for _ in range(2))
    assert one.tobytes() == again.tobytes()
    other = restorer.restore(noise(9000), 16000, replace(SHORT, seed=1))
    assert other.tobytes() != one.tobytes()
    fewer = restorer.restore(noise(9000), 16000, replace(SHORT, iterations=1))
    assert fewer.tobytes() != one.tobytes()


def test_channels_are_restored_apart(restorer: Restorer) -> None:
    both = np.stack([noise(6000), noise(6000, 1)])
    found = restorer.restore(both, 16000, SHORT)
    assert found.shape == both.shape
    for row in range(2):
        assert np.array_equal(found[row], restorer.restore(both[row], 16000, SHORT))


def test_blocks_do_not_change_the_result(restorer: Restorer) -> None:
    signal = noise(30000)
    results = [
        np.concatenate(
            list(restorer.stream((signal[a : a + n] for a in range(0, 30000, n)), SHORT))
        )
        for n in (1600, 7000, 30000)
    ]
    assert all(np.array_equal(results[0], one) for one in results[1:])
    assert len(results[0]) == -(-30000 // 320) * 320


def test_a_masked_signal_is_the_input_turned_down(restorer: Restorer) -> None:
    heard = noise(30000)
    made = restorer.restore(heard, 16000, SHORT)
    found = restorer.restore(heard, 16000, replace(SHORT, signal="masked"))
    assert found.shape == heard.shape
    assert np.square(found).sum() < np.square(heard).sum()
    # it moves with the input, as what is generated from random weights does not
    assert np.corrcoef(found, heard)[0, 1] > 0.5 > abs(np.corrcoef(made, heard)[0, 1])
    own = Restorer(restorer.cleaner, restorer.vocoder, signal="masked")
    assert np.array_equal(own.restore(heard, 16000, SHORT), found)
    again = own.restore(heard, 16000, replace(SHORT, signal="generated"))
    assert np.array_equal(again, made)
    assert own.fingerprint() != restorer.fingerprint()


def test_the_level_is_kept_or_brought_to_a_loudness(restorer: Restorer) -> None:
    from torchaudio.functional import loudness

    loud = restorer.restore(noise(32000), 16000)
    quiet = restorer.restore(noise(32000) * np.float32(0.1), 16000)
    assert np.abs(loud).max() < 0.9
    np.testing.assert_allclose(quiet, loud * 0.1, atol=2e-4)
    set_to = restorer.restore(noise(32000), 16000, RestoreConfig(level="-30LUFS"))
    assert float(loudness(torch.from_numpy(set_to)[None], 16000)) == pytest.approx(-30.0, abs=0.1)
    with pytest.raises(ConfigError, match="loudness 'high'"):
        restorer.restore(noise(3200), 16000, RestoreConfig(level="high"))


def test_odd_inputs_have_plain_outcomes(restorer: Restorer) -> None:
    for flat in (np.zeros(4000, np.float32), np.full(4000, 0.5, np.float32)):
        assert not restorer.restore(flat, 16000).any()
    square = np.where(np.arange(8000) % 80 < 40, 1.0, -1.0).astype(np.float32)
    assert float(np.abs(restorer.restore(square, 16000)).max()) < 1.0
    with pytest.raises(AudioError, match="without samples"):
        restorer.restore(np.zeros(0, np.float32), 16000)
    with pytest.raises(AudioError, match="NaN or infinity"):
        restorer.restore(np.array([0.1, np.nan, 0.2], np.float32), 16000)


def test_both_channels_come_to_a_loudness_together(restorer: Restorer) -> None:
    both = np.stack([noise(32000), 0.25 * noise(32000, 1)]).astype(np.float32)
    kept = restorer.restore(both, 16000, SHORT)
    louder = restorer.restore(both, 16000, replace(SHORT, level="-30LUFS"))
    gains = [float(np.abs(b).sum() / np.abs(a).sum()) for a, b in zip(kept, louder, strict=True)]
    assert gains[0] == pytest.approx(gains[1], rel=1e-3)


def test_a_file_is_restored_and_saved(restorer: Restorer, tmp_path: Path) -> None:
    stereo = np.stack([noise(12001), noise(12001, 1)])
    soundfile.write(tmp_path / "x.wav", stereo.T, 24000, subtype="FLOAT")
    found = restorer.restore(tmp_path / "x.wav", config=SHORT)
    assert found.sample_rate == 24000
    assert found.waveforms.shape == (2, 12001)
    wanted = restorer.restore(stereo, 24000, SHORT)
    np.testing.assert_array_equal(found.waveforms, wanted)
    samples, rate = soundfile.read(found.save(tmp_path / "y.flac"), always_2d=True)
    assert rate == 24000
    np.testing.assert_allclose(samples.T, wanted, atol=1e-4)
    assert restorer.restore(str(tmp_path / "x.wav"), output_rate=8000).sample_rate == 8000
    with pytest.raises(ConfigError, match="no audio format is named 'mp3'"):
        found.save(tmp_path / "y.mp3")


def test_a_channel_in_portions_is_the_channel_whole(restorer: Restorer) -> None:
    signal = noise(20000)
    length = Length(20000, 16000, 24000)
    parts = [
        np.concatenate(
            list(restorer.channel((signal[a : a + n] for a in range(0, 20000, n)), length, SHORT))
        )
        for n in (3000, 20000)
    ]
    assert len(parts[0]) == length.restored == 30000
    np.testing.assert_array_equal(parts[0], parts[1])


def test_of_portions_the_first_are_kept_and_the_rest_is_used_up() -> None:
    portions = iter([np.zeros(3, np.float32)] * 3)
    assert [len(one) for one in first_of(portions, 4)] == [3, 1]
    assert next(portions, None) is None


def test_other_weights_have_another_fingerprint(tiny_folder, restorer: Restorer) -> None:
    same = Restorer(*parts(tiny_folder("w2v_bert")))
    assert same.fingerprint() == restorer.fingerprint()
    with torch.no_grad():
        next(same.vocoder.parameters()).add_(1e-3)
    assert same.fingerprint() != restorer.fingerprint()


def test_parts_that_do_not_fit_are_refused(tiny_folder) -> None:
    cleaner, _ = parts(tiny_folder("w2v_bert"))
    wrong = make_vocoder(Speech(7, 50.0, 16000), IstftConfig(width=8, layers=1))
    with pytest.raises(CheckpointError, match="the vocoder was made for width 7"):
        Restorer(cleaner, wrong)

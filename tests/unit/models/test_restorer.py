"""The restorer: exact lengths at every rate, levels, long recordings, damage, and its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from speechadapt.core.errors import AudioError, CheckpointError, ConfigError
from speechadapt.core.files import read_json
from speechadapt.encoders.tiny import write_tiny
from speechadapt.models.restorer import RestoreConfig, Restorer, assemble, load_restorer
from speechadapt.restoration.cleaner import make_cleaner
from speechadapt.restoration.cut import load_cut
from speechadapt.restoration.istft import IstftConfig
from speechadapt.restoration.seams import PieceConfig
from speechadapt.restoration.vocoder import Speech
from speechadapt.restoration.vocoder_folder import make_vocoder, save_vocoder
from speechadapt.restoration.wavefit import WaveFitConfig
from speechadapt.training.restoration.ears import Ears

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


def test_a_folder_gives_the_same_restorer(tiny_folder, tmp_path: Path) -> None:
    folder = tiny_folder("w2v_bert")
    cleaner, vocoder = parts(folder)
    cleaner.save(tmp_path / "c")
    save_vocoder(vocoder, tmp_path / "v", Ears(cleaner.encoder, cleaner).facts())
    assemble(tmp_path / "c", tmp_path / "v", tmp_path / "r")
    loaded = load_restorer(tmp_path / "r", folder)
    wanted = Restorer(cleaner, vocoder).restore(noise(9000), 16000)
    assert np.array_equal(loaded.restore(noise(9000), 16000), wanted)
    assert len(loaded.cleaner.encoder.model.encoder.layers) == 1
    assert read_json(tmp_path / "r" / "restorer.json")["base"]["family"] == "w2v_bert"


def test_parts_that_do_not_fit_are_refused(tiny_folder, tmp_path: Path) -> None:
    folder = tiny_folder("w2v_bert")
    cleaner, vocoder = parts(folder)
    wrong = make_vocoder(Speech(7, 50.0, 16000), IstftConfig(width=8, layers=1))
    with pytest.raises(CheckpointError, match="the vocoder was made for width 7"):
        Restorer(cleaner, wrong)
    cleaner.save(tmp_path / "c")
    facts = Ears(cleaner.encoder, cleaner).facts()
    save_vocoder(vocoder, tmp_path / "v", facts | {"layer": 2})
    with pytest.raises(CheckpointError, match="the vocoder reads layer 2"):
        assemble(tmp_path / "c", tmp_path / "v", tmp_path / "r")
    save_vocoder(vocoder, tmp_path / "v", facts)
    assemble(tmp_path / "c", tmp_path / "v", tmp_path / "r")
    other = write_tiny("w2v_bert", tmp_path / "other", seed=3)
    with pytest.raises(CheckpointError, match="was trained on"):
        load_restorer(tmp_path / "r", other)
    with pytest.raises(CheckpointError, match="was to be read as a restorer"):
        load_restorer(tmp_path / "c", folder)

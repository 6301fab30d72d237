"""Clean speech and its damage: nothing added to the clean side, everything seeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from speechadapt.audio.augment import augment_signal
from speechadapt.audio.degrade import PRESETS
from speechadapt.core.errors import CatalogError
from speechadapt.core.seed import generator
from speechadapt.data.batch import BatchConfig
from speechadapt.training.restoration.pairs import (
    DamageConfig,
    SourceConfig,
    as_tensors,
    clean_speech,
    damaged,
)
from speechadapt.training.speech import DataConfig
from tests.synthetic import write_pack


class Speech:
    sample_rate = 16000
    noises = (np.full(4000, 0.1, dtype=np.float32),)
    responses = (np.array([0.0, 1.0, 0.5], dtype=np.float32),)


SIGNAL = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)


def test_clean_speech_gets_no_noise_room_or_band() -> None:
    config = SourceConfig(speed_prob=0.0, gain_db=(0.0, 0.0)).augment()
    for seed in range(5):
        found = augment_signal(SIGNAL, 16000, config, generator(seed), Speech.noises)
        assert np.array_equal(found, SIGNAL)


def test_clean_speech_is_the_recordings_whether_or_not_somebody_wrote_them_down(
    tmp_path: Path,
) -> None:
    root = write_pack(tmp_path, ("tones",), ("hiss",), ("room",))
    manifest = root / "manifests" / "tones.jsonl"
    manifest.write_text(manifest.read_text().replace('"text": "', '"was": "'))
    data = DataConfig(
        str(root), ("tones",), ("tones",), noise=("hiss",), responses=("room",), edge_s=0.0
    )
    still = SourceConfig(speed_prob=0.0, gain_db=(0.0, 0.0))
    speech = clean_speech(data, BatchConfig(batch_s=2.0), still, 0, 8000)
    assert len(speech.utterances) == 8
    known = {signal.tobytes() for signal in (speech._audio[n] for n in range(8))}
    assert all(row.signal.tobytes() in known for row in speech.rows(0, 0))
    assert speech.sample_rate == 8000
    assert len(speech.noises) == 2


def test_damage_is_a_function_of_its_seed() -> None:
    config = DamageConfig("miipher").degradation()
    runs = [damaged(Speech(), SIGNAL, config, *seed) for seed in ((0, 1), (0, 1), (1, 0))]  # type: ignore[arg-type]
    assert runs[0].tobytes() == runs[1].tobytes()
    assert runs[0].tobytes() != runs[2].tobytes()


def test_a_preset_may_be_changed_and_says_what_is_wrong() -> None:
    config = DamageConfig("sidon", {"noise_prob": 0.25, "codecs": ["alaw"]})
    assert config.problems() == []
    assert config.degradation().noise_prob == 0.25
    assert config.degradation().codecs == ("alaw",)
    assert config.degradation().rt60_s == PRESETS["sidon"].rt60_s
    wrong = DamageConfig("sidon", {"noise_probb": 1.0, "snr_db": [3, 1]}).problems()
    assert "there is no setting 'damage.changes.noise_probb'" in wrong[0]
    assert "damage.changes.snr_db must go from the lower" in " ".join(wrong)
    assert "no degradation 'x'" in DamageConfig("x").problems()[0]
    with pytest.raises(CatalogError):
        DamageConfig("x").degradation()


def test_tensors_share_no_memory() -> None:
    signal = SIGNAL.copy()
    (tensor,) = as_tensors([signal])
    signal[:] = 0.0
    assert bool(tensor.any())
    assert tensor.dtype == torch.float32

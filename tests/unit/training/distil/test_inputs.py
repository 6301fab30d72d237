"""What student and teacher hear: the same augmentation, and what only one of them suffers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from speechadapt.audio.augment import AugmentConfig
from speechadapt.data.batch import BatchConfig
from speechadapt.data.manifest import Utterance
from speechadapt.encoders.catalog import load_encoder
from speechadapt.training.adapt.features import FeatureMaker
from speechadapt.training.distil.inputs import DegradeConfig, PairMaker
from speechadapt.training.distil.models import teacher_of
from speechadapt.training.speech import DataConfig, SpeechBatches
from tests import synthetic

NOISY = DegradeConfig(noise_prob=1.0, snr_db=(0.0, 5.0))


@pytest.fixture(scope="module")
def speech(base: Path) -> SpeechBatches:
    """Return batches of made tones with a made noise."""
    root = synthetic.write_pack(base / "pairs", ("tones",), ("hiss",), ("room",))
    data = DataConfig(str(root), ("tones",), ("tones",), ("hiss",), (), ("room",), edge_s=0.0)
    batch = BatchConfig(batch_s=4.0, max_rows=3, max_s=1.5)
    return SpeechBatches(data, batch, AugmentConfig(), seed=0)


def pairs(
    speech: SpeechBatches, folder: Path, degrade: DegradeConfig, augment: AugmentConfig
) -> PairMaker:
    """Return a maker for a tiny Whisper at native length and its own window."""
    student = load_encoder(folder, padding="native")
    makers = (FeatureMaker(one, augment) for one in (student, teacher_of(student)))
    return PairMaker(speech, *makers, degrade)


def test_both_hear_the_same_augmented_clip(speech: SpeechBatches, tiny_folder) -> None:
    maker = pairs(speech, tiny_folder("whisper"), DegradeConfig(), AugmentConfig())
    made = maker(speech.rows(0, 0), 0)
    lengths = made["lengths"]
    assert torch.equal(lengths, made["teacher_lengths"])
    assert made["features"].shape[2] == int(lengths.max())
    assert made["teacher_features"].shape[2] == 200
    for row, length in enumerate(lengths.tolist()):
        native, full = (made[name][row, :, :length] for name in ("features", "teacher_features"))
        # only the floor under quiet bins is taken over other frames
        assert float((native - full).abs().mean()) < 0.05


def test_only_the_student_hears_the_noise(speech: SpeechBatches, tiny_folder) -> None:
    folder, plain = tiny_folder("whisper"), AugmentConfig(time_masks=0, band_masks=0)
    rows = speech.rows(1, 0)
    clean = pairs(speech, folder, DegradeConfig(), plain)(rows, 1)
    noisy = pairs(speech, folder, NOISY, plain)(speech.rows(1, 0), 1)
    assert torch.equal(clean["teacher_features"], noisy["teacher_features"])
    assert torch.equal(clean["lengths"], noisy["lengths"])
    assert float((clean["features"] - noisy["features"]).abs().mean()) > 0.05


def test_a_dev_recording_is_always_degraded_alike(speech: SpeechBatches, tiny_folder) -> None:
    maker = pairs(speech, tiny_folder("whisper"), NOISY, AugmentConfig())
    signal = np.sin(np.arange(8000) / 20).astype(np.float32)
    one, other = (Utterance("x.wav", id=name) for name in ("a", "b"))
    first = maker.degraded(signal, one)
    assert np.array_equal(first, maker.degraded(signal, one))
    assert not np.array_equal(first, maker.degraded(signal, other))
    assert len(first) == len(signal)


def test_what_acts_says_so() -> None:
    assert not DegradeConfig().acts
    assert DegradeConfig(reverb_prob=0.1).acts
    assert DegradeConfig(gain_db=(-6.0, 0.0)).acts
    assert DegradeConfig(band_limit_prob=1.0).acts


def test_degrading_never_changes_the_timing() -> None:
    augment = DegradeConfig(noise_prob=1.0, reverb_prob=1.0, band_limit_prob=1.0).augment()
    assert augment.speed_prob == 0.0

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from speechadapt.core.seed import generator
from speechadapt.training.adapt.microphones import Config, MicrophoneFeatures, Microphones, as_clips
from speechadapt.training.distil.inputs import DegradeConfig
from speechadapt.training.speech import SpeechBatches, SpeechRow

NOISY = DegradeConfig(noise_prob=1.0)


class Noisy(SpeechBatches):
    """Stands in for the noises of a data pack."""

    def __init__(self) -> None:
        """Read nothing."""

    def augmented(self, signal, augment, random):
        return (signal + 0.1 * random.standard_normal(len(signal))).astype(np.float32)


def made(**settings: Any) -> Microphones:
    return Microphones(Noisy(), Config(degrade=NOISY, **settings))


def signal(samples: int = 400) -> np.ndarray:
    return np.linspace(-1, 1, samples, dtype=np.float32)


def test_every_microphone_hears_something_else_and_the_same_again() -> None:
    microphones = made(microphones=3)
    heard = microphones.hear(signal(), generator("a"))
    assert len(heard) == 3
    pairs = ((0, 1), (0, 2), (1, 2))
    assert all(not np.array_equal(heard[one], heard[other]) for one, other in pairs)
    again = microphones.hear(signal(), generator("a"))
    assert all(np.array_equal(one, other) for one, other in zip(heard, again, strict=True))
    assert not np.array_equal(microphones.dev(signal(), "asc-0", 1)[0], heard[0])


def test_a_near_microphone_hears_the_recording_itself() -> None:
    near, far = made(microphones=2, near=True).hear(signal(), generator("a"))
    assert np.array_equal(near, signal())
    assert not np.array_equal(far, signal())


def test_the_mean_is_of_the_microphones_that_are_read() -> None:
    frames = torch.arange(4.0).reshape(4, 1, 1).expand(4, 5, 2)
    lengths = torch.tensor([5, 5, 3, 3])
    whole, counts = made(microphones=2).read(frames, lengths)
    assert whole[:, 0, 0].tolist() == [0.5, 2.5]
    assert counts.tolist() == [5, 3]
    far, _ = made(microphones=2, near=True).read(frames, lengths)
    assert far[:, 0, 0].tolist() == [1.0, 3.0]
    assert made(microphones=2).recordings(4) == [0, 0, 1, 1]


def test_what_features_draw_is_the_same_for_all_microphones_of_a_row() -> None:
    drawn: list[float] = []

    def features(rows, step):
        drawn.extend(float(row.random.random()) for row in rows)
        return torch.zeros(len(rows), 2), torch.ones(len(rows), dtype=torch.int64)

    rows = [SpeechRow(signal(), "ja", generator(name)) for name in "ab"]
    found, _ = MicrophoneFeatures(made(microphones=3), features)(rows, 0)
    assert len(found) == 6
    assert len(set(drawn[:3])) == len(set(drawn[3:])) == 1
    assert drawn[0] != drawn[3]


def test_clips_are_as_an_encoder_takes_them() -> None:
    clips = as_clips([signal()[::-1]], torch.device("cpu"))
    assert clips[0].dtype == torch.float32
    assert clips[0].is_contiguous()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"degrade": DegradeConfig()}, "so all hear the same"),
        ({"near": True, "microphones": 1}, "needs microphones=2 or more"),
    ],
)
def test_settings_that_make_no_sense_are_said(settings: dict[str, Any], message: str) -> None:
    config = Config(**{"degrade": NOISY, **settings})
    assert any(message in problem for problem in config.problems())

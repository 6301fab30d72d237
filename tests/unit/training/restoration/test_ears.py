"""What a vocoder in training hears with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from speechadapt.restoration.cleaner import make_cleaner
from speechadapt.restoration.cut import load_cut
from speechadapt.restoration.front import FrontConfig
from speechadapt.training.restoration.ears import load_ears


def test_a_cleaner_brings_its_own_layer_and_adapter(tiny_folder, signal, tmp_path: Path) -> None:
    folder = tiny_folder("w2v_bert")
    cleaner = make_cleaner(load_cut(folder, 1), config={"bottleneck": 4})
    with torch.no_grad():
        for parameter in cleaner.handle.parameters():
            parameter.add_(0.1)
    cleaner.save(tmp_path)
    plain, cleaned = load_ears(str(folder), 1, ""), load_ears(str(folder), 2, str(tmp_path))
    assert plain.facts() == cleaned.facts()
    assert plain.facts()["layer"] == 1
    features, lengths = plain.encoder.extract([signal(4000)])
    wanted, _ = cleaner.encode([signal(4000)])
    assert torch.equal(cleaned.frames(features, lengths), wanted)
    assert not torch.equal(plain.frames(features, lengths), wanted)
    assert not cleaned.frames(features, lengths).requires_grad


def test_a_cleaner_with_a_front_is_given_the_features_it_takes(
    tiny_folder, signal, tmp_path: Path
) -> None:
    folder = tiny_folder("w2v_bert")
    front = FrontConfig("convolution", width=8, layers=1, kernel=3)
    cleaner = make_cleaner(load_cut(folder, 1), config={"bottleneck": 4}, front=front)
    with torch.no_grad():
        for parameter in cleaner.trained.parameters():
            parameter.add_(0.1)
    cleaner.save(tmp_path)
    plain, cleaned = load_ears(str(folder), 1, ""), load_ears(str(folder), 1, str(tmp_path))
    wanted, _ = cleaner.encode([signal(4000)])
    assert torch.equal(cleaned.frames(*cleaned.extract([signal(4000)])), wanted)
    own = plain.extract([signal(4000)])
    assert torch.equal(own[0], plain.encoder.extract([signal(4000)])[0])
    assert not torch.equal(plain.frames(*own), wanted)


def test_signals_are_brought_to_the_encoders_rate(tiny_folder) -> None:
    ears = load_ears(str(tiny_folder("w2v_bert")), 1, "")
    signal = np.ones(4800, dtype=np.float32)
    assert ears.waveform(signal, 48000).shape == (1600,)
    assert torch.equal(ears.waveform(signal, 16000), torch.ones(4800))

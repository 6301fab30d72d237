from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import Wav2Vec2BertForCTC

from speechadapt.audio.augment import AugmentConfig
from speechadapt.encoders.w2v_bert import W2vBertEncoder
from speechadapt.text import alphabet
from speechadapt.training.conformer import (
    ConformerConfig,
    new_extractor,
    new_model,
    save_model,
    stacked_features,
)
from speechadapt.training.speech import SpeechRow

TINY = ConformerConfig(dim=16, layers=1, heads=2, feed_forward=16, kernel=3)
PLAIN = AugmentConfig(tilt_db=0.0, formant=0.0, tempo=(1.0, 1.0), time_masks=0, band_masks=0)


def rows(*lengths: int) -> list[SpeechRow]:
    """Return rows of noise."""
    random = np.random.default_rng(0)
    signals = [(0.1 * random.standard_normal(length)).astype(np.float32) for length in lengths]
    return [SpeechRow(signal, "", np.random.default_rng(1)) for signal in signals]


def test_features_without_augmentation_are_the_extractors() -> None:
    extractor = new_extractor(TINY)
    encoder = W2vBertEncoder(new_model(TINY, alphabet.english()).wav2vec2_bert, extractor)
    items = rows(16000, 9000)
    ours, counts = stacked_features(items, PLAIN, TINY.stride, 0)
    theirs, lengths = encoder.extract([torch.from_numpy(row.signal) for row in items])
    for number, (count, length) in enumerate(zip(counts.tolist(), lengths.tolist(), strict=True)):
        assert length - count in (0, 1)  # training drops a last stack that is not whole
        torch.testing.assert_close(ours[number, :count], theirs[number, :count])


def test_a_row_shorter_than_a_stack_still_gives_one_frame() -> None:
    features, counts = stacked_features(rows(500, 8000), PLAIN, 4, 0)
    assert counts[0] == 1
    assert features.shape == (2, int(counts.max()), 320)
    assert not features[0, 1:].any()


def test_masks_come_with_their_step() -> None:
    masked = replace(PLAIN, band_masks=3, band_mask_width=60, mask_from_step=5)
    before, _ = stacked_features(rows(16000), masked, 3, 4)
    after, _ = stacked_features(rows(16000), masked, 3, 5)
    plain, _ = stacked_features(rows(16000), PLAIN, 3, 0)
    assert torch.equal(before, plain)
    assert not torch.equal(after, plain)


def test_a_saved_model_is_an_ordinary_folder_in_half_precision(tmp_path: Path) -> None:
    model = new_model(TINY, alphabet.english())
    save_model(model, new_extractor(TINY), alphabet.english(), tmp_path)
    assert next(model.parameters()).dtype == torch.float32
    loaded = Wav2Vec2BertForCTC.from_pretrained(tmp_path, use_safetensors=True)
    assert loaded.dtype == torch.float16
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half()), name
    assert alphabet.read_alphabet(tmp_path).symbols == alphabet.english().symbols

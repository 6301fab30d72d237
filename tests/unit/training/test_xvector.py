"""Small x-vector models: their shape, what is written, and how recordings are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from speechadapt.encoders.features import seamless_fbank
from speechadapt.models.speaker import load_speaker_model
from speechadapt.training.xvector import (
    XvectorConfig,
    new_xvector,
    pieces,
    save_xvector,
    start_apart,
)

TINY = XvectorConfig(
    dim=8, channels=(8, 12), kernels=(3, 1), dilations=(2, 1), vector=6, margin=0.1
)


def test_the_vector_is_what_the_loss_is_taken_on() -> None:
    model = new_xvector(TINY, 4).eval()
    found = model(input_features=torch.randn(2, 30, 160), labels=torch.tensor([0, 3]))
    torch.testing.assert_close(found.logits, found.embeddings)
    assert model.objective.margin == 0.1
    assert not model.classifier.weight.requires_grad


def test_the_default_is_small_enough_to_be_bundled() -> None:
    model = new_xvector(XvectorConfig(), 300)
    assert 2 * sum(one.numel() for one in model.parameters()) < 1e6
    assert len(model.wav2vec2_bert.encoder.layers) == 0
    assert XvectorConfig().context == 15


@torch.no_grad()
def test_signals_keep_their_size_through_untrained_layers() -> None:
    model = new_xvector(XvectorConfig(), 10).eval()
    frames = model.projector(torch.randn(1, 60, 128))
    sizes = []
    for layer in model.tdnn:
        frames = layer(frames)
        sizes.append(float(frames.square().mean().sqrt()))
    assert min(sizes) > 0.2 * max(sizes)


@torch.no_grad()
def test_vectors_of_an_untrained_model_start_apart() -> None:
    torch.manual_seed(0)
    model = new_xvector(XvectorConfig(vector=8), 16)
    tilts = torch.randn(12, 160)
    voices = torch.arange(12).repeat(4)

    def pieces_of(frames: int) -> torch.Tensor:
        return torch.randn(48, frames, 160) + 0.3 * tilts[voices][:, None]

    def likeness() -> tuple[float, float]:
        """How alike pieces of one voice are, and those of two, all of them unheard before."""
        model.eval()
        vectors = torch.nn.functional.normalize(model(input_features=pieces_of(60)).embeddings)
        cosines, same = vectors @ vectors.T, voices[:, None] == voices
        alike = float(cosines[same & ~torch.eye(48, dtype=torch.bool)].mean())
        return alike, float(cosines[~same].mean())

    _, apart = likeness()
    assert apart > 0.8
    model.train()
    start_apart(model, [(pieces_of(frames), voices + 2) for frames in (40, 50, 60)])
    assert model.training
    assert not model.feature_extractor._forward_pre_hooks
    alike, apart = likeness()
    assert alike > 0.5
    assert abs(apart) < 0.2
    model.eval()
    columns = torch.nn.functional.normalize(model.objective.weight, dim=0)
    found = torch.nn.functional.normalize(model(input_features=pieces_of(60)).embeddings)
    assert float(((found @ columns).argmax(1) == voices + 2).float().mean()) > 0.7


def test_a_saved_model_holds_half_precision_and_the_first_voices(tmp_path: Path) -> None:
    model = new_xvector(TINY, 9)
    save_xvector(model, 2, 3, tmp_path)
    assert model.objective.weight.shape == (6, 9), "the model in training is left alone"
    loaded = load_speaker_model(tmp_path)
    kept = loaded._model.objective.weight
    assert torch.equal(kept, model.objective.weight[:, :3].half().float())
    assert loaded._model.config.num_labels == 3
    signal = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    with torch.no_grad():
        features, _ = seamless_fbank([torch.from_numpy(signal)], 2, 80, normalise=False)
        wanted = torch.nn.functional.normalize(model.eval()(input_features=features).embeddings)
    assert float(wanted[0].numpy() @ loaded.embed(signal)) == pytest.approx(1.0, abs=1e-3)


def test_pieces_are_of_one_length_and_lose_nothing() -> None:
    signal = np.arange(25, dtype=np.float32)
    cut = pieces(signal, 10)
    assert [len(one) for one in cut] == [10, 15]
    assert np.array_equal(np.concatenate(cut), signal)
    assert [len(one) for one in pieces(signal, 30)] == [25]

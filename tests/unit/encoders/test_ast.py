from __future__ import annotations

import pytest
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.ast import AstEncoder, legacy_names


def build(layers: int = 0, **options) -> AstEncoder:
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=48,
        max_length=200,
        initializer_range=0.2,
        **options,
    )
    return AstEncoder(ASTModel(config).eval(), ASTFeatureExtractor(max_length=200))


def test_the_frame_axis_is_time():
    """Without layers a patch sees its own piece of the spectrogram and nothing else."""
    encoder = build()
    features = torch.zeros(1, 200, 128)
    late = features.clone()
    late[:, 120:] = 1.0
    lengths = torch.tensor([200])
    with torch.no_grad():
        quiet, _ = encoder(features, lengths)
        loud, _ = encoder(late, lengths)
    changed = (loud - quiet).abs().amax(dim=2)[0] > 1e-4
    # patch t covers frames 10 t to 10 t + 15
    assert changed.tolist() == [10 * t + 15 >= 120 for t in range(19)]


def test_a_frame_is_the_mean_over_frequency_of_its_tokens():
    encoder = build(layers=2)
    features = torch.randn(2, 200, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        frames, _ = encoder(features, torch.tensor([200, 200]))
        tokens = encoder.tokens(features)
    assert encoder.grid == (12, 19)
    assert tokens.shape == (2, 2 + 12 * 19, 32)
    expected = torch.stack([tokens[:, 2 + f * 19 + 7] for f in range(12)]).mean(dim=0)
    torch.testing.assert_close(frames[:, 7], expected)


@pytest.mark.parametrize(
    ("frames", "steps"), [(1, 1), (15, 1), (16, 1), (25, 1), (26, 2), (198, 19), (200, 19)]
)
def test_lengths_count_whole_patches(frames, steps):
    _, lengths = build()(torch.zeros(1, 200, 128), torch.tensor([frames]))
    assert lengths.tolist() == [steps]


def test_the_frame_rate_follows_the_time_stride():
    encoder = build(time_stride=5)
    assert encoder.frame_rate == 20.0
    assert encoder.grid[1] == 37
    assert encoder.window_s == 2.0


def test_an_extractor_of_another_window_is_refused():
    with pytest.raises(CheckpointError, match=r"128 mel bins x 200 frames.*128 x 1024"):
        AstEncoder(build().model, ASTFeatureExtractor())


def test_legacy_names_are_those_of_transformers_4_57():
    names = legacy_names()
    assert names["encoder.layer.<i>.attention.attention.query"] == "layer.<i>.attn.q"
    assert names["encoder.layer.<i>.output.dense"] == "layer.<i>.ffn.down"

from __future__ import annotations

import pytest
import torch
from transformers import WhisperFeatureExtractor

from speechadapt.core.errors import CheckpointError, ConfigError, ShapeError
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.whisper import WhisperEncoder, tiny


@pytest.fixture(scope="module")
def full(tiny_folder) -> WhisperEncoder:
    return load_encoder(tiny_folder("whisper"), padding="full")


@pytest.fixture(scope="module")
def native(tiny_folder) -> WhisperEncoder:
    return load_encoder(tiny_folder("whisper"), padding="native")


@torch.no_grad()
def encode(encoder, clips):
    return encoder.encode(clips)


def test_native_equals_full_where_the_clip_fills_the_window(full, native, signal):
    clip = signal(32000)
    padded, _ = encode(full, [clip])
    own, lengths = encode(native, [clip])
    assert lengths.tolist() == [100]
    torch.testing.assert_close(own, padded, rtol=0, atol=1e-5)


def test_native_differs_from_full_on_a_short_clip(full, native, signal):
    clip = signal(16000)
    padded, _ = encode(full, [clip])
    own, _ = encode(native, [clip])
    assert own.shape[1] == 50
    assert float((own - padded[:, :50]).abs().max()) > 1e-2


def test_native_runs_on_the_longest_clip_and_full_on_the_window(full, native, signal):
    clips = [signal(4800), signal(9600)]
    assert encode(native, clips)[0].shape[1] == 30
    assert encode(full, clips)[0].shape[1] == 100


@pytest.mark.parametrize("frames", [1, 2, 3, 30, 31])
def test_the_last_frames_of_a_padded_clip_are_right_at_even_and_odd_lengths(native, frames):
    generator = torch.Generator().manual_seed(frames)
    short = torch.randn(1, 80, frames, generator=generator)
    batch = torch.randn(2, 80, 64, generator=generator)
    batch[0, :, :frames] = short[0]
    with torch.no_grad():
        alone, count = native(short, torch.tensor([frames]))
        together, counts = native(batch, torch.tensor([frames, 64]))
    valid = (frames + 1) // 2
    assert count.tolist() == [valid]
    assert counts.tolist() == [valid, 32]
    torch.testing.assert_close(together[0, :valid], alone[0], rtol=0, atol=1e-5)


def test_native_training_mode_drops_and_backpropagates(signal):
    model, extractor = tiny()
    model.config.dropout = 0.5
    model.get_encoder().dropout = 0.5
    encoder = WhisperEncoder(model, extractor, "native").train()
    first, _ = encoder.encode([signal(8000)])
    second, _ = encoder.encode([signal(8000)])
    assert not torch.equal(first, second)
    first.square().mean().backward()
    assert float(encoder.model.conv1.weight.grad.abs().sum()) > 0


def test_full_and_native_layer_drop_leave_out_layers_in_training_only(signal):
    model, extractor = tiny()
    encoder = WhisperEncoder(model, extractor, "native")
    encoder.model.layerdrop = 1.1
    calls = []
    for layer in encoder.model.layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    encode(encoder.train(), [signal(3200)])
    assert not calls
    encode(encoder.eval(), [signal(3200)])
    assert len(calls) == 2


def test_both_whisper_classes_are_accepted(signal):
    model, extractor = tiny()
    whole = WhisperEncoder(model.eval(), extractor)
    inner = WhisperEncoder(model.model.eval(), extractor)
    assert whole.model is inner.model


def test_an_unknown_padding_is_refused_with_the_ones_on_offer():
    with pytest.raises(ConfigError, match=r"'natve' was asked for\. Did you mean native"):
        WhisperEncoder(*tiny(), padding="natve")


def test_an_extractor_of_another_window_is_refused():
    with pytest.raises(CheckpointError, match=r"80 mel bins x 200 frames.*80 x 3000"):
        WhisperEncoder(tiny()[0], WhisperFeatureExtractor())


def test_native_features_longer_than_the_positions_are_refused(native):
    with pytest.raises(ShapeError, match=r"210 feature frames.* 200 \(2 s\)"):
        native(torch.zeros(1, 80, 210), torch.tensor([210]))


def test_window_and_rate_come_from_the_config(full):
    assert full.window_s == 2.0
    assert full.frame_rate == 50.0
    assert full.sample_rate == 16000


def test_the_feed_forward_is_a_span(full):
    site = full.site("layer.1.ffn")
    assert (site.read, site.write, site.tap) == (
        "layers.1.fc1",
        "layers.1.fc2",
        "layers.1.final_layer_norm",
    )
    assert (site.dim_in, site.dim_out) == (32, 32)

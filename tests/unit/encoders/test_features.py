from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor, SeamlessM4TFeatureExtractor, WhisperFeatureExtractor

from speechadapt.core.errors import ShapeError
from speechadapt.encoders.features import ast_fbank, seamless_fbank, whisper_log_mel

RATE = 16000


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("samples", [16123, 7000, 47999])
def test_seamless_fbank_equals_the_extractor(signal, stride, samples):
    clip = signal(samples, seed=samples % 5)
    extractor = SeamlessM4TFeatureExtractor(stride=stride)
    expected = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt")["input_features"]
    features, lengths = seamless_fbank([clip], stride, 80)
    assert int(lengths) == (1 + (samples - 400) // 160) // stride
    torch.testing.assert_close(features, expected[:, : int(lengths)], rtol=0, atol=1e-5)


def test_seamless_fbank_without_normalisation_equals_the_extractor(signal):
    clip = signal(20000)
    expected = SeamlessM4TFeatureExtractor()(
        clip.numpy(), sampling_rate=RATE, do_normalize_per_mel_bins=False, return_tensors="pt"
    )["input_features"]
    features, lengths = seamless_fbank([clip], 2, 80, normalise=False)
    torch.testing.assert_close(features, expected[:, : int(lengths)], rtol=0, atol=1e-5)


def test_seamless_fbank_of_a_batch_is_bitwise_that_of_its_clips_and_zero_elsewhere(signal):
    clips = [signal(count, seed) for seed, count in enumerate((16000, 40111, 900, 160, 1))]
    features, lengths = seamless_fbank(clips, 4, 80)
    for row, clip in enumerate(clips):
        alone, count = seamless_fbank([clip], 4, 80)
        assert torch.equal(features[row, : int(count)], alone[0])
        assert int(lengths[row]) == int(count)
        assert not features[row, int(count) :].any()


def test_seamless_fbank_crosses_its_block_border_unchanged(signal):
    long = signal(25 * RATE)  # more frames than one block holds
    features, _ = seamless_fbank([long], 1, 80, normalise=False)
    cut, _ = seamless_fbank([long[160 * 1000 :]], 1, 80, normalise=False)
    torch.testing.assert_close(features[0, 1000:], cut[0], rtol=0, atol=1e-6)


def test_seamless_fbank_of_one_frame_is_zero_not_nan():
    features, lengths = seamless_fbank([torch.ones(10)], 1, 80)
    assert lengths.tolist() == [1]
    assert torch.equal(features, torch.zeros(1, 1, 80))


def whisper_extractor(mels: int = 80) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=mels, chunk_length=2)


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("samples", [1, 160, 9999, 31650, 31841, 31999, 32000])
def test_full_log_mel_equals_the_extractor(signal, mels, samples):
    clip = signal(samples, seed=3)
    extractor = whisper_extractor(mels)
    expected = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt")["input_features"]
    features, lengths = whisper_log_mel([clip], extractor, "full")
    assert features.shape == (1, mels, 200)
    assert lengths.tolist() == [max(samples // 160, 1)]
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)


def test_full_log_mel_of_a_batch_equals_its_clips(signal):
    clips = [signal(count, seed) for seed, count in enumerate((4000, 32000, 160))]
    features, _ = whisper_log_mel(clips, whisper_extractor(), "full")
    for row, clip in enumerate(clips):
        alone, _ = whisper_log_mel([clip], whisper_extractor(), "full")
        torch.testing.assert_close(features[row], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("samples", [8000, 12345, 31841, 32000])
def test_native_log_mel_is_the_start_of_the_full_one(signal, samples):
    clip = signal(samples)
    full, _ = whisper_log_mel([clip], whisper_extractor(), "full")
    native, lengths = whisper_log_mel([clip], whisper_extractor(), "native")
    assert native.shape[2] == int(lengths) == samples // 160
    torch.testing.assert_close(native, full[:, :, : samples // 160], rtol=0, atol=1e-6)


def test_native_range_ends_eight_decades_below_the_clips_own_loudest_frame():
    quiet, loud = torch.zeros(8000), torch.zeros(8000)
    quiet[4000] = 1e-3
    loud[4000] = 1.0
    features, _ = whisper_log_mel([quiet, loud], whisper_extractor(), "native")
    spans = features.amax(dim=(1, 2)) - features.amin(dim=(1, 2))
    assert float(spans[1]) == pytest.approx(2.0, abs=1e-6)
    assert float(spans[0]) < 2.0


def test_native_range_ignores_what_only_frames_past_the_clip_can_see(signal):
    clip = 1e-4 * signal(8159)  # 50 whole hops; the last samples lie beyond frame 49
    clip[-1] = 1.0
    alone, _ = whisper_log_mel([clip], whisper_extractor(), "native")
    together, _ = whisper_log_mel([clip, signal(16000)], whisper_extractor(), "native")
    full, _ = whisper_log_mel([clip], whisper_extractor(), "full")
    torch.testing.assert_close(together[0, :, :50], alone[0], rtol=0, atol=1e-6)
    assert float(full.amax() - alone.amax()) > 0.5


def test_native_log_mel_of_a_batch_equals_its_clips_and_is_zero_past_them(signal):
    clips = [signal(count, seed) for seed, count in enumerate((16000, 31841, 5431, 160, 1))]
    features, lengths = whisper_log_mel(clips, whisper_extractor(), "native")
    for row, clip in enumerate(clips):
        alone, count = whisper_log_mel([clip], whisper_extractor(), "native")
        valid = int(count)
        assert int(lengths[row]) == valid
        torch.testing.assert_close(features[row, :, :valid], alone[0], rtol=0, atol=1e-6)
        assert not features[row, :, valid:].any()


def test_ast_fbank_equals_the_extractor_and_counts_true_frames(signal):
    clips = [signal(16000, 1), signal(5431, 2), signal(32000, 3)]
    extractor = ASTFeatureExtractor(max_length=200)
    features, lengths = ast_fbank(clips, extractor)
    expected = [
        extractor(clip.numpy(), sampling_rate=RATE, return_tensors="np")["input_values"][0]
        for clip in clips
    ]
    assert np.array_equal(features.numpy(), np.stack(expected))
    assert lengths.tolist() == [98, 32, 198]


def test_ast_fbank_of_less_than_one_frame_is_one_frame():
    features, lengths = ast_fbank([torch.full((7,), 0.5)], ASTFeatureExtractor(max_length=200))
    assert lengths.tolist() == [1]
    assert not torch.equal(features[0, 0], features[0, 1])
    assert torch.equal(features[0, 1], features[0, 2])


@pytest.mark.parametrize("padding", ["full", "native"])
def test_log_mel_of_too_long_a_clip_names_row_and_both_lengths(padding):
    clips = [torch.zeros(100), torch.zeros(32001)]
    with pytest.raises(
        ShapeError, match=r"clip 1 .*\(32001 samples\).* 2\.000 s \(32000 samples\)"
    ):
        whisper_log_mel(clips, whisper_extractor(), padding)


def test_ast_fbank_of_too_long_a_clip_is_refused_not_cut():
    with pytest.raises(ShapeError, match=r"\(32001 samples\).*\(32000 samples\)"):
        ast_fbank([torch.zeros(32001)], ASTFeatureExtractor(max_length=200))


def test_an_empty_batch_is_refused():
    for extract in (
        lambda: seamless_fbank([], 2, 80),
        lambda: whisper_log_mel([], whisper_extractor()),
        lambda: ast_fbank([], ASTFeatureExtractor(max_length=200)),
    ):
        with pytest.raises(ShapeError, match="at least one"):
            extract()

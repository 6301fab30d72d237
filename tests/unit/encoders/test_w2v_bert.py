from __future__ import annotations

import pytest
import torch
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.w2v_bert import W2vBertEncoder


def build(stride: int = 2, **options) -> W2vBertEncoder:
    settings = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "feature_projection_input_dim": 80 * stride,
        "layerdrop": 0.0,
        "apply_spec_augment": False,
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    model = Wav2Vec2BertModel(Wav2Vec2BertConfig(**{**settings, **options}))
    return W2vBertEncoder(model.eval(), SeamlessM4TFeatureExtractor(stride=stride))


@pytest.mark.parametrize("positions", ["rotary", "relative", "relative_key", None])
def test_padding_never_changes_valid_frames_with_any_kind_of_positions(positions, signal):
    encoder = build(position_embeddings_type=positions)
    clips = [signal(6000, 1), signal(24000, 2), signal(160, 3)]
    with torch.no_grad():
        frames, lengths = encoder.encode(clips)
        for row, clip in enumerate(clips):
            alone, count = encoder.encode([clip])
            assert int(count) == int(lengths[row])
            torch.testing.assert_close(frames[row, : int(count)], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("stride", "rate"), [(1, 100.0), (2, 50.0), (4, 25.0)])
def test_the_frame_rate_follows_the_stride(stride, rate, signal):
    encoder = build(stride)
    _, lengths = encoder.encode([signal(32000)])
    assert encoder.frame_rate == rate
    assert abs(int(lengths) - 2 * rate) <= 2


def test_every_weight_that_takes_part_gets_a_gradient_in_training(signal):
    encoder = build(stride=4, position_embeddings_type="rotary").train()
    frames, lengths = encoder.encode([signal(16000, 1), signal(9000, 2)])
    valid = torch.arange(frames.shape[1])[None] < lengths[:, None]
    (frames * torch.linspace(-1, 1, 32))[valid].sum().backward()
    without = [
        name
        for name, parameter in encoder.model.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.isfinite().all())
    ]
    assert without in ([], ["masked_spec_embed"])


def test_training_works_after_encoding_the_same_length_in_inference_mode(signal):
    encoder = build(position_embeddings_type="rotary", conformer_conv_dropout=0.0)
    clip = signal(8000)
    with torch.inference_mode():
        before, _ = encoder.encode([clip])
    after, _ = encoder.train().encode([clip])
    after.sum().backward()
    torch.testing.assert_close(after.detach(), before.clone())


def test_changing_precision_between_two_inputs_of_one_length_works(signal):
    encoder = build(position_embeddings_type="rotary")
    with torch.no_grad():
        encoder.encode([signal(8000)])
        frames, _ = encoder.to(torch.bfloat16).encode([signal(8000)])
    assert frames.dtype == torch.bfloat16


def test_a_models_own_spec_augment_applies_in_training_only(signal):
    encoder = build(
        apply_spec_augment=True, mask_time_prob=0.5, mask_time_length=2, mask_time_min_masks=4
    )
    with torch.no_grad():
        plain, _ = encoder.encode([signal(16000)])
        again, _ = encoder.encode([signal(16000)])
        masked, _ = encoder.train().encode([signal(16000)])
    assert torch.equal(plain, again)
    assert not torch.allclose(plain, masked, atol=1e-3)


def test_an_extractor_of_another_stride_is_refused():
    with pytest.raises(CheckpointError, match=r"rows of 160 values.*stacks 4 x 80 = 320"):
        W2vBertEncoder(build(2).model, SeamlessM4TFeatureExtractor(stride=4))


def test_a_down_sampling_model_is_refused():
    with pytest.raises(CheckpointError, match="add_adapter=true"):
        build(add_adapter=True)


def test_conformer_sites_carry_the_half_step_and_the_place_before_the_closing_norm():
    encoder = build()
    assert encoder.site("layer.0.ffn1").branch_scale == 0.5
    assert encoder.site("layer.0.ffn2").branch_scale == 0.5
    assert encoder.site("layer.0.attn").branch_scale == 1.0
    assert encoder.site("layer.0.ffn1.down").branch_scale == 1.0
    end = encoder.site("layer.1.end")
    assert end.writes_input
    assert end.write == "encoder.layers.1.final_layer_norm"
    assert encoder.window_s is None

"""Small w2v-BERT-architecture models made from scratch, in the ordinary on-disk format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
)

from speechadapt.audio.augment import AugmentConfig, augment_features
from speechadapt.core.limits import Count, Probability
from speechadapt.encoders.features import seamless_fbank
from speechadapt.text.alphabet import Alphabet
from speechadapt.training.speech import SpeechRow


@dataclass(frozen=True)
class ConformerConfig:
    """Shape of a Conformer.

    Args:
        dim: Width.
        layers: Number of layers.
        heads: Attention heads.
        feed_forward: Inner width of each of the two feed-forwards of a layer.
        kernel: Frames the depthwise convolution sees.
        stride: Frames of 10 ms stacked into one; the frame rate is 100 / stride Hz.
        dropout: On the output of every block; inside the blocks there is none, because drawing the
            masks costs a quarter of a training step on a CPU.
        layer_drop: Probability of leaving a layer out while training.
    """

    dim: Count = 192
    layers: Count = 6
    heads: Count = 4
    feed_forward: Count = 544
    kernel: Count = 15
    stride: Count = 3
    dropout: Probability = 0.1
    layer_drop: Probability = 0.0


def new_extractor(config: ConformerConfig) -> SeamlessM4TFeatureExtractor:
    """Return the feature extractor that stacks `config.stride` frames of 80 mel bands."""
    return SeamlessM4TFeatureExtractor(
        feature_size=80, num_mel_bins=80, sampling_rate=16000, stride=config.stride
    )


def new_model(config: ConformerConfig, alphabet: Alphabet) -> Wav2Vec2BertForCTC:
    """Return a randomly initialised CTC model."""
    settings = Wav2Vec2BertConfig(
        vocab_size=len(alphabet.symbols),
        hidden_size=config.dim,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.feed_forward,
        feature_projection_input_dim=80 * config.stride,
        hidden_dropout=config.dropout,
        activation_dropout=0.0,
        attention_dropout=0.0,
        conformer_conv_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=config.dropout,
        layerdrop=config.layer_drop,
        apply_spec_augment=False,
        mask_time_prob=0.0,
        position_embeddings_type="rotary",
        conv_depthwise_kernel_size=config.kernel,
        add_adapter=False,
        pad_token_id=alphabet.blank_id,
        bos_token_id=None,
        eos_token_id=None,
    )
    return Wav2Vec2BertForCTC(settings)


def stacked_features(
    rows: list[SpeechRow], augment: AugmentConfig, stride: int, step: int
) -> tuple[Tensor, Tensor]:
    """Extract, augment, stack and pad the features of training rows.

    Args:
        rows: Signals at 16 kHz.
        augment: Augmentation of the features.
        stride: Frames in a stack.
        step: Training step, for masks that start late.

    Returns:
        Features `[batch, frames, 80 * stride]` and valid frames per row; at least one each.
    """
    features, lengths = seamless_fbank([torch.from_numpy(row.signal) for row in rows], 1, 80)
    stacked: list[np.ndarray] = []
    for values, length, row in zip(features.numpy(), lengths.tolist(), rows, strict=True):
        changed = augment_features(values[:length], augment, row.random, step)
        count = max(1, len(changed) // stride)
        missing = count * stride - len(changed)
        changed = np.pad(changed, ((0, max(0, missing)), (0, 0)))[: count * stride]
        stacked.append(changed.reshape(count, stride * changed.shape[1]))
    counts = torch.tensor([len(item) for item in stacked])
    batch = torch.zeros(len(stacked), int(counts.max()), stacked[0].shape[1])
    for number, item in enumerate(stacked):
        batch[number, : len(item)] = torch.from_numpy(item)
    return batch, counts


def save_model(
    model: Wav2Vec2BertForCTC,
    extractor: SeamlessM4TFeatureExtractor,
    alphabet: Alphabet,
    folder: Path,
) -> None:
    """Write model (fp16), extractor and alphabet to `folder`."""
    import copy

    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).to(torch.float16).save_pretrained(folder)
    extractor.save_pretrained(folder)
    alphabet.write(folder)

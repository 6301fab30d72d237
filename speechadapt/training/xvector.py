"""Small x-vector models on log-mel features, in transformers' format.

The class is `Wav2Vec2BertForXVector` with no Transformer layer at all: stacked log-mel features, a
layer norm of each stack, a linear map, dilated convolutions, mean and deviation over time, and a
linear map to the vector. Its second linear map, on which the class takes its loss, is the identity
and stays it, so that the cosine of vectors is what was trained. The features are not normalised
over the clip, which would take away the mean spectrum, most of what tells voices apart in a second
of speech; `config.json` says so (`do_normalize_per_mel_bins`).

Source: x-vectors, D. Snyder et al., ICASSP 2018, section 2; additive margin,
    https://arxiv.org/abs/1801.05599.
Differs: discriminant analysis of the vectors comes before training here, as their start, where the
    source has it after.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertForXVector

from speechadapt.audio.augment import Signal
from speechadapt.core.limits import Count, NotNegative, Positive, Probability
from speechadapt.encoders.source import quiet_progress

_MELS = 80
_SHRINKAGE = 0.5


@dataclass(frozen=True)
class XvectorConfig:
    """Shape of an x-vector model, and its loss.

    Args:
        dim: Channels that the features are mapped to.
        channels: Channels of the convolutions, first to last.
        kernels: Frames each of them sees.
        dilations: Frames from one of these to the next.
        vector: Length of the vector.
        stride: Frames of 10 ms stacked into one.
        dropout: On the mapped features.
        margin: By how much the cosine with the right voice is lowered in training.
        sharpness: What cosines are multiplied by before the softmax.
    """

    dim: Count = 128
    channels: tuple[int, ...] = (128, 128, 128, 128, 384)
    kernels: tuple[int, ...] = (5, 3, 3, 1, 1)
    dilations: tuple[int, ...] = (1, 2, 3, 1, 1)
    vector: Count = 128
    stride: Count = 2
    dropout: Probability = 0.1
    margin: NotNegative = 0.2
    sharpness: Positive = 30.0

    @property
    def context(self) -> int:
        """Stacked frames that one value before the pooling stands for."""
        return 1 + sum((k - 1) * d for k, d in zip(self.kernels, self.dilations, strict=False))

    def problems(self) -> list[str]:
        """Say which settings cannot be built."""
        sizes = len(self.channels), len(self.kernels), len(self.dilations)
        if len(set(sizes)) > 1 or not sizes[0]:
            return [
                "channels, kernels and dilations must be as many as there are convolutions, got "
                f"{sizes[0]}, {sizes[1]} and {sizes[2]}."
            ]
        if min(*self.channels, *self.kernels, *self.dilations) < 1:
            return ["channels, kernels and dilations must be 1 or more."]
        return []


def new_xvector(config: XvectorConfig, voices: int) -> Wav2Vec2BertForXVector:
    """Return an untrained model.

    Args:
        config: Its shape.
        voices: How many voices its loss tells apart.
    """
    model = Wav2Vec2BertForXVector(
        Wav2Vec2BertConfig(
            hidden_size=config.dim,
            num_hidden_layers=0,
            num_attention_heads=1,
            feature_projection_input_dim=_MELS * config.stride,
            feat_proj_dropout=0.0,
            hidden_dropout=config.dropout,
            apply_spec_augment=False,
            mask_time_prob=0.0,
            position_embeddings_type=None,
            add_adapter=False,
            tdnn_dim=config.channels,
            tdnn_kernel=config.kernels,
            tdnn_dilation=config.dilations,
            xvector_output_dim=config.vector,
            num_labels=voices,
            do_normalize_per_mel_bins=False,
        )
    )
    for layer in model.tdnn:
        # no norm stands between the layers, so each has to keep the size of what goes in
        nn.init.kaiming_normal_(layer.kernel.weight, nonlinearity="relu")
    model.objective.margin, model.objective.scale = config.margin, config.sharpness
    with torch.no_grad():
        nn.init.eye_(model.classifier.weight)
        model.classifier.bias.zero_()
    model.classifier.requires_grad_(False)
    return model


@torch.no_grad()
def start_apart(model: Wav2Vec2BertForXVector, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Let the vectors start as a linear discriminant analysis of what untrained layers give.

    Pooled values of different recordings are nearly alike at first, so all cosines are near 1 and a
    loss on cosines has little to say. Here the vector becomes the directions in which the means of
    voices differ most, relative to how the pieces of one voice differ, and each voice's column of
    the loss the mean of its vectors. Directions that the voices do not span stay random.

    Args:
        model: Untrained; its map to the vector and its loss are written.
        batches: Stacked features `[batch, frames, mels]`, and whose voice each row is.
    """
    values, voices = _pooled(model, batches)
    known = torch.tensor(sorted(set(voices.tolist())))
    place = torch.searchsorted(known, voices)
    counts = torch.bincount(place)
    mean = values.mean(0)
    sums = values.new_zeros(len(known), values.shape[1]).index_add_(0, place, values - mean)
    centres = sums / counts[:, None]
    within = values - mean - centres[place]
    scatter = within.T @ within / len(values)
    scatter += _SHRINKAGE * scatter.diagonal().mean() * torch.eye(len(scatter))
    sizes, axes = torch.linalg.eigh(scatter)
    white = axes / sizes.clamp(min=1e-8).sqrt()
    _, _, directions = torch.linalg.svd(
        (centres @ white) * counts[:, None].sqrt(), full_matrices=False
    )
    count = min(len(known) - 1, model.feature_extractor.out_features)
    rows = directions[:count] @ white.T
    model.feature_extractor.weight[:count] = rows
    model.feature_extractor.bias[:count] = -rows @ mean
    vectors = model.feature_extractor(values)
    totals = vectors.new_zeros(len(known), vectors.shape[1]).index_add_(0, place, vectors)
    model.objective.weight[:, known] = (totals / counts[:, None]).T


def _pooled(
    model: Wav2Vec2BertForXVector, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[Float[Tensor, "rows values"], Int[Tensor, " rows"]]:
    """Return means and deviations over time, and whose they are."""
    pooled: list[Tensor] = []
    voices: list[Tensor] = []
    hook = model.feature_extractor.register_forward_pre_hook(
        lambda module, inputs: pooled.append(inputs[0])
    )
    was_training = model.training
    model.eval()
    for features, labels in batches:
        model(input_features=features)
        voices.append(labels)
    hook.remove()
    model.train(was_training)
    return torch.cat(pooled), torch.cat(voices)


def save_xvector(model: Wav2Vec2BertForXVector, stride: int, voices: int, folder: Path) -> None:
    """Write a model in half precision, with its feature extractor.

    Args:
        model: The model.
        stride: Frames of 10 ms stacked into one.
        voices: How many of the loss's voices to keep, the first ones.
        folder: Is made.
    """
    kept = copy.deepcopy(model)
    with torch.no_grad():
        kept.objective.weight = nn.Parameter(kept.objective.weight[:, :voices].clone())
    kept.config.num_labels = voices
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_progress():
        kept.to(torch.float16).save_pretrained(folder)
    SeamlessM4TFeatureExtractor(
        feature_size=_MELS, num_mel_bins=_MELS, sampling_rate=16000, stride=stride
    ).save_pretrained(folder)


def pieces(signal: Signal, count: int) -> list[Signal]:
    """Cut a recording into pieces of one length; a shorter one stays whole.

    Args:
        signal: Samples.
        count: Samples of a piece; what is left at the end and is shorter belongs to the last one.
    """
    number = max(1, len(signal) // count)
    starts = [place * count for place in range(number)]
    return [
        signal[start : start + count if place < number - 1 else None]
        for place, start in enumerate(starts)
    ]

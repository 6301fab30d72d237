"""The USM-like encoder: w2v-BERT 2.0, a Conformer on stacked filter banks.

Takes recordings of any length. A key mask goes to every layer and the convolutions look back only,
so padding never changes a valid frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

from speechadapt.core.errors import CheckpointError
from speechadapt.core.shapes import Clip, Frames, Lengths, Mask, padding_mask
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.features import seamless_fbank
from speechadapt.encoders.sites import ConvShape, Part, Site, at, by_role, with_heads
from speechadapt.encoders.source import load_extractor, load_weights

MODEL_TYPE = "wav2vec2-bert"


class W2vBertEncoder(Encoder):
    """Frames of an unmodified `Wav2Vec2BertModel`.

    In training mode the model's own dropout, layer drop and SpecAugment apply as its config says.

    Args:
        model: The transformers model, without the optional down-sampling adapter.
        extractor: Its feature extractor; gives the stride and the mel bins.

    Raises:
        CheckpointError: The extractor's rows do not fit the model, or the model down-samples.
    """

    family = "w2v_bert"
    model: Wav2Vec2BertModel

    def __init__(self, model: Wav2Vec2BertModel, extractor: SeamlessM4TFeatureExtractor) -> None:
        super().__init__()
        config = model.config
        width = extractor.stride * extractor.num_mel_bins
        if width != config.feature_projection_input_dim:
            raise CheckpointError(
                f"w2v_bert takes rows of {config.feature_projection_input_dim} values, but the "
                f"extractor stacks {extractor.stride} x {extractor.num_mel_bins} = {width}. "
                "Save the extractor the model was trained with beside it."
            )
        if config.add_adapter:
            raise CheckpointError(
                "w2v_bert with add_adapter=true was asked for; only the model without its strided "
                "adapter is supported, because there padding changes valid frames."
            )
        self.model = model
        self.extractor = extractor
        self.sample_rate = int(extractor.sampling_rate)
        self.frame_rate = 100.0 / extractor.stride
        self.dim = int(config.hidden_size)
        self.window_s = None
        self.masks_padding = True
        self.sites = sites(config)

    def extract(
        self, waveforms: Sequence[Clip]
    ) -> tuple[Float[Tensor, "batch frames stacked"], Lengths]:
        """Compute stacked filter banks (see `features.seamless_fbank`).

        Args:
            waveforms: Mono signals at 16 kHz, full scale 1.0, of any lengths.

        Returns:
            One row per stack, and the valid number of stacks per clip.
        """
        return seamless_fbank(waveforms, self.extractor.stride, self.extractor.num_mel_bins)

    def forward(
        self, features: Float[Tensor, "batch frames stacked"], lengths: Lengths
    ) -> tuple[Frames, Lengths]:
        """Encode stacked filter banks.

        Args:
            features: As returned by `extract`.
            lengths: Valid rows per clip.

        Returns:
            One frame per row of features, and `lengths`; frames past a length mean nothing.
        """
        self._forget_positions()
        mask = padding_mask(lengths, features.shape[1])
        asked = None if mask is None else mask.long()
        output = self.model(input_features=features, attention_mask=asked)
        return output.last_hidden_state, lengths

    def residual_mask(
        self, features: Float[Tensor, "batch frames stacked"], lengths: Lengths
    ) -> Mask | None:
        """Return the valid frames: the positions of the features are those of the residual stream.

        Args:
            features: As returned by `extract`.
            lengths: Valid rows per clip.
        """
        return padding_mask(lengths, features.shape[1])

    def _forget_positions(self) -> None:
        # transformers keeps the rotary table of the last length whatever its device, dtype or
        # inference mode; a table made under inference_mode cannot take part in training
        positions = self.model.encoder.embed_positions
        if getattr(positions, "cached_sequence_length", None) is not None:
            positions.cached_sequence_length = None
            positions.cached_rotary_positional_embedding = None


def sites(config: Any) -> dict[str, Site]:
    """Return the table of sites of a `Wav2Vec2BertModel`, by role.

    `conv` reads the residual stream itself, because its norm lies inside the module. `ffn1` and
    `ffn2` are halved by the layer after the module, hence their `branch_scale`; the linear maps
    inside them (`up`, `down`) are plain weights and carry none. `end` writes before the layer's
    closing norm, which then still bounds the output.

    Args:
        config: The model's `Wav2Vec2BertConfig`.
    """
    table = [site for i in range(config.num_hidden_layers) for site in _layer_sites(i, config)]
    first, last = "encoder.layers.0", f"encoder.layers.{config.num_hidden_layers - 1}"
    dim = config.hidden_size
    table.append(Site("encoder", first, f"{last}.final_layer_norm", dim, dim, kind="LayerNorm"))
    return by_role(with_heads(table, config.num_attention_heads))


def _layer_sites(index: int, config: Any) -> list[Site]:
    dim = config.hidden_size
    role, path = f"layer.{index}", f"encoder.layers.{index}"
    attention, conv = f"{path}.self_attn", f"{path}.conv_module"
    # the module pads on the left itself, before the depthwise convolution
    depthwise = ConvShape(config.conv_depthwise_kernel_size, groups=dim)
    return [
        *_feed_forward_sites(role, path, "ffn1", config),
        at(f"{role}.norm.attn", f"{path}.self_attn_layer_norm", dim, dim, "LayerNorm"),
        at(f"{role}.attn.q", f"{attention}.linear_q", dim, dim),
        at(f"{role}.attn.k", f"{attention}.linear_k", dim, dim),
        at(f"{role}.attn.v", f"{attention}.linear_v", dim, dim),
        at(f"{role}.attn.out", f"{attention}.linear_out", dim, dim),
        Site(
            f"{role}.attn",
            read=attention,
            write=f"{attention}.linear_out",
            dim_in=dim,
            dim_out=dim,
            tap=f"{path}.self_attn_layer_norm",
            part=_attention_part(config),
            prefix=_attention_prefix(config),
        ),
        at(f"{role}.norm.conv", f"{conv}.layer_norm", dim, dim, "LayerNorm"),
        at(f"{role}.conv.pw1", f"{conv}.pointwise_conv1", dim, 2 * dim, "Conv1d", ConvShape(1)),
        at(f"{role}.conv.depthwise", f"{conv}.depthwise_conv", dim, dim, "Conv1d", depthwise),
        at(f"{role}.norm.depthwise", f"{conv}.depthwise_layer_norm", dim, dim, "LayerNorm"),
        at(f"{role}.conv.pw2", f"{conv}.pointwise_conv2", dim, dim, "Conv1d", ConvShape(1)),
        Site(
            f"{role}.conv",
            read=conv,
            write=conv,
            dim_in=dim,
            dim_out=dim,
            tap=f"{conv}.layer_norm",
            kind="Wav2Vec2BertConvolutionModule",
        ),
        *_feed_forward_sites(role, path, "ffn2", config),
        Site(
            f"{role}.end",
            read=path,
            write=f"{path}.final_layer_norm",
            dim_in=dim,
            dim_out=dim,
            kind="LayerNorm",
            writes_input=True,
        ),
        at(f"{role}.norm.final", f"{path}.final_layer_norm", dim, dim, "LayerNorm"),
    ]


def _attention_part(config: Any) -> Part | None:
    """Return how some frames can attend: not by relative positions, computed as if none lacked."""
    positions = {None: "", "rotary": "relative_position_embeddings"}
    kind = config.position_embeddings_type
    return Part("attention_mask", positions[kind]) if kind in positions else None


def _attention_prefix(config: Any) -> Part | None:
    """Return how a prefix can go ahead: not where a table of all distances is handed in.

    With `relative_key` the attention counts distances itself; the prefix is then as far away as
    frames before the first one would be.
    """
    positions = {None: "", "relative_key": "", "rotary": "relative_position_embeddings"}
    kind = config.position_embeddings_type
    return Part("attention_mask", positions[kind]) if kind in positions else None


def _feed_forward_sites(role: str, path: str, name: str, config: Any) -> list[Site]:
    dim, wide = config.hidden_size, config.intermediate_size
    norm = f"{path}.{name}_layer_norm"
    return [
        at(f"{role}.norm.{name}", norm, dim, dim, "LayerNorm"),
        at(f"{role}.{name}.up", f"{path}.{name}.intermediate_dense", dim, wide),
        at(f"{role}.{name}.down", f"{path}.{name}.output_dense", wide, dim),
        Site(
            f"{role}.{name}",
            read=f"{path}.{name}",
            write=f"{path}.{name}",
            dim_in=dim,
            dim_out=dim,
            tap=norm,
            branch_scale=0.5,
            kind="Wav2Vec2BertFeedForward",
            part=Part(),
        ),
    ]


def legacy_names() -> dict[str, str]:
    """Map module paths of transformers 4.57 to roles, `<i>` standing for the layer.

    For reading adapter files of that time; the encoder's names have not moved since.
    """
    layer, role = "encoder.layers.<i>", "layer.<i>"
    names = {
        f"{layer}.self_attn.linear_q": f"{role}.attn.q",
        f"{layer}.self_attn.linear_k": f"{role}.attn.k",
        f"{layer}.self_attn.linear_v": f"{role}.attn.v",
        f"{layer}.self_attn.linear_out": f"{role}.attn.out",
        f"{layer}.self_attn_layer_norm": f"{role}.norm.attn",
        f"{layer}.conv_module.pointwise_conv1": f"{role}.conv.pw1",
        f"{layer}.conv_module.depthwise_conv": f"{role}.conv.depthwise",
        f"{layer}.conv_module.pointwise_conv2": f"{role}.conv.pw2",
        f"{layer}.conv_module.layer_norm": f"{role}.norm.conv",
        f"{layer}.conv_module.depthwise_layer_norm": f"{role}.norm.depthwise",
        f"{layer}.final_layer_norm": f"{role}.norm.final",
    }
    for name in ("ffn1", "ffn2"):
        names[f"{layer}.{name}.intermediate_dense"] = f"{role}.{name}.up"
        names[f"{layer}.{name}.output_dense"] = f"{role}.{name}.down"
        names[f"{layer}.{name}_layer_norm"] = f"{role}.norm.{name}"
    return names


def load(directory: Path, padding: str, dtype: torch.dtype) -> W2vBertEncoder:
    """Load the encoder from a transformers model folder.

    Args:
        directory: Holds `config.json`, `preprocessor_config.json` and safetensors weights.
        padding: Every family is asked for one; this one never pads to a window and ignores it.
        dtype: Precision of the weights in memory.

    Raises:
        CheckpointError: The folder is incomplete or does not fit together.
    """
    del padding
    model = load_weights(Wav2Vec2BertModel, directory, dtype)
    return W2vBertEncoder(model, load_extractor(SeamlessM4TFeatureExtractor, directory))


def tiny() -> tuple[Wav2Vec2BertModel, SeamlessM4TFeatureExtractor]:
    """Build a random model of two layers at 50 Hz, and its extractor."""
    config = Wav2Vec2BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        layerdrop=0.0,
        apply_spec_augment=False,
        initializer_range=0.2,
    )
    return Wav2Vec2BertModel(config), SeamlessM4TFeatureExtractor()

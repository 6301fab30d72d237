"""The encoder of Whisper, at its full padded window or at the clips' native length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
    WhisperPreTrainedModel,
)
from transformers.masking_utils import create_bidirectional_mask

from speechadapt.core.errors import CheckpointError, ShapeError
from speechadapt.core.shapes import Clip, Frames, Lengths, Mask, length_mask, padding_mask
from speechadapt.encoders.base import Encoder, check_padding
from speechadapt.encoders.features import whisper_log_mel
from speechadapt.encoders.sites import ConvShape, Part, Site, at, by_role, with_heads
from speechadapt.encoders.source import load_extractor, load_weights

MODEL_TYPE = "whisper"


class WhisperEncoder(Encoder):
    """Frames of an unmodified Whisper encoder.

    `full` pads every clip to the model's window and runs the transformers encoder as it is. It has
    no mask, so silence takes part in the attention, as it did when the model was trained.
    `native` runs the same modules over the clips' true length: positions are sliced, padding is
    masked as a key in every layer and set to zero in the stem, so it never changes a valid frame.
    It costs a fraction of the time, and its frames differ from the full ones, except where a clip
    fills the window.

    Args:
        model: A Whisper model, or the encoder of one (another `WhisperEncoder`'s `model`, for two
            paddings over one set of weights); the encoder module becomes `self.model`.
        extractor: The model's feature extractor.
        padding: `full` or `native`.

    Raises:
        ConfigError: `padding` is neither.
        CheckpointError: The extractor's window or mel bins do not fit the model.
    """

    family = "whisper"
    model: WhisperPreTrainedModel

    def __init__(
        self,
        model: WhisperPreTrainedModel,
        extractor: WhisperFeatureExtractor,
        padding: str = "full",
    ) -> None:
        super().__init__()
        check_padding(padding)
        self.model = model.get_encoder()
        self.config = self.model.config
        self.extractor = extractor
        self.padding = padding
        self.sample_rate = int(extractor.sampling_rate)
        self.frame_rate = self.sample_rate / extractor.hop_length / 2
        self.dim = int(self.config.d_model)
        self.window_s = self.config.max_source_positions / self.frame_rate
        self.masks_padding = padding == "native"
        self.sites = sites(self.config)
        _check_fit(self.config, extractor)

    def extract(
        self, waveforms: Sequence[Clip]
    ) -> tuple[Float[Tensor, "batch mels time"], Lengths]:
        """Compute log-mel features (see `features.whisper_log_mel`).

        Args:
            waveforms: Mono signals at 16 kHz, full scale 1.0, none longer than `window_s`.

        Returns:
            Features at 100 Hz, padded to the window or to the longest clip, and the valid frames
            per clip.

        Raises:
            ShapeError: A clip is longer than the window; the message names both lengths.
        """
        return whisper_log_mel(waveforms, self.extractor, self.padding)

    def forward(
        self, features: Float[Tensor, "batch mels time"], lengths: Lengths
    ) -> tuple[Frames, Lengths]:
        """Encode log-mel features.

        Args:
            features: As returned by `extract`, with the same padding.
            lengths: Valid feature frames per row, at least 1.

        Returns:
            Frames at `frame_rate` and the valid number of them, half the feature frames rounded
            up. With `full` the frames past a length are those of the silence that follows the
            clip; with `native` they mean nothing.

        Raises:
            ShapeError: The features are longer than the window.
        """
        valid = (lengths - 1) // 2 + 1
        if self.padding == "full":
            return self.model(features).last_hidden_state, valid
        return self._native(features, lengths, valid), valid

    def residual_mask(
        self, features: Float[Tensor, "batch mels time"], lengths: Lengths
    ) -> Mask | None:
        """Return the valid frames at native length; None at the full window, which has no mask.

        Args:
            features: As returned by `extract`.
            lengths: Valid feature frames per row.
        """
        if self.padding == "full":
            return None
        return padding_mask((lengths - 1) // 2 + 1, (features.shape[-1] - 1) // 2 + 1)

    def _native(
        self, features: Float[Tensor, "batch mels time"], lengths: Lengths, valid: Lengths
    ) -> Frames:
        encoder = self.model
        padded = padding_mask(lengths, features.shape[-1]) is not None
        states = self._stem(features, lengths, valid, padded).transpose(1, 2)
        states = states + encoder.embed_positions.weight[: states.shape[1]]
        states = nn.functional.dropout(states, p=encoder.dropout, training=encoder.training)
        mask = None
        if padded:
            mask = create_bidirectional_mask(
                config=self.config,
                inputs_embeds=states,
                attention_mask=length_mask(valid, states.shape[1]),
            )
        for layer in encoder.layers:
            dropped = encoder.training and torch.rand([]).item() < encoder.layerdrop
            if not dropped:
                states = layer(states, mask)
        frames: Frames = encoder.layer_norm(states)
        return frames

    def _stem(
        self,
        features: Float[Tensor, "batch mels time"],
        lengths: Lengths,
        valid: Lengths,
        padded: bool,
    ) -> Float[Tensor, "batch dim reduced"]:
        most = 2 * self.config.max_source_positions
        if features.shape[-1] > most:
            raise ShapeError(
                f"whisper at native length was given {features.shape[-1]} feature frames, but has "
                f"positions for {most} ({self.window_s:g} s). Cut recordings to the window first."
            )
        gelu, conv1, conv2 = nn.functional.gelu, self.model.conv1, self.model.conv2
        if not padded:
            return gelu(conv2(gelu(conv1(features))))
        # each convolution must see zeros past the clip, as it does where the clip ends the input
        states = _zero_past(gelu(conv1(_zero_past(features, lengths))), lengths)
        return _zero_past(gelu(conv2(states)), valid)


def _zero_past(
    states: Float[Tensor, "batch channels time"], lengths: Lengths
) -> Float[Tensor, "batch channels time"]:
    return states.masked_fill(~length_mask(lengths, states.shape[-1])[:, None, :], 0.0)


def _check_fit(config: Any, extractor: WhisperFeatureExtractor) -> None:
    window = 2 * config.max_source_positions
    if extractor.nb_max_frames != window or extractor.feature_size != config.num_mel_bins:
        raise CheckpointError(
            f"whisper takes {config.num_mel_bins} mel bins x {window} frames, but the extractor "
            f"gives {extractor.feature_size} x {extractor.nb_max_frames}. "
            "Save the extractor the model was trained with beside it."
        )


def sites(config: Any) -> dict[str, Site]:
    """Return the table of sites of a Whisper encoder, by role.

    Whisper has its feed-forward inline, so `ffn` is a span: it reads at the first map's input,
    writes at the second one's output and taps the input of the norm before. `stem.conv.<k>` counts
    from 0.

    Args:
        config: The model's `WhisperConfig`.
    """
    dim = config.d_model
    last = config.encoder_layers - 1
    table = [
        at("stem.conv.0", "conv1", config.num_mel_bins, dim, "Conv1d", ConvShape(3, 1, 1)),
        at("stem.conv.1", "conv2", dim, dim, "Conv1d", ConvShape(3, 2, 1)),
    ]
    for index in range(last + 1):
        table += _layer_sites(index, dim, config.encoder_ffn_dim)
    table.append(Site("encoder", "layers.0", "layer_norm", dim, dim, kind="LayerNorm"))
    return by_role(with_heads(table, config.encoder_attention_heads))


def _layer_sites(index: int, dim: int, wide: int) -> list[Site]:
    role, path = f"layer.{index}", f"layers.{index}"
    attention = f"{path}.self_attn"
    attention_norm, feed_forward_norm = f"{path}.self_attn_layer_norm", f"{path}.final_layer_norm"
    return [
        at(f"{role}.norm.attn", attention_norm, dim, dim, "LayerNorm"),
        at(f"{role}.attn.q", f"{attention}.q_proj", dim, dim),
        at(f"{role}.attn.k", f"{attention}.k_proj", dim, dim),
        at(f"{role}.attn.v", f"{attention}.v_proj", dim, dim),
        at(f"{role}.attn.out", f"{attention}.out_proj", dim, dim),
        Site(
            f"{role}.attn",
            attention,
            f"{attention}.out_proj",
            dim,
            dim,
            tap=attention_norm,
            part=Part(mask="attention_mask", keys="key_value_states"),
            prefix=Part(mask="attention_mask"),
        ),
        at(f"{role}.norm.ffn", feed_forward_norm, dim, dim, "LayerNorm"),
        at(f"{role}.ffn.up", f"{path}.fc1", dim, wide),
        at(f"{role}.ffn.down", f"{path}.fc2", wide, dim),
        Site(
            f"{role}.ffn",
            f"{path}.fc1",
            f"{path}.fc2",
            dim,
            dim,
            tap=feed_forward_norm,
            part=Part(),
        ),
        at(f"{role}.end", path, dim, dim, "WhisperEncoderLayer"),
    ]


def legacy_names() -> dict[str, str]:
    """Map module paths of transformers 4.57 to roles, `<i>` standing for the layer.

    For reading adapter files of that time; the encoder's names have not moved since.
    """
    return {
        "conv1": "stem.conv.0",
        "conv2": "stem.conv.1",
        "layers.<i>.self_attn.q_proj": "layer.<i>.attn.q",
        "layers.<i>.self_attn.k_proj": "layer.<i>.attn.k",
        "layers.<i>.self_attn.v_proj": "layer.<i>.attn.v",
        "layers.<i>.self_attn.out_proj": "layer.<i>.attn.out",
        "layers.<i>.fc1": "layer.<i>.ffn.up",
        "layers.<i>.fc2": "layer.<i>.ffn.down",
        "layers.<i>.self_attn_layer_norm": "layer.<i>.norm.attn",
        "layers.<i>.final_layer_norm": "layer.<i>.norm.ffn",
    }


def load(directory: Path, padding: str, dtype: torch.dtype) -> WhisperEncoder:
    """Load the encoder from a transformers model folder.

    Args:
        directory: Holds `config.json`, `preprocessor_config.json` and safetensors weights.
        padding: `full` or `native`.
        dtype: Precision of the weights in memory.

    Raises:
        CheckpointError: The folder is incomplete or does not fit together.
    """
    model = load_weights(WhisperModel, directory, dtype)
    return WhisperEncoder(model, load_extractor(WhisperFeatureExtractor, directory), padding)


def tiny() -> tuple[WhisperForConditionalGeneration, WhisperFeatureExtractor]:
    """Build a random model of two layers with a 2 s window, and its extractor."""
    config = WhisperConfig(
        vocab_size=64,
        num_mel_bins=80,
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=48,
        max_source_positions=100,
        max_target_positions=32,
        init_std=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
    )
    return WhisperForConditionalGeneration(config), WhisperFeatureExtractor(chunk_length=2)

"""The audio spectrogram transformer: patches of a spectrogram, as frames along time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

from speechadapt.core.errors import CheckpointError
from speechadapt.core.shapes import Clip, Frames, Lengths
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.features import ast_fbank
from speechadapt.encoders.sites import ConvShape, Grid, Part, Site, at, by_role, with_heads
from speechadapt.encoders.source import load_extractor, load_weights

MODEL_TYPE = "audio-spectrogram-transformer"
_SPECIAL_TOKENS = 2  # class and distillation


class AstEncoder(Encoder):
    """Frames of an unmodified `ASTModel`.

    The model cuts its fixed window into overlapping patches, `grid` of them over frequency and
    time. A frame is the mean of the patches at one time. The model has no mask, so what pads a
    clip to the window takes part in the attention.

    Args:
        model: The transformers model.
        extractor: Its feature extractor.

    Raises:
        CheckpointError: The extractor's window or mel bins do not fit the model.
    """

    family = "ast"
    model: ASTModel

    def __init__(self, model: ASTModel, extractor: ASTFeatureExtractor) -> None:
        super().__init__()
        config = model.config
        if (extractor.max_length, extractor.num_mel_bins) != (
            config.max_length,
            config.num_mel_bins,
        ):
            raise CheckpointError(
                f"ast takes {config.num_mel_bins} mel bins x {config.max_length} frames, but the "
                f"extractor gives {extractor.num_mel_bins} x {extractor.max_length}. "
                "Save the extractor the model was trained with beside it."
            )
        self.model = model
        self.config = config
        self.extractor = extractor
        self.sample_rate = int(extractor.sampling_rate)
        self.frame_rate = 100.0 / config.time_stride
        self.dim = int(config.hidden_size)
        self.window_s = config.max_length / 100.0
        self.masks_padding = False
        self.sites = sites(config)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along frequency and along time."""
        grid = grid_of(self.config)
        return grid.rows, grid.columns

    def extract(
        self, waveforms: Sequence[Clip]
    ) -> tuple[Float[Tensor, "batch time mels"], Lengths]:
        """Compute filter banks (see `features.ast_fbank`).

        Args:
            waveforms: Mono signals at 16 kHz, full scale 1.0, none longer than `window_s`.

        Returns:
            Features at 100 Hz, padded to the window, and the valid frames per clip.

        Raises:
            ShapeError: A clip is longer than the window; the message names both lengths.
        """
        return ast_fbank(waveforms, self.extractor)

    def forward(
        self, features: Float[Tensor, "batch time mels"], lengths: Lengths
    ) -> tuple[Frames, Lengths]:
        """Encode filter banks.

        Args:
            features: As returned by `extract`.
            lengths: Valid feature frames per row.

        Returns:
            One frame per time step of the grid, the mean over frequency, and per row the number of
            steps whose patches lie wholly in the clip (at least 1).
        """
        patches = self.tokens(features)[:, _SPECIAL_TOKENS:]
        frames = patches.reshape(patches.shape[0], *self.grid, self.dim).mean(dim=1)
        whole = (lengths - self.config.patch_size) // self.config.time_stride + 1
        return frames, whole.clamp(1, self.grid[1])

    def residual_mask(self, features: Float[Tensor, "batch time mels"], lengths: Lengths) -> None:
        """Return None: the model has no mask, so padding is part of its input.

        Args:
            features: As returned by `extract`.
            lengths: Valid feature frames per row.
        """
        del features, lengths

    def tokens(
        self, features: Float[Tensor, "batch time mels"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """Encode filter banks to the model's whole token sequence.

        Args:
            features: As returned by `extract`.

        Returns:
            The class token, the distillation token, then the patches with time running fastest:
            the patch at (frequency, time) of `grid` is token `2 + frequency * grid[1] + time`.
        """
        states: Tensor = self.model(features).last_hidden_state
        return states


def grid_of(config: Any) -> Grid:
    """Return how the tokens of an `ASTModel` lie.

    Args:
        config: The model's `ASTConfig`.
    """
    patch = config.patch_size
    rows = (config.num_mel_bins - patch) // config.frequency_stride + 1
    columns = (config.max_length - patch) // config.time_stride + 1
    return Grid(_SPECIAL_TOKENS, rows, columns)


def sites(config: Any) -> dict[str, Site]:
    """Return the table of sites of an `ASTModel`, by role.

    Args:
        config: The model's `ASTConfig`.
    """
    dim = config.hidden_size
    patch = config.patch_size
    cut = ConvShape(patch, config.time_stride, across=(patch, config.frequency_stride))
    table = [at("stem.conv.0", "embeddings.patch_embeddings.projection", 1, dim, "Conv2d", cut)]
    for index in range(config.num_hidden_layers):
        table += _layer_sites(index, dim, config.intermediate_size)
    table.append(Site("encoder", "layers.0", "layernorm", dim, dim, kind="LayerNorm"))
    grid = grid_of(config)
    # the stem's own tokens are patches too, but a convolution gives them as a picture
    placed = [site if site.conv else replace(site, grid=grid) for site in table]
    return by_role(with_heads(placed, config.num_attention_heads))


def _layer_sites(index: int, dim: int, wide: int) -> list[Site]:
    role, path = f"layer.{index}", f"layers.{index}"
    attention, before, after = (
        f"{path}.attention",
        f"{path}.layernorm_before",
        f"{path}.layernorm_after",
    )
    return [
        at(f"{role}.norm.attn", before, dim, dim, "LayerNorm"),
        at(f"{role}.attn.q", f"{attention}.q_proj", dim, dim),
        at(f"{role}.attn.k", f"{attention}.k_proj", dim, dim),
        at(f"{role}.attn.v", f"{attention}.v_proj", dim, dim),
        at(f"{role}.attn.out", f"{attention}.o_proj", dim, dim),
        Site(
            f"{role}.attn",
            attention,
            f"{attention}.o_proj",
            dim,
            dim,
            tap=before,
            part=Part(mask="attention_mask"),
            prefix=Part(mask="attention_mask"),
        ),
        at(f"{role}.norm.ffn", after, dim, dim, "LayerNorm"),
        at(f"{role}.ffn.up", f"{path}.mlp.fc1", dim, wide),
        at(f"{role}.ffn.down", f"{path}.mlp.fc2", wide, dim),
        Site(
            f"{role}.ffn",
            f"{path}.mlp",
            f"{path}.mlp",
            dim,
            dim,
            tap=after,
            kind="ASTMLP",
            part=Part(),
        ),
        at(f"{role}.end", path, dim, dim, "ASTLayer"),
    ]


def legacy_names() -> dict[str, str]:
    """Map module paths of transformers 4.57 to roles, `<i>` standing for the layer.

    For reading adapter files of that time.
    """
    layer, role = "encoder.layer.<i>", "layer.<i>"
    return {
        "embeddings.patch_embeddings.projection": "stem.conv.0",
        f"{layer}.attention.attention.query": f"{role}.attn.q",
        f"{layer}.attention.attention.key": f"{role}.attn.k",
        f"{layer}.attention.attention.value": f"{role}.attn.v",
        f"{layer}.attention.output.dense": f"{role}.attn.out",
        f"{layer}.intermediate.dense": f"{role}.ffn.up",
        f"{layer}.output.dense": f"{role}.ffn.down",
        f"{layer}.layernorm_before": f"{role}.norm.attn",
        f"{layer}.layernorm_after": f"{role}.norm.ffn",
    }


def load(directory: Path, padding: str, dtype: torch.dtype) -> AstEncoder:
    """Load the encoder from a transformers model folder.

    Args:
        directory: Holds `config.json`, `preprocessor_config.json` and safetensors weights.
        padding: Every family is asked for one; this one always pads to its window and ignores it.
        dtype: Precision of the weights in memory.

    Raises:
        CheckpointError: The folder is incomplete or does not fit together.
    """
    del padding
    model = load_weights(ASTModel, directory, dtype)
    return AstEncoder(model, load_extractor(ASTFeatureExtractor, directory))


def tiny() -> tuple[ASTModel, ASTFeatureExtractor]:
    """Build a random model of two layers with a 2 s window, and its extractor."""
    config = ASTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_length=200,
        num_mel_bins=128,
        initializer_range=0.2,
    )
    return ASTModel(config), ASTFeatureExtractor(max_length=200)

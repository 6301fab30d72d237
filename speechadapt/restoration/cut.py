"""A frozen encoder that ends after one of its layers; the layers above are neither read nor run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.encoders.catalog import family_of
from speechadapt.encoders.source import Source, fingerprint_folder, load_extractor, load_weights

if TYPE_CHECKING:
    from speechadapt.encoders.w2v_bert import W2vBertEncoder

FAMILY = "w2v_bert"


def load_cut(
    directory: Path, layers: int, *, name: str | None = None, dtype: torch.dtype = torch.float32
) -> W2vBertEncoder:
    """Load the first layers of a w2v-BERT encoder.

    Its frames are the whole model's hidden states after that layer.

    Args:
        directory: A transformers model folder.
        layers: How many layers to keep, counted from the input.
        name: What the encoder is called in what is saved with it; the folder where None.
        dtype: Precision of the weights in memory.

    Returns:
        The encoder, frozen and in evaluation mode.

    Raises:
        ConfigError: The model has fewer layers, or is of another family.
        CheckpointError: The folder is incomplete or damaged.
    """
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

    from speechadapt.encoders.w2v_bert import W2vBertEncoder

    family = family_of(directory)
    if family != FAMILY:
        raise ConfigError(
            f"features of '{directory.name}' were asked for, an encoder of the family {family}; "
            f"restoration needs one of {FAMILY}."
        )
    try:
        config = Wav2Vec2BertConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"config.json of '{directory}' cannot be used: {error}") from error
    if not 1 <= layers <= config.num_hidden_layers:
        raise ConfigError(
            f"layer {layers} was asked for; '{directory.name}' has 1 to {config.num_hidden_layers}."
        )
    config.num_hidden_layers = layers
    model = load_weights(Wav2Vec2BertModel, directory, dtype, config)
    encoder = W2vBertEncoder(model, load_extractor(SeamlessM4TFeatureExtractor, directory))
    source = str(directory) if name is None else name
    encoder.source = Source(source, "local", fingerprint_folder(directory))
    encoder.freeze()
    return encoder

"""Models that tell speakers apart: a recording becomes a vector, near for the same voice."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from speechadapt.audio.span import Signal
from speechadapt.core.errors import CatalogError, CheckpointError
from speechadapt.encoders.source import fingerprint_module, load_extractor, load_weights
from speechadapt.models.card import bundled_models

DEFAULT = "mini-xvector"


@runtime_checkable
class SpeakerModel(Protocol):
    """What compares speakers."""

    def embed(self, waveform: Signal) -> Signal:
        """Return a vector of length 1.

        Args:
            waveform: Half a second or more at 16 kHz.
        """

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells this model from others, JSON types only."""


class TransformersSpeakerModel:
    """An x-vector model in the format of transformers (WavLM, wav2vec 2.0, UniSpeech, ...).

    Args:
        folder: The model folder.

    Raises:
        CheckpointError: It holds none.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioXVector

        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"'{folder}' holds no speaker model: {error}") from error
        named = [name for name in config.architectures or () if name.endswith("ForXVector")]
        if not named:
            raise CheckpointError(
                f"'{folder}' holds {config.architectures}; a speaker model ends in ForXVector."
            )
        self._model = load_weights(AutoModelForAudioXVector, folder, torch.float32)
        self._extractor: Any = load_extractor(AutoFeatureExtractor, folder)
        told = config.to_dict().items()
        # extractors of log-mel features ask for it in each call
        self._told = {key: value for key, value in told if key == "do_normalize_per_mel_bins"}

    @torch.inference_mode()
    def embed(self, waveform: Signal) -> Signal:
        """Return a vector of length 1.

        Args:
            waveform: Half a second or more at 16 kHz.
        """
        inputs = self._extractor(waveform, sampling_rate=16000, return_tensors="pt", **self._told)
        vector = self._model(**inputs).embeddings[0].float().numpy()
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells this model from others, JSON types only."""
        return {
            "weights": fingerprint_module(self._model),
            "versions": {name: version(name) for name in ("torch", "transformers")},
        }


def load_speaker_model(name: str | Path | None = None) -> SpeakerModel:
    """Load a speaker model.

    Args:
        name: A folder; None means the bundled `mini-xvector`.

    Raises:
        CatalogError: There is none of that name.
        CheckpointError: The folder holds something else.
    """
    asked = DEFAULT if name is None else str(name)
    bundled = bundled_models()
    folder = bundled.get(asked, Path(asked).expanduser())
    if folder.is_dir():
        return TransformersSpeakerModel(folder)
    if asked == DEFAULT:
        raise CatalogError(
            f"speakers were to be compared, but '{DEFAULT}' did not come with this installation. "
            "Give --speaker-model FOLDER, an x-vector model in the format of transformers (such as "
            "WavLMForXVector)."
        )
    raise CatalogError(f"there is no speaker model's folder '{asked}'.")

"""A merged Whisper folder as a CTranslate2 model, for faster-whisper and others.

Adapters are merged first (see `adapters.merge`): CTranslate2 knows ordinary weights alone.

Source: https://opennmt.net/CTranslate2/guides/transformers.html
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from speechadapt.core.errors import CheckpointError, ConfigError, MissingExtra, near_misses

QUANTISATIONS = ("int8", "int8_float32", "int8_float16", "int16", "float16", "float32")
_COPIED = ("tokenizer.json", "preprocessor_config.json")


def export(folder: Path, output: Path, quantisation: str | None = None) -> Path:
    """Convert a Whisper folder.

    Args:
        folder: A transformers folder of `WhisperForConditionalGeneration`, with tokenizer.
        output: Where to write; it must not hold anything.
        quantisation: Precision of the written weights; that of the folder where None.

    Returns:
        `output`.

    Raises:
        MissingExtra: CTranslate2 is not installed.
        ConfigError: The quantisation is unknown.
        CheckpointError: The folder is no Whisper, `output` is not empty, or it cannot be converted.
    """
    if quantisation is not None and quantisation not in QUANTISATIONS:
        raise ConfigError(
            f"export.quantisation '{quantisation}' was asked for."
            f"{near_misses(quantisation, QUANTISATIONS)}"
        )
    _check_whisper(folder)
    if output.exists() and any(output.iterdir()):
        raise CheckpointError(f"'{output}' was to hold the converted model, but is not empty.")
    converters = _library("ctranslate2.converters")
    copied = [name for name in _COPIED if (folder / name).is_file()]
    try:
        converter = converters.TransformersConverter(str(folder), copy_files=copied)
        converter.convert(str(output), quantization=quantisation, force=True)
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"'{folder}' was to be converted for CTranslate2, but: {error}"
        ) from error
    return output


def generate(
    folder: Path,
    features: Float[Tensor, "batch mels time"],
    prompt: Sequence[int],
    max_tokens: int = 448,
) -> list[list[int]]:
    """Return the tokens that a converted model chooses greedily, to compare with the original's.

    Args:
        folder: A folder that `export` wrote.
        features: Log-mel features, padded to the model's window.
        prompt: Tokens that every row starts with.
        max_tokens: Longest output, the prompt counted.

    Returns:
        Tokens per row, without the prompt.

    Raises:
        MissingExtra: CTranslate2 is not installed.
    """
    ctranslate2 = _library("ctranslate2")
    model = ctranslate2.models.Whisper(str(folder), device="cpu")
    rows = np.ascontiguousarray(features.float().cpu().numpy())
    results = model.generate(
        ctranslate2.StorageView.from_array(rows),
        [list(prompt)] * len(rows),
        beam_size=1,
        max_length=max_tokens,
        suppress_blank=False,
        suppress_tokens=[],
    )
    return [list(result.sequences_ids[0]) for result in results]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra("export", "the export to CTranslate2") from error


def _check_whisper(folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = config.get("architectures") or [config.get("model_type")]
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"'{folder}' was to be converted for CTranslate2, but has no readable config.json."
        ) from error
    if found[0] != "WhisperForConditionalGeneration":
        raise CheckpointError(
            f"'{folder}' was to be converted for CTranslate2, but holds {found[0]}. Only a whole "
            "Whisper (WhisperForConditionalGeneration) can be; merge into one that has its decoder."
        )

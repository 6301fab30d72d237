"""Vocoders on disk: `config.json` with kind, sides and shape, and `model.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from speechadapt.core.bind import bind
from speechadapt.core.errors import CheckpointError
from speechadapt.core.files import atomic_write, atomic_write_json, read_json
from speechadapt.restoration.istft import IstftConfig, IstftVocoder
from speechadapt.restoration.vocoder import Speech, Vocoder
from speechadapt.restoration.wavefit import WaveFitConfig, WaveFitVocoder

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
KINDS = ("istft", "wavefit")
_CONFIGS: Mapping[str, type] = {"istft": IstftConfig, "wavefit": WaveFitConfig}


def make_vocoder(speech: Speech, config: IstftConfig | WaveFitConfig) -> Vocoder:
    """Build an untrained vocoder.

    Args:
        speech: Its two sides.
        config: Its shape, which says of what kind it is.

    Raises:
        ConfigError: The shape does not fit the two sides.
    """
    if isinstance(config, WaveFitConfig):
        return WaveFitVocoder(speech, config)
    return IstftVocoder(speech, config)


def save_vocoder(vocoder: Vocoder, folder: Path, features: Mapping[str, Any]) -> Path:
    """Write a vocoder.

    Args:
        vocoder: The vocoder.
        folder: Is made; files of an earlier save are replaced.
        features: Which features it was made for, as JSON values.

    Returns:
        `folder`.

    Raises:
        CheckpointError: A tensor holds NaN or infinity.
    """
    tensors = {
        key: value.detach().cpu().contiguous().clone()
        for key, value in vocoder.state_dict().items()
    }
    bad = [key for key, value in tensors.items() if not bool(value.isfinite().all())]
    if bad:
        raise CheckpointError(
            f"a vocoder was to be saved, but {len(bad)} of its tensors hold NaN or infinity, first "
            f"'{bad[0]}'. Nothing was saved."
        )
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt"}
    atomic_write(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata=metadata))
    facts = {
        "kind": vocoder.kind,
        "speech": asdict(vocoder.speech),
        "config": asdict(vocoder.config),
        "features": dict(features),
    }
    atomic_write_json(folder / CONFIG, facts)
    return folder


def read_vocoder(folder: Path) -> dict[str, Any]:
    """Return what a folder says about the vocoder it holds.

    Raises:
        CheckpointError: It holds none that this release knows.
    """
    try:
        facts: dict[str, Any] = read_json(folder / CONFIG)
        known = facts["kind"] in KINDS and {"speech", "config", "features"} <= facts.keys()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"'{folder}' was to be read as a vocoder, but: {error}") from error
    if not known:
        raise CheckpointError(
            f"'{folder}' holds a vocoder of the kind '{facts['kind']}'; known are "
            f"{' and '.join(KINDS)}."
        )
    return facts


def load_vocoder(folder: Path) -> Vocoder:
    """Load a saved vocoder, frozen and in evaluation mode.

    Args:
        folder: What `save_vocoder` wrote.

    Raises:
        CheckpointError: The folder is damaged.
    """
    facts = read_vocoder(folder)
    config: Any
    config, problems = bind(_CONFIGS[facts["kind"]], facts["config"], "config")
    speech = Speech(**facts["speech"])
    if problems:
        raise CheckpointError(f"{CONFIG} of '{folder}' cannot be used: {' '.join(problems)}")
    vocoder = make_vocoder(speech, config)
    try:
        vocoder.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{WEIGHTS} of '{folder}' cannot be used: {error}") from error
    vocoder.requires_grad_(False)
    return vocoder.eval()

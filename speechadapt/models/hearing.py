"""A decoder's folder that names the frozen encoder it hears with, and does not hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError
from speechadapt.decoders.masked_diffusion.store import Heard, read_heard
from speechadapt.encoders.source import fingerprint_folder

ENCODER_MODEL = "encoder_model"


@dataclass(frozen=True)
class Hearing:
    """What a folder hears with, as it was asked for.

    Args:
        name: The encoder's model: the one the folder names, or another place for it.
        heard: What the folder says about it.
        options: The decoder's own options, by name.
    """

    name: str
    heard: Heard
    options: dict[str, Any]


def read_hearing(folder: Path, config: Mapping[str, Any], options: Mapping[str, Any]) -> Hearing:
    """Return the encoder that a folder hears with.

    Args:
        folder: The decoder's model folder.
        config: Its `config.json`.
        options: What was asked for; `encoder_model` says where the encoder is, if not under its
            own name.

    Raises:
        CheckpointError: The folder holds a model of text alone, or is damaged.
        ConfigError: Another padding was asked for than it was trained with.
    """
    heard = read_heard(config, folder.name)
    if heard is None:
        raise CheckpointError(
            f"'{folder.name}' holds a model of text alone, which hears nothing. Train it on an "
            "encoder's frames first: speechadapt train recipe=diffusion/adapter."
        )
    own = dict(options)
    name = str(own.pop(ENCODER_MODEL, heard.name))
    padding = own.pop("padding", heard.padding)
    if padding != heard.padding:
        raise ConfigError(
            f"padding={padding} was asked of '{folder.name}', which was trained with "
            f"padding={heard.padding}. Leave padding out."
        )
    return Hearing(name, heard, own)


def check_encoder(hearing: Hearing, owner: str, encoder_folder: Path) -> None:
    """Refuse an encoder whose weights are not those that were heard in training.

    Args:
        hearing: What is needed.
        owner: The decoder's folder, for messages.
        encoder_folder: What was found.

    Raises:
        CheckpointError: The weights are others.
    """
    if fingerprint_folder(encoder_folder) != hearing.heard.fingerprint:
        raise CheckpointError(
            f"'{owner}' was trained on other weights than '{hearing.name}' holds now. Name the "
            f"folder of those it was trained on: {ENCODER_MODEL}=FOLDER."
        )


def missing_encoder(hearing: Hearing, owner: str, error: CatalogError) -> CatalogError:
    """Return the error for an encoder that is not there, with the way to name its place.

    Args:
        hearing: What is needed.
        owner: The decoder's folder, for messages.
        error: Why it was not found.
    """
    return CatalogError(
        f"'{owner}' hears with the encoder of '{hearing.heard.name}', but {error} "
        f"Name that model's folder: {ENCODER_MODEL}=FOLDER."
    )
